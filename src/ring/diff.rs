//! The cost of a change of nodes: which keys move, and between which nodes.

use std::collections::{BTreeMap, HashMap};

use super::circle::{Circle, POSITIONS};
use super::{OwnerTable, Ring};

/// The keys that move from one ring to another: see [`Ring::diff`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RingDiff {
    /// The pairs of nodes between which keys move, largest share first.
    pub pairs: Vec<MovedShare>,
    /// Whether the shares are exact.
    ///
    /// Exact shares count all values of the key's hash, each as likely as any other. This is possible for points on a
    /// circle of 2^32 positions and for a hash modulo the number of slots, unless a hash tag is set. For other
    /// placements the shares are estimates, accurate to about half a percentage point.
    pub is_exact: bool,
    moved: f64,
}

/// The share of all keys that moves from one node to another.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MovedShare {
    /// The label of the old owner; `None` if the old ring was empty.
    pub from: Option<String>,
    /// The label of the new owner; `None` if the new ring is empty.
    pub to: Option<String>,
    /// The share of all keys, from 0 to 1.
    pub share: f64,
}

impl RingDiff {
    /// Returns the share of all keys that moves, from 0 to 1.
    #[must_use]
    pub fn moved(&self) -> f64 {
        self.moved
    }
}

/// What moves, by the index of the node in the old ring and in the new ring.
type Pairs<T> = BTreeMap<(Option<usize>, Option<usize>), T>;

impl Ring {
    /// Returns the share of all keys that changes its owner, for each pair of nodes.
    ///
    /// Two nodes are the same if their labels are equal. To learn only the total, use [`moved`](Self::moved).
    ///
    /// ```
    /// use memring::Ring;
    ///
    /// let three = Ring::new(["a:11211", "b:11211", "c:11211"])?;
    /// let four = Ring::new(["a:11211", "b:11211", "c:11211", "d:11211"])?;
    /// let diff = Ring::diff(&three, &four);
    /// // All keys that move, move to the new node.
    /// assert!(diff.pairs.iter().all(|pair| pair.to.as_deref() == Some("d:11211")));
    /// assert_eq!(diff.moved(), four.shares()[3]);
    /// # Ok::<(), memring::InvalidRing>(())
    /// ```
    #[must_use]
    pub fn diff(old: &Self, newer: &Self) -> RingDiff {
        let (pairs, is_exact, moved) = match moved_if_one_is_empty(old, newer) {
            Some(moved) if moved > 0.0 => (pairs_if_one_is_empty(old, newer), true, moved),
            Some(moved) => (Pairs::new(), true, moved),
            None => {
                let mut counts: Pairs<u128> = Pairs::new();
                let (total, is_exact) = count_moves(old, newer, |from, to, count| {
                    *counts.entry((Some(from), Some(to))).or_default() += count
                });
                let share = |count: u128| count as f64 / total as f64;
                let moved = share(counts.values().sum());
                (counts.into_iter().map(|(pair, count)| (pair, share(count))).collect(), is_exact, moved)
            }
        };
        let label = |ring: &Self, node: Option<usize>| node.map(|node| ring.nodes[node].label().to_owned());
        let mut pairs: Vec<_> = pairs
            .into_iter()
            .filter(|(_, share)| *share > 0.0)
            .map(|((from, to), share)| MovedShare { from: label(old, from), to: label(newer, to), share })
            .collect();
        pairs.sort_by(|a, b| b.share.total_cmp(&a.share));
        RingDiff { pairs, is_exact, moved }
    }

