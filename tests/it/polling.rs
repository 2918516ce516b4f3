//! What callers do with the futures of commands: poll them here and then there, let them go, have many of them wait.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::join_all;
use memring::meta::Get;
use memring::{Client, Error, Item};
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;

use crate::support::{NO_HURRY, SOON, Version, eventually, is_miss, memcached, memcached_from};

const MINUTE: Duration = Duration::from_secs(60);

/// Polls as one who does not hear of it when there is more.
fn poll_deaf<T>(command: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    command.poll(&mut Context::from_waker(Waker::noop()))
}

#[tokio::test]
async fn who_polls_last_is_woken() {
    let (_server, cache) = memcached().await;
    for round in 0..10 {
        let (mut set, mut get) = (pin!(cache.set("k", "v", MINUTE)), pin!(cache.get("k")));
        let (mut delete, mut binary) = (pin!(cache.delete("k")), pin!(cache.get_and_touch("k", MINUTE)));
        for _ in 0..round {
            assert!(poll_deaf(set.as_mut()).is_pending());
        }
        timeout(SOON, set).await.unwrap().unwrap();
        for _ in 0..round {
            assert!(poll_deaf(get.as_mut()).is_pending() && poll_deaf(binary.as_mut()).is_pending());
        }
        assert_eq!(timeout(SOON, get).await.unwrap().unwrap().unwrap().value, "v");
        assert_eq!(timeout(SOON, binary).await.unwrap().unwrap().unwrap().value, "v");
        for _ in 0..round {
            assert!(poll_deaf(delete.as_mut()).is_pending());
        }
        assert!(timeout(SOON, delete).await.unwrap().unwrap());
    }
}

#[tokio::test]
async fn an_answer_that_nobody_was_woken_for_is_found() {
    let (_server, cache) = memcached().await;
    let mut set = pin!(cache.set("k", "v", MINUTE));
    eventually("it is stored", async || poll_deaf(set.as_mut()).is_ready()).await;
    let mut get = pin!(cache.get("k"));
    let mut found = None;
    eventually("it is found", async || {
        if let Poll::Ready(outcome) = poll_deaf(get.as_mut()) {
            found = outcome.unwrap();
        }
        found.is_some()
    })
    .await;
    assert_eq!(found.unwrap().value, "v");
}

/// Where all but one of them find the queue full.
#[tokio::test]
async fn who_waits_for_room_is_told_no_lease_is_a_value() {
    let Some((server, cache)) = memcached_from(Version::META).await else { return };
    assert!(cache.meta_get("lease", Get::new().value().cas().vivify(MINUTE)).await.unwrap().unwrap().is_lease());
    cache.set("empty", "", MINUTE).await.unwrap();
    cache.set("full", "v", MINUTE).await.unwrap();
    let narrow = Client::builder().nodes([server.addr().to_string()]).queue_limits(1, 1 << 20);
    let narrow = narrow.request_timeout(NO_HURRY).connect().await.unwrap();
    let value = |outcome: Result<Option<Item>, Error>| outcome.unwrap().map(|item| (item.value, item.cas.is_some()));
    for (key, there) in [("lease", None), ("missing", None), ("empty", Some("")), ("full", Some("v"))] {
        let look = async |n: usize| {
            let own = format!("own-{n}");
            match n % 4 {
                0 => assert_eq!(value(narrow.get(key).await), there.map(|there| (there.into(), false))),
                1 => assert_eq!(value(narrow.gets(key).await), there.map(|there| (there.into(), true))),
                2 => {
                    let found = narrow.get_and_touch(key, MINUTE).await;
                    assert_eq!(value(found), there.map(|there| (there.into(), false)));
                }
                _ => {
                    narrow.set(&own, own.clone(), MINUTE).await.unwrap();
                    assert_eq!(narrow.get(&own).await.unwrap().unwrap().value, own);
                }
            }
        };
        timeout(SOON, join_all((0..20).map(look))).await.unwrap();
    }
}

/// The command's outcome, unless its caller loses patience after so many turns.
async fn within<T>(turns: Option<u32>, command: impl Future<Output = T>) -> Option<T> {
    let impatient = async {
        match turns {
            Some(turns) => {
                for _ in 0..turns {
                    yield_now().await;
                }
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        outcome = command => Some(outcome),
        () = impatient => None,
    }
}

/// Everybody asks for the same few keys, on all threads, and many go away: before their command is sent, while it is under
/// way, when it is answered. What is left over of one caller's call must never reach another.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everybody_has_their_own_answer_whoever_goes_away() {
    let (_server, cache) = memcached().await;
    // Of lengths that are held in different ways.
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
                let turns = [None, Some(random.u32(0..4))][random.usize(0..2)];
                let (whole, rest) = (key(n), &key(n)[1..]);
                let (found, cas) = match random.u8(0..7) {
                    0 => (within(turns, cache.get(&whole)).await, false),
                    1 => (within(turns, cache.gets(&whole)).await, true),
                    2 => (within(turns, cache.get_and_touch(&whole, MINUTE * 10)).await, false),
                    3 => (within(turns, view.get(rest)).await, false),
                    4 => {
                        let missing = within(turns, cache.get(format!("missing-{n}"))).await;
                        assert!(missing.is_none_or(|outcome| is_miss(&outcome)));
                        continue;
                    }
                    5 => {
                        assert!(within(turns, cache.delete("missing")).await.is_none_or(|outcome| !outcome.unwrap()));
                        continue;
                    }
                    _ => {
                        let own = format!("own-{caller}");
                        let _perhaps = within(turns, cache.set("perhaps", "v", MINUTE)).await;
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
    timeout(SOON, callers.join_all()).await.unwrap();
}

#[tokio::test]
async fn what_waits_may_be_sent_and_shared() {
    fn check(_: impl Send + Sync) {}
    let (_server, cache) = memcached().await;
    check(cache.get("k"));
    check(cache.gets("k"));
    check(cache.get_and_touch("k", MINUTE));
    check(cache.set("k", "v", MINUTE));
    check(cache.delete("k"));
    check(cache.touch("k", MINUTE));
    check(cache.incr("k", 1));
    check(cache.meta_get("k", Get::new()));
    check(cache.update("k", MINUTE, |_| None::<&str>));
    check(cache.take("k"));
    check(cache.invalidate("k", MINUTE));
    check(cache.get_many(["k"]));
    check(cache.set_many([("k", "v")], MINUTE));
}
