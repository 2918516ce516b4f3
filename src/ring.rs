//! The consistent-hash ring: which node owns a key. Pure, and fixed by a contract.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use thiserror::Error;

use crate::node_id::NodeId;
use crate::ring::circle::{Circle, POSITIONS, Point};

pub use self::diff::{MovedShare, RingDiff};

mod circle;
mod diff;
#[cfg(feature = "placements")]
mod hash;
mod native;
#[cfg(feature = "placements")]
pub(crate) mod placement;
#[cfg(feature = "placements")]
mod with_placement;

/// A consistent-hash ring: maps every key to one of its nodes, and moves few keys when the nodes change.
///
/// A ring knows labels and weights and nothing else. It does no I/O, holds no connection, and returns the same owner in
/// every process and at any time. The [client](crate) places keys by a ring. You can also use one by itself, to find
/// where a key lives or what a change of nodes will cost ([`moved`](Self::moved)). A key here is any bytes, including
/// bytes that memcached would reject. Cloning is cheap: a clone shares its points with the original.
///
/// ```
/// use memring::{Ring, RingNode};
///
/// let ring = Ring::new(["cache-0:11211", "cache-1:11211", "cache-2:11211"])?;
/// let owner = ring.node_for("user:42").expect("the ring is not empty");
/// assert_eq!(owner.label(), "cache-2:11211");
///
/// // A fourth node takes over a quarter of the keys, and no key moves between the other three.
/// let grown = Ring::new(["cache-0:11211", "cache-1:11211", "cache-2:11211", "cache-3:11211"])?;
/// assert!((0.2..0.3).contains(&ring.moved(&grown)));
///
/// // Twice the weight means about twice the keys.
/// let ring = Ring::new([RingNode::new("small:11211"), RingNode::new("large:11211").with_weight(2)])?;
/// assert!(ring.shares()[1] > 0.6);
/// # Ok::<(), memring::InvalidRing>(())
/// ```
///
/// # The contract
/// These rules decide on which server a client looks for a value, so they do not change: a version of this crate that
/// placed a single key elsewhere would be a breaking one. The rules are complete. The tests of the crate compare them
/// with vectors from a second implementation.
///
/// 1. `h(bytes)` is the upper 32 bits of the unseeded (seed 0) 64-bit XXH3 of the bytes: `XXH3_64bits(bytes) >> 32`.
///    Positions are unsigned 32-bit numbers.
/// 2. A node has a label and a weight. The label is at least one byte of UTF-8 and unique in the ring; the weight is
///    from 1 to 100. For each `i` from 0 to 512 · weight − 1 the node has a point at `h(label ‖ i)`, where `i` is
///    appended as four bytes, little-endian.
/// 3. All points of all nodes are ordered by position. Points at the same position are ordered by the bytes of their
///    labels, smaller first. The order in which nodes are given has no effect.
/// 4. A key, any bytes, has the position `h(key)`. Its owner is the node of the first point in that order whose
///    position is not less, or of the first point of all if there is none.
/// 5. The successors of a key are the nodes in the order of their first points from that point on, around the circle:
///    see [`nodes_for`](Self::nodes_for).
///
/// The points of a node depend only on its own label and weight. Therefore the remaining nodes exchange no keys when
/// other nodes come and go. Weights are not reduced: giving every node the weight 2 moves keys.
///
/// The label of a server is the text of its [`NodeId`], unless its [`Endpoint`](crate::Endpoint) has another one. The
/// text is `host:port`: the host in lower case without a trailing dot, and the port in decimal and always present. An
/// IPv6 address is written `[canonical]:port`, with the canonical text of RFC 5952. Examples:
/// `memcached-0.memcached.default.svc.cluster.local:11211`, `10.1.2.3:11211`, `[2001:db8::1]:11211`.
///
/// To check an implementation: `h("")` is `0x2d068005`, `h("user:42")` is `0x9fc1e605`, and the first three points of
/// `cache-0:11211` are at `0x228a850c`, `0x80953af1` and `0x8186bd44`. Among `cache-0:11211`, `cache-1:11211` and
/// `cache-2:11211`, all of weight 1, the key `user:42` belongs to the third, and its next successor is the second.
///
/// # Balance
/// The fullest of 10 equal nodes holds 1.07 times the mean, and the fullest of 100 nodes 1.11 times (medians over 200
/// sets of pod names).
#[derive(Clone, Default)]
pub struct Ring {
    nodes: Arc<[RingNode]>,
    table: OwnerTable,
}

