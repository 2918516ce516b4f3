//! Namespaces and long keys.

use memring::{ErrorKind, LongKeys, Origin};

use crate::scripted::{never_reply, scripted_server};
use crate::support::{
    DEFAULT_TIMEOUT, LONG_TIMEOUT, MINUTE, client_builder, eventually, fast_polling, memcached, service,
    service_client, service_client_builder, within,
};

#[tokio::test]
async fn every_command_of_a_namespace_uses_the_prefixed_key() {
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
    assert_eq!(
        found.hits.iter().map(|(key, _)| *key).collect::<Vec<_>>(),
        ["k", "k"],
        "hits must have the caller's keys"
    );
    assert_eq!(cache.get("tenant:k").await.unwrap().unwrap().value, "6");
    assert!(space.delete("k").await.unwrap());
    assert_eq!(cache.get("tenant:k").await.unwrap(), None);
    assert_eq!(cache.get("k").await.unwrap().unwrap().value, "outside");
}

/// Servers look for `noreply` at the end of a line. A server that mistook a key for it would not reply, and the client
/// would match the reply to the next command.
#[tokio::test]
async fn words_of_the_protocol_are_valid_keys() {
    let (_server, cache) = memcached().await;
    for word in ["noreply", "get", "0", "END", "STORED", "VALUE", "mn", "b", "q", "k", "NOREPLY"] {
        let get_and_delete =
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
        assert_eq!(get_and_delete(word).await, (Some("7".into()), true));
        assert_eq!(get_and_delete("other").await, (Some("8".into()), true));
        let deleted = cache.delete_many(["other", word, "absent"]).await;
        assert!(deleted.not_found.len() == 3, "{word}");
    }
}

#[tokio::test]
async fn namespaces_nest_and_keep_their_own_request_timeout() {
    let (_server, cache) = memcached().await;
    let inner = cache.namespace("a:").unwrap().with_request_timeout(MINUTE).namespace("b:").unwrap();
    inner.set("k", "v", MINUTE).await.unwrap();
    assert_eq!(cache.get("a:b:k").await.unwrap().unwrap().value, "v");
    let cache = client_builder(scripted_server(never_reply).await).connect().await.unwrap();
    let space = cache.with_request_timeout(DEFAULT_TIMEOUT).namespace("a:").unwrap();
    assert_eq!(within(DEFAULT_TIMEOUT, space.get("k")).await.unwrap_err().kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn placement_and_length_limit_apply_to_the_prefixed_key() {
    let service = service(3).await;
    let cache = service_client(&service, fast_polling()).await;
    let space = cache.namespace("tenant:").unwrap();
    for n in 0..100 {
        let (key, full_key) = (format!("key-{n}"), format!("tenant:key-{n}"));
        assert_eq!(space.node_for(&key).unwrap(), cache.node_for(&full_key).unwrap());
        space.set(&key, full_key.clone(), MINUTE).await.unwrap();
        assert_eq!(cache.get(&full_key).await.unwrap().unwrap().value, full_key);
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
async fn long_keys_that_differ_only_at_their_end_are_different_items() {
    let service = service(3).await;
    for long_keys in [LongKeys::Sha256, LongKeys::Dalli] {
        let builder = service_client_builder(&service, fast_polling()).request_timeout(LONG_TIMEOUT);
        let cache = builder.long_keys(long_keys).connect().await.unwrap();
        let space = cache.namespace("tenant:").unwrap();
        let start = "k".repeat(300);
        let keys: Vec<String> = (0..50).map(|n| format!("{start}{n}")).collect();
        for key in &keys {
            cache.set(key, format!("outside {key}"), MINUTE).await.unwrap();
            space.set(key, format!("inside {key}"), MINUTE).await.unwrap();
        }
        for (view, place) in [(&cache, "outside"), (&space, "inside")] {
            let found = view.get_many(&keys).await;
            assert_eq!(found.hits.len(), 50);
            assert!(found.hits.iter().all(|(key, item)| item.value == format!("{place} {key}")));
        }
        let error = cache.get(format!("{start}\r\nflush_all\r\n")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidKey);
        assert_eq!(cache.flush_all().await.len(), 3);
    }
}

#[tokio::test]
async fn a_long_key_is_stored_under_its_prefix_and_digest() {
    let service = service(3).await;
    let builder = service_client_builder(&service, fast_polling()).request_timeout(LONG_TIMEOUT);
    let cache = builder.long_keys(LongKeys::Sha256).connect().await.unwrap();
    let long = "k".repeat(251);
    let short = format!("{}:sha256:3b8059c637939a483bdc7beef09f11b566581be6d14e25083b3041b77717de02", "k".repeat(178));
    cache.set(&long, "v", MINUTE).await.unwrap();
    assert_eq!(cache.node_for(&long).unwrap(), cache.node_for(&short).unwrap());
    assert_eq!(cache.get(&short).await.unwrap().unwrap().value, "v");
    let found = cache.get_many([&short, &long]).await;
    assert_eq!(
        found.hits.iter().map(|(key, _)| *key).collect::<Vec<_>>(),
        [&short, &long],
        "both keys are the same on the wire"
    );
}

#[tokio::test]
async fn a_fetch_in_a_namespace_uses_the_prefixed_key() {
    let (_server, cache) = memcached().await;
    let space = cache.namespace("tenant:").unwrap();
    let fetched = space.fetch("k", MINUTE, || async { Ok::<_, &str>("value") }).await.unwrap();
    assert_eq!(fetched.origin, Origin::Computed);
    assert_eq!(cache.get("tenant:k").await.unwrap().unwrap().value, "value");
    assert_eq!(cache.get("k").await.unwrap(), None);
    assert!(space.invalidate("k", MINUTE).await.unwrap());
    eventually("the item is renewed", async || {
        let fetched = space.fetch("k", MINUTE, || async { Ok::<_, &str>("new") }).await.unwrap();
        fetched.value == "new"
    })
    .await;
}
