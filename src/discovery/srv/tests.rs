//! SRV discovery over real sockets, with a small DNS server that answers or fails as the test requires.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use super::*;

const SERVICE: &str = "mc.default.svc.cluster.local.";

/// What the DNS server answers.
#[derive(Debug, Clone, Default)]
struct Zone {
    /// Pods by name and last byte of their addresses.
    pods: Vec<(String, u8)>,
    glue: bool,
    /// Answers every query with this code.
    code: Option<ResponseCode>,
    silent: bool,
    tcp_blocked: bool,
    /// Whether pods have AAAA records only.
    v6_only: bool,
}

/// A DNS server on its own loopback address.
struct FakeDns {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    /// The type, name and transport of each query.
    queries: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl FakeDns {
    async fn new(zone: Zone) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            // The port may be in use for TCP.
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let (zone, queries) = (Arc::new(Mutex::new(zone)), Arc::<Mutex<Vec<String>>>::default());
        let address = udp.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let (udp_zone, udp_queries) = (Arc::clone(&zone), Arc::clone(&queries));
        tasks.spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((len, peer)) = udp.recv_from(&mut buffer).await {
                if let Some(reply) = reply(&buffer[..len], &udp_zone, &udp_queries, true) {
                    let _ = udp.send_to(&reply, peer).await;
                }
            }
        });
        let (tcp_zone, tcp_queries) = (Arc::clone(&zone), Arc::clone(&queries));
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let (zone, queries) = (Arc::clone(&tcp_zone), Arc::clone(&tcp_queries));
                tokio::spawn(async move {
                    while let Ok(len) = stream.read_u16().await {
                        let mut query = vec![0; len.into()];
                        if stream.read_exact(&mut query).await.is_err() {
                            return;
                        }
                        match reply(&query, &zone, &queries, false) {
                            Some(reply) => {
                                let _ = stream.write_u16(reply.len().try_into().unwrap()).await;
                                let _ = stream.write_all(&reply).await;
                            }
                            None => std::future::pending().await,
                        }
                    }
                });
            }
        });
        Self { address, zone, queries, _tasks: tasks }
    }

    async fn with_pods(count: u8) -> Self {
        let pods = (0..count).map(|pod| (format!("mc-{pod}.{SERVICE}"), pod + 1)).collect();
        Self::new(Zone { pods, ..Zone::default() }).await
    }

    fn set(&self, change: impl FnOnce(&mut Zone)) {
        change(&mut self.zone.lock().unwrap());
    }

    fn discovery(&self) -> SrvDiscovery {
        SrvDiscovery::new(SERVICE).nameservers([self.address])
    }

    /// Returns the queries since the last call. A datagram that was resent, as on a busy machine, counts once.
    fn take_queries(&self) -> Vec<String> {
        let mut queries = std::mem::take(&mut *self.queries.lock().unwrap());
        queries.dedup();
        queries
    }
}

fn reply(query: &[u8], zone: &Mutex<Zone>, queries: &Mutex<Vec<String>>, is_udp: bool) -> Option<Vec<u8>> {
    let zone = zone.lock().unwrap().clone();
    let mut message = Message::from_vec(query).ok()?;
    let query = message.queries.first()?.clone();
    let transport = if is_udp { "udp" } else { "tcp" };
    queries.lock().unwrap().push(format!("{} {} {transport}", query.query_type(), query.name()));
    if zone.silent || (zone.tcp_blocked && !is_udp) {
        return None;
    }
    let max_len = if is_udp { usize::from(message.max_payload()) } else { usize::MAX };
    message.metadata.message_type = MessageType::Response;
    let record = |name: &str, data| Record::from_rdata(Name::from_ascii(name).unwrap(), 5, data);
    let name = query.name().to_ascii().to_ascii_lowercase();
    if let Some(code) = zone.code {
        message.metadata.response_code = code;
    } else if query.query_type() == RecordType::SRV && name == SERVICE && !zone.pods.is_empty() {
        for (pod, last) in &zone.pods {
            let target = Name::from_ascii(pod).unwrap();
            message.add_answer(record(&name, RData::SRV(SRV::new(0, 33, 11211, target))));
            if zone.glue {
                message.add_additional(record(pod, RData::A(A::new(10, 0, 0, *last))));
            }
        }
    } else if let Some((pod, last)) = zone.pods.iter().find(|(pod, _)| *pod == name) {
        match query.query_type() {
            RecordType::A if !zone.v6_only => {
                message.add_answer(record(pod, RData::A(A::new(10, 0, 0, *last))));
            }
            RecordType::AAAA => {
                message.add_answer(record(pod, RData::AAAA(AAAA::new(0xfd00, 0, 0, 0, 0, 0, 0, (*last).into()))));
            }
            _ => {}
        }
    } else {
        message.metadata.response_code = ResponseCode::NXDomain;
    }
    let bytes = message.to_vec().unwrap();
    if bytes.len() <= max_len {
        return Some(bytes);
    }
    // As servers do: some of the records, and the truncation flag.
    message.answers.truncate(5);
    message.additionals.clear();
    message.metadata.truncation = true;
    Some(message.to_vec().unwrap())
}

