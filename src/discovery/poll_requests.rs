//! Requests for an early poll, to the refresh task.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Requests for an early poll. Any number of them between two [`received`](Self::received) are one.
#[derive(Debug, Clone, Default)]
pub(super) struct PollRequests(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    received: Notify,
    /// The number of demands so far.
    demands: AtomicU64,
}

impl PollRequests {
    /// Sends a request of a node, which may be ignored.
    pub(super) fn send(&self) {
        self.0.received.notify_one();
    }

    /// Demands a poll for the application. Returns the number of the demand. A poll that begins later answers it.
    pub(super) fn demand(&self) -> u64 {
        let number = self.0.demands.fetch_add(1, Ordering::Relaxed) + 1;
        self.0.received.notify_one();
        number
    }

    /// Returns the number of the last demand, 0 if there was none.
    pub(super) fn last_demand(&self) -> u64 {
        self.0.demands.load(Ordering::Relaxed)
    }

    /// Waits for a request or demand sent since this last resolved.
    pub(super) async fn received(&self) {
        self.0.received.notified().await;
    }
}
