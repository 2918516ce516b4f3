//! Which node a key belongs to: a consistent-hash ring, pure and fixed for ever.

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
mod foreign;
#[cfg(feature = "placements")]
mod hash;
mod native;
#[cfg(feature = "placements")]
pub(crate) mod placement;

/// A consistent-hash ring: it gives every key an owner among the nodes, and moves few keys when the nodes change.
///
/// A ring knows labels and weights, nothing else: it does no I/O, holds no connection, and answers the same wherever
/// and whenever it is asked. The [client](crate) places keys by one of these; by itself a ring is good for asking where
/// a key lives, or what a change of nodes will cost ([`moved`](Self::moved)). Any bytes are a key here, also those
/// memcached would refuse. A clone shares its points with the original.
///
/// ```
/// use memring::{Ring, RingNode};
///
/// let ring = Ring::new(["cache-0:11211", "cache-1:11211", "cache-2:11211"])?;
/// let owner = ring.node_for("user:42").expect("the ring is not empty");
/// assert_eq!(owner.label(), "cache-2:11211");
///
/// // A fourth node takes over a quarter of the keys, and no key moves between the three.
/// let grown = Ring::new(["cache-0:11211", "cache-1:11211", "cache-2:11211", "cache-3:11211"])?;
/// assert!((0.2..0.3).contains(&ring.moved(&grown)));
///
/// // Twice the weight, about twice the keys.
/// let ring = Ring::new([RingNode::new("small:11211"), RingNode::new("large:11211").with_weight(2)])?;
/// assert!(ring.shares()[1] > 0.6);
/// # Ok::<(), memring::InvalidRing>(())
/// ```
///
/// # The contract
/// What follows decides which server a value is looked for on, so it does not change: a later version of this crate
/// that placed one key elsewhere would be a breaking one. It is complete; the crate's tests hold it against vectors
/// made by a second implementation.
///
/// 1. `h(bytes)` is the upper 32 bits of the unseeded (seed 0) 64-bit XXH3 of the bytes: `XXH3_64bits(bytes) >> 32`.
///    Positions are unsigned 32-bit numbers.
/// 2. A node has a label, at least one byte of UTF-8, unique in the ring, and a weight from 1 to 100. For each `i` from 0
///    to 512 · weight − 1 it has a point at `h(label ‖ i)`, where `i` is appended as four bytes, little-endian.
/// 3. All points of all nodes are ordered by position; those at one position, by the bytes of their labels, smaller
///    first. The order in which nodes are given plays no part.
/// 4. A key, any bytes, lies at `h(key)`. Its owner is the node of the first point in that order whose position is not
///    less, or of the very first point if there is none.
/// 5. The successors of a key are the nodes in the order in which their first points are met from there on, around the
///    circle: see [`nodes_for`](Self::nodes_for).
///
/// A node's points depend on its own label and weight only. That is why the nodes that stay exchange no keys when
/// others come and go; and it is why weights count as given, unreduced: to give every node the weight 2 is to move
/// keys.
///
/// A server's label, unless its [`Endpoint`](crate::Endpoint) says otherwise, is the text of its [`NodeId`]:
/// `host:port`, the host in lower case without a trailing dot, the port in decimal and always present; an IPv6 address
/// as `[canonical]:port` with the canonical text of RFC 5952. For example:
/// `memcached-0.memcached.default.svc.cluster.local:11211`, `10.1.2.3:11211`, `[2001:db8::1]:11211`.
///
/// As a check: `h("")` is `0x2d068005`, `h("user:42")` is `0x9fc1e605`, and the first three points of `cache-0:11211`
/// are at `0x228a850c`, `0x80953af1` and `0x8186bd44`. Among `cache-0:11211`, `cache-1:11211` and `cache-2:11211`, all
/// of weight 1, the key `user:42` belongs to the last, and the second is its next successor.
///
/// # Balance
/// The fullest of 10 equal nodes holds 1.07 times the mean, of 100 nodes 1.11 times (medians over 200 sets of pod
/// names).
#[derive(Clone, Default)]
pub struct Ring {
    nodes: Arc<[RingNode]>,
    table: Table,
}

/// Who owns which key.
#[derive(Clone)]
enum Table {
    Native(Circle),
    /// As another client would say.
    #[cfg(feature = "placements")]
    Foreign(Arc<placement::Table>),
}

impl Default for Table {
    fn default() -> Self {
        Self::Native(Circle::default())
    }
}

impl Ring {
    /// The most the weights of one ring may add up to: it bounds its memory, at some 48 MB.
    pub const MAX_TOTAL_WEIGHT: u32 = 10_000;

