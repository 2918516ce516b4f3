//! Pods that start, die, move and pause. Most tests run with embedded pods and with real memcached processes.

use std::io::ErrorKind;
use std::net::SocketAddr;

use memring::testing::{Memcached, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{NO_REPLY_WAIT, TEST_TIMEOUT, exchange, request};

const SET: &str = "set k 0 0 1\r\nv\r\n";
const STORED: &str = "STORED\r\n";
const HIT: &str = "VALUE k 0 1\r\nv\r\nEND\r\n";
const MISS: &str = "END\r\n";

async fn embedded(pods: usize) -> Service {
    Service::start(pods).await.unwrap()
}

async fn real(pods: usize) -> Service {
    Service::builder().pods(pods).memcached().start().await.expect("these tests need a memcached")
}

async fn set(service: &Service, pod: usize) {
    assert_eq!(request(service.pods()[pod].addr, SET, STORED.len()).await.unwrap(), STORED);
}

async fn assert_get(service: &Service, pod: usize, expected: &str) {
    assert_eq!(request(service.pods()[pod].addr, "get k\r\n", expected.len()).await.unwrap(), expected);
}

async fn assert_refuses_connections(addr: SocketAddr) {
    assert_eq!(TcpStream::connect(addr).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

/// Reads until the server has closed the connection or reset it.
async fn assert_closed(stream: &mut TcpStream) {
    let outcome = timeout(TEST_TIMEOUT, stream.read(&mut [0; 64])).await.expect("the connection must be closed");
    assert!(outcome.is_err() || outcome.is_ok_and(|count| count == 0));
}

async fn every_pod_has_its_own_name_address_and_items(service: Service) {
    let pods = service.pods();
    for (ordinal, pod) in pods.iter().enumerate() {
        assert_eq!(pod.fqdn, format!("memcached-{ordinal}.memcached.default.svc.cluster.local"));
        assert!(pod.ready && pod.running && !pod.paused);
    }
    for pod in &pods[1..] {
        assert_ne!(pod.addr, pods[0].addr);
    }
    set(&service, 0).await;
    assert_get(&service, 0, HIT).await;
    assert_get(&service, 1, MISS).await;
}

async fn a_killed_pod_closes_its_connections_and_restarts_with_an_empty_cache(service: Service) {
    set(&service, 1).await;
    let before = service.pods();
    let mut stream = TcpStream::connect(before[1].addr).await.unwrap();
    exchange(&mut stream, "get k\r\n", HIT.len()).await.unwrap();

    service.kill(1).await.unwrap();
    let killed = &service.pods()[1];
    assert!(!killed.ready && !killed.running);
    assert_eq!(killed.addr, before[1].addr);
    assert_closed(&mut stream).await;
    assert_refuses_connections(before[1].addr).await;
    service.kill(1).await.unwrap();
    assert_get(&service, 0, MISS).await;

    service.restart(1).await.unwrap();
    assert_eq!(service.pods(), before);
    assert_get(&service, 1, MISS).await;
    set(&service, 1).await;

    // A running pod can be restarted too.
    service.restart(1).await.unwrap();
    assert_get(&service, 1, MISS).await;
}

async fn a_crashed_pod_stays_ready_until_it_is_marked_as_not_ready(service: Service) {
    service.crash(0).await.unwrap();
    let crashed = &service.pods()[0];
    assert!(crashed.ready && !crashed.running);
    assert_refuses_connections(crashed.addr).await;
    service.unready(0).await.unwrap();
    assert!(!service.pods()[0].ready);
    service.ready(0).await.unwrap();
    assert!(service.pods()[0].ready);
}

async fn a_pod_restarted_at_a_new_address_keeps_its_name_and_port(service: Service) {
    set(&service, 1).await;
    let before = service.pods();
    let Some(addr) = service.restart_at_new_address(1).await.unwrap() else {
        eprintln!("skipped: this machine has one loopback address");
        return;
    };
    let after = service.pods();
    assert_eq!((after[1].addr, &after[1].fqdn), (addr, &before[1].fqdn));
    assert_ne!(addr.ip(), before[1].addr.ip());
    assert_eq!(addr.port(), before[1].addr.port());
    assert_refuses_connections(before[1].addr).await;
    assert_get(&service, 1, MISS).await;
}

async fn a_paused_pod_accepts_connections_and_replies_after_a_resume(service: Service) {
    let addr = service.pods()[0].addr;
    let mut old = TcpStream::connect(addr).await.unwrap();
    exchange(&mut old, SET, STORED.len()).await.unwrap();

    service.pause(0).await.unwrap();
    assert!(service.pods()[0].paused && service.pods()[0].ready);
    let mut new = TcpStream::connect(addr).await.expect("the kernel must accept the connection");
    for stream in [&mut old, &mut new] {
        stream.write_all(b"get k\r\n").await.unwrap();
        assert!(timeout(NO_REPLY_WAIT, stream.read(&mut [0; 64])).await.is_err(), "a paused pod must not reply");
    }

    service.resume(0).await.unwrap();
    for stream in [&mut old, &mut new] {
        assert_eq!(exchange(stream, "", HIT.len()).await.unwrap(), HIT);
    }

    service.pause(0).await.unwrap();
    service.restart(0).await.unwrap();
    assert!(!service.pods()[0].paused);
    assert_get(&service, 0, MISS).await;
}

async fn scaling_adds_and_removes_the_highest_ordinals(service: Service) {
    let before = service.pods();
    service.scale(1).await.unwrap();
    assert_eq!(service.pods(), before[..1]);
    assert_refuses_connections(before[1].addr).await;
    service.scale(3).await.unwrap();
    let after = service.pods();
    assert_eq!((after.len(), &after[0]), (3, &before[0]));
    assert_eq!((&after[1].fqdn, after[1].addr.port()), (&before[1].fqdn, before[1].addr.port()));
    assert_get(&service, 2, MISS).await;
    service.scale(0).await.unwrap();
    assert!(service.pods().is_empty());
}

async fn dropping_the_service_ends_its_pods(service: Service) {
    let addr = service.pods()[0].addr;
    let mut stream = TcpStream::connect(addr).await.unwrap();
    service.pause(0).await.unwrap();
    drop(service);
    assert_closed(&mut stream).await;
    let refused = async {
        while TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(TEST_TIMEOUT, refused).await.expect("connections must be refused");
}

/// Defines each test for embedded pods and for real ones, with the number of pods in parentheses.
macro_rules! test_embedded_and_real {
    ($($test:ident($pods:literal)),* $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(super::embedded($pods).await).await;
            })*
        }
        mod real {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::real($pods).await).await;
            })*
        }
    };
}

