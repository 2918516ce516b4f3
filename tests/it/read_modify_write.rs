//! Commands that read before they write: update, take, counters and invalidation, also with concurrent callers.

use std::io::{Read, Write};
use std::time::Duration;

use memring::meta::{Delete, Get, Set};
use memring::testing::Memcached;
use memring::{Client, Counter, Delivery, Error, ErrorKind, Item, SetOptions};
use tokio::task::JoinSet;

use crate::support::{MINUTE, Version, client_of, memcached, memcached_at_least, server_version};

async fn text_of(cache: &Client, key: &str) -> Option<String> {
    cache.get(key).await.unwrap().map(|item| String::from_utf8(item.value.to_vec()).unwrap())
}

fn number_of(item: Option<&Item>) -> u64 {
    item.map_or(0, |item| std::str::from_utf8(&item.value).unwrap().parse().unwrap())
}

fn add_one(old: Option<&Item>) -> Option<String> {
    Some((number_of(old) + 1).to_string())
}

/// Runs an update that finds nothing to build on and stores nothing.
async fn decline_update_of_missing(cache: &Client) {
    let outcome = cache.update("k", MINUTE, |old| {
        assert!(old.is_none());
        None::<&str>
    });
    assert_eq!(outcome.await.unwrap(), None);
}

/// Reads a missing item as the first reader, who gets a lease to fill it.
async fn take_lease(cache: &Client) -> memring::meta::Item {
    cache.meta_get("k", Get::new().value().cas().vivify(MINUTE)).await.unwrap().unwrap()
}

/// Makes `k` a stale item without a value: a lease that is marked as stale.
async fn store_stale_lease(cache: &Client) {
    let lease = take_lease(cache).await;
    cache.meta_delete("k", Delete::new().compare(lease.cas.unwrap()).mark_stale()).await.unwrap();
}

async fn assert_next_reader_renews(cache: &Client) {
    let item = cache.meta_get("k", Get::new().value().vivify(MINUTE)).await.unwrap().unwrap();
    assert!(item.won, "the server asks the next reader to renew the item");
}

