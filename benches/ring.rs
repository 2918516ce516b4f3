//! Measures lookups and builds of rings, and prints the tables of docs/rings.md.
//!
//! A lookup is measured for each placement, beside the hash of the key alone and beside other ways to find a node.
//!
//! `cargo bench --bench ring -- --warm-up-time 0.3 --measurement-time 0.7` takes three minutes. A table cell is the
//! smallest mean of its samples, because other work on the machine can only add to it.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion};
use hashring::HashRing;
use memring::{KeyHash, Placement, Ring, RingNode};
use xxhash_rust::xxh3::xxh3_64;
use xxhash_rust::xxh64::xxh64;

const SIZES: [usize; 4] = [3, 10, 100, 1000];

/// Returns whether to measure. Without `--bench`, cargo only checks that the benchmark runs.
fn is_measuring() -> bool {
    std::env::args().any(|arg| arg == "--bench")
}

fn sizes() -> impl Iterator<Item = usize> {
    let largest = if is_measuring() { usize::MAX } else { 10 };
    SIZES.into_iter().filter(move |n| *n <= largest)
}

/// Names of placements and of their key hashes; no hash if hashing and finding the node are one step.
const PLACEMENTS: [(&str, &str); 19] = [
    ("native", "XXH3"),
    ("libmemcached:ketama_weighted", "MD5"),
    ("libmemcached:ketama", "one-at-a-time"),
    ("spymemcached:libmemcached", "MD5"),
    ("twemproxy:ketama", "FNV-1a"),
    ("dalli", "CRC-32"),
    ("nginx", "CRC-32"),
    ("folsom", "Murmur3"),
    ("uhashring", "MD5"),
    ("pecl:consistent", "CRC-32"),
    ("gomemcache", "CRC-32"),
    ("dskit", "XXH64"),
    ("mcrouter:ch3", ""),
    // Makes nodes of weight 1 count as 1.0.
    ("mcrouter:ch3:weighted:1", ""),
    ("mcrouter:crc32", "CRC-32"),
    ("mcrouter:rendezvous", ""),
    ("envoy", "XXH64"),
    ("envoy:maglev", "XXH64"),
    ("pymemcache", ""),
];

fn hash_of(name: &str) -> fn(&[u8]) -> u64 {
    match name {
        "XXH3" => xxh3_64,
        "XXH64" => |key| xxh64(key, 0),
        "MD5" => |key| KeyHash::Md5.hash(key).into(),
        "CRC-32" => |key| KeyHash::Crc32.hash(key).into(),
        "FNV-1a" => |key| KeyHash::Fnv64a.hash(key).into(),
        "Murmur3" => |key| KeyHash::Murmur3.hash(key).into(),
        _ => |key| KeyHash::OneAtATime.hash(key).into(),
    }
}

fn pods(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("memcached-{i}.memcached.default.svc.cluster.local:11211")).collect()
}

fn ring(placement: &str, labels: &[String]) -> Ring {
    let placement: Placement = placement.parse().expect("a known placement");
    Ring::with_placement(&placement, labels.iter().map(|label| RingNode::new(label.as_str()))).expect("valid labels")
}

/// Enough keys that the branch predictor cannot memorize them, which it does for about 10,000 keys.
const KEYS: usize = 1 << 18;

/// Keys of 21 bytes, cycled through.
struct Keys {
    keys: Vec<[u8; 21]>,
    last: usize,
}

impl Keys {
    fn new() -> Self {
        let key = |i: u32| format!("user:profile:{:08x}", i.wrapping_mul(0x9e37_79b1));
        let keys = (0..KEYS as u32).map(|i| key(i).into_bytes().try_into().expect("21 bytes"));
        Self { keys: keys.collect(), last: 0 }
    }

    fn next(&mut self) -> &[u8] {
        self.last = (self.last + 1) % KEYS;
        black_box(&self.keys[self.last])
    }
}

/// Measured seconds by row and column.
#[derive(Default)]
struct Table {
    rows: Vec<String>,
    cells: BTreeMap<(String, usize), f64>,
}

/// The shortest sample that counts; in shorter ones the clock dominates.
const MIN_SAMPLE: Duration = Duration::from_micros(20);

