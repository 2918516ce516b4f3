//! The circuit breaker of a node: a server that is stopped, slow or gone costs its callers one request timeout, and
//! other nodes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memring::testing::Memcached;
use memring::{BreakerOptions, Client, Delivery, Error, ErrorKind, NodeId, NodeState};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::{DEFAULT_TIMEOUT, MINUTE, TEST_TIMEOUT, default_client, eventually, key_owned_by, node_id};

/// Servers, and a client of all of them with default options.
async fn servers(count: usize) -> (Vec<Memcached>, Client) {
    let mut servers = Vec::new();
    for _ in 0..count {
        servers.push(Memcached::start().await.unwrap());
    }
    let nodes = servers.iter().map(|server| server.addr().to_string());
    let cache = Client::builder().nodes(nodes).connect().await.unwrap();
    (servers, cache)
}

fn state(cache: &Client, node: &NodeId) -> NodeState {
    cache.topology().nodes.iter().find(|info| info.id == *node).unwrap().state
}

fn assert_fails_fast(error: &Error) {
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Unavailable, Delivery::NotSent), "{error}");
    assert!(error.is_transient() && error.to_string().contains("circuit breaker open"), "{error}");
}

/// Returns the median time that a get takes, of many.
async fn median_time_of_get(cache: &Client, key: &str) -> Duration {
    let mut times = Vec::new();
    for _ in 0..101 {
        let start = Instant::now();
        let _ = cache.get(key).await;
        times.push(start.elapsed());
    }
    times.sort();
    times[times.len() / 2]
}

#[tokio::test]
async fn a_stopped_server_fails_fast_after_one_timeout_and_serves_again_within_a_second() {
    let (servers, cache) = servers(2).await;
    let stopped = node_id(servers[0].addr());
    let (key, other) = (key_owned_by(&cache, &stopped), key_owned_by(&cache, &node_id(servers[1].addr())));
    cache.set(&key, "v", MINUTE).await.unwrap();
    cache.set(&other, "v", MINUTE).await.unwrap();
    for pause in [DEFAULT_TIMEOUT * 2, Duration::from_millis(3_300)] {
        servers[0].pause().await.unwrap();
        let begin = Instant::now();
        assert_eq!(cache.get(&key).await.unwrap_err().kind(), ErrorKind::Timeout);
        eventually("the breaker opens", async || state(&cache, &stopped) == NodeState::CircuitOpen).await;
        // While the connection is silent, when it is closed, and on the next.
        while begin.elapsed() < pause {
            assert_fails_fast(&cache.get(&key).await.unwrap_err());
            assert_fails_fast(&cache.set(&key, "w", MINUTE).await.unwrap_err());
            assert!(cache.get(&other).await.unwrap().is_some());
            let mut both = cache.get_many([&key, &other]).await;
            assert_eq!(both.hits.len(), 1);
            assert_fails_fast(&both.errors.pop().unwrap().error);
            sleep(Duration::from_millis(5)).await;
        }
        let took = median_time_of_get(&cache, &key).await;
        assert!(took < Duration::from_micros(if cfg!(debug_assertions) { 500 } else { 50 }), "{took:?}");
        servers[0].resume().await.unwrap();
        let resumed = Instant::now();
        eventually("the breaker closes", async || state(&cache, &stopped) == NodeState::Connected).await;
        assert!(resumed.elapsed() < Duration::from_secs(1), "after {:?}", resumed.elapsed());
        assert_eq!(cache.get(&key).await.unwrap().unwrap().value, "v");
        assert_eq!(state(&cache, &node_id(servers[1].addr())), NodeState::Connected);
    }
}

#[tokio::test]
async fn calls_in_the_queue_of_a_silent_server_fail_when_its_breaker_opens() {
    let server = Memcached::start().await.unwrap();
    let cache = default_client(server.addr()).await;
    cache.get("warm").await.unwrap();
    server.pause().await.unwrap();
    let sent = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get("sent").await }
    });
    sleep(DEFAULT_TIMEOUT / 2).await;
    let start = Instant::now();
    assert_fails_fast(&cache.get("queued").await.unwrap_err());
    assert!(start.elapsed() < DEFAULT_TIMEOUT, "after {:?}", start.elapsed());
    assert_eq!(sent.await.unwrap().unwrap_err().delivery(), Delivery::Unknown);
    server.resume().await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_gone_fails_fast_within_three_failures() {
    let (mut servers, cache) = servers(3).await;
    let gone = node_id(servers[0].addr());
    let key = key_owned_by(&cache, &gone);
    cache.set(&key, "v", MINUTE).await.unwrap();
    servers[0].kill().await.unwrap();
    for _ in 0..3 {
        cache.get(&key).await.unwrap_err();
    }
    for _ in 0..100 {
        let error = cache.get(&key).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Unavailable, Delivery::NotSent), "{error}");
    }
    assert_eq!(state(&cache, &gone), NodeState::Unreachable);
}

