//! What the DNS server answers: a pure function of a question and of what the test has set up.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::rdata::{SOA, SRV};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};

use super::{DnsFault, DnsQueries, SrvRecord};

/// A pod DNS is to list.
#[derive(Debug)]
pub(in crate::testing) struct Listed<'a> {
    pub(in crate::testing) fqdn: &'a str,
    pub(in crate::testing) addr: SocketAddr,
}

/// What DNS is started with.
#[derive(Debug, Clone, Copy)]
pub(in crate::testing) struct Settings<'a> {
    pub(in crate::testing) service: &'a str,
    pub(in crate::testing) port_name: &'a str,
    pub(in crate::testing) ttl: Duration,
    pub(in crate::testing) glue: bool,
}

/// An answer's code and sections.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) code: ResponseCode,
    pub(super) answers: Vec<Record>,
    pub(super) soa: Option<Record>,
    pub(super) glue: Vec<Record>,
}

#[derive(Debug)]
struct ListedPod {
    name: Name,
    addr: SocketAddr,
}

/// Names are absolute, and compared as DNS does, regardless of case.
#[derive(Debug)]
pub(super) struct Zone {
    service: Name,
    named_port: Name,
    origin: Name,
    pub(super) ttl: u32,
    pub(super) glue: bool,
    pub(super) fault: Option<DnsFault>,
    pub(super) queries: DnsQueries,
    pods: Vec<ListedPod>,
    /// Answered instead of the pods.
    srv: Option<Vec<SRV>>,
    /// Answered instead of the pods' addresses; none at all means that the host does not exist.
    hosts: HashMap<Name, Vec<IpAddr>>,
}

impl Zone {
    pub(super) fn new(settings: Settings<'_>) -> io::Result<Self> {
        let service = name(settings.service)?;
        let named_port = name(&format!("_{}._tcp.{}", settings.port_name, settings.service))?;
        // "service.namespace.svc." stands before the cluster's own domain, which CoreDNS speaks for.
        let labels = usize::from(service.num_labels());
        let origin = service.trim_to(if labels > 3 { labels - 3 } else { labels });
        Ok(Self {
            service,
            named_port,
            origin,
            ttl: seconds(settings.ttl),
            glue: settings.glue,
            fault: None,
            queries: DnsQueries::default(),
            pods: Vec::new(),
            srv: None,
            hosts: HashMap::new(),
        })
    }

    pub(super) fn list<'a>(&mut self, pods: impl Iterator<Item = Listed<'a>>) {
        // Pods' names were checked when they were made.
        self.pods = pods.filter_map(|pod| Some(ListedPod { name: name(pod.fqdn).ok()?, addr: pod.addr })).collect();
    }

    pub(super) fn set_srv(&mut self, records: impl IntoIterator<Item = SrvRecord>) -> io::Result<()> {
        let srv = |record: SrvRecord| Ok(SRV::new(record.priority, record.weight, record.port, name(&record.target)?));
        self.srv = Some(records.into_iter().map(srv).collect::<io::Result<_>>()?);
        Ok(())
    }

    pub(super) fn set_host(&mut self, host: &str, addresses: impl IntoIterator<Item = IpAddr>) -> io::Result<()> {
        self.hosts.insert(name(host)?, addresses.into_iter().collect());
        Ok(())
    }

    pub(super) fn clear_overrides(&mut self) {
        self.srv = None;
        self.hosts.clear();
    }

    /// The answer if nothing is wrong. `owner` is the name as it was asked for.
    pub(super) fn answer(&self, owner: &Name, kind: RecordType) -> Answer {
        let is_service = *owner == self.service;
        let has_srv = is_service || *owner == self.named_port;
        let addresses =
            if is_service { self.pods.iter().map(|pod| pod.addr.ip()).collect() } else { self.addresses(owner) };
        let exists = !addresses.is_empty() || has_srv && (self.srv.is_some() || !self.pods.is_empty());
        if !exists {
            return self.nothing(owner, ResponseCode::NXDomain);
        }
        if kind == RecordType::SRV && has_srv {
            let srv = self.srv();
            let glue = if self.glue { self.glue(&srv) } else { Vec::new() };
            let answers = srv.into_iter().map(|srv| self.record(owner, RData::SRV(srv))).collect();
            return self.found(owner, answers, glue);
        }
        let answers = self.address_records(owner, &addresses).filter(|record| record.record_type() == kind).collect();
        self.found(owner, answers, Vec::new())
    }

    /// The name exists; if it has no such records, that is an answer of its own.
    fn found(&self, owner: &Name, answers: Vec<Record>, glue: Vec<Record>) -> Answer {
        if answers.is_empty() {
            return self.nothing(owner, ResponseCode::NoError);
        }
        Answer { answers, glue, ..Answer::default() }
    }

    /// An answer without records, with the SOA that says how long to believe it.
    pub(super) fn nothing(&self, owner: &Name, code: ResponseCode) -> Answer {
        // Whoever does not speak for the name would pass the question on; at the root the answer has an end.
        let origin = if self.origin.zone_of(owner) { self.origin.clone() } else { Name::root() };
        let below = |label: &str| origin.prepend_label(label).unwrap_or_else(|_| origin.clone());
        let master = below("dns").prepend_label("ns").unwrap_or_else(|_| origin.clone());
        let soa = SOA::new(master, below("hostmaster"), 1, 7200, 1800, 86400, self.ttl);
        Answer { code, soa: Some(self.record(&origin, RData::SOA(soa))), ..Answer::default() }
    }

    fn srv(&self) -> Vec<SRV> {
        if let Some(srv) = &self.srv {
            return srv.clone();
        }
        // As CoreDNS weighs: the same for all, and never 0.
        let weight = (100 / self.pods.len().max(1)).max(1);
        let weight = u16::try_from(weight).unwrap_or(1);
        self.pods.iter().map(|pod| SRV::new(0, weight, pod.addr.port(), pod.name.clone())).collect()
    }

    /// The addresses of every target, each target once.
    fn glue(&self, srv: &[SRV]) -> Vec<Record> {
        let mut told = HashSet::new();
        let mut glue = Vec::new();
        for srv in srv {
            if told.insert(&srv.target) {
                glue.extend(self.address_records(&srv.target, &self.addresses(&srv.target)));
            }
        }
        glue
    }

    fn addresses(&self, host: &Name) -> Vec<IpAddr> {
        if let Some(addresses) = self.hosts.get(host) {
            return addresses.clone();
        }
        self.pods.iter().filter(|pod| pod.name == *host).map(|pod| pod.addr.ip()).collect()
    }

    fn address_records(&self, owner: &Name, addresses: &[IpAddr]) -> impl Iterator<Item = Record> {
        addresses.iter().map(|address| {
            let data = match address {
                IpAddr::V4(address) => RData::A((*address).into()),
                IpAddr::V6(address) => RData::AAAA((*address).into()),
            };
            self.record(owner, data)
        })
    }

    fn record(&self, owner: &Name, data: RData) -> Record {
        Record::from_rdata(owner.clone(), self.ttl, data)
    }
}

/// An absolute name, its case kept.
fn name(text: &str) -> io::Result<Name> {
    let mut name = Name::from_ascii(text)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("`{text}` is no DNS name: {error}")))?;
    name.set_fqdn(true);
    Ok(name)
}

/// DNS counts whole seconds.
pub(super) fn seconds(ttl: Duration) -> u32 {
    u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX)
}
