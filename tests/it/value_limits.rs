//! Values larger than the client or the server accepts.

use std::time::Duration;

use memring::{BreakerOptions, Client, Delivery, Error, ErrorKind};
use tokio::task::JoinSet;

use crate::scripted::{never_reply, request_server, scripted_server};
use crate::support::{
    MINUTE, client_builder, client_with_large_value_limit, connections_opened, memcached, stat, value_of,
};

#[tokio::test]
async fn a_value_over_the_client_limit_is_not_sent() {
    let (_server, cache) = memcached().await;
    cache.set("k", "old", MINUTE).await.unwrap();
    let error = cache.set("k", vec![0; (1 << 20) + 1], MINUTE).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::TooLarge, Delivery::NotSent));
    assert_eq!(cache.get("k").await.unwrap().unwrap().value, "old");
}

#[tokio::test]
async fn a_value_over_the_server_limit_fails_only_its_own_set_and_the_connection_stays_open() {
    let (server, _) = memcached().await;
    let cache = client_with_large_value_limit(&server).await;
    cache.set("k", "old", MINUTE).await.unwrap();
    let connections = connections_opened(&cache).await;
    // The witness would disappear if the server read the value as commands.
    let value = "flush_all\r\n".repeat(200_000);
    cache.set("witness", "here", MINUTE).await.unwrap();
    let (refused, get, set) =
        tokio::join!(cache.set("k", value, MINUTE), cache.get("witness"), cache.set("o", "v", MINUTE));
    let error = refused.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::TooLarge, Delivery::Answered));
    assert_eq!(get.unwrap().unwrap().value, "here");
    set.unwrap();
    assert_eq!(cache.get("witness").await.unwrap().unwrap().value, "here");
    assert_eq!(cache.get("k").await.unwrap(), None, "the server deletes the old value of a refused set");
    assert_eq!(connections_opened(&cache).await, connections);
}

#[tokio::test]
async fn a_value_over_the_server_limit_fails_only_its_own_key_in_a_batch() {
    let (server, _) = memcached().await;
    let cache = client_with_large_value_limit(&server).await;
    let connections = stat(server.addr(), "total_connections").await;
    let keys: Vec<String> = (0..50).map(|n| format!("key-{n}")).collect();
    let value = |n: usize| if n == 25 { "flush_all\r\n".repeat(200_000) } else { n.to_string() };
    let written = cache.set_many(keys.iter().enumerate().map(|(n, key)| (key, value(n))), MINUTE).await;
    assert_eq!(written.done.len(), 49);
    assert_eq!(written.errors[0].keys, [&keys[25]]);
    let error = &written.errors[0].error;
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::TooLarge, Delivery::Answered));
    assert_eq!(cache.get_many(&keys).await.hits.len(), 49);
    assert_eq!(stat(server.addr(), "total_connections").await, connections + 1);
}

#[tokio::test]
async fn a_stored_value_over_the_client_limit_fails_only_its_own_key() {
    let (server, other) = memcached().await;
    other.set("big", vec![b'x'; 5_000], MINUTE).await.unwrap();
    other.set("small", "s", MINUTE).await.unwrap();
    let cache = client_builder(server.addr()).max_value_size(1_000).connect().await.unwrap();
    let found = cache.get_many(["big", "small"]).await;
    assert_eq!(found.hits.len(), 1);
    assert_eq!(found.hits[0].1.value, "s");
    assert_eq!((found.errors[0].error.kind(), &found.errors[0].keys[..]), (ErrorKind::TooLarge, &["big"][..]));
}

#[tokio::test]
async fn a_join_over_the_server_limit_is_refused_and_keeps_the_old_value_and_the_connection() {
    let (server, default_client) = memcached().await;
    let cache = client_with_large_value_limit(&server).await;
    let old = vec![b'x'; 600_000];
    cache.set("k", old.clone(), MINUTE).await.unwrap();
    let connections = connections_opened(&cache).await;
    // The first is too large only together with the old value, the second alone. Read as commands, both would flush it.
    let (part, whole) = ("flush_all\r\n".repeat(60_000), "flush_all\r\n".repeat(150_000));
    for (too_large_joined, too_large_alone) in [
        (cache.append("k", part.clone()).await, cache.append("k", whole.clone()).await),
        (cache.prepend("k", part.clone()).await, cache.prepend("k", whole.clone()).await),
    ] {
        assert!(!too_large_joined.unwrap(), "the server replies NOT_STORED without a reason");
        let error = too_large_alone.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::TooLarge, Delivery::Answered));
    }
    let error = default_client.append("k", whole).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::TooLarge, Delivery::NotSent));
    assert_eq!(value_of(&cache, "k").await.unwrap(), old);
    assert_eq!(connections_opened(&cache).await, connections);
}

