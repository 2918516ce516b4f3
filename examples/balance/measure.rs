//! Measures placements: the load of the nodes, the keys that move, and the memory of a ring.

use std::collections::HashMap;
use std::error::Error;

use memring::{Placement, Ring, RingNode};
use stats_alloc::Region;

use super::ALLOCATOR;

/// The number of keys a node to place, for placements whose shares are not known exactly.
pub(crate) const KEYS_PER_NODE: usize = 10_000;

/// The load of the fullest node over the mean, over many sets of names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) median: f64,
    pub(crate) p95: f64,
    pub(crate) worst: f64,
}

/// The shares of all keys that move when the nodes change; medians.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moved {
    /// A node is added at the end of the list.
    pub(crate) added: f64,
    /// The first node of the list is removed.
    pub(crate) first_removed: f64,
    /// The last node of the list is removed.
    pub(crate) last_removed: f64,
}

/// Returns the nodes of a set: pods of a StatefulSet in a namespace of their own.
fn pods(set: usize, from: usize, to: usize) -> impl Iterator<Item = RingNode> {
    (from..to).map(move |i| RingNode::new(format!("memcached-{i}.memcached.ns{set}.svc.cluster.local:11211")))
}

fn ring(placement: &Placement, nodes: impl Iterator<Item = RingNode>) -> Result<Ring, Box<dyn Error>> {
    Ok(Ring::with_placement(placement, nodes)?)
}

/// Returns whether a placement has points, or slots made from points. The others compute the owner of each key.
pub(crate) fn has_points(name: &str) -> bool {
    !matches!(name, "pymemcache" | "dskit") && !name.starts_with("mcrouter")
}

/// Measures the load over `sets` sets of `n` nodes; over one set if the placement has no points.
pub(crate) fn load(name: &str, n: usize, sets: usize) -> Result<Load, Box<dyn Error>> {
    let placement = name.parse()?;
    let sets = if has_points(name) { sets } else { 1 };
    let mut loads = Vec::new();
    for set in 0..sets {
        let ring = ring(&placement, pods(set, 0, n))?;
        loads.push(if has_points(name) { load_by_shares(&ring) } else { load_by_keys(&ring) });
    }
    loads.sort_unstable_by(f64::total_cmp);
    Ok(Load { median: median(&loads), p95: loads[loads.len() * 95 / 100], worst: loads[loads.len() - 1] })
}

fn load_by_shares(ring: &Ring) -> f64 {
    ring.shares().into_iter().fold(0.0, f64::max) * ring.nodes().len() as f64
}

fn load_by_keys(ring: &Ring) -> f64 {
    let n = ring.nodes().len();
    let index: HashMap<_, _> = ring.nodes().iter().map(RingNode::label).zip(0..).collect();
    let mut counts = vec![0_u32; n];
    for key in 0..KEYS_PER_NODE * n {
        if let Some(owner) = ring.node_for(format!("user:profile:{key:08x}")) {
            counts[index[owner.label()]] += 1;
        }
    }
    f64::from(counts.into_iter().max().unwrap_or_default()) / KEYS_PER_NODE as f64
}

/// Returns the load if each key picks a random node, which is what a perfect placement shows for this number of keys.
pub(crate) fn random_load(n: usize) -> f64 {
    let mut counts = vec![0_u32; n];
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..KEYS_PER_NODE * n {
        counts[random.usize(..n)] += 1;
    }
    f64::from(counts.into_iter().max().unwrap_or_default()) / KEYS_PER_NODE as f64
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

/// Measures the moved keys over `sets` sets of `n` nodes.
pub(crate) fn moved(name: &str, n: usize, sets: usize) -> Result<Moved, Box<dyn Error>> {
    let placement = name.parse()?;
    let mut shares = [const { Vec::new() }; 3];
    for set in 0..sets {
        let old = ring(&placement, pods(set, 0, n))?;
        let newer = [pods(set, 0, n + 1), pods(set, 1, n), pods(set, 0, n - 1)];
        for (shares, newer) in shares.iter_mut().zip(newer) {
            shares.push(old.moved(&ring(&placement, newer)?));
        }
    }
    let [added, first_removed, last_removed] = shares.map(|mut shares| {
        shares.sort_unstable_by(f64::total_cmp);
        median(&shares)
    });
    Ok(Moved { added, first_removed, last_removed })
}

/// Returns the bytes that a ring of `n` nodes holds, without the text of their names.
pub(crate) fn memory(name: &str, n: usize) -> Result<usize, Box<dyn Error>> {
    let placement = name.parse()?;
    let nodes: Vec<_> = pods(0, 0, n).collect();
    let region = Region::new(ALLOCATOR);
    let ring = ring(&placement, nodes.iter().cloned())?;
    let change = region.change();
    drop(ring);
    Ok(change.bytes_allocated.saturating_sub(change.bytes_deallocated))
}
