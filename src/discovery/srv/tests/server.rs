//! A small DNS server that answers or fails as a test requires.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SOA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::SrvDiscovery;

pub(super) const SERVICE: &str = "mc.default.svc.cluster.local.";
pub(super) const TTL: u32 = 5;

/// What the DNS server answers.
#[derive(Debug, Clone, Default)]
pub(super) struct Zone {
    /// Pods by name and last byte of their addresses.
    pub(super) pods: Vec<(String, u8)>,
    pub(super) glue: bool,
    /// Other records, by owner.
    pub(super) records: Vec<Record>,
    /// Names that stand for other names.
    pub(super) aliases: Vec<(String, String)>,
    /// Whether answers have only the alias, and not the records it leads to.
    pub(super) only_alias: bool,
    /// Whether all records are in all answers, whatever was asked for.
    pub(super) foreign: bool,
    /// Answers every query with this code.
    pub(super) code: Option<ResponseCode>,
    /// Answers queries of this name with this code, or not at all.
    pub(super) name_code: Option<(String, Option<ResponseCode>)>,
    /// Answers queries of this type with this code, or not at all.
    pub(super) type_code: Option<(RecordType, Option<ResponseCode>)>,
    pub(super) silent: bool,
    pub(super) delay: Duration,
    pub(super) lost_datagrams: usize,
    pub(super) udp_blocked: bool,
    pub(super) tcp_blocked: bool,
    /// Whether what does not fit TCP is answered by SERVFAIL instead of a truncated reply.
    pub(super) servfail_if_too_long: bool,
    /// Whether pods have AAAA records only.
    pub(super) v6_only: bool,
    /// Whether pods have A and AAAA records.
    pub(super) dual_stack: bool,
}

/// A DNS server on its own loopback address.
pub(super) struct FakeDns {
    pub(super) address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    /// The type, name and transport of each query.
    queries: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl FakeDns {
    pub(super) async fn new(zone: Zone) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            // The port may be in use for TCP.
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (Arc::new(udp), tcp);
            }
        };
        let (zone, queries) = (Arc::new(Mutex::new(zone)), Arc::<Mutex<Vec<String>>>::default());
        let address = udp.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let (udp_zone, udp_queries) = (Arc::clone(&zone), Arc::clone(&queries));
        tasks.spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok((len, peer)) = udp.recv_from(&mut buffer).await {
                let reply = reply(&buffer[..len], &udp_zone, &udp_queries, true);
                let (udp, delay) = (Arc::clone(&udp), udp_zone.lock().unwrap().delay);
                tokio::spawn(async move {
                    sleep(delay).await;
                    if let Some(reply) = reply {
                        let _ = udp.send_to(&reply, peer).await;
                    }
                });
            }
        });
        let (tcp_zone, tcp_queries) = (Arc::clone(&zone), Arc::clone(&queries));
        tasks.spawn(async move {
            while let Ok((stream, _)) = tcp.accept().await {
                tokio::spawn(serve_tcp(stream, Arc::clone(&tcp_zone), Arc::clone(&tcp_queries)));
            }
        });
        Self { address, zone, queries, _tasks: tasks }
    }

    pub(super) async fn with_pods(count: u8) -> Self {
        let pods = (0..count).map(|pod| (format!("mc-{pod}.{SERVICE}"), pod + 1)).collect();
        Self::new(Zone { pods, ..Zone::default() }).await
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut Zone)) {
        change(&mut self.zone.lock().unwrap());
    }

    pub(super) fn discovery(&self) -> SrvDiscovery {
        SrvDiscovery::new(SERVICE).nameservers([self.address])
    }

    /// Returns the queries since the last call. A datagram that was resent, as on a busy machine, counts once.
    pub(super) fn take_queries(&self) -> Vec<String> {
        let mut queries = std::mem::take(&mut *self.queries.lock().unwrap());
        queries.dedup();
        queries
    }

    /// Returns how many queries there were since the last call, resent ones included.
    pub(super) fn count_queries(&self) -> usize {
        std::mem::take(&mut *self.queries.lock().unwrap()).len()
    }
}

pub(super) fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

pub(super) fn srv(owner: &str, port: u16, target: &str) -> Record {
    Record::from_rdata(name(owner), TTL, RData::SRV(SRV::new(0, 33, port, name(target))))
}

pub(super) fn a(owner: &str, last: u8) -> Record {
    Record::from_rdata(name(owner), TTL, RData::A(A::new(10, 0, 0, last)))
}

pub(super) fn aaaa(owner: &str, last: u8) -> Record {
    Record::from_rdata(name(owner), TTL, RData::AAAA(AAAA::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into())))
}

