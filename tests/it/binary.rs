//! Keys of any bytes, and many meta gets at once.

use std::time::Duration;

use memring::meta::{Arithmetic, Delete, Get, Set, TimeLeft};
use memring::{CasOutcome, Client, Counter, Delivery, ErrorKind, Origin, Ring, SetOptions};

use crate::support::{NO_HURRY, Version, builder, memcached, memcached_from, quick, service, version_of};

const MINUTE: Duration = Duration::from_secs(60);

async fn binary(nodes: impl IntoIterator<Item = String>) -> Client {
    Client::builder().nodes(nodes).binary_keys(true).request_timeout(NO_HURRY).connect().await.unwrap()
}

#[tokio::test]
async fn every_command_takes_keys_of_any_bytes() {
    let Some((server, plain)) = memcached_from(Version::META).await else { return };
    let cache = binary([server.addr().to_string()]).await;
    plain.set("witness", "here", MINUTE).await.unwrap();
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
        let version = item.cas.unwrap();
        assert_eq!(cache.gets_and_touch(key, 10 * MINUTE).await.unwrap().unwrap().value, "r");
        let left = cache.meta_get(key, Get::new().ttl_left()).await.unwrap().unwrap().ttl_left;
        assert!(left > Some(TimeLeft::For(MINUTE)) && left < Some(TimeLeft::Ever), "{left:?}");
        assert_eq!(cache.cas(key, version, "flush_all\r\n", MINUTE).await.unwrap(), CasOutcome::Stored);
        assert_eq!(cache.cas(key, version, "x", MINUTE).await.unwrap(), CasOutcome::Changed);
        assert_eq!(cache.get_and_touch(key, MINUTE).await.unwrap().unwrap().value, "flush_all\r\n");
        cache.set(key, "", MINUTE).await.unwrap();
        assert!(cache.get(key).await.unwrap().unwrap().value.is_empty());
        assert_eq!(cache.set(key, vec![0; (1 << 20) + 1], MINUTE).await.unwrap_err().kind(), ErrorKind::TooLarge);
        assert!(cache.delete(key).await.unwrap());
        assert_eq!(cache.cas(key, version, "x", MINUTE).await.unwrap(), CasOutcome::Missing);

        let found = cache.meta_set(key, "m", Set::new(MINUTE).key()).await.unwrap();
        assert!(found.is_done() && found.key.as_deref() == Some(key), "the caller's key, not its base64");
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
    assert_eq!(plain.get("witness").await.unwrap().unwrap().value, "here");
}

#[tokio::test]
async fn keys_that_are_text_stay_what_they_are() {
    let (server, plain) = memcached().await;
    let cache = binary([server.addr().to_string()]).await;
    let longest = "k".repeat(250);
    for key in ["k", "AAA=", &longest] {
        cache.set(key, "v", MINUTE).await.unwrap();
        assert_eq!(plain.get(key).await.unwrap().unwrap().value, "v");
    }
    assert_eq!(cache.get("k".repeat(251)).await.unwrap_err().kind(), ErrorKind::InvalidKey);
    if version_of(server.addr()).await < Version::META {
        let error = cache.set("a b", "flush_all", MINUTE).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Unsupported, Delivery::NotSent));
    } else {
        // Neither is the other: what is stored is the bytes, not how they were written.
        cache.set("\0\0", "binary", MINUTE).await.unwrap();
        assert_eq!(cache.get("AAA=").await.unwrap().unwrap().value, "v");
        assert_eq!(cache.get("\0\0").await.unwrap().unwrap().value, "binary");
    }
}

#[tokio::test]
async fn they_are_refused_unless_asked_for_and_by_batches_always() {
    let (server, plain) = memcached().await;
    let cache = binary([server.addr().to_string()]).await;
    assert_eq!(plain.set("a b", "x", MINUTE).await.unwrap_err().kind(), ErrorKind::InvalidKey);
    assert_eq!(plain.node_for("a b").unwrap_err().kind(), ErrorKind::InvalidKey);
    cache.set("text", "x", MINUTE).await.unwrap();
    let found = cache.get_many(["a b", "text"]).await;
    assert_eq!((found.hits.len(), found.errors.len(), found.errors[0].error.kind()), (1, 1, ErrorKind::InvalidKey));
    let written = cache.set_many([("a b", "x"), ("text", "y")], MINUTE).await;
    assert_eq!((written.done, written.errors[0].error.kind()), (vec!["text"], ErrorKind::InvalidKey));
}

