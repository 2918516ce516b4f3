//! What is built of several commands, and keys of any bytes, against a real memcached.

use std::time::Duration;

use memring::meta::{Arithmetic, Delete, Get, Set};
use memring::testing::Memcached;
use memring::{CasOutcome, Client, Counter, Delivery, ErrorKind, Item, Origin, SetOptions};
use tokio::task::JoinSet;

use crate::support::{NO_HURRY, Version, eventually, memcached, memcached_from, version_of};

const MINUTE: Duration = Duration::from_secs(60);

fn number(item: Option<&Item>) -> u64 {
    item.map_or(0, |item| std::str::from_utf8(&item.value).unwrap().parse().unwrap())
}

async fn is_renewed_by_the_next(cache: &Client) {
    let look = cache.meta_get("k", Get::new().value().vivify(MINUTE)).await.unwrap().unwrap();
    assert!(look.won, "another reader is asked to renew it");
}

#[tokio::test]
async fn updates_build_on_each_other() {
    let (_server, cache) = memcached().await;
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let cache = cache.clone();
        tasks.spawn(async move {
            for _ in 0..10 {
                let add = |old: Option<&Item>| Some((number(old) + 1).to_string());
                while let Err(error) = cache.update("k", SetOptions::from(MINUTE).flags(7), add).await {
                    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Contended, Delivery::Answered));
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let item = cache.get("k").await.unwrap().unwrap();
    assert_eq!((number(Some(&item)), item.flags), (40, 7));

    assert_eq!(cache.update("k", MINUTE, |_| None::<&str>).await.unwrap(), None);
    assert_eq!(cache.get("k").await.unwrap().unwrap().value, "40");
}

#[tokio::test]
async fn an_update_does_not_build_on_a_stale_item_nor_on_a_lease() {
    let Some((_server, cache)) = memcached_from(Version::META).await else { return };
    cache.set("k", "5", MINUTE).await.unwrap();
    cache.meta_delete("k", Delete::new().mark_stale()).await.unwrap();
    // One who does not want to store leaves it to others to renew.
    assert_eq!(cache.update("k", MINUTE, |_| None::<&str>).await.unwrap(), None);
    is_renewed_by_the_next(&cache).await;
    let add = |old: Option<&Item>| Some((number(old) + 1).to_string());
    assert_eq!(cache.update("k", MINUTE, add).await.unwrap().unwrap(), "1");
    cache.delete("k").await.unwrap();
    let lease = cache.meta_get("k", Get::new().value().cas().vivify(MINUTE)).await.unwrap().unwrap();
    assert_eq!(cache.update("k", MINUTE, add).await.unwrap().unwrap(), "1");
    let late = cache.meta_set("k", "late", Set::new(MINUTE).compare(lease.cas.unwrap())).await.unwrap();
    assert!(!late.is_done() && cache.get("k").await.unwrap().unwrap().value == "1");
}

#[tokio::test]
async fn of_many_who_take_an_item_one_gets_it() {
    let (server, cache) = memcached().await;
    if version_of(server.addr()).await < Version::META {
        cache.set("k", "v", MINUTE).await.unwrap();
        let error = cache.take("k").await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Unsupported, Delivery::NotSent));
        return;
    }
    assert_eq!(cache.take("k").await.unwrap(), None);
    for round in 0..20 {
        cache.set("k", round.to_string(), SetOptions::from(MINUTE).flags(7)).await.unwrap();
        let others = [another(&server).await, another(&server).await];
        let takers = [&cache, &cache, &others[0], &others[1]];
        let taken = futures_util::future::join_all(takers.map(|taker| taker.take("k"))).await;
        let taken: Vec<_> = taken.into_iter().filter_map(Result::unwrap).collect();
        assert_eq!(taken.len(), 1);
        assert_eq!((number(Some(&taken[0])), taken[0].flags), (round, 7));
    }
    // A reader who is asked to fill a lease and does not leaves that to the next.
    let lease = cache.meta_get("k", Get::new().value().cas().vivify(MINUTE)).await.unwrap().unwrap();
    cache.meta_delete("k", Delete::new().compare(lease.cas.unwrap()).mark_stale()).await.unwrap();
    assert_eq!(cache.take("k").await.unwrap(), None);
    is_renewed_by_the_next(&cache).await;
}

