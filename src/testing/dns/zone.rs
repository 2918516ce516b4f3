//! The DNS server's answers: a pure function of the query and the settings of the test.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::{CNAME, SOA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::{DnsOrder, SrvRecord};

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

/// The TTLs of records, in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ttls {
    pub(super) srv: u32,
    pub(super) address: u32,
    pub(super) alias: u32,
    pub(super) negative: u32,
}

impl Ttls {
    pub(super) fn all(ttl: Duration) -> Self {
        let ttl = seconds(ttl);
        Self { srv: ttl, address: ttl, alias: ttl, negative: ttl }
    }
}

/// Everything a test sets instead of the pods, or in addition to them.
#[derive(Debug, Default)]
struct Overrides {
    /// Replaces the SRV records of the pods.
    srv: Option<Vec<SRV>>,
    /// Replaces the addresses of pods and adds hosts. A host with an empty list does not exist.
    hosts: HashMap<Name, Vec<IpAddr>>,
    /// Replaces the glue of targets and adds glue of other hosts.
    glue: BTreeMap<Name, Vec<IpAddr>>,
    aliases: HashMap<Name, Name>,
    /// Records of names that were not asked for.
    foreign: BTreeMap<Name, Vec<RData>>,
}

/// The names of a service and of its pods. Names are absolute, and their comparison ignores case, as in DNS.
#[derive(Debug)]
pub(super) struct Zone {
    service: Name,
    named_port: Name,
    origin: Name,
    pub(super) ttls: Ttls,
    pub(super) glue: bool,
    pub(super) bare_aliases: bool,
    pub(super) order: DnsOrder,
    pods: Vec<ListedPod>,
    overrides: Overrides,
    /// How many answers were given.
    answers: usize,
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
            ttls: Ttls::all(settings.ttl),
            glue: settings.glue,
            bare_aliases: false,
            order: DnsOrder::Fixed,
            pods: Vec::new(),
            overrides: Overrides::default(),
            answers: 0,
        })
    }

    pub(super) fn set_pods<'a>(&mut self, pods: impl Iterator<Item = ReadyPod<'a>>) {
        // No pod is left out: names are checked when pods are created.
        self.pods = pods.filter_map(|pod| Some(ListedPod { name: name(pod.fqdn).ok()?, addr: pod.addr })).collect();
    }

    pub(super) fn set_srv(&mut self, records: impl IntoIterator<Item = SrvRecord>) -> io::Result<()> {
        self.overrides.srv = Some(records.into_iter().map(srv).collect::<io::Result<_>>()?);
        Ok(())
    }

    pub(super) fn set_host(&mut self, host: &str, addresses: impl IntoIterator<Item = IpAddr>) -> io::Result<()> {
        self.overrides.hosts.insert(name(host)?, addresses.into_iter().collect());
        Ok(())
    }

    pub(super) fn set_glue_for(&mut self, host: &str, addresses: impl IntoIterator<Item = IpAddr>) -> io::Result<()> {
        self.overrides.glue.insert(name(host)?, addresses.into_iter().collect());
        Ok(())
    }

    pub(super) fn set_alias(&mut self, alias: &str, target: &str) -> io::Result<()> {
        self.overrides.aliases.insert(name(alias)?, name(target)?);
        Ok(())
    }

    pub(super) fn add_foreign_srv(
        &mut self,
        owner: &str,
        records: impl IntoIterator<Item = SrvRecord>,
    ) -> io::Result<()> {
        let records = records.into_iter().map(|record| Ok(RData::SRV(srv(record)?))).collect::<io::Result<Vec<_>>>()?;
        self.overrides.foreign.entry(name(owner)?).or_default().extend(records);
        Ok(())
    }

    pub(super) fn add_foreign_addresses(
        &mut self,
        owner: &str,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> io::Result<()> {
        self.overrides.foreign.entry(name(owner)?).or_default().extend(addresses.into_iter().map(RData::from));
        Ok(())
    }

    pub(super) fn clear_overrides(&mut self) {
        self.overrides = Overrides::default();
    }

    /// Returns the answer without any fault. `owner` is the name as the query spells it.
    pub(super) fn answer(&mut self, owner: &Name, kind: RecordType) -> Answer {
        let (aliases, end) = self.aliases(owner, kind);
        let mut answer = match end {
            Some(end) => self.answer_without_alias(end, kind),
            None => Answer::default(),
        };
        if answer.code == ResponseCode::NoError {
            answer.answers.extend(self.foreign_records(kind));
        }
        self.answers = self.answers.wrapping_add(1);
        for section in [&mut answer.answers, &mut answer.glue] {
            reorder(section, self.order, self.answers);
        }
        answer.answers.splice(..0, aliases);
        answer
    }

    /// Returns the alias records on the way from a name, and the name at their end.
    ///
    /// A loop has no end, and neither has an alias whose target the server does not add.
    fn aliases<'a>(&'a self, owner: &'a Name, kind: RecordType) -> (Vec<Record>, Option<&'a Name>) {
        let mut records = Vec::new();
        let mut current = owner;
        let mut seen = HashSet::new();
        while let Some(target) = self.overrides.aliases.get(current) {
            if !seen.insert(current) {
                return (records, None);
            }
            records.push(self.record(current, RData::CNAME(CNAME(target.clone()))));
            if self.bare_aliases || kind == RecordType::CNAME {
                return (records, None);
            }
            current = target;
        }
        (records, Some(current))
    }

    fn answer_without_alias(&self, owner: &Name, kind: RecordType) -> Answer {
        let is_service = *owner == self.service;
        let has_srv = is_service || *owner == self.named_port;
        let addresses =
            if is_service { self.pods.iter().map(|pod| pod.addr.ip()).collect() } else { self.addresses(owner) };
        let exists = !addresses.is_empty() || has_srv && (self.overrides.srv.is_some() || !self.pods.is_empty());
        if !exists {
            return self.no_records(owner, ResponseCode::NXDomain);
        }
        if kind == RecordType::SRV && has_srv {
            let srv = self.srv_records();
            let glue = self.glue(&srv);
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
        let soa = SOA::new(master, below("hostmaster"), 1, 7200, 1800, 86400, self.ttls.negative);
        Answer { code, soa: Some(self.record(&origin, RData::SOA(soa))), ..Answer::default() }
    }

    fn srv_records(&self) -> Vec<SRV> {
        if let Some(srv) = &self.overrides.srv {
            return srv.clone();
        }
        // CoreDNS gives all pods the same weight, and never 0.
        let weight = (100 / self.pods.len().max(1)).max(1);
        let weight = u16::try_from(weight).unwrap_or(1);
        self.pods.iter().map(|pod| SRV::new(0, weight, pod.addr.port(), pod.name.clone())).collect()
    }

    /// Returns the glue of every target, each target once, and then the glue set for other hosts.
    fn glue(&self, srv: &[SRV]) -> Vec<Record> {
        let mut seen = HashSet::new();
        let mut glue = Vec::new();
        for target in srv.iter().map(|srv| &srv.target) {
            if self.glue && !self.overrides.glue.contains_key(target) && seen.insert(target) {
                glue.extend(self.address_records(target, &self.addresses(target)));
            }
        }
        for (host, addresses) in &self.overrides.glue {
            glue.extend(self.address_records(host, addresses));
        }
        glue
    }

    fn foreign_records(&self, kind: RecordType) -> impl Iterator<Item = Record> {
        let all = self.overrides.foreign.iter().flat_map(|(owner, data)| data.iter().map(move |data| (owner, data)));
        all.filter(move |(_, data)| data.record_type() == kind).map(|(owner, data)| self.record(owner, data.clone()))
    }

    fn addresses(&self, host: &Name) -> Vec<IpAddr> {
        if let Some(addresses) = self.overrides.hosts.get(host) {
            return addresses.clone();
        }
        self.pods.iter().filter(|pod| pod.name == *host).map(|pod| pod.addr.ip()).collect()
    }

    fn address_records(&self, owner: &Name, addresses: &[IpAddr]) -> impl Iterator<Item = Record> {
        addresses.iter().map(|address| self.record(owner, RData::from(*address)))
    }

    fn record(&self, owner: &Name, data: RData) -> Record {
        let ttl = match data.record_type() {
            RecordType::SRV => self.ttls.srv,
            RecordType::CNAME => self.ttls.alias,
            RecordType::SOA => self.ttls.negative,
            _ => self.ttls.address,
        };
        Record::from_rdata(owner.clone(), ttl, data)
    }
}

/// Brings the records of a section into the order in which a server sends them.
fn reorder(records: &mut [Record], order: DnsOrder, answers: usize) {
    match order {
        DnsOrder::Fixed => {}
        DnsOrder::Shuffled => fastrand::shuffle(records),
        DnsOrder::Rotated => {
            let is_one_set = |a: &Record, b: &Record| a.name == b.name && a.record_type() == b.record_type();
            for set in records.chunk_by_mut(is_one_set) {
                set.rotate_left(answers % set.len());
            }
        }
    }
}

fn srv(record: SrvRecord) -> io::Result<SRV> {
    Ok(SRV::new(record.priority, record.weight, record.port, name(&record.target)?))
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
