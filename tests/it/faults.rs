//! Pods and servers that die, stop, or never answer.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use memring::{
    Client, Delivery, Discovery, DiscoveryError, DiscoveryOptions, Endpoint, ErrorKind, Membership, NodeId, NodeState,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{
    DEADLINE, NO_HURRY, accept, builder, by, eventually, follow, is_miss, key_on, memcached, peer, quick, service,
};

const MINUTE: Duration = Duration::from_secs(60);

/// Reads what it is sent and never says a word.
pub(crate) async fn mute(mut socket: TcpStream) {
    let mut sink = vec![0; 4096];
    while socket.read(&mut sink).await.is_ok_and(|count| count > 0) {}
}

async fn client_of(addr: SocketAddr) -> Client {
    Client::builder().nodes([addr.to_string()]).connect().await.unwrap()
}

#[tokio::test]
async fn a_server_that_never_answers_costs_a_deadline_and_leaves_no_task() {
    let addr = peer(mute).await;
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let cache = client_of(addr).await;
    for _ in 0..5 {
        let error = by(DEADLINE, cache.get("a")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
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
    // Connecting waits for no node for long, and nobody waits for one that cannot be reached.
    let cache = by(Duration::from_secs(2), client_of(addr)).await;
    let error = by(Duration::ZERO, cache.get("a")).await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Unavailable, Delivery::NotSent));
    assert!(std::error::Error::source(&error).is_some());
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
        assert!(by(DEADLINE, cache.get("a")).await.is_err());
    }
    let dials = dials.load(Ordering::Relaxed);
    assert!((2..=12).contains(&dials), "{dials} dials in 1.5 s");
}

#[tokio::test]
async fn connections_that_are_waiting_to_dial_again_keep_nobody_waiting() {
    // Hangs up on connections with nothing to do.
    let addr = peer(|socket| async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(socket);
    })
    .await;
    let builder = Client::builder().nodes([addr.to_string()]).connections_per_node(2);
    let cache = builder.redial_backoff(NO_HURRY, NO_HURRY).connect().await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    for _ in 0..4 {
        assert!(by(DEADLINE, cache.get("a")).await.is_err());
    }
}

/// One node, listed wherever it is said to be.
#[derive(Debug)]
struct Listed {
    id: NodeId,
    ip: Arc<Mutex<IpAddr>>,
}

impl Discovery for Listed {
    async fn discover(&self) -> Result<Membership, DiscoveryError> {
        let ip = *self.ip.lock().unwrap();
        Ok(Membership::new([Endpoint::new(self.id.clone()).with_addresses([ip])]))
    }
}

#[tokio::test]
async fn one_connection_is_enough_where_a_second_is_not_to_be_had() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        // Whoever comes after is refused.
        drop(listener);
        let mut sink = vec![0; 4096];
        while socket.read(&mut sink).await.is_ok_and(|count| count > 0) {
            let _ = socket.write_all(b"END\r\n").await;
        }
    });
    let builder = Client::builder().nodes([addr.to_string()]).connections_per_node(2);
    let cache = builder.request_timeout(NO_HURRY).connect().await.unwrap();
    // The second may have been taken by the kernel for a moment.
    tokio::time::sleep(Duration::from_millis(500)).await;
    for _ in 0..50 {
        assert!(is_miss(&cache.get("a").await));
    }
}

