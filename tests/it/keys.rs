//! Namespaces and long keys.

use std::time::Duration;

use memring::{Client, ErrorKind, LongKeys};

use crate::support::{DEADLINE, NO_HURRY, builder, by, follow, memcached, quick, service};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn every_command_of_a_namespace_is_about_the_prefixed_key() {
    let (_server, cache) = memcached().await;
    let space = cache.namespace("tenant:").unwrap();
    cache.set("k", "outside", MINUTE).await.unwrap();

    assert_eq!(space.get("k").await.unwrap(), None);
    assert!(space.add("k", "1", MINUTE).await.unwrap());
    assert!(space.replace("k", "2", MINUTE).await.unwrap());
    assert_eq!(space.incr("k", 5).await.unwrap(), Some(7));
    assert_eq!(space.decr("k", 1).await.unwrap(), Some(6));
    assert!(space.touch("k", MINUTE).await.unwrap());
    assert!(space.gets("k").await.unwrap().unwrap().cas.is_some());
    let found = space.get_many(["k", "absent", "k"]).await;
    assert_eq!(found.hits.iter().map(|(key, _)| *key).collect::<Vec<_>>(), ["k", "k"], "the caller's own keys");
    assert_eq!(cache.get("tenant:k").await.unwrap().unwrap().value, "6");
    assert!(space.delete("k").await.unwrap());
    assert_eq!(cache.get("tenant:k").await.unwrap(), None);
    assert_eq!(cache.get("k").await.unwrap().unwrap().value, "outside");
}

/// Servers look for `noreply` at the end of a line, and one of them takes a key for it: its answer would never come, and
/// the next one would be taken for it.
#[tokio::test]
async fn words_of_the_protocol_are_keys_like_any_other() {
    let (_server, cache) = memcached().await;
    for word in ["noreply", "get", "0", "END", "STORED", "VALUE", "mn", "b", "q", "k", "NOREPLY"] {
        let both =
            async |key: &str| (cache.get(key).await.unwrap().map(|item| item.value), cache.delete(key).await.unwrap());
        assert!(!cache.delete(word).await.unwrap(), "{word}");
        cache.set(word, "5", MINUTE).await.unwrap();
        assert_eq!(cache.incr(word, 1).await.unwrap(), Some(6));
        assert!(cache.touch(word, MINUTE).await.unwrap() && cache.append(word, "0").await.unwrap());
        assert_eq!(cache.get_and_touch(word, MINUTE).await.unwrap().unwrap().value, "60");
        assert_eq!(cache.get_many(["absent", word]).await.hits.len(), 1);
        let (deleted, other) = tokio::join!(cache.delete(word), cache.delete("other"));
        assert!(deleted.unwrap() && !other.unwrap(), "{word}");
        cache.set_many([(word, "7"), ("other", "8")], MINUTE).await;
        assert_eq!(both(word).await, (Some("7".into()), true));
        assert_eq!(both("other").await, (Some("8".into()), true));
        let gone = cache.delete_many(["other", word, "absent"]).await;
        assert!(gone.not_found.len() == 3, "{word}");
    }
}

#[tokio::test]
async fn namespaces_nest_and_keep_a_deadline_of_their_own() {
    let (_server, cache) = memcached().await;
    let inner = cache.namespace("a:").unwrap().with_request_timeout(MINUTE).namespace("b:").unwrap();
    inner.set("k", "v", MINUTE).await.unwrap();
    assert_eq!(cache.get("a:b:k").await.unwrap().unwrap().value, "v");
    // The kernel takes the connection, and nobody answers on it.
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nodes = [mute.local_addr().unwrap().to_string()];
    let cache = Client::builder().nodes(nodes).request_timeout(NO_HURRY).connect().await.unwrap();
    let hasty = cache.with_request_timeout(DEADLINE).namespace("a:").unwrap();
    assert_eq!(by(DEADLINE, hasty.get("k")).await.unwrap_err().kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn the_whole_key_is_placed_and_the_whole_key_is_limited() {
    let service = service(3).await;
    let cache = follow(&service, quick()).await;
    let space = cache.namespace("tenant:").unwrap();
    for n in 0..100 {
        let (short, whole) = (format!("key-{n}"), format!("tenant:key-{n}"));
        assert_eq!(space.node_for(&short).unwrap(), cache.node_for(&whole).unwrap());
        space.set(&short, whole.clone(), MINUTE).await.unwrap();
        assert_eq!(cache.get(&whole).await.unwrap().unwrap().value, whole);
    }
    let longest = "k".repeat(243);
    space.set(&longest, "v", MINUTE).await.unwrap();
    assert_eq!(cache.get(format!("tenant:{longest}")).await.unwrap().unwrap().value, "v");
    for bad in ["", "a b", "a\r\nflush_all\r\n", &"k".repeat(244)] {
        assert_eq!(space.set(bad, "flush_all", MINUTE).await.unwrap_err().kind(), ErrorKind::InvalidKey, "{bad:?}");
    }
    for bad in ["", "a b", "a\r\n", &"k".repeat(201)] {
        assert_eq!(cache.namespace(bad).unwrap_err().kind(), ErrorKind::InvalidKey, "{bad:?}");
    }
    assert_eq!(space.namespace("k".repeat(194)).unwrap_err().kind(), ErrorKind::InvalidKey);
}

#[tokio::test]
async fn long_keys_go_by_their_digests() {
    let service = service(3).await;
    for how in [LongKeys::Sha256, LongKeys::Dalli] {
        let cache = builder(&service, quick()).request_timeout(NO_HURRY).long_keys(how).connect().await.unwrap();
        let space = cache.namespace("tenant:").unwrap();
        let beginning = "k".repeat(300);
        let keys: Vec<String> = (0..50).map(|n| format!("{beginning}{n}")).collect();
        for key in &keys {
            cache.set(key, format!("outside {key}"), MINUTE).await.unwrap();
            space.set(key, format!("inside {key}"), MINUTE).await.unwrap();
        }
        for (view, place) in [(&cache, "outside"), (&space, "inside")] {
            let found = view.get_many(&keys).await;
            assert_eq!(found.hits.len(), 50);
            assert!(found.hits.iter().all(|(key, item)| item.value == format!("{place} {key}")));
        }
        let error = cache.get(format!("{beginning}\r\nflush_all\r\n")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidKey);
        assert_eq!(cache.flush_all().await.len(), 3);
    }
}

#[tokio::test]
async fn a_long_key_is_the_short_key_that_stands_for_it() {
    let service = service(3).await;
    let cache =
        builder(&service, quick()).request_timeout(NO_HURRY).long_keys(LongKeys::Sha256).connect().await.unwrap();
    let long = "k".repeat(251);
    let short = format!("{}:sha256:3b8059c637939a483bdc7beef09f11b566581be6d14e25083b3041b77717de02", "k".repeat(178));
    cache.set(&long, "v", MINUTE).await.unwrap();
    assert_eq!(cache.node_for(&long).unwrap(), cache.node_for(&short).unwrap());
    assert_eq!(cache.get(&short).await.unwrap().unwrap().value, "v");
    let found = cache.get_many([&short, &long]).await;
    assert_eq!(
        found.hits.iter().map(|(key, _)| *key).collect::<Vec<_>>(),
        [&short, &long],
        "one key on the wire, twice"
    );
}
