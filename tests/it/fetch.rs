//! Get or compute, against real memcached processes: one computes, however many ask, wherever they ask from.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use memring::meta::Get;
use memring::testing::Memcached;
use memring::{Client, ErrorKind, FetchError, FetchOptions, Fetched, OnWaitTimeout, Origin, SetOptions, Stale};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::support::{NO_HURRY, SOON, Version, eventually, memcached, memcached_from, peer};

const MINUTE: Duration = Duration::from_secs(60);

/// What no test is to run into.
fn patient() -> FetchOptions {
    FetchOptions::from(MINUTE).lease(MINUTE * 10).wait(SOON).compute_limit(SOON)
}

/// A client of its own, as another process has it.
async fn another(server: &Memcached) -> Client {
    Client::builder().nodes([server.addr().to_string()]).request_timeout(NO_HURRY).connect().await.unwrap()
}

type Outcome = Result<Fetched, FetchError<&'static str>>;

async fn fetch(cache: &Client, options: FetchOptions, value: &'static str) -> Outcome {
    cache.fetch("k", options, || async move { Ok::<_, &'static str>(value) }).await
}

/// A fetch that has begun to compute, and does not end before it is told to.
struct Held {
    task: JoinHandle<Outcome>,
    go_on: Arc<Notify>,
}

async fn hold(cache: &Client, options: FetchOptions, value: &'static str) -> Held {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let task = tokio::spawn({
        let (cache, begun, go_on) = (cache.clone(), Arc::clone(&begun), Arc::clone(&go_on));
        async move {
            let compute = || async {
                begun.notify_one();
                go_on.notified().await;
                Ok(value)
            };
            cache.fetch("k", options, compute).await
        }
    });
    begun.notified().await;
    Held { task, go_on }
}

impl Held {
    fn go_on(&self) {
        self.go_on.notify_one();
    }

    async fn outcome(self) -> Outcome {
        self.task.await.unwrap()
    }
}

fn of(outcome: Outcome) -> (String, Origin) {
    let fetched = outcome.unwrap();
    (String::from_utf8(fetched.value.to_vec()).unwrap(), fetched.origin)
}

fn is(value: &str, origin: Origin) -> (String, Origin) {
    (value.to_owned(), origin)
}

#[tokio::test]
async fn a_thousand_callers_and_one_computing() {
    let (_server, cache) = memcached().await;
    let computed = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..1000)
        .map(|_| {
            let (cache, computed) = (cache.clone(), Arc::clone(&computed));
            tokio::spawn(async move {
                let compute = || async {
                    computed.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(50)).await;
                    Ok::<_, &'static str>("value")
                };
                cache.fetch("k", patient(), compute).await
            })
        })
        .collect();
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap().value, "value");
    }
    assert_eq!(computed.load(Ordering::Relaxed), 1);
    assert_eq!(of(fetch(&cache, patient(), "other").await), is("value", Origin::Cached));
}

#[tokio::test]
async fn two_processes_and_one_computing() {
    let (server, ours) = memcached().await;
    let theirs = another(&server).await;
    let leader = hold(&ours, patient(), "ours").await;
    let losers: Vec<_> = (0..10)
        .map(|_| {
            let theirs = theirs.clone();
            tokio::spawn(async move { fetch(&theirs, patient(), "theirs").await })
        })
        .collect();
    // One that will not wait computes for itself, or fails, as it chose; neither is stored.
    let hasty = patient().wait(Duration::from_millis(30));
    let third = another(&server).await;
    assert_eq!(of(fetch(&third, hasty, "hasty").await), is("hasty", Origin::Unstored));
    let outcome = fetch(&third, hasty.when_wait_ends(OnWaitTimeout::Fail), "hasty").await;
    assert!(matches!(outcome, Err(FetchError::WaitTimeout)), "{outcome:?}");
    leader.go_on();
    assert_eq!(of(leader.outcome().await), is("ours", Origin::Computed));
    for loser in losers {
        assert_eq!(of(loser.await.unwrap()), is("ours", Origin::Cached));
    }
}

