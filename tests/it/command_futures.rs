//! Futures of commands: polled by hand, dropped early, and many at once.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use futures_util::future::join_all;
use memring::meta::Get;
use memring::{Error, Item};
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;

use crate::support::{
    MINUTE, TEST_TIMEOUT, Version, client_builder, eventually, is_miss, memcached, memcached_at_least,
};

/// Polls a future with a waker that does nothing.
fn poll_with_noop_waker<T>(command: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    command.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn a_future_wakes_the_waker_of_its_last_poll() {
    let (_server, cache) = memcached().await;
    for round in 0..10 {
        let (mut set, mut get) = (pin!(cache.set("k", "v", MINUTE)), pin!(cache.get("k")));
        let (mut delete, mut touch) = (pin!(cache.delete("k")), pin!(cache.get_and_touch("k", MINUTE)));
        for _ in 0..round {
            assert!(poll_with_noop_waker(set.as_mut()).is_pending());
        }
        timeout(TEST_TIMEOUT, set).await.unwrap().unwrap();
        for _ in 0..round {
            assert!(
                poll_with_noop_waker(get.as_mut()).is_pending() && poll_with_noop_waker(touch.as_mut()).is_pending()
            );
        }
        assert_eq!(timeout(TEST_TIMEOUT, get).await.unwrap().unwrap().unwrap().value, "v");
        assert_eq!(timeout(TEST_TIMEOUT, touch).await.unwrap().unwrap().unwrap().value, "v");
        for _ in 0..round {
            assert!(poll_with_noop_waker(delete.as_mut()).is_pending());
        }
        assert!(timeout(TEST_TIMEOUT, delete).await.unwrap().unwrap());
    }
}

#[tokio::test]
async fn a_response_is_returned_by_a_later_poll_even_without_a_wake() {
    let (_server, cache) = memcached().await;
    let mut set = pin!(cache.set("k", "v", MINUTE));
    eventually("the set is done", async || poll_with_noop_waker(set.as_mut()).is_ready()).await;
    let mut get = pin!(cache.get("k"));
    let mut found = None;
    eventually("the get is done", async || {
        if let Poll::Ready(outcome) = poll_with_noop_waker(get.as_mut()) {
            found = outcome.unwrap();
        }
        found.is_some()
    })
    .await;
    assert_eq!(found.unwrap().value, "v");
}

/// The queue has space for one request, so all other requests wait.
#[tokio::test]
async fn a_get_that_waited_for_queue_space_does_not_return_a_lease_as_a_value() {
    let Some((server, cache)) = memcached_at_least(Version::META).await else { return };
    assert!(cache.meta_get("lease", Get::new().value().cas().vivify(MINUTE)).await.unwrap().unwrap().is_lease());
    cache.set("empty", "", MINUTE).await.unwrap();
    cache.set("full", "v", MINUTE).await.unwrap();
    let small_queue = client_builder(server.addr()).queue_limits(1, 1 << 20).connect().await.unwrap();
    let value = |outcome: Result<Option<Item>, Error>| outcome.unwrap().map(|item| (item.value, item.cas.is_some()));
    for (key, expected) in [("lease", None), ("missing", None), ("empty", Some("")), ("full", Some("v"))] {
        let run_command = async |n: usize| {
            let own = format!("own-{n}");
            match n % 4 {
                0 => assert_eq!(value(small_queue.get(key).await), expected.map(|value| (value.into(), false))),
                1 => assert_eq!(value(small_queue.gets(key).await), expected.map(|value| (value.into(), true))),
                2 => {
                    let found = small_queue.get_and_touch(key, MINUTE).await;
                    assert_eq!(value(found), expected.map(|value| (value.into(), false)));
                }
                _ => {
                    small_queue.set(&own, own.clone(), MINUTE).await.unwrap();
                    assert_eq!(small_queue.get(&own).await.unwrap().unwrap().value, own);
                }
            }
        };
        timeout(TEST_TIMEOUT, join_all((0..20).map(run_command))).await.unwrap();
    }
}

/// Runs a command, and drops its future after a number of yields, if there is one.
async fn drop_after<T>(yields: Option<u32>, command: impl Future<Output = T>) -> Option<T> {
    let limit = async {
        match yields {
            Some(yields) => {
                for _ in 0..yields {
                    yield_now().await;
                }
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        outcome = command => Some(outcome),
        () = limit => None,
    }
}

/// Callers on all threads request the same few keys, and drop many futures: before the command is sent, while it is in
/// flight, and when its response has arrived. The response to a dropped future must never reach another caller.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_caller_gets_its_own_response_while_others_drop_their_futures() {
    let (_server, cache) = memcached().await;
    // The client stores keys inline or on the heap, depending on their length.
    let key = |n: u32| format!("{n:0width$}", width = 1 + n as usize * 4);
    for n in 1..=40 {
        cache.set(key(n), n.to_string(), memring::SetOptions::from(MINUTE * 10).flags(n)).await.unwrap();
    }
    let view = cache.namespace("0").unwrap();
    let mut callers = JoinSet::new();
    for caller in 0..16 {
        let (cache, view) = (cache.clone(), view.clone());
        callers.spawn(async move {
            let mut random = fastrand::Rng::with_seed(caller);
            for round in 0..400 {
                let n = random.u32(1..=40);
                let yields = [None, Some(random.u32(0..4))][random.usize(0..2)];
                let (full_key, rest) = (key(n), &key(n)[1..]);
                let (found, cas) = match random.u8(0..7) {
                    0 => (drop_after(yields, cache.get(&full_key)).await, false),
                    1 => (drop_after(yields, cache.gets(&full_key)).await, true),
                    2 => (drop_after(yields, cache.get_and_touch(&full_key, MINUTE * 10)).await, false),
                    3 => (drop_after(yields, view.get(rest)).await, false),
                    4 => {
                        let missing = drop_after(yields, cache.get(format!("missing-{n}"))).await;
                        assert!(missing.is_none_or(|outcome| is_miss(&outcome)));
                        continue;
                    }
                    5 => {
                        assert!(
                            drop_after(yields, cache.delete("missing")).await.is_none_or(|outcome| !outcome.unwrap())
                        );
                        continue;
                    }
                    _ => {
                        let own = format!("own-{caller}");
                        let _perhaps = drop_after(yields, cache.set("perhaps", "v", MINUTE)).await;
                        cache.set(&own, round.to_string(), MINUTE).await.unwrap();
                        assert_eq!(cache.get(&own).await.unwrap().unwrap().value, round.to_string());
                        continue;
                    }
                };
                if let Some(found) = found {
                    let item = found.unwrap().unwrap();
                    assert_eq!(
                        (&item.value[..], item.flags, item.cas.is_some()),
                        (n.to_string().as_bytes(), n, cas),
                        "key {n}"
                    );
                }
            }
        });
    }
    timeout(TEST_TIMEOUT, callers.join_all()).await.unwrap();
}

#[tokio::test]
async fn every_future_is_send_and_sync() {
    fn assert_send_and_sync(_: impl Send + Sync) {}
    let (_server, cache) = memcached().await;
    assert_send_and_sync(cache.get("k"));
    assert_send_and_sync(cache.gets("k"));
    assert_send_and_sync(cache.get_and_touch("k", MINUTE));
    assert_send_and_sync(cache.set("k", "v", MINUTE));
    assert_send_and_sync(cache.delete("k"));
    assert_send_and_sync(cache.touch("k", MINUTE));
    assert_send_and_sync(cache.incr("k", 1));
    assert_send_and_sync(cache.meta_get("k", Get::new()));
    assert_send_and_sync(cache.update("k", MINUTE, |_| None::<&str>));
    assert_send_and_sync(cache.take("k"));
    assert_send_and_sync(cache.invalidate("k", MINUTE));
    assert_send_and_sync(cache.get_many(["k"]));
    assert_send_and_sync(cache.set_many([("k", "v")], MINUTE));
}
