//! What a command costs in allocations, counted.
//!
//! On its own, because the allocator counts everything in the process: the server is another one.

use std::alloc::System;
use std::time::Duration;

use memring::testing::Memcached;
use memring::{Client, Ttl};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn allocations() -> usize {
    let stats = COUNTING.stats();
    stats.allocations + stats.reallocations
}

/// Allocations per run of `work`, once it is warm.
async fn per_run<F: Future<Output = ()>>(runs: usize, mut work: impl FnMut() -> F) -> f64 {
    for _ in 0..runs {
        work().await;
    }
    let before = allocations();
    for _ in 0..runs {
        work().await;
    }
    (allocations() - before) as f64 / runs as f64
}

#[tokio::test]
async fn a_get_hit_makes_two_a_miss_one() {
    let server = Memcached::start().await.unwrap();
    let cache = Client::builder().nodes([server.addr().to_string()]).connect().await.unwrap();
    cache.set("a-key-of-17-bytes", vec![b'v'; 100], Ttl::NEVER).await.unwrap();

    let hit = per_run(2_000, async || assert!(cache.get("a-key-of-17-bytes").await.unwrap().is_some())).await;
    let miss = per_run(2_000, async || assert!(cache.get("absent").await.unwrap().is_none())).await;
    let keys: Vec<String> = (0..100).map(|n| format!("key-{n}")).collect();
    for key in &keys {
        cache.set(key, vec![b'v'; 100], Ttl::NEVER).await.unwrap();
    }
    let many = per_run(500, async || assert_eq!(cache.get_many(&keys).await.hits.len(), 100)).await;
    println!("allocations: get hit {hit:.3}, get miss {miss:.3}, get_many of 100 {many:.1}");
    // A timer of the runtime or two may fall into the count.
    assert!(hit <= 2.01, "{hit} allocations per hit");
    assert!(miss <= 1.01, "{miss} allocations per miss");
    assert!(many <= 140.0, "{many} allocations per get_many of 100");
    assert!(tokio::time::timeout(Duration::from_secs(1), cache.shutdown()).await.is_ok());
}