impl Table {
    fn measure<T>(
        &mut self,
        group: &mut BenchmarkGroup<'_, WallTime>,
        (row, column): (&str, usize),
        mut run: impl FnMut() -> T,
    ) {
        let mut smallest = f64::INFINITY;
        group.bench_function(BenchmarkId::new(row, column), |b| {
            b.iter_custom(|iterations| {
                let start = Instant::now();
                for _ in 0..iterations {
                    black_box(run());
                }
                let elapsed = start.elapsed();
                if elapsed >= MIN_SAMPLE {
                    smallest = smallest.min(elapsed.as_secs_f64() / iterations as f64);
                }
                elapsed
            });
        });
        if smallest.is_finite() {
            if !self.rows.iter().any(|known| known == row) {
                self.rows.push(row.to_owned());
            }
            self.cells.insert((row.to_owned(), column), smallest);
        }
    }

    /// Prints the table in a unit of `unit` seconds, with a note for each row. Prints nothing if nothing was measured.
    fn print(&self, titles: [&str; 2], unit: f64, note: impl Fn(&str) -> String) {
        if self.rows.is_empty() || !is_measuring() {
            return;
        }
        println!("\n| {} | {} |", titles.join(" | "), SIZES.map(|n| n.to_string()).join(" | "));
        println!("|---|---|{}", "---:|".repeat(SIZES.len()));
        for row in &self.rows {
            let cell =
                |n| self.cells.get(&(row.clone(), n)).map(|seconds| format_number(seconds / unit)).unwrap_or_default();
            println!("| {row} | {} | {} |", note(row), SIZES.map(cell).join(" | "));
        }
    }
}

/// Formats a number with about three digits.
fn format_number(number: f64) -> String {
    if number < 99.95 { format!("{number:.1}") } else { format!("{number:.0}") }
}

const NANOSECONDS: f64 = 1e-9;
const MICROSECONDS: f64 = 1e-6;

/// Returns the cost of each hash alone, by name.
fn measure_hashes(c: &mut Criterion) -> BTreeMap<String, f64> {
    let mut table = Table::default();
    let mut group = c.benchmark_group("lookup, hash alone");
    let mut keys = Keys::new();
    for name in ["XXH3", "XXH64", "CRC-32", "one-at-a-time", "FNV-1a", "Murmur3", "MD5"] {
        let hash = hash_of(name);
        table.measure(&mut group, (name, 21), || hash(keys.next()));
    }
    table.cells.into_iter().map(|((name, _), seconds)| (name, seconds)).collect()
}

fn measure_placements(c: &mut Criterion) -> Table {
    let mut table = Table::default();
    let mut group = c.benchmark_group("lookup, placement");
    let mut keys = Keys::new();
    for (name, _) in PLACEMENTS {
        for n in sizes() {
            let ring = ring(name, &pods(n));
            table.measure(&mut group, (name, n), || ring.node_for(keys.next()));
        }
    }
    table
}

/// Returns the points of the native ring as a sorted list.
fn sorted_points(labels: &[String]) -> Vec<(u32, u16)> {
    let point = |label: &str, i: u32| position(&[label.as_bytes(), &i.to_le_bytes()].concat());
    let mut points: Vec<_> =
        (0_u16..).zip(labels).flat_map(|(node, label)| (0_u32..512).map(move |i| (point(label, i), node))).collect();
    points.sort_unstable();
    points
}

fn position(bytes: &[u8]) -> u32 {
    (xxh3_64(bytes) >> 32) as u32
}

/// Returns sorted points in Eytzinger order, in which a binary search visits them, from index 1 on.
fn eytzinger(sorted: &[(u32, u16)]) -> Vec<(u32, u16)> {
    fn fill(sorted: &mut impl Iterator<Item = (u32, u16)>, out: &mut [(u32, u16)], index: usize) {
        if index < out.len() {
            fill(sorted, out, 2 * index);
            if let Some(point) = sorted.next() {
                out[index] = point;
            }
            fill(sorted, out, 2 * index + 1);
        }
    }
    // Positions after the last point belong to the first one.
    let mut out = vec![(0, sorted[0].1); sorted.len() + 1];
    fill(&mut sorted.iter().copied(), &mut out, 1);
    out
}

/// Returns the owner of a position among points in Eytzinger order: where the search last turned left, or index 0.
fn eytzinger_search(points: &[(u32, u16)], position: u32) -> u16 {
    let mut next = 1;
    while next < points.len() {
        next = 2 * next + usize::from(points[next].0 < position);
    }
    points[next >> (next.trailing_ones() + 1)].1
}

/// A point of the `hashring` crate; a node is [`POINTS`] of them.
#[derive(Debug, Clone, Copy, Hash)]
struct HashringPoint {
    node: u16,
    _index: u32,
}

/// The number of points of a node, as in ketama.
const POINTS: u32 = 160;

fn hashring(n: u16) -> HashRing<HashringPoint> {
    let mut ring = HashRing::new();
    ring.batch_add((0..n).flat_map(|node| (0..POINTS).map(move |_index| HashringPoint { node, _index })).collect());
    ring
}

