//! Many keys at once.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use memring::{Client, Delivery, ErrorKind, NodeId, SetOptions};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::faults::{Told, mute};
use crate::support::{DEADLINE, NO_HURRY, by, eventually, follow, memcached, peer, quick, service, stat};

const MINUTE: Duration = Duration::from_secs(60);

/// A server that reads whole requests, and answers each as it is told to by the request's line.
async fn scripted(answer: impl Fn(&str) -> &'static str + Clone + Send + Sync + 'static) -> SocketAddr {
    peer(move |socket| {
        let answer = answer.clone();
        async move {
            let mut socket = BufReader::new(socket);
            let mut line = String::new();
            while let Ok(1..) = socket.read_line(&mut line).await {
                if line.starts_with("set ") {
                    let len: usize = line.split_whitespace().nth(4).unwrap().parse().unwrap();
                    socket.read_exact(&mut vec![0; len + 2]).await.unwrap();
                }
                if socket.write_all(answer(&line).as_bytes()).await.is_err() {
                    return;
                }
                line.clear();
            }
        }
    })
    .await
}

/// How many keys the client's only server was asked for.
async fn gets_served(cache: &Client) -> u64 {
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

#[tokio::test]
async fn each_key_has_its_own_outcome_in_the_callers_order() {
    let service = service(3).await;
    let cache = follow(&service, quick()).await;
    let space = cache.namespace("n:").unwrap();
    for key in ["a", "b"] {
        space.set(key, key, MINUTE).await.unwrap();
    }
    let each = space.get_each(["a", "absent", "", "b", "a", "two words"]).await;
    let told: Vec<_> = each
        .iter()
        .map(|(key, outcome)| match outcome {
            Ok(item) => (*key, Ok(item.as_ref().map(|item| item.value.to_vec()))),
            Err(error) => (*key, Err(error.kind())),
        })
        .collect();
    let hit = |key: &str| Ok(Some(key.as_bytes().to_vec()));
    let bad = Err(ErrorKind::InvalidKey);
    assert_eq!(
        told,
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
async fn nothing_asked_is_nothing_sent() {
    let sent = Arc::new(AtomicUsize::new(0));
    let addr = scripted({
        let sent = Arc::clone(&sent);
        move |_| {
            sent.fetch_add(1, Ordering::SeqCst);
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
    assert_eq!(written.errors.len(), 2, "invalid, all of them");
    assert!(cache.get_many(["", "a b"]).await.hits.is_empty());
    assert!(cache.with_request_timeout(NO_HURRY).delete("k").await.unwrap());
    assert_eq!(sent.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn many_are_stored_touched_and_deleted() {
    let service = service(3).await;
    let cache = follow(&service, quick()).await;
    let keys: Vec<String> = (0..3_000).map(|n| format!("key-{n}")).collect();
    let written = cache.set_many(keys.iter().map(|key| (key, key.clone())), SetOptions::from(MINUTE).flags(7)).await;
    assert!(written.is_complete() && written.not_found.is_empty());
    assert!(written.done.iter().copied().eq(&keys), "in the caller's order");
    let found = cache.get_many(&keys).await;
    assert_eq!(found.hits.len(), 3_000);
    assert!(found.hits.iter().all(|(key, item)| item.value == *key && item.flags == 7));

    let (there, absent) = ("key-1", "absent");
    let touched = cache.touch_many([there, absent], MINUTE).await;
    assert_eq!((touched.done, touched.not_found, touched.errors.len()), (vec![there], vec![absent], 0));
    let deleted = cache.delete_many(keys.iter().map(String::as_str).chain([absent, there])).await;
    assert_eq!((deleted.done.len(), deleted.not_found), (3_000, vec![absent, there]));
    assert!(cache.get_many(&keys).await.hits.is_empty());
}

#[tokio::test]
async fn what_cannot_be_sent_fails_alone() {
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
    // One more for the look.
    assert_eq!(stat(server.addr(), "total_connections").await, connections + 1);

    let never = cache.set_many([("a", "1"), ("b", "2")], Duration::ZERO).await;
    assert_eq!((never.errors.len(), &never.errors[0].keys[..]), (1, &["a", "b"][..]));
    assert_eq!(never.errors[0].error.kind(), ErrorKind::InvalidTtl);
    let never = cache.touch_many(["a", ""], Duration::ZERO).await;
    assert_eq!(
        never.errors.iter().map(|failed| failed.error.kind()).collect::<Vec<_>>(),
        [ErrorKind::InvalidTtl, ErrorKind::InvalidKey]
    );
}

#[tokio::test]
async fn a_value_over_the_servers_limit_fails_alone_in_a_batch() {
    let (server, _) = memcached().await;
    let builder = Client::builder().nodes([server.addr().to_string()]).max_value_size(8 << 20);
    let cache = builder.request_timeout(NO_HURRY).connect().await.unwrap();
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
async fn of_a_key_given_twice_the_last_wins() {
    let (server, _) = memcached().await;
    let builder = Client::builder().nodes([server.addr().to_string()]).connections_per_node(4);
    let cache = builder.request_timeout(NO_HURRY).connect().await.unwrap();
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

/// Two connections keep no order between them: the second write of a key is not sent before the first is answered.
#[tokio::test]
async fn a_key_given_twice_is_never_under_way_twice() {
    let under_way = Arc::new(AtomicUsize::new(0));
    let addr = peer({
        let under_way = Arc::clone(&under_way);
        move |mut socket| {
            let under_way = Arc::clone(&under_way);
            async move {
                let mut wire = vec![0; 4096];
                while let Ok(1..) = socket.read(&mut wire).await {
                    assert_eq!(under_way.fetch_add(1, Ordering::SeqCst), 0, "sent while another is under way");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    under_way.fetch_sub(1, Ordering::SeqCst);
                    let _ = socket.write_all(b"STORED\r\n").await;
                }
            }
        }
    })
    .await;
    let builder = Client::builder().nodes([addr.to_string()]).connections_per_node(2);
    let cache = builder.request_timeout(NO_HURRY).connect().await.unwrap();
    assert_eq!(cache.set_many([("k", "1"), ("k", "2"), ("k", "3")], MINUTE).await.done.len(), 3);
}

#[tokio::test]
async fn an_error_line_in_a_batch_fails_what_is_owed_on_its_connection_alone() {
    // Breaks off once, at the third set it is sent.
    let broken = Arc::new(AtomicUsize::new(0));
    let breaking = scripted({
        let broken = Arc::clone(&broken);
        move |_| match broken.fetch_add(1, Ordering::SeqCst) {
            2 => "SERVER_ERROR something went wrong\r\n",
            _ => "STORED\r\n",
        }
    })
    .await;
    let sound = scripted(|_| "STORED\r\n").await;
    let nodes = [breaking.to_string(), sound.to_string()];
    let cache = Client::builder().nodes(nodes).request_timeout(NO_HURRY).connect().await.unwrap();
    let keys: Vec<String> = (0..200).map(|n| format!("key-{n}")).collect();
    let written = cache.set_many(keys.iter().map(|key| (key, "v")), MINUTE).await;
    assert_eq!(written.errors.len(), 1, "one cause");
    let failed = &written.errors[0];
    assert_eq!(failed.error.kind(), ErrorKind::Server);
    assert!(failed.error.to_string().contains("something went wrong"), "{}", failed.error);
    assert!(failed.keys.iter().all(|key| cache.node_for(key).unwrap().to_string() == breaking.to_string()));
    assert_eq!(written.done.len() + failed.keys.len(), 200);
    let on_breaking = keys.iter().filter(|key| cache.node_for(key).unwrap().to_string() == breaking.to_string());
    assert!(on_breaking.count() >= failed.keys.len() + 2, "what was answered before is done");
    assert!(cache.set_many(keys.iter().map(|key| (key, "v")), MINUTE).await.is_complete());
    assert!(broken.load(Ordering::SeqCst) > 3);
}

#[tokio::test]
async fn a_hundred_thousand_writes_end_by_their_deadline_and_leave_room_for_others() {
    let addr = peer(mute).await;
    let builder = Client::builder().nodes([addr.to_string()]).queue_limits(300, 8 << 20);
    let cache = builder.request_timeout(NO_HURRY).connect().await.unwrap();
    let limit = Duration::from_secs(2);
    let hasty = cache.with_request_timeout(limit);
    let entries = (0..100_000).map(|n| (n.to_string(), "v"));
    let keys = (0..100_000).map(|n| n.to_string());
    let (written, found, other) = tokio::join!(
        by(limit, hasty.set_many(entries, MINUTE)),
        by(limit, hasty.get_many(keys)),
        // Finds room at once, and no answer.
        by(limit, async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            cache.with_request_timeout(DEADLINE).get("other").await
        })
    );
    assert_eq!(other.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(found.errors.iter().all(|failed| failed.error.kind() == ErrorKind::Timeout));
    assert!(written.errors.iter().all(|failed| failed.error.kind() == ErrorKind::Timeout));
    let sent = |delivery| {
        let errors = written.errors.iter().filter(|failed| failed.error.delivery() == delivery);
        errors.map(|failed| failed.keys.len()).sum::<usize>()
    };
    assert!(sent(Delivery::Unknown) <= 256, "{} were sent", sent(Delivery::Unknown));
    assert_eq!(sent(Delivery::Unknown) + sent(Delivery::NotSent), 100_000);
    assert!(written.errors.len() < 10, "{} causes", written.errors.len());
}

#[tokio::test]
async fn many_writes_go_through_a_small_queue() {
    let (server, _) = memcached().await;
    let builder = Client::builder().nodes([server.addr().to_string()]);
    let cache = builder.queue_limits(64, 1 << 10).request_timeout(NO_HURRY).connect().await.unwrap();
    let keys: Vec<String> = (0..20_000).map(|n| format!("key-{n}")).collect();
    let written = cache.set_many(keys.iter().map(|key| (key, key.clone())), MINUTE).await;
    assert!(written.is_complete(), "{:?}", written.errors.first().map(|failed| &failed.error));
    assert_eq!(cache.get_many(&keys).await.hits.len(), 20_000);
}

#[tokio::test]
async fn writes_that_a_node_left_no_room_for_go_to_the_next_owner() {
    let (leave, left) = tokio::sync::watch::channel(false);
    let addr = peer(move |mut socket| {
        let mut left = left.clone();
        async move {
            let _ = socket.read(&mut [0; 4096]).await;
            let _ = left.wait_for(|left| *left).await;
        }
    })
    .await;
    let other = scripted(|_| "STORED\r\n").await;
    let id = |addr: SocketAddr| addr.to_string().parse::<NodeId>().unwrap();
    let listed = Arc::new(Mutex::new(vec![id(addr), id(other)]));
    let builder = Client::builder().discovery(Told(Arc::clone(&listed))).queue_limits(1, 1 << 20);
    let options = quick().removal_grace(Duration::ZERO);
    let cache = builder.discovery_options(options).request_timeout(NO_HURRY).connect().await.unwrap();
    let keys = (0..).map(|n| format!("key-{n}"));
    let keys: Vec<String> = keys.filter(|key| cache.node_for(key).unwrap() == id(addr)).take(5).collect();
    let (written, ()) = tokio::join!(cache.set_many(keys.iter().map(|key| (key, "v")), MINUTE), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        listed.lock().unwrap().remove(0);
        eventually("the node has left", async || cache.topology().nodes.len() == 1).await;
        leave.send_replace(true);
    });
    assert_eq!(written.done, keys[2..].iter().collect::<Vec<_>>());
    let deliveries: Vec<_> = written.errors.iter().map(|failed| failed.error.delivery()).collect();
    assert_eq!(deliveries, [Delivery::Unknown, Delivery::NotSent], "written, and queued");
}

#[tokio::test]
async fn a_value_too_large_may_take_the_old_one_with_it() {
    let (server, plain) = memcached().await;
    let builder = Client::builder().nodes([server.addr().to_string()]).max_value_size(1_000);
    let cache = builder.delete_when_too_large(true).request_timeout(NO_HURRY).connect().await.unwrap();
    let big = || vec![b'x'; 1_001];
    for key in ["alone", "first", "second", "other"] {
        plain.set(key, "old", MINUTE).await.unwrap();
    }
    let error = cache.set("alone", big(), MINUTE).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::TooLarge, Delivery::Answered));
    assert!(std::error::Error::source(&error).is_none());
    let written =
        cache.set_many([("first", big()), ("other", vec![]), ("absent", big()), ("second", big())], MINUTE).await;
    assert_eq!((written.done, written.not_found, written.errors.len()), (vec!["other"], vec![], 3));
    assert!(written.errors.iter().all(|failed| failed.error.kind() == ErrorKind::TooLarge));
    let left = plain.get_many(["alone", "first", "second", "other"]).await;
    assert_eq!(left.hits.iter().map(|(key, _)| *key).collect::<Vec<_>>(), ["other"]);

    let twice = [("twice", b"1".to_vec()), ("twice", big()), ("thrice", big()), ("thrice", b"3".to_vec())];
    assert_eq!(cache.set_many(twice, MINUTE).await.errors.len(), 2);
    assert_eq!(plain.get("twice").await.unwrap(), None, "the last of a key counts, refused or not");
    assert_eq!(plain.get("thrice").await.unwrap().unwrap().value, "3");

    // Of these nobody knows whether they would have stored anything.
    plain.set("alone", "old", MINUTE).await.unwrap();
    assert_eq!(cache.add("alone", big(), MINUTE).await.unwrap_err().delivery(), Delivery::NotSent);
    assert_eq!(cache.replace("alone", big(), MINUTE).await.unwrap_err().delivery(), Delivery::NotSent);
    assert_eq!(plain.get("alone").await.unwrap().unwrap().value, "old");
}

#[tokio::test]
async fn an_old_value_that_could_not_be_deleted_is_said_to_stay() {
    let refusing = scripted(|_| "SERVER_ERROR not today\r\n").await;
    for (addr, kind) in [(refusing, ErrorKind::Server), (peer(mute).await, ErrorKind::Timeout)] {
        let builder = Client::builder().nodes([addr.to_string()]).max_value_size(10).delete_when_too_large(true);
        let cache = builder.connect().await.unwrap();
        let alone = cache.set("k", [b'x'; 11].to_vec(), MINUTE).await.unwrap_err();
        let many = cache.set_many([("k", [b'x'; 11].to_vec())], MINUTE).await.errors.remove(0).error;
        for error in [alone, many] {
            assert_eq!(error.kind(), ErrorKind::TooLarge);
            assert_eq!(error.node().unwrap().to_string(), addr.to_string());
            let source = std::error::Error::source(&error).unwrap();
            let source = source.downcast_ref::<memring::Error>().unwrap();
            assert_eq!((source.kind(), source.delivery()), (kind, error.delivery()));
        }
    }
}