/// Rows 9 and 11: a node listed elsewhere is followed at once, and not only when its old place stops answering.
#[tokio::test]
async fn a_node_is_followed_though_its_old_address_still_answers() {
    let before = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = before.local_addr().unwrap();
    let elsewhere: IpAddr = [127, 0, 0, 2].into();
    let Ok(after) = TcpListener::bind((elsewhere, addr.port())).await else {
        return eprintln!("skipped: no second loopback address to be had");
    };
    let misses = |mut socket: TcpStream| async move {
        let mut sink = vec![0; 4096];
        while socket.read(&mut sink).await.is_ok_and(|count| count > 0) {
            let _ = socket.write_all(b"END\r\n").await;
        }
    };
    accept(before, misses);
    accept(after, misses);
    let ip = Arc::new(Mutex::new(addr.ip()));
    let source = Listed { id: NodeId::new("pod-0", addr.port()).unwrap(), ip: Arc::clone(&ip) };
    let builder = Client::builder().discovery(source).discovery_options(quick());
    let cache = builder.request_timeout(NO_HURRY).connect().await.unwrap();
    assert!(is_miss(&cache.get("a").await));
    *ip.lock().unwrap() = elsewhere;
    eventually("it is followed", async || {
        assert!(is_miss(&cache.get("a").await));
        cache.topology().nodes[0].address.is_some_and(|address| address.ip() == elsewhere)
    })
    .await;
    assert_eq!((cache.topology().version, cache.topology().addr_epoch), (1, 1));
}

/// Lists whatever it is told to.
#[derive(Debug)]
pub(crate) struct Told(pub(crate) Arc<Mutex<Vec<NodeId>>>);

impl Discovery for Told {
    async fn discover(&self) -> Result<Membership, DiscoveryError> {
        Ok(Membership::new(self.0.lock().unwrap().iter().cloned().map(Endpoint::new)))
    }
}

#[tokio::test]
async fn a_node_that_leaves_still_answers_what_was_asked() {
    let (asked, heard) = tokio::sync::watch::channel(false);
    let (leave, left) = tokio::sync::watch::channel(false);
    let addr = peer(move |mut socket| {
        let (asked, mut left) = (asked.clone(), left.clone());
        async move {
            let mut sink = vec![0; 4096];
            if socket.read(&mut sink).await.is_ok_and(|count| count > 0) {
                asked.send_replace(true);
                let _ = left.wait_for(|left| *left).await;
                let _ = socket.write_all(b"END\r\n").await;
            }
        }
    })
    .await;
    let other = peer(|socket| async move {
        let _socket = socket;
        std::future::pending().await
    })
    .await;
    let id = |addr: SocketAddr| addr.to_string().parse::<NodeId>().unwrap();
    let listed = Arc::new(Mutex::new(vec![id(addr), id(other)]));
    let builder = Client::builder().discovery(Told(Arc::clone(&listed)));
    let options = quick().removal_grace(Duration::ZERO);
    let cache = builder.discovery_options(options).request_timeout(NO_HURRY).connect().await.unwrap();
    let key = key_on(&cache, &id(addr));
    let (answer, ()) = tokio::join!(cache.get(&key), async {
        let mut heard = heard.clone();
        heard.wait_for(|heard| *heard).await.unwrap();
        listed.lock().unwrap().remove(0);
        eventually("the node has left", async || cache.topology().nodes.len() == 1).await;
        leave.send_replace(true);
    });
    assert!(is_miss(&answer), "{answer:?}");
    assert_eq!(cache.node_for(&key).unwrap(), id(other));
}

#[tokio::test]
async fn who_waits_at_the_door_of_a_node_that_leaves_is_let_in_by_the_next_owner() {
    let (leave, left) = tokio::sync::watch::channel(false);
    let addr = peer(move |mut socket| {
        let mut left = left.clone();
        async move {
            let _ = socket.read(&mut [0; 4096]).await;
            let _ = left.wait_for(|left| *left).await;
        }
    })
    .await;
    let other = peer(|mut socket| async move {
        let mut sink = vec![0; 4096];
        while socket.read(&mut sink).await.is_ok_and(|count| count > 0) {
            let _ = socket.write_all(b"END\r\n").await;
        }
    })
    .await;
    let id = |addr: SocketAddr| addr.to_string().parse::<NodeId>().unwrap();
    let listed = Arc::new(Mutex::new(vec![id(addr), id(other)]));
    let builder = Client::builder().discovery(Told(Arc::clone(&listed))).queue_limits(1, 1 << 20);
    let options = quick().removal_grace(Duration::ZERO);
    let cache = builder.discovery_options(options).request_timeout(NO_HURRY).connect().await.unwrap();
    let key = key_on(&cache, &id(addr));
    let ask = async |before: u64| {
        tokio::time::sleep(Duration::from_millis(before)).await;
        cache.get(&key).await
    };
    let (written, queued, outside, ()) = tokio::join!(ask(0), ask(100), ask(200), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        listed.lock().unwrap().remove(0);
        eventually("the node has left", async || cache.topology().nodes.len() == 1).await;
        leave.send_replace(true);
    });
    assert_eq!(written.unwrap_err().delivery(), Delivery::Unknown);
    assert_eq!(queued.unwrap_err().delivery(), Delivery::NotSent);
    assert!(is_miss(&outside), "{outside:?}");
}

