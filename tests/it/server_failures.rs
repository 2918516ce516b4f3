//! Servers and pods that crash, stop, refuse connections or never answer.

use std::sync::atomic::Ordering;
use std::time::Duration;

use memring::testing::Memcached;
use memring::{Client, Delivery, Endpoint, ErrorKind, NodeId, NodeState, StaticNodes, StatsKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::scripted::{
    always_miss, always_reply, assert_dials_backed_off, counting_server, never_reply, request_server, scripted_server,
    serve_connections,
};
use crate::support::{
    DEFAULT_TIMEOUT, LONG_TIMEOUT, MINUTE, alive_tasks, client_builder, client_of, default_client, eventually,
    fast_polling, is_miss, key_owned_by, memcached, repeat_for, service, service_client, service_client_builder,
    within,
};

#[tokio::test]
async fn requests_to_a_silent_server_end_by_their_deadline_and_leave_no_task() {
    let addr = scripted_server(never_reply).await;
    let before = alive_tasks();
    let cache = default_client(addr).await;
    let error = within(DEFAULT_TIMEOUT, cache.get("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    // The circuit breaker opens about now.
    for _ in 0..5 {
        let error = within(DEFAULT_TIMEOUT, cache.get("a")).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable), "{error}");
    }
    drop(cache);
    // The server's task for the connection ends too.
    eventually("every task has ended", async || alive_tasks() <= before).await;
}

#[tokio::test]
async fn a_refused_connection_fails_requests_at_once_until_the_server_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    // `connect` waits only briefly for its nodes, and requests do not wait for a node that is unreachable.
    let cache = within(Duration::from_secs(2), default_client(addr)).await;
    let error = within(Duration::ZERO, cache.get("a")).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Unavailable, Delivery::NotSent));
    assert!(std::error::Error::source(&error).is_some());
    assert_eq!(cache.topology().nodes[0].state, NodeState::Unreachable);

    serve_connections(TcpListener::bind(addr).await.unwrap(), always_miss);
    eventually("the node answers", async || is_miss(&cache.get("a").await)).await;
}

#[tokio::test]
async fn a_server_that_closes_every_connection_is_dialed_with_backoff() {
    let (addr, dials) = counting_server(|mut socket, _| async move {
        let _ = socket.write_all(b"ERROR Too many open connections\r\n").await;
    })
    .await;
    let cache = default_client(addr).await;
    repeat_for(Duration::from_millis(1_500), async || {
        assert!(within(DEFAULT_TIMEOUT, cache.get("a")).await.is_err());
    })
    .await;
    assert_dials_backed_off(&dials);
}

/// At its limit, memcached accepts a connection, sends an error line, and closes it.
#[tokio::test]
async fn a_server_at_its_connection_limit_fails_requests_at_once_until_it_has_room() {
    let server = Memcached::start_with(["-c", "32"]).await.unwrap();
    let mut others = Vec::new();
    loop {
        let mut socket = TcpStream::connect(server.addr()).await.unwrap();
        socket.write_all(b"version\r\n").await.unwrap();
        let mut reply = [0; 64];
        let count = socket.read(&mut reply).await.unwrap();
        if !reply[..count].starts_with(b"VERSION") {
            break;
        }
        others.push(socket);
    }
    // The first client dials once only.
    let builder = client_builder(server.addr()).redial_backoff(LONG_TIMEOUT, LONG_TIMEOUT);
    let (once, again) = (builder.connect().await.unwrap(), client_of(&server).await);
    for _ in 0..6 {
        for cache in [&once, &again] {
            let error = within(Duration::from_secs(5), cache.get("a")).await.unwrap_err();
            assert_eq!((error.kind(), error.delivery()), (ErrorKind::Unavailable, Delivery::NotSent), "{error}");
            assert!(error.to_string().ends_with("ERROR Too many open connections"), "{error}");
        }
    }
    let stats = once.stats(StatsKind::General).await.remove(0).1.unwrap_err();
    assert_eq!((stats.kind(), stats.delivery()), (ErrorKind::Unavailable, Delivery::NotSent), "{stats}");
    drop(others);
    eventually("the server has room", async || is_miss(&again.get("a").await)).await;
}

