//! Which nodes there are and which of them owns a key, as one immutable snapshot.
//!
//! A change is a new snapshot made from the old one and what discovery says, swapped in whole: nobody ever sees a ring
//! without its nodes. Nodes survive by identity: one that is listed again, or elsewhere, is the same node.

mod change;
mod rule;
mod worker;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

pub use self::change::{TopologyChange, TopologyWatch};
pub(crate) use self::rule::Rule;
pub(crate) use self::worker::Worker;

use crate::discovery::{Endpoint, Roster};
use crate::error::{Error, ErrorKind};
use crate::node::{Node, NodeState};
use crate::node_id::NodeId;
use crate::ring::Ring;

/// The snapshot every command is routed by.
#[derive(Debug)]
pub(crate) struct Snapshot {
    map: Arc<Map>,
    /// In the order of the map's endpoints, and so of the ring's nodes.
    nodes: Vec<Arc<Node>>,
    /// The client was shut down.
    closed: bool,
}

/// What can be told of a topology without holding on to its nodes.
#[derive(Debug)]
pub(crate) struct Map {
    version: u64,
    addr_epoch: u64,
    endpoints: Vec<Endpoint>,
    ring: Ring,
}

impl Map {
    /// Whether it came from discovery. There may be no nodes in it all the same, if those known first are gone again.
    pub(crate) fn is_known(&self) -> bool {
        self.version > 0
    }
}

impl Snapshot {
    /// Before anything is known.
    pub(crate) fn empty() -> Self {
        let map = Map { version: 0, addr_epoch: 0, endpoints: Vec::new(), ring: Ring::default() };
        Self { map: Arc::new(map), nodes: Vec::new(), closed: false }
    }

    /// The same nodes, and no keys for them.
    #[cfg(test)]
    pub(crate) fn without_owners(&self) -> Self {
        let Map { version, addr_epoch, endpoints, .. } = &*self.map;
        let (version, addr_epoch, endpoints) = (*version, *addr_epoch, endpoints.clone());
        let map = Map { version, addr_epoch, endpoints, ring: Ring::default() };
        Self { map: Arc::new(map), nodes: self.nodes.clone(), closed: false }
    }

    /// After the client was shut down.
    pub(crate) fn closed() -> Self {
        Self { closed: true, ..Self::empty() }
    }

    /// The node that owns the key.
    #[inline]
    pub(crate) fn route(&self, key: &[u8]) -> Result<&Arc<Node>, Error> {
        self.owner(key).map(|index| &self.nodes[index]).ok_or_else(|| self.no_nodes())
    }

    /// The owner's place among [`nodes`](Self::nodes); none if there are no nodes.
    #[inline]
    pub(crate) fn owner(&self, key: &[u8]) -> Option<usize> {
        self.map.ring.index_for(key)
    }

    /// Why there is nowhere to go.
    pub(crate) fn no_nodes(&self) -> Error {
        Error::not_sent(if self.closed { ErrorKind::Closed } else { ErrorKind::NoNodes })
    }

    pub(crate) fn map(&self) -> Arc<Map> {
        Arc::clone(&self.map)
    }

    pub(crate) fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// The snapshot that follows this one when discovery says `roster`: nodes that stay are the same nodes, `open` makes
    /// those that are new, and the ring is made anew only if it would differ.
    fn rebuild(&self, roster: &Roster, rule: &Rule, mut open: impl FnMut(&Endpoint) -> Node) -> Self {
        let same_ring = self.map.version == roster.version && self.map.version != 0;
        let ring = if same_ring { self.map.ring.clone() } else { rule.ring_of(&roster.endpoints) };
        let known: HashMap<&NodeId, &Arc<Node>> = self.nodes.iter().map(|node| (node.id(), node)).collect();
        let nodes = roster.endpoints.iter().map(|endpoint| match known.get(endpoint.id()) {
            Some(node) => Arc::clone(node),
            None => Arc::new(open(endpoint)),
        });
        let nodes = nodes.collect();
        let map =
            Map { version: roster.version, addr_epoch: roster.addr_epoch, endpoints: roster.endpoints.clone(), ring };
        Self { map: Arc::new(map), nodes, closed: false }
    }

