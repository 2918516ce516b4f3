//! What a change of nodes costs: which keys move, and where to.

use std::collections::{BTreeMap, HashMap};

use super::circle::{Circle, POSITIONS};
use super::{Ring, Table};

/// What moves from one ring to another: see [`Ring::diff`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RingDiff {
    /// Between which nodes keys move, the greatest shares first.
    pub pairs: Vec<MovedShare>,
    /// Whether the shares are exact: counted over all values that the hash of a key can have, each as likely as any other.
    /// That is possible where keys meet points on a circle of 2^32 positions, and where the owner is the remainder of a
    /// division, unless a hash tag is set. For other placements they are estimates, good to about half a percentage point.
    pub is_exact: bool,
    moved: f64,
}

/// The share of all keys that moves from one node to another.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MovedShare {
    /// The label of the node that owned them; none if the old ring was empty.
    pub from: Option<String>,
    /// The label of the node that owns them now; none if the new ring is empty.
    pub to: Option<String>,
    /// The share of all keys, from 0 to 1.
    pub share: f64,
}

impl RingDiff {
    /// The share of all keys that moves, from 0 to 1.
    #[must_use]
    pub fn moved(&self) -> f64 {
        self.moved
    }
}

/// How much moves between nodes, by their indices in the old ring and in the new.
type Pairs<T> = BTreeMap<(Option<usize>, Option<usize>), T>;

impl Ring {
    /// Which share of all keys has another owner in the newer ring, for each pair of nodes. Nodes are the same if their
    /// labels are.
    ///
    /// ```
    /// use memring::Ring;
    ///
    /// let three = Ring::new(["a:11211", "b:11211", "c:11211"])?;
    /// let four = Ring::new(["a:11211", "b:11211", "c:11211", "d:11211"])?;
    /// let diff = Ring::diff(&three, &four);
    /// // Everything that moves, moves to the new node.
    /// assert!(diff.pairs.iter().all(|pair| pair.to.as_deref() == Some("d:11211")));
    /// assert_eq!(diff.moved(), four.shares()[3]);
    /// # Ok::<(), memring::InvalidRing>(())
    /// ```
    #[must_use]
    pub fn diff(old: &Self, newer: &Self) -> RingDiff {
        let (pairs, is_exact, moved) = match at_once(old, newer) {
            Some(moved) if moved > 0.0 => (all_at_once(old, newer), true, moved),
            Some(moved) => (Pairs::new(), true, moved),
            None => {
                let mut counts: Pairs<u128> = Pairs::new();
                let (all, is_exact) =
                    compare(old, newer, |us, them, count| *counts.entry((Some(us), Some(them))).or_default() += count);
                let part = |count: u128| count as f64 / all as f64;
                let moved = part(counts.values().sum());
                (counts.into_iter().map(|(pair, count)| (pair, part(count))).collect(), is_exact, moved)
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

    /// What [`diff`](Self::diff) says moves, without its pairs, of which there may be millions.
    pub(super) fn sum_of_moved(&self, newer: &Self) -> f64 {
        at_once(self, newer).unwrap_or_else(|| {
            let mut moved = 0;
            let (all, _) = compare(self, newer, |_, _, count| moved += count);
            moved as f64 / all as f64
        })
    }
}

/// What moves from or to the empty ring, if one of them is.
fn at_once(old: &Ring, newer: &Ring) -> Option<f64> {
    match (old.nodes.is_empty(), newer.nodes.is_empty()) {
        (true, true) => Some(0.0),
        (false, false) => None,
        _ => Some(1.0),
    }
}

/// From nothing everything comes, in each node's share; and to nothing it goes.
fn all_at_once(old: &Ring, newer: &Ring) -> Pairs<f64> {
    let lost = old.shares().into_iter().enumerate().map(|(node, share)| ((Some(node), None), share));
    let won = newer.shares().into_iter().enumerate().map(|(node, share)| ((None, Some(node)), share));
    lost.chain(won).collect()
}

/// Says between which nodes how many keys move, perhaps more than once of a pair; then of how many keys, and whether those
/// are all there can be: values of a key's hash, if keys have the same on both rings and it can be counted. If not, samples.
fn compare(old: &Ring, newer: &Ring, mut moves: impl FnMut(usize, usize, u128)) -> (u128, bool) {
    let theirs: HashMap<_, _> = newer.nodes.iter().enumerate().map(|(node, it)| (it.label(), node)).collect();
    let heirs: Vec<_> = old.nodes.iter().map(|node| theirs.get(node.label()).copied()).collect();
    let mut count = |us: usize, them: usize, keys: u128| {
        if heirs[us] != Some(them) {
            moves(us, them, keys);
        }
    };
    #[cfg(feature = "placements")]
    if let (Table::Foreign(ours), Table::Foreign(theirs)) = (&old.table, &newer.table)
        && let Some((ours, theirs)) = ours.slots(theirs)
        && let Some(all) = ours.overlay(theirs, &mut count)
    {
        return (all, true);
    }
    if let Some((ours, theirs, within)) = circles(old, newer) {
        ours.overlay(theirs, within, |us, them, positions| count(us, them, positions.into()));
        return (within.into(), true);
    }
    for key in sample_keys() {
        if let (Some(us), Some(them)) = (old.index_for(&key), newer.index_for(&key)) {
            count(us, them, 1);
        }
    }
    (SAMPLES.into(), false)
}

/// The circles of two rings, if keys lie at the same places on both, and at how many places they can.
fn circles<'a>(old: &'a Ring, newer: &'a Ring) -> Option<(&'a Circle, &'a Circle, u64)> {
    match (&old.table, &newer.table) {
        (Table::Native(ours), Table::Native(theirs)) => Some((ours, theirs, POSITIONS)),
        #[cfg(feature = "placements")]
        (Table::Foreign(ours), Table::Foreign(theirs)) => ours.circles(theirs),
        #[cfg(feature = "placements")]
        _ => None,
    }
}

/// Keys drawn to estimate what cannot be counted.
pub(super) const SAMPLES: u32 = 1 << 16;

pub(super) fn sample_keys() -> impl Iterator<Item = [u8; 16]> {
    (0..SAMPLES).map(sample_key)
}

/// Sixteen letters, no two samples alike.
fn sample_key(sample: u32) -> [u8; 16] {
    let bits = xxhash_rust::xxh3::xxh3_64(&sample.to_le_bytes());
    std::array::from_fn(|at| b'a' + (bits >> (4 * at) & 0xf) as u8)
}
