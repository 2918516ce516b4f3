//! What the rest of the client holds of its discovery.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::discovery::{DiscoveryError, NodeLocator, Roster, Startup, StatusReader};

/// The client's end of discovery.
#[derive(Debug, Clone)]
pub(crate) struct DiscoveryHandle {
    /// The nodes in use. Closes when the refresh task ends.
    pub(crate) roster: watch::Receiver<Arc<Roster>>,
    pub(crate) locator: NodeLocator,
    pub(crate) status: StatusReader,
}

impl DiscoveryHandle {
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
