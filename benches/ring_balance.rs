//! Prints how evenly a ring distributes keys, by the number of points of a node. The contract's number comes from here.
//!
//! `cargo bench --bench ring_balance` takes a few seconds. It prints the load of the fullest node over the mean, by
//! exact shares of the circle, over 200 sets of pod names. The first table has two ways to make a point: with its index
//! appended to the label, as the ring does, and with its index as the seed of the hash. The last table is [`Ring`]
//! itself, which must keep within the bounds it was designed for.

use memring::Ring;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

const POINTS: [u32; 7] = [160, 256, 320, 400, 512, 640, 800];
const BOUNDS: [(usize, f64); 3] = [(3, 1.10), (10, 1.10), (100, 1.15)];

fn pods(set: usize, n: usize) -> Vec<String> {
    (0..n).map(|i| format!("memcached-{i}.memcached.ns{set}.svc.cluster.local:11211")).collect()
}

fn appended_index(label: &str, index: u32) -> u32 {
    (xxh3_64(&[label.as_bytes(), &index.to_le_bytes()].concat()) >> 32) as u32
}

fn seeded_by_index(label: &str, index: u32) -> u32 {
    (xxh3_64_with_seed(label.as_bytes(), index.into()) >> 32) as u32
}

/// Returns the load of the fullest node over the mean, computed from the points.
fn load_of_fullest(labels: &[String], per_node: u32, point: fn(&str, u32) -> u32) -> f64 {
    let mut points: Vec<_> = labels
        .iter()
        .enumerate()
        .flat_map(|(node, label)| (0..per_node).map(move |index| (point(label, index), node)))
        .collect();
    points.sort_unstable();
    let mut owned = vec![0; labels.len()];
    let mut before = points.last().map_or(0, |last| i64::from(last.0) - (1 << 32));
    for (position, node) in points {
        owned[node] += i64::from(position) - before;
        before = position.into();
    }
    let largest = owned.into_iter().max().unwrap_or_default();
    largest as f64 / (1_i64 << 32) as f64 * labels.len() as f64
}

/// Prints median, 95th percentile and worst of some loads. Returns the median.
fn print_row(title: &str, n: usize, mut loads: Vec<f64>) -> f64 {
    loads.sort_unstable_by(f64::total_cmp);
    let (median, p95, worst) = (loads[loads.len() / 2], loads[loads.len() * 95 / 100], loads[loads.len() - 1]);
    println!("| {title} | {n} | {median:.3} | {p95:.3} | {worst:.3} |");
    median
}

fn main() {
    // Without `--bench`, cargo only checks that the benchmark runs.
    let is_measuring = std::env::args().any(|arg| arg == "--bench");
    let sets = if is_measuring { 200 } else { 2 };
    let ways = [("appended", appended_index as fn(&str, u32) -> u32), ("seeded", seeded_by_index)];
    println!("| points of a node | nodes | median | p95 | worst of {sets} |\n|---|---|---|---|---|");
    for (name, point) in ways {
        for (n, _) in BOUNDS {
            for per_node in POINTS {
                let loads = (0..sets).map(|set| load_of_fullest(&pods(set, n), per_node, point)).collect();
                print_row(&format!("{per_node} {name}"), n, loads);
            }
        }
    }
    let similar = ["mc0".to_owned(), "mc1".to_owned()];
    for (name, point) in ways {
        println!(
            "512 points {name}, `mc0` and `mc1`: the fuller node holds {:.3} times the mean",
            load_of_fullest(&similar, 512, point)
        );
    }

    println!("\n| the ring itself | nodes | median | p95 | worst of {sets} |\n|---|---|---|---|---|");
    for (n, bound) in BOUNDS {
        let shares = |set| Ring::new(pods(set, n)).expect("valid labels").shares();
        let loads = (0..sets).map(|set| shares(set).into_iter().fold(0.0, f64::max) * n as f64).collect();
        let median = print_row("Ring", n, loads);
        assert!(!is_measuring || median <= bound, "{n} nodes: {median:.3} is above the bound of {bound}");
    }
}
