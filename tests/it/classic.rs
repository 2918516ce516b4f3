//! The commands that came after the first: joining, swapping, touching gets, and what is set on every node.

use std::time::Duration;

use memring::testing::Memcached;
use memring::{CasOutcome, Client, Delivery, Error, ErrorKind, Item, SetOptions, Ttl};

use crate::commands::connection_of;
use crate::support::{NO_HURRY, eventually, memcached, stat};

const MINUTE: Duration = Duration::from_secs(60);

async fn value(cache: &Client, key: &str) -> Option<Vec<u8>> {
    cache.get(key).await.unwrap().map(|item| item.value.to_vec())
}

/// A client that leaves it to the server to refuse a value.
async fn unlimited(server: &Memcached) -> Client {
    let builder = Client::builder().nodes([server.addr().to_string()]).max_value_size(8 << 20);
    builder.request_timeout(NO_HURRY).connect().await.unwrap()
}

#[tokio::test]
async fn append_and_prepend_join_byte_for_byte_and_keep_the_flags() {
    let (_server, cache) = memcached().await;
    assert!(!cache.append("k", "x").await.unwrap());
    assert!(!cache.prepend("k", "x").await.unwrap());
    assert_eq!(value(&cache, "k").await, None);
    let every_byte: Vec<u8> = (0..=255).collect();
    let mut expected = b"\r\n".to_vec();
    cache.set("k", expected.clone(), SetOptions::from(MINUTE).flags(7)).await.unwrap();
    for piece in [&b""[..], b"END\r\n", b"flush_all\r\n", b" ", &every_byte] {
        assert!(cache.append("k", piece.to_vec()).await.unwrap());
        assert!(cache.prepend("k", piece.to_vec()).await.unwrap());
        expected = [piece, &expected, piece].concat();
        let item = cache.get("k").await.unwrap().unwrap();
        assert_eq!((&item.value[..], item.flags), (&expected[..], 7));
    }
}

#[tokio::test]
async fn what_is_too_large_to_join_is_refused_and_the_value_and_the_connection_stay() {
    let (server, small) = memcached().await;
    let cache = unlimited(&server).await;
    let old = vec![b'x'; 600_000];
    cache.set("k", old.clone(), MINUTE).await.unwrap();
    let peer = connection_of(&cache).await;
    // Read as commands, either would be seen.
    let (more, far_more) = ("flush_all\r\n".repeat(60_000), "flush_all\r\n".repeat(150_000));
    for (joined, alone) in [
        (cache.append("k", more.clone()).await, cache.append("k", far_more.clone()).await),
        (cache.prepend("k", more.clone()).await, cache.prepend("k", far_more.clone()).await),
    ] {
        assert!(!joined.unwrap(), "the server says no more than that");
        let error = alone.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::TooLarge, Delivery::Answered));
    }
    let error = small.append("k", far_more).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::TooLarge, Delivery::NotSent));
    assert_eq!(value(&cache, "k").await.unwrap(), old);
    assert_eq!(connection_of(&cache).await, peer);
}

#[tokio::test]
async fn a_swap_overwrites_only_the_version_it_names() {
    let (_server, cache) = memcached().await;
    cache.set("k", "1", MINUTE).await.unwrap();
    let version = async || cache.gets("k").await.unwrap().unwrap().cas.unwrap();
    let first = version().await;
    let body = "\r\nVALUE k 0 1\r\n";
    assert_eq!(cache.cas("k", first, body, SetOptions::from(MINUTE).flags(9)).await.unwrap(), CasOutcome::Stored);
    let item = cache.get("k").await.unwrap().unwrap();
    assert_eq!((&item.value[..], item.flags), (body.as_bytes(), 9));
    // Late: by our own write, and by another's.
    assert_eq!(cache.cas("k", first, "2", MINUTE).await.unwrap(), CasOutcome::Changed);
    let second = version().await;
    assert_ne!(second, first);
    assert!(cache.append("k", "!").await.unwrap());
    assert_eq!(cache.cas("k", second, "2", MINUTE).await.unwrap(), CasOutcome::Changed);
    assert_eq!(value(&cache, "k").await.unwrap(), [body, "!"].concat().as_bytes());
    let third = version().await;
    assert!(cache.delete("k").await.unwrap());
    assert_eq!(cache.cas("k", third, "2", MINUTE).await.unwrap(), CasOutcome::Missing);
    assert_eq!(value(&cache, "k").await, None);
    let error = cache.cas("k", third, "2", Duration::ZERO).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::InvalidTtl, Delivery::NotSent));
}