#[tokio::test]
async fn what_is_added_while_an_item_is_taken_is_not_lost() {
    let Some((server, cache)) = memcached_from(Version::META).await else { return };
    let other = another(&server).await;
    let adding = tokio::spawn(async move {
        for _ in 0..1000 {
            while !other.append("k", "x").await.unwrap() && !other.add("k", "x", MINUTE).await.unwrap() {}
        }
    });
    let mut taken = 0;
    while !adding.is_finished() {
        match cache.take("k").await {
            Ok(item) => taken += item.map_or(0, |item| item.value.len()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Contended),
        }
    }
    adding.await.unwrap();
    taken += cache.take("k").await.unwrap().map_or(0, |item| item.value.len());
    assert_eq!(taken, 1000);
}

#[tokio::test]
async fn a_get_of_an_empty_item_leaves_it_to_others_to_renew_it() {
    let Some((_server, cache)) = memcached_from(Version::META).await else { return };
    let lease = cache.meta_get("k", Get::new().value().cas().vivify(MINUTE)).await.unwrap().unwrap();
    cache.meta_delete("k", Delete::new().compare(lease.cas.unwrap()).mark_stale()).await.unwrap();
    assert_eq!(cache.get("k").await.unwrap(), None);
    is_renewed_by_the_next(&cache).await;
}

#[tokio::test]
async fn counters_come_to_be_once() {
    let (_server, cache) = memcached().await;
    let counter = Counter::new(10, MINUTE);
    let mut counted = JoinSet::new();
    for _ in 0..20 {
        let cache = cache.clone();
        counted.spawn(async move { cache.count_up("k", 5, counter).await.unwrap() });
    }
    let mut counted = counted.join_all().await;
    counted.sort_unstable();
    assert_eq!(counted, (0..20).map(|n| 10 + 5 * n).collect::<Vec<_>>());
    assert_eq!(cache.count_down("k", u64::MAX, counter).await.unwrap(), 0);
    assert_eq!(cache.count_down("down", 1, Counter::new(u64::MAX, MINUTE)).await.unwrap(), u64::MAX);
    assert_eq!(cache.count_up("down", 2, counter).await.unwrap(), 1, "it wraps");
    cache.set("k", "text", MINUTE).await.unwrap();
    assert_eq!(cache.count_up("k", 1, counter).await.unwrap_err().kind(), ErrorKind::Server);
    assert_eq!(
        cache.count_up("k", 1, Counter::new(1, Duration::ZERO)).await.unwrap_err().kind(),
        ErrorKind::InvalidTtl
    );
}

async fn another(server: &Memcached) -> Client {
    Client::builder().nodes([server.addr().to_string()]).request_timeout(NO_HURRY).connect().await.unwrap()
}

