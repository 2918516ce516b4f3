//! The latest answer, broadcast to nodes that wait to be listed again.

use tokio::sync::watch;

use crate::discovery::{ListedAddresses, Membership};
use crate::node_id::NodeId;

/// The latest answer of the source.
#[derive(Debug, Clone)]
pub(super) struct LatestAnswer(watch::Receiver<Membership>);

impl LatestAnswer {
    pub(super) fn new(answers: &watch::Sender<Membership>) -> Self {
        Self(answers.subscribe())
    }

    /// Waits for an answer that makes another dial of an unreachable node worthwhile.
    ///
    /// That is an answer which lists the node again, or lists it without addresses, so that a lookup may find new ones.
    /// A node that stays listed at another address is notified through the topology instead. Never resolves after the
    /// sender is dropped.
    pub(super) async fn until_worth_redialing(&self, id: &NodeId) {
        let mut latest = self.0.clone();
        let mut before = latest.borrow_and_update().addresses_of(id).clone();
        while latest.changed().await.is_ok() {
            let listed = latest.borrow_and_update().addresses_of(id).clone();
            match (&before, &listed) {
                (_, ListedAddresses::WithoutAddresses) | (ListedAddresses::NotListed, ListedAddresses::At(_)) => return,
                (_, ListedAddresses::NotListed) | (_, ListedAddresses::At(_)) => before = listed,
            }
        }
        std::future::pending().await
    }
}
