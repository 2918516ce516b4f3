//! What discovery is doing, for whoever watches over it.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::discovery::DiscoveryError;

/// How discovery is doing, at the time it was asked.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DiscoveryStatus {
    /// Where discovery stands.
    pub state: DiscoveryState,
    /// How many nodes are in use, those within their removal grace included.
    pub nodes: usize,
    /// How many of them the last answer did not list: they leave when their grace ends.
    pub vanished: usize,
    /// How long ago an answer last listed nodes, if one ever did.
    pub last_ok: Option<Duration>,
    /// What the last poll that failed, or found nothing, said. The state tells whether that is still so.
    pub last_error: Option<DiscoveryError>,
    /// How often the source was asked.
    pub polls: u64,
    /// How often it failed, or found nothing.
    pub errors: u64,
    /// How long until it is asked again; `None` if it never is.
    pub next_poll: Option<Duration>,
}

/// Where discovery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DiscoveryState {
    /// No answer yet.
    Starting,
    /// The last poll listed nodes.
    Fresh,
    /// The last poll failed; the nodes of the last good answer stay in use.
    Stale,
    /// The last answer listed nothing; the nodes known before stay in use.
    EmptyHeld,
    /// The last answer listed nothing, and no node is in use.
    Empty,
    /// The list is fixed.
    Static,
}

/// What the refreshing task tells: see [`DiscoveryStatus`].
#[derive(Debug, Clone)]
pub(super) struct Progress {
    pub(super) state: DiscoveryState,
    pub(super) nodes: usize,
    pub(super) vanished: usize,
    pub(super) last_ok: Option<Instant>,
    pub(super) last_error: Option<DiscoveryError>,
    pub(super) polls: u64,
    pub(super) errors: u64,
    pub(super) next_poll: Option<Instant>,
}

/// Reads the progress, and goes on telling the last of it when discovery has ended. Holds on to nothing of it.
#[derive(Debug)]
pub(crate) struct Monitor(watch::Receiver<Progress>);

impl Monitor {
    pub(super) fn new(progress: watch::Receiver<Progress>) -> Self {
        Self(progress)
    }

    pub(crate) fn status(&self) -> DiscoveryStatus {
        let now = Instant::now();
        let progress = self.0.borrow().clone();
        DiscoveryStatus {
            state: progress.state,
            nodes: progress.nodes,
            vanished: progress.vanished,
            last_ok: progress.last_ok.map(|then| now.saturating_duration_since(then)),
            last_error: progress.last_error,
            polls: progress.polls,
            errors: progress.errors,
            next_poll: progress.next_poll.map(|then| then.saturating_duration_since(now)),
        }
    }
}
