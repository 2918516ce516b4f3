//! Commands on many keys.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use memring::meta::Get;
use memring::{Client, Delivery, ErrorKind, SetOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::scripted::{never_reply, request_server, scripted_server};
use crate::support::{
    DEFAULT_TIMEOUT, LONG_TIMEOUT, MINUTE, Version, client_builder, fast_polling, memcached, node_id, server_version,
    service, service_client, stat, within,
};

/// Returns the number of keys that the client's only server has looked up.
async fn keys_looked_up(cache: &Client) -> u64 {
    stat(cache.topology().nodes[0].address.unwrap(), "cmd_get").await
}

#[tokio::test]
async fn get_many_returns_the_hits_with_the_callers_keys_in_the_callers_order() {
    let service = service(3).await;
    let cache = service_client(&service, fast_polling()).await;
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
    let with_cas = cache.gets_many(&keys).await;
    assert!(with_cas.hits.iter().all(|(_, item)| item.cas.is_some()));
}

#[tokio::test]
async fn get_many_of_no_keys_or_of_missing_keys_is_not_an_error() {
    let (_server, cache) = memcached().await;
    let found = cache.get_many(Vec::<String>::new()).await;
    assert!(found.hits.is_empty() && found.is_complete());
    let found = cache.get_many((0..500).map(|n| format!("absent-{n}"))).await;
    assert!(found.hits.is_empty() && found.is_complete());
}

#[tokio::test]
async fn get_many_looks_up_a_repeated_key_once_and_returns_it_each_time() {
    let (_server, cache) = memcached().await;
    cache.set("a", "A", MINUTE).await.unwrap();
    let before = keys_looked_up(&cache).await;
    let found = cache.get_many(["a", "b", "a", "a"]).await;
    assert_eq!(found.hits.iter().map(|(key, _)| *key).collect::<Vec<_>>(), ["a", "a", "a"]);
    assert!(found.hits.iter().all(|(_, item)| item.value == "A"));
    assert_eq!(keys_looked_up(&cache).await - before, 2);
}

#[tokio::test]
async fn get_many_returns_eight_hundred_values_of_a_kilobyte() {
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
async fn get_many_of_a_hundred_thousand_keys_does_not_deadlock() {
    let service = service(2).await;
    let cache = service_client(&service, fast_polling()).await.with_request_timeout(Duration::from_secs(30));
    cache.set("key-77777", "v", MINUTE).await.unwrap();
    let found = cache.get_many((0..100_000).map(|n| format!("key-{n}"))).await;
    assert!(found.is_complete(), "{:?}", found.errors.first().map(|failed| &failed.error));
    assert_eq!(found.hits.len(), 1);
}

#[tokio::test]
async fn get_many_returns_the_hits_of_other_nodes_when_one_node_does_not_answer() {
    let service = service(3).await;
    let cache = service_client(&service, fast_polling()).await;
    let keys: Vec<String> = (0..300).map(|n| format!("key-{n}")).collect();
    for key in &keys {
        cache.set(key, key.clone(), MINUTE).await.unwrap();
    }
    service.pause(1).await.unwrap();
    let paused = &service.pods()[1].fqdn;
    let found = within(DEFAULT_TIMEOUT, cache.with_request_timeout(DEFAULT_TIMEOUT).get_many(&keys)).await;
    assert!(!found.is_complete());
    for failed in &found.errors {
        assert_eq!(failed.error.kind(), ErrorKind::Timeout);
        assert_eq!(failed.error.node().unwrap().host(), paused);
        assert!(failed.keys.iter().all(|key| cache.node_for(key).unwrap().host() == paused));
    }
    let failed: usize = found.errors.iter().map(|failed| failed.keys.len()).sum();
    assert_eq!(found.hits.len() + failed, 300);
    service.resume(1).await.unwrap();
}

#[tokio::test]
async fn get_each_returns_an_outcome_for_each_key_in_the_callers_order() {
    let service = service(3).await;
    let cache = service_client(&service, fast_polling()).await;
    let space = cache.namespace("n:").unwrap();
    for key in ["a", "b"] {
        space.set(key, key, MINUTE).await.unwrap();
    }
    let each = space.get_each(["a", "absent", "", "b", "a", "two words"]).await;
    let outcomes: Vec<_> = each
        .iter()
        .map(|(key, outcome)| match outcome {
            Ok(item) => (*key, Ok(item.as_ref().map(|item| item.value.to_vec()))),
            Err(error) => (*key, Err(error.kind())),
        })
        .collect();
    let hit = |key: &str| Ok(Some(key.as_bytes().to_vec()));
    let bad = Err(ErrorKind::InvalidKey);
    assert_eq!(
        outcomes,
        [
            ("a", hit("a")),
            ("absent", Ok(None)),
            ("", bad.clone()),
            ("b", hit("b")),
            ("a", hit("a")),
            ("two words", bad)
        ]
    );
}

#[tokio::test]
async fn batches_without_valid_keys_send_nothing() {
    let requests = Arc::new(AtomicUsize::new(0));
    let addr = request_server({
        let requests = Arc::clone(&requests);
        move |_| {
            requests.fetch_add(1, Ordering::SeqCst);
            "DELETED\r\n"
        }
    })
    .await;
    let cache = Client::builder().nodes([addr.to_string()]).connect().await.unwrap();
    let none: [&str; 0] = [];
    assert!(cache.get_each(none).await.is_empty());
    assert!(cache.get_many(none).await.hits.is_empty());
    assert!(cache.delete_many(none).await.is_complete());
    assert!(cache.touch_many(none, MINUTE).await.is_complete());
    let written = cache.set_many([("", "v"), ("a b", "v")], MINUTE).await;
    assert_eq!(written.errors.len(), 2, "both keys are invalid");
    assert!(cache.get_many(["", "a b"]).await.hits.is_empty());
    assert!(cache.with_request_timeout(LONG_TIMEOUT).delete("k").await.unwrap());
    assert_eq!(requests.load(Ordering::SeqCst), 1, "only the delete is sent");
}

#[tokio::test]
async fn set_many_touch_many_and_delete_many_reach_the_owners_of_three_thousand_keys() {
    let service = service(3).await;
    let cache = service_client(&service, fast_polling()).await;
    let keys: Vec<String> = (0..3_000).map(|n| format!("key-{n}")).collect();
    let written = cache.set_many(keys.iter().map(|key| (key, key.clone())), SetOptions::from(MINUTE).flags(7)).await;
    assert!(written.is_complete() && written.not_found.is_empty());
    assert!(written.done.iter().copied().eq(&keys), "keys must be in the caller's order");
    let found = cache.get_many(&keys).await;
    assert_eq!(found.hits.len(), 3_000);
    assert!(found.hits.iter().all(|(key, item)| item.value == *key && item.flags == 7));

    let (present, absent) = ("key-1", "absent");
    let touched = cache.touch_many([present, absent], MINUTE).await;
    assert_eq!((touched.done, touched.not_found, touched.errors.len()), (vec![present], vec![absent], 0));
    let deleted = cache.delete_many(keys.iter().map(String::as_str).chain([absent, present])).await;
    assert_eq!((deleted.done.len(), deleted.not_found), (3_000, vec![absent, present]));
    assert!(cache.get_many(&keys).await.hits.is_empty());
}

#[tokio::test]
async fn entries_of_set_many_that_cannot_be_sent_fail_alone() {
    let (server, cache) = memcached().await;
    cache.set("big", "old", MINUTE).await.unwrap();
    let connections = stat(server.addr(), "total_connections").await;
    let big = vec![b'x'; (1 << 20) + 1];
    let entries = [("a", vec![]), ("big", big), ("two words", vec![]), ("b", b"B".to_vec()), ("", vec![])];
    let written = cache.set_many(entries, MINUTE).await;
    assert_eq!(written.done, ["a", "b"]);
    let failed: Vec<_> =
        written.errors.iter().map(|failed| (&failed.keys[..], failed.error.kind(), failed.error.delivery())).collect();
    let unsent = |key, kind| (key, kind, Delivery::NotSent);
    assert_eq!(
        failed,
        [
            unsent(&["big"][..], ErrorKind::TooLarge),
            unsent(&["two words"], ErrorKind::InvalidKey),
            unsent(&[""], ErrorKind::InvalidKey)
        ]
    );
    assert_eq!(cache.get("big").await.unwrap().unwrap().value, "old");
    assert_eq!(cache.get("b").await.unwrap().unwrap().value, "B");
    assert_eq!(stat(server.addr(), "total_connections").await, connections + 1, "the call of `stat` opened one");

    let invalid_ttl = cache.set_many([("a", "1"), ("b", "2")], Duration::ZERO).await;
    assert_eq!((invalid_ttl.errors.len(), &invalid_ttl.errors[0].keys[..]), (1, &["a", "b"][..]));
    assert_eq!(invalid_ttl.errors[0].error.kind(), ErrorKind::InvalidTtl);
    let invalid_ttl = cache.touch_many(["a", ""], Duration::ZERO).await;
    assert_eq!(
        invalid_ttl.errors.iter().map(|failed| failed.error.kind()).collect::<Vec<_>>(),
        [ErrorKind::InvalidTtl, ErrorKind::InvalidKey]
    );
}

#[tokio::test]
async fn set_many_stores_the_last_value_of_a_repeated_key() {
    let (server, _) = memcached().await;
    let cache = client_builder(server.addr()).connections_per_node(4).connect().await.unwrap();
    for round in 0..50 {
        let entries = (0..40).map(|n| (format!("key-{}", n % 8), format!("{round}/{n}")));
        let written = cache.set_many(entries, MINUTE).await;
        assert_eq!(written.done.len(), 40);
        for n in 0..8 {
            let item = cache.get(format!("key-{n}")).await.unwrap().unwrap();
            assert_eq!(item.value, format!("{round}/{}", 32 + n));
        }
    }
}

/// The client has two connections, which do not keep the order of writes. It sends the second write of a key after the
/// reply to the first.
#[tokio::test]
async fn set_many_never_has_two_writes_of_a_key_in_flight() {
    let in_flight = Arc::new(AtomicUsize::new(0));
    let addr = scripted_server({
        let in_flight = Arc::clone(&in_flight);
        move |mut socket| {
            let in_flight = Arc::clone(&in_flight);
            async move {
                let mut input = vec![0; 4096];
                while let Ok(1..) = socket.read(&mut input).await {
                    assert_eq!(in_flight.fetch_add(1, Ordering::SeqCst), 0, "another write is in flight");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    in_flight.fetch_sub(1, Ordering::SeqCst);
                    let _ = socket.write_all(b"STORED\r\n").await;
                }
            }
        }
    })
    .await;
    let cache = client_builder(addr).connections_per_node(2).connect().await.unwrap();
    assert_eq!(cache.set_many([("k", "1"), ("k", "2"), ("k", "3")], MINUTE).await.done.len(), 3);
}

#[tokio::test]
async fn an_error_line_in_a_batch_fails_only_the_requests_in_flight_on_its_connection() {
    let requests = Arc::new(AtomicUsize::new(0));
    let failing = request_server({
        let requests = Arc::clone(&requests);
        move |_| match requests.fetch_add(1, Ordering::SeqCst) {
            2 => "SERVER_ERROR something went wrong\r\n",
            _ => "STORED\r\n",
        }
    })
    .await;
    let healthy = request_server(|_| "STORED\r\n").await;
    let nodes = [failing.to_string(), healthy.to_string()];
    let cache = Client::builder().nodes(nodes).request_timeout(LONG_TIMEOUT).connect().await.unwrap();
    let keys: Vec<String> = (0..200).map(|n| format!("key-{n}")).collect();
    let written = cache.set_many(keys.iter().map(|key| (key, "v")), MINUTE).await;
    assert_eq!(written.errors.len(), 1, "all failures have one cause");
    let failed = &written.errors[0];
    assert_eq!(failed.error.kind(), ErrorKind::Server);
    assert!(failed.error.to_string().contains("something went wrong"), "{}", failed.error);
    assert!(failed.keys.iter().all(|key| cache.node_for(key).unwrap() == node_id(failing)));
    assert_eq!(written.done.len() + failed.keys.len(), 200);
    let of_failing = keys.iter().filter(|key| cache.node_for(key).unwrap() == node_id(failing));
    assert!(of_failing.count() >= failed.keys.len() + 2, "the two writes before the error line succeed");
    assert!(cache.set_many(keys.iter().map(|key| (key, "v")), MINUTE).await.is_complete());
    assert!(requests.load(Ordering::SeqCst) > 3);
}

#[tokio::test]
async fn batches_of_a_hundred_thousand_keys_end_by_their_deadline_and_leave_queue_space() {
    let addr = scripted_server(never_reply).await;
    let cache = client_builder(addr).queue_limits(300, 8 << 20).connect().await.unwrap();
    let deadline = Duration::from_secs(2);
    let batch_client = cache.with_request_timeout(deadline);
    let entries = (0..100_000).map(|n| (n.to_string(), "v"));
    let keys = (0..100_000).map(|n| n.to_string());
    let (written, found, other) = tokio::join!(
        within(deadline, batch_client.set_many(entries, MINUTE)),
        within(deadline, batch_client.get_many(keys)),
        // There is queue space for it at once, but the server does not reply.
        within(deadline, async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            cache.with_request_timeout(DEFAULT_TIMEOUT).get("other").await
        })
    );
    assert_eq!(other.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(found.errors.iter().all(|failed| failed.error.kind() == ErrorKind::Timeout));
    assert!(written.errors.iter().all(|failed| failed.error.kind() == ErrorKind::Timeout));
    let keys_with = |delivery| {
        let errors = written.errors.iter().filter(|failed| failed.error.delivery() == delivery);
        errors.map(|failed| failed.keys.len()).sum::<usize>()
    };
    let (sent, not_sent) = (keys_with(Delivery::Unknown), keys_with(Delivery::NotSent));
    assert!(sent <= 256, "{sent} writes were sent");
    assert_eq!(sent + not_sent, 100_000);
    assert!(written.errors.len() < 10, "{} causes", written.errors.len());
}

#[tokio::test]
async fn set_many_of_twenty_thousand_entries_passes_a_queue_of_64() {
    let (server, _) = memcached().await;
    let cache = client_builder(server.addr()).queue_limits(64, 1 << 10).connect().await.unwrap();
    let keys: Vec<String> = (0..20_000).map(|n| format!("key-{n}")).collect();
    let written = cache.set_many(keys.iter().map(|key| (key, key.clone())), MINUTE).await;
    assert!(written.is_complete(), "{:?}", written.errors.first().map(|failed| &failed.error));
    assert_eq!(cache.get_many(&keys).await.hits.len(), 20_000);
}

/// A key that takes 20 us to read, and is not `Sync`.
#[derive(Debug)]
struct SlowKey(String, PhantomData<Cell<()>>);

impl AsRef<[u8]> for SlowKey {
    fn as_ref(&self) -> &[u8] {
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(20) {}
        self.0.as_bytes()
    }
}

/// So many keys take ten seconds to group by node.
const TOO_MANY_KEYS: usize = 500_000;

fn too_many_keys() -> Vec<SlowKey> {
    (0..TOO_MANY_KEYS).map(|n| SlowKey(format!("key-{n}"), PhantomData)).collect()
}

/// Runs a batch of too many keys with a deadline of half a second, and checks that it ends long before all are grouped,
/// and that other tasks of its thread run meanwhile.
async fn run_too_large<T>(batch: impl Future<Output = T> + Send) -> T {
    let turns = Arc::new(AtomicUsize::new(0));
    let other_task = tokio::spawn({
        let turns = Arc::clone(&turns);
        async move {
            loop {
                turns.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    let start = Instant::now();
    let result = batch.await;
    let elapsed = start.elapsed();
    other_task.abort();
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
    let turns = turns.load(Ordering::Relaxed);
    assert!(turns >= 5, "another task ran {turns} times");
    result
}

#[tokio::test]
async fn a_batch_too_large_for_its_deadline_sends_what_it_can_and_lets_other_tasks_run() {
    let service = service(2).await;
    let cache = service_client(&service, fast_polling()).await.with_request_timeout(Duration::from_millis(500));
    let entries = too_many_keys().into_iter().map(|key| (key, "v"));
    let written = run_too_large(cache.set_many(entries, MINUTE)).await;
    let unsent = written.errors.iter().filter(|failed| failed.error.delivery() == Delivery::NotSent);
    let unsent: usize = unsent.map(|failed| failed.keys.len()).sum();
    let failed: usize = written.errors.iter().map(|failed| failed.keys.len()).sum();
    assert!(written.errors.iter().all(|failed| failed.error.kind() == ErrorKind::Timeout));
    assert!(unsent > TOO_MANY_KEYS / 2, "{unsent} were not sent");
    assert!(!written.done.is_empty() && written.done.len() + failed == TOO_MANY_KEYS);
    assert!(written.errors.len() < 10, "{} causes", written.errors.len());

    let found = run_too_large(cache.get_many(too_many_keys())).await;
    let failed: usize = found.errors.iter().map(|failed| failed.keys.len()).sum();
    assert!(found.errors.iter().all(|failed| failed.error.kind() == ErrorKind::Timeout));
    assert!(failed > TOO_MANY_KEYS / 2, "{failed} failed");
    assert!(!found.hits.is_empty() && found.hits.len() + failed <= TOO_MANY_KEYS);

    if server_version(service.pods()[0].addr).await < Version::META {
        return;
    }
    let each = run_too_large(cache.meta_get_many(too_many_keys(), Get::new().value())).await;
    assert_eq!(each.len(), TOO_MANY_KEYS);
    let hits = each.iter().filter(|(_, found)| matches!(found, Ok(Some(_)))).count();
    let failed = each.iter().filter_map(|(_, found)| found.as_ref().err());
    let failed = failed.filter(|error| error.kind() == ErrorKind::Timeout).count();
    assert!(hits > 0 && failed > TOO_MANY_KEYS / 2, "{hits} hits, {failed} failed");
}