fn jump(mut key: u64, nodes: i64) -> i64 {
    let (mut node, mut next) = (0, 0);
    while next < nodes {
        node = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((node + 1) as f64 * ((1_i64 << 31) as f64 / ((key >> 33) + 1) as f64)) as i64;
    }
    node
}

/// Returns the node with the highest score, which is one multiplication of the key's hash with the node's hash.
fn rendezvous(key: u64, nodes: &[u64]) -> Option<usize> {
    let score = |node: &u64| {
        let product = u128::from(key ^ node) * 0x9e37_79b9_7f4a_7c15;
        (product >> 64) as u64 ^ product as u64
    };
    nodes.iter().enumerate().max_by_key(|(_, node)| score(node)).map(|(index, _)| index)
}

/// Measures other ways to find a node, all but `hashring` from the same hash of the key.
fn measure_alternatives(c: &mut Criterion) -> Table {
    let mut table = Table::default();
    let mut group = c.benchmark_group("lookup, other");
    let mut keys = Keys::new();
    for n in sizes() {
        let ring = Ring::new(pods(n)).expect("valid labels");
        table.measure(&mut group, ("memring", n), || ring.node_for(keys.next()));
        let points = sorted_points(&pods(n));
        let binary_search = |position| {
            let found = points.partition_point(|point| point.0 < position);
            points[if found == points.len() { 0 } else { found }].1
        };
        table.measure(&mut group, ("binary search", n), || binary_search(position(keys.next())));
        let eytzinger = eytzinger(&points);
        let mut positions = keys.keys.iter().map(|key| position(key));
        assert!(positions.all(|position| eytzinger_search(&eytzinger, position) == binary_search(position)));
        table.measure(&mut group, ("Eytzinger", n), || eytzinger_search(&eytzinger, position(keys.next())));
        let hashring = hashring(n as u16);
        table.measure(&mut group, ("hashring", n), || hashring.get(&keys.next()).map(|point| point.node));
        table.measure(&mut group, ("jump", n), || jump(xxh3_64(keys.next()), n as i64));
        let nodes: Vec<_> = pods(n).iter().map(|label| xxh3_64(label.as_bytes())).collect();
        table.measure(&mut group, ("rendezvous", n), || rendezvous(xxh3_64(keys.next()), &nodes));
    }
    table
}

fn measure_successors(c: &mut Criterion) {
    let mut group = c.benchmark_group("nodes_for");
    for n in sizes() {
        let ring = Ring::new(pods(n)).expect("valid labels");
        for wanted in [2, n] {
            group.bench_function(format!("{wanted} of {n}"), |b| {
                b.iter(|| ring.nodes_for(black_box("user:profile:00000042"), wanted));
            });
        }
    }
}

fn measure_builds(c: &mut Criterion) -> Table {
    let mut table = Table::default();
    let mut group = c.benchmark_group("build");
    group.sample_size(10);
    for n in sizes() {
        let labels = pods(n);
        for (name, _) in PLACEMENTS {
            table.measure(&mut group, (name, n), || ring(name, black_box(&labels)));
        }
        table.measure(&mut group, ("a sorted list", n), || sorted_points(black_box(&labels)));
        table.measure(&mut group, ("hashring", n), || hashring(black_box(n as u16)));
    }
    let (old, new) = (Ring::new(pods(100)).expect("valid labels"), Ring::new(pods(101)).expect("valid labels"));
    group.bench_function("moved, 100 to 101", |b| b.iter(|| old.moved(black_box(&new))));
    table
}

fn main() {
    let mut c = Criterion::default().configure_from_args();
    let hashes = measure_hashes(&mut c);
    let (placements, alternatives) = (measure_placements(&mut c), measure_alternatives(&mut c));
    measure_successors(&mut c);
    let builds = measure_builds(&mut c);
    c.final_summary();

    let hash_of = |placement: &str| {
        let hash = PLACEMENTS.iter().find(|(name, _)| *name == placement).map_or("", |(_, hash)| hash);
        hashes.get(hash).map_or_else(String::new, |cost| format!("{hash}: {}", format_number(cost / NANOSECONDS)))
    };
    placements.print(["lookup, ns", "hash of the key alone"], NANOSECONDS, hash_of);
    alternatives.print(["lookup, ns", ""], NANOSECONDS, |row| match row {
        "memring" | "binary search" | "Eytzinger" => "512 points".to_owned(),
        "hashring" => format!("{POINTS} points"),
        _ => "no points".to_owned(),
    });
    builds.print(["build, µs", ""], MICROSECONDS, |_| String::new());
}
