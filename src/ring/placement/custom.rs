//! Placements that users write themselves.

use std::fmt;
use std::sync::{Arc, OnceLock};

use super::order::sort_naturally;
use crate::ring::RingNode;
use crate::ring::diff::{SAMPLES, sample_keys};

/// A placement of your own, for [`Placement::custom`](super::Placement::custom).
///
/// Use it if your clients agree on a placement that no other client has. It must be pure: every client must compute the
/// same owner from the same nodes and the same key, always. A [`Ring`](crate::Ring) passes its nodes in the order it
/// was given. A client passes them in natural order of their labels (`cache-2` before `cache-10`), in whatever order
/// discovery found them.
///
/// ```
/// use memring::{CustomPlacement, OwnerFn, Placement, Ring, RingNode};
///
/// /// Keys such as `7:name` live on node number 7, modulo the number of nodes.
/// #[derive(Debug)]
/// struct ByTenant;
///
/// impl CustomPlacement for ByTenant {
///     fn owners(&self, _nodes: &[RingNode]) -> OwnerFn {
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
    /// Returns the function that computes the owner of a key among two or more nodes.
    ///
    /// A client calls this whenever the set of nodes changes, on the task that watches for changes. A slow call delays
    /// the change, and a panic ends the task.
    fn owners(&self, nodes: &[RingNode]) -> OwnerFn;
}

/// Returns the owner of a key, as an index into the nodes given to [`CustomPlacement::owners`].
///
/// Any number is valid: it is taken modulo the number of nodes. A client calls the function for every key of every
/// command, on the caller's task, so it should neither block nor allocate. A panic reaches the caller.
pub type OwnerFn = Box<dyn Fn(&[u8]) -> usize + Send + Sync>;

/// A shared [`CustomPlacement`], equal only to its clones.
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

/// A custom placement applied to a list of nodes.
pub(in crate::ring) struct CustomTable {
    owner_of: OwnerFn,
    /// The ring's indices of the nodes, in the order the placement received them.
    order: Vec<u16>,
    shares: OnceLock<Vec<f64>>,
}

impl CustomTable {
    pub(super) fn new(custom: &Custom, nodes: &[RingNode], is_sorted: bool) -> Self {
        let mut order: Vec<u16> = (0..).take(nodes.len()).collect();
        if is_sorted {
            sort_naturally(&mut order, |index| nodes[usize::from(*index)].label());
        }
        let nodes: Vec<_> = order.iter().map(|&index| nodes[usize::from(index)].clone()).collect();
        Self { owner_of: custom.0.owners(&nodes), order, shares: OnceLock::new() }
    }

    pub(super) fn owner(&self, key: &[u8]) -> Option<u16> {
        let index = (self.owner_of)(key).checked_rem(self.order.len())?;
        Some(self.order[index])
    }

    /// Returns the shares of the nodes among sample keys, counted once.
    pub(super) fn shares(&self) -> Vec<f64> {
        let count = || {
            let mut shares = vec![0.0; self.order.len()];
            for key in sample_keys() {
                if let Some(owner) = self.owner(&key) {
                    shares[usize::from(owner)] += 1.0 / f64::from(SAMPLES);
                }
            }
            shares
        };
        self.shares.get_or_init(count).clone()
    }
}
