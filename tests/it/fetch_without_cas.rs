//! `fetch` on a server without CAS uniques (`-C`), where no lease can be used.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use memring::meta::Get;
use memring::testing::Memcached;
use memring::{Client, FetchOptions, Fetched, Origin, Stale};
use tokio::time::sleep;

use crate::support::{MINUTE, Version, client_of, memcached_at_least};

/// The wait for a lease that no caller can use would be noticed.
fn long_wait() -> FetchOptions {
    FetchOptions::from(MINUTE).wait_timeout(MINUTE)
}

async fn fetch(cache: &Client, options: FetchOptions, value: &'static str) -> Fetched {
    cache.fetch("k", options, || async move { Ok::<_, &'static str>(value) }).await.unwrap()
}

async fn assert_value_and_origin(outcome: impl Future<Output = Fetched>, value: &str, origin: Origin) {
    let start = Instant::now();
    let fetched = outcome.await;
    assert_eq!((&fetched.value[..], fetched.origin), (value.as_bytes(), origin));
    assert!(start.elapsed() < MINUTE / 2, "the fetch waited for a lease");
}

#[tokio::test]
async fn a_fetch_stores_by_its_lock_and_leaves_no_lease() {
    let server = Memcached::start_with(["-C"]).await.unwrap();
    let (cache, other) = (client_of(&server).await, client_of(&server).await);
    assert_value_and_origin(fetch(&cache, long_wait(), "first"), "first", Origin::Computed).await;
    assert_value_and_origin(fetch(&other, long_wait(), "second"), "first", Origin::Cached).await;
    let early = long_wait().recache_within(MINUTE * 2);
    assert_value_and_origin(fetch(&other, early, "second"), "first", Origin::Cached).await;
    // A failed computation leaves nothing that later fetches wait for.
    cache.delete("k").await.unwrap();
    cache.fetch("k", long_wait(), || async { Err::<&str, _>("failed") }).await.unwrap_err();
    assert_value_and_origin(fetch(&other, long_wait(), "third"), "third", Origin::Computed).await;
    // An invalidated item is computed again.
    cache.invalidate("k", MINUTE).await.unwrap();
    let options = long_wait().stale(Stale::Wait);
    assert_value_and_origin(fetch(&other, options, "fourth"), "fourth", Origin::Computed).await;
    assert_eq!(cache.get("k").await.unwrap().unwrap().value, "fourth");
}

#[tokio::test]
async fn a_lease_of_another_client_is_no_reason_to_wait() {
    if memcached_at_least(Version::META).await.is_none() {
        return;
    }
    let server = Memcached::start_with(["-C"]).await.unwrap();
    let (cache, other) = (client_of(&server).await, client_of(&server).await);
    let lease = other.meta_get("k", Get::new().value().vivify(MINUTE)).await.unwrap().unwrap();
    assert!(lease.won && lease.is_lease());
    assert_value_and_origin(fetch(&cache, long_wait(), "value"), "value", Origin::Computed).await;
    assert_value_and_origin(fetch(&other, long_wait(), "other"), "value", Origin::Cached).await;
}

#[tokio::test]
async fn a_late_fetch_does_not_overwrite_a_newer_value() {
    for args in [&["-C"][..], &[]] {
        let server = Memcached::start_with(args.iter().copied()).await.unwrap();
        let (cache, writer) = (client_of(&server).await, client_of(&server).await);
        let compute = || async {
            writer.set("k", "newer", MINUTE).await.unwrap();
            Ok::<_, &'static str>("late")
        };
        let fetched = cache.fetch("k", long_wait(), compute).await.unwrap();
        assert_eq!((&fetched.value[..], fetched.origin), (&b"late"[..], Origin::NotStored));
        assert_eq!(cache.get("k").await.unwrap().unwrap().value, "newer");
    }
}

#[tokio::test]
async fn one_of_two_processes_computes_the_value() {
    let server = Memcached::start_with(["-C"]).await.unwrap();
    let computed = Arc::new(AtomicUsize::new(0));
    let mut fetches = Vec::new();
    for _ in 0..2 {
        let (cache, computed) = (client_of(&server).await, Arc::clone(&computed));
        fetches.push(tokio::spawn(async move {
            let compute = || async {
                computed.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(300)).await;
                Ok::<_, &'static str>("value")
            };
            cache.fetch("k", long_wait(), compute).await.unwrap()
        }));
    }
    for fetch in fetches {
        assert_eq!(fetch.await.unwrap().value, "value");
    }
    assert_eq!(computed.load(Ordering::Relaxed), 1);
}
