//! Pods live, die, move and fall silent, embedded and real alike.

use std::io::ErrorKind;

use memring::testing::{Memcached, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{PATIENCE, SILENCE, ask, exchange};

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
    assert_eq!(ask(service.pods()[pod].addr, SET, STORED.len()).await.unwrap(), STORED);
}

async fn get(service: &Service, pod: usize, expected: &str) {
    assert_eq!(ask(service.pods()[pod].addr, "get k\r\n", expected.len()).await.unwrap(), expected);
}

async fn pods_have_names_and_addresses_of_their_own(service: Service) {
    let pods = service.pods();
    for (ordinal, pod) in pods.iter().enumerate() {
        assert_eq!(pod.fqdn, format!("memcached-{ordinal}.memcached.default.svc.cluster.local"));
        assert!(pod.ready && pod.running && !pod.paused);
    }
    for pod in &pods[1..] {
        assert_ne!(pod.addr, pods[0].addr);
    }
    set(&service, 0).await;
    get(&service, 0, HIT).await;
    get(&service, 1, MISS).await;
}

async fn death_is_at_once_and_restart_is_empty(service: Service) {
    set(&service, 1).await;
    let before = service.pods();
    let mut open = TcpStream::connect(before[1].addr).await.unwrap();
    exchange(&mut open, "get k\r\n", HIT.len()).await.unwrap();

    service.kill(1).await.unwrap();
    let killed = &service.pods()[1];
    assert!(!killed.ready && !killed.running);
    assert_eq!(killed.addr, before[1].addr);
    let ended = timeout(PATIENCE, open.read(&mut [0; 64])).await.expect("the connection is closed");
    assert!(ended.is_err() || ended.is_ok_and(|read| read == 0));
    assert_eq!(TcpStream::connect(before[1].addr).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    service.kill(1).await.unwrap();
    get(&service, 0, MISS).await;

    service.restart(1).await.unwrap();
    assert_eq!(service.pods(), before);
    get(&service, 1, MISS).await;
    set(&service, 1).await;

    // It need not be dead to be restarted.
    service.restart(1).await.unwrap();
    get(&service, 1, MISS).await;
}

async fn a_crash_leaves_the_pod_listed(service: Service) {
    service.crash(0).await.unwrap();
    let crashed = &service.pods()[0];
    assert!(crashed.ready && !crashed.running);
    assert_eq!(TcpStream::connect(crashed.addr).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    service.unready(0).await.unwrap();
    assert!(!service.pods()[0].ready);
    service.ready(0).await.unwrap();
    assert!(service.pods()[0].ready);
}

async fn a_pod_moves_and_keeps_its_identity(service: Service) {
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
    assert_eq!(TcpStream::connect(before[1].addr).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    get(&service, 1, MISS).await;
}

async fn a_paused_pod_accepts_and_says_nothing(service: Service) {
    let addr = service.pods()[0].addr;
    let mut open = TcpStream::connect(addr).await.unwrap();
    exchange(&mut open, SET, STORED.len()).await.unwrap();

    service.pause(0).await.unwrap();
    assert!(service.pods()[0].paused && service.pods()[0].ready);
    let mut late = TcpStream::connect(addr).await.expect("the kernel accepts");
    for stream in [&mut open, &mut late] {
        stream.write_all(b"get k\r\n").await.unwrap();
        assert!(timeout(SILENCE, stream.read(&mut [0; 64])).await.is_err(), "nothing is answered");
    }

    service.resume(0).await.unwrap();
    for stream in [&mut open, &mut late] {
        assert_eq!(exchange(stream, "", HIT.len()).await.unwrap(), HIT);
    }

    service.pause(0).await.unwrap();
    service.restart(0).await.unwrap();
    assert!(!service.pods()[0].paused);
    get(&service, 0, MISS).await;
}

async fn scaling_takes_the_highest_ordinals(service: Service) {
    let before = service.pods();
    service.scale(1).await.unwrap();
    assert_eq!(service.pods(), before[..1]);
    assert_eq!(TcpStream::connect(before[1].addr).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    service.scale(3).await.unwrap();
    let after = service.pods();
    assert_eq!((after.len(), &after[0]), (3, &before[0]));
    assert_eq!((&after[1].fqdn, after[1].addr.port()), (&before[1].fqdn, before[1].addr.port()));
    get(&service, 2, MISS).await;
    service.scale(0).await.unwrap();
    assert!(service.pods().is_empty());
}

async fn dropping_the_service_ends_it(service: Service) {
    let addr = service.pods()[0].addr;
    let mut open = TcpStream::connect(addr).await.unwrap();
    service.pause(0).await.unwrap();
    drop(service);
    let ended = timeout(PATIENCE, open.read(&mut [0; 64])).await.expect("the connection is closed");
    assert!(ended.is_err() || ended.is_ok_and(|read| read == 0));
    let refused = async {
        while TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, refused).await.expect("nobody listens");
}

macro_rules! for_both {
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

for_both! {
    pods_have_names_and_addresses_of_their_own(3),
    death_is_at_once_and_restart_is_empty(2),
    a_crash_leaves_the_pod_listed(1),
    a_pod_moves_and_keeps_its_identity(2),
    a_paused_pod_accepts_and_says_nothing(1),
    scaling_takes_the_highest_ordinals(2),
    dropping_the_service_ends_it(1),
}

#[tokio::test]
async fn what_cannot_be_done_is_an_error() {
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
async fn services_of_one_name_live_side_by_side() {
    let (one, two) = (embedded(3).await, embedded(3).await);
    set(&one, 0).await;
    get(&two, 0, MISS).await;
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
    assert!(timeout(SILENCE, stream.read(&mut [0; 64])).await.is_err());
    server.resume().await.unwrap();
    assert_eq!(exchange(&mut stream, "", HIT.len()).await.unwrap(), HIT);

    server.pause().await.unwrap();
    server.kill().await.unwrap();
    server.kill().await.unwrap();
    assert_eq!(server.pid(), None);
    assert!(server.pause().await.is_err());
    assert_eq!(TcpStream::connect(server.addr()).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn memcached_is_given_arguments_and_its_refusal_is_told() {
    let server = Memcached::start_with(["-I", "2m"]).await.expect("this test needs a memcached");
    let command = format!("set k 0 0 1500000\r\n{}\r\n", "v".repeat(1_500_000));
    assert_eq!(ask(server.addr(), &command, STORED.len()).await.unwrap(), STORED);

    let refused = Memcached::start_with(["--no-such-option"]).await.unwrap_err();
    assert!(refused.to_string().contains("ended with"), "{refused}");
}
