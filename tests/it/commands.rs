//! The classic commands on one key, against a real memcached.

use std::time::Duration;

use memring::{CasOutcome, Delivery, Error, ErrorKind, Item, SetOptions, Ttl};
use tokio::task::JoinSet;

use crate::support::{MINUTE, connections_opened, eventually, memcached, value_of};

#[tokio::test]
async fn a_get_returns_exactly_the_bytes_and_flags_of_the_set() {
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
async fn values_of_every_size_are_stored_and_returned() {
    let (_server, cache) = memcached().await;
    for size in [1, 100, 1_000, 8_191, 8_192, 8_193, 16_384, 100_000, 1_000_000] {
        let value: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        cache.set("k", value.clone(), MINUTE).await.unwrap();
        assert_eq!(cache.get("k").await.unwrap().unwrap().value, value, "{size}");
    }
}

#[tokio::test]
async fn keys_of_every_length_and_of_any_utf8_are_stored_and_returned() {
    let (_server, cache) = memcached().await;
    let longest = "k".repeat(250);
    for key in ["k", "ключ", "a:b/c?d=e&f", &"k".repeat(62), &"k".repeat(63), &longest] {
        cache.set(key, key.to_owned(), MINUTE).await.unwrap();
        assert_eq!(cache.get(key).await.unwrap().unwrap().value, key.as_bytes(), "{key}");
    }
    assert_eq!(cache.get(&longest[1..]).await.unwrap(), None);
}

#[tokio::test]
async fn invalid_keys_are_refused_by_every_command_before_anything_is_sent() {
    let (_server, cache) = memcached().await;
    cache.set("witness", "here", MINUTE).await.unwrap();
    let unique = cache.gets("witness").await.unwrap().unwrap().cas.unwrap();
    let long = "k".repeat(251);
    for bad in ["", " ", "a b", "a\r\nflush_all\r\n", "a\nb", "a\0b", "a\x7fb", &long] {
        let outcomes = [
            cache.get(bad).await.map(|_| ()),
            cache.gets(bad).await.map(|_| ()),
            // With a bad key, the server would run the value as a command.
            cache.set(bad, "flush_all", MINUTE).await,
            cache.add(bad, "flush_all", MINUTE).await.map(|_| ()),
            cache.replace(bad, "flush_all", MINUTE).await.map(|_| ()),
            cache.append(bad, "flush_all").await.map(|_| ()),
            cache.prepend(bad, "flush_all").await.map(|_| ()),
            cache.cas(bad, unique, "flush_all", MINUTE).await.map(|_| ()),
            cache.get_and_touch(bad, MINUTE).await.map(|_| ()),
            cache.gets_and_touch(bad, MINUTE).await.map(|_| ()),
            cache.delete(bad).await.map(|_| ()),
            cache.touch(bad, MINUTE).await.map(|_| ()),
            cache.incr(bad, 1).await.map(|_| ()),
            cache.decr(bad, 1).await.map(|_| ()),
            cache.node_for(bad).map(|_| ()),
        ];
        for (command, outcome) in outcomes.into_iter().enumerate() {
            let error = outcome.unwrap_err();
            let expected = (ErrorKind::InvalidKey, Delivery::NotSent);
            assert_eq!((error.kind(), error.delivery()), expected, "{bad:?}, command {command}");
        }
        let both = [bad, "witness"];
        for found in [
            cache.get_many(both).await,
            cache.gets_many(both).await,
            cache.get_and_touch_many(both, MINUTE).await,
            cache.gets_and_touch_many(both, MINUTE).await,
        ] {
            assert_eq!(found.hits.len(), 1, "{bad:?} must not affect the valid key");
            assert_eq!((found.errors.len(), &found.errors[0].keys[..]), (1, &[bad][..]));
            assert_eq!(found.errors[0].error.kind(), ErrorKind::InvalidKey);
        }
    }
    assert_eq!(cache.get("witness").await.unwrap().unwrap().value, "here");
}

#[tokio::test]
async fn add_replace_and_delete_return_whether_they_changed_the_item() {
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
async fn append_and_prepend_join_exact_bytes_and_keep_the_flags() {
    let (_server, cache) = memcached().await;
    assert!(!cache.append("k", "x").await.unwrap());
    assert!(!cache.prepend("k", "x").await.unwrap());
    assert_eq!(value_of(&cache, "k").await, None);
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
async fn a_cas_stores_only_if_the_cas_unique_is_current() {
    let (_server, cache) = memcached().await;
    cache.set("k", "1", MINUTE).await.unwrap();
    let unique = async || cache.gets("k").await.unwrap().unwrap().cas.unwrap();
    let first = unique().await;
    let body = "\r\nVALUE k 0 1\r\n";
    assert_eq!(cache.cas("k", first, body, SetOptions::from(MINUTE).flags(9)).await.unwrap(), CasOutcome::Stored);
    let item = cache.get("k").await.unwrap().unwrap();
    assert_eq!((&item.value[..], item.flags), (body.as_bytes(), 9));
    // The unique is outdated by the client's own write, then by an append.
    assert_eq!(cache.cas("k", first, "2", MINUTE).await.unwrap(), CasOutcome::Changed);
    let second = unique().await;
    assert_ne!(second, first);
    assert!(cache.append("k", "!").await.unwrap());
    assert_eq!(cache.cas("k", second, "2", MINUTE).await.unwrap(), CasOutcome::Changed);
    assert_eq!(value_of(&cache, "k").await.unwrap(), [body, "!"].concat().as_bytes());
    let third = unique().await;
    assert!(cache.delete("k").await.unwrap());
    assert_eq!(cache.cas("k", third, "2", MINUTE).await.unwrap(), CasOutcome::Missing);
    assert_eq!(value_of(&cache, "k").await, None);
    let error = cache.cas("k", third, "2", Duration::ZERO).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::InvalidTtl, Delivery::NotSent));
}

#[tokio::test]
async fn concurrent_cas_loops_lose_no_change() {
    let (_server, cache) = memcached().await;
    cache.set("list", "", MINUTE).await.unwrap();
    let mut writers = JoinSet::new();
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
    let mut list = value_of(&cache, "list").await.unwrap();
    list.sort_unstable();
    assert_eq!(list, (0..20).collect::<Vec<u8>>());
}

#[tokio::test]
async fn gets_returns_a_cas_unique_that_changes_with_the_item() {
    let (_server, cache) = memcached().await;
    cache.set("k", "1", MINUTE).await.unwrap();
    let first = cache.gets("k").await.unwrap().unwrap().cas;
    assert!(first.is_some());
    assert_eq!(cache.gets("k").await.unwrap().unwrap().cas, first);
    cache.set("k", "2", MINUTE).await.unwrap();
    assert_ne!(cache.gets("k").await.unwrap().unwrap().cas, first);
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
async fn a_number_padded_after_losing_digits_can_still_be_counted() {
    let (_server, cache) = memcached().await;
    cache.set("n", "100", MINUTE).await.unwrap();
    assert_eq!(cache.decr("n", 95).await.unwrap(), Some(5));
    let padded = value_of(&cache, "n").await.unwrap();
    assert_eq!(padded.trim_ascii_end(), b"5");
    assert_eq!(cache.incr("n", 2).await.unwrap(), Some(7));
    assert_eq!(cache.decr("n", 7).await.unwrap(), Some(0));
}

#[tokio::test]
async fn incr_of_text_fails_and_the_connection_stays_open() {
    let (_server, cache) = memcached().await;
    cache.set("text", "abc", MINUTE).await.unwrap();
    let connections = connections_opened(&cache).await;
    let error = cache.incr("text", 1).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Server, Delivery::Answered));
    assert!(error.to_string().contains("non-numeric"), "{error}");
    assert_eq!(cache.get("text").await.unwrap().unwrap().value, "abc");
    assert_eq!(connections_opened(&cache).await, connections);
}