#[tokio::test]
async fn a_leader_that_goes_away_is_followed_by_another() {
    let (server, cache) = memcached().await;
    let (begun, started) = oneshot::channel();
    let leader = tokio::spawn({
        let cache = cache.clone();
        async move {
            let compute = || async {
                begun.send(()).unwrap();
                std::future::pending::<Result<&str, &'static str>>().await
            };
            cache.fetch("k", patient(), compute).await
        }
    });
    started.await.unwrap();
    let follower = tokio::spawn({
        let cache = cache.clone();
        async move { fetch(&cache, patient(), "second").await }
    });
    sleep(Duration::from_millis(50)).await;
    assert!(!follower.is_finished());
    leader.abort();
    // The lease is given back, or the next would wait for ten minutes.
    assert_eq!(of(timeout(SOON, follower).await.unwrap().unwrap()), is("second", Origin::Computed));

    // And so it is with a leader in another process.
    cache.delete("k").await.unwrap();
    let other = another(&server).await;
    let (begun, started) = oneshot::channel();
    let leader = tokio::spawn(async move {
        let compute = || async {
            begun.send(()).unwrap();
            std::future::pending::<Result<&str, &'static str>>().await
        };
        other.fetch("k", patient(), compute).await
    });
    started.await.unwrap();
    leader.abort();
    assert_eq!(of(timeout(SOON, fetch(&cache, patient(), "third")).await.unwrap()), is("third", Origin::Computed));
}

