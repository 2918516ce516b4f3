//! What a placement does with nodes: how it loads them, what it moves, what it holds.

use std::collections::HashMap;
use std::error::Error;

use memring::{Placement, Ring, RingNode};
use stats_alloc::Region;

use super::ALLOCATOR;

/// So many keys a node are placed where a node's part is not to be had from points.
pub(crate) const KEYS_PER_NODE: usize = 10_000;

/// The fullest node's load over the mean, over many sets of names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) median: f64,
    pub(crate) p95: f64,
    pub(crate) worst: f64,
}

/// Which part of all keys has another owner, afterwards; medians.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moved {
    /// One node more, the last in order.
    pub(crate) grown: f64,
    pub(crate) first_gone: f64,
    pub(crate) last_gone: f64,
}

/// Nodes of a set: pods of a StatefulSet in some namespace.
fn pods(set: usize, from: usize, to: usize) -> impl Iterator<Item = RingNode> {
    (from..to).map(move |i| RingNode::new(format!("memcached-{i}.memcached.ns{set}.svc.cluster.local:11211")))
}

fn ring(placement: &Placement, nodes: impl Iterator<Item = RingNode>) -> Result<Ring, Box<dyn Error>> {
    Ok(Ring::with_placement(placement, nodes)?)
}

/// Whether a placement has points, or slots made of such; of others who owns a key is worked out for each key.
pub(crate) fn has_points(name: &str) -> bool {
    !matches!(name, "pymemcache" | "dskit") && !name.starts_with("mcrouter")
}

/// Over so many sets of `n` nodes; over one alone if no point is made of names.
pub(crate) fn load(name: &str, n: usize, sets: usize) -> Result<Load, Box<dyn Error>> {
    let placement = name.parse()?;
    let sets = if has_points(name) { sets } else { 1 };
    let mut found = Vec::new();
    for set in 0..sets {
        let ring = ring(&placement, pods(set, 0, n))?;
        found.push(if has_points(name) { fullest(&ring) } else { fullest_by_keys(&ring) });
    }
    found.sort_unstable_by(f64::total_cmp);
    Ok(Load { median: median(&found), p95: found[found.len() * 95 / 100], worst: found[found.len() - 1] })
}

fn fullest(ring: &Ring) -> f64 {
    ring.shares().into_iter().fold(0.0, f64::max) * ring.nodes().len() as f64
}

fn fullest_by_keys(ring: &Ring) -> f64 {
    let n = ring.nodes().len();
    let index: HashMap<_, _> = ring.nodes().iter().map(RingNode::label).zip(0..).collect();
    let mut held = vec![0_u32; n];
    for key in 0..KEYS_PER_NODE * n {
        if let Some(owner) = ring.node_for(format!("user:profile:{key:08x}")) {
            held[index[owner.label()]] += 1;
        }
    }
    f64::from(held.into_iter().max().unwrap_or_default()) / KEYS_PER_NODE as f64
}

/// The same of keys that are thrown like dice: what a perfect placement would show of so many keys.
pub(crate) fn chance(n: usize) -> f64 {
    let mut held = vec![0_u32; n];
    let mut dice = fastrand::Rng::with_seed(7);
    for _ in 0..KEYS_PER_NODE * n {
        held[dice.usize(..n)] += 1;
    }
    f64::from(held.into_iter().max().unwrap_or_default()) / KEYS_PER_NODE as f64
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

pub(crate) fn moved(name: &str, n: usize, sets: usize) -> Result<Moved, Box<dyn Error>> {
    let placement = name.parse()?;
    let mut found = [const { Vec::new() }; 3];
    for set in 0..sets {
        let old = ring(&placement, pods(set, 0, n))?;
        let newer = [pods(set, 0, n + 1), pods(set, 1, n), pods(set, 0, n - 1)];
        for (found, newer) in found.iter_mut().zip(newer) {
            found.push(old.moved(&ring(&placement, newer)?));
        }
    }
    let [grown, first_gone, last_gone] = found.map(|mut found| {
        found.sort_unstable_by(f64::total_cmp);
        median(&found)
    });
    Ok(Moved { grown, first_gone, last_gone })
}

/// How many bytes a ring of `n` nodes holds, beside the text of their names.
pub(crate) fn memory(name: &str, n: usize) -> Result<usize, Box<dyn Error>> {
    let placement = name.parse()?;
    let nodes: Vec<_> = pods(0, 0, n).collect();
    let region = Region::new(ALLOCATOR);
    let ring = ring(&placement, nodes.iter().cloned())?;
    let change = region.change();
    drop(ring);
    Ok(change.bytes_allocated.saturating_sub(change.bytes_deallocated))
}