#[tokio::test]
async fn of_many_that_swap_at_once_every_change_is_kept() {
    let (_server, cache) = memcached().await;
    cache.set("list", "", MINUTE).await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..20u8 {
        let cache = cache.clone();
        writers.spawn(async move {
            loop {
                let item = cache.gets("list").await.unwrap().unwrap();
                let longer = [&item.value[..], &[writer]].concat();
                match cache.cas("list", item.cas.unwrap(), longer, MINUTE).await.unwrap() {
                    CasOutcome::Stored => break,
                    outcome => assert_eq!(outcome, CasOutcome::Changed),
                }
            }
        });
    }
    writers.join_all().await;
    let mut list = value(&cache, "list").await.unwrap();
    list.sort_unstable();
    assert_eq!(list, (0..20).collect::<Vec<u8>>());
}

#[tokio::test]
async fn a_swap_over_the_servers_limit_leaves_the_old_value() {
    let (server, _) = memcached().await;
    let cache = unlimited(&server).await;
    cache.set("k", "old", MINUTE).await.unwrap();
    let peer = connection_of(&cache).await;
    let version = cache.gets("k").await.unwrap().unwrap().cas.unwrap();
    let error = cache.cas("k", version, "flush_all\r\n".repeat(200_000), MINUTE).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::TooLarge, Delivery::Answered));
    assert_eq!(value(&cache, "k").await.unwrap(), b"old");
    assert_eq!(connection_of(&cache).await, peer);
}

#[tokio::test]
async fn a_number_that_lost_digits_counts_on() {
    let (_server, cache) = memcached().await;
    cache.set("n", "100", MINUTE).await.unwrap();
    assert_eq!(cache.decr("n", 95).await.unwrap(), Some(5));
    let padded = value(&cache, "n").await.unwrap();
    assert_eq!(padded.trim_ascii_end(), b"5");
    assert_eq!(cache.incr("n", 2).await.unwrap(), Some(7));
    assert_eq!(cache.decr("n", 7).await.unwrap(), Some(0));
}

#[tokio::test]
async fn a_touching_get_brings_the_item_and_renews_it() {
    let (_server, cache) = memcached().await;
    let second = Duration::from_secs(1);
    let one = SetOptions::from(Duration::from_secs(3)).flags(5);
    for key in ["brief", "renewed", "for-ever", "of-many"] {
        cache.set(key, "END\r\n", one).await.unwrap();
    }
    let is_it = |found: Result<Option<Item>, Error>| {
        let item = found.unwrap().unwrap();
        assert_eq!((&item.value[..], item.flags), (&b"END\r\n"[..], 5));
        item.cas
    };
    let version = is_it(cache.gets("renewed").await);
    assert_eq!(is_it(cache.get_and_touch("for-ever", Ttl::NEVER).await), None);
    assert_eq!(is_it(cache.gets_and_touch("renewed", MINUTE).await), version);
    assert_eq!(cache.get_and_touch_many(["of-many", "absent"], Duration::from_secs(40 * 86_400)).await.hits.len(), 1);
    assert_eq!(cache.get_and_touch("absent", MINUTE).await.unwrap(), None);
    assert_eq!(value(&cache, "absent").await, None);
    eventually("the untouched one is gone", async || value(&cache, "brief").await.is_none()).await;
    tokio::time::sleep(second).await;
    for key in ["renewed", "for-ever", "of-many"] {
        assert!(value(&cache, key).await.is_some(), "{key}");
    }
    // And the other way round.
    assert!(cache.get_and_touch("for-ever", second).await.unwrap().is_some());
    eventually("it is gone", async || value(&cache, "for-ever").await.is_none()).await;
    for ttl in [Duration::ZERO, Duration::MAX] {
        let error = cache.get_and_touch("renewed", ttl).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::InvalidTtl, Delivery::NotSent));
        let found = cache.gets_and_touch_many(["renewed", "a b"], ttl).await;
        assert_eq!((found.hits.len(), found.errors.len()), (0, 1));
        assert_eq!(
            (found.errors[0].error.kind(), &found.errors[0].keys[..]),
            (ErrorKind::InvalidTtl, &["renewed", "a b"][..])
        );
        assert!(cache.get_and_touch_many([] as [&str; 0], ttl).await.is_complete());
    }
}