#[tokio::test]
async fn the_errors_of_a_server_with_another_protocol_name_it() {
    for (reply, protocol) in [
        // A fatal alert: the version is wrong.
        (&b"\x15\x03\x01\x00\x02\x02\x46"[..], "TLS"),
        (b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", "HTTP"),
    ] {
        let addr = scripted_server(move |socket| always_reply(socket, reply)).await;
        let cache = client_builder(addr).redial_backoff(LONG_TIMEOUT, LONG_TIMEOUT).connect().await.unwrap();
        for kind in [ErrorKind::Protocol, ErrorKind::Unavailable, ErrorKind::Unavailable] {
            let error = within(Duration::from_secs(5), cache.get("a")).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(&format!("the server speaks {protocol},")), "{error}");
        }
        let stats = cache.stats(StatsKind::General).await.remove(0).1.unwrap_err();
        assert!(stats.to_string().contains(&format!("the server speaks {protocol},")), "{stats}");
    }
}

/// A client of a proxy that rejects one key: as twemproxy does if the server of that key is down.
async fn client_of_proxy_that_rejects_bad() -> Client {
    let addr = request_server(|line| match line {
        rejected if rejected.contains(" bad") => "SERVER_ERROR connection refused\r\n",
        set if set.starts_with("set ") => "STORED\r\n",
        _ => "END\r\n",
    })
    .await;
    // Any backoff would take longer than the test.
    client_builder(addr).redial_backoff(LONG_TIMEOUT, LONG_TIMEOUT).connect().await.unwrap()
}

async fn assert_rejected(cache: &Client, key: &str) {
    let error = cache.get(key).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server, "{error}");
}

/// Calls with 20 other keys, 150 with each. Asserts that at most one with each fails, which is less than 1 %.
async fn assert_others_succeed(cache: &Client, bad_key_every: Option<usize>) {
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..20 {
        let cache = cache.clone();
        callers.spawn(async move {
            let key = format!("key-{caller}");
            let mut failures = Vec::new();
            for round in 0..150 {
                if bad_key_every.is_some_and(|rounds| round % rounds == 0) {
                    assert_rejected(&cache, "bad").await;
                }
                let outcome = if caller == 0 && round % 2 == 0 {
                    cache.set(&key, "v", MINUTE).await
                } else {
                    cache.get(&key).await.map(|item| assert!(item.is_none()))
                };
                failures.extend(outcome.err());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            failures
        });
    }
    while let Some(failures) = callers.join_next().await {
        let failures = failures.unwrap();
        assert!(failures.len() <= 1, "{failures:?}");
    }
}

#[tokio::test]
async fn a_key_that_a_proxy_rejects_fails_each_other_caller_at_most_once() {
    let cache = client_of_proxy_that_rejects_bad().await;
    let bad = tokio::spawn({
        let cache = cache.clone();
        async move {
            loop {
                assert_rejected(&cache, "bad").await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    assert_others_succeed(&cache, None).await;
    assert!(!bad.is_finished());
    bad.abort();
}

#[tokio::test]
async fn a_key_that_a_proxy_rejects_for_every_caller_fails_each_other_call_at_most_once() {
    assert_others_succeed(&client_of_proxy_that_rejects_bad().await, Some(20)).await;
}

/// As a server does that expects TLS, or a proxy without a server behind it.
#[tokio::test]
async fn a_server_that_closes_a_connection_without_a_reply_fails_requests_at_once() {
    let addr = scripted_server(|mut socket| async move {
        let _ = socket.read(&mut [0; 64]).await;
    })
    .await;
    let cache = client_builder(addr).redial_backoff(LONG_TIMEOUT, LONG_TIMEOUT).connect().await.unwrap();
    let error = cache.get("a").await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Connection, Delivery::Unknown), "{error}");
    for _ in 0..3 {
        let error = within(Duration::from_secs(5), cache.get("a")).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Unavailable, Delivery::NotSent), "{error}");
        assert!(error.to_string().contains("TLS"), "{error}");
    }
}

#[tokio::test]
async fn requests_end_by_their_deadline_while_every_connection_waits_to_redial() {
    // Closes each connection soon.
    let addr = scripted_server(|socket| async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(socket);
    })
    .await;
    let builder = Client::builder().nodes([addr.to_string()]).connections_per_node(2);
    let cache = builder.redial_backoff(LONG_TIMEOUT, LONG_TIMEOUT).connect().await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    for _ in 0..4 {
        assert!(within(DEFAULT_TIMEOUT, cache.get("a")).await.is_err());
    }
}