#[tokio::test]
async fn items_expire_unless_touch_extends_their_ttl() {
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
async fn a_ttl_over_thirty_days_does_not_expire_at_once_and_an_impossible_ttl_is_refused() {
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
async fn get_and_touch_returns_the_item_and_sets_its_ttl() {
    let (_server, cache) = memcached().await;
    let second = Duration::from_secs(1);
    let options = SetOptions::from(Duration::from_secs(3)).flags(5);
    for key in ["brief", "extended", "endless", "in-batch"] {
        cache.set(key, "END\r\n", options).await.unwrap();
    }
    let cas_of_hit = |found: Result<Option<Item>, Error>| {
        let item = found.unwrap().unwrap();
        assert_eq!((&item.value[..], item.flags), (&b"END\r\n"[..], 5));
        item.cas
    };
    let unique = cas_of_hit(cache.gets("extended").await);
    assert_eq!(cas_of_hit(cache.get_and_touch("endless", Ttl::NEVER).await), None);
    assert_eq!(cas_of_hit(cache.gets_and_touch("extended", MINUTE).await), unique);
    assert_eq!(cache.get_and_touch_many(["in-batch", "absent"], Duration::from_secs(40 * 86_400)).await.hits.len(), 1);
    assert_eq!(cache.get_and_touch("absent", MINUTE).await.unwrap(), None);
    assert_eq!(value_of(&cache, "absent").await, None);
    eventually("the item without a touch expires", async || value_of(&cache, "brief").await.is_none()).await;
    tokio::time::sleep(second).await;
    for key in ["extended", "endless", "in-batch"] {
        assert!(value_of(&cache, key).await.is_some(), "{key}");
    }
    // A touch can also shorten the TTL.
    assert!(cache.get_and_touch("endless", second).await.unwrap().is_some());
    eventually("the item expires", async || value_of(&cache, "endless").await.is_none()).await;
    for ttl in [Duration::ZERO, Duration::MAX] {
        let error = cache.get_and_touch("extended", ttl).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::InvalidTtl, Delivery::NotSent));
        let found = cache.gets_and_touch_many(["extended", "a b"], ttl).await;
        assert_eq!((found.hits.len(), found.errors.len()), (0, 1));
        assert_eq!(
            (found.errors[0].error.kind(), &found.errors[0].keys[..]),
            (ErrorKind::InvalidTtl, &["extended", "a b"][..])
        );
        assert!(cache.get_and_touch_many([] as [&str; 0], ttl).await.is_complete());
    }
}