#[tokio::test]
async fn hundreds_of_long_keys_are_touched_and_all_answered() {
    let (_server, cache) = memcached().await;
    let keys: Vec<String> = (0..700).map(|n| format!("{n:03}").repeat(60 + n % 23)).collect();
    for key in keys.iter().step_by(2) {
        cache.set(key, format!("value of {key}\r\n"), MINUTE).await.unwrap();
    }
    let peer = connection_of(&cache).await;
    let asked = keys.iter().chain([&keys[0]]);
    let found = tokio::join!(
        cache.get_and_touch_many(asked.clone(), MINUTE),
        cache.gets_and_touch_many(asked.clone(), Ttl::NEVER),
        cache.gets_many(asked),
        cache.gets_and_touch(&keys[2], MINUTE),
    );
    for (found, with_version) in [(found.0, false), (found.1, true), (found.2, true)] {
        assert!(found.is_complete(), "{:?}", found.errors[0].error);
        let hits: Vec<_> = found.hits.iter().map(|(key, _)| *key).collect();
        assert_eq!(hits, keys.iter().step_by(2).chain([&keys[0]]).collect::<Vec<_>>());
        for (key, item) in found.hits {
            assert_eq!((item.value, item.cas.is_some()), (format!("value of {key}\r\n").into(), with_version));
        }
    }
    assert!(found.3.unwrap().unwrap().cas.is_some());
    assert_eq!(connection_of(&cache).await, peer);
}

#[tokio::test]
async fn everything_at_once_and_each_gets_its_own() {
    let (_server, cache) = memcached().await;
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..200 {
        let cache = cache.clone();
        callers.spawn(async move {
            let key = format!("key-{n}");
            cache.set(&key, key.clone(), MINUTE).await.unwrap();
            let ttl = Duration::from_secs(60 + n % 3);
            let version = cache.gets_and_touch(&key, ttl).await.unwrap().unwrap().cas.unwrap();
            assert_eq!(cache.get_and_touch(&key, ttl).await.unwrap().unwrap().value, key);
            assert!(cache.append(&key, "+").await.unwrap());
            assert_eq!(cache.cas(&key, version, "lost", MINUTE).await.unwrap(), CasOutcome::Changed);
            assert_eq!(cache.get_and_touch(format!("absent-{n}"), ttl).await.unwrap(), None);
            assert!(cache.prepend(&key, "-").await.unwrap());
            assert_eq!(cache.get(&key).await.unwrap().unwrap().value, format!("-{key}+"));
        });
    }
    callers.join_all().await;
}

#[tokio::test]
async fn a_delayed_flush_comes_late_and_never_at_once() {
    let (_server, cache) = memcached().await;
    cache.set("k", "v", MINUTE).await.unwrap();
    for delay in [
        Duration::from_secs(30 * 86_400 + 1),
        Duration::from_secs(30 * 86_400) + Duration::from_nanos(1),
        Duration::MAX,
    ] {
        let error = cache.flush_all_after(delay).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::InvalidTtl, Delivery::NotSent));
    }
    for delay in [Duration::from_secs(30 * 86_400), Duration::from_secs(3600)] {
        let outcomes = cache.flush_all_after(delay).await.unwrap();
        assert!(outcomes.len() == 1 && outcomes[0].1.is_ok());
        assert!(value(&cache, "k").await.is_some(), "{delay:?}");
    }
    assert!(cache.flush_all_after(Duration::from_millis(1_100)).await.unwrap()[0].1.is_ok());
    eventually("it is flushed", async || value(&cache, "k").await.is_none()).await;
    // As real servers have it, whatever is written within the second of the flush may be gone with it.
    eventually("what is written later stays", async || {
        cache.set("later", "v", MINUTE).await.unwrap();
        value(&cache, "later").await.is_some()
    })
    .await;
    assert!(cache.flush_all_after(Duration::ZERO).await.unwrap()[0].1.is_ok());
    assert_eq!(value(&cache, "later").await, None);
}

#[tokio::test]
async fn limits_and_verbosity_are_set_on_every_node_and_a_refusal_costs_nothing() {
    let (server, cache) = memcached().await;
    let peer = connection_of(&cache).await;
    let outcomes = cache.cache_memlimit(100).await;
    assert_eq!(outcomes.len(), 1);
    outcomes[0].1.as_ref().unwrap();
    let looked = stat(server.addr(), "limit_maxbytes").await;
    assert_eq!(looked, 100 << 20);
    let refused = cache.cache_memlimit(1).await.remove(0).1.unwrap_err();
    assert_eq!((refused.kind(), refused.delivery()), (ErrorKind::Server, Delivery::Answered));
    assert!(refused.to_string().contains("MEMLIMIT_TOO_SMALL"), "{refused}");
    for level in [1, 0] {
        assert!(cache.set_verbosity(level).await.iter().all(|(_, outcome)| outcome.is_ok()));
    }
    cache.set("k", "v", MINUTE).await.unwrap();
    // The look at the limit was one more connection to the server, and ours are the same.
    assert_eq!(connection_of(&cache).await, peer + 1);
}
