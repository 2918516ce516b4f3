//! Computations of a fetch that choose how their value is stored.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use memring::meta::{Get, TimeLeft};
use memring::{Client, Computed, ErrorKind, FetchError, FetchOptions, Fetched, Origin, SetOptions, Stale, Ttl};
use tokio::sync::Notify;

use crate::support::{MINUTE, TEST_TIMEOUT, Version, client_of, memcached, memcached_at_least, value_of};

const HOUR: Duration = Duration::from_secs(3600);

/// Options whose lease and wait no test reaches.
fn options() -> FetchOptions {
    FetchOptions::from(SetOptions::from(MINUTE).flags(1)).lease(MINUTE * 10).wait_timeout(TEST_TIMEOUT)
}

async fn fetch(cache: &Client, computed: Computed) -> Result<Fetched, FetchError<&'static str>> {
    cache.fetch("k", options(), || async { Ok(computed) }).await
}

#[tokio::test]
async fn a_computation_chooses_the_ttl_and_the_flags() {
    let (_server, cache) = memcached().await;
    let fetched = fetch(&cache, Computed::new("a").store(SetOptions::from(Ttl::NEVER).flags(7))).await.unwrap();
    assert_eq!((&fetched.value[..], fetched.flags, fetched.origin), (&b"a"[..], 7, Origin::Computed));
    assert_eq!(cache.get("k").await.unwrap().unwrap().flags, 7);
    cache.delete("k").await.unwrap();
    let fetched = fetch(&cache, Computed::new("b")).await.unwrap();
    assert_eq!((fetched.flags, fetched.origin), (1, Origin::Computed));
    assert_eq!(cache.get("k").await.unwrap().unwrap().flags, 1);

    let Some((_server, cache)) = memcached_at_least(Version::META).await else { return };
    fetch(&cache, Computed::new("a").store(HOUR)).await.unwrap();
    let left = cache.meta_get("k", Get::new().ttl_left()).await.unwrap().unwrap().ttl_left.unwrap();
    assert!(left > TimeLeft::Finite(MINUTE) && left <= TimeLeft::Finite(HOUR), "{left:?}");
}

#[tokio::test]
async fn an_invalid_ttl_of_a_computation_is_an_error_and_gives_back_the_lease() {
    let (server, cache) = memcached().await;
    match fetch(&cache, Computed::new("a").store(Duration::ZERO)).await {
        Err(FetchError::Cache(error)) => assert_eq!(error.kind(), ErrorKind::InvalidTtl),
        other => panic!("{other:?}"),
    }
    let fetched = fetch(&client_of(&server).await, Computed::new("b")).await.unwrap();
    assert_eq!(fetched.origin, Origin::Computed);
}

#[tokio::test]
async fn a_value_that_must_not_be_stored_goes_to_its_callers_only() {
    let (server, cache) = memcached().await;
    let (computed, release) = (AtomicUsize::new(0), Notify::new());
    let compute = async || {
        computed.fetch_add(1, Ordering::Relaxed);
        release.notified().await;
        Ok::<_, &str>(Computed::new("secret").do_not_store())
    };
    let fetches = async { tokio::join!(cache.fetch("k", options(), compute), cache.fetch("k", options(), compute)) };
    let release_both = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        release.notify_one();
    };
    let ((first, second), ()) = tokio::join!(fetches, release_both);
    for fetched in [first.unwrap(), second.unwrap()] {
        assert_eq!((&fetched.value[..], fetched.origin), (&b"secret"[..], Origin::NotStored));
    }
    assert_eq!(computed.load(Ordering::Relaxed), 1);
    // The lease is given back, so the next caller of any process computes and stores.
    assert_eq!(value_of(&cache, "k").await, None);
    assert_eq!(fetch(&client_of(&server).await, Computed::new("b")).await.unwrap().origin, Origin::Computed);
}

#[tokio::test]
async fn a_stale_item_stays_stale_if_its_new_value_must_not_be_stored() {
    let Some((_server, cache)) = memcached_at_least(Version::META).await else { return };
    cache.set("k", "old", MINUTE).await.unwrap();
    cache.invalidate("k", MINUTE).await.unwrap();
    let fetched = fetch(&cache, Computed::new("new").do_not_store()).await.unwrap();
    assert_eq!((&fetched.value[..], fetched.origin), (&b"new"[..], Origin::NotStored));
    let compute = || async { Ok::<_, &str>("newer") };
    let fetched = cache.fetch("k", options().stale(Stale::Wait), compute).await.unwrap();
    assert_eq!((&fetched.value[..], fetched.origin), (&b"newer"[..], Origin::Computed));
}
