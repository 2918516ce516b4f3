//! Keys of any bytes.

use std::collections::HashSet;

use memring::meta::{Arithmetic, Delete, Get, Set, TimeLeft};
use memring::testing::Memcached;
use memring::{CasOutcome, Client, Counter, Delivery, ErrorKind, Origin, Ring, SetOptions};

use crate::support::{
    LONG_TIMEOUT, MINUTE, Version, client_builder, fast_polling, memcached, memcached_at_least, server_version,
    service, service_client_builder,
};

async fn binary_client(server: &Memcached) -> Client {
    client_builder(server.addr()).binary_keys(true).connect().await.unwrap()
}

#[tokio::test]
async fn every_command_accepts_keys_of_any_bytes() {
    let Some((server, text_client)) = memcached_at_least(Version::META).await else { return };
    let cache = binary_client(&server).await;
    text_client.set("witness", "here", MINUTE).await.unwrap();
    let longest = [b' '; 186];
    for key in [&b"two words"[..], b"a\r\nflush_all\r\n", b"\0", b"\xff \xff", b" ", b"\x7f", b"witness\n", &longest] {
        assert!(cache.get(key).await.unwrap().is_none() && !cache.delete(key).await.unwrap());
        assert!(!cache.replace(key, "x", MINUTE).await.unwrap() && !cache.append(key, "x").await.unwrap());
        assert!(!cache.prepend(key, "x").await.unwrap() && !cache.touch(key, MINUTE).await.unwrap());
        assert_eq!(cache.incr(key, 1).await.unwrap(), None);
        assert!(cache.add(key, "2", MINUTE).await.unwrap() && !cache.add(key, "x", MINUTE).await.unwrap());
        assert!(cache.append(key, "3").await.unwrap() && cache.prepend(key, "1").await.unwrap());
        assert_eq!(cache.get(key).await.unwrap().unwrap().value, "123");
        assert_eq!((cache.incr(key, 7).await.unwrap(), cache.decr(key, 131).await.unwrap()), (Some(130), Some(0)));
        assert!(cache.replace(key, "r", SetOptions::from(MINUTE).flags(7)).await.unwrap());
        assert!(cache.touch(key, MINUTE).await.unwrap());
        let item = cache.gets(key).await.unwrap().unwrap();
        assert_eq!((&item.value[..], item.flags), (&b"r"[..], 7));
        let unique = item.cas.unwrap();
        assert_eq!(cache.gets_and_touch(key, 10 * MINUTE).await.unwrap().unwrap().value, "r");
        let left = cache.meta_get(key, Get::new().ttl_left()).await.unwrap().unwrap().ttl_left;
        assert!(left > Some(TimeLeft::Finite(MINUTE)) && left < Some(TimeLeft::Unlimited), "{left:?}");
        assert_eq!(cache.cas(key, unique, "flush_all\r\n", MINUTE).await.unwrap(), CasOutcome::Stored);
        assert_eq!(cache.cas(key, unique, "x", MINUTE).await.unwrap(), CasOutcome::Changed);
        assert_eq!(cache.get_and_touch(key, MINUTE).await.unwrap().unwrap().value, "flush_all\r\n");
        cache.set(key, "", MINUTE).await.unwrap();
        assert!(cache.get(key).await.unwrap().unwrap().value.is_empty());
        assert_eq!(cache.set(key, vec![0; (1 << 20) + 1], MINUTE).await.unwrap_err().kind(), ErrorKind::TooLarge);
        assert!(cache.delete(key).await.unwrap());
        assert_eq!(cache.cas(key, unique, "x", MINUTE).await.unwrap(), CasOutcome::Missing);

        let stored = cache.meta_set(key, "m", Set::new(MINUTE).key()).await.unwrap();
        assert!(stored.is_done() && stored.key.as_deref() == Some(key), "the reply must have the key, not its base64");
        let item = cache.meta_get(key, Get::new().value().key()).await.unwrap().unwrap();
        assert_eq!((item.value.as_deref(), item.key.as_deref()), (Some(&b"m"[..]), Some(key)));
        assert_eq!(cache.meta_debug(key).await.unwrap_err().kind(), ErrorKind::InvalidKey);
        assert!(cache.meta_delete(key, Delete::new().key()).await.unwrap().is_done());
        let number = cache.meta_arithmetic(key, Arithmetic::incr(1).create(4, MINUTE)).await.unwrap();
        assert_eq!(number.value, Some(4));
        assert_eq!(cache.count_up(key, 1, Counter::new(1, MINUTE)).await.unwrap(), 5);
        assert_eq!(cache.update(key, MINUTE, |old| old.map(|_| "u")).await.unwrap().unwrap(), "u");
        assert!(cache.invalidate(key, MINUTE).await.unwrap());
        assert_eq!(cache.take(key).await.unwrap().unwrap().value, "u");
        let fetched = cache.fetch(key, MINUTE, || async { Ok::<_, &str>("f") }).await.unwrap();
        assert_eq!(fetched.origin, Origin::Computed);
        assert_eq!(cache.get(key).await.unwrap().unwrap().value, "f");
    }
    for (key, reason) in [(&[b' '; 187][..], "187"), (b"", "empty")] {
        let error = cache.set(key, "flush_all", MINUTE).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::InvalidKey, Delivery::NotSent));
        assert!(std::error::Error::source(&error).unwrap().to_string().contains(reason), "{error:?}");
    }
    assert_eq!(text_client.get("witness").await.unwrap().unwrap().value, "here");
}

