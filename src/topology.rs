//! Which nodes exist and which of them owns a key, as one immutable snapshot.
//!
//! A change builds a new snapshot from the old one and from discovery's roster, and swaps it in whole, so a ring never
//! exists without its nodes. Nodes are kept by identity: a node that is listed again, or at another address, stays the
//! same [`Node`].

mod change;
mod placement_rule;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

pub use self::change::{TopologyChange, TopologyWatch};
pub(crate) use self::placement_rule::PlacementRule;
pub(crate) use self::worker::Worker;

use crate::discovery::{Endpoint, Roster};
use crate::error::{Error, ErrorKind};
use crate::node::{Node, NodeState};
use crate::node_id::NodeId;
use crate::ring::Ring;

/// The snapshot that routes every command.
#[derive(Debug)]
pub(crate) struct Snapshot {
    view: Arc<TopologyView>,
    /// In the order of the view's endpoints, which is that of the ring's nodes.
    nodes: Vec<Arc<Node>>,
    /// Whether the client was shut down.
    closed: bool,
}

/// The part of a topology that can be watched without keeping its nodes alive.
#[derive(Debug)]
pub(crate) struct TopologyView {
    version: u64,
    addr_epoch: u64,
    endpoints: Vec<Endpoint>,
    ring: Ring,
}

impl TopologyView {
    /// Returns whether it comes from discovery. It may still be empty, if the first nodes have left again.
    pub(crate) fn is_known(&self) -> bool {
        self.version > 0
    }

    /// Returns whether it has been built of this roster or of a later one.
    pub(crate) fn reflects(&self, roster: &Roster) -> bool {
        self.version >= roster.version && self.addr_epoch >= roster.addr_epoch
    }
}

impl Snapshot {
    /// Creates the snapshot before discovery has found nodes.
    pub(crate) fn empty() -> Self {
        let view = TopologyView { version: 0, addr_epoch: 0, endpoints: Vec::new(), ring: Ring::default() };
        Self { view: Arc::new(view), nodes: Vec::new(), closed: false }
    }

    /// Returns the same nodes with a ring that gives them no keys.
    #[cfg(test)]
    pub(crate) fn without_owners(&self) -> Self {
        let TopologyView { version, addr_epoch, endpoints, .. } = &*self.view;
        let (version, addr_epoch, endpoints) = (*version, *addr_epoch, endpoints.clone());
        let view = TopologyView { version, addr_epoch, endpoints, ring: Ring::default() };
        Self { view: Arc::new(view), nodes: self.nodes.clone(), closed: false }
    }

    /// Creates the last snapshot, after the client was shut down.
    pub(crate) fn closed() -> Self {
        Self { closed: true, ..Self::empty() }
    }

    /// Returns the node that owns the key.
    ///
    /// # Errors
    /// `NoNodes` if there is none; `Closed` after the client was shut down.
    #[inline]
    pub(crate) fn route(&self, key: &[u8]) -> Result<&Arc<Node>, Error> {
        self.owner(key).map(|index| &self.nodes[index]).ok_or_else(|| self.no_nodes())
    }

    /// Returns the owner's index in [`nodes`](Self::nodes); `None` if there are no nodes.
    #[inline]
    pub(crate) fn owner(&self, key: &[u8]) -> Option<usize> {
        self.view.ring.index_for(key)
    }

    /// Returns the error of a command that no node can take.
    pub(crate) fn no_nodes(&self) -> Error {
        Error::not_sent(if self.closed { ErrorKind::Closed } else { ErrorKind::NoNodes })
    }

    pub(crate) fn view(&self) -> Arc<TopologyView> {
        Arc::clone(&self.view)
    }

    pub(crate) fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// Builds the snapshot for a new roster.
    ///
    /// Keeps the nodes that stay, opens new ones with `open`, and rebuilds the ring only if it would differ.
    fn rebuild(&self, roster: &Roster, rule: &PlacementRule, mut open: impl FnMut(&Endpoint) -> Node) -> Self {
        let is_same_ring = self.view.version == roster.version && self.view.version != 0;
        let ring = if is_same_ring { self.view.ring.clone() } else { rule.ring_of(&roster.endpoints) };
        let current: HashMap<&NodeId, &Arc<Node>> = self.nodes.iter().map(|node| (node.id(), node)).collect();
        let nodes = roster.endpoints.iter().map(|endpoint| match current.get(endpoint.id()) {
            Some(node) => Arc::clone(node),
            None => Arc::new(open(endpoint)),
        });
        let nodes = nodes.collect();
        let view = TopologyView {
            version: roster.version,
            addr_epoch: roster.addr_epoch,
            endpoints: roster.endpoints.clone(),
            ring,
        };
        Self { view: Arc::new(view), nodes, closed: false }
    }

    /// Describes the nodes and their shares, for the application.
    pub(crate) fn topology(&self) -> Topology {
        let ring = &self.view.ring;
        let nodes = self.nodes.iter().zip(ring.nodes()).zip(ring.shares());
        Topology {
            version: self.view.version,
            addr_epoch: self.view.addr_epoch,
            nodes: nodes
                .map(|((node, placed), share)| NodeInfo {
                    id: node.id().clone(),
                    address: node.peer(),
                    state: node.state(),
                    weight: placed.weight(),
                    share,
                })
                .collect(),
        }
    }
}

/// The nodes of a client at one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Topology {
    /// Grows when nodes come, leave, or change weight or label; 0 before any are known.
    pub version: u64,
    /// Grows when a node that stays is listed at another address.
    pub addr_epoch: u64,
    /// The nodes on the ring, sorted by identity. Includes nodes that have vanished and are within their grace.
    pub nodes: Vec<NodeInfo>,
}

/// One node of a [`Topology`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeInfo {
    /// The node's identity.
    pub id: NodeId,
    /// The address of the connection in use; `None` while there is none.
    pub address: Option<SocketAddr>,
    /// Whether the node can be reached now.
    pub state: NodeState,
    /// The node's weight on the ring.
    pub weight: u32,
    /// The share of all keys the node owns, from 0 to 1.
    pub share: f64,
}
