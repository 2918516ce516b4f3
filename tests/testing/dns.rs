//! The DNS server, queried by a real resolver over real sockets.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::{Edns, Message, Query, ResponseCode};
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use hickory_resolver::{Resolver, TokioResolver};
use memring::testing::{DnsFault, DnsFilter, DnsOrder, DnsRecordType, Service, SrvRecord};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::{NO_REPLY_WAIT, TEST_TIMEOUT, request};

mod faults;
mod records;

const NAME: &str = "memcached.default.svc.cluster.local.";

fn resolver(addr: SocketAddr, tcp: bool, timeout: Duration) -> TokioResolver {
    let mut connections = vec![ConnectionConfig::udp()];
    if tcp {
        connections.push(ConnectionConfig::tcp());
    }
    for connection in &mut connections {
        connection.port = addr.port();
    }
    let server = NameServerConfig::new(addr.ip(), true, connections);
    let config = ResolverConfig::from_parts(None, vec![], vec![server]);
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    (options.edns0, options.cache_size, options.attempts) = (true, 0, 0);
    options.timeout = timeout;
    builder.build().unwrap()
}

async fn service(pods: usize) -> (Service, TokioResolver) {
    let service = Service::start(pods).await.unwrap();
    let resolver = resolver(service.dns().addr(), true, TEST_TIMEOUT);
    (service, resolver)
}