/// Row 40: a pod that is listed and does not listen is dialled at growing intervals, and stays a member.
#[tokio::test]
async fn a_pod_that_refuses_is_dialled_ever_less_often_and_keeps_its_place() {
    #[derive(Debug)]
    struct Refusing {
        id: NodeId,
        dials: Arc<std::sync::atomic::AtomicUsize>,
    }
    impl Discovery for Refusing {
        async fn discover(&self) -> Result<Membership, DiscoveryError> {
            Ok(Membership::new([Endpoint::new(self.id.clone())]))
        }
        async fn resolve(&self, _: &str) -> Result<Vec<IpAddr>, DiscoveryError> {
            self.dials.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(vec![[127, 0, 0, 1].into()])
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let id = NodeId::new("pod-0", listener.local_addr().unwrap().port()).unwrap();
    drop(listener);
    let dials = Arc::default();
    let source = Refusing { id, dials: Arc::clone(&dials) };
    // Without an address in the listing every answer is worth a dial; here the backoff is to be seen.
    let rarely = DiscoveryOptions::default().poll_interval(MINUTE, MINUTE);
    let cache = Client::builder().discovery(source).discovery_options(rarely).connect().await.unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1_500) {
        assert_eq!(by(Duration::ZERO, cache.get("a")).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    let dials = dials.load(std::sync::atomic::Ordering::Relaxed);
    assert!((2..=12).contains(&dials), "{dials} dials in 1.5 s");
    assert_eq!(cache.topology().version, 1);
}

#[tokio::test]
async fn a_move_to_a_server_that_hangs_up_keeps_nobody_waiting() {
    let before = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = before.local_addr().unwrap();
    let elsewhere: IpAddr = [127, 0, 0, 2].into();
    let Ok(after) = TcpListener::bind((elsewhere, addr.port())).await else {
        return eprintln!("skipped: no second loopback address to be had");
    };
    accept(before, mute);
    accept(after, |socket| async move { drop(socket) });
    let ip = Arc::new(Mutex::new(addr.ip()));
    let source = Listed { id: NodeId::new("pod-0", addr.port()).unwrap(), ip: Arc::clone(&ip) };
    let builder = Client::builder().discovery(source).discovery_options(quick());
    let cache = builder.redial_backoff(NO_HURRY, NO_HURRY).connect().await.unwrap();
    let patience = Duration::from_millis(800);
    let patient = cache.with_request_timeout(patience);
    let (answer, ()) = tokio::join!(by(patience, patient.get("a")), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        *ip.lock().unwrap() = elsewhere;
    });
    assert_eq!(answer.unwrap_err().delivery(), Delivery::Unknown);
}

#[tokio::test]
async fn a_shutdown_waits_for_replies_owed_on_a_connection_that_was_replaced() {
    let before = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = before.local_addr().unwrap();
    let elsewhere: IpAddr = [127, 0, 0, 2].into();
    let Ok(after) = TcpListener::bind((elsewhere, addr.port())).await else {
        return eprintln!("skipped: no second loopback address to be had");
    };
    accept(before, |mut socket| async move {
        let _ = socket.read(&mut [0; 4096]).await;
        tokio::time::sleep(Duration::from_millis(800)).await;
        let _ = socket.write_all(b"END\r\n").await;
    });
    accept(after, |mut socket| async move {
        let _ = socket.read(&mut [0; 4096]).await;
    });
    let ip = Arc::new(Mutex::new(addr.ip()));
    let source = Listed { id: NodeId::new("pod-0", addr.port()).unwrap(), ip: Arc::clone(&ip) };
    let builder = Client::builder().discovery(source).discovery_options(quick());
    let cache = builder.request_timeout(Duration::from_secs(2)).connect().await.unwrap();
    let (answer, ()) = tokio::join!(cache.get("a"), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        *ip.lock().unwrap() = elsewhere;
        eventually("it is followed", async || {
            cache.topology().nodes[0].address.is_some_and(|address| address.ip() == elsewhere)
        })
        .await;
        cache.shutdown().await;
    });
    assert!(is_miss(&answer), "{answer:?}");
}

#[tokio::test]
async fn a_shutdown_waits_for_no_dial() {
    // Hangs up without a word on whoever asked something.
    let addr = peer(|mut socket| async move {
        let _ = socket.read(&mut [0; 4096]).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    })
    .await;
    let builder = Client::builder().nodes([addr.to_string()]).redial_backoff(NO_HURRY, NO_HURRY);
    let cache = builder.connect().await.unwrap();
    let (answer, ()) = tokio::join!(cache.get("a"), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        by(Duration::from_millis(500), cache.shutdown()).await;
    });
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Connection);
}

