//! The differences between topologies, and the watch that reports them.

use std::sync::Arc;

use tokio::sync::watch;

use super::TopologyView;
use crate::discovery::{Endpoint, ListedAddresses};
use crate::node_id::NodeId;

/// The difference between two topologies.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TopologyChange {
    /// The version of the new topology.
    pub version: u64,
    /// The nodes of the new topology, sorted.
    pub nodes: Vec<NodeId>,
    /// The nodes that were not there before.
    pub added: Vec<NodeId>,
    /// The nodes that are no longer there.
    pub removed: Vec<NodeId>,
    /// The nodes that stayed and were found at other addresses.
    pub readdressed: Vec<NodeId>,
    /// The share of all keys, from 0 to 1, that have another owner now.
    pub moved: f64,
}

impl TopologyChange {
    pub(super) fn between(old: &TopologyView, new: &TopologyView) -> Self {
        let ids = |view: &TopologyView| view.endpoints.iter().map(|endpoint| endpoint.id().clone()).collect::<Vec<_>>();
        let (before, nodes) = (ids(old), ids(new));
        let is_readdressed = |endpoint: &&Endpoint| {
            let old = old.endpoints.iter().find(|old| old.id() == endpoint.id()).map(Endpoint::listed_addresses);
            // The first addresses that are found of a node are where it was before.
            matches!(old, Some(old @ ListedAddresses::At(_)) if endpoint.listed_addresses().differs_from(old))
        };
        Self {
            version: new.version,
            added: nodes.iter().filter(|id| !before.contains(id)).cloned().collect(),
            removed: before.iter().filter(|id| !nodes.contains(id)).cloned().collect(),
            readdressed: new.endpoints.iter().filter(is_readdressed).map(|endpoint| endpoint.id().clone()).collect(),
            moved: old.ring.moved(&new.ring),
            nodes,
        }
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.readdressed.is_empty() && self.moved == 0.0
    }
}

/// Watches the topology of a client. A slow reader gets several changes as one.
#[derive(Debug)]
pub struct TopologyWatch {
    published: watch::Receiver<Arc<TopologyView>>,
    seen: Arc<TopologyView>,
}

impl TopologyWatch {
    pub(crate) fn new(mut published: watch::Receiver<Arc<TopologyView>>) -> Self {
        let seen = Arc::clone(&published.borrow_and_update());
        Self { published, seen }
    }

    /// Waits for the next change since the last one returned, or since the watch was created.
    ///
    /// Returns `None` once the client is dropped or shut down.
    ///
    /// # Cancel safety
    /// Cancel safe: the next call returns a change that a dropped future did not return.
    pub async fn changed(&mut self) -> Option<TopologyChange> {
        loop {
            self.published.changed().await.ok()?;
            let latest = Arc::clone(&self.published.borrow_and_update());
            let change = TopologyChange::between(&self.seen, &latest);
            self.seen = latest;
            // Changes between two calls may cancel each other out.
            if !change.is_nothing() {
                return Some(change);
            }
        }
    }
}
