//! Over real sockets, against a DNS server of a hundred lines that answers, or fails, as it is told.

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

/// What the server does.
#[derive(Debug, Clone, Default)]
struct Zone {
    /// Pods by name and last byte of their addresses.
    pods: Vec<(String, u8)>,
    glue: bool,
    /// Answers every question with this.
    code: Option<ResponseCode>,
    silent: bool,
    tcp_blocked: bool,
    /// Of names that exist but have no A record.
    v6_only: bool,
}

/// A DNS server on its own loopback address.
struct Fake {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    /// Name and transport of each question.
    asked: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Fake {
    async fn new(zone: Zone) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            // The same number may be taken for TCP.
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let (zone, asked) = (Arc::new(Mutex::new(zone)), Arc::<Mutex<Vec<String>>>::default());
        let address = udp.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let (its_zone, its_asked) = (Arc::clone(&zone), Arc::clone(&asked));
        tasks.spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((len, peer)) = udp.recv_from(&mut buffer).await {
                if let Some(reply) = reply(&buffer[..len], &its_zone, &its_asked, true) {
                    let _ = udp.send_to(&reply, peer).await;
                }
            }
        });
        let (its_zone, its_asked) = (Arc::clone(&zone), Arc::clone(&asked));
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let (zone, asked) = (Arc::clone(&its_zone), Arc::clone(&its_asked));
                tokio::spawn(async move {
                    while let Ok(len) = stream.read_u16().await {
                        let mut question = vec![0; len.into()];
                        if stream.read_exact(&mut question).await.is_err() {
                            return;
                        }
                        match reply(&question, &zone, &asked, false) {
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
        Self { address, zone, asked, _tasks: tasks }
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

    /// What was asked since the last look. A datagram that is sent again, as on a busy machine, counts once.
    fn asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut *self.asked.lock().unwrap());
        asked.dedup();
        asked
    }
}

fn reply(question: &[u8], zone: &Mutex<Zone>, asked: &Mutex<Vec<String>>, is_udp: bool) -> Option<Vec<u8>> {
    let zone = zone.lock().unwrap().clone();
    let mut message = Message::from_vec(question).ok()?;
    let query = message.queries.first()?.clone();
    let transport = if is_udp { "udp" } else { "tcp" };
    asked.lock().unwrap().push(format!("{} {} {transport}", query.query_type(), query.name()));
    if zone.silent || (zone.tcp_blocked && !is_udp) {
        return None;
    }
    let room = if is_udp { usize::from(message.max_payload()) } else { usize::MAX };
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
    if bytes.len() <= room {
        return Some(bytes);
    }
    // As servers do: the records that fit, and the sign that they are not all.
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

/// Rows 1 and 11: pods, their TTL, and their addresses if the server sends them along.
#[tokio::test]
async fn pods_are_listed() {
    let fake = Fake::with_pods(3).await;
    let discovery = fake.discovery();
    let found = discovery.discover().await.unwrap();
    let host = |pod: u8| format!("mc-{pod}.mc.default.svc.cluster.local");
    assert_eq!(names(&found), [host(0), host(1), host(2)]);
    assert_eq!(found.ttl(), Some(Duration::from_secs(5)));
    assert!(found.endpoints().iter().all(|endpoint| endpoint.addresses().is_empty()));

    fake.set(|zone| zone.glue = true);
    let found = discovery.discover().await.unwrap();
    assert_eq!(found.endpoints()[2].addresses(), ips(&["10.0.0.3"]), "there is no cache in between");
}

/// Rows 12 and 37: each dial asks for the one host, as a full name.
#[tokio::test]
async fn hosts_are_looked_up() {
    let fake = Fake::with_pods(2).await;
    let discovery = fake.discovery();
    let host = "mc-1.mc.default.svc.cluster.local";
    assert_eq!(discovery.resolve(host).await.unwrap(), ips(&["10.0.0.2"]));
    assert_eq!(fake.asked(), [format!("A {host}. udp")]);
    fake.set(|zone| zone.v6_only = true);
    assert_eq!(discovery.resolve(host).await.unwrap(), ips(&["fd00::2"]));
    assert_eq!(fake.asked().len(), 2);

    let error = discovery.resolve("mc-9.mc.default.svc.cluster.local").await.unwrap_err();
    assert!(matches!(error, DiscoveryError::Empty { nxdomain: true, .. }), "{error}");
    assert_eq!(fake.asked().len(), 1, "NXDOMAIN is about every type");
}

/// Rows 3, 13 and 30: a name without pods; and how to find out what is wrong with it.
#[tokio::test]
async fn a_missing_name_is_explained() {
    let fake = Fake::with_pods(0).await;
    let error = fake.discovery().discover().await.unwrap_err();
    assert!(matches!(error, DiscoveryError::Empty { nxdomain: true, .. }), "{error}");
    assert!(error.to_string().ends_with("is ready: SRV mc.default.svc.cluster.local."), "{error}");

    let error = fake.discovery().port_name("memcached").discover().await.unwrap_err();
    let text = error.to_string();
    assert!(error.is_empty() && text.contains("SRV _memcached._tcp.mc.default.svc.cluster.local."), "{text}");
    assert!(text.contains("port is named `memcached`") && text.contains("bare name"), "{text}");
}

/// Row 15: NODATA is empty too, and not NXDOMAIN.
#[tokio::test]
async fn a_name_without_records_is_empty() {
    let fake = Fake::with_pods(2).await;
    let pod = SrvDiscovery::new(format!("mc-0.{SERVICE}")).nameservers([fake.address]);
    let error = pod.discover().await.unwrap_err();
    assert!(matches!(error, DiscoveryError::Empty { nxdomain: false, .. }), "{error}");
}

/// Rows 16 and 18: error codes are errors, and say which.
#[tokio::test]
async fn error_codes_are_errors() {
    let fake = Fake::with_pods(2).await;
    let discovery = fake.discovery();
    for (code, text) in [
        (ResponseCode::ServFail, "the DNS server answered SERVFAIL"),
        (ResponseCode::Refused, "the DNS server answered REFUSED: it may not serve this name, or not to this client"),
    ] {
        fake.set(|zone| zone.code = Some(code));
        assert_eq!(discovery.discover().await.unwrap_err().to_string(), text);
        assert!(!discovery.resolve("mc-0.mc.default.svc.cluster.local").await.unwrap_err().is_empty());
    }
    fake.set(|zone| zone.code = None);
    assert_eq!(discovery.discover().await.unwrap().endpoints().len(), 2);
}

/// Row 17: a silent server is a timeout, within the look-up timeout's default.
#[tokio::test]
async fn a_silent_server_times_out() {
    let fake = Fake::with_pods(2).await;
    fake.set(|zone| zone.silent = true);
    let start = Instant::now();
    assert_eq!(fake.discovery().discover().await, Err(DiscoveryError::Timeout));
    assert!(start.elapsed() < Duration::from_millis(4_900), "{:?}", start.elapsed());
}

/// Row 22: 300 pods do not fit a datagram: all of them come over TCP.
#[tokio::test]
async fn a_long_answer_comes_over_tcp() {
    let pods = (0..300).map(|pod| (format!("mc-{pod}.{SERVICE}"), 1)).collect();
    let fake = Fake::new(Zone { pods, glue: true, ..Zone::default() }).await;
    let discovery = fake.discovery();
    for _ in 0..3 {
        let found = discovery.discover().await.unwrap();
        assert_eq!(found.endpoints().len(), 300);
        assert!(found.endpoints().iter().all(|endpoint| endpoint.addresses().len() == 1));
    }
    assert_eq!(fake.asked()[1], format!("SRV {SERVICE} tcp"));
}

/// Row 23: if TCP does not get through, that is an error, never the part that fitted the datagram.
#[tokio::test]
async fn a_truncated_answer_is_no_answer() {
    let pods = (0..300).map(|pod| (format!("mc-{pod}.{SERVICE}"), 1)).collect();
    let fake = Fake::new(Zone { pods, tcp_blocked: true, ..Zone::default() }).await;
    let error = fake.discovery().discover().await.unwrap_err();
    assert!(matches!(error, DiscoveryError::Timeout | DiscoveryError::Truncated), "{error}");
}

/// Row 22: twelve pods fit a datagram if more than 512 bytes are asked for, and they are.
#[tokio::test]
async fn edns_is_used() {
    let fake = Fake::with_pods(12).await;
    assert_eq!(fake.discovery().discover().await.unwrap().endpoints().len(), 12);
    assert_eq!(fake.asked(), [format!("SRV {SERVICE} udp")]);
}

/// Row 16: with several servers, one that fails or is silent does not decide.
#[tokio::test]
async fn another_server_is_asked() {
    let (sick, well) = (Fake::with_pods(3).await, Fake::with_pods(3).await);
    let discovery = SrvDiscovery::new(SERVICE).nameservers([sick.address, well.address]);
    for change in [
        |zone: &mut Zone| zone.code = Some(ResponseCode::ServFail),
        |zone: &mut Zone| zone.code = Some(ResponseCode::Refused),
        |zone: &mut Zone| zone.silent = true,
    ] {
        sick.set(change);
        for _ in 0..3 {
            let start = Instant::now();
            assert_eq!(discovery.discover().await.unwrap().endpoints().len(), 3);
            assert!(start.elapsed() < Duration::from_millis(1_900), "{:?}", start.elapsed());
        }
    }
    well.set(|zone| zone.code = Some(ResponseCode::ServFail));
    sick.set(|zone| *zone = Zone { code: Some(ResponseCode::Refused), ..Zone::default() });
    assert!(discovery.discover().await.unwrap_err().to_string().contains("REFUSED"));
}

/// Row 39: the search list leads to the full name once; after that no other is asked for, whatever happens.
#[tokio::test]
async fn a_short_name_is_pinned_by_the_first_success() {
    let fake = Fake::with_pods(3).await;
    let search = ["other.svc.cluster.local", "default.svc.cluster.local", "svc.cluster.local"];
    let resolver = Resolver::with_search("mc", &[fake.address], &search, 5).unwrap();
    fake.set(|zone| zone.code = Some(ResponseCode::ServFail));
    assert!(!resolver.srv().await.unwrap_err().is_empty());
    fake.set(|zone| zone.code = Some(ResponseCode::NXDomain));
    assert!(resolver.srv().await.unwrap_err().is_empty());
    fake.set(|zone| zone.code = None);
    fake.asked();
    assert_eq!(resolver.srv().await.unwrap().records.len(), 3);
    assert!(fake.asked().len() >= 2);
    for code in [ResponseCode::ServFail, ResponseCode::NXDomain] {
        fake.set(|zone| zone.code = Some(code));
        assert!(resolver.srv().await.is_err());
        assert!(fake.asked().iter().all(|asked| *asked == format!("SRV {SERVICE} udp")));
    }
}

/// Row 38: what is odd is warned about once, not with every poll.
#[tokio::test]
async fn warnings_come_once() {
    let pods = (1..4).map(|pod| (format!("10-0-0-{pod}.{SERVICE}"), pod)).collect();
    let fake = Fake::new(Zone { pods, ..Zone::default() }).await;
    let discovery = fake.discovery();
    assert_eq!(discovery.discover().await.unwrap().endpoints().len(), 3);
    let host = String::new();
    assert!(discovery.warned.lock().unwrap().contains(&std::mem::discriminant(&Warning::UnstableName { host })));
    discovery.discover().await.unwrap();
    assert_eq!(discovery.warned.lock().unwrap().len(), 1);
}

/// A name that is none is a mistake, and so is a search for nothing.
#[tokio::test]
async fn unsound_names_are_refused() {
    for name in ["", ".", "a..b", &"x".repeat(300)] {
        let discovery = SrvDiscovery::new(name).nameservers(["127.0.0.1:1".parse().unwrap()]);
        assert!(matches!(discovery.discover().await, Err(DiscoveryError::Config(_))), "{name:?}");
    }
}
