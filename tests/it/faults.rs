//! Pods and servers that die, stop, or never answer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use memring::{Client, Delivery, ErrorKind, NodeState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{eventually, follow, is_miss, key_on, memcached, quick, service};

const MINUTE: Duration = Duration::from_secs(60);
const DEADLINE: Duration = Duration::from_millis(250);
const SLACK: Duration = Duration::from_millis(50);

/// A server that takes connections and hands each to `serve`.
async fn peer<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(tokio::net::TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket));
        }
    });
    addr
}

async fn client_of(addr: SocketAddr) -> Client {
    Client::builder().nodes([addr.to_string()]).connect().await.unwrap()
}

#[tokio::test]
async fn a_server_that_never_answers_costs_a_deadline_and_leaves_no_task() {
    let addr = peer(|mut socket| async move {
        let mut sink = vec![0; 4096];
        while socket.read(&mut sink).await.is_ok_and(|count| count > 0) {}
    })
    .await;
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let cache = client_of(addr).await;
    for _ in 0..5 {
        let start = Instant::now();
        let error = cache.get("a").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(start.elapsed() < DEADLINE + SLACK, "{:?}", start.elapsed());
    }
    drop(cache);
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    // The peer's own task for the connection ends with it.
    eventually("every task has ended", async || alive() <= before).await;
}

#[tokio::test]
async fn nothing_listening_fails_at_once_and_heals() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let start = Instant::now();
    let cache = client_of(addr).await;
    assert!(start.elapsed() < Duration::from_secs(2), "connecting waits for no node for long");
    let start = Instant::now();
    let error = cache.get("a").await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Unavailable, Delivery::NotSent));
    assert!(std::error::Error::source(&error).is_some());
    assert!(start.elapsed() < SLACK, "{:?}", start.elapsed());
    assert_eq!(cache.topology().nodes[0].state, NodeState::Unreachable);

    let listener = TcpListener::bind(addr).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut sink = vec![0; 4096];
                while socket.read(&mut sink).await.is_ok_and(|count| count > 0) {
                    let _ = socket.write_all(b"END\r\n").await;
                }
            });
        }
    });
    eventually("the node is back", async || is_miss(&cache.get("a").await)).await;
}

#[tokio::test]
async fn a_server_that_hangs_up_on_everyone_is_not_dialled_in_a_hot_loop() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let dials = Arc::new(AtomicUsize::new(0));
    let addr = peer({
        let dials = Arc::clone(&dials);
        move |mut socket| {
            dials.fetch_add(1, Ordering::Relaxed);
            async move {
                let _ = socket.write_all(b"ERROR Too many open connections\r\n").await;
            }
        }
    })
    .await;
    let cache = client_of(addr).await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1_500) {
        let asked = Instant::now();
        assert!(cache.get("a").await.is_err());
        assert!(asked.elapsed() < DEADLINE + SLACK);
    }
    let dials = dials.load(Ordering::Relaxed);
    assert!((2..=12).contains(&dials), "{dials} dials in 1.5 s");
}

#[tokio::test]
async fn replies_meant_for_others_are_never_believed() {
    // Answers every get with somebody else's value.
    let addr = peer(|mut socket| async move {
        let mut sink = vec![0; 4096];
        while socket.read(&mut sink).await.is_ok_and(|count| count > 0) {
            let _ = socket.write_all(b"VALUE other 0 5\r\nwrong\r\nEND\r\n").await;
        }
    })
    .await;
    let cache = client_of(addr).await;
    for _ in 0..20 {
        let error = cache.get("mine").await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Protocol | ErrorKind::Timeout), "{error:?}");
    }
}

#[tokio::test]
async fn a_dead_pod_fails_its_own_keys_only_and_serves_again_when_it_is_back() {
    let service = service(3).await;
    let cache = follow(&service, quick()).await;
    let nodes: Vec<_> = cache.topology().nodes.into_iter().map(|node| node.id).collect();
    let keys: Vec<_> = nodes.iter().map(|node| key_on(&cache, node)).collect();
    for key in &keys {
        cache.set(key, key.clone(), MINUTE).await.unwrap();
    }
    service.crash(1).await.unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(600) {
        for (at, key) in keys.iter().enumerate() {
            let asked = Instant::now();
            match cache.get(key).await {
                Ok(item) => assert!(at != 1 && item.unwrap().value == key.as_bytes(), "{key}"),
                Err(error) => {
                    assert_eq!(at, 1, "{error:?}");
                    assert_eq!(error.node(), Some(&nodes[1]));
                    assert!(error.is_transient());
                }
            }
            assert!(asked.elapsed() < DEADLINE + SLACK);
        }
    }
    service.restart(1).await.unwrap();
    eventually("the pod serves again", async || is_miss(&cache.get(&keys[1]).await)).await;
    assert_eq!(cache.topology().version, 1, "no key moved");
}

#[tokio::test]
async fn a_stopped_pod_costs_deadlines_never_more_and_serves_again() {
    let service = service(2).await;
    let cache = follow(&service, quick()).await;
    let nodes: Vec<_> = cache.topology().nodes.into_iter().map(|node| node.id).collect();
    let keys: Vec<_> = nodes.iter().map(|node| key_on(&cache, node)).collect();
    for key in &keys {
        cache.set(key, key.clone(), MINUTE).await.unwrap();
    }
    service.pause(0).await.unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        let asked = Instant::now();
        let (stopped, running) = tokio::join!(cache.get(&keys[0]), cache.get(&keys[1]));
        assert!(asked.elapsed() < DEADLINE + SLACK, "{:?}", asked.elapsed());
        assert!(matches!(
            stopped.unwrap_err().kind(),
            ErrorKind::Timeout | ErrorKind::Connection | ErrorKind::Unavailable
        ));
        assert_eq!(running.unwrap().unwrap().value, keys[1]);
    }
    service.resume(0).await.unwrap();
    eventually("the pod serves again", async || {
        cache.get(&keys[0]).await.is_ok_and(|item| item.is_some_and(|item| item.value == keys[0]))
    })
    .await;
}

#[tokio::test]
async fn callers_that_go_away_take_nothing_with_them() {
    let (_server, cache) = memcached().await;
    for n in 0..200 {
        cache.set(format!("key-{n}"), format!("value-{n}"), MINUTE).await.unwrap();
    }
    for round in 0..200u64 {
        let (a, b) = (format!("key-{round}"), format!("key-{}", (round + 1) % 200));
        // Dropped at some point between not sent and just answered.
        let _ = tokio::time::timeout(Duration::from_micros(round), cache.get(&a)).await;
        assert_eq!(cache.get(&b).await.unwrap().unwrap().value, format!("value-{}", (round + 1) % 200));
    }
}
