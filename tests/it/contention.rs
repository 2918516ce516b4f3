//! What is made of several commands: update, take, counters and invalidation, with everybody at it at once.

use std::time::Duration;

use memring::meta::{Get, Set};
use memring::testing::Memcached;
use memring::{Client, Counter, ErrorKind, SetOptions};
use tokio::task::JoinSet;

use crate::support::{NO_HURRY, Version, memcached, memcached_from, version_of};

const MINUTE: Duration = Duration::from_secs(60);

async fn another(server: &Memcached) -> Client {
    Client::builder().nodes([server.addr().to_string()]).request_timeout(NO_HURRY).connect().await.unwrap()
}

async fn text(cache: &Client, key: &str) -> Option<String> {
    cache.get(key).await.unwrap().map(|item| String::from_utf8(item.value.to_vec()).unwrap())
}

/// Each adds one to the number in the item's text. Those who are too late too often try again.
async fn add_one(cache: &Client) {
    loop {
        let added = cache.update("n", MINUTE, |old| {
            let number: u64 = old.map_or(0, |item| std::str::from_utf8(&item.value).unwrap().parse().unwrap());
            Some((number + 1).to_string())
        });
        match added.await {
            Ok(stored) => return assert!(stored.is_some()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Contended, "{error}"),
        }
    }
}