#[tokio::test]
async fn a_key_of_any_bytes_is_a_key_in_a_namespace_too() {
    let (server, plain) = memcached().await;
    let builder = Client::builder().nodes([server.addr().to_string()]).request_timeout(NO_HURRY).binary_keys(true);
    let cache = builder.connect().await.unwrap();
    let key: &[u8] = b"a b\r\n\0\xff";
    if version_of(server.addr()).await < Version::META {
        assert_eq!(cache.get(key).await.unwrap_err().kind(), ErrorKind::Unsupported);
        return;
    }
    let space = cache.namespace("tenant:").unwrap();
    let whole = [b"tenant:", key].concat();
    assert_eq!(space.node_for(key).unwrap(), cache.node_for(&whole).unwrap());
    assert_eq!(plain.get(key).await.unwrap_err().kind(), ErrorKind::InvalidKey);

    assert_eq!(space.get(key).await.unwrap(), None);
    assert!(space.add(key, "1", SetOptions::from(MINUTE).flags(7)).await.unwrap());
    assert!(!space.add(key, "2", MINUTE).await.unwrap());
    let item = space.gets(key).await.unwrap().unwrap();
    assert_eq!((&item.value[..], item.flags), (&b"1"[..], 7));
    assert_eq!(cache.get(&whole).await.unwrap().unwrap().value, "1");
    assert_eq!(cache.get(key).await.unwrap(), None);
    assert_eq!(space.incr(key, 5).await.unwrap(), Some(6));
    assert_eq!(space.cas(key, item.cas.unwrap(), "x", MINUTE).await.unwrap(), CasOutcome::Changed);
    assert!(space.replace(key, "b", MINUTE).await.unwrap());
    assert!(space.append(key, "c").await.unwrap() && space.prepend(key, "a").await.unwrap());
    assert!(space.touch(key, MINUTE).await.unwrap());
    assert_eq!(cache.get_and_touch(&whole, MINUTE).await.unwrap().unwrap().value, "abc");
    let items = space.meta_get_many([key, b"absent", key], Get::new().value().key()).await;
    let items: Vec<_> = items.into_iter().map(|(_, item)| item.unwrap()).collect();
    assert!(items[1].is_none());
    for item in [&items[0], &items[2]] {
        let item = item.as_ref().unwrap();
        assert_eq!((item.value.as_deref(), item.key.as_deref()), (Some(&b"abc"[..]), Some(&whole[..])));
    }
    // A server would say such a key as it is, in the middle of a line.
    assert_eq!(space.meta_debug(key).await.unwrap_err().kind(), ErrorKind::InvalidKey);
    assert!(space.delete(key).await.unwrap());
    assert!(!space.touch(key, MINUTE).await.unwrap());
    assert_eq!(space.incr(key, 1).await.unwrap(), None);
    assert_eq!(space.cas(key, item.cas.unwrap(), "x", MINUTE).await.unwrap(), CasOutcome::Missing);
    assert_eq!(space.meta_arithmetic(key, Arithmetic::incr(1).create(3, MINUTE)).await.unwrap().value, Some(3));
    assert!(space.take(key).await.unwrap().is_some() && cache.get(&whole).await.unwrap().is_none());

    let fetched = space.fetch(key, MINUTE, || async { Ok::<_, &str>("fetched") }).await.unwrap();
    assert_eq!(fetched.origin, Origin::Computed);
    assert_eq!(cache.get(&whole).await.unwrap().unwrap().value, "fetched");
    // To touch a stale item is no promise to renew it, nor is to read it.
    assert!(space.invalidate(key, MINUTE).await.unwrap());
    assert!(space.touch(key, MINUTE).await.unwrap() && space.get(key).await.unwrap().is_some());
    let fetched = space.fetch(key, MINUTE, || async { Ok::<_, &str>("anew") }).await.unwrap();
    assert_eq!((&fetched.value[..], fetched.origin), (&b"anew"[..], Origin::Computed));
}

#[tokio::test]
async fn a_fetch_in_a_namespace_is_of_the_prefixed_key() {
    let (_server, cache) = memcached().await;
    let space = cache.namespace("tenant:").unwrap();
    let fetched = space.fetch("k", MINUTE, || async { Ok::<_, &str>("value") }).await.unwrap();
    assert_eq!(fetched.origin, Origin::Computed);
    assert_eq!(cache.get("tenant:k").await.unwrap().unwrap().value, "value");
    assert_eq!(cache.get("k").await.unwrap(), None);
    assert!(space.invalidate("k", MINUTE).await.unwrap());
    eventually("it is renewed", async || {
        let fetched = space.fetch("k", MINUTE, || async { Ok::<_, &str>("new") }).await.unwrap();
        fetched.value == "new"
    })
    .await;
}
