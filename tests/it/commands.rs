//! Every command, against a real memcached.

use std::time::Duration;

use memring::{Client, Delivery, ErrorKind, SetOptions, Ttl};

use crate::support::{memcached, stat};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn set_and_get_are_byte_exact() {
    let (_server, cache) = memcached().await;
    let every_byte: Vec<u8> = (0..=255).collect();
    for value in [
        &b""[..],
        b"x",
        b"\r\n",
        b"END\r\n",
        b"flush_all\r\n",
        b"VALUE a 0 1\r\nx\r\nEND\r\n",
        b" trailing ",
        &every_byte,
    ] {
        cache.set("k", value.to_vec(), SetOptions::from(MINUTE).flags(u32::MAX)).await.unwrap();
        let item = cache.get("k").await.unwrap().unwrap();
        assert_eq!((&item.value[..], item.flags, item.cas), (value, u32::MAX, None));
    }
    assert_eq!(cache.get("absent").await.unwrap(), None);
}

#[tokio::test]
async fn values_of_every_size_round_trip() {
    let (_server, cache) = memcached().await;
    for size in [1, 100, 1_000, 8_191, 8_192, 8_193, 16_384, 100_000, 1_000_000] {
        let value: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        cache.set("k", value.clone(), MINUTE).await.unwrap();
        assert_eq!(cache.get("k").await.unwrap().unwrap().value, value, "{size}");
    }
}

#[tokio::test]
async fn keys_at_the_edges() {
    let (_server, cache) = memcached().await;
    let longest = "k".repeat(250);
    for key in ["k", "ключ", "a:b/c?d=e&f", &"k".repeat(62), &"k".repeat(63), &longest] {
        cache.set(key, key.to_owned(), MINUTE).await.unwrap();
        assert_eq!(cache.get(key).await.unwrap().unwrap().value, key.as_bytes(), "{key}");
    }
    assert_eq!(cache.get(&longest[1..]).await.unwrap(), None);
}

#[tokio::test]
async fn bad_keys_are_refused_at_every_door_and_nothing_is_sent() {
    let (_server, cache) = memcached().await;
    cache.set("witness", "here", MINUTE).await.unwrap();
    let version = cache.gets("witness").await.unwrap().unwrap().cas.unwrap();
    let long = "k".repeat(251);
    for bad in ["", " ", "a b", "a\r\nflush_all\r\n", "a\nb", "a\0b", "a\x7fb", &long] {
        let outcomes = [
            cache.get(bad).await.map(|_| ()),
            cache.gets(bad).await.map(|_| ()),
            // The value of a bad key's set would be run as a command.
            cache.set(bad, "flush_all", MINUTE).await,
            cache.add(bad, "flush_all", MINUTE).await.map(|_| ()),
            cache.replace(bad, "flush_all", MINUTE).await.map(|_| ()),
            cache.append(bad, "flush_all").await.map(|_| ()),
            cache.prepend(bad, "flush_all").await.map(|_| ()),
            cache.cas(bad, version, "flush_all", MINUTE).await.map(|_| ()),
            cache.get_and_touch(bad, MINUTE).await.map(|_| ()),
            cache.gets_and_touch(bad, MINUTE).await.map(|_| ()),
            cache.delete(bad).await.map(|_| ()),
            cache.touch(bad, MINUTE).await.map(|_| ()),
            cache.incr(bad, 1).await.map(|_| ()),
            cache.decr(bad, 1).await.map(|_| ()),
            cache.node_for(bad).map(|_| ()),
        ];
        for (door, outcome) in outcomes.into_iter().enumerate() {
            let error = outcome.unwrap_err();
            assert_eq!((error.kind(), error.delivery()), (ErrorKind::InvalidKey, Delivery::NotSent), "{bad:?} {door}");
        }
        let both = [bad, "witness"];
        for found in [
            cache.get_many(both).await,
            cache.gets_many(both).await,
            cache.get_and_touch_many(both, MINUTE).await,
            cache.gets_and_touch_many(both, MINUTE).await,
        ] {
            assert_eq!(found.hits.len(), 1, "{bad:?} spoils nothing but itself");
            assert_eq!((found.errors.len(), &found.errors[0].keys[..]), (1, &[bad][..]));
            assert_eq!(found.errors[0].error.kind(), ErrorKind::InvalidKey);
        }
    }
    assert_eq!(cache.get("witness").await.unwrap().unwrap().value, "here");
}

