//! Get or compute: one caller computes a value, for all callers of all processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use memring::meta::Get;
use memring::testing::Memcached;
use memring::{Client, ErrorKind, FetchError, FetchOptions, Fetched, OnWaitTimeout, Origin, SetOptions, Stale};
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::scripted::{never_reply, scripted_server};
use crate::support::{
    DEFAULT_TIMEOUT, MINUTE, TEST_TIMEOUT, Version, client_builder, client_of, client_with_large_value_limit,
    default_client, eventually, memcached, memcached_at_least,
};

/// Options with limits that no test reaches.
pub(crate) fn long_limits() -> FetchOptions {
    FetchOptions::from(MINUTE).lease(MINUTE * 10).wait_timeout(TEST_TIMEOUT).compute_timeout(TEST_TIMEOUT)
}

pub(crate) type Outcome = Result<Fetched, FetchError<&'static str>>;

pub(crate) async fn fetch(cache: &Client, options: FetchOptions, value: &'static str) -> Outcome {
    cache.fetch("k", options, || async move { Ok::<_, &'static str>(value) }).await
}

/// A fetch that has started to compute, and waits for a release.
pub(crate) struct BlockedFetch {
    pub(crate) task: JoinHandle<Outcome>,
    release: Arc<Notify>,
}

impl BlockedFetch {
    pub(crate) async fn start(cache: &Client, options: FetchOptions, value: &'static str) -> Self {
        let (started, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let task = tokio::spawn({
            let (cache, started, release) = (cache.clone(), Arc::clone(&started), Arc::clone(&release));
            async move {
                let compute = || async {
                    started.notify_one();
                    release.notified().await;
                    Ok(value)
                };
                cache.fetch("k", options, compute).await
            }
        });
        started.notified().await;
        Self { task, release }
    }

    /// Lets the fetch end, and returns its outcome.
    pub(crate) async fn release(self) -> Outcome {
        self.release.notify_one();
        self.task.await.unwrap()
    }
}

pub(crate) fn spawn_fetch(cache: &Client, options: FetchOptions, value: &'static str) -> JoinHandle<Outcome> {
    let cache = cache.clone();
    tokio::spawn(async move { fetch(&cache, options, value).await })
}

/// Starts fetches of the same key whose computations are counted and take `compute_time`.
fn spawn_counted_fetches(
    cache: &Client,
    count: usize,
    compute_time: Duration,
) -> (Vec<JoinHandle<Outcome>>, Arc<AtomicUsize>) {
    let computed = Arc::new(AtomicUsize::new(0));
    let fetches = (0..count).map(|_| {
        let (cache, computed) = (cache.clone(), Arc::clone(&computed));
        tokio::spawn(async move {
            let compute = || async {
                computed.fetch_add(1, Ordering::Relaxed);
                sleep(compute_time).await;
                Ok("value")
            };
            cache.fetch("k", long_limits(), compute).await
        })
    });
    (fetches.collect(), computed)
}

#[track_caller]
pub(crate) fn assert_fetched(outcome: Outcome, value: &str, origin: Origin) {
    let fetched = outcome.unwrap();
    assert_eq!((std::str::from_utf8(&fetched.value).unwrap(), fetched.origin), (value, origin));
}

#[tokio::test]
async fn one_of_a_thousand_concurrent_callers_computes_the_value() {
    let (_server, cache) = memcached().await;
    let (callers, computed) = spawn_counted_fetches(&cache, 1000, Duration::from_millis(50));
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().value, "value");
    }
    assert_eq!(computed.load(Ordering::Relaxed), 1);
    assert_fetched(fetch(&cache, long_limits(), "other").await, "value", Origin::Cached);
}

#[tokio::test]
async fn one_of_two_processes_computes_the_value() {
    let (server, first) = memcached().await;
    let second = client_of(&server).await;
    let leader = BlockedFetch::start(&first, long_limits(), "first").await;
    let followers: Vec<_> = (0..10).map(|_| spawn_fetch(&second, long_limits(), "second")).collect();
    let short_wait = long_limits().wait_timeout(Duration::from_millis(30)).on_wait_timeout(OnWaitTimeout::Fail);
    let outcome = fetch(&client_of(&server).await, short_wait, "third").await;
    assert!(matches!(outcome, Err(FetchError::WaitTimeout)), "{outcome:?}");
    assert_fetched(leader.release().await, "first", Origin::Computed);
    for follower in followers {
        assert_fetched(follower.await.unwrap(), "first", Origin::Cached);
    }
}

/// The leader's lease lasts ten minutes, so it must be released for the next caller.
#[tokio::test]
async fn when_the_leader_is_dropped_another_caller_computes_the_value() {
    let (server, cache) = memcached().await;
    let leader = BlockedFetch::start(&cache, long_limits(), "first").await;
    let follower = spawn_fetch(&cache, long_limits(), "second");
    sleep(Duration::from_millis(50)).await;
    assert!(!follower.is_finished());
    leader.task.abort();
    let outcome = timeout(TEST_TIMEOUT, follower).await.unwrap().unwrap();
    assert_fetched(outcome, "second", Origin::Computed);

    // The next leader is dropped with its whole client, as when a process ends.
    cache.delete("k").await.unwrap();
    let other = client_of(&server).await;
    let leader = BlockedFetch::start(&other, long_limits(), "other").await;
    drop(other);
    leader.task.abort();
    let outcome = timeout(TEST_TIMEOUT, fetch(&cache, long_limits(), "third")).await.unwrap();
    assert_fetched(outcome, "third", Origin::Computed);
}

#[tokio::test]
async fn a_failed_computation_fails_only_its_own_caller() {
    let (_server, cache) = memcached().await;
    let attempts = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..5)
        .map(|_| {
            let (cache, attempts) = (cache.clone(), Arc::clone(&attempts));
            tokio::spawn(async move {
                let compute = || async {
                    sleep(Duration::from_millis(20)).await;
                    let is_first = attempts.fetch_add(1, Ordering::Relaxed) == 0;
                    if is_first { Err("failed") } else { Ok("value") }
                };
                cache.fetch("k", long_limits(), compute).await
            })
        })
        .collect();
    let mut failed = 0;
    for caller in callers {
        match caller.await.unwrap() {
            Ok(fetched) => assert_eq!(fetched.value, "value"),
            Err(FetchError::Compute("failed")) => failed += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((failed, attempts.load(Ordering::Relaxed)), (1, 2));
}

#[tokio::test]
async fn a_computation_ends_at_the_compute_limit() {
    let (_server, cache) = memcached().await;
    let options = long_limits().compute_timeout(Duration::from_millis(20));
    let outcome = cache.fetch("k", options, std::future::pending::<Result<&str, &str>>).await;
    assert!(matches!(outcome, Err(FetchError::ComputeTimeout)), "{outcome:?}");
    assert_fetched(fetch(&cache, long_limits(), "next").await, "next", Origin::Computed);
}

#[tokio::test]
async fn the_compute_limit_does_not_include_the_time_of_the_cache_lookup() {
    let silent = scripted_server(never_reply).await;
    let builder = client_builder(silent).request_timeout(Duration::from_millis(200));
    let cache = builder.connect().await.unwrap();
    let options = long_limits().wait_timeout(Duration::ZERO).compute_timeout(Duration::from_millis(150));
    let compute = || async {
        tokio::task::yield_now().await;
        Ok::<_, &'static str>("value")
    };
    assert_fetched(cache.fetch("k", options, compute).await, "value", Origin::NotStored);
}

#[tokio::test]
async fn a_fetch_stores_flags_and_empty_values() {
    let (_server, cache) = memcached().await;
    let options = FetchOptions::from(SetOptions::from(MINUTE).flags(7));
    let fetched = cache.fetch("k", options, || async { Ok::<_, &str>("") }).await.unwrap();
    assert_eq!((fetched.value.len(), fetched.flags, fetched.origin), (0, 7, Origin::Computed));
    let fetched = cache.fetch("k", options, || async { Ok::<_, &str>("other") }).await.unwrap();
    assert_eq!((fetched.value.len(), fetched.flags, fetched.origin), (0, 7, Origin::Cached));
    assert_eq!(cache.get("k").await.unwrap().unwrap().flags, 7);
    // In the classic protocol an empty value without flags looks like a lease placeholder, but the client returns it.
    cache.fetch("bare", MINUTE, || async { Ok::<_, &str>("") }).await.unwrap();
    assert!(cache.get("bare").await.unwrap().unwrap().value.is_empty());
    cache.set("plain", "", MINUTE).await.unwrap();
    assert!(cache.gets("plain").await.unwrap().unwrap().value.is_empty());
}

#[tokio::test]
async fn every_read_of_a_lease_is_a_miss() {
    let Some((server, cache)) = memcached_at_least(Version::META).await else { return };
    let leader = BlockedFetch::start(&cache, long_limits(), "value").await;
    let item = cache.meta_get("k", Get::new().value().no_bump()).await.unwrap().unwrap();
    assert!(item.is_lease(), "the server must have stored a lease");
    cache.set("other", "", MINUTE).await.unwrap();
    for reader in [cache.clone(), client_of(&server).await] {
        assert_eq!(reader.get("k").await.unwrap(), None);
        assert_eq!(reader.gets("k").await.unwrap(), None);
        for found in [reader.get_many(["k", "other"]).await, reader.gets_many(["k", "other"]).await] {
            assert!(found.is_complete());
            let hits: Vec<_> = found.hits.iter().map(|(key, item)| (*key, item.value.len())).collect();
            assert_eq!(hits, [("other", 0)]);
        }
        assert_eq!(reader.take("k").await.unwrap(), None);
    }
    assert_fetched(leader.release().await, "value", Origin::Computed);
    assert_eq!(cache.get("k").await.unwrap().unwrap().value, "value");
}

#[tokio::test]
async fn one_caller_renews_a_stale_item_while_others_use_it_or_wait() {
    let Some((server, cache)) = memcached_at_least(Version::META).await else { return };
    let other = client_of(&server).await;
    assert_fetched(fetch(&cache, long_limits(), "old").await, "old", Origin::Computed);
    assert!(cache.invalidate("k", MINUTE).await.unwrap());
    // Classic commands return the stale value and do not take the renewal away from the next fetch.
    assert_eq!(cache.get("k").await.unwrap().unwrap().value, "old");
    assert_eq!(cache.get_many(["k"]).await.hits[0].1.value, "old");

    let renewer = BlockedFetch::start(&cache, long_limits(), "new").await;
    for reader in [&cache, &other] {
        assert_fetched(fetch(reader, long_limits(), "not needed").await, "old", Origin::Stale);
    }
    let waiting: Vec<_> =
        [&cache, &other].map(|reader| spawn_fetch(reader, long_limits().stale(Stale::Wait), "not needed")).into();
    sleep(Duration::from_millis(50)).await;
    assert_fetched(renewer.release().await, "new", Origin::Computed);
    for reader in waiting {
        assert_eq!(reader.await.unwrap().unwrap().value, "new");
    }
    assert_fetched(fetch(&other, long_limits(), "not needed").await, "new", Origin::Cached);
}

#[tokio::test]
async fn a_value_computed_before_an_invalidation_is_not_stored() {
    let Some((server, cache)) = memcached_at_least(Version::META).await else { return };
    let other = client_of(&server).await;
    for by_other in [false, true] {
        let late = BlockedFetch::start(&cache, long_limits(), "outdated").await;
        let invalidator = if by_other { &other } else { &cache };
        invalidator.invalidate("k", MINUTE).await.unwrap();
        // Later callers get a new value, although the old computation still runs.
        let next = spawn_fetch(&cache, long_limits(), "new");
        if by_other {
            sleep(Duration::from_millis(50)).await;
            assert_fetched(late.release().await, "outdated", Origin::NotStored);
            assert_eq!(next.await.unwrap().unwrap().value, "new");
        } else {
            assert_fetched(next.await.unwrap(), "new", Origin::Computed);
            assert_fetched(late.release().await, "outdated", Origin::NotStored);
        }
        assert_eq!(cache.get("k").await.unwrap().unwrap().value, "new");
        cache.delete("k").await.unwrap();
    }
}

/// Without a lease, the client cannot know whether the item has changed during the computation.
#[tokio::test]
async fn a_value_computed_without_a_lease_is_not_returned_to_later_callers() {
    let Some((server, other)) = memcached_at_least(Version::META).await else { return };
    let cache = default_client(server.addr()).await;
    server.pause().await.unwrap();
    let leaseless = BlockedFetch::start(&cache, long_limits(), "outdated").await;
    server.resume().await.unwrap();
    other.delete("k").await.unwrap();
    eventually("the cache can be read", async || cache.get("k").await.is_ok()).await;
    assert_fetched(fetch(&cache, long_limits(), "new").await, "new", Origin::Computed);
    assert_fetched(leaseless.release().await, "outdated", Origin::NotStored);
    assert_eq!(other.get("k").await.unwrap().unwrap().value, "new");
}

#[tokio::test]
async fn a_failed_computation_returns_the_stale_value() {
    let Some((_server, cache)) = memcached_at_least(Version::META).await else { return };
    let failing_fetch =
        async |options: FetchOptions| cache.fetch("k", options, || async { Err::<&str, _>("failed") }).await;
    fetch(&cache, long_limits(), "old").await.unwrap();
    cache.invalidate("k", MINUTE).await.unwrap();
    assert_fetched(failing_fetch(long_limits()).await, "old", Origin::Stale);
    // The failed caller releases its lease, so that the next caller renews the item.
    eventually("the lease is released", async || {
        let outcome = failing_fetch(long_limits().stale(Stale::Wait).wait_timeout(Duration::ZERO)).await;
        matches!(outcome, Err(FetchError::Compute("failed")))
    })
    .await;
    eventually("the item is renewed", async || fetch(&cache, long_limits(), "new").await.unwrap().value == "new").await;
}

#[tokio::test]
async fn one_caller_renews_an_item_that_expires_soon() {
    let Some((server, cache)) = memcached_at_least(Version::META).await else { return };
    let other = client_of(&server).await;
    fetch(&cache, long_limits(), "old").await.unwrap();
    let early = long_limits().recache_within(MINUTE * 2);
    let renewer = BlockedFetch::start(&cache, early, "new").await;
    for reader in [&cache, &other] {
        assert_fetched(fetch(reader, early, "not needed").await, "old", Origin::Cached);
    }
    assert_fetched(renewer.release().await, "new", Origin::Computed);
    assert_fetched(fetch(&other, long_limits(), "not needed").await, "new", Origin::Cached);
}

#[tokio::test]
async fn callers_get_a_computed_value_when_the_cache_is_unavailable() {
    let (server, cache) = memcached().await;
    drop(server);
    eventually("gets fail", async || cache.get("k").await.is_err()).await;
    let cache = cache.with_request_timeout(DEFAULT_TIMEOUT);
    let (callers, computed) = spawn_counted_fetches(&cache, 50, Duration::from_secs(1));
    for caller in callers {
        assert_fetched(caller.await.unwrap(), "value", Origin::NotStored);
    }
    assert!(computed.load(Ordering::Relaxed) <= 2, "one computation, or two on a machine that stalls");
}

#[tokio::test]
async fn a_value_that_cannot_be_stored_is_returned() {
    let (_server, cache) = memcached().await;
    let fetched = cache.fetch("k", MINUTE, || async { Ok::<_, &str>(vec![b'x'; (1 << 20) + 1]) }).await.unwrap();
    assert_eq!((fetched.value.len(), fetched.origin), ((1 << 20) + 1, Origin::NotStored));
    eventually("the lease is released", async || {
        let outcome = fetch(&cache, long_limits().wait_timeout(Duration::ZERO), "small").await;
        outcome.unwrap().origin == Origin::Computed
    })
    .await;
}

/// Returns clients with a value that their own limit or the server's refuses.
async fn clients_with_too_large_values(server: &Memcached) -> [(Client, &'static str); 2] {
    let small = client_builder(server.addr()).max_value_size(10).connect().await.unwrap();
    [(small, "over 10 bytes"), (client_with_large_value_limit(server).await, "x".repeat(2 << 20).leak())]
}

#[tokio::test]
async fn a_value_that_is_too_large_is_computed_once_for_all_callers() {
    let Some((server, _)) = memcached_at_least(Version::META).await else { return };
    for (cache, too_large) in clients_with_too_large_values(&server).await {
        let leader = BlockedFetch::start(&cache, long_limits(), too_large).await;
        let followers: Vec<_> = (0..10).map(|_| spawn_fetch(&cache, long_limits(), "not needed")).collect();
        sleep(Duration::from_millis(50)).await;
        assert_fetched(leader.release().await, too_large, Origin::NotStored);
        for follower in followers {
            assert_fetched(follower.await.unwrap(), too_large, Origin::NotStored);
        }
    }
}

#[tokio::test]
async fn a_value_that_is_too_large_is_not_returned_to_callers_after_a_delete() {
    let Some((server, other)) = memcached_at_least(Version::META).await else { return };
    for (cache, too_large) in clients_with_too_large_values(&server).await {
        let leader = BlockedFetch::start(&cache, long_limits(), too_large).await;
        other.delete("k").await.unwrap();
        let follower = spawn_fetch(&cache, long_limits(), "new");
        sleep(Duration::from_millis(50)).await;
        assert_fetched(leader.release().await, too_large, Origin::NotStored);
        assert_fetched(follower.await.unwrap(), "new", Origin::Computed);
        other.delete("k").await.unwrap();
    }
}

#[tokio::test]
async fn a_fetch_with_an_invalid_key_or_ttl_or_after_shutdown_fails() {
    let (_server, cache) = memcached().await;
    let error_kind =
        async |key: &str, options: FetchOptions| match cache.fetch(key, options, || async { Ok::<_, &str>("x") }).await
        {
            Err(FetchError::Cache(error)) => error.kind(),
            other => panic!("{other:?}"),
        };
    assert_eq!(error_kind("a b", long_limits()).await, ErrorKind::InvalidKey);
    assert_eq!(error_kind("k", FetchOptions::from(Duration::ZERO)).await, ErrorKind::InvalidTtl);
    assert_eq!(error_kind("k", long_limits().lease(Duration::ZERO)).await, ErrorKind::InvalidTtl);
    cache.shutdown().await;
    assert_eq!(error_kind("k", long_limits()).await, ErrorKind::Closed);
}

#[tokio::test]
async fn a_fetch_after_an_invalidation_never_returns_an_older_value() {
    let Some((server, cache)) = memcached_at_least(Version::META).await else { return };
    // The version that values are computed from, and the newest version for which an invalidation has ended.
    let (current, invalidated) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    for worker in 0..8 {
        let cache = if worker % 2 == 0 { cache.clone() } else { client_of(&server).await };
        let (current, invalidated) = (Arc::clone(&current), Arc::clone(&invalidated));
        tasks.spawn(async move {
            for round in 0..200 {
                match (worker + round) % 6 {
                    0 => {
                        let version = current.fetch_add(1, Ordering::SeqCst) + 1;
                        cache.invalidate("k", MINUTE).await.unwrap();
                        invalidated.fetch_max(version, Ordering::SeqCst);
                    }
                    1 => assert_ne!(cache.get("k").await.unwrap().map(|item| item.value.len()), Some(0)),
                    2 => {
                        let found = cache.get_many(["k", "absent"]).await;
                        assert!(found.is_complete() && found.hits.iter().all(|(_, item)| !item.value.is_empty()));
                    }
                    _ => {
                        let oldest = invalidated.load(Ordering::SeqCst);
                        let compute = || async {
                            let value = current.load(Ordering::SeqCst);
                            sleep(Duration::from_millis(1)).await;
                            Ok::<_, &'static str>(value.to_string())
                        };
                        let fetched = cache.fetch("k", long_limits().stale(Stale::Wait), compute).await.unwrap();
                        let value: usize = std::str::from_utf8(&fetched.value).unwrap().parse().unwrap();
                        assert!(value >= oldest, "version {value} after {oldest}: {:?}", fetched.origin);
                    }
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}
