//! What a look-up costs beside the hash alone and a plain binary search, and what a ring costs to build.
//!
//! `cargo bench --bench ring`

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use memring::Ring;
use xxhash_rust::xxh3::xxh3_64;

const SIZES: [usize; 4] = [3, 10, 100, 1000];

fn pods(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("memcached-{i}.memcached.default.svc.cluster.local:11211")).collect()
}

/// Enough keys that the branch predictor does not learn them by heart; 21 bytes each.
fn keys() -> Vec<String> {
    (0..1 << 14).map(|i| format!("user:profile:{:08x}", i * 0x9e37_u32)).collect()
}

fn position(bytes: &[u8]) -> u32 {
    (xxh3_64(bytes) >> 32) as u32
}

/// The same points in a sorted list, and nothing else.
fn sorted_points(labels: &[String]) -> Vec<(u32, u16)> {
    let mut points: Vec<_> = (0_u16..)
        .zip(labels)
        .flat_map(|(node, label)| {
            (0_u32..512).map(move |i| (position(&[label.as_bytes(), &i.to_le_bytes()].concat()), node))
        })
        .collect();
    points.sort_unstable();
    points
}

fn lookup(c: &mut Criterion) {
    let keys = keys();
    let mut group = c.benchmark_group("lookup");
    let mut next = 0;
    let mut key = || {
        next = (next + 1) % keys.len();
        keys[next].as_bytes()
    };
    group.bench_function("hash alone", |b| b.iter(|| position(black_box(key()))));
    for n in SIZES {
        let ring = Ring::new(pods(n)).expect("sound labels");
        group.bench_function(BenchmarkId::new("ring", n), |b| b.iter(|| ring.node_for(black_box(key()))));
        let points = sorted_points(&pods(n));
        group.bench_function(BenchmarkId::new("binary search", n), |b| {
            b.iter(|| {
                let at = position(black_box(key()));
                let found = points.partition_point(|point| point.0 < at);
                points[if found == points.len() { 0 } else { found }].1
            });
        });
    }
    group.finish();
}

fn successors(c: &mut Criterion) {
    let mut group = c.benchmark_group("nodes_for");
    for n in SIZES {
        let ring = Ring::new(pods(n)).expect("sound labels");
        for wanted in [2, n] {
            group.bench_function(format!("{wanted} of {n}"), |b| {
                b.iter(|| ring.nodes_for(black_box("user:profile:00000042"), wanted));
            });
        }
    }
    group.finish();
}

fn build(c: &mut Criterion) {
    let mut group = c.benchmark_group("build");
    group.sample_size(20);
    for n in SIZES {
        let labels = pods(n);
        group.bench_function(BenchmarkId::new("ring", n), |b| {
            b.iter(|| Ring::new(black_box(&labels).iter().map(String::as_str)));
        });
    }
    let (old, new) = (Ring::new(pods(100)).expect("sound labels"), Ring::new(pods(101)).expect("sound labels"));
    group.bench_function("moved, 100 to 101", |b| b.iter(|| old.moved(black_box(&new))));
    group.finish();
}

criterion_group!(benches, lookup, successors, build);
criterion_main!(benches);
