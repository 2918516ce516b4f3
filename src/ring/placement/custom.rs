//! Placements of a user's own.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::ring::RingNode;

use super::spelling::natural;

/// A placement of your own, for [`Placement::custom`](super::Placement::custom): where a fleet of clients agrees on
/// something no other client does.
///
/// It is pure: of the same nodes and the same key every client must say the same, always. The nodes of a
/// [`Ring`](crate::Ring) come in the order they were given; those of a client in natural order of their labels
/// (`cache-2` before `cache-10`), whatever order discovery had.
///
/// ```
/// use memring::{CustomPlacement, OwnerOf, Placement, Ring, RingNode};
///
/// /// Keys such as `7:name` live on the node whose number is 7, modulo the number of nodes.
/// #[derive(Debug)]
/// struct ByTenant;
///
/// impl CustomPlacement for ByTenant {
///     fn owners(&self, _nodes: &[RingNode]) -> OwnerOf {
///         Box::new(|key| {
///             let digits = key.iter().take_while(|byte| byte.is_ascii_digit());
///             digits.fold(0, |number, digit| (10 * number + usize::from(digit - b'0')) % 1_000_000)
///         })
///     }
/// }
///
/// let placement = Placement::custom(ByTenant);
/// let ring = Ring::with_placement(&placement, ["cache-0:11211", "cache-1:11211", "cache-2:11211"])?;
/// assert_eq!(ring.node_for("7:name").map(RingNode::label), Some("cache-1:11211"));
/// # Ok::<(), memring::InvalidRing>(())
/// ```
pub trait CustomPlacement: fmt::Debug + Send + Sync + 'static {
    /// Works out who owns what among these nodes, of which there are two or more.
    ///
    /// Called whenever the set of nodes changes, on the task that watches for that: a panic here ends it, and what takes
    /// long delays the change.
    fn owners(&self, nodes: &[RingNode]) -> OwnerOf;
}

/// Says which node owns a key, by its place in the list given to [`CustomPlacement::owners`]. Any number will do: what
/// counts is the remainder of its division by the number of nodes.
///
/// Called for every key of every command, on the caller's task, so it should neither wait nor allocate. A panic is the
/// caller's.
pub type OwnerOf = Box<dyn Fn(&[u8]) -> usize + Send + Sync>;

/// A placement of a user's own; equal to its clones, and to nothing else.
#[derive(Clone)]
pub(super) struct Custom(pub(super) Arc<dyn CustomPlacement>);

impl PartialEq for Custom {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Custom {}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a user's placement made of certain nodes.
pub(in crate::ring) struct CustomTable {
    owner_of: OwnerOf,
    /// The nodes as it was given them, by their places in the ring.
    order: Vec<u16>,
    shares: OnceLock<Vec<f64>>,
}

impl CustomTable {
    pub(super) fn new(custom: &Custom, nodes: &[RingNode], sorted: bool) -> Self {
        let mut order: Vec<u16> = (0..).take(nodes.len()).collect();
        if sorted {
            let label = |index: &u16| nodes[usize::from(*index)].label();
            order.sort_by(|a, b| natural(label(a), label(b)).then_with(|| label(a).cmp(label(b))));
        }
        let given: Vec<_> = order.iter().map(|&index| nodes[usize::from(index)].clone()).collect();
        Self { owner_of: custom.0.owners(&given), order, shares: OnceLock::new() }
    }

    pub(super) fn owner(&self, key: &[u8]) -> Option<u16> {
        let place = (self.owner_of)(key).checked_rem(self.order.len())?;
        Some(self.order[place])
    }

    /// Counted over sample keys, once.
    pub(super) fn shares(&self) -> Vec<f64> {
        let count = || {
            let mut shares = vec![0.0; self.order.len()];
            for key in crate::ring::diff::sample_keys() {
                if let Some(owner) = self.owner(&key) {
                    shares[usize::from(owner)] += 1.0 / f64::from(crate::ring::diff::SAMPLES);
                }
            }
            shares
        };
        self.shares.get_or_init(count).clone()
    }
}