#[tokio::test]
async fn add_replace_and_delete_say_what_they_did() {
    let (_server, cache) = memcached().await;
    assert!(!cache.replace("k", "0", MINUTE).await.unwrap());
    assert!(cache.add("k", "1", MINUTE).await.unwrap());
    assert!(!cache.add("k", "2", MINUTE).await.unwrap());
    assert!(cache.replace("k", "3", MINUTE).await.unwrap());
    assert_eq!(cache.get("k").await.unwrap().unwrap().value, "3");
    assert!(cache.delete("k").await.unwrap());
    assert!(!cache.delete("k").await.unwrap());
    assert_eq!(cache.get("k").await.unwrap(), None);
}

#[tokio::test]
async fn incr_wraps_and_decr_stops_at_zero() {
    let (_server, cache) = memcached().await;
    assert_eq!(cache.incr("n", 1).await.unwrap(), None);
    cache.set("n", "10", MINUTE).await.unwrap();
    assert_eq!(cache.incr("n", 5).await.unwrap(), Some(15));
    assert_eq!(cache.decr("n", 6).await.unwrap(), Some(9));
    assert_eq!(cache.decr("n", u64::MAX).await.unwrap(), Some(0));
    cache.set("n", u64::MAX.to_string(), MINUTE).await.unwrap();
    assert_eq!(cache.incr("n", 2).await.unwrap(), Some(1));
}

#[tokio::test]
async fn arithmetic_on_text_is_refused_and_the_connection_stays() {
    let (_server, cache) = memcached().await;
    cache.set("text", "abc", MINUTE).await.unwrap();
    let peer = connection_of(&cache).await;
    let error = cache.incr("text", 1).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Server, Delivery::Answered));
    assert!(error.to_string().contains("non-numeric"), "{error}");
    assert_eq!(cache.get("text").await.unwrap().unwrap().value, "abc");
    assert_eq!(connection_of(&cache).await, peer);
}

#[tokio::test]
async fn items_expire_and_touch_gives_them_longer() {
    let (_server, cache) = memcached().await;
    cache.set("brief", "v", Duration::from_millis(300)).await.unwrap();
    cache.set("touched", "v", Duration::from_secs(1)).await.unwrap();
    cache.set("kept", "v", Ttl::NEVER).await.unwrap();
    assert!(cache.touch("touched", MINUTE).await.unwrap());
    assert!(cache.touch("kept", Ttl::NEVER).await.unwrap());
    assert!(!cache.touch("absent", MINUTE).await.unwrap());
    assert!(cache.get("brief").await.unwrap().is_some(), "a fraction of a second is rounded up");
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(cache.get("brief").await.unwrap(), None);
    assert!(cache.get("touched").await.unwrap().is_some());
    assert!(cache.get("kept").await.unwrap().is_some());
}

#[tokio::test]
async fn long_times_to_live_do_not_end_at_once() {
    let (_server, cache) = memcached().await;
    for days in [29, 30, 31, 365] {
        cache.set("k", "v", Duration::from_secs(days * 86_400)).await.unwrap();
        assert!(cache.get("k").await.unwrap().is_some(), "{days} days");
    }
    for (ttl, text) in [(Duration::ZERO, "zero"), (Duration::from_secs(1 << 31), "2038"), (Duration::MAX, "2038")] {
        let error = cache.set("k", "v", ttl).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::InvalidTtl, Delivery::NotSent));
        assert!(std::error::Error::source(&error).unwrap().to_string().contains(text));
        assert_eq!(cache.touch("k", ttl).await.unwrap_err().kind(), ErrorKind::InvalidTtl);
    }
}

#[tokio::test]
async fn gets_brings_a_version_that_changes_with_the_item() {
    let (_server, cache) = memcached().await;
    cache.set("k", "1", MINUTE).await.unwrap();
    let first = cache.gets("k").await.unwrap().unwrap().cas;
    assert!(first.is_some());
    assert_eq!(cache.gets("k").await.unwrap().unwrap().cas, first);
    cache.set("k", "2", MINUTE).await.unwrap();
    assert_ne!(cache.gets("k").await.unwrap().unwrap().cas, first);
}

#[tokio::test]
async fn version_and_flush_all_ask_every_node() {
    let (server, cache) = memcached().await;
    let versions = cache.versions().await;
    assert_eq!(versions.len(), 1);
    assert_eq!(versions[0].0.port(), server.addr().port());
    let version = versions[0].1.as_ref().unwrap();
    assert!(version.starts_with("1."), "{version}");
    cache.set("k", "v", MINUTE).await.unwrap();
    assert!(cache.flush_all().await.iter().all(|(_, outcome)| outcome.is_ok()));
    assert_eq!(cache.get("k").await.unwrap(), None);
}