/// The owners of all keys.
#[derive(Clone)]
enum OwnerTable {
    Native(Circle),
    /// The placement of another client, or of the user.
    #[cfg(feature = "placements")]
    Placement(Arc<placement::PlacementTable>),
}

impl Default for OwnerTable {
    fn default() -> Self {
        Self::Native(Circle::default())
    }
}

impl Ring {
    /// The limit for the sum of all weights of a ring. It bounds the memory of a ring, to about 48 MB.
    pub const MAX_TOTAL_WEIGHT: u32 = 10_000;

    /// Builds a ring from nodes in any order. Without nodes it is the empty ring, like `Ring::default()`.
    ///
    /// # Errors
    /// Returns [`InvalidRing`] if a label is empty or used twice, if a weight is out of range, or if the sum of the
    /// weights is too large.
    pub fn new(nodes: impl IntoIterator<Item = impl Into<RingNode>>) -> Result<Self, InvalidRing> {
        let nodes = nodes.into_iter().map(Into::into).collect();
        Self::from_points(nodes, |node| native::points(&node.label, node.weight))
    }

    fn from_points<P: Iterator<Item = u32>>(
        nodes: Vec<RingNode>,
        points_of: impl Fn(&RingNode) -> P,
    ) -> Result<Self, InvalidRing> {
        validate(&nodes)?;
        // Every node weighs at least 1, so the limit on weights also limits the nodes, and an index fits in a `u16`.
        let mut by_label: Vec<_> = (0_u16..).zip(&nodes).collect();
        by_label.sort_unstable_by_key(|(_, node)| &node.label);
        if let Some(pair) = by_label.windows(2).find(|pair| pair[0].1.label == pair[1].1.label) {
            return Err(InvalidRing::DuplicateLabel { label: pair[0].1.label.to_string() });
        }
        let mut points = Vec::new();
        for (index, node) in by_label {
            points.extend(points_of(node).map(|position| Point { position, node: index }));
        }
        Ok(Self { table: OwnerTable::Native(Circle::new(&points)), nodes: nodes.into() })
    }

    /// Returns the nodes in the order they were given.
    #[must_use]
    pub fn nodes(&self) -> &[RingNode] {
        &self.nodes
    }

    /// Returns the owner of a key; `None` if the ring is empty.
    #[must_use]
    pub fn node_for(&self, key: impl AsRef<[u8]>) -> Option<&RingNode> {
        self.index_for(key.as_ref()).map(|node| &self.nodes[node])
    }

    /// Returns the first `n` distinct nodes from the position of a key on, or all nodes if there are fewer.
    ///
    /// The first is the owner, the second would own the key if the first left, and so on. A ring with the placement of
    /// another client, or with a custom one, returns the owner alone: such a placement has no successors.
    ///
    /// ```
    /// let ring = memring::Ring::new(["a:11211", "b:11211", "c:11211"])?;
    /// let [first, second] = ring.nodes_for("user:42", 2)[..] else { panic!("there are three nodes") };
    /// assert_eq!(ring.node_for("user:42"), Some(first));
    ///
    /// let without = memring::Ring::new(ring.nodes().iter().filter(|node| *node != first).cloned())?;
    /// assert_eq!(without.node_for("user:42"), Some(second));
    /// # Ok::<(), memring::InvalidRing>(())
    /// ```
    #[must_use]
    pub fn nodes_for(&self, key: impl AsRef<[u8]>, n: usize) -> Vec<&RingNode> {
        match &self.table {
            OwnerTable::Native(circle) => {
                self.successors(circle, key.as_ref()).take(n).map(|node| &self.nodes[node]).collect()
            }
            #[cfg(feature = "placements")]
            OwnerTable::Placement(_) => self.node_for(key).into_iter().take(n).collect(),
        }
    }