    pub(crate) fn view(&self) -> Topology {
        let ring = &self.map.ring;
        let nodes = self.nodes.iter().zip(ring.nodes()).zip(ring.shares());
        Topology {
            version: self.map.version,
            addr_epoch: self.map.addr_epoch,
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

/// What the client knows of its nodes at one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Topology {
    /// Grows whenever nodes come, go, or change weight or label; 0 before any are known.
    pub version: u64,
    /// Grows whenever a node that stays is listed at another address.
    pub addr_epoch: u64,
    /// The nodes keys are placed on, sorted by identity. Includes those that have vanished and are in their grace.
    pub nodes: Vec<NodeInfo>,
}

/// One node of a [`Topology`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeInfo {
    /// Who it is.
    pub id: NodeId,
    /// The address of the connection in use; `None` while there is none.
    pub address: Option<SocketAddr>,
    /// Whether it can be talked to right now.
    pub state: NodeState,
    /// Its weight on the ring.
    pub weight: u32,
    /// The share of all keys it owns, from 0 to 1.
    pub share: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(count: usize) -> Vec<Endpoint> {
        (0..count).map(|n| Endpoint::new(NodeId::new(&format!("n{n}"), 1).unwrap())).collect()
    }

    fn labels(ring: &Ring) -> Vec<(&str, u32)> {
        ring.nodes().iter().map(|node| (node.label(), node.weight())).collect()
    }

    #[test]
    fn labels_and_weights_are_the_sources() {
        let [a, b, c] = endpoints(3).try_into().unwrap();
        let ring =
            Rule::default().ring_of(&[a.with_label("old").with_weight(3), b.with_weight(0), c.with_weight(u32::MAX)]);
        assert_eq!(labels(&ring), [("old", 3), ("n1:1", 1), ("n2:1", 100)]);
    }

    #[test]
    fn labels_and_weights_that_make_no_ring_cost_no_node_its_place() {
        let by_identity = Rule::default().ring_of(&endpoints(200));
        for spoil in [
            (|endpoint: Endpoint| endpoint.with_label("same")) as fn(Endpoint) -> Endpoint,
            |endpoint| endpoint.with_label(""),
            |endpoint| endpoint.with_weight(100),
        ] {
            let spoilt: Vec<_> = endpoints(200).into_iter().map(spoil).collect();
            assert_eq!(labels(&Rule::default().ring_of(&spoilt)), labels(&by_identity));
        }
    }

    /// A ring of some is better than none.
    #[test]
    fn more_nodes_than_a_ring_has_room_for_leave_the_last_without_keys() {
        let all = endpoints(10_001);
        let ring = Rule::default().ring_of(&all);
        assert_eq!(ring.nodes().len(), 10_000);
        assert!(ring.index_for(b"k").is_some());
        #[cfg(feature = "placements")]
        {
            let mut rule = Rule::default();
            rule.place_by(crate::Placement::dskit());
            assert_eq!(rule.ring_of(&all).nodes().len(), 10_000);
        }
    }

    #[test]
    fn a_rules_labels_are_what_is_hashed() {
        let pods = || {
            (0..3).map(|n| {
                let id = NodeId::new(&format!("cache-{n}.cache.svc"), 11212).unwrap();
                Endpoint::new(id).with_addresses([[10, 0, 0, 7 + n].into()])
            })
        };
        let by_pod = |endpoint: &Endpoint| endpoint.id().host().split('.').next().unwrap().to_owned();
        let by_address = |endpoint: &Endpoint| format!("{}:{}", endpoint.addresses()[0], endpoint.id().port());
        let by_whim = |endpoint: &Endpoint| format!("shard {}", endpoint.id().host().as_bytes()[6]);
        let made_by = |label: fn(&Endpoint) -> String| {
            let mut rule = Rule::default();
            rule.label_by(label);
            rule
        };
        for (label, expected) in [
            (by_pod as fn(&Endpoint) -> String, ["cache-0", "cache-1", "cache-2"]),
            (by_address, ["10.0.0.7:11212", "10.0.0.8:11212", "10.0.0.9:11212"]),
            (by_whim, ["shard 48", "shard 49", "shard 50"]),
        ] {
            let ring = made_by(label).ring_of(&pods().collect::<Vec<_>>());
            assert_eq!(ring.nodes().iter().map(|node| node.label()).collect::<Vec<_>>(), expected);
            assert_eq!(ring.moved(&Ring::new(expected).unwrap()), 0.0);
        }
        // The source's own label comes first.
        let own: Vec<_> = pods().enumerate().map(|(n, pod)| if n == 1 { pod.with_label("own") } else { pod }).collect();
        assert_eq!(labels(&made_by(by_pod).ring_of(&own)), [("cache-0", 1), ("own", 1), ("cache-2", 1)]);
        // Two of the same, and none has the label meant.
        let ring = made_by(|_| "same".to_owned()).ring_of(&own[2..]);
        assert_eq!(labels(&ring), [("same", 1)]);
        let ring = made_by(|_| "same".to_owned()).ring_of(&pods().collect::<Vec<_>>());
        assert_eq!(ring.nodes()[2].label(), "cache-2.cache.svc:11212");
    }

    #[cfg(feature = "placements")]
    #[test]
    fn labels_that_another_clients_placement_cannot_read_cost_no_node_its_place() {
        let mut rule = Rule::default();
        rule.place_by(crate::Placement::dskit());
        for (label, is_read) in [
            ((|endpoint| endpoint.id().host().to_owned()) as fn(&Endpoint) -> String, true),
            (|endpoint| format!("shard:{}", endpoint.id().host()), false),
            (|endpoint| format!("::{}", endpoint.id().host().len()), false),
            (
                |endpoint| if endpoint.id().host() == "n0" { "n1:11211".into() } else { endpoint.id().host().into() },
                false,
            ),
        ] {
            rule.label_by(label);
            // In the alphabet 10 and 11 come before 2.
            let mut nodes = endpoints(12);
            nodes.sort_by(|a, b| a.id().cmp(b.id()));
            let ring = rule.ring_of(&nodes);
            let labels: Vec<_> = (0..12).map(|n| if is_read { format!("n{n}") } else { format!("n{n}:1") }).collect();
            let expected = Ring::with_placement(&crate::Placement::dskit(), labels).unwrap();
            for key in 0..100 {
                let key = format!("key-{key}");
                assert_eq!(ring.node_for(&key), expected.node_for(&key));
            }
        }
    }

    #[test]
    fn a_node_that_stays_is_the_same_node_and_an_unchanged_ring_the_same_ring() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let source = Arc::new(crate::discovery::StaticNodes::new(endpoints(1)));
        let (follow, _task) = crate::discovery::follow(source, crate::DiscoveryOptions::default());
        let mut opened = Vec::new();
        let mut open = |endpoint: &Endpoint| {
            opened.push(endpoint.id().to_string());
            Node::open(endpoint.id().clone(), Vec::new(), follow.addresses.clone(), crate::config::Settings::default())
        };
        let roster = |version, addr_epoch, endpoints| Roster { version, addr_epoch, endpoints };
        let first = Snapshot::empty().rebuild(&roster(1, 0, endpoints(2)), &Rule::default(), &mut open);
        let moved = first.rebuild(&roster(1, 1, endpoints(2)), &Rule::default(), &mut open);
        let grown = moved.rebuild(&roster(2, 1, endpoints(3)), &Rule::default(), &mut open);
        assert_eq!(opened, ["n0:1", "n1:1", "n2:1"]);
        for (old, new) in first.nodes.iter().zip(&grown.nodes) {
            assert!(Arc::ptr_eq(old, new));
        }
        assert_eq!((moved.map.version, moved.map.addr_epoch), (1, 1));
        assert_eq!(first.map.ring.moved(&moved.map.ring), 0.0);
        assert_eq!(grown.view().nodes.len(), 3);
    }
}