#[tokio::test]
async fn a_value_over_the_clients_limit_is_not_sent() {
    let (_server, cache) = memcached().await;
    cache.set("k", "old", MINUTE).await.unwrap();
    let error = cache.set("k", vec![0; (1 << 20) + 1], MINUTE).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::TooLarge, Delivery::NotSent));
    assert_eq!(cache.get("k").await.unwrap().unwrap().value, "old");
}

#[tokio::test]
async fn a_value_over_the_servers_limit_fails_alone_and_the_connection_stays() {
    let (server, _) = memcached().await;
    let nodes = [server.addr().to_string()];
    let cache = Client::builder().nodes(nodes).max_value_size(8 << 20).connect().await.unwrap();
    cache.set("k", "old", MINUTE).await.unwrap();
    let peer = connection_of(&cache).await;
    // A body that would do harm if it were read as commands.
    let body = "flush_all\r\n".repeat(200_000);
    cache.set("witness", "here", MINUTE).await.unwrap();
    let (refused, get, set) =
        tokio::join!(cache.set("k", body, MINUTE), cache.get("witness"), cache.set("o", "v", MINUTE));
    let error = refused.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::TooLarge, Delivery::Answered));
    assert_eq!(get.unwrap().unwrap().value, "here");
    set.unwrap();
    assert_eq!(cache.get("witness").await.unwrap().unwrap().value, "here");
    assert_eq!(cache.get("k").await.unwrap(), None, "the server deletes what it refuses to replace");
    assert_eq!(connection_of(&cache).await, peer);
}

#[tokio::test]
async fn a_stored_value_over_the_clients_limit_fails_alone() {
    let (server, big) = memcached().await;
    big.set("big", vec![b'x'; 5_000], MINUTE).await.unwrap();
    big.set("small", "s", MINUTE).await.unwrap();
    let nodes = [server.addr().to_string()];
    let cache = Client::builder().nodes(nodes).max_value_size(1_000).connect().await.unwrap();
    let found = cache.get_many(["big", "small"]).await;
    assert_eq!(found.hits.len(), 1);
    assert_eq!(found.hits[0].1.value, "s");
    assert_eq!((found.errors[0].error.kind(), &found.errors[0].keys[..]), (ErrorKind::TooLarge, &["big"][..]));
}

#[tokio::test]
async fn a_thousand_callers_share_one_connection_and_each_gets_its_own() {
    let (_server, cache) = memcached().await;
    let tasks: Vec<_> = (0..1_000)
        .map(|n| {
            let cache = cache.clone();
            tokio::spawn(async move {
                let key = format!("key-{n}");
                for round in 0..5 {
                    let value = format!("{key}/{round}");
                    cache.set(&key, value.clone(), MINUTE).await.unwrap();
                    assert_eq!(cache.get(&key).await.unwrap().unwrap().value, value);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Tells one connection from another by the server's own count.
pub(crate) async fn connection_of(cache: &Client) -> u64 {
    let opened = stat(cache.topology().nodes[0].address.unwrap(), "total_connections").await;
    // This look at the server counts as one, too: what differs between two looks is what the client opened.
    LOOKS.with(|looks| {
        looks.set(looks.get() + 1);
        opened - looks.get()
    })
}

thread_local! {
    static LOOKS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

#[tokio::test]
async fn refusals_that_come_before_the_value_is_sent_keep_everybody_in_step() {
    let (server, _) = memcached().await;
    let builder = Client::builder().nodes([server.addr().to_string()]).max_value_size(8 << 20).connections_per_node(2);
    let cache = builder.request_timeout(Duration::from_secs(5)).connect().await.unwrap();
    let huge = bytes::Bytes::from(vec![b'x'; 6 << 20]);
    let mut callers = tokio::task::JoinSet::new();
    for n in 0..200 {
        let (cache, huge) = (cache.clone(), huge.clone());
        callers.spawn(async move {
            let key = format!("key-{n}");
            if n % 20 == 0 {
                let error = cache.set(&key, huge, MINUTE).await.unwrap_err();
                assert_eq!((error.kind(), error.delivery()), (ErrorKind::TooLarge, Delivery::Answered));
            } else {
                cache.set(&key, key.clone(), MINUTE).await.unwrap();
                assert_eq!(cache.get(&key).await.unwrap().unwrap().value, key);
            }
        });
    }
    while let Some(outcome) = callers.join_next().await {
        outcome.unwrap();
    }
}
