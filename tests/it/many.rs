//! Many keys at once.

use std::time::Duration;

use memring::ErrorKind;

use crate::support::{DEADLINE, by, follow, memcached, quick, service, stat};

const MINUTE: Duration = Duration::from_secs(60);

/// How many keys the client's only server was asked for.
async fn gets_served(cache: &memring::Client) -> u64 {
    stat(cache.topology().nodes[0].address.unwrap(), "cmd_get").await
}

#[tokio::test]
async fn hits_come_by_the_callers_key_in_the_callers_order() {
    let service = service(3).await;
    let cache = follow(&service, quick()).await;
    for n in (0..300).filter(|n| n % 3 != 0) {
        cache.set(format!("key-{n}"), format!("value-{n}"), MINUTE).await.unwrap();
    }
    let keys: Vec<String> = (0..300).rev().map(|n| format!("key-{n}")).collect();
    let found = cache.get_many(keys.clone()).await;
    assert!(found.is_complete());
    let expected: Vec<_> =
        (0..300).rev().filter(|n| n % 3 != 0).map(|n| (format!("key-{n}"), format!("value-{n}"))).collect();
    let hits: Vec<_> =
        found.hits.iter().map(|(key, item)| (key.clone(), String::from_utf8(item.value.to_vec()).unwrap())).collect();
    assert_eq!(hits, expected);
    assert_eq!(found.into_map().len(), 200);
    let versioned = cache.gets_many(&keys).await;
    assert!(versioned.hits.iter().all(|(_, item)| item.cas.is_some()));
}

#[tokio::test]
async fn none_and_none_found_are_no_errors() {
    let (_server, cache) = memcached().await;
    let found = cache.get_many(Vec::<String>::new()).await;
    assert!(found.hits.is_empty() && found.is_complete());
    let found = cache.get_many((0..500).map(|n| format!("absent-{n}"))).await;
    assert!(found.hits.is_empty() && found.is_complete());
}

#[tokio::test]
async fn a_key_given_twice_is_answered_twice_and_asked_once() {
    let (_server, cache) = memcached().await;
    cache.set("a", "A", MINUTE).await.unwrap();
    let before = gets_served(&cache).await;
    let found = cache.get_many(["a", "b", "a", "a"]).await;
    assert_eq!(found.hits.iter().map(|(key, _)| *key).collect::<Vec<_>>(), ["a", "a", "a"]);
    assert!(found.hits.iter().all(|(_, item)| item.value == "A"));
    assert_eq!(gets_served(&cache).await - before, 2);
}

#[tokio::test]
async fn eight_hundred_kilobytes_in_one_go() {
    let (_server, cache) = memcached().await;
    let keys: Vec<String> = (0..800).map(|n| format!("key-{n}")).collect();
    for key in &keys {
        cache.set(key, key.repeat(1024 / key.len()), MINUTE).await.unwrap();
    }
    let found = cache.get_many(&keys).await;
    assert_eq!(found.hits.len(), 800);
    assert!(found.hits.iter().all(|(key, item)| item.value == key.repeat(1024 / key.len())));
}

#[tokio::test]
async fn a_hundred_thousand_keys_are_no_deadlock() {
    let service = service(2).await;
    let cache = follow(&service, quick()).await.with_request_timeout(Duration::from_secs(30));
    cache.set("key-77777", "v", MINUTE).await.unwrap();
    let found = cache.get_many((0..100_000).map(|n| format!("key-{n}"))).await;
    assert!(found.is_complete(), "{:?}", found.errors.first().map(|failed| &failed.error));
    assert_eq!(found.hits.len(), 1);
}

#[tokio::test]
async fn what_one_node_cannot_say_spoils_nothing_of_the_others() {
    let service = service(3).await;
    let cache = follow(&service, quick()).await;
    let keys: Vec<String> = (0..300).map(|n| format!("key-{n}")).collect();
    for key in &keys {
        cache.set(key, key.clone(), MINUTE).await.unwrap();
    }
    service.pause(1).await.unwrap();
    let away = &service.pods()[1].fqdn;
    let found = by(DEADLINE, cache.with_request_timeout(DEADLINE).get_many(&keys)).await;
    assert!(!found.is_complete());
    for failed in &found.errors {
        assert_eq!(failed.error.kind(), ErrorKind::Timeout);
        assert_eq!(failed.error.node().unwrap().host(), away);
        assert!(failed.keys.iter().all(|key| cache.node_for(key).unwrap().host() == away));
    }
    let failed: usize = found.errors.iter().map(|failed| failed.keys.len()).sum();
    assert_eq!(found.hits.len() + failed, 300);
    service.resume(1).await.unwrap();
}
