//! The DNS server's answers: a pure function of the query and the settings of the test.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::{SOA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::SrvRecord;

/// A pod for DNS to list.
#[derive(Debug)]
pub(in crate::testing) struct ReadyPod<'a> {
    pub(in crate::testing) fqdn: &'a str,
    pub(in crate::testing) addr: SocketAddr,
}

/// The initial settings of the DNS server.
#[derive(Debug, Clone, Copy)]
pub(in crate::testing) struct ZoneSettings<'a> {
    pub(in crate::testing) service: &'a str,
    pub(in crate::testing) port_name: &'a str,
    pub(in crate::testing) ttl: Duration,
    pub(in crate::testing) glue: bool,
}

/// The response code and the sections of a reply.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) code: ResponseCode,
    pub(super) answers: Vec<Record>,
    pub(super) soa: Option<Record>,
    pub(super) glue: Vec<Record>,
}

impl Answer {
    pub(super) fn error(code: ResponseCode) -> Self {
        Self { code, ..Self::default() }
    }

    /// Returns half of the records, rounded up, which a client that ignores the flag takes for the whole answer.
    pub(super) fn half(mut self) -> Self {
        self.answers.truncate(self.answers.len().div_ceil(2));
        self.glue.clear();
        self
    }
}

#[derive(Debug)]
struct ListedPod {
    name: Name,
    addr: SocketAddr,
}

/// The names of a service and of its pods. Names are absolute, and their comparison ignores case, as in DNS.
#[derive(Debug)]
pub(super) struct Zone {
    service: Name,
    named_port: Name,
    origin: Name,
    pub(super) ttl: u32,
    pub(super) glue: bool,
    pods: Vec<ListedPod>,
    /// Replaces the SRV records of the pods.
    srv_override: Option<Vec<SRV>>,
    /// Replaces the addresses of pods and adds hosts. A host with an empty list does not exist.
    host_overrides: HashMap<Name, Vec<IpAddr>>,
}

impl Zone {
    pub(super) fn new(settings: ZoneSettings<'_>) -> io::Result<Self> {
        let service = name(settings.service)?;
        let named_port = name(&format!("_{}._tcp.{}", settings.port_name, settings.service))?;
        // The cluster's domain, for which CoreDNS is authoritative, follows "service.namespace.svc.".
        let labels = usize::from(service.num_labels());
        let origin = service.trim_to(if labels > 3 { labels - 3 } else { labels });
        Ok(Self {
            service,
            named_port,
            origin,
            ttl: seconds(settings.ttl),
            glue: settings.glue,
            pods: Vec::new(),
            srv_override: None,
            host_overrides: HashMap::new(),
        })
    }

    pub(super) fn set_pods<'a>(&mut self, pods: impl Iterator<Item = ReadyPod<'a>>) {
        // No pod is left out: names are checked when pods are created.
        self.pods = pods.filter_map(|pod| Some(ListedPod { name: name(pod.fqdn).ok()?, addr: pod.addr })).collect();
    }

    pub(super) fn set_srv(&mut self, records: impl IntoIterator<Item = SrvRecord>) -> io::Result<()> {
        let srv = |record: SrvRecord| Ok(SRV::new(record.priority, record.weight, record.port, name(&record.target)?));
        self.srv_override = Some(records.into_iter().map(srv).collect::<io::Result<_>>()?);
        Ok(())
    }

    pub(super) fn set_host(&mut self, host: &str, addresses: impl IntoIterator<Item = IpAddr>) -> io::Result<()> {
        self.host_overrides.insert(name(host)?, addresses.into_iter().collect());
        Ok(())
    }

    pub(super) fn clear_overrides(&mut self) {
        self.srv_override = None;
        self.host_overrides.clear();
    }

    /// Returns the answer without any fault. `owner` is the name as the query spells it.
    pub(super) fn answer(&self, owner: &Name, kind: RecordType) -> Answer {
        let is_service = *owner == self.service;
        let has_srv = is_service || *owner == self.named_port;
        let addresses =
            if is_service { self.pods.iter().map(|pod| pod.addr.ip()).collect() } else { self.addresses(owner) };
        let exists = !addresses.is_empty() || has_srv && (self.srv_override.is_some() || !self.pods.is_empty());
        if !exists {
            return self.no_records(owner, ResponseCode::NXDomain);
        }
        if kind == RecordType::SRV && has_srv {
            let srv = self.srv_records();
            let glue = if self.glue { self.glue(&srv) } else { Vec::new() };
            let answers = srv.into_iter().map(|srv| self.record(owner, RData::SRV(srv))).collect();
            return self.answer_for_existing(owner, answers, glue);
        }
        let answers = self.address_records(owner, &addresses).filter(|record| record.record_type() == kind).collect();
        self.answer_for_existing(owner, answers, Vec::new())
    }

    /// Returns the answer for a name that exists, which is NODATA if it has no records of the type.
    fn answer_for_existing(&self, owner: &Name, answers: Vec<Record>, glue: Vec<Record>) -> Answer {
        if answers.is_empty() {
            return self.no_records(owner, ResponseCode::NoError);
        }
        Answer { answers, glue, ..Answer::default() }
    }

    /// Returns an answer without records, with the SOA record that holds the negative TTL.
    pub(super) fn no_records(&self, owner: &Name, code: ResponseCode) -> Answer {
        // CoreDNS forwards queries outside the cluster's domain. Here the SOA record of the root ends them.
        let origin = if self.origin.zone_of(owner) { self.origin.clone() } else { Name::root() };
        let below = |label: &str| origin.prepend_label(label).unwrap_or_else(|_| origin.clone());
        let master = below("dns").prepend_label("ns").unwrap_or_else(|_| origin.clone());
        let soa = SOA::new(master, below("hostmaster"), 1, 7200, 1800, 86400, self.ttl);
        Answer { code, soa: Some(self.record(&origin, RData::SOA(soa))), ..Answer::default() }
    }

    fn srv_records(&self) -> Vec<SRV> {
        if let Some(srv) = &self.srv_override {
            return srv.clone();
        }
        // CoreDNS gives all pods the same weight, and never 0.
        let weight = (100 / self.pods.len().max(1)).max(1);
        let weight = u16::try_from(weight).unwrap_or(1);
        self.pods.iter().map(|pod| SRV::new(0, weight, pod.addr.port(), pod.name.clone())).collect()
    }

    /// Returns the address records of every target, each target once.
    fn glue(&self, srv: &[SRV]) -> Vec<Record> {
        let mut seen = HashSet::new();
        let mut glue = Vec::new();
        for srv in srv {
            if seen.insert(&srv.target) {
                glue.extend(self.address_records(&srv.target, &self.addresses(&srv.target)));
            }
        }
        glue
    }

    fn addresses(&self, host: &Name) -> Vec<IpAddr> {
        if let Some(addresses) = self.host_overrides.get(host) {
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

/// Parses a name, keeps its case and makes it absolute.
fn name(text: &str) -> io::Result<Name> {
    let mut name = Name::from_ascii(text).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("`{text}` is not a valid DNS name: {error}"))
    })?;
    name.set_fqdn(true);
    Ok(name)
}

/// Converts a TTL to whole seconds, the unit of DNS.
pub(super) fn seconds(ttl: Duration) -> u32 {
    u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX)
}