#[tokio::test]
async fn a_disabled_breaker_lets_calls_wait_for_a_silent_server() {
    let server = Memcached::start().await.unwrap();
    let node = server.addr().to_string();
    let builder = Client::builder().nodes([node]).circuit_breaker(BreakerOptions::disabled());
    let cache = builder.request_timeout(Duration::from_millis(100)).connect().await.unwrap();
    cache.get("warm").await.unwrap();
    server.pause().await.unwrap();
    for _ in 0..8 {
        assert_eq!(cache.get("k").await.unwrap_err().kind(), ErrorKind::Timeout);
    }
    server.resume().await.unwrap();
}

/// A stall of this process is not held against healthy servers.
#[tokio::test]
async fn a_stall_of_this_process_opens_no_breaker() {
    let (servers, cache) = servers(3).await;
    let keys: Vec<_> = servers.iter().map(|server| key_owned_by(&cache, &node_id(server.addr()))).collect();
    for stall in [100, 300, 1_000, 1_500].map(Duration::from_millis) {
        let mut gets = JoinSet::new();
        for key in &keys {
            let (cache, key) = (cache.clone(), key.clone());
            gets.spawn(async move { cache.get(key).await.map(drop) });
        }
        // The gets are sent, and the only thread is blocked before it can read the replies.
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        std::thread::sleep(stall);
        while let Some(outcome) = gets.join_next().await {
            let kind = outcome.unwrap().err().map(|error| error.kind());
            assert!(matches!(kind, None | Some(ErrorKind::Timeout)), "{kind:?}");
        }
        for key in &keys {
            cache.get(key).await.unwrap();
        }
        assert!(cache.topology().nodes.iter().all(|node| node.state == NodeState::Connected));
    }
}

/// Starts a server that answers each request line with a miss, after `delay` milliseconds. Returns its node.
async fn slow_server(delay: impl Fn(&str) -> u64 + Send + Sync + 'static) -> String {
    let delay = Arc::new(delay);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let node = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let delay = Arc::clone(&delay);
            tokio::spawn(async move {
                let (reader, mut writer) = socket.into_split();
                let mut lines = BufReader::new(reader).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    sleep(Duration::from_millis(delay(&line))).await;
                    if writer.write_all(b"END\r\n").await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    node
}

#[tokio::test]
async fn a_slow_server_stays_open_until_it_replies_in_time() {
    let delay = Arc::new(AtomicU64::new(0));
    let node = slow_server({
        let delay = Arc::clone(&delay);
        move |_| delay.load(Ordering::SeqCst)
    })
    .await;
    let options = BreakerOptions::default().timeout_share(0.5, 5, Duration::from_secs(10));
    let cache = Client::builder().nodes([&node]).circuit_breaker(options).connect().await.unwrap();
    cache.get("k").await.unwrap();
    delay.store(400, Ordering::SeqCst);
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < TEST_TIMEOUT);
        match cache.get("k").await {
            Err(error) if error.to_string().contains("too many requests have timed out") => break,
            _ => sleep(Duration::from_millis(10)).await,
        }
    }
    // Its late replies do not close the breaker.
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        assert_fails_fast(&cache.get("k").await.unwrap_err());
        sleep(Duration::from_millis(10)).await;
    }
    delay.store(0, Ordering::SeqCst);
    eventually("the breaker closes", async || cache.get("k").await.is_ok()).await;
}

#[tokio::test]
async fn a_view_with_a_longer_timeout_waits_for_a_slow_reply_without_opening_the_breaker() {
    let node = slow_server(|_| 400).await;
    let cache = Client::builder().nodes([&node]).connect().await.unwrap();
    let patient = cache.with_request_timeout(Duration::from_secs(5));
    let node: NodeId = node.parse().unwrap();
    for _ in 0..3 {
        let get = patient.get("k");
        tokio::pin!(get);
        loop {
            tokio::select! {
                outcome = &mut get => break assert!(outcome.unwrap().is_none()),
                () = sleep(Duration::from_millis(10)) => assert_eq!(state(&cache, &node), NodeState::Connected),
            }
        }
    }
}

/// Such a key has a large value, or belongs to a slow server behind a proxy.
#[tokio::test]
async fn a_key_that_is_always_slow_does_not_keep_the_breaker_open() {
    let node = slow_server(|line| if line.contains("slow") { 400 } else { 0 }).await;
    let options = BreakerOptions::default().timeout_share(0.5, 1, Duration::from_secs(10));
    let cache = Client::builder().nodes([&node]).circuit_breaker(options).connect().await.unwrap();
    assert_eq!(cache.get("slow").await.unwrap_err().kind(), ErrorKind::Timeout);
    eventually("the breaker is open because the server is slow", async || {
        let error = cache.get("other").await.err();
        error.is_some_and(|error| error.to_string().contains("too many requests have timed out"))
    })
    .await;
    eventually("the breaker closes", async || cache.get("other").await.is_ok()).await;
}