#[tokio::test]
async fn one_open_connection_serves_every_request_when_the_second_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        // Refuses every later connection.
        drop(listener);
        always_miss(socket).await;
    });
    let cache = client_builder(addr).connections_per_node(2).connect().await.unwrap();
    // The kernel may have accepted the second connection for a moment.
    tokio::time::sleep(Duration::from_millis(500)).await;
    for _ in 0..50 {
        assert!(is_miss(&cache.get("a").await));
    }
}

/// DNS lists a pod that does not listen (`docs/discovery.md`, row 40).
#[tokio::test]
async fn requests_to_a_pod_that_refuses_connections_fail_at_once_and_it_stays_in_the_topology() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let node = Endpoint::new(NodeId::new("pod-0", addr.port()).unwrap()).with_addresses([addr.ip()]);
    let cache = Client::builder().discovery(StaticNodes::new([node])).connect().await.unwrap();
    repeat_for(Duration::from_millis(500), async || {
        assert_eq!(within(Duration::ZERO, cache.get("a")).await.unwrap_err().kind(), ErrorKind::Unavailable);
    })
    .await;
    assert_eq!(cache.topology().version, 1);
}

/// A stopped process still accepts connections, and answers on the last one when it continues. The client does not wait
/// for the end of the backoff.
#[tokio::test]
async fn a_silent_server_serves_as_soon_as_it_answers_whatever_the_backoff() {
    let (addr, dials) = counting_server(|socket, dials_before| async move {
        if dials_before < 2 {
            never_reply(socket).await;
        } else {
            always_miss(socket).await;
        }
    })
    .await;
    let hour = Duration::from_secs(3600);
    let cache = Client::builder().nodes([addr.to_string()]).redial_backoff(hour, hour).connect().await.unwrap();
    eventually("the server answers", async || is_miss(&cache.get("a").await)).await;
    assert_eq!(dials.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_reply_for_another_key_is_never_returned() {
    let addr = scripted_server(|socket| always_reply(socket, b"VALUE other 0 5\r\nwrong\r\nEND\r\n")).await;
    let cache = default_client(addr).await;
    for _ in 0..20 {
        let error = cache.get("mine").await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Protocol | ErrorKind::Unavailable | ErrorKind::Timeout), "{error:?}");
    }
}

#[tokio::test]
async fn a_crashed_pod_fails_only_its_own_keys_and_serves_again_after_a_restart() {
    let service = service(3).await;
    let cache = service_client(&service, fast_polling()).await;
    let nodes: Vec<_> = cache.topology().nodes.into_iter().map(|node| node.id).collect();
    let keys: Vec<_> = nodes.iter().map(|node| key_owned_by(&cache, node)).collect();
    for key in &keys {
        cache.set(key, key.clone(), MINUTE).await.unwrap();
    }
    service.crash(1).await.unwrap();
    repeat_for(Duration::from_millis(600), async || {
        for (pod, key) in keys.iter().enumerate() {
            match within(LONG_TIMEOUT, cache.get(key)).await {
                Ok(item) => assert!(pod != 1 && item.unwrap().value == key.as_bytes(), "{key}"),
                Err(error) => {
                    assert_eq!(pod, 1, "{error:?}");
                    assert_eq!(error.node(), Some(&nodes[1]));
                    assert!(error.is_transient());
                }
            }
        }
    })
    .await;
    service.restart(1).await.unwrap();
    eventually("the pod serves again", async || is_miss(&cache.get(&keys[1]).await)).await;
    assert_eq!(cache.topology().version, 1, "no key moved");
}

#[tokio::test]
async fn requests_to_a_paused_pod_end_by_their_deadline_and_it_serves_again_after_a_resume() {
    let service = service(2).await;
    let short = service_client_builder(&service, fast_polling()).connect().await.unwrap();
    let cache = short.with_request_timeout(LONG_TIMEOUT);
    let nodes: Vec<_> = cache.topology().nodes.into_iter().map(|node| node.id).collect();
    let keys: Vec<_> = nodes.iter().map(|node| key_owned_by(&cache, node)).collect();
    for key in &keys {
        cache.set(key, key.clone(), MINUTE).await.unwrap();
    }
    service.pause(0).await.unwrap();
    repeat_for(Duration::from_secs(3), async || {
        let (paused, running) = tokio::join!(within(DEFAULT_TIMEOUT, short.get(&keys[0])), cache.get(&keys[1]));
        assert!(matches!(
            paused.unwrap_err().kind(),
            ErrorKind::Timeout | ErrorKind::Connection | ErrorKind::Unavailable
        ));
        assert_eq!(running.unwrap().unwrap().value, keys[1]);
    })
    .await;
    service.resume(0).await.unwrap();
    eventually("the pod serves again", async || {
        short.get(&keys[0]).await.is_ok_and(|item| item.is_some_and(|item| item.value == keys[0]))
    })
    .await;
}