/// Sends one query over UDP and returns the reply, if there is one. Unlike a resolver, it does not repeat the query.
async fn query_once(addr: SocketAddr, kind: RecordType, payload: Option<u16>) -> Option<Message> {
    let mut query = Message::query();
    query.add_query(Query::query(NAME.parse().unwrap(), kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        query.set_edns(edns);
    }
    let socket = UdpSocket::bind((addr.ip(), 0)).await.unwrap();
    socket.send_to(&query.to_vec().unwrap(), addr).await.unwrap();
    let mut reply = vec![0; 65_536];
    let (len, _) = timeout(TEST_TIMEOUT, socket.recv_from(&mut reply)).await.ok()?.ok()?;
    assert!(len <= usize::from(payload.unwrap_or(512)), "{len} bytes for a payload of {payload:?}");
    Some(Message::from_vec(&reply[..len]).unwrap())
}

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut query = Message::query();
    query.add_query(Query::query(name.parse().unwrap(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    query.set_edns(edns).to_vec().unwrap()
}

/// Sends one query over UDP and returns the reply, or `None` if there is none within the wait.
async fn ask_udp(addr: SocketAddr, name: &str, kind: RecordType, wait: Duration) -> Option<Message> {
    let socket = UdpSocket::bind((addr.ip(), 0)).await.unwrap();
    socket.connect(addr).await.unwrap();
    socket.send(&query(name, kind)).await.unwrap();
    let mut reply = vec![0; 65_536];
    let len = timeout(wait, socket.recv(&mut reply)).await.ok()?.ok()?;
    Some(Message::from_vec(&reply[..len]).unwrap())
}

/// As [`ask_udp`], over a TCP connection of its own.
async fn ask_tcp(addr: SocketAddr, name: &str, kind: RecordType, wait: Duration) -> Option<Message> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let query = query(name, kind);
    stream.write_u16(query.len().try_into().unwrap()).await.unwrap();
    stream.write_all(&query).await.unwrap();
    let len = timeout(wait, stream.read_u16()).await.ok()?.ok()?;
    let mut reply = vec![0; len.into()];
    stream.read_exact(&mut reply).await.unwrap();
    Some(Message::from_vec(&reply).unwrap())
}

/// Asks over UDP, and the server must reply.
async fn ask(addr: SocketAddr, name: &str, kind: RecordType) -> Message {
    ask_udp(addr, name, kind, TEST_TIMEOUT).await.unwrap()
}

/// Returns priority, weight, port and target of every SRV record.
fn srv_records(lookup: &Lookup) -> Vec<(u16, u16, u16, String)> {
    let srv = lookup.answers().iter().filter_map(|record| match &record.data {
        RData::SRV(srv) => Some((srv.priority, srv.weight, srv.port, srv.target.to_ascii())),
        _ => None,
    });
    srv.collect()
}

/// Returns the addresses in the additional records.
fn glue(lookup: &Lookup) -> BTreeSet<(String, IpAddr)> {
    let addresses = lookup.additionals().iter().filter_map(|record| match &record.data {
        RData::A(a) => Some((record.name.to_ascii(), IpAddr::from(a.0))),
        RData::AAAA(aaaa) => Some((record.name.to_ascii(), IpAddr::from(aaaa.0))),
        _ => None,
    });
    addresses.collect()
}

/// Returns the addresses of the ready pods.
fn ready_pods(service: &Service) -> BTreeSet<(String, IpAddr)> {
    let ready = service.pods().into_iter().filter(|pod| pod.ready);
    ready.map(|pod| (format!("{}.", pod.fqdn), pod.addr.ip())).collect()
}

fn no_records(result: Result<Lookup, NetError>) -> NoRecords {
    match result {
        Err(NetError::Dns(DnsError::NoRecordsFound(no_records))) => no_records,
        other => panic!("the answer must be empty: {other:?}"),
    }
}

#[tokio::test]
async fn ready_pods_are_listed_with_their_addresses() {
    let (service, resolver) = service(3).await;
    let port = service.pods()[0].addr.port();
    for name in [NAME, "_memcached._tcp.memcached.default.svc.cluster.local.", "MEMCACHED.default.svc.Cluster.local."] {
        let lookup = resolver.srv_lookup(name).await.unwrap();
        let listed: Vec<_> = (0..3).map(|pod| (0, 33, port, format!("memcached-{pod}.{NAME}"))).collect();
        assert_eq!(srv_records(&lookup), listed, "{name}");
        assert_eq!(glue(&lookup), ready_pods(&service), "{name}");
        assert!(lookup.answers().iter().all(|record| record.ttl == 5));
    }
    let of_service: BTreeSet<_> = resolver.lookup_ip(NAME).await.unwrap().iter().collect();
    assert_eq!(of_service, service.pods().iter().map(|pod| pod.addr.ip()).collect());
    for pod in service.pods() {
        let of_pod: Vec<_> = resolver.lookup_ip(format!("{}.", pod.fqdn)).await.unwrap().iter().collect();
        assert_eq!(of_pod, [pod.addr.ip()]);
    }
}

#[tokio::test]
async fn missing_names_are_nxdomain_and_missing_records_are_nodata() {
    let (service, resolver) = service(1).await;
    service.dns().set_ttl(Duration::from_secs(7));
    for name in
        ["_metrics._tcp.memcached.default.svc.cluster.local.", "other.default.svc.cluster.local.", "example.com."]
    {
        let empty = no_records(resolver.srv_lookup(name).await);
        assert_eq!((empty.response_code, empty.negative_ttl), (ResponseCode::NXDomain, Some(7)), "{name}");
        assert!(empty.soa.is_some());
    }
    for (name, kind) in [(NAME.to_owned(), RecordType::TXT), (format!("memcached-0.{NAME}"), RecordType::SRV)] {
        let empty = no_records(resolver.lookup(name.clone(), kind).await);
        assert_eq!(empty.response_code, ResponseCode::NoError, "{name}");
        assert!(empty.soa.is_some());
    }
    // Without ready pods, and then without any pod, the name of the service does not exist.
    service.unready(0).await.unwrap();
    for _ in 0..2 {
        for name in [NAME.to_owned(), format!("_memcached._tcp.{NAME}"), format!("memcached-0.{NAME}")] {
            let empty = no_records(resolver.srv_lookup(&*name).await);
            assert_eq!(empty.response_code, ResponseCode::NXDomain, "{name}");
        }
        service.scale(0).await.unwrap();
    }
}

#[tokio::test]
async fn answers_change_with_the_pods_and_the_settings() {
    let (service, resolver) = service(2).await;
    let check = async |step: &str, pods: usize| {
        let lookup = resolver.srv_lookup(NAME).await.unwrap();
        assert_eq!(glue(&lookup), ready_pods(&service), "{step}");
        assert_eq!(srv_records(&lookup).len(), pods, "{step}");
        assert!(srv_records(&lookup).iter().all(|record| usize::from(record.1) == 100 / pods), "{step}");
    };
    check("start", 2).await;
    service.scale(5).await.unwrap();
    check("scaled up", 5).await;
    service.scale(3).await.unwrap();
    check("scaled down", 3).await;
    service.kill(1).await.unwrap();
    check("killed", 2).await;
    service.crash(0).await.unwrap();
    check("crashed", 2).await;
    service.restart(1).await.unwrap();
    check("restarted", 3).await;
    if let Some(addr) = service.restart_at_new_address(0).await.unwrap() {
        check("moved", 3).await;
        let found: Vec<_> = resolver.lookup_ip(format!("memcached-0.{NAME}")).await.unwrap().iter().collect();
        assert_eq!(found, [addr.ip()]);
        assert_eq!(request(addr, "get k\r\n", 5).await.unwrap(), "END\r\n");
    }
    service.dns().set_glue(false);
    service.dns().set_ttl(Duration::ZERO);
    let lookup = resolver.srv_lookup(NAME).await.unwrap();
    assert!(lookup.additionals().is_empty());
    assert!(lookup.answers().iter().all(|record| record.ttl == 0));
}

#[tokio::test]
async fn three_hundred_records_are_complete_over_tcp_and_truncated_over_udp() {
    let (service, resolver_with_tcp) = service(1).await;
    let dns = service.dns();
    let udp_only = resolver(dns.addr(), false, TEST_TIMEOUT);
    dns.set_srv((0..300).map(|pod| SrvRecord::new(0, 1, 11211, format!("cache-{pod}.{NAME}")))).unwrap();
    for pod in 0..300u16 {
        let [high, low] = pod.to_be_bytes();
        dns.set_host(&format!("cache-{pod}.{NAME}"), [Ipv4Addr::new(127, 9, high, low).into()]).unwrap();
    }
    let lookup = resolver_with_tcp.srv_lookup(NAME).await.unwrap();
    let targets: BTreeSet<_> = srv_records(&lookup).into_iter().map(|record| record.3).collect();
    assert_eq!((targets.len(), glue(&lookup).len()), (300, 300));
    assert!(matches!(udp_only.srv_lookup(NAME).await, Err(NetError::Truncated)));
    assert!(dns.queries().tcp >= 1);

    // Eight records with their glue fit a datagram if the client accepts more than 512 bytes.
    dns.clear_overrides();
    service.scale(8).await.unwrap();
    assert_eq!(glue(&udp_only.srv_lookup(NAME).await.unwrap()).len(), 8);
}

#[tokio::test]
async fn every_fault_has_its_effect_until_it_is_cleared() {
    let (service, resolver) = service(3).await;
    let dns = service.dns();
    let short_timeout = self::resolver(dns.addr(), true, Duration::from_millis(300));
    for (fault, code) in [(DnsFault::ServFail, ResponseCode::ServFail), (DnsFault::Refused, ResponseCode::Refused)] {
        dns.set_fault(fault);
        let result = resolver.srv_lookup(NAME).await;
        assert!(matches!(&result, Err(NetError::Dns(DnsError::ResponseCode(actual))) if *actual == code), "{result:?}");
    }
    for (fault, code) in [(DnsFault::NxDomain, ResponseCode::NXDomain), (DnsFault::NoData, ResponseCode::NoError)] {
        dns.set_fault(fault);
        assert_eq!(no_records(resolver.srv_lookup(NAME).await).response_code, code);
    }
    dns.set_fault(DnsFault::Silent);
    assert!(matches!(short_timeout.srv_lookup(NAME).await, Err(NetError::Timeout)));

    dns.set_fault(DnsFault::Truncated);
    let before = dns.queries();
    assert_eq!(srv_records(&resolver.srv_lookup(NAME).await.unwrap()).len(), 3);
    assert!(dns.queries().tcp > before.tcp);

    let reply = query_once(dns.addr(), RecordType::SRV, Some(1232)).await.unwrap();
    assert!(reply.metadata.truncation);
    assert_eq!(reply.answers.len(), 2, "half of the records, rounded up");
    dns.set_fault_for(DnsFilter::all().tcp(), DnsFault::Silent);
    assert!(matches!(short_timeout.srv_lookup(NAME).await, Err(NetError::Timeout)));

    dns.clear_faults();
    assert_eq!(glue(&resolver.srv_lookup(NAME).await.unwrap()), ready_pods(&service));
}

#[tokio::test]
async fn unusual_records_are_answered_as_they_were_set() {
    let (service, resolver) = service(1).await;
    let dns = service.dns();
    let unusual = [
        (10, 0, 0, "memcached-0.memcached.default.svc.cluster.local."),
        (0, 5, 11211, "."),
        (0, 5, 11211, "Upper.Example.COM."),
        (0, 5, 11211, "Upper.Example.COM."),
        (0, 5, 9150, "Upper.Example.COM."),
    ];
    dns.set_srv(unusual.map(|(priority, weight, port, target)| SrvRecord::new(priority, weight, port, target)))
        .unwrap();
    let v6: IpAddr = "fd00::1".parse().unwrap();
    dns.set_host("upper.example.com", [Ipv4Addr::new(127, 1, 2, 3).into(), v6]).unwrap();
    dns.set_host("memcached-0.memcached.default.svc.cluster.local", []).unwrap();

    let lookup = resolver.srv_lookup(NAME).await.unwrap();
    assert_eq!(
        srv_records(&lookup),
        unusual.map(|(priority, weight, port, target)| (priority, weight, port, target.to_owned()))
    );
    let addresses = [Ipv4Addr::new(127, 1, 2, 3).into(), v6].map(|address| ("Upper.Example.COM.".to_owned(), address));
    assert_eq!(glue(&lookup), BTreeSet::from(addresses));
    let found: BTreeSet<_> = resolver.lookup_ip("upper.example.com.").await.unwrap().iter().collect();
    assert!(found.contains(&v6) || found.len() == 1);
    let empty = no_records(resolver.ipv4_lookup(format!("memcached-0.{NAME}")).await);
    assert_eq!(empty.response_code, ResponseCode::NXDomain);

    assert!(dns.set_srv([SrvRecord::new(0, 0, 0, "x".repeat(64))]).is_err());
    dns.set_srv([]).unwrap();
    assert_eq!(no_records(resolver.srv_lookup(NAME).await).response_code, ResponseCode::NoError);
    dns.clear_overrides();
    assert_eq!(glue(&resolver.srv_lookup(NAME).await.unwrap()), ready_pods(&service));
}

#[tokio::test]
async fn queries_are_counted_and_replies_fit_the_requested_payload_size() {
    let (service, _) = service(20).await;
    let dns = service.dns();
    for (kind, times) in [(RecordType::SRV, 3), (RecordType::A, 2), (RecordType::AAAA, 1), (RecordType::TXT, 1)] {
        for _ in 0..times {
            assert!(query_once(dns.addr(), kind, Some(4096)).await.is_some());
        }
    }
    let queries = dns.queries();
    assert_eq!((queries.srv, queries.a, queries.aaaa, queries.other), (3, 2, 1, 1));
    assert_eq!((queries.total, queries.tcp), (7, 0));

    let complete = query_once(dns.addr(), RecordType::SRV, Some(4096)).await.unwrap();
    assert!(!complete.metadata.truncation && complete.metadata.authoritative);
    assert_eq!((complete.answers.len(), complete.additionals.len()), (20, 20));
    for payload in [Some(1232), Some(512), None] {
        let truncated = query_once(dns.addr(), RecordType::SRV, payload).await.unwrap();
        assert!(truncated.metadata.truncation && truncated.answers.len() < 20, "{payload:?}");
    }
}

#[tokio::test]
async fn the_server_stops_and_starts_again_at_the_same_address() {
    let (service, resolver) = service(1).await;
    let dns = service.dns();
    let short_timeout = self::resolver(dns.addr(), true, Duration::from_millis(300));
    for _ in 0..2 {
        resolver.srv_lookup(NAME).await.unwrap();
        dns.stop().await;
        dns.stop().await;
        assert!(short_timeout.srv_lookup(NAME).await.is_err());
        dns.start().await.unwrap();
        dns.start().await.unwrap();
    }
    resolver.srv_lookup(NAME).await.unwrap();

    let addr = dns.addr();
    drop(service);
    let closed = async {
        while UdpSocket::bind(addr).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(TEST_TIMEOUT, closed).await.expect("dropping the service must close the socket");
}