    /// Returns the owner of a key as an index into [`nodes`](Self::nodes).
    #[inline]
    pub(crate) fn index_for(&self, key: &[u8]) -> Option<usize> {
        // A single node owns every key, so the key needs no hash.
        if self.nodes.len() == 1 {
            return Some(0);
        }
        match &self.table {
            OwnerTable::Native(circle) => circle.owner(native::position(key)),
            #[cfg(feature = "placements")]
            OwnerTable::Placement(table) => table.owner(key),
        }
    }

    /// Returns all nodes once, from the position of a key on, as indices into [`nodes`](Self::nodes).
    fn successors(&self, circle: &Circle, key: &[u8]) -> impl Iterator<Item = usize> {
        let mut is_found = vec![false; self.nodes.len()];
        circle
            .nodes_from(native::position(key))
            .filter(move |&node| !std::mem::replace(&mut is_found[node], true))
            // Stops at the last new node, instead of walking the rest of the circle.
            .take(self.nodes.len())
    }

    /// Returns the share of all keys that each node owns, in the order of [`nodes`](Self::nodes).
    ///
    /// The shares add up to 1. They are exact for a native ring, and for the placement of another client that has
    /// points or slots. For other placements they are the shares the placement aims at, and for a custom one an
    /// estimate.
    #[must_use]
    pub fn shares(&self) -> Vec<f64> {
        match &self.table {
            OwnerTable::Native(circle) => circle.shares(POSITIONS, self.nodes.len()),
            #[cfg(feature = "placements")]
            OwnerTable::Placement(table) => table.shares(self.nodes.len()),
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ring = f.debug_struct("Ring");
        ring.field("nodes", &self.nodes.len());
        match &self.table {
            OwnerTable::Native(circle) => ring.field("points", &circle.len()),
            #[cfg(feature = "placements")]
            OwnerTable::Placement(_) => ring.field("placement", &"not native"),
        };
        ring.finish_non_exhaustive()
    }
}

fn validate(nodes: &[RingNode]) -> Result<(), InvalidRing> {
    let mut total = 0;
    for node in nodes {
        if node.label.is_empty() {
            return Err(InvalidRing::EmptyLabel);
        }
        if !(1..=RingNode::MAX_WEIGHT).contains(&node.weight) {
            return Err(node.weight_error(1..=RingNode::MAX_WEIGHT));
        }
        total += u64::from(node.weight);
    }
    if total > u64::from(Ring::MAX_TOTAL_WEIGHT) {
        return Err(InvalidRing::TotalWeight { total, max: Ring::MAX_TOTAL_WEIGHT });
    }
    Ok(())
}

/// A node of a [`Ring`]: the label that is hashed, and a weight.
///
/// ```
/// use memring::RingNode;
///
/// let node = RingNode::new("cache-0:11211").with_weight(3);
/// assert_eq!((node.label(), node.weight()), ("cache-0:11211", 3));
/// assert_eq!(RingNode::from("cache-0:11211").weight(), 1);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RingNode {
    label: Arc<str>,
    weight: u32,
    #[cfg(feature = "placements")]
    name: Option<Arc<str>>,
    #[cfg(feature = "placements")]
    ip: Option<Arc<str>>,
}

impl RingNode {
    /// The largest weight of a node.
    pub const MAX_WEIGHT: u32 = 100;