#[tokio::test]
async fn a_leader_that_fails_fails_alone() {
    let (_server, cache) = memcached().await;
    let attempts = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..5)
        .map(|_| {
            let (cache, attempts) = (cache.clone(), Arc::clone(&attempts));
            tokio::spawn(async move {
                let compute = || async {
                    sleep(Duration::from_millis(20)).await;
                    let first = attempts.fetch_add(1, Ordering::Relaxed) == 0;
                    if first { Err("no luck") } else { Ok("value") }
                };
                cache.fetch("k", patient(), compute).await
            })
        })
        .collect();
    let mut failed = 0;
    for caller in callers {
        match caller.await.unwrap() {
            Ok(fetched) => assert_eq!(fetched.value, "value"),
            Err(FetchError::Compute("no luck")) => failed += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((failed, attempts.load(Ordering::Relaxed)), (1, 2));
}

#[tokio::test]
async fn computing_has_a_limit() {
    let (_server, cache) = memcached().await;
    let options = patient().compute_limit(Duration::from_millis(20));
    let outcome = cache.fetch("k", options, std::future::pending::<Result<&str, &str>>).await;
    assert!(matches!(outcome, Err(FetchError::ComputeTimeout)), "{outcome:?}");
    assert_eq!(of(fetch(&cache, patient(), "next").await), is("next", Origin::Computed));
}

#[tokio::test]
async fn a_slow_look_in_the_cache_takes_nothing_off_the_time_for_computing() {
    let silent = peer(|socket| async move {
        let _held = socket;
        std::future::pending::<()>().await;
    });
    let cache = Client::builder().nodes([silent.await.to_string()]).request_timeout(Duration::from_millis(200));
    let cache = cache.connect().await.unwrap();
    let options = patient().wait(Duration::ZERO).compute_limit(Duration::from_millis(150));
    let compute = || async {
        tokio::task::yield_now().await;
        Ok::<_, &'static str>("value")
    };
    assert_eq!(of(cache.fetch("k", options, compute).await), is("value", Origin::Unstored));
}

#[tokio::test]
async fn flags_and_empty_values_are_kept() {
    let (_server, cache) = memcached().await;
    let options = FetchOptions::from(SetOptions::from(MINUTE).flags(7));
    let fetched = cache.fetch("k", options, || async { Ok::<_, &str>("") }).await.unwrap();
    assert_eq!((fetched.value.len(), fetched.flags, fetched.origin), (0, 7, Origin::Computed));
    let fetched = cache.fetch("k", options, || async { Ok::<_, &str>("other") }).await.unwrap();
    assert_eq!((fetched.value.len(), fetched.flags, fetched.origin), (0, 7, Origin::Cached));
    assert_eq!(cache.get("k").await.unwrap().unwrap().flags, 7);
    // An empty value without flags looks like a lease to the classic protocol, and is told from one.
    cache.fetch("bare", MINUTE, || async { Ok::<_, &str>("") }).await.unwrap();
    assert!(cache.get("bare").await.unwrap().unwrap().value.is_empty());
    cache.set("plain", "", MINUTE).await.unwrap();
    assert!(cache.gets("plain").await.unwrap().unwrap().value.is_empty());
}

#[tokio::test]
async fn a_lease_is_no_value_to_anybody() {
    let Some((server, cache)) = memcached_from(Version::META).await else { return };
    let leader = hold(&cache, patient(), "value").await;
    let raw = cache.meta_get("k", Get::new().value().no_bump()).await.unwrap().unwrap();
    assert!(raw.is_lease(), "the lease is there");
    cache.set("other", "", MINUTE).await.unwrap();
    for reader in [cache.clone(), another(&server).await] {
        assert_eq!(reader.get("k").await.unwrap(), None);
        assert_eq!(reader.gets("k").await.unwrap(), None);
        for found in [reader.get_many(["k", "other"]).await, reader.gets_many(["k", "other"]).await] {
            assert!(found.is_complete());
            let hits: Vec<_> = found.hits.iter().map(|(key, item)| (*key, item.value.len())).collect();
            assert_eq!(hits, [("other", 0)]);
        }
        assert_eq!(reader.take("k").await.unwrap(), None);
    }
    leader.go_on();
    assert_eq!(of(leader.outcome().await), is("value", Origin::Computed));
    assert_eq!(cache.get("k").await.unwrap().unwrap().value, "value");
}

#[tokio::test]
async fn a_stale_item_is_renewed_by_one_while_others_take_it_or_wait() {
    let Some((server, cache)) = memcached_from(Version::META).await else { return };
    let other = another(&server).await;
    assert_eq!(of(fetch(&cache, patient(), "old").await), is("old", Origin::Computed));
    assert!(cache.invalidate("k", MINUTE).await.unwrap());
    // What the classic protocol shows of it, and that looking costs the renewer nothing.
    assert_eq!(cache.get("k").await.unwrap().unwrap().value, "old");
    assert_eq!(cache.get_many(["k"]).await.hits[0].1.value, "old");

    let renewer = hold(&cache, patient(), "new").await;
    for reader in [&cache, &other] {
        assert_eq!(of(fetch(reader, patient(), "not needed").await), is("old", Origin::Stale));
    }
    let waiting: Vec<_> = [cache.clone(), other.clone()]
        .into_iter()
        .map(|reader| tokio::spawn(async move { fetch(&reader, patient().stale(Stale::Wait), "not needed").await }))
        .collect();
    sleep(Duration::from_millis(50)).await;
    renewer.go_on();
    assert_eq!(of(renewer.outcome().await), is("new", Origin::Computed));
    for reader in waiting {
        assert_eq!(of(reader.await.unwrap()).0, "new");
    }
    assert_eq!(of(fetch(&other, patient(), "not needed").await), is("new", Origin::Cached));
}

#[tokio::test]
async fn what_was_computed_before_an_invalidation_is_not_stored() {
    let Some((server, cache)) = memcached_from(Version::META).await else { return };
    let other = another(&server).await;
    for by_other in [false, true] {
        let late = hold(&cache, patient(), "outdated").await;
        let invalidator = if by_other { &other } else { &cache };
        invalidator.invalidate("k", MINUTE).await.unwrap();
        // Whoever comes after that gets a new value, though the computing goes on.
        let next = tokio::spawn({
            let cache = cache.clone();
            async move { fetch(&cache, patient(), "new").await }
        });
        if !by_other {
            assert_eq!(of(next.await.unwrap()), is("new", Origin::Computed));
            late.go_on();
        } else {
            sleep(Duration::from_millis(50)).await;
            late.go_on();
            assert_eq!(of(next.await.unwrap()).0, "new");
        }
        assert_eq!(of(late.outcome().await), is("outdated", Origin::Unstored));
        assert_eq!(cache.get("k").await.unwrap().unwrap().value, "new");
        cache.delete("k").await.unwrap();
    }
}

/// Nothing tells of a value computed without a lease whether the item has changed meanwhile.
#[tokio::test]
async fn what_was_computed_without_a_lease_is_not_for_those_who_come_later() {
    let Some((server, cache)) = memcached_from(Version::META).await else { return };
    let other = another(&server).await;
    let taken = other.meta_get("k", Get::new().value().vivify(MINUTE * 10)).await.unwrap().unwrap();
    assert!(taken.won);
    let hasty = hold(&cache, patient().wait(Duration::ZERO), "outdated").await;
    other.invalidate("k", MINUTE).await.unwrap();
    let next = tokio::spawn({
        let cache = cache.clone();
        async move { fetch(&cache, patient(), "new").await }
    });
    sleep(Duration::from_millis(50)).await;
    hasty.go_on();
    assert_eq!(of(hasty.outcome().await), is("outdated", Origin::Unstored));
    assert_eq!(of(next.await.unwrap()), is("new", Origin::Computed));
}

#[tokio::test]
async fn an_old_value_is_given_when_computing_fails() {
    let Some((_server, cache)) = memcached_from(Version::META).await else { return };
    let fails = async |options: FetchOptions| cache.fetch("k", options, || async { Err::<&str, _>("no luck") }).await;
    fetch(&cache, patient(), "old").await.unwrap();
    cache.invalidate("k", MINUTE).await.unwrap();
    assert_eq!(of(fails(patient()).await), is("old", Origin::Stale));
    // The next is asked to renew it, as if nothing had been.
    eventually("the lease is given back", async || {
        matches!(fails(patient().stale(Stale::Wait).wait(Duration::ZERO)).await, Err(FetchError::Compute("no luck")))
    })
    .await;
    eventually("it is renewed", async || of(fetch(&cache, patient(), "new").await).0 == "new").await;
}

#[tokio::test]
async fn an_item_that_soon_expires_is_renewed_by_one() {
    let Some((server, cache)) = memcached_from(Version::META).await else { return };
    let other = another(&server).await;
    fetch(&cache, patient(), "old").await.unwrap();
    let early = patient().recache_within(MINUTE * 2);
    let renewer = hold(&cache, early, "new").await;
    for reader in [&cache, &other] {
        assert_eq!(of(fetch(reader, early, "not needed").await), is("old", Origin::Cached));
    }
    renewer.go_on();
    assert_eq!(of(renewer.outcome().await), is("new", Origin::Computed));
    assert_eq!(of(fetch(&other, patient(), "not needed").await), is("new", Origin::Cached));
}

#[tokio::test]
async fn a_cache_that_is_away_keeps_nobody_from_their_value() {
    let (server, cache) = memcached().await;
    drop(server);
    eventually("the node is given up", async || cache.get("k").await.is_err()).await;
    let cache = cache.with_request_timeout(Duration::from_millis(250));
    let computed = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let (cache, computed) = (cache.clone(), Arc::clone(&computed));
            tokio::spawn(async move {
                let compute = || async {
                    computed.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_secs(1)).await;
                    Ok::<_, &'static str>("value")
                };
                cache.fetch("k", patient(), compute).await
            })
        })
        .collect();
    for caller in callers {
        assert_eq!(of(caller.await.unwrap()), is("value", Origin::Unstored));
    }
    assert!(computed.load(Ordering::Relaxed) <= 2, "once, unless the machine stood still");
}

