//! The faults of the DNS server, and the queries they apply to.

use std::time::Duration;

use super::query_log::{DnsQuery, DnsRecordType, normalized};

/// A failure of the DNS server, for [`Dns::set_fault`](super::Dns::set_fault) and
/// [`Dns::set_fault_for`](super::Dns::set_fault_for).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DnsFault {
    /// SERVFAIL, as from a CoreDNS that has lost its API server.
    ServFail,
    /// REFUSED, as from a server that does not serve this client or zone.
    Refused,
    /// NXDOMAIN: the name does not exist.
    NxDomain,
    /// NODATA: the name exists, and has no records of the type.
    NoData,
    /// No reply: the query is read and dropped, as by a firewall.
    Silent,
    /// No reply, and a TCP connection is closed. Over UDP it equals [`Silent`](Self::Silent).
    Closed,
    /// Half of the records, flagged as truncated, without glue. Over TCP it has no effect.
    Truncated,
    /// The reply is sent this much later.
    Delayed(Duration),
}

/// The queries to which a fault applies, for [`Dns::set_fault_for`](super::Dns::set_fault_for).
///
/// A query must meet every condition. Without any, all queries match.
///
/// ```
/// use memring::testing::{DnsFilter, DnsRecordType};
///
/// let first_two_datagrams = DnsFilter::all().udp().first(2);
/// let addresses_of_a_pod = DnsFilter::all()
///     .name("memcached-0.memcached.default.svc.cluster.local")
///     .record_type(DnsRecordType::A);
/// # let _ = (first_two_datagrams, addresses_of_a_pod);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[must_use]
pub struct DnsFilter {
    name: Option<String>,
    record_type: Option<DnsRecordType>,
    tcp: Option<bool>,
    remaining: Option<u64>,
}

impl DnsFilter {
    /// Returns a filter that matches all queries.
    pub fn all() -> Self {
        Self::default()
    }

    /// Matches only queries for this name. Upper and lower case are equal, and a trailing dot is ignored.
    pub fn name(mut self, name: impl AsRef<str>) -> Self {
        self.name = Some(normalized(name.as_ref()));
        self
    }

    /// Matches only queries for this type of records.
    pub fn record_type(mut self, record_type: DnsRecordType) -> Self {
        self.record_type = Some(record_type);
        self
    }

    /// Matches only queries over UDP.
    pub fn udp(mut self) -> Self {
        self.tcp = Some(false);
        self
    }

    /// Matches only queries over TCP.
    pub fn tcp(mut self) -> Self {
        self.tcp = Some(true);
        self
    }

    /// Matches only the first `count` queries that meet the other conditions.
    pub fn first(mut self, count: u64) -> Self {
        self.remaining = Some(count);
        self
    }

    fn matches(&self, query: &DnsQuery) -> bool {
        self.remaining != Some(0)
            && self.name.as_ref().is_none_or(|name| *name == query.name)
            && self.record_type.is_none_or(|record_type| record_type == query.record_type)
            && self.tcp.is_none_or(|tcp| tcp == query.tcp)
    }
}

/// The faults set, oldest first.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<(DnsFilter, DnsFault)>);

/// What happens to one query.
#[derive(Debug, Default)]
pub(super) struct Effect {
    /// A fault other than a delay.
    pub(super) fault: Option<DnsFault>,
    pub(super) delay: Duration,
}

impl Faults {
    pub(super) fn add(&mut self, filter: DnsFilter, fault: DnsFault) {
        self.0.push((filter, fault));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Returns the effect on a query. The last fault that matches decides, and so does the last delay.
    pub(super) fn effect_on(&mut self, query: &DnsQuery) -> Effect {
        let fault = self.take_last(query, |fault| !matches!(fault, DnsFault::Delayed(_)));
        let delay = match self.take_last(query, |fault| matches!(fault, DnsFault::Delayed(_))) {
            Some(DnsFault::Delayed(delay)) => delay,
            _ => Duration::ZERO,
        };
        Effect { fault, delay }
    }

    fn take_last(&mut self, query: &DnsQuery, is_kind: fn(&DnsFault) -> bool) -> Option<DnsFault> {
        let mut newest_first = self.0.iter_mut().rev();
        let (filter, fault) = newest_first.find(|(filter, fault)| is_kind(fault) && filter.matches(query))?;
        if let Some(remaining) = &mut filter.remaining {
            *remaining -= 1;
        }
        Some(*fault)
    }
}
