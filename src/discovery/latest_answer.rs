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

    /// Waits until the latest answer lists the node. Never resolves after the sender is dropped.
    pub(super) async fn until_listed(&self, id: &NodeId) {
        self.until(|answer| answer.lists(id)).await;
    }

    /// Waits for an answer that lists the node after one that did not. Never resolves after the sender is dropped.
    pub(super) async fn until_listed_again(&self, id: &NodeId) {
        let mut was_listed = true;
        self.until(|answer| !std::mem::replace(&mut was_listed, answer.lists(id)) && was_listed).await;
    }

    async fn until(&self, condition: impl FnMut(&Membership) -> bool) {
        if self.0.clone().wait_for(condition).await.is_err() {
            std::future::pending().await
        }
    }
}