    /// Builds a ring of nodes given in any order. Without nodes it is the empty ring, as is `Ring::default()`.
    ///
    /// # Errors
    /// [`InvalidRing`] if a label is empty or given twice, a weight is out of range, or the weights are too large
    /// together.
    pub fn new(nodes: impl IntoIterator<Item = impl Into<RingNode>>) -> Result<Self, InvalidRing> {
        let nodes = nodes.into_iter().map(Into::into).collect();
        Self::place(nodes, |node| native::points(&node.label, node.weight))
    }

    fn place<P: Iterator<Item = u32>>(
        nodes: Vec<RingNode>,
        points_of: impl Fn(&RingNode) -> P,
    ) -> Result<Self, InvalidRing> {
        check(&nodes)?;
        // Each node weighs at least 1, so the limit on weights is one on nodes too, and `u16` holds an index.
        let mut by_label: Vec<_> = (0_u16..).zip(&nodes).collect();
        by_label.sort_unstable_by_key(|(_, node)| &node.label);
        if let Some(pair) = by_label.windows(2).find(|pair| pair[0].1.label == pair[1].1.label) {
            return Err(InvalidRing::DuplicateLabel { label: pair[0].1.label.to_string() });
        }
        let mut points = Vec::new();
        for (node, described) in by_label {
            points.extend(points_of(described).map(|at| Point { at, node }));
        }
        Ok(Self { table: Table::Native(Circle::new(&points)), nodes: nodes.into() })
    }

    /// The nodes, in the order they were given.
    #[must_use]
    pub fn nodes(&self) -> &[RingNode] {
        &self.nodes
    }

    /// The owner of a key; `None` if the ring is empty.
    #[must_use]
    pub fn node_for(&self, key: impl AsRef<[u8]>) -> Option<&RingNode> {
        self.index_for(key.as_ref()).map(|node| &self.nodes[node])
    }

    /// The first `n` distinct nodes met from the key's place onwards: its owner, then the node that would own it
    /// without the owner, and so on. All nodes if there are not as many as `n`.
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
    ///
    /// On a ring with another client's placement, or one of your own, it is the owner alone: those have no second.
    #[must_use]
    pub fn nodes_for(&self, key: impl AsRef<[u8]>, n: usize) -> Vec<&RingNode> {
        match &self.table {
            Table::Native(circle) => {
                self.indices_for(circle, key.as_ref()).take(n).map(|node| &self.nodes[node]).collect()
            }
            #[cfg(feature = "placements")]
            Table::Foreign(_) => self.node_for(key).into_iter().take(n).collect(),
        }
    }

    /// The owner of a key as an index into [`nodes`](Self::nodes).
    #[inline]
    pub(crate) fn index_for(&self, key: &[u8]) -> Option<usize> {
        // The only node owns every key, wherever it lies.
        if self.nodes.len() == 1 {
            return Some(0);
        }
        match &self.table {
            Table::Native(circle) => circle.owner(native::position(key)),
            #[cfg(feature = "placements")]
            Table::Foreign(table) => table.owner(key),
        }
    }

    /// All nodes as they are met from the key's place onwards, as indices into [`nodes`](Self::nodes).
    fn indices_for(&self, circle: &Circle, key: &[u8]) -> impl Iterator<Item = usize> {
        let mut met = vec![false; self.nodes.len()];
        circle
            .walk(native::position(key))
            .filter(move |&node| !std::mem::replace(&mut met[node], true))
            // Ends the walk at the last new node, instead of going round for more.
            .take(self.nodes.len())
    }

    /// Which part of all keys each node owns, exactly; in the order of [`nodes`](Self::nodes). The parts add up to 1.
    ///
    /// Of another client's placement that has neither points nor slots it is what that means to give each, and of one of
    /// your own an estimate.
    #[must_use]
    pub fn shares(&self) -> Vec<f64> {
        match &self.table {
            Table::Native(circle) => circle_shares(circle, POSITIONS, self.nodes.len()),
            #[cfg(feature = "placements")]
            Table::Foreign(table) => table.shares(self.nodes.len()),
        }
    }

    /// Which part of all keys has another owner, by its label, in the `newer` ring: 0 if every key stays, 1 if every key
    /// moves. From nothing to nothing no key moves; to or from the empty ring every key does. Exact, or an estimate:
    /// see [`RingDiff::is_exact`].
    ///
    /// ```
    /// let three = memring::Ring::new(["a:11211", "b:11211", "c:11211"])?;
    /// let two = memring::Ring::new(["c:11211", "a:11211"])?;
    /// assert_eq!(three.moved(&two), three.shares()[1]);
    /// # Ok::<(), memring::InvalidRing>(())
    /// ```
    #[must_use]
    pub fn moved(&self, newer: &Self) -> f64 {
        self.sum_of_moved(newer)
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ring = f.debug_struct("Ring");
        ring.field("nodes", &self.nodes.len());
        match &self.table {
            Table::Native(circle) => ring.field("points", &circle.len()),
            #[cfg(feature = "placements")]
            Table::Foreign(_) => ring.field("placement", &"not native"),
        };
        ring.finish_non_exhaustive()
    }
}