fn names(membership: &Membership) -> Vec<&str> {
    membership.endpoints().iter().map(|endpoint| endpoint.id().host()).collect()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// docs/discovery.md, rows 1 and 11: with the TTL, and with addresses if the server adds them.
#[tokio::test]
async fn pods_are_listed() {
    let dns = FakeDns::with_pods(3).await;
    let discovery = dns.discovery();
    let found = discovery.discover().await.unwrap();
    let host = |pod: u8| format!("mc-{pod}.mc.default.svc.cluster.local");
    assert_eq!(names(&found), [host(0), host(1), host(2)]);
    assert_eq!(found.ttl(), Some(Duration::from_secs(5)));
    assert!(found.endpoints().iter().all(|endpoint| endpoint.addresses().is_empty()));

    dns.set(|zone| zone.glue = true);
    let found = discovery.discover().await.unwrap();
    assert_eq!(found.endpoints()[2].addresses(), ips(&["10.0.0.3"]), "there is no cache");
}

/// docs/discovery.md, rows 12 and 37: by an absolute name.
#[tokio::test]
async fn hosts_are_looked_up() {
    let dns = FakeDns::with_pods(2).await;
    let discovery = dns.discovery();
    let host = "mc-1.mc.default.svc.cluster.local";
    assert_eq!(discovery.resolve(host).await.unwrap().addresses(), ips(&["10.0.0.2"]));
    assert_eq!(dns.take_queries(), [format!("A {host}. udp")]);
    dns.set(|zone| zone.v6_only = true);
    assert_eq!(discovery.resolve(host).await.unwrap().addresses(), ips(&["fd00::2"]));
    assert_eq!(dns.take_queries().len(), 2);

    let error = discovery.resolve("mc-9.mc.default.svc.cluster.local").await.unwrap_err();
    assert!(error.is_no_such_host() && error.to_string().contains("mc-9.mc"), "{error}");
    assert_eq!(dns.take_queries().len(), 1, "NXDOMAIN is about every type");
}

/// docs/discovery.md, rows 3, 13 and 30.
#[tokio::test]
async fn a_missing_name_is_explained() {
    let dns = FakeDns::with_pods(0).await;
    let error = dns.discovery().discover().await.unwrap_err();
    assert!(matches!(error, DiscoveryError::Empty { nxdomain: true, .. }), "{error}");
    assert!(error.to_string().ends_with("is ready: SRV mc.default.svc.cluster.local."), "{error}");

    let error = dns.discovery().port_name("memcached").discover().await.unwrap_err();
    let text = error.to_string();
    assert!(error.is_empty() && text.contains("SRV _memcached._tcp.mc.default.svc.cluster.local."), "{text}");
    assert!(text.contains("port is named `memcached`") && text.contains("bare name"), "{text}");
}

/// docs/discovery.md, row 15: NODATA is not NXDOMAIN.
#[tokio::test]
async fn a_name_without_records_is_empty() {
    let dns = FakeDns::with_pods(2).await;
    let pod = SrvDiscovery::new(format!("mc-0.{SERVICE}")).nameservers([dns.address]);
    let error = pod.discover().await.unwrap_err();
    assert!(matches!(error, DiscoveryError::Empty { nxdomain: false, .. }), "{error}");
}

/// docs/discovery.md, rows 16 and 18.
#[tokio::test]
async fn dns_error_codes_are_errors_that_name_the_code() {
    let dns = FakeDns::with_pods(2).await;
    let discovery = dns.discovery();
    for (code, text) in [
        (ResponseCode::ServFail, "the DNS server answered SERVFAIL"),
        (ResponseCode::Refused, "the DNS server answered REFUSED: it may not serve this name, or not to this client"),
    ] {
        dns.set(|zone| zone.code = Some(code));
        assert_eq!(discovery.discover().await.unwrap_err().to_string(), text);
        assert!(!discovery.resolve("mc-0.mc.default.svc.cluster.local").await.unwrap_err().is_no_such_host());
    }
    dns.set(|zone| zone.code = None);
    assert_eq!(discovery.discover().await.unwrap().endpoints().len(), 2);
}

/// docs/discovery.md, row 17: within the default lookup timeout.
#[tokio::test]
async fn a_silent_server_times_out() {
    let dns = FakeDns::with_pods(2).await;
    dns.set(|zone| zone.silent = true);
    let start = Instant::now();
    assert_eq!(dns.discovery().discover().await, Err(DiscoveryError::Timeout));
    assert!(start.elapsed() < Duration::from_millis(4_900), "{:?}", start.elapsed());
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
    let error = dns.discovery().discover().await.unwrap_err();
    assert!(matches!(error, DiscoveryError::Timeout | DiscoveryError::Truncated), "{error}");
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

/// docs/discovery.md, row 39: no other name is queried after that.
#[tokio::test]
async fn a_short_name_is_pinned_by_the_first_success() {
    let dns = FakeDns::with_pods(3).await;
    let search = ["other.svc.cluster.local", "default.svc.cluster.local", "svc.cluster.local"];
    let resolver = Resolver::with_search("mc", &[dns.address], &search, 5).unwrap();
    dns.set(|zone| zone.code = Some(ResponseCode::ServFail));
    assert!(!resolver.srv().await.unwrap_err().is_empty());
    dns.set(|zone| zone.code = Some(ResponseCode::NXDomain));
    assert!(resolver.srv().await.unwrap_err().is_empty());
    dns.set(|zone| zone.code = None);
    dns.take_queries();
    assert_eq!(resolver.srv().await.unwrap().records.len(), 3);
    assert!(dns.take_queries().len() >= 2);
    for code in [ResponseCode::ServFail, ResponseCode::NXDomain] {
        dns.set(|zone| zone.code = Some(code));
        assert!(resolver.srv().await.is_err());
        assert!(dns.take_queries().iter().all(|query| *query == format!("SRV {SERVICE} udp")));
    }
}

/// docs/discovery.md, row 38: not with every poll.
#[tokio::test]
async fn each_warning_is_logged_once() {
    let pods = (1..4).map(|pod| (format!("10-0-0-{pod}.{SERVICE}"), pod)).collect();
    let dns = FakeDns::new(Zone { pods, ..Zone::default() }).await;
    let discovery = dns.discovery();
    assert_eq!(discovery.discover().await.unwrap().endpoints().len(), 3);
    let host = String::new();
    assert!(discovery.warned.lock().unwrap().contains(&std::mem::discriminant(&Warning::UnstableName { host })));
    discovery.discover().await.unwrap();
    assert_eq!(discovery.warned.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn invalid_names_are_configuration_errors() {
    for name in ["", ".", "a..b", &"x".repeat(300)] {
        let discovery = SrvDiscovery::new(name).nameservers(["127.0.0.1:1".parse().unwrap()]);
        assert!(matches!(discovery.discover().await, Err(DiscoveryError::Config(_))), "{name:?}");
    }
}
