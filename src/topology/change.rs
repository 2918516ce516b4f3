//! What changed, for those who watch.

use std::sync::Arc;

use tokio::sync::watch;

use super::Map;
use crate::discovery::Endpoint;
use crate::node_id::NodeId;

/// The difference between two topologies.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TopologyChange {
    /// The version reached.
    pub version: u64,
    /// The nodes there are now, sorted.
    pub nodes: Vec<NodeId>,
    /// Nodes that were not there before.
    pub added: Vec<NodeId>,
    /// Nodes that are not there any more.
    pub removed: Vec<NodeId>,
    /// Nodes that stayed and are listed at another address.
    pub readdressed: Vec<NodeId>,
    /// The share of all keys, from 0 to 1, whose owner is another one now.
    pub moved: f64,
}

impl TopologyChange {
    fn between(old: &Map, new: &Map) -> Self {
        let ids = |map: &Map| map.endpoints.iter().map(|endpoint| endpoint.id().clone()).collect::<Vec<_>>();
        let find = |map: &Map, id: &NodeId| map.endpoints.iter().position(|endpoint| endpoint.id() == id);
        let (before, nodes) = (ids(old), ids(new));
        let readdressed = |endpoint: &&Endpoint| {
            find(old, endpoint.id()).is_some_and(|at| {
                let known = old.endpoints[at].addresses();
                !known.is_empty() && !endpoint.addresses().is_empty() && known != endpoint.addresses()
            })
        };
        Self {
            version: new.version,
            added: nodes.iter().filter(|id| !before.contains(id)).cloned().collect(),
            removed: before.iter().filter(|id| !nodes.contains(id)).cloned().collect(),
            readdressed: new.endpoints.iter().filter(readdressed).map(|endpoint| endpoint.id().clone()).collect(),
            moved: old.ring.moved(&new.ring),
            nodes,
        }
    }

    fn is_nothing(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.readdressed.is_empty() && self.moved == 0.0
    }
}

/// Follows the topology: each change is given once; one who is slow gets several as one.
#[derive(Debug)]
pub struct TopologyWatch {
    published: watch::Receiver<Arc<Map>>,
    seen: Arc<Map>,
}

impl TopologyWatch {
    pub(crate) fn new(mut published: watch::Receiver<Arc<Map>>) -> Self {
        let seen = Arc::clone(&published.borrow_and_update());
        Self { published, seen }
    }

    /// Waits for the next change since the last one given, or since the watch was made. `None` once the client is gone
    /// or shut down.
    ///
    /// # Cancel safety
    /// Cancel safe: a change that was not given is given next time.
    pub async fn changed(&mut self) -> Option<TopologyChange> {
        loop {
            self.published.changed().await.ok()?;
            let map = Arc::clone(&self.published.borrow_and_update());
            let change = TopologyChange::between(&self.seen, &map);
            self.seen = map;
            // Changes that cancelled each other out while nobody looked are none.
            if !change.is_nothing() {
                return Some(change);
            }
        }
    }
}