#[tokio::test]
async fn what_cannot_be_stored_is_given_all_the_same() {
    let (_server, cache) = memcached().await;
    let fetched = cache.fetch("k", MINUTE, || async { Ok::<_, &str>(vec![b'x'; (1 << 20) + 1]) }).await.unwrap();
    assert_eq!((fetched.value.len(), fetched.origin), ((1 << 20) + 1, Origin::Unstored));
    eventually("the lease is given back", async || {
        of(fetch(&cache, patient().wait(Duration::ZERO), "small").await).1 == Origin::Computed
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_fetched_at_all() {
    let (_server, cache) = memcached().await;
    let refused =
        async |key: &str, options: FetchOptions| match cache.fetch(key, options, || async { Ok::<_, &str>("x") }).await
        {
            Err(FetchError::Cache(error)) => error.kind(),
            other => panic!("{other:?}"),
        };
    assert_eq!(refused("a b", patient()).await, ErrorKind::InvalidKey);
    assert_eq!(refused("k", FetchOptions::from(Duration::ZERO)).await, ErrorKind::InvalidTtl);
    assert_eq!(refused("k", patient().lease(Duration::ZERO)).await, ErrorKind::InvalidTtl);
    cache.shutdown().await;
    assert_eq!(refused("k", patient()).await, ErrorKind::Closed);
}

/// The whole of it: whoever fetches after an invalidation was done is never given a value from before.
#[tokio::test]
async fn get_get_many_fetch_and_invalidate_together() {
    let Some((server, cache)) = memcached_from(Version::META).await else { return };
    // What the values are computed from, and what of it every cache must have heard of.
    let (truth, known) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..8 {
        let cache = if worker % 2 == 0 { cache.clone() } else { another(&server).await };
        let (truth, known) = (Arc::clone(&truth), Arc::clone(&known));
        tasks.spawn(async move {
            for round in 0..200 {
                match (worker + round) % 6 {
                    0 => {
                        let now = truth.fetch_add(1, Ordering::SeqCst) + 1;
                        cache.invalidate("k", MINUTE).await.unwrap();
                        known.fetch_max(now, Ordering::SeqCst);
                    }
                    1 => assert_ne!(cache.get("k").await.unwrap().map(|item| item.value.len()), Some(0)),
                    2 => {
                        let found = cache.get_many(["k", "absent"]).await;
                        assert!(found.is_complete() && found.hits.iter().all(|(_, item)| !item.value.is_empty()));
                    }
                    _ => {
                        let at_least = known.load(Ordering::SeqCst);
                        let compute = || async {
                            let value = truth.load(Ordering::SeqCst);
                            sleep(Duration::from_millis(1)).await;
                            Ok::<_, &'static str>(value.to_string())
                        };
                        let fetched = cache.fetch("k", patient().stale(Stale::Wait), compute).await.unwrap();
                        let value: usize = std::str::from_utf8(&fetched.value).unwrap().parse().unwrap();
                        assert!(value >= at_least, "{value} where {at_least} was known: {:?}", fetched.origin);
                    }
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}