#[tokio::test]
async fn a_cas_over_the_server_limit_keeps_the_old_value_and_the_connection() {
    let (server, _) = memcached().await;
    let cache = client_with_large_value_limit(&server).await;
    cache.set("k", "old", MINUTE).await.unwrap();
    let connections = connections_opened(&cache).await;
    let unique = cache.gets("k").await.unwrap().unwrap().cas.unwrap();
    let error = cache.cas("k", unique, "flush_all\r\n".repeat(200_000), MINUTE).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::TooLarge, Delivery::Answered));
    assert_eq!(value_of(&cache, "k").await.unwrap(), b"old");
    assert_eq!(connections_opened(&cache).await, connections);
}

/// The server replies to a set that is too large before it has read the value.
#[tokio::test]
async fn error_replies_that_arrive_while_a_value_is_written_do_not_shift_other_replies() {
    let (server, _) = memcached().await;
    let builder = client_builder(server.addr()).max_value_size(8 << 20).connections_per_node(2);
    let cache = builder.request_timeout(Duration::from_secs(5)).connect().await.unwrap();
    let huge = bytes::Bytes::from(vec![b'x'; 6 << 20]);
    let mut callers = JoinSet::new();
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

#[tokio::test]
async fn delete_when_too_large_deletes_the_old_value_of_a_refused_set() {
    let (server, other_client) = memcached().await;
    let builder = client_builder(server.addr()).max_value_size(1_000);
    let cache = builder.delete_when_too_large(true).connect().await.unwrap();
    let big = || vec![b'x'; 1_001];
    for key in ["alone", "first", "second", "other"] {
        other_client.set(key, "old", MINUTE).await.unwrap();
    }
    let error = cache.set("alone", big(), MINUTE).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::TooLarge, Delivery::Answered));
    assert!(std::error::Error::source(&error).is_none());
    let written =
        cache.set_many([("first", big()), ("other", vec![]), ("absent", big()), ("second", big())], MINUTE).await;
    assert_eq!((written.done, written.not_found, written.errors.len()), (vec!["other"], vec![], 3));
    assert!(written.errors.iter().all(|failed| failed.error.kind() == ErrorKind::TooLarge));
    let left = other_client.get_many(["alone", "first", "second", "other"]).await;
    assert_eq!(left.hits.iter().map(|(key, _)| *key).collect::<Vec<_>>(), ["other"]);

    let twice = [("twice", b"1".to_vec()), ("twice", big()), ("thrice", big()), ("thrice", b"3".to_vec())];
    assert_eq!(cache.set_many(twice, MINUTE).await.errors.len(), 2);
    assert_eq!(other_client.get("twice").await.unwrap(), None, "the last entry of a key counts, even if it is refused");
    assert_eq!(other_client.get("thrice").await.unwrap().unwrap().value, "3");

    // Add and replace delete nothing, because they might not have stored the value.
    other_client.set("alone", "old", MINUTE).await.unwrap();
    assert_eq!(cache.add("alone", big(), MINUTE).await.unwrap_err().delivery(), Delivery::NotSent);
    assert_eq!(cache.replace("alone", big(), MINUTE).await.unwrap_err().delivery(), Delivery::NotSent);
    assert_eq!(other_client.get("alone").await.unwrap().unwrap().value, "old");
}

#[tokio::test]
async fn a_failed_delete_of_the_old_value_is_the_source_of_the_too_large_error() {
    let refusing = request_server(|_| "SERVER_ERROR not today\r\n").await;
    for (addr, kind) in [(refusing, ErrorKind::Server), (scripted_server(never_reply).await, ErrorKind::Timeout)] {
        let builder = Client::builder().nodes([addr.to_string()]).max_value_size(10).delete_when_too_large(true);
        // Otherwise the second delete fails at once.
        let cache = builder.circuit_breaker(BreakerOptions::disabled()).connect().await.unwrap();
        let single = cache.set("k", [b'x'; 11].to_vec(), MINUTE).await.unwrap_err();
        let batch = cache.set_many([("k", [b'x'; 11].to_vec())], MINUTE).await.errors.remove(0).error;
        for error in [single, batch] {
            assert_eq!(error.kind(), ErrorKind::TooLarge);
            assert_eq!(error.node().unwrap().to_string(), addr.to_string());
            let source = std::error::Error::source(&error).unwrap();
            let source = source.downcast_ref::<Error>().unwrap();
            assert_eq!((source.kind(), source.delivery()), (kind, error.delivery()));
        }
    }
}