#[tokio::test]
async fn text_keys_are_sent_unchanged_by_a_client_with_binary_keys() {
    let (server, text_client) = memcached().await;
    let cache = binary_client(&server).await;
    let longest = "k".repeat(250);
    for key in ["k", "AAA=", &longest] {
        cache.set(key, "v", MINUTE).await.unwrap();
        assert_eq!(text_client.get(key).await.unwrap().unwrap().value, "v");
    }
    assert_eq!(cache.get("k".repeat(251)).await.unwrap_err().kind(), ErrorKind::InvalidKey);
    if server_version(server.addr()).await < Version::META {
        let error = cache.set("a b", "flush_all", MINUTE).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Unsupported, Delivery::NotSent));
    } else {
        // A text key that looks like base64 is another item than the key of the decoded bytes.
        cache.set("\0\0", "binary", MINUTE).await.unwrap();
        assert_eq!(cache.get("AAA=").await.unwrap().unwrap().value, "v");
        assert_eq!(cache.get("\0\0").await.unwrap().unwrap().value, "binary");
    }
}

#[tokio::test]
async fn binary_keys_are_refused_by_default_and_always_by_batches() {
    let (server, text_client) = memcached().await;
    let cache = binary_client(&server).await;
    assert_eq!(text_client.set("a b", "x", MINUTE).await.unwrap_err().kind(), ErrorKind::InvalidKey);
    assert_eq!(text_client.node_for("a b").unwrap_err().kind(), ErrorKind::InvalidKey);
    cache.set("text", "x", MINUTE).await.unwrap();
    let found = cache.get_many(["a b", "text"]).await;
    assert_eq!((found.hits.len(), found.errors.len(), found.errors[0].error.kind()), (1, 1, ErrorKind::InvalidKey));
    let written = cache.set_many([("a b", "x"), ("text", "y")], MINUTE).await;
    assert_eq!((written.done, written.errors[0].error.kind()), (vec!["text"], ErrorKind::InvalidKey));
}

#[tokio::test]
async fn placement_depends_on_the_bytes_of_the_key_and_its_namespace() {
    let service = service(3).await;
    let builder = service_client_builder(&service, fast_polling()).request_timeout(LONG_TIMEOUT);
    let cache = builder.binary_keys(true).connect().await.unwrap();
    let space = cache.namespace("tenant:").unwrap();
    let nodes = cache.topology().nodes;
    let ring = Ring::new(nodes.iter().map(|node| &node.id)).unwrap();
    let (server, _) = memcached().await;
    let has_meta = server_version(server.addr()).await >= Version::META;
    let mut owners = HashSet::new();
    for n in 0..60 {
        let (key, full_key) = (format!("key {n}\0"), format!("tenant:key {n}\0"));
        assert_eq!(space.node_for(&key).unwrap(), cache.node_for(&full_key).unwrap());
        assert_eq!(cache.node_for(&key).unwrap().to_string(), ring.node_for(&key).unwrap().label());
        owners.insert(cache.node_for(&key).unwrap());
        if has_meta {
            space.set(&key, full_key.clone(), MINUTE).await.unwrap();
            assert_eq!(cache.get(&full_key).await.unwrap().unwrap().value, full_key);
            assert_eq!(cache.get(&key).await.unwrap(), None);
            let item = space.meta_get(&key, Get::new().value().key()).await.unwrap().unwrap();
            assert_eq!(item.key.unwrap(), full_key.as_bytes(), "the reply has the key with its namespace");
        }
    }
    assert_eq!(owners.len(), 3);
    let error = space.set([b' '; 180], "x", MINUTE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidKey, "the length limit includes the namespace");
}

