//! Requests for an early poll, from the nodes to the refresh task.

use std::sync::Arc;

use tokio::sync::Notify;

/// Requests for an early poll. Any number of requests between two [`received`](Self::received) are one.
#[derive(Debug, Clone, Default)]
pub(super) struct PollRequests(Arc<Notify>);

impl PollRequests {
    pub(super) fn send(&self) {
        self.0.notify_one();
    }

    /// Waits for a request sent since this last resolved.
    pub(super) async fn received(&self) {
        self.0.notified().await;
    }
}
