//! Servers that are slow, silent, or reachable by one transport only, and answers of all sizes.

use std::time::{Duration, Instant};

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::timeout;

use super::server::{FakeDns, SERVICE, Zone};
use crate::discovery::{Discovery, DiscoveryError, SrvDiscovery};

/// docs/discovery.md, rows 17 and 50: the caller's time limit is the only one.
#[tokio::test]
async fn a_silent_server_is_queried_until_the_caller_gives_up() {
    let dns = FakeDns::with_pods(2).await;
    dns.set(|zone| zone.silent = true);
    let discovery = dns.discovery();
    let lookup = timeout(Duration::from_secs(3), discovery.discover());
    assert!(lookup.await.is_err(), "there is no answer");
    let queries = dns.count_queries();
    assert!((3..=8).contains(&queries), "the query is resent, less and less often: {queries}");
}

/// docs/discovery.md, row 22: 300 pods do not fit a datagram.
#[tokio::test]
async fn a_long_answer_is_fetched_over_tcp() {
    let pods = (0..300).map(|pod| (format!("mc-{pod}.{SERVICE}"), 1)).collect();
    let dns = FakeDns::new(Zone { pods, glue: true, ..Zone::default() }).await;
    let discovery = dns.discovery();
    for _ in 0..3 {
        let found = discovery.discover().await.unwrap();
        assert_eq!(found.endpoints().len(), 300);
        assert!(found.endpoints().iter().all(|endpoint| endpoint.addresses().len() == 1));
    }
    assert_eq!(dns.take_queries()[1], format!("SRV {SERVICE} tcp"));
}