#[tokio::test]
async fn every_command_accepts_keys_of_any_bytes_in_a_namespace() {
    let (server, text_client) = memcached().await;
    let cache = binary_client(&server).await;
    let key: &[u8] = b"a b\r\n\0\xff";
    if server_version(server.addr()).await < Version::META {
        assert_eq!(cache.get(key).await.unwrap_err().kind(), ErrorKind::Unsupported);
        return;
    }
    let space = cache.namespace("tenant:").unwrap();
    let full_key = [b"tenant:", key].concat();
    assert_eq!(space.node_for(key).unwrap(), cache.node_for(&full_key).unwrap());
    assert_eq!(text_client.get(key).await.unwrap_err().kind(), ErrorKind::InvalidKey);

    assert_eq!(space.get(key).await.unwrap(), None);
    assert!(space.add(key, "1", SetOptions::from(MINUTE).flags(7)).await.unwrap());
    assert!(!space.add(key, "2", MINUTE).await.unwrap());
    let item = space.gets(key).await.unwrap().unwrap();
    assert_eq!((&item.value[..], item.flags), (&b"1"[..], 7));
    assert_eq!(cache.get(&full_key).await.unwrap().unwrap().value, "1");
    assert_eq!(cache.get(key).await.unwrap(), None);
    assert_eq!(space.incr(key, 5).await.unwrap(), Some(6));
    assert_eq!(space.cas(key, item.cas.unwrap(), "x", MINUTE).await.unwrap(), CasOutcome::Changed);
    assert!(space.replace(key, "b", MINUTE).await.unwrap());
    assert!(space.append(key, "c").await.unwrap() && space.prepend(key, "a").await.unwrap());
    assert!(space.touch(key, MINUTE).await.unwrap());
    assert_eq!(cache.get_and_touch(&full_key, MINUTE).await.unwrap().unwrap().value, "abc");
    let items = space.meta_get_many([key, b"absent", key], Get::new().value().key()).await;
    let items: Vec<_> = items.into_iter().map(|(_, item)| item.unwrap()).collect();
    assert!(items[1].is_none());
    for item in [&items[0], &items[2]] {
        let item = item.as_ref().unwrap();
        assert_eq!((item.value.as_deref(), item.key.as_deref()), (Some(&b"abc"[..]), Some(&full_key[..])));
    }
    // The server would write the bytes of the key into its reply line.
    assert_eq!(space.meta_debug(key).await.unwrap_err().kind(), ErrorKind::InvalidKey);
    assert!(space.delete(key).await.unwrap());
    assert!(!space.touch(key, MINUTE).await.unwrap());
    assert_eq!(space.incr(key, 1).await.unwrap(), None);
    assert_eq!(space.cas(key, item.cas.unwrap(), "x", MINUTE).await.unwrap(), CasOutcome::Missing);
    assert_eq!(space.meta_arithmetic(key, Arithmetic::incr(1).create(3, MINUTE)).await.unwrap().value, Some(3));
    assert!(space.take(key).await.unwrap().is_some() && cache.get(&full_key).await.unwrap().is_none());

    let fetched = space.fetch(key, MINUTE, || async { Ok::<_, &str>("fetched") }).await.unwrap();
    assert_eq!(fetched.origin, Origin::Computed);
    assert_eq!(cache.get(&full_key).await.unwrap().unwrap().value, "fetched");
    // A touch or a get of a stale item leaves the renewal to the next fetch.
    assert!(space.invalidate(key, MINUTE).await.unwrap());
    assert!(space.touch(key, MINUTE).await.unwrap() && space.get(key).await.unwrap().is_some());
    let fetched = space.fetch(key, MINUTE, || async { Ok::<_, &str>("renewed") }).await.unwrap();
    assert_eq!((&fetched.value[..], fetched.origin), (&b"renewed"[..], Origin::Computed));
}
