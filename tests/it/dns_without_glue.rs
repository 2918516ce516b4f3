//! Pods that DNS lists without their addresses: they are looked up, followed when they move, and not looked up often.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memring::testing::{DnsFault, DnsQueries, Service, SrvRecord};
use memring::{
    Client, Discovery, DiscoveryError, DiscoveryOptions, Endpoint, ErrorKind, HostAddresses, Membership, NodeId,
    SrvDiscovery,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use crate::scripted::{always_miss, counting_server, serve_connections};
use crate::support::{
    LONG_TIMEOUT, MINUTE, eventually, fast_polling, is_miss, key_owned_by, service_client, service_client_builder,
};

/// Another server that has got a pod's old address. Misses everything, and counts what it is sent.
struct Stranger {
    reads: Arc<AtomicU64>,
}

impl Stranger {
    async fn bind(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let reads = Arc::<AtomicU64>::default();
        let counter = Arc::clone(&reads);
        serve_connections(listener, move |mut socket| {
            let counter = Arc::clone(&counter);
            async move {
                let mut input = vec![0; 4096];
                while socket.read(&mut input).await.is_ok_and(|count| count > 0) {
                    counter.fetch_add(1, Ordering::Relaxed);
                    if socket.write_all(b"END\r\n").await.is_err() {
                        return;
                    }
                }
            }
        });
        Self { reads }
    }

    fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }
}

/// A service without glue and with one pod, and the client's options for it.
async fn service_without_glue() -> Service {
    Service::builder().pods(1).ttl(Duration::from_secs(1)).glue(false).memcached().start().await.unwrap()
}

/// The lookup of a lost pod takes longer than a dial waits for it (`docs/discovery.md`, row 60).
#[tokio::test]
async fn behind_a_dead_first_nameserver_a_moved_pod_is_followed_although_a_stranger_has_its_address() {
    let service = service_without_glue().await;
    let dead = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let nameservers = [dead.local_addr().unwrap(), service.dns().addr()];
    let source = SrvDiscovery::new(service.name()).nameservers(nameservers);
    let client = Client::builder().service(source).discovery_options(fast_polling()).request_timeout(LONG_TIMEOUT);
    let cache = client.connect().await.unwrap();
    cache.set("k", "v", MINUTE).await.unwrap();

    let old = service.pods()[0].addr;
    let Some(new) = service.restart_at_new_address(0).await.unwrap() else { return };
    let stranger = Stranger::bind(old).await;
    let start = Instant::now();
    eventually("the pod is followed", async || {
        let _ = cache.get("k").await;
        cache.topology().nodes[0].address == Some(new)
    })
    .await;
    // 3 s after a poll at most on an idle machine.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    let reads = stranger.reads();
    for n in 0..50 {
        cache.set(format!("k{n}"), "v", MINUTE).await.unwrap();
    }
    assert_eq!(stranger.reads(), reads);
}

/// While DNS fails, the client dials where the pod was. It checks that as soon as DNS answers (row 61).
#[tokio::test]
async fn after_a_dns_outage_a_stranger_at_a_pods_old_address_gets_nothing_more() {
    let service = service_without_glue().await;
    let cache = service_client(&service, fast_polling()).await;
    cache.set("k", "v", MINUTE).await.unwrap();
    let old = service.pods()[0].addr;

    service.dns().set_fault(DnsFault::ServFail);
    let Some(new) = service.restart_at_new_address(0).await.unwrap() else { return };
    let stranger = Stranger::bind(old).await;
    eventually("the old address is used", async || {
        let _ = cache.get("k").await;
        stranger.reads() > 0
    })
    .await;
    service.dns().clear_faults();
    eventually("the pod is followed", async || cache.topology().nodes[0].address == Some(new)).await;
    let reads = stranger.reads();
    for n in 0..50 {
        cache.set(format!("k{n}"), "v", MINUTE).await.unwrap();
    }
    assert_eq!(stranger.reads(), reads);
}

