//! The status channel: how discovery is doing, from the refresh task to the application.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::discovery::DiscoveryError;

/// How discovery is doing, at the time it was asked.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DiscoveryStatus {
    /// The outcome of the last poll, and what it means for the nodes.
    pub state: DiscoveryState,
    /// The number of nodes in use, including those within their removal grace.
    pub nodes: usize,
    /// The number of nodes in use that the last answer did not list. They leave when their grace ends.
    pub vanished: usize,
    /// The time since an answer last listed nodes; `None` if none ever did.
    pub last_ok: Option<Duration>,
    /// The error of the last poll that failed or found no nodes. Later polls may have succeeded.
    pub last_error: Option<DiscoveryError>,
    /// The number of polls so far.
    pub polls: u64,
    /// The number of polls that failed or found no nodes.
    pub errors: u64,
    /// The time until the next poll; `None` if there is none.
    pub next_poll: Option<Duration>,
}

/// The outcome of the last poll, and what it means for the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DiscoveryState {
    /// No answer yet.
    Starting,
    /// The last poll listed nodes.
    Fresh,
    /// The last poll failed. The nodes of the last good answer stay in use.
    Stale,
    /// The last answer listed nothing. The nodes known before stay in use.
    EmptyHeld,
    /// The last answer listed nothing, and no node is in use.
    Empty,
    /// The list of nodes is fixed, or valid until the source reports a change.
    Static,
}

/// The same as [`DiscoveryStatus`], with points in time instead of durations.
#[derive(Debug, Clone)]
pub(super) struct StatusRecord {
    pub(super) state: DiscoveryState,
    pub(super) nodes: usize,
    pub(super) vanished: usize,
    pub(super) last_ok: Option<Instant>,
    pub(super) last_error: Option<DiscoveryError>,
    pub(super) polls: u64,
    pub(super) errors: u64,
    pub(super) next_poll: Option<Instant>,
    /// The last demand for a poll that was sent before the last poll began.
    pub(super) answered_demand: u64,
}

impl StatusRecord {
    pub(super) fn new(state: DiscoveryState) -> Self {
        Self {
            state,
            nodes: 0,
            vanished: 0,
            last_ok: None,
            last_error: None,
            polls: 0,
            errors: 0,
            next_poll: None,
            answered_demand: 0,
        }
    }

    /// Counts a poll and its outcome.
    pub(super) fn count_poll(&mut self, now: Instant, error: Option<DiscoveryError>) {
        self.polls += 1;
        match error {
            None => self.last_ok = Some(now),
            Some(error) => {
                self.errors += 1;
                self.last_error = Some(error);
            }
        }
    }

    fn at(self, now: Instant) -> DiscoveryStatus {
        DiscoveryStatus {
            state: self.state,
            nodes: self.nodes,
            vanished: self.vanished,
            last_ok: self.last_ok.map(|then| now.saturating_duration_since(then)),
            last_error: self.last_error,
            polls: self.polls,
            errors: self.errors,
            next_poll: self.next_poll.map(|then| then.saturating_duration_since(now)),
        }
    }
}

/// The reading end of the status channel. After discovery has ended it keeps the last status.
#[derive(Debug, Clone)]
pub(super) struct StatusReader(watch::Receiver<StatusRecord>);

impl StatusReader {
    pub(super) fn new(records: &watch::Sender<StatusRecord>) -> Self {
        Self(records.subscribe())
    }

    pub(super) fn status(&self) -> DiscoveryStatus {
        self.0.borrow().clone().at(Instant::now())
    }

    /// Waits until the status changes after the last [`last_error`](Self::last_error).
    ///
    /// # Errors
    /// If discovery has ended.
    pub(super) async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.0.changed().await
    }

    /// Waits until a poll has answered the demand, or discovery has ended.
    pub(super) async fn answered(mut self, demand: u64) {
        let _ = self.0.wait_for(|status| status.answered_demand >= demand).await;
    }

    pub(super) fn last_error(&mut self) -> Option<DiscoveryError> {
        self.0.borrow_and_update().last_error.clone()
    }
}