test_embedded_and_real! {
    every_pod_has_its_own_name_address_and_items(3),
    a_killed_pod_closes_its_connections_and_restarts_with_an_empty_cache(2),
    a_crashed_pod_stays_ready_until_it_is_marked_as_not_ready(1),
    a_pod_restarted_at_a_new_address_keeps_its_name_and_port(2),
    a_paused_pod_accepts_connections_and_replies_after_a_resume(1),
    scaling_adds_and_removes_the_highest_ordinals(2),
    dropping_the_service_ends_its_pods(1),
}

#[tokio::test]
async fn operations_on_missing_pods_and_invalid_options_fail() {
    let service = embedded(1).await;
    for error in [
        service.kill(1).await.unwrap_err(),
        service.restart(1).await.unwrap_err(),
        service.restart_at_new_address(9).await.unwrap_err(),
        service.ready(usize::MAX).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    service.kill(0).await.unwrap();
    assert_eq!(service.pause(0).await.unwrap_err().kind(), ErrorKind::NotFound);

    let missing = Service::builder().memcached_at("/nowhere/memcached").start().await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().contains("/nowhere/memcached"), "{missing}");
    for name in ["", "a..b", &"a".repeat(64)] {
        assert_eq!(
            Service::builder().name(name).start().await.unwrap_err().kind(),
            ErrorKind::InvalidInput,
            "{name:?}"
        );
    }
}

#[tokio::test]
async fn two_services_of_the_same_name_do_not_share_pods_or_dns() {
    let (one, two) = (embedded(3).await, embedded(3).await);
    set(&one, 0).await;
    assert_get(&two, 0, MISS).await;
    assert_ne!(one.dns().addr(), two.dns().addr());
}

#[tokio::test]
async fn a_single_memcached_is_paused_resumed_and_killed() {
    let mut server = Memcached::start().await.expect("this test needs a memcached");
    let mut stream = TcpStream::connect(server.addr()).await.unwrap();
    exchange(&mut stream, SET, STORED.len()).await.unwrap();
    assert!(server.pid().is_some());

    server.pause().await.unwrap();
    stream.write_all(b"get k\r\n").await.unwrap();
    assert!(timeout(NO_REPLY_WAIT, stream.read(&mut [0; 64])).await.is_err());
    server.resume().await.unwrap();
    assert_eq!(exchange(&mut stream, "", HIT.len()).await.unwrap(), HIT);

    server.pause().await.unwrap();
    server.kill().await.unwrap();
    server.kill().await.unwrap();
    assert_eq!(server.pid(), None);
    assert!(server.pause().await.is_err());
    assert_refuses_connections(server.addr()).await;
}

#[tokio::test]
async fn a_single_memcached_uses_its_arguments_and_reports_a_failed_start() {
    let server = Memcached::start_with(["-I", "2m"]).await.expect("this test needs a memcached");
    let command = format!("set k 0 0 1500000\r\n{}\r\n", "v".repeat(1_500_000));
    assert_eq!(request(server.addr(), &command, STORED.len()).await.unwrap(), STORED);

    let error = Memcached::start_with(["--no-such-option"]).await.unwrap_err();
    assert!(error.to_string().contains("ended with"), "{error}");
}