#[tokio::test]
async fn of_many_updates_at_once_every_one_is_kept() {
    let (server, cache) = memcached().await;
    let other = another(&server).await;
    let mut tasks = JoinSet::new();
    for n in 0..20 {
        let cache = if n % 2 == 0 { cache.clone() } else { other.clone() };
        tasks.spawn(async move {
            for _ in 0..5 {
                add_one(&cache).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(text(&cache, "n").await.unwrap(), "100");
}

#[tokio::test]
async fn an_update_creates_what_is_missing_with_its_own_options_and_may_decline() {
    let (_server, cache) = memcached().await;
    assert_eq!(
        cache
            .update("k", MINUTE, |old| {
                assert!(old.is_none());
                None::<&str>
            })
            .await
            .unwrap(),
        None
    );
    assert_eq!(text(&cache, "k").await, None);
    let options = SetOptions::from(MINUTE).flags(7);
    assert_eq!(cache.update("k", options, |_| Some("new")).await.unwrap().unwrap(), "new");
    let item = cache.get("k").await.unwrap().unwrap();
    assert_eq!((&item.value[..], item.flags), (&b"new"[..], 7));
    let seen = cache.update("k", MINUTE, |old| {
        assert_eq!((&old.unwrap().value[..], old.unwrap().flags), (&b"new"[..], 7));
        Some("newer")
    });
    seen.await.unwrap();
    assert_eq!(cache.get("k").await.unwrap().unwrap().flags, 0);
    assert_eq!(cache.update("k", MINUTE, |_| None::<&str>).await.unwrap(), None);
    assert_eq!(text(&cache, "k").await.unwrap(), "newer");
    // Empty is a value.
    cache.set("k", "", MINUTE).await.unwrap();
    cache
        .update("k", MINUTE, |old| {
            assert!(old.is_some());
            Some("")
        })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(text(&cache, "k").await.unwrap(), "");
    for (outcome, kind) in [
        (cache.update("a b", MINUTE, |_| Some("x")).await, ErrorKind::InvalidKey),
        (cache.update("k", Duration::ZERO, |_| Some("x")).await, ErrorKind::InvalidTtl),
        (cache.update("k", MINUTE, |_| Some(vec![0; (1 << 20) + 1])).await, ErrorKind::TooLarge),
    ] {
        assert_eq!(outcome.unwrap_err().kind(), kind);
    }
}

#[tokio::test]
async fn an_update_that_others_always_beat_gives_up() {
    let (server, cache) = memcached().await;
    let other = another(&server).await;
    cache.set("k", "0", MINUTE).await.unwrap();
    let mut tries = 0;
    // The closure is between the reading and the writing: there somebody else writes, each time.
    let mut write = || {
        tries += 1;
        std::thread::scope(|scope| {
            let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let addr = server.addr();
            let write = move || {
                runtime().block_on(async {
                    use tokio::io::{AsyncReadExt, AsyncWriteExt};
                    let mut socket = tokio::net::TcpStream::connect(addr).await.unwrap();
                    socket.write_all(b"set k 0 0 1\r\n1\r\n").await.unwrap();
                    socket.read_exact(&mut [0; 8]).await.unwrap();
                })
            };
            scope.spawn(write).join().unwrap();
        });
    };
    let outcome = other
        .update("k", MINUTE, |_| {
            write();
            Some("mine")
        })
        .await;
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Contended);
    assert_eq!((tries, text(&cache, "k").await.unwrap()), (16, "1".to_owned()));
}

#[tokio::test]
async fn an_update_builds_on_no_lease_and_nothing_stale() {
    let Some((server, cache)) = memcached_from(Version::META).await else { return };
    let none_to_build_on = |old: Option<&memring::Item>| {
        assert!(old.is_none());
        Some("updated")
    };
    let lease = cache.meta_get("k", Get::new().value().cas().vivify(MINUTE)).await.unwrap().unwrap();
    assert!(lease.won && lease.is_lease());
    assert_eq!(cache.update("k", MINUTE, none_to_build_on).await.unwrap().unwrap(), "updated");
    // Who has the lease is too late.
    let late = cache.meta_set("k", "late", Set::new(MINUTE).compare(lease.cas.unwrap())).await.unwrap();
    assert!(!late.is_done());
    assert_eq!(text(&cache, "k").await.unwrap(), "updated");

    cache.set("k", "stale", MINUTE).await.unwrap();
    assert!(cache.invalidate("k", MINUTE).await.unwrap());
    // One who declines leaves the item to the next, who is asked to renew it.
    assert_eq!(
        cache
            .update("k", MINUTE, |old| {
                assert!(old.is_none());
                None::<&str>
            })
            .await
            .unwrap(),
        None
    );
    let next = another(&server).await.meta_get("k", Get::new().value().cas()).await.unwrap().unwrap();
    assert!(next.won && next.stale && !next.recaching);
    assert_eq!(cache.update("k", MINUTE, none_to_build_on).await.unwrap().unwrap(), "updated");
    let fresh = cache.meta_get("k", Get::new().value()).await.unwrap().unwrap();
    assert!(!fresh.stale && !fresh.won && fresh.value.unwrap() == "updated");
}

#[tokio::test]
async fn what_many_take_one_gets() {
    let Some((server, cache)) = memcached_from(Version::META).await else { return };
    let other = another(&server).await;
    for round in 0..20 {
        cache.set("k", round.to_string(), SetOptions::from(MINUTE).flags(round)).await.unwrap();
        let mut takers = JoinSet::new();
        for n in 0..10 {
            let cache = if n % 2 == 0 { cache.clone() } else { other.clone() };
            takers.spawn(async move { cache.take("k").await.unwrap() });
        }
        let taken: Vec<_> = takers.join_all().await.into_iter().flatten().collect();
        let [item] = &taken[..] else { panic!("{} have it", taken.len()) };
        assert_eq!((item.value.as_ref(), item.flags), (round.to_string().as_bytes(), round));
        assert!(item.cas.is_some());
        assert_eq!(text(&cache, "k").await, None);
    }
}

#[tokio::test]
async fn a_stale_item_is_taken_and_a_lease_is_left() {
    let Some((_server, cache)) = memcached_from(Version::META).await else { return };
    assert_eq!(cache.take("k").await.unwrap(), None);
    cache.set("k", "stale", MINUTE).await.unwrap();
    cache.invalidate("k", MINUTE).await.unwrap();
    assert_eq!(cache.take("k").await.unwrap().unwrap().value, "stale");
    assert_eq!(cache.take("k").await.unwrap(), None);
    cache.set("k", "", MINUTE).await.unwrap();
    assert!(cache.take("k").await.unwrap().unwrap().value.is_empty());
    let lease = cache.meta_get("k", Get::new().value().cas().vivify(MINUTE)).await.unwrap().unwrap();
    assert_eq!(cache.take("k").await.unwrap(), None);
    let filled = cache.meta_set("k", "filled", Set::new(MINUTE).compare(lease.cas.unwrap())).await.unwrap();
    assert!(filled.is_done(), "the lease is still good");
    assert_eq!(cache.take("k").await.unwrap().unwrap().value, "filled");
}

#[tokio::test]
async fn taking_needs_a_server_that_deletes_by_version() {
    let (server, cache) = memcached().await;
    cache.set("k", "v", MINUTE).await.unwrap();
    let can = version_of(server.addr()).await >= Version::META;
    match cache.take("k").await {
        Ok(item) => assert!(can && item.unwrap().value == "v"),
        Err(error) => {
            assert!(!can && error.kind() == ErrorKind::Unsupported, "{error}");
            assert_eq!(text(&cache, "k").await.unwrap(), "v");
        }
    }
}

#[tokio::test]
async fn counters_begin_where_they_are_told_to_and_live_as_long() {
    let (_server, cache) = memcached().await;
    let counter = Counter::new(10, MINUTE);
    assert_eq!(cache.count_up("n", 5, counter).await.unwrap(), 10);
    assert_eq!(cache.count_up("n", 5, counter).await.unwrap(), 15);
    assert_eq!(cache.count_down("n", 7, counter).await.unwrap(), 8);
    assert_eq!(cache.count_down("n", 100, counter).await.unwrap(), 0);
    assert_eq!(cache.count_up("n", u64::MAX, counter).await.unwrap(), u64::MAX);
    assert_eq!(cache.count_up("n", 2, counter).await.unwrap(), 1);
    assert_eq!(cache.count_down("down", 5, Counter::new(u64::MAX, MINUTE)).await.unwrap(), u64::MAX);
    // Counting does not prolong it.
    let brief = Counter::new(0, Duration::from_secs(1));
    cache.count_up("brief", 1, brief).await.unwrap();
    cache.count_up("brief", 1, Counter::new(0, MINUTE)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(text(&cache, "brief").await, None);
    cache.set("text", "abc", MINUTE).await.unwrap();
    assert_eq!(cache.count_up("text", 1, counter).await.unwrap_err().kind(), ErrorKind::Server);
    assert_eq!(cache.count_up("a b", 1, counter).await.unwrap_err().kind(), ErrorKind::InvalidKey);
    let endless = Counter::new(0, Duration::ZERO);
    assert_eq!(cache.count_up("n", 1, endless).await.unwrap_err().kind(), ErrorKind::InvalidTtl);
}

#[tokio::test]
async fn counters_made_by_many_at_once_are_exact() {
    let (server, cache) = memcached().await;
    let other = another(&server).await;
    for round in 0..10 {
        let mut counting = JoinSet::new();
        for n in 0..40 {
            let cache = if n % 2 == 0 { cache.clone() } else { other.clone() };
            counting
                .spawn(async move { cache.count_up(format!("n{round}"), 1, Counter::new(1, MINUTE)).await.unwrap() });
        }
        let mut numbers = counting.join_all().await;
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=40).collect::<Vec<_>>(), "each has a number of its own");
    }
}

#[tokio::test]
async fn what_is_invalidated_is_stale_or_gone() {
    let (server, cache) = memcached().await;
    assert!(!cache.invalidate("k", MINUTE).await.unwrap());
    cache.set("k", "v", MINUTE).await.unwrap();
    assert!(cache.invalidate("k", MINUTE).await.unwrap());
    if version_of(server.addr()).await >= Version::META {
        let item = cache.meta_get("k", Get::new().value().ttl_left().no_bump()).await.unwrap().unwrap();
        assert!(item.stale && item.value.unwrap() == "v");
        assert!(cache.invalidate("k", MINUTE).await.unwrap(), "again, while it is stale");
    } else {
        assert_eq!(text(&cache, "k").await, None);
        assert!(!cache.invalidate("k", MINUTE).await.unwrap());
    }
    assert_eq!(cache.invalidate("k", Duration::ZERO).await.unwrap_err().kind(), ErrorKind::InvalidTtl);
    assert_eq!(cache.invalidate("", MINUTE).await.unwrap_err().kind(), ErrorKind::InvalidKey);
}