#[tokio::test]
async fn get_and_touch_many_of_hundreds_of_long_keys_answers_each_key() {
    let (_server, cache) = memcached().await;
    let keys: Vec<String> = (0..700).map(|n| format!("{n:03}").repeat(60 + n % 23)).collect();
    for key in keys.iter().step_by(2) {
        cache.set(key, format!("value of {key}\r\n"), MINUTE).await.unwrap();
    }
    let connections = connections_opened(&cache).await;
    let requested = keys.iter().chain([&keys[0]]);
    let (touched, touched_with_cas, with_cas, single) = tokio::join!(
        cache.get_and_touch_many(requested.clone(), MINUTE),
        cache.gets_and_touch_many(requested.clone(), Ttl::NEVER),
        cache.gets_many(requested),
        cache.gets_and_touch(&keys[2], MINUTE),
    );
    for (found, has_cas) in [(touched, false), (touched_with_cas, true), (with_cas, true)] {
        assert!(found.is_complete(), "{:?}", found.errors[0].error);
        let hits: Vec<_> = found.hits.iter().map(|(key, _)| *key).collect();
        assert_eq!(hits, keys.iter().step_by(2).chain([&keys[0]]).collect::<Vec<_>>());
        for (key, item) in found.hits {
            assert_eq!((item.value, item.cas.is_some()), (format!("value of {key}\r\n").into(), has_cas));
        }
    }
    assert!(single.unwrap().unwrap().cas.is_some());
    assert_eq!(connections_opened(&cache).await, connections);
}

#[tokio::test]
async fn a_thousand_concurrent_callers_each_get_their_own_value() {
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

#[tokio::test]
async fn concurrent_callers_of_mixed_commands_each_get_their_own_replies() {
    let (_server, cache) = memcached().await;
    let mut callers = JoinSet::new();
    for n in 0..200 {
        let cache = cache.clone();
        callers.spawn(async move {
            let key = format!("key-{n}");
            cache.set(&key, key.clone(), MINUTE).await.unwrap();
            let ttl = Duration::from_secs(60 + n % 3);
            let unique = cache.gets_and_touch(&key, ttl).await.unwrap().unwrap().cas.unwrap();
            assert_eq!(cache.get_and_touch(&key, ttl).await.unwrap().unwrap().value, key);
            assert!(cache.append(&key, "+").await.unwrap());
            assert_eq!(cache.cas(&key, unique, "lost", MINUTE).await.unwrap(), CasOutcome::Changed);
            assert_eq!(cache.get_and_touch(format!("absent-{n}"), ttl).await.unwrap(), None);
            assert!(cache.prepend(&key, "-").await.unwrap());
            assert_eq!(cache.get(&key).await.unwrap().unwrap().value, format!("-{key}+"));
        });
    }
    callers.join_all().await;
}