fn check(nodes: &[RingNode]) -> Result<(), InvalidRing> {
    let mut total = 0;
    for node in nodes {
        if node.label.is_empty() {
            return Err(InvalidRing::EmptyLabel);
        }
        if !(1..=RingNode::MAX_WEIGHT).contains(&node.weight) {
            return Err(node.outside(1..=RingNode::MAX_WEIGHT));
        }
        total += u64::from(node.weight);
    }
    if total > u64::from(Ring::MAX_TOTAL_WEIGHT) {
        return Err(InvalidRing::TotalWeight { total, max: Ring::MAX_TOTAL_WEIGHT });
    }
    Ok(())
}

/// The parts of the circle's first so many positions, a power of two: exact, for a number up to 2^32 fits in an `f64` and
/// so does its quotient.
fn circle_shares(circle: &Circle, within: u64, nodes: usize) -> Vec<f64> {
    let mut positions = vec![0; nodes];
    for (node, len) in circle.arcs(within) {
        positions[node] += len;
    }
    positions.into_iter().map(|positions| positions as f64 / within as f64).collect()
}

/// One node of a [`Ring`]: a label that is hashed, and a weight.
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
    /// The largest weight a node may have.
    pub const MAX_WEIGHT: u32 = 100;

    /// A node of weight 1. The label is hashed as it is: no case is folded, no port added.
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

    /// How many keys the node is to own relative to the others, from 1 to [`MAX_WEIGHT`](Self::MAX_WEIGHT). Checked
    /// when a ring is built.
    #[must_use]
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// A name of the node's own, which [twemproxy](crate::Placement::twemproxy_ketama),
    /// [Envoy](crate::Placement::envoy_ring) and [mcrouter's rendezvous hash](crate::Placement::mcrouter_rendezvous) hash
    /// instead of `host:port`.
    #[cfg(feature = "placements")]
    #[must_use]
    pub fn with_name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The address the host's name was resolved to, which [spymemcached](crate::Placement::spymemcached) hashes with it.
    #[cfg(feature = "placements")]
    #[must_use]
    pub fn with_ip(mut self, ip: impl Into<Arc<str>>) -> Self {
        self.ip = Some(ip.into());
        self
    }

    /// What the ring hashes.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// How many keys the node owns relative to the others.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// That its weight is none of those allowed.
    fn outside(&self, allowed: RangeInclusive<u32>) -> InvalidRing {
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
    /// A node labelled by its identity's text, as the client does unless told otherwise.
    fn from(id: &NodeId) -> Self {
        Self::new(id.to_string())
    }
}

/// Why nodes do not make a ring.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidRing {
    /// A node's label has no bytes.
    #[error("a node's label is empty")]
    EmptyLabel,
    /// Two nodes have the same label, or for a placement of another client labels of the same host and port: they would
    /// have the same points, and one of them no keys.
    #[error("two nodes have the label {label:?}")]
    #[non_exhaustive]
    DuplicateLabel {
        /// The label.
        label: String,
    },
    /// A node's label is no `host:port`, as a placement of another client needs it.
    #[error("the label {label:?} is no host:port")]
    #[non_exhaustive]
    Label {
        /// The label.
        label: String,
    },
    /// A node's weight is not from 1 to [`RingNode::MAX_WEIGHT`], or with a placement of another client not from 0 to
    /// 65,535.
    #[error("node {label:?} has the weight {weight}, {} to {} are allowed", allowed.start(), allowed.end())]
    #[non_exhaustive]
    Weight {
        /// The node's label.
        label: String,
        /// Its weight.
        weight: u32,
        /// The weights it may have on this ring.
        allowed: RangeInclusive<u32>,
    },
    /// The weights of all nodes add up to more than [`Ring::MAX_TOTAL_WEIGHT`], or with a placement of another client to
    /// more than 100,000.
    #[error("the weights add up to {total}, {max} are allowed")]
    #[non_exhaustive]
    TotalWeight {
        /// What they add up to.
        total: u64,
        /// The most they may add up to on this ring.
        max: u32,
    },
    /// There are more than 10,000 nodes.
    #[error("there are {count} nodes, {max} are allowed")]
    #[non_exhaustive]
    Nodes {
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: u32,
    },
    /// A placement of another client gives nodes of the weight 0 no keys, and there are no others.
    #[error("no node owns a key: all have the weight 0")]
    NoOwner,
}

#[cfg(test)]
mod tests;