/// docs/discovery.md, row 23: never the part that fits the datagram.
#[tokio::test]
async fn a_truncated_answer_is_an_error_if_tcp_is_blocked() {
    let pods = (0..300).map(|pod| (format!("mc-{pod}.{SERVICE}"), 1)).collect();
    let dns = FakeDns::new(Zone { pods, tcp_blocked: true, ..Zone::default() }).await;
    let discovery = dns.discovery();
    assert!(timeout(Duration::from_secs(2), discovery.discover()).await.is_err());

    // A port that is closed for TCP, as behind a firewall that rejects.
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let discovery = SrvDiscovery::new(SERVICE).nameservers([server.local_addr().unwrap()]);
    let truncate = async {
        let mut buffer = [0; 512];
        let (len, peer) = server.recv_from(&mut buffer).await.unwrap();
        let mut reply = Message::from_vec(&buffer[..len]).unwrap();
        (reply.metadata.message_type, reply.metadata.truncation) = (MessageType::Response, true);
        server.send_to(&reply.to_vec().unwrap(), peer).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(discovery.discover(), truncate);
    assert_eq!(outcome, Err(DiscoveryError::Truncated));
}

/// docs/discovery.md, row 22: twelve pods fit a datagram that may be longer than 512 bytes.
#[tokio::test]
async fn edns_is_used() {
    let dns = FakeDns::with_pods(12).await;
    assert_eq!(dns.discovery().discover().await.unwrap().endpoints().len(), 12);
    assert_eq!(dns.take_queries(), [format!("SRV {SERVICE} udp")]);
}

/// docs/discovery.md, row 16.
#[tokio::test]
async fn another_server_is_queried_if_one_fails_or_is_silent() {
    let (failing, healthy) = (FakeDns::with_pods(3).await, FakeDns::with_pods(3).await);
    let discovery = SrvDiscovery::new(SERVICE).nameservers([failing.address, healthy.address]);
    for change in [
        |zone: &mut Zone| zone.code = Some(ResponseCode::ServFail),
        |zone: &mut Zone| zone.code = Some(ResponseCode::Refused),
        |zone: &mut Zone| zone.silent = true,
    ] {
        failing.set(change);
        for _ in 0..3 {
            let start = Instant::now();
            assert_eq!(discovery.discover().await.unwrap().endpoints().len(), 3);
            assert!(start.elapsed() < Duration::from_millis(1_900), "{:?}", start.elapsed());
        }
    }
    healthy.set(|zone| zone.code = Some(ResponseCode::ServFail));
    failing.set(|zone| *zone = Zone { code: Some(ResponseCode::Refused), ..Zone::default() });
    assert!(discovery.discover().await.unwrap_err().to_string().contains("REFUSED"));
}

/// docs/discovery.md, row 50: lookups have no time limit but the caller's.
#[tokio::test]
async fn a_slow_server_is_waited_for() {
    let dns = FakeDns::with_pods(2).await;
    dns.set(|zone| zone.delay = Duration::from_millis(2_500));
    assert_eq!(dns.discovery().discover().await.unwrap().endpoints().len(), 2);
}

/// docs/discovery.md, row 59: long before the caller gives up, and over UDP.
#[tokio::test]
async fn a_lost_datagram_is_resent() {
    let dns = FakeDns::with_pods(2).await;
    dns.set(|zone| (zone.lost_datagrams, zone.tcp_blocked) = (2, true));
    let start = Instant::now();
    let discovery = dns.discovery();
    let found = timeout(Duration::from_secs(30), discovery.discover()).await.unwrap();
    assert_eq!(found.unwrap().endpoints().len(), 2);
    assert!(start.elapsed() >= Duration::from_millis(850), "{:?}", start.elapsed());
    let queries = dns.count_queries();
    assert!(queries >= 3, "{queries}");
}

/// docs/discovery.md, row 53: only the first lookup waits for the dead server.
#[tokio::test]
async fn a_dead_first_server_delays_one_lookup() {
    let (dead, healthy) = (FakeDns::with_pods(3).await, FakeDns::with_pods(3).await);
    dead.set(|zone| zone.silent = true);
    let discovery = SrvDiscovery::new(SERVICE).nameservers([dead.address, healthy.address]);
    let start = Instant::now();
    assert_eq!(discovery.discover().await.unwrap().endpoints().len(), 3);
    assert!(start.elapsed() >= Duration::from_millis(500), "{:?}", start.elapsed());
    dead.take_queries();
    // On a busy machine the healthy server may lose its head start now and then.
    let mut asked = 0;
    for _ in 0..20 {
        let host = "mc-1.mc.default.svc.cluster.local";
        assert_eq!(discovery.resolve(host).await.unwrap().addresses().len(), 1);
        asked += usize::from(!dead.take_queries().is_empty());
    }
    assert!(asked < 10, "{asked}");
}

/// docs/discovery.md, row 54: only the first lookup waits for UDP.
#[tokio::test]
async fn tcp_is_used_where_udp_is_dropped() {
    let dns = FakeDns::with_pods(3).await;
    dns.set(|zone| zone.udp_blocked = true);
    let discovery = dns.discovery();
    let start = Instant::now();
    assert_eq!(discovery.discover().await.unwrap().endpoints().len(), 3);
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(dns.take_queries().contains(&format!("SRV {SERVICE} tcp")));
    let start = Instant::now();
    for _ in 0..10 {
        assert_eq!(discovery.discover().await.unwrap().endpoints().len(), 3);
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

/// docs/discovery.md, row 54.
#[tokio::test]
async fn no_datagram_is_sent_with_tcp_only() {
    let dns = FakeDns::with_pods(3).await;
    let discovery = dns.discovery().tcp_only();
    assert_eq!(discovery.discover().await.unwrap().endpoints().len(), 3);
    discovery.resolve("mc-0.mc.default.svc.cluster.local").await.unwrap();
    assert!(dns.take_queries().iter().all(|query| query.ends_with(" tcp")));
}

/// docs/discovery.md, row 54: a closed port is noticed at once.
#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_that_names_it() {
    let address = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = SrvDiscovery::new(SERVICE).nameservers([address]).discover().await.unwrap_err();
    assert!(matches!(error, DiscoveryError::Transport(_)), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

/// docs/discovery.md, row 55: truncated over TCP as well, or SERVFAIL.
#[tokio::test]
async fn an_answer_over_64_kib_is_an_error_that_says_what_to_do() {
    let pods = (0..300).map(|pod| (format!("{}-{pod}.{}.{SERVICE}", "x".repeat(50), "y".repeat(60)), 1)).collect();
    let dns = FakeDns::new(Zone { pods, glue: true, ..Zone::default() }).await;
    for is_servfail in [false, true] {
        dns.set(|zone| zone.servfail_if_too_long = is_servfail);
        let error = dns.discovery().discover().await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("64 KiB") && text.contains("_port._proto"), "{text}");
        assert_eq!(error == DiscoveryError::AnswerTooLong, !is_servfail, "{text}");
    }
}

/// docs/discovery.md, row 52: a server that is asked for the hosts of 120 pods at once.
#[tokio::test]
async fn many_hosts_are_looked_up_at_once() {
    let dns = FakeDns::with_pods(120).await;
    for discovery in [dns.discovery(), dns.discovery().tcp_only()] {
        let hosts: Vec<_> = (0..120).map(|pod| format!("mc-{pod}.mc.default.svc.cluster.local")).collect();
        let lookups = hosts.iter().map(|host| discovery.resolve(host));
        for found in futures_util::future::join_all(lookups).await {
            assert_eq!(found.unwrap().addresses().len(), 1);
        }
    }
}

/// docs/discovery.md, row 43: neither a task nor a socket.
#[tokio::test]
async fn a_dropped_lookup_leaves_nothing() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let discovery = SrvDiscovery::new(SERVICE).nameservers([server.local_addr().unwrap()]).tcp_only();
    let accept = async {
        let (mut stream, _) = server.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        stream
    };
    let mut stream = tokio::select! {
        outcome = discovery.discover() => panic!("{outcome:?}"),
        stream = accept => stream,
    };
    let mut rest = Vec::new();
    let read_to_end = timeout(Duration::from_secs(30), stream.read_to_end(&mut rest));
    assert!(read_to_end.await.unwrap().is_ok(), "the connection is closed");
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0);
}