#[tokio::test]
async fn concurrent_updates_lose_no_change() {
    let (server, cache) = memcached().await;
    let other = client_of(&server).await;
    let mut tasks = JoinSet::new();
    for n in 0..20 {
        let cache = if n % 2 == 0 { cache.clone() } else { other.clone() };
        tasks.spawn(async move {
            for _ in 0..5 {
                // An update fails if other writers are faster too often.
                loop {
                    match cache.update("n", SetOptions::from(MINUTE).flags(7), add_one).await {
                        Ok(stored) => break assert!(stored.is_some()),
                        Err(error) => {
                            let contended = (ErrorKind::Contended, Delivery::Answered);
                            assert_eq!((error.kind(), error.delivery()), contended, "{error}");
                        }
                    }
                }
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let item = cache.get("n").await.unwrap().unwrap();
    assert_eq!((&item.value[..], item.flags), (&b"100"[..], 7));
    assert_eq!(cache.update("n", MINUTE, |_| None::<&str>).await.unwrap(), None);
    assert_eq!(text_of(&cache, "n").await.unwrap(), "100");
}

#[tokio::test]
async fn an_update_creates_a_missing_item_with_its_own_options_and_may_store_nothing() {
    let (_server, cache) = memcached().await;
    decline_update_of_missing(&cache).await;
    assert_eq!(text_of(&cache, "k").await, None);
    let options = SetOptions::from(MINUTE).flags(7);
    assert_eq!(cache.update("k", options, |_| Some("new")).await.unwrap().unwrap(), "new");
    let item = cache.get("k").await.unwrap().unwrap();
    assert_eq!((&item.value[..], item.flags), (&b"new"[..], 7));
    let update = cache.update("k", MINUTE, |old| {
        assert_eq!((&old.unwrap().value[..], old.unwrap().flags), (&b"new"[..], 7));
        Some("newer")
    });
    update.await.unwrap();
    assert_eq!(cache.get("k").await.unwrap().unwrap().flags, 0);
    assert_eq!(cache.update("k", MINUTE, |_| None::<&str>).await.unwrap(), None);
    assert_eq!(text_of(&cache, "k").await.unwrap(), "newer");
    // An empty value is a value.
    cache.set("k", "", MINUTE).await.unwrap();
    let update = cache.update("k", MINUTE, |old| {
        assert!(old.is_some());
        Some("")
    });
    update.await.unwrap().unwrap();
    assert_eq!(text_of(&cache, "k").await.unwrap(), "");
    for (outcome, kind) in [
        (cache.update("a b", MINUTE, |_| Some("x")).await, ErrorKind::InvalidKey),
        (cache.update("k", Duration::ZERO, |_| Some("x")).await, ErrorKind::InvalidTtl),
        (cache.update("k", MINUTE, |_| Some(vec![0; (1 << 20) + 1])).await, ErrorKind::TooLarge),
    ] {
        assert_eq!(outcome.unwrap_err().kind(), kind);
    }
}

#[tokio::test]
async fn an_update_that_other_writers_always_beat_fails_after_16_tries() {
    let (server, cache) = memcached().await;
    let other = client_of(&server).await;
    cache.set("k", "0", MINUTE).await.unwrap();
    let mut tries = 0;
    // The closure runs between the read and the write of an update, so another writer always comes first.
    let mut write = || {
        tries += 1;
        let mut socket = std::net::TcpStream::connect(server.addr()).unwrap();
        socket.write_all(b"set k 0 0 1\r\n1\r\n").unwrap();
        socket.read_exact(&mut [0; 8]).unwrap();
    };
    let outcome = other.update("k", MINUTE, |_| {
        write();
        Some("mine")
    });
    assert_eq!(outcome.await.unwrap_err().kind(), ErrorKind::Contended);
    assert_eq!((tries, text_of(&cache, "k").await.unwrap()), (16, "1".to_owned()));
}

#[tokio::test]
async fn an_update_treats_a_lease_and_a_stale_item_as_missing() {
    let Some((server, cache)) = memcached_at_least(Version::META).await else { return };
    let update_missing = |old: Option<&Item>| {
        assert!(old.is_none());
        Some("updated")
    };
    let lease = take_lease(&cache).await;
    assert!(lease.won && lease.is_lease());
    assert_eq!(cache.update("k", MINUTE, update_missing).await.unwrap().unwrap(), "updated");
    let late_fill = cache.meta_set("k", "late", Set::new(MINUTE).compare(lease.cas.unwrap())).await.unwrap();
    assert!(!late_fill.is_done(), "the update has ended the lease");
    assert_eq!(text_of(&cache, "k").await.unwrap(), "updated");

    cache.set("k", "stale", MINUTE).await.unwrap();
    assert!(cache.invalidate("k", MINUTE).await.unwrap());
    // An update that stores nothing leaves the renewal to the next reader.
    decline_update_of_missing(&cache).await;
    let next = client_of(&server).await.meta_get("k", Get::new().value().cas()).await.unwrap().unwrap();
    assert!(next.won && next.stale && !next.recaching);
    assert_eq!(cache.update("k", MINUTE, update_missing).await.unwrap().unwrap(), "updated");
    let fresh = cache.meta_get("k", Get::new().value()).await.unwrap().unwrap();
    assert!(!fresh.stale && !fresh.won && fresh.value.unwrap() == "updated");
}

#[tokio::test]
async fn an_updated_number_starts_at_zero_after_a_stale_item_or_a_lease() {
    let Some((_server, cache)) = memcached_at_least(Version::META).await else { return };
    cache.set("k", "5", MINUTE).await.unwrap();
    cache.meta_delete("k", Delete::new().mark_stale()).await.unwrap();
    assert_eq!(cache.update("k", MINUTE, |_| None::<&str>).await.unwrap(), None);
    assert_next_reader_renews(&cache).await;
    assert_eq!(cache.update("k", MINUTE, add_one).await.unwrap().unwrap(), "1");
    cache.delete("k").await.unwrap();
    let lease = take_lease(&cache).await;
    assert_eq!(cache.update("k", MINUTE, add_one).await.unwrap().unwrap(), "1");
    let late_fill = cache.meta_set("k", "late", Set::new(MINUTE).compare(lease.cas.unwrap())).await.unwrap();
    assert!(!late_fill.is_done() && cache.get("k").await.unwrap().unwrap().value == "1");
}

#[tokio::test]
async fn one_of_many_concurrent_takes_gets_the_item() {
    let Some((server, cache)) = memcached_at_least(Version::META).await else { return };
    let other = client_of(&server).await;
    assert_eq!(cache.take("k").await.unwrap(), None);
    for round in 0..20 {
        cache.set("k", round.to_string(), SetOptions::from(MINUTE).flags(round)).await.unwrap();
        let mut takers = JoinSet::new();
        for n in 0..10 {
            let cache = if n % 2 == 0 { cache.clone() } else { other.clone() };
            takers.spawn(async move { cache.take("k").await.unwrap() });
        }
        let taken: Vec<_> = takers.join_all().await.into_iter().flatten().collect();
        let [item] = &taken[..] else { panic!("{} callers have taken the item", taken.len()) };
        assert_eq!((item.value.as_ref(), item.flags), (round.to_string().as_bytes(), round));
        assert!(item.cas.is_some());
        assert_eq!(text_of(&cache, "k").await, None);
    }
}

#[tokio::test]
async fn a_take_loses_nothing_that_is_appended_at_the_same_time() {
    let Some((server, cache)) = memcached_at_least(Version::META).await else { return };
    let other = client_of(&server).await;
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
async fn a_take_returns_a_stale_item_and_leaves_a_lease() {
    let Some((_server, cache)) = memcached_at_least(Version::META).await else { return };
    assert_eq!(cache.take("k").await.unwrap(), None);
    cache.set("k", "stale", MINUTE).await.unwrap();
    cache.invalidate("k", MINUTE).await.unwrap();
    assert_eq!(cache.take("k").await.unwrap().unwrap().value, "stale");
    assert_eq!(cache.take("k").await.unwrap(), None);
    cache.set("k", "", MINUTE).await.unwrap();
    assert!(cache.take("k").await.unwrap().unwrap().value.is_empty());
    let lease = take_lease(&cache).await;
    assert_eq!(cache.take("k").await.unwrap(), None);
    let filled = cache.meta_set("k", "filled", Set::new(MINUTE).compare(lease.cas.unwrap())).await.unwrap();
    assert!(filled.is_done(), "the take has not ended the lease");
    assert_eq!(cache.take("k").await.unwrap().unwrap().value, "filled");
}

#[tokio::test]
async fn a_take_needs_a_server_that_can_delete_by_cas_unique() {
    let (server, cache) = memcached().await;
    cache.set("k", "v", MINUTE).await.unwrap();
    let is_supported = server_version(server.addr()).await >= Version::META;
    match cache.take("k").await {
        Ok(item) => assert!(is_supported && item.unwrap().value == "v"),
        Err(error) => {
            assert!(!is_supported, "{error}");
            assert_eq!((error.kind(), error.delivery()), (ErrorKind::Unsupported, Delivery::NotSent), "{error}");
            assert_eq!(text_of(&cache, "k").await.unwrap(), "v");
        }
    }
}

#[tokio::test]
async fn a_get_or_a_take_of_a_stale_lease_leaves_the_renewal_to_the_next_reader() {
    let Some((_server, cache)) = memcached_at_least(Version::META).await else { return };
    store_stale_lease(&cache).await;
    assert_eq!(cache.get("k").await.unwrap(), None);
    assert_next_reader_renews(&cache).await;

    cache.delete("k").await.unwrap();
    store_stale_lease(&cache).await;
    assert_eq!(cache.take("k").await.unwrap(), None);
    assert_next_reader_renews(&cache).await;
}

#[tokio::test]
async fn counters_start_at_their_initial_value_and_keep_their_first_ttl() {
    let (_server, cache) = memcached().await;
    let counter = Counter::new(10, MINUTE);
    assert_eq!(cache.count_up("n", 5, counter).await.unwrap(), 10);
    assert_eq!(cache.count_up("n", 5, counter).await.unwrap(), 15);
    assert_eq!(cache.count_down("n", 7, counter).await.unwrap(), 8);
    assert_eq!(cache.count_down("n", 100, counter).await.unwrap(), 0);
    assert_eq!(cache.count_up("n", u64::MAX, counter).await.unwrap(), u64::MAX);
    assert_eq!(cache.count_up("n", 2, counter).await.unwrap(), 1);
    assert_eq!(cache.count_down("n", u64::MAX, counter).await.unwrap(), 0);
    assert_eq!(cache.count_down("down", 5, Counter::new(u64::MAX, MINUTE)).await.unwrap(), u64::MAX);
    assert_eq!(cache.count_up("down", 2, counter).await.unwrap(), 1, "the counter wraps");
    // The second call does not extend the TTL.
    let brief = Counter::new(0, Duration::from_secs(1));
    cache.count_up("brief", 1, brief).await.unwrap();
    cache.count_up("brief", 1, Counter::new(0, MINUTE)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(text_of(&cache, "brief").await, None);
    cache.set("text", "abc", MINUTE).await.unwrap();
    assert_eq!(cache.count_up("text", 1, counter).await.unwrap_err().kind(), ErrorKind::Server);
    assert_eq!(cache.count_up("a b", 1, counter).await.unwrap_err().kind(), ErrorKind::InvalidKey);
    let invalid_ttl = Counter::new(0, Duration::ZERO);
    assert_eq!(cache.count_up("n", 1, invalid_ttl).await.unwrap_err().kind(), ErrorKind::InvalidTtl);
}

#[tokio::test]
async fn concurrent_callers_who_create_and_count_a_counter_each_get_their_own_number() {
    let (server, cache) = memcached().await;
    let other = client_of(&server).await;
    for round in 0..10 {
        let mut callers = JoinSet::new();
        for n in 0..40 {
            let cache = if n % 2 == 0 { cache.clone() } else { other.clone() };
            callers
                .spawn(async move { cache.count_up(format!("n{round}"), 5, Counter::new(10, MINUTE)).await.unwrap() });
        }
        let mut numbers = callers.join_all().await;
        numbers.sort_unstable();
        assert_eq!(numbers, (0..40).map(|n| 10 + 5 * n).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn an_invalidated_item_is_stale_or_on_old_servers_deleted() {
    let (server, cache) = memcached().await;
    assert!(!cache.invalidate("k", MINUTE).await.unwrap());
    cache.set("k", "v", MINUTE).await.unwrap();
    assert!(cache.invalidate("k", MINUTE).await.unwrap());
    if server_version(server.addr()).await >= Version::META {
        let item = cache.meta_get("k", Get::new().value().ttl_left().no_bump()).await.unwrap().unwrap();
        assert!(item.stale && item.value.unwrap() == "v");
        assert!(cache.invalidate("k", MINUTE).await.unwrap(), "a stale item can be invalidated again");
    } else {
        assert_eq!(text_of(&cache, "k").await, None);
        assert!(!cache.invalidate("k", MINUTE).await.unwrap());
    }
    assert_eq!(cache.invalidate("k", Duration::ZERO).await.unwrap_err().kind(), ErrorKind::InvalidTtl);
    assert_eq!(cache.invalidate("", MINUTE).await.unwrap_err().kind(), ErrorKind::InvalidKey);
}

#[tokio::test]
async fn without_cas_uniques_no_change_is_lost_and_errors_name_the_option() {
    let server = Memcached::start_with(["-C"]).await.unwrap();
    let cache = client_of(&server).await;
    let assert_names_option = |outcome: Result<(), Error>| {
        let error = outcome.unwrap_err();
        assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains("`-C`"), "{error}");
        assert!(!error.is_transient());
    };
    cache.set("n", "0", MINUTE).await.unwrap();
    let found = cache.gets("n").await.unwrap().unwrap();
    assert_eq!((&found.value[..], found.cas.unwrap().get()), (&b"0"[..], 0));
    assert_names_option(cache.cas("n", found.cas.unwrap(), "1", MINUTE).await.map(drop));
    assert_names_option(cache.update("n", MINUTE, add_one).await.map(drop));
    if server_version(server.addr()).await >= Version::META {
        assert_names_option(cache.take("n").await.map(drop));
        // The right to renew a stale item is passed on.
        cache.invalidate("n", MINUTE).await.unwrap();
        assert_names_option(cache.update("n", MINUTE, add_one).await.map(drop));
        assert_next_reader_renews(&cache).await;
    }
    assert_eq!(text_of(&cache, "n").await.unwrap(), "0");
    // Of many updates that create an item, one does.
    let updates: JoinSet<_> = (0..8)
        .map(|_| {
            let cache = cache.clone();
            async move { cache.update("new", MINUTE, add_one).await.is_ok() }
        })
        .collect();
    let created = updates.join_all().await.into_iter().filter(|is_ok| *is_ok).count();
    assert_eq!((created, text_of(&cache, "new").await.unwrap()), (1, "1".to_owned()));
}