pub(super) fn cname(owner: &str, target: &str) -> Record {
    Record::from_rdata(name(owner), TTL, RData::CNAME(CNAME(name(target))))
}

/// Returns a zone's SOA, with a TTL of an hour and this minimum.
pub(super) fn soa(zone: &str, minimum: u32) -> Record {
    let soa = SOA::new(name("ns.dns."), name("hostmaster.dns."), 1, 7_200, 1_800, 86_400, minimum);
    Record::from_rdata(name(zone), 3_600, RData::SOA(soa))
}

async fn serve_tcp(mut stream: TcpStream, zone: Arc<Mutex<Zone>>, queries: Arc<Mutex<Vec<String>>>) {
    while let Ok(len) = stream.read_u16().await {
        let mut query = vec![0; len.into()];
        if stream.read_exact(&mut query).await.is_err() {
            return;
        }
        let delay = zone.lock().unwrap().delay;
        sleep(delay).await;
        match reply(&query, &zone, &queries, false) {
            Some(reply) => {
                let _ = stream.write_u16(reply.len().try_into().unwrap()).await;
                let _ = stream.write_all(&reply).await;
            }
            None => std::future::pending().await,
        }
    }
}

fn reply(query: &[u8], zone: &Mutex<Zone>, queries: &Mutex<Vec<String>>, is_udp: bool) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(query).ok()?;
    let query = message.queries.first()?.clone();
    let transport = if is_udp { "udp" } else { "tcp" };
    queries.lock().unwrap().push(format!("{} {} {transport}", query.query_type(), query.name()));
    let zone = {
        let mut zone = zone.lock().unwrap();
        if is_udp && zone.lost_datagrams > 0 {
            zone.lost_datagrams -= 1;
            return None;
        }
        zone.clone()
    };
    if zone.silent || (if is_udp { zone.udp_blocked } else { zone.tcp_blocked }) {
        return None;
    }
    let max_len = if is_udp { usize::from(message.max_payload()) } else { usize::from(u16::MAX) };
    message.metadata.message_type = MessageType::Response;
    zone.answer(&query, &mut message)?;
    let bytes = message.to_vec().unwrap();
    // The flag is set if it did not fit 64 KiB.
    let is_truncated = bytes[2] & 0b10 != 0;
    if bytes.len() <= max_len && !is_truncated {
        return Some(bytes);
    }
    // As servers do: some of the records, and the truncation flag.
    message.answers.truncate(5);
    message.additionals.clear();
    if !is_udp && zone.servfail_if_too_long {
        message.answers.clear();
        message.metadata.response_code = ResponseCode::ServFail;
    } else {
        message.metadata.truncation = true;
    }
    Some(message.to_vec().unwrap())
}

impl Zone {
    fn code_for(&self, query: &Query) -> Option<Option<ResponseCode>> {
        let of_name = self.name_code.as_ref().filter(|(text, _)| name(text) == *query.name()).map(|(_, code)| *code);
        let of_type = self.type_code.filter(|(kind, _)| *kind == query.query_type()).map(|(_, code)| code);
        of_name.or(of_type).or_else(|| self.code.map(Some))
    }

    fn all_records(&self) -> Vec<Record> {
        let mut records = self.records.clone();
        for (pod, last) in &self.pods {
            records.push(srv(SERVICE, 11211, pod));
            records.extend((!self.v6_only).then(|| a(pod, *last)));
            records.extend((self.v6_only || self.dual_stack).then(|| aaaa(pod, *last)));
        }
        records
    }

    /// Writes the answer into a message. Returns `None` if there is none.
    fn answer(&self, query: &Query, message: &mut Message) -> Option<()> {
        if let Some(code) = self.code_for(query) {
            message.metadata.response_code = code?;
            return Some(());
        }
        let mut owner = query.name().clone();
        // Not endless, because aliases may form a loop.
        for _ in 0..20 {
            let Some((_, target)) = self.aliases.iter().find(|(alias, _)| name(alias) == owner) else { break };
            message.add_answer(cname(&owner.to_ascii(), target));
            owner = name(target);
            if self.only_alias {
                return Some(());
            }
        }
        let records = self.all_records();
        let is_type = |record: &&Record| record.record_type() == query.query_type();
        let answers = records.iter().filter(is_type).filter(|record| self.foreign || record.name == owner);
        message.add_answers(answers.cloned());
        if self.glue && query.query_type() == RecordType::SRV {
            message.add_additionals(records.iter().filter(|record| record.data.ip_addr().is_some()).cloned());
        }
        if !records.iter().any(|record| record.name == owner) {
            message.metadata.response_code = ResponseCode::NXDomain;
        }
        if message.answers.is_empty() {
            message.add_authority(soa("cluster.local.", 7));
        }
        Some(())
    }
}
