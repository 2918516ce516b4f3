//! The latest answer, broadcast to nodes that wait to be listed again.

use tokio::sync::watch;

use crate::discovery::Membership;
use crate::node_id::NodeId;

/// The latest answer of the source.
#[derive(Debug, Clone)]
pub(super) struct LatestAnswer(watch::Receiver<Membership>);

impl LatestAnswer {
    pub(super) fn new(answers: &watch::Sender<Membership>) -> Self {
        Self(answers.subscribe())
    }

    /// Waits for an answer that lists the node after one that did not. Never resolves after the sender is dropped.
    pub(super) async fn until_listed_again(&self, id: &NodeId) {
        let mut latest = self.0.clone();
        let mut was_listed = latest.borrow_and_update().lists(id);
        while latest.changed().await.is_ok() {
            let is_listed = latest.borrow_and_update().lists(id);
            if is_listed && !was_listed {
                return;
            }
            was_listed = is_listed;
        }
        std::future::pending().await
    }
}
