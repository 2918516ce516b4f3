//! How evenly a ring shares keys out, by the number of points a node has: the table the contract's number was read
//! from.
//!
//! `cargo bench --bench ring_balance` (a few seconds). The load of the fullest node over the mean, by exact shares of
//! the circle, over 200 sets of pod names; once with a point's index appended to the label, as the ring does it, and
//! once with the index as the hash's seed. Last comes [`Ring`] itself, which must keep within the bounds it was
//! designed for.

use memring::Ring;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

const POINTS: [u32; 7] = [160, 256, 320, 400, 512, 640, 800];
const BOUNDS: [(usize, f64); 3] = [(3, 1.10), (10, 1.10), (100, 1.15)];

fn pods(set: usize, n: usize) -> Vec<String> {
    (0..n).map(|i| format!("memcached-{i}.memcached.ns{set}.svc.cluster.local:11211")).collect()
}

fn appended(label: &str, index: u32) -> u32 {
    (xxh3_64(&[label.as_bytes(), &index.to_le_bytes()].concat()) >> 32) as u32
}

fn seeded(label: &str, index: u32) -> u32 {
    (xxh3_64_with_seed(label.as_bytes(), index.into()) >> 32) as u32
}

/// The fullest node's load over the mean, from the points alone.
fn fullest(labels: &[String], per_node: u32, place: fn(&str, u32) -> u32) -> f64 {
    let mut points: Vec<_> = labels
        .iter()
        .enumerate()
        .flat_map(|(node, label)| (0..per_node).map(move |index| (place(label, index), node)))
        .collect();
    points.sort_unstable();
    let mut owned = vec![0; labels.len()];
    let mut before = points.last().map_or(0, |last| i64::from(last.0) - (1 << 32));
    for (at, node) in points {
        owned[node] += i64::from(at) - before;
        before = at.into();
    }
    let most = owned.into_iter().max().unwrap_or_default();
    most as f64 / (1_i64 << 32) as f64 * labels.len() as f64
}

/// Prints median, 95th percentile and worst; gives the median.
fn row(title: &str, n: usize, mut found: Vec<f64>) -> f64 {
    found.sort_unstable_by(f64::total_cmp);
    let (median, worst) = (found[found.len() / 2], found[found.len() - 1]);
    println!("| {title} | {n} | {median:.3} | {:.3} | {worst:.3} |", found[found.len() * 95 / 100]);
    median
}

fn main() {
    // Without `--bench`, cargo only wants to know that this runs.
    let measuring = std::env::args().any(|arg| arg == "--bench");
    let sets = if measuring { 200 } else { 2 };
    println!("| points of a node | nodes | median | p95 | worst of {sets} |\n|---|---|---|---|---|");
    for (name, place) in [("appended", appended as fn(&str, u32) -> u32), ("seeded", seeded)] {
        for (n, _) in BOUNDS {
            for per_node in POINTS {
                let found = (0..sets).map(|set| fullest(&pods(set, n), per_node, place)).collect();
                row(&format!("{per_node} {name}"), n, found);
            }
        }
    }
    let neighbours = ["mc0".to_owned(), "mc1".to_owned()];
    for (name, place) in [("appended", appended as fn(&str, u32) -> u32), ("seeded", seeded)] {
        println!(
            "512 points {name}, `mc0` and `mc1`: the fuller holds {:.3} times the mean",
            fullest(&neighbours, 512, place)
        );
    }

    println!("\n| the ring itself | nodes | median | p95 | worst of {sets} |\n|---|---|---|---|---|");
    for (n, bound) in BOUNDS {
        let shares = |set| Ring::new(pods(set, n)).expect("sound labels").shares();
        let found = (0..sets).map(|set| shares(set).into_iter().fold(0.0, f64::max) * n as f64).collect();
        let median = row("Ring", n, found);
        assert!(!measuring || median <= bound, "{n} nodes: {median:.3} is beyond the bound of {bound}");
    }
}