    /// Returns the share of all keys whose owner has another label in the `newer` ring, from 0 to 1.
    ///
    /// It is 0 between two empty rings, and 1 to or from one empty ring. The value is exact or an estimate: see
    /// [`RingDiff::is_exact`].
    ///
    /// ```
    /// let three = memring::Ring::new(["a:11211", "b:11211", "c:11211"])?;
    /// let two = memring::Ring::new(["c:11211", "a:11211"])?;
    /// assert_eq!(three.moved(&two), three.shares()[1]);
    /// # Ok::<(), memring::InvalidRing>(())
    /// ```
    #[must_use]
    pub fn moved(&self, newer: &Self) -> f64 {
        // Sums up without the pairs, of which there may be millions.
        moved_if_one_is_empty(self, newer).unwrap_or_else(|| {
            let mut moved = 0;
            let (total, _) = count_moves(self, newer, |_, _, count| moved += count);
            moved as f64 / total as f64
        })
    }
}

fn moved_if_one_is_empty(old: &Ring, newer: &Ring) -> Option<f64> {
    match (old.nodes.is_empty(), newer.nodes.is_empty()) {
        (true, true) => Some(0.0),
        (false, false) => None,
        _ => Some(1.0),
    }
}

fn pairs_if_one_is_empty(old: &Ring, newer: &Ring) -> Pairs<f64> {
    let lost = old.shares().into_iter().enumerate().map(|(node, share)| ((Some(node), None), share));
    let gained = newer.shares().into_iter().enumerate().map(|(node, share)| ((None, Some(node)), share));
    lost.chain(gained).collect()
}

/// Calls `on_move` with the old owner, the new owner and a number of keys, possibly several times for a pair.
///
/// Returns the total number of keys, and whether this is the number of all hash values. It is if both rings hash a key
/// alike and the hash values can be counted; otherwise the keys are samples.
fn count_moves(old: &Ring, newer: &Ring, mut on_move: impl FnMut(usize, usize, u128)) -> (u128, bool) {
    let new_indices: HashMap<_, _> =
        newer.nodes.iter().enumerate().map(|(index, node)| (node.label(), index)).collect();
    let same_node: Vec<_> = old.nodes.iter().map(|node| new_indices.get(node.label()).copied()).collect();
    let mut count = |from: usize, to: usize, keys: u128| {
        if same_node[from] != Some(to) {
            on_move(from, to, keys);
        }
    };
    #[cfg(feature = "placements")]
    if let (OwnerTable::Placement(old), OwnerTable::Placement(newer)) = (&old.table, &newer.table)
        && let Some((old, newer)) = old.comparable_slots(newer)
        && let Some(total) = old.for_each_overlap(newer, &mut count)
    {
        return (total, true);
    }
    if let Some((old, newer, within)) = comparable_circles(old, newer) {
        old.for_each_overlap(newer, within, |from, to, positions| count(from, to, positions.into()));
        return (within.into(), true);
    }
    for key in sample_keys() {
        if let (Some(from), Some(to)) = (old.index_for(&key), newer.index_for(&key)) {
            count(from, to, 1);
        }
    }
    (SAMPLES.into(), false)
}

/// Returns the circles of two rings if a key has the same position on both, and the number of possible positions.
fn comparable_circles<'a>(old: &'a Ring, newer: &'a Ring) -> Option<(&'a Circle, &'a Circle, u64)> {
    match (&old.table, &newer.table) {
        (OwnerTable::Native(old), OwnerTable::Native(newer)) => Some((old, newer, POSITIONS)),
        #[cfg(feature = "placements")]
        (OwnerTable::Placement(old), OwnerTable::Placement(newer)) => old.comparable_circles(newer),
        #[cfg(feature = "placements")]
        _ => None,
    }
}

/// The number of sample keys for an estimate.
pub(super) const SAMPLES: u32 = 1 << 16;

/// Returns [`SAMPLES`] keys of sixteen letters, all different and always the same.
pub(super) fn sample_keys() -> impl Iterator<Item = [u8; 16]> {
    (0..SAMPLES).map(|sample| {
        let bits = xxhash_rust::xxh3::xxh3_64(&sample.to_le_bytes());
        std::array::from_fn(|at| b'a' + (bits >> (4 * at) & 0xf) as u8)
    })
}
