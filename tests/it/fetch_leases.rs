//! Fetches and the leases of other processes: joined when the wait is over, and renewed while they compute.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use memring::meta::{Get, Set, TimeLeft};
use memring::testing::Memcached;
use memring::{Client, Computed, FetchError, FetchOptions, OnWaitTimeout, Origin, Stale};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::fetch::{BlockedFetch, assert_fetched, fetch, long_limits, spawn_fetch};
use crate::leases::{HOUR, leave_lease, meta_server, time_left};
use crate::support::{
    MINUTE, TEST_TIMEOUT, Version, client_builder, client_of, eventually, memcached_at_least, repeat_for, value_of,
    within,
};

/// Options of a fetch that does not wait for another process.
fn no_wait() -> FetchOptions {
    long_limits().wait_timeout(Duration::ZERO)
}

/// Options whose lease is renewed every half second.
fn short_lease() -> FetchOptions {
    long_limits().lease(Duration::from_secs(1))
}

/// Starts a fetch in a runtime of its own, which ends while the value is computed: nothing is given back.
async fn fetch_in_a_killed_process(server: &Memcached) {
    let addr = server.addr();
    let process = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let cache = client_builder(addr).connect().await.unwrap();
            BlockedFetch::start(&cache, MINUTE.into(), "never").await
        });
        runtime.shutdown_background();
    });
    tokio::task::spawn_blocking(|| process.join().unwrap()).await.unwrap();
}

/// Starts a server with leases, if the installed one can, and one that is used by a lock.
async fn servers_with_leases_and_locks() -> Vec<Memcached> {
    let with_leases = memcached_at_least(Version::META).await.map(|(server, _)| server);
    with_leases.into_iter().chain([Memcached::start_with(["-C"]).await.unwrap()]).collect()
}

#[tokio::test]
async fn a_killed_process_costs_the_next_fetch_a_short_wait() {
    for server in servers_with_leases_and_locks().await {
        fetch_in_a_killed_process(&server).await;
        let cache = client_of(&server).await;
        let start = Instant::now();
        assert_fetched(fetch(&cache, MINUTE.into(), "value").await, "value", Origin::Computed);
        let waited = start.elapsed();
        assert!((Duration::from_secs(1)..Duration::from_secs(6)).contains(&waited), "waited for {waited:?}");
        for reader in [cache, client_of(&server).await] {
            assert_fetched(fetch(&reader, MINUTE.into(), "not needed").await, "value", Origin::Cached);
        }
    }
}

