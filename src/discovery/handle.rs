//! What the rest of the client holds of its discovery.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::discovery::status::StatusReader;
use crate::discovery::{DiscoveryError, DiscoveryStatus, NodeLocator, Roster, Startup};

/// The client's end of discovery. It does not keep the source alive: the source may have tasks of its own, which must
/// end with the refresh task.
#[derive(Debug, Clone)]
pub(crate) struct DiscoveryHandle {
    /// The nodes in use. Closes when the refresh task ends.
    pub(crate) roster: watch::Receiver<Arc<Roster>>,
    pub(crate) locator: NodeLocator,
    pub(super) status: StatusReader,
}

impl DiscoveryHandle {
    pub(crate) fn status(&self) -> DiscoveryStatus {
        self.status.status()
    }

    /// Polls the source, and waits for the end of a poll that begins after this call, or of discovery. Returns the
    /// roster then.
    pub(crate) async fn poll_now(&self) -> Arc<Roster> {
        let demand = self.locator.poll_requests.demand();
        self.status.clone().answered(demand).await;
        Arc::clone(&self.roster.borrow())
    }

    /// Waits until nodes are known, if the start-up mode is [`Startup::Wait`].
    ///
    /// # Errors
    /// If no node was found in time, the error of the last poll. Returns a configuration error at once, because polling
    /// again does not help.
    pub(crate) async fn wait_for_nodes(&self, startup: &Startup) -> Result<(), DiscoveryError> {
        let Startup::Wait(limit) = startup else { return Ok(()) };
        match timeout(*limit, self.first_nodes()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.last_error()),
        }
    }

    async fn first_nodes(&self) -> Result<(), DiscoveryError> {
        let mut status = self.status.clone();
        let mut roster = self.roster.clone();
        loop {
            if !roster.borrow_and_update().endpoints.is_empty() {
                return Ok(());
            }
            if let Some(error @ DiscoveryError::Config(_)) = status.last_error() {
                return Err(error);
            }
            let changed = tokio::select! {
                biased;
                changed = roster.changed() => changed,
                changed = status.changed() => changed,
            };
            if changed.is_err() {
                return Err(self.last_error());
            }
        }
    }

    fn last_error(&self) -> DiscoveryError {
        self.status.clone().last_error().unwrap_or(DiscoveryError::Timeout)
    }
}