#[tokio::test]
async fn a_deadline_beyond_all_time_is_none() {
    let (server, _) = memcached().await;
    let builder = Client::builder().nodes([server.addr().to_string()]).request_timeout(Duration::MAX);
    let cache = builder.redial_backoff(Duration::from_millis(50), Duration::MAX).connect().await.unwrap();
    assert!(is_miss(&cache.get("a").await));
    assert!(is_miss(&cache.with_request_timeout(Duration::MAX).get("a").await));
    assert!(cache.get_many(["a"]).await.is_complete());
    assert!(cache.versions().await[0].1.is_ok());
    cache.shutdown().await;
}

/// However long the backoff: whoever is stopped takes connections all the same, and answers on the last one when it
/// goes on.
#[tokio::test]
async fn a_server_that_was_silent_serves_as_soon_as_it_speaks() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let dials = Arc::new(AtomicUsize::new(0));
    let addr = peer({
        let dials = Arc::clone(&dials);
        move |mut socket| {
            let speaks = dials.fetch_add(1, Ordering::Relaxed) >= 2;
            async move {
                let mut sink = vec![0; 4096];
                while socket.read(&mut sink).await.is_ok_and(|count| count > 0) {
                    if speaks {
                        let _ = socket.write_all(b"END\r\n").await;
                    }
                }
            }
        }
    })
    .await;
    let hour = Duration::from_secs(3600);
    let cache = Client::builder().nodes([addr.to_string()]).redial_backoff(hour, hour).connect().await.unwrap();
    eventually("it serves", async || is_miss(&cache.get("a").await)).await;
    assert_eq!(dials.load(Ordering::Relaxed), 3);
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
            match by(NO_HURRY, cache.get(key)).await {
                Ok(item) => assert!(at != 1 && item.unwrap().value == key.as_bytes(), "{key}"),
                Err(error) => {
                    assert_eq!(at, 1, "{error:?}");
                    assert_eq!(error.node(), Some(&nodes[1]));
                    assert!(error.is_transient());
                }
            }
        }
    }
    service.restart(1).await.unwrap();
    eventually("the pod serves again", async || is_miss(&cache.get(&keys[1]).await)).await;
    assert_eq!(cache.topology().version, 1, "no key moved");
}