/// The same, and the pod is gone for good: there is nothing to move to (row 61).
#[tokio::test]
async fn after_a_dns_outage_a_stranger_at_the_address_of_a_pod_that_is_gone_gets_nothing_more() {
    let service = service_without_glue().await;
    let client = service_client_builder(&service, fast_polling());
    let cache = client.connect().await.unwrap();
    cache.set("k", "v", MINUTE).await.unwrap();
    let pod = service.pods()[0].clone();

    service.dns().set_fault(DnsFault::ServFail);
    service.crash(0).await.unwrap();
    let stranger = Stranger::bind(pod.addr).await;
    eventually("the old address is used", async || {
        let _ = cache.get("k").await;
        stranger.reads() > 0
    })
    .await;
    service.dns().set_srv([SrvRecord::new(0, 1, pod.addr.port(), pod.fqdn.clone())]).unwrap();
    service.dns().set_host(&pod.fqdn, []).unwrap();
    service.dns().clear_faults();
    eventually("the old address is left", async || {
        cache.get("k").await.is_err_and(|error| error.kind() == ErrorKind::Unavailable)
    })
    .await;
    let reads = stranger.reads();
    for _ in 0..50 {
        assert_eq!(cache.get("k").await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    assert_eq!(stranger.reads(), reads);
}

/// 97 of 100 pods are gone, and each connection would look its pod up at every dial (row 62).
#[tokio::test]
async fn pods_that_are_gone_are_looked_up_once() {
    let service = Service::builder().pods(100).ttl(Duration::from_secs(1)).glue(false).start().await.unwrap();
    let cache = service_client_builder(&service, fast_polling()).connections_per_node(2).connect().await.unwrap();
    eventually("all pods are connected", async || {
        cache.topology().nodes.iter().all(|node| node.state == memring::NodeState::Connected)
    })
    .await;
    let lookups = |queries: DnsQueries| queries.a + queries.aaaa;
    let before = lookups(service.dns().queries());
    service.scale(3).await.unwrap();
    eventually("the pods have vanished", async || cache.discovery_status().vanished == 97).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let lookups = lookups(service.dns().queries()) - before;
    // A query for each pod that is gone, and at most ten a poll for the others, when their TTL is over.
    assert!(lookups <= 97 + 100, "{lookups} lookups");
    for node in cache.topology().nodes {
        let outcome = cache.set(key_owned_by(&cache, &node.id), "v", MINUTE).await;
        match outcome {
            Ok(()) => assert!(service.pods().iter().any(|pod| pod.fqdn == node.id.host())),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}"),
        }
    }
    service.scale(100).await.unwrap();
    eventually("all pods are connected again", async || {
        cache.topology().nodes.iter().all(|node| node.state == memring::NodeState::Connected)
    })
    .await;
}

/// 550 operations a second fail while a pod is away (row 62).
#[tokio::test]
async fn an_outage_of_a_pod_causes_few_dns_queries_with_and_without_glue() {
    tokio::join!(assert_few_dns_queries_in_an_outage(true), assert_few_dns_queries_in_an_outage(false));
}

async fn assert_few_dns_queries_in_an_outage(glue: bool) {
    let ttl = Duration::from_secs(5);
    let service = Service::builder().pods(3).ttl(ttl).glue(glue).memcached().start().await.unwrap();
    let cache = service_client_builder(&service, DiscoveryOptions::default()).connect().await.unwrap();
    let key = key_owned_by(&cache, &cache.topology().nodes[0].id);
    cache.set(&key, "v", MINUTE).await.unwrap();
    service.crash(0).await.unwrap();
    let mut load = JoinSet::new();
    for _ in 0..11 {
        let (cache, key) = (cache.clone(), key.clone());
        load.spawn(async move {
            loop {
                let _ = cache.get(&key).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    let (start, first) = (Instant::now(), service.dns().queries().total);
    let mut samples = vec![(start, first)];
    while start.elapsed() < MINUTE {
        tokio::time::sleep(Duration::from_millis(50)).await;
        samples.push((Instant::now(), service.dns().queries().total));
    }
    let total = samples.last().unwrap().1 - first;
    let within_a_second = |(from, before): &(Instant, u64)| {
        let until = *from + Duration::from_secs(1);
        samples.iter().take_while(|(at, _)| *at <= until).last().map_or(0, |(_, after)| after - before)
    };
    let most = samples.iter().map(within_a_second).max().unwrap();
    println!("glue: {glue}, {total} queries in {MINUTE:?}, at most {most} in a second");
    assert!(total <= 120 && most <= 5, "{total} queries, at most {most} in a second");
    service.restart(0).await.unwrap();
    eventually("the pod serves again", async || is_miss(&cache.get(&key).await)).await;
}

/// Lists a node at a wrong address once this is set, and looks its host up at the right one.
#[derive(Debug, Clone)]
struct WrongGlue {
    id: NodeId,
    is_wrong: Arc<AtomicBool>,
}

impl Discovery for WrongGlue {
    async fn discover(&self) -> Result<Membership, DiscoveryError> {
        let last = if self.is_wrong.load(Ordering::Relaxed) { 3 } else { 1 };
        Ok(Membership::new([Endpoint::new(self.id.clone()).with_addresses([[127, 0, 0, last].into()])]))
    }

    async fn resolve(&self, _host: &str) -> Result<HostAddresses, DiscoveryError> {
        Ok(HostAddresses::new([[127, 0, 0, 1].into()]))
    }
}

/// The listing names another address, where nothing listens (row 63).
#[tokio::test]
async fn a_connection_stays_if_the_lookup_finds_its_address_and_the_listing_is_wrong() {
    let (first_has_ended, is_wrong) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let has_ended = Arc::clone(&first_has_ended);
    let (addr, dials) = counting_server(move |socket, dials_before| {
        let has_ended = Arc::clone(&has_ended);
        async move {
            always_miss(socket).await;
            if dials_before == 0 {
                has_ended.store(true, Ordering::Relaxed);
            }
        }
    })
    .await;
    let id = NodeId::new("pod-0", addr.port()).unwrap();
    let source = WrongGlue { id, is_wrong: Arc::clone(&is_wrong) };
    let cache = Client::builder().discovery(source).discovery_options(fast_polling()).connect().await.unwrap();
    assert!(is_miss(&cache.get("k").await));
    is_wrong.store(true, Ordering::Relaxed);
    eventually("the lookup is dialed", async || dials.load(Ordering::Relaxed) > 1).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(is_miss(&cache.get("k").await));
    assert!(!first_has_ended.load(Ordering::Relaxed), "the first connection is the node's");
    assert!(dials.load(Ordering::Relaxed) <= 3, "{dials:?}");
}

/// IPv4 is dialed first, and nothing listens there (row 63).
#[tokio::test]
async fn a_pod_that_listens_at_its_ipv6_address_only_is_found() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        return eprintln!("skipped: this machine has no IPv6");
    };
    let address = listener.local_addr().unwrap();
    serve_connections(listener, always_miss);
    for listed in [true, false] {
        let service = Service::builder().pods(1).ttl(Duration::from_secs(1)).glue(false).start().await.unwrap();
        let host = format!("memcached-9.{}", service.name());
        service.dns().set_srv([SrvRecord::new(0, 1, address.port(), host.clone())]).unwrap();
        // Wrong glue, and right records of the host, in the second round.
        let dead = IpAddr::from([127, 0, 0, 1]);
        service.dns().set_host(&host, [dead, address.ip()]).unwrap();
        service.dns().set_glue(listed);
        let cache = service_client_builder(&service, fast_polling()).connect().await.unwrap();
        eventually("the pod answers", async || is_miss(&cache.get("k").await)).await;
        assert_eq!(cache.topology().nodes[0].address, Some(address));
    }
}
