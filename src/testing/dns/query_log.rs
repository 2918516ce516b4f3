//! The queries that a DNS server has received.

use std::collections::VecDeque;
use std::time::Instant;

use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::RecordType;

/// How many queries the log keeps.
const CAPACITY: usize = 65_536;

/// A type of records that a query asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DnsRecordType {
    /// SRV: the pods of a service.
    Srv,
    /// A: IPv4 addresses.
    A,
    /// AAAA: IPv6 addresses.
    Aaaa,
    /// Any other type.
    Other,
}

/// One query that a DNS server has received.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DnsQuery {
    /// When it arrived.
    pub at: Instant,
    /// The name in lower case, without a trailing dot.
    pub name: String,
    /// The type of records it asks for.
    pub record_type: DnsRecordType,
    /// Whether it came over TCP.
    pub tcp: bool,
}

/// How many queries a DNS server has received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DnsQueries {
    /// All queries.
    pub total: u64,
    /// Queries over TCP.
    pub tcp: u64,
    /// Queries for SRV records.
    pub srv: u64,
    /// Queries for A records.
    pub a: u64,
    /// Queries for AAAA records.
    pub aaaa: u64,
    /// Queries for any other record type.
    pub other: u64,
}

impl DnsQuery {
    pub(super) fn new(query: &Query, tcp: bool) -> Self {
        let record_type = match query.query_type() {
            RecordType::SRV => DnsRecordType::Srv,
            RecordType::A => DnsRecordType::A,
            RecordType::AAAA => DnsRecordType::Aaaa,
            _ => DnsRecordType::Other,
        };
        Self { at: Instant::now(), name: normalized(&query.name().to_ascii()), record_type, tcp }
    }
}

impl DnsQueries {
    fn add(&mut self, query: &DnsQuery) {
        self.total += 1;
        self.tcp += u64::from(query.tcp);
        *match query.record_type {
            DnsRecordType::Srv => &mut self.srv,
            DnsRecordType::A => &mut self.a,
            DnsRecordType::Aaaa => &mut self.aaaa,
            DnsRecordType::Other => &mut self.other,
        } += 1;
    }
}

/// All queries counted, and the last ones in full.
#[derive(Debug, Default)]
pub(super) struct QueryLog {
    counts: DnsQueries,
    latest: VecDeque<DnsQuery>,
}

impl QueryLog {
    pub(super) fn push(&mut self, query: DnsQuery) {
        self.counts.add(&query);
        if self.latest.len() == CAPACITY {
            self.latest.pop_front();
        }
        self.latest.push_back(query);
    }

    pub(super) fn counts(&self) -> DnsQueries {
        self.counts
    }

    pub(super) fn counts_for(&self, name: &str) -> DnsQueries {
        let name = normalized(name);
        let mut counts = DnsQueries::default();
        for query in self.latest.iter().filter(|query| query.name == name) {
            counts.add(query);
        }
        counts
    }

    pub(super) fn latest(&self) -> Vec<DnsQuery> {
        self.latest.iter().cloned().collect()
    }
}

/// Returns a name in the form in which names are compared.
pub(super) fn normalized(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}