    /// Returns a node of weight 1. The label is hashed unchanged: no case is folded and no port is added.
    #[must_use]
    pub fn new(label: impl Into<Arc<str>>) -> Self {
        Self {
            label: label.into(),
            weight: 1,
            #[cfg(feature = "placements")]
            name: None,
            #[cfg(feature = "placements")]
            ip: None,
        }
    }

    /// Sets the share of keys the node owns relative to the others, from 1 to [`MAX_WEIGHT`](Self::MAX_WEIGHT).
    ///
    /// The range is checked when a ring is built.
    #[must_use]
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Sets a name that some placements hash instead of `host:port`.
    ///
    /// These are [twemproxy](crate::Placement::twemproxy_ketama), [Envoy](crate::Placement::envoy_ring) and
    /// [mcrouter's rendezvous hash](crate::Placement::mcrouter_rendezvous).
    #[cfg(feature = "placements")]
    #[must_use]
    pub fn with_name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the resolved address of the host.
    ///
    /// [spymemcached](crate::Placement::spymemcached) hashes it together with the host.
    #[cfg(feature = "placements")]
    #[must_use]
    pub fn with_ip(mut self, ip: impl Into<Arc<str>>) -> Self {
        self.ip = Some(ip.into());
        self
    }

    /// Returns the label, which the ring hashes.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Returns the share of keys the node owns relative to the others.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight
    }

    fn weight_error(&self, allowed: RangeInclusive<u32>) -> InvalidRing {
        InvalidRing::Weight { label: self.label.to_string(), weight: self.weight, allowed }
    }
}

impl From<&str> for RingNode {
    fn from(label: &str) -> Self {
        Self::new(label)
    }
}

impl From<String> for RingNode {
    fn from(label: String) -> Self {
        Self::new(label)
    }
}

impl From<&NodeId> for RingNode {
    /// Returns a node whose label is the text of its identity, which is the default label of a client's node.
    fn from(id: &NodeId) -> Self {
        Self::new(id.to_string())
    }
}

/// The reason why nodes do not form a ring.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidRing {
    /// The label of a node is empty.
    #[error("a node label is empty")]
    EmptyLabel,
    /// Two nodes have the same label, or labels of the same host and port for the placement of another client.
    ///
    /// They would have the same points, and one of them would own no keys.
    #[error("two nodes have the label {label:?}")]
    #[non_exhaustive]
    DuplicateLabel {
        /// The label.
        label: String,
    },
    /// The label of a node is not a `host:port`, which the placement of another client requires.
    #[error("node label {label:?} is not a host:port")]
    #[non_exhaustive]
    Label {
        /// The label.
        label: String,
    },
    /// The weight of a node is out of range.
    ///
    /// The range is 1 to [`RingNode::MAX_WEIGHT`], or 0 to 65,535 for the placement of another client.
    #[error("node {label:?} has weight {weight}, allowed are {} to {}", allowed.start(), allowed.end())]
    #[non_exhaustive]
    Weight {
        /// The label of the node.
        label: String,
        /// Its weight.
        weight: u32,
        /// The range of weights on this ring.
        allowed: RangeInclusive<u32>,
    },
    /// The sum of all weights is above the limit.
    ///
    /// The limit is [`Ring::MAX_TOTAL_WEIGHT`], or 100,000 for the placement of another client.
    #[error("node weights add up to {total}, the limit is {max}")]
    #[non_exhaustive]
    TotalWeight {
        /// The sum of all weights.
        total: u64,
        /// The limit on this ring.
        max: u32,
    },
    /// There are more than 10,000 nodes.
    #[error("the ring has {count} nodes, the limit is {max}")]
    #[non_exhaustive]
    Nodes {
        /// The number of nodes.
        count: usize,
        /// The limit.
        max: u32,
    },
    /// All nodes have the weight 0, with which the placement of another client gives a node no keys.
    #[error("no node owns a key because all weights are 0")]
    NoOwner,
}

#[cfg(test)]
mod tests;