#[tokio::test]
async fn a_dropped_get_never_affects_the_reply_to_the_next_get() {
    let (_server, cache) = memcached().await;
    for n in 0..200 {
        cache.set(format!("key-{n}"), format!("value-{n}"), MINUTE).await.unwrap();
    }
    for round in 0..200u64 {
        let (a, b) = (format!("key-{round}"), format!("key-{}", (round + 1) % 200));
        // The timeout drops the future at some point between not sent and just answered.
        let _ = timeout(Duration::from_micros(round), cache.get(&a)).await;
        assert_eq!(cache.get(&b).await.unwrap().unwrap().value, format!("value-{}", (round + 1) % 200));
    }
}

#[tokio::test]
async fn the_largest_possible_timeout_means_no_deadline() {
    let (server, _) = memcached().await;
    let builder = client_builder(server.addr()).request_timeout(Duration::MAX);
    let cache = builder.redial_backoff(Duration::from_millis(50), Duration::MAX).connect().await.unwrap();
    assert!(is_miss(&cache.get("a").await));
    assert!(is_miss(&cache.with_request_timeout(Duration::MAX).get("a").await));
    assert!(cache.get_many(["a"]).await.is_complete());
    assert!(cache.versions().await[0].1.is_ok());
    cache.shutdown().await;
}

/// An empty value without flags may be a lease placeholder, so the client asks a second time with a meta command.
#[tokio::test]
async fn the_second_request_for_an_empty_value_keeps_the_deadline_of_the_get() {
    let addr = scripted_server(|mut socket| async move {
        let mut line = vec![0; 4096];
        while let Ok(count @ 1..) = socket.read(&mut line).await {
            match line[..count].split(|byte| *byte == b' ' || *byte == b'\r').next() {
                Some(b"get") => {
                    tokio::time::sleep(DEFAULT_TIMEOUT * 2 / 3).await;
                    socket.write_all(b"VALUE k 0 0\r\n\r\nEND\r\n").await.unwrap();
                }
                Some(b"version") => socket.write_all(b"VERSION 1.6.18\r\n").await.unwrap(),
                _ => {}
            }
        }
    })
    .await;
    let cache = default_client(addr).await;
    assert_eq!(within(DEFAULT_TIMEOUT, cache.get("k")).await.unwrap_err().kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn the_second_request_of_a_get_that_waited_for_queue_space_keeps_the_deadline_of_the_get() {
    let addr = scripted_server(|mut socket| async move {
        let mut line = vec![0; 4096];
        while let Ok(count @ 1..) = socket.read(&mut line).await {
            let reply: &[u8] = match &line[..count] {
                b"get k\r\n" => b"VALUE k 0 0\r\n\r\nEND\r\n",
                b"version\r\n" => b"VERSION 1.6.18\r\n",
                get if get.starts_with(b"get ") => b"END\r\n",
                _ => continue,
            };
            tokio::time::sleep(DEFAULT_TIMEOUT / 4).await;
            socket.write_all(reply).await.unwrap();
        }
    })
    .await;
    let builder = Client::builder().nodes([addr.to_string()]).connections_per_node(1).queue_limits(1, 1 << 20);
    let cache = builder.connect().await.unwrap();
    let get_after = async |delay: Duration, key: &'static str| {
        tokio::time::sleep(delay).await;
        cache.get(key).await
    };
    let (_in_flight, _queued, waiting) = tokio::join!(
        get_after(Duration::ZERO, "a"),
        get_after(DEFAULT_TIMEOUT / 20, "b"),
        within(DEFAULT_TIMEOUT + DEFAULT_TIMEOUT / 10, get_after(DEFAULT_TIMEOUT / 10, "k")),
    );
    assert_eq!(waiting.unwrap_err().kind(), ErrorKind::Timeout);
}