#[tokio::test]
async fn a_stopped_pod_costs_deadlines_never_more_and_serves_again() {
    let service = service(2).await;
    let hasty = builder(&service, quick()).connect().await.unwrap();
    let cache = hasty.with_request_timeout(NO_HURRY);
    let nodes: Vec<_> = cache.topology().nodes.into_iter().map(|node| node.id).collect();
    let keys: Vec<_> = nodes.iter().map(|node| key_on(&cache, node)).collect();
    for key in &keys {
        cache.set(key, key.clone(), MINUTE).await.unwrap();
    }
    service.pause(0).await.unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        let (stopped, running) = tokio::join!(by(DEADLINE, hasty.get(&keys[0])), cache.get(&keys[1]));
        assert!(matches!(
            stopped.unwrap_err().kind(),
            ErrorKind::Timeout | ErrorKind::Connection | ErrorKind::Unavailable
        ));
        assert_eq!(running.unwrap().unwrap().value, keys[1]);
    }
    service.resume(0).await.unwrap();
    eventually("the pod serves again", async || {
        hasty.get(&keys[0]).await.is_ok_and(|item| item.is_some_and(|item| item.value == keys[0]))
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

#[test]
fn a_runtime_that_ends_takes_no_caller_on_another_with_it() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let cache = first.block_on(async {
        let addr = peer(mute).await;
        let builder = Client::builder().nodes([addr.to_string()]).connections_per_node(2);
        builder.request_timeout(NO_HURRY).connect().await.unwrap()
    });
    let waiting: Vec<_> = (0..10)
        .map(|n| {
            let cache = cache.clone();
            second.spawn(async move { cache.get(format!("key-{n}")).await })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    drop(first);
    second.block_on(async {
        for caller in waiting {
            let error = caller.await.unwrap().unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Connection | ErrorKind::Unavailable), "{error:?}");
        }
        assert_eq!(cache.get("a").await.unwrap_err().kind(), ErrorKind::Unavailable);
        cache.shutdown().await;
    });
    // At once, that is, and not by their deadlines.
    assert!(start.elapsed() < NO_HURRY / 2, "{:?}", start.elapsed());
}

/// An empty value is looked at once more, in what is left of the get's time.
#[tokio::test]
async fn a_second_look_at_an_empty_value_keeps_the_one_deadline() {
    let addr = peer(|mut socket| async move {
        let mut line = vec![0; 4096];
        while let Ok(count @ 1..) = socket.read(&mut line).await {
            match line[..count].split(|byte| *byte == b' ' || *byte == b'\r').next() {
                Some(b"get") => {
                    tokio::time::sleep(DEADLINE * 2 / 3).await;
                    socket.write_all(b"VALUE k 0 0\r\n\r\nEND\r\n").await.unwrap();
                }
                Some(b"version") => socket.write_all(b"VERSION 1.6.18\r\n").await.unwrap(),
                _ => {}
            }
        }
    })
    .await;
    let cache = client_of(addr).await;
    assert_eq!(by(DEADLINE, cache.get("k")).await.unwrap_err().kind(), ErrorKind::Timeout);
}

/// So it does where the first had to wait for room in the queue.
#[tokio::test]
async fn a_second_look_by_one_who_waited_for_room_keeps_the_one_deadline() {
    let addr = peer(|mut socket| async move {
        let mut line = vec![0; 4096];
        while let Ok(count @ 1..) = socket.read(&mut line).await {
            let reply: &[u8] = match &line[..count] {
                b"get k\r\n" => b"VALUE k 0 0\r\n\r\nEND\r\n",
                b"version\r\n" => b"VERSION 1.6.18\r\n",
                get if get.starts_with(b"get ") => b"END\r\n",
                _ => continue,
            };
            tokio::time::sleep(DEADLINE / 4).await;
            socket.write_all(reply).await.unwrap();
        }
    })
    .await;
    let builder = Client::builder().nodes([addr.to_string()]).connections_per_node(1).queue_limits(1, 1 << 20);
    let cache = builder.connect().await.unwrap();
    let ask = async |before: Duration, key: &'static str| {
        tokio::time::sleep(before).await;
        cache.get(key).await
    };
    let (_written, _queued, outside) = tokio::join!(
        ask(Duration::ZERO, "a"),
        ask(DEADLINE / 20, "b"),
        by(DEADLINE + DEADLINE / 10, ask(DEADLINE / 10, "k")),
    );
    assert_eq!(outside.unwrap_err().kind(), ErrorKind::Timeout);
}