#[tokio::test]
async fn a_computation_may_take_longer_than_its_lease() {
    // Long enough for a machine that delays a renewal by seconds.
    const LEASE: Duration = Duration::from_secs(6);
    let mut tasks = JoinSet::new();
    for server in servers_with_leases_and_locks().await {
        tasks.spawn(async move {
            let (holder, other) = (client_of(&server).await, client_of(&server).await);
            let leader = BlockedFetch::start(&holder, long_limits().lease(LEASE), "value").await;
            let waiter = spawn_fetch(&other, long_limits().lease(LEASE), "not needed");
            sleep(LEASE * 2 + Duration::from_secs(1)).await;
            assert_fetched(leader.release().await, "value", Origin::Computed);
            assert_fetched(waiter.await.unwrap(), "value", Origin::Cached);
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

/// Also for callers in the same process that come after the change.
#[tokio::test]
async fn a_value_computed_under_a_joined_lease_is_not_stored_if_the_item_has_changed() {
    let Some((server, cache)) = memcached_at_least(Version::META).await else { return };
    let other = client_of(&server).await;
    for change in ["delete", "set", "invalidate", "another lease"] {
        leave_lease(&other, b"k", HOUR).await;
        let joiner = BlockedFetch::start(&cache, no_wait(), "outdated").await;
        match change {
            "set" => other.set("k", "new", MINUTE).await.unwrap(),
            "invalidate" => assert!(other.invalidate("k", MINUTE).await.unwrap()),
            _ => assert!(other.delete("k").await.unwrap()),
        }
        if change == "another lease" {
            leave_lease(&other, b"k", Duration::from_secs(1)).await;
        }
        let later = spawn_fetch(&cache, long_limits(), "new");
        sleep(Duration::from_millis(50)).await;
        assert_fetched(joiner.release().await, "outdated", Origin::NotStored);
        assert_eq!(later.await.unwrap().unwrap().value, "new", "after {change}");
        assert_eq!(value_of(&other, "k").await.unwrap(), b"new", "after {change}");
        other.delete("k").await.unwrap();
    }
}

#[tokio::test]
async fn a_lease_that_ends_while_another_caller_computes_is_won_again() {
    const LEASE: Duration = Duration::from_secs(3);
    let Some((server, cache)) = memcached_at_least(Version::META).await else { return };
    let other = client_of(&server).await;
    let leader = BlockedFetch::start(&cache, long_limits().lease(LEASE), "outdated").await;
    assert!(other.delete("k").await.unwrap());
    let follower = spawn_fetch(&cache, long_limits().lease(LEASE), "new");
    // The follower's lease ends. It is not renewed, because the leader does not know of it.
    sleep(LEASE + Duration::from_millis(500)).await;
    assert_fetched(leader.release().await, "outdated", Origin::NotStored);
    assert_fetched(follower.await.unwrap(), "new", Origin::Computed);
}

#[tokio::test]
async fn the_first_of_two_processes_to_finish_stores_its_value() {
    let Some((server, cache)) = memcached_at_least(Version::META).await else { return };
    let other = client_of(&server).await;
    for first_joins in [false, true] {
        let holder = BlockedFetch::start(&cache, long_limits(), "holder").await;
        let joiner = BlockedFetch::start(&other, no_wait(), "joiner").await;
        let (first, second) = if first_joins { (joiner, holder) } else { (holder, joiner) };
        let (stored, not_stored) = if first_joins { ("joiner", "holder") } else { ("holder", "joiner") };
        assert_fetched(first.release().await, stored, Origin::Computed);
        assert_fetched(second.release().await, not_stored, Origin::NotStored);
        assert_eq!(value_of(&cache, "k").await.unwrap(), stored.as_bytes());
        cache.delete("k").await.unwrap();
    }
}

#[tokio::test]
async fn a_stale_item_is_joined_too() {
    let Some((server, cache)) = memcached_at_least(Version::META).await else { return };
    let other = client_of(&server).await;
    for is_invalidated_again in [false, true] {
        cache.set("k", "old", MINUTE).await.unwrap();
        cache.invalidate("k", MINUTE).await.unwrap();
        let renewed = other.meta_get("k", Get::new().value().cas()).await.unwrap().unwrap();
        assert!(renewed.won && renewed.stale);
        let joiner = BlockedFetch::start(&cache, no_wait().stale(Stale::Wait), "new").await;
        if is_invalidated_again {
            other.invalidate("k", MINUTE).await.unwrap();
        }
        let origin = if is_invalidated_again { Origin::NotStored } else { Origin::Computed };
        assert_fetched(joiner.release().await, "new", origin);
        let expected = if is_invalidated_again { "old" } else { "new" };
        assert_eq!(value_of(&cache, "k").await.unwrap(), expected.as_bytes());
        let late = other.meta_set("k", "late", Set::new(MINUTE).compare(renewed.cas.unwrap())).await.unwrap();
        assert!(!late.is_done(), "one value is stored");
    }
}

#[tokio::test]
async fn a_joined_lease_stays_if_its_value_is_not_stored() {
    let Some((server, cache)) = memcached_at_least(Version::META).await else { return };
    let other = client_of(&server).await;
    for cause in ["failed", "dropped", "not to be stored", "too large"] {
        let holder = BlockedFetch::start(&cache, long_limits(), "value").await;
        match cause {
            "failed" => {
                let outcome = other.fetch("k", no_wait(), || async { Err::<&str, _>("failed") }).await;
                assert!(matches!(outcome, Err(FetchError::Compute("failed"))), "{outcome:?}");
            }
            "dropped" => {
                let joiner = BlockedFetch::start(&other, no_wait(), "never").await;
                joiner.task.abort();
                assert!(joiner.task.await.unwrap_err().is_cancelled());
            }
            "too large" => {
                let small = client_builder(server.addr()).max_value_size(2).connect().await.unwrap();
                assert_fetched(fetch(&small, no_wait(), "large").await, "large", Origin::NotStored);
            }
            _ => {
                let compute = || async { Ok::<_, &str>(Computed::new("secret").do_not_store()) };
                assert_eq!(other.fetch("k", no_wait(), compute).await.unwrap().origin, Origin::NotStored);
            }
        }
        // Longer than it takes to give a lease back.
        sleep(Duration::from_millis(100)).await;
        assert_fetched(holder.release().await, "value", Origin::Computed);
        other.delete("k").await.unwrap();
    }
}

#[tokio::test]
async fn a_value_that_another_client_stores_keeps_its_ttl_when_leases_are_renewed() {
    let Some((server, cache)) = memcached_at_least(Version::META).await else { return };
    let other = client_of(&server).await;
    let holder = BlockedFetch::start(&cache, short_lease(), "late").await;
    let joiner = BlockedFetch::start(&other, short_lease().wait_timeout(Duration::ZERO), "late").await;
    other.set("k", "newer", HOUR).await.unwrap();
    // Longer than two renewals take.
    sleep(Duration::from_millis(1_200)).await;
    assert!(time_left(&cache, b"k").await > TimeLeft::Finite(HOUR / 2));
    for late in [holder, joiner] {
        assert_fetched(late.release().await, "late", Origin::NotStored);
    }
    assert_eq!(value_of(&cache, "k").await.unwrap(), b"newer");
}

/// Fetches from a scripted server, and computes until after the commands that the server got are `is_done`. Returns
/// these commands.
async fn commands_of_fetch(
    reply: fn(&str) -> &'static str,
    expected: Origin,
    is_done: fn(&[String]) -> bool,
) -> Vec<String> {
    let (addr, commands) = meta_server(reply).await;
    let cache = client_builder(addr).connect().await.unwrap();
    let compute = async || {
        eventually("the commands are sent", async || is_done(&commands.lock().unwrap())).await;
        // Longer than it takes until the next renewal.
        sleep(Duration::from_millis(700)).await;
        Ok::<_, &'static str>("value")
    };
    assert_fetched(cache.fetch("k", short_lease(), compute).await, "value", expected);
    let sent = commands.lock().unwrap().clone();
    assert_eq!(sent.last().unwrap(), "ms k 5 F0 C8 T60");
    sent
}

fn count(commands: &[String], command: &str) -> usize {
    commands.iter().filter(|sent| *sent == command).count()
}

#[tokio::test]
async fn a_renewal_that_touches_a_new_value_restores_its_ttl_and_is_the_last() {
    let reply = |command: &str| match command {
        "version" => "VERSION 1.6.18\r\n",
        "mg k v f c N1" => "VA 0 f0 c8 W\r\n\r\n",
        "mg k c s t" => "HD c8 s0 t1 Z\r\n",
        // Another client has stored the value between these two.
        "mg k c s t T1" => "HD c9 s5 t3600\r\n",
        "mg k c s t T3600" => "HD c9 s5 t1\r\n",
        "ms k 5 F0 C8 T60" => "EX\r\n",
        other => panic!("{other}"),
    };
    let is_restored: fn(&[String]) -> bool = |sent| count(sent, "mg k c s t T3600") == 1;
    let sent = commands_of_fetch(reply, Origin::NotStored, is_restored).await;
    assert_eq!(count(&sent, "mg k c s t T1"), 1);
}

#[tokio::test]
async fn a_renewal_that_finds_another_item_does_not_touch_it() {
    let reply = |command: &str| match command {
        "version" => "VERSION 1.6.18\r\n",
        "mg k v f c N1" => "VA 0 f0 c8 W\r\n\r\n",
        "mg k c s t" => "HD c9 s5 t3600\r\n",
        "ms k 5 F0 C8 T60" => "EX\r\n",
        other => panic!("{other}"),
    };
    let is_checked: fn(&[String]) -> bool = |sent| count(sent, "mg k c s t") == 1;
    let sent = commands_of_fetch(reply, Origin::NotStored, is_checked).await;
    assert_eq!(sent, ["version", "mg k v f c N1", "mg k c s t", "ms k 5 F0 C8 T60"]);
}

#[tokio::test]
async fn a_renewal_that_fails_is_tried_again() {
    let reply = |command: &str| match command {
        "version" => "VERSION 1.6.18\r\n",
        "mg k v f c N1" => "VA 0 f0 c8 W\r\n\r\n",
        "mg k c s t" => "SERVER_ERROR out of memory\r\n",
        "ms k 5 F0 C8 T60" => "HD\r\n",
        other => panic!("{other}"),
    };
    let is_tried_again: fn(&[String]) -> bool = |sent| count(sent, "mg k c s t") >= 3;
    commands_of_fetch(reply, Origin::Computed, is_tried_again).await;
}

/// A stale item has the TTL that `invalidate` gave it, and an item that expires soon has its own.
#[tokio::test]
async fn an_item_that_is_renewed_is_not_touched() {
    let Some((_server, cache)) = memcached_at_least(Version::META).await else { return };
    // A stale item without a value differs from a lease placeholder by being stale only.
    for (value, is_stale) in [("old", true), ("", true), ("old", false)] {
        cache.set("k", value, HOUR).await.unwrap();
        if is_stale {
            assert!(cache.invalidate("k", HOUR).await.unwrap());
        }
        let renewer = BlockedFetch::start(&cache, short_lease().recache_within(2 * HOUR), "new").await;
        sleep(Duration::from_millis(1_200)).await;
        assert!(time_left(&cache, b"k").await > TimeLeft::Finite(HOUR / 2));
        assert_fetched(renewer.release().await, "new", Origin::Computed);
    }
}

#[tokio::test]
async fn a_lease_that_is_touched_and_shortened_is_its_holders_while_it_is_renewed() {
    let Some((server, cache)) = memcached_at_least(Version::META).await else { return };
    let other = client_of(&server).await;
    let holder = BlockedFetch::start(&cache, long_limits().lease(Duration::from_secs(6)), "value").await;
    let wait = long_limits().lease(Duration::from_secs(5)).on_wait_timeout(OnWaitTimeout::Fail);
    let wait_and_fail = async || {
        let outcome = fetch(&other, wait.wait_timeout(Duration::from_millis(20)), "not needed").await;
        assert!(matches!(outcome, Err(FetchError::WaitTimeout)), "{outcome:?}");
    };
    repeat_for(Duration::from_secs(1), async || {
        assert!(cache.touch("k", HOUR).await.unwrap());
        wait_and_fail().await;
    })
    .await;
    // Longer than the shortened lease.
    repeat_for(Duration::from_secs(7), wait_and_fail).await;
    assert_fetched(holder.release().await, "value", Origin::Computed);
}

#[tokio::test]
async fn no_caller_takes_longer_than_twice_its_limits() {
    const CALLERS: usize = 20;
    let limit = Duration::from_millis(250);
    for server in servers_with_leases_and_locks().await {
        fetch_in_a_killed_process(&server).await;
        let cache = client_of(&server).await;
        let options = long_limits().wait_timeout(limit).compute_timeout(limit);
        let callers = (0..CALLERS).map(|_| cache.fetch("k", options, std::future::pending::<Result<&str, &str>>));
        // The commands take some time, too. One caller after the other would take 10 s.
        let all = within(limit * 4 + Duration::from_secs(4), futures_util::future::join_all(callers)).await;
        assert!(all.iter().all(|outcome| matches!(outcome, Err(FetchError::ComputeTimeout | FetchError::WaitTimeout))));
    }
}

/// The wait is for a value: one that is stored while a caller waits is returned, and computed once.
#[tokio::test]
async fn callers_of_several_processes_share_the_value_of_the_first_one_that_joins() {
    let Some((server, cache)) = memcached_at_least(Version::META).await else { return };
    leave_lease(&cache, b"k", HOUR).await;
    let computed = AtomicUsize::new(0);
    let options = long_limits().wait_timeout(Duration::from_millis(500));
    let first = cache.fetch("k", options, async || {
        computed.fetch_add(1, Ordering::Relaxed);
        Ok::<_, &str>("value")
    });
    let other: Client = client_of(&server).await;
    let second = fetch(&other, long_limits().wait_timeout(TEST_TIMEOUT), "not needed");
    let (first, second) = tokio::join!(first, second);
    assert_eq!(first.unwrap().origin, Origin::Computed);
    assert_fetched(second, "value", Origin::Cached);
    assert_eq!(computed.load(Ordering::Relaxed), 1);
}