#[tokio::test]
async fn placement_goes_by_the_bytes_in_namespaces_too() {
    let service = service(3).await;
    let cache = builder(&service, quick()).request_timeout(NO_HURRY).binary_keys(true).connect().await.unwrap();
    let space = cache.namespace("tenant:").unwrap();
    let nodes = cache.topology().nodes;
    let ring = Ring::new(nodes.iter().map(|node| &node.id)).unwrap();
    let (probe, _) = memcached().await;
    let can = version_of(probe.addr()).await >= Version::META;
    let mut owners = std::collections::HashSet::new();
    for n in 0..60 {
        let (key, whole) = (format!("key {n}\0"), format!("tenant:key {n}\0"));
        assert_eq!(space.node_for(&key).unwrap(), cache.node_for(&whole).unwrap());
        assert_eq!(cache.node_for(&key).unwrap().to_string(), ring.node_for(&key).unwrap().label());
        owners.insert(cache.node_for(&key).unwrap());
        if can {
            space.set(&key, whole.clone(), MINUTE).await.unwrap();
            assert_eq!(cache.get(&whole).await.unwrap().unwrap().value, whole);
            assert_eq!(cache.get(&key).await.unwrap(), None);
            let item = space.meta_get(&key, Get::new().value().key()).await.unwrap().unwrap();
            assert_eq!(item.key.unwrap(), whole.as_bytes(), "as the server has it");
        }
    }
    assert_eq!(owners.len(), 3);
    let error = space.set([b' '; 180], "x", MINUTE).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidKey, "the whole is limited");
}

#[tokio::test]
async fn many_are_looked_at_each_with_an_outcome_of_its_own() {
    let Some((server, _)) = memcached_from(Version::META).await else { return };
    let (other, _) = memcached().await;
    let cache = binary([server.addr().to_string(), other.addr().to_string()]).await;
    assert!(cache.meta_get_many([] as [&str; 0], Get::new()).await.is_empty());
    let keys: Vec<String> = (0..1_000).map(|n| format!("key{}{n}", if n % 3 == 0 { " " } else { "-" })).collect();
    for (n, key) in keys.iter().enumerate().filter(|(n, _)| n % 2 == 0) {
        cache.set(key, n.to_string(), SetOptions::from(MINUTE).flags(n as u32)).await.unwrap();
    }
    let found = cache.meta_get_many(&keys, Get::new().value().flags().key().opaque("mine")).await;
    assert_eq!(found.len(), 1_000);
    for (n, (key, outcome)) in found.into_iter().enumerate() {
        assert_eq!(key, &keys[n]);
        let item = outcome.unwrap();
        assert_eq!(item.is_some(), n % 2 == 0, "{key}");
        let Some(item) = item else { continue };
        assert_eq!((item.value.unwrap(), item.flags), (n.to_string().into(), Some(n as u32)));
        assert_eq!((item.key.as_deref(), item.opaque), (Some(key.as_bytes()), None));
    }
    // Twice the same, and what is no key, in one call.
    let long = "k".repeat(251);
    let mixed = ["key 0", "", "key 0", &long, "absent", "key-2", "key 0"];
    let outcomes = cache.meta_get_many(mixed, Get::new().value()).await;
    let seen: Vec<_> = outcomes
        .into_iter()
        .map(|(_, outcome)| outcome.map(|item| item.map(|item| item.value.unwrap())).map_err(|error| error.kind()))
        .collect();
    let hit = |text: &'static str| Ok(Some(text.into()));
    let invalid = || Err(ErrorKind::InvalidKey);
    assert_eq!(seen, [hit("0"), invalid(), hit("0"), invalid(), Ok(None), hit("2"), hit("0")]);
    // Without anything asked for, only whether it is there.
    let there = cache.meta_get_many(["key 0", "absent"], Get::new()).await;
    assert_eq!(there.iter().map(|(_, outcome)| outcome.as_ref().unwrap().is_some()).collect::<Vec<_>>(), [true, false]);
}
