//! What the responses of DNS servers say about a name. Pure, and free of sockets.

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::super::answer::{SrvAnswer, SrvRecord};
use crate::discovery::{DiscoveryError, HostAddresses};

/// How many aliases may lead from one name to its records.
const MAX_ALIASES: usize = 8;

/// A lookup of one name, and the aliases (CNAME) it has followed.
#[derive(Debug)]
pub(super) struct RecordLookup {
    kind: RecordType,
    /// The name asked for, and what its aliases lead to.
    names: Vec<Name>,
    /// The smallest TTL of the aliases.
    alias_ttl: Duration,
}

/// The records of a name, or of the name its aliases lead to.
#[derive(Debug)]
pub(super) struct Found {
    names: Vec<Name>,
    records: Vec<Record>,
    additionals: Vec<Record>,
    /// The smallest TTL of the records, and of the aliases that lead to them.
    ttl: Duration,
}

impl RecordLookup {
    pub(super) fn new(name: &Name, kind: RecordType) -> Self {
        Self { kind, names: vec![name.clone()], alias_ttl: Duration::MAX }
    }

    /// Returns the name to ask for next: the one that the aliases so far lead to.
    pub(super) fn name(&self) -> &Name {
        // Never empty.
        &self.names[self.names.len() - 1]
    }

    /// Reads the response to a query of [`name`](Self::name). Returns `None` if it leads to another name only.
    ///
    /// Records of other names are ignored.
    ///
    /// # Errors
    /// `Empty` if the response says that there are no such records. `Transport` if the aliases lead nowhere.
    pub(super) fn read(&mut self, response: Message) -> Result<Option<Found>, DiscoveryError> {
        let is_alias = self.follow_aliases(&response.answers)?;
        let records: Vec<_> = response.answers.into_iter().filter(|record| self.is_answer(record)).collect();
        if !records.is_empty() {
            let ttl = records.iter().map(ttl).fold(self.alias_ttl, Duration::min);
            let names = self.names.clone();
            return Ok(Some(Found { names, records, additionals: response.additionals, ttl }));
        }
        if is_alias {
            // The response may be from a server that knows the alias only, so its code does not matter.
            return Ok(None);
        }
        let nxdomain = response.metadata.response_code == ResponseCode::NXDomain;
        let negative_ttl = negative_ttl(&response.authorities, self.name()).map(|ttl| ttl.min(self.alias_ttl));
        Err(DiscoveryError::empty(nxdomain, negative_ttl))
    }

    /// Follows the aliases among the answers, in whatever order. Returns whether there are any.
    fn follow_aliases(&mut self, answers: &[Record]) -> Result<bool, DiscoveryError> {
        let mut is_alias = false;
        while !answers.iter().any(|record| self.is_answer(record))
            && let Some((target, ttl)) = answers.iter().find_map(|record| alias(record, self.name()))
        {
            if self.names.contains(target) || self.names.len() > MAX_ALIASES {
                return Err(DiscoveryError::Transport(format!(
                    "the aliases (CNAME) of {} form a loop, or are more than {MAX_ALIASES}",
                    self.names[0]
                )));
            }
            self.names.push(target.clone());
            self.alias_ttl = self.alias_ttl.min(ttl);
            is_alias = true;
        }
        Ok(is_alias)
    }

    fn is_answer(&self, record: &Record) -> bool {
        record.record_type() == self.kind && is_owned_by(record, self.name())
    }
}

impl Found {
    /// Returns the SRV records, and the addresses of their targets.
    pub(super) fn into_srv(self) -> SrvAnswer {
        let names = self.names.iter().map(Name::to_ascii).collect();
        let mut answer = SrvAnswer { names, ttl: self.ttl, ..SrvAnswer::default() };
        let mut targets = HashSet::new();
        for record in &self.records {
            if let RData::SRV(srv) = &record.data {
                let (priority, weight, port) = (srv.priority, srv.weight, srv.port);
                answer.records.push(SrvRecord { priority, weight, port, target: srv.target.to_ascii() });
                targets.insert(&srv.target);
            }
        }
        for record in &self.additionals {
            if let Some(ip) = record.data.ip_addr()
                && record.dns_class == DNSClass::IN
                && targets.contains(&record.name)
            {
                answer.glue.push((record.name.to_ascii(), ip));
                answer.ttl = answer.ttl.min(ttl(record));
            }
        }
        answer
    }

    fn ips(&self) -> impl Iterator<Item = IpAddr> {
        self.records.iter().filter_map(|record| record.data.ip_addr())
    }
}

/// Joins the outcomes of looking up a host's IPv4 and IPv6 addresses. `None` means that there is no outcome yet.
///
/// The order to dial is IPv4 first. Records of either kind are enough, and NXDOMAIN of either means that there is no
/// such host.
pub(super) fn host_addresses(
    v4: Option<Result<Found, DiscoveryError>>,
    v6: Option<Result<Found, DiscoveryError>>,
) -> Result<HostAddresses, DiscoveryError> {
    let mut found: Vec<Found> = Vec::new();
    let mut failure = None;
    // Whether it is NXDOMAIN, and for how long.
    let mut empty: Option<(bool, Option<Duration>)> = None;
    for outcome in [v4, v6].into_iter().flatten() {
        match outcome {
            Ok(records) => found.push(records),
            Err(DiscoveryError::Empty { nxdomain, negative_ttl, .. }) => {
                let (was_nxdomain, before) = empty.unwrap_or((false, None));
                empty = Some((was_nxdomain || nxdomain, shorter(before, negative_ttl)));
            }
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    match (found.iter().map(|found| found.ttl).min(), empty, failure) {
        (Some(ttl), ..) => Ok(HostAddresses::new(found.iter().flat_map(Found::ips)).with_ttl(ttl)),
        (None, Some((true, negative_ttl)), _) => Err(DiscoveryError::empty(true, negative_ttl)),
        (None, _, Some(failure)) => Err(failure),
        (None, Some((false, negative_ttl)), None) => Err(DiscoveryError::empty(false, negative_ttl)),
        (None, None, None) => Err(DiscoveryError::Timeout),
    }
}

/// Returns the shorter one of two times, of which any may be unknown.
pub(super) fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

fn is_owned_by(record: &Record, name: &Name) -> bool {
    record.name == *name && record.dns_class == DNSClass::IN
}

/// Returns what the name is an alias of, and for how long, if the record says so.
fn alias<'a>(record: &'a Record, name: &Name) -> Option<(&'a Name, Duration)> {
    match &record.data {
        RData::CNAME(target) if is_owned_by(record, name) => Some((&target.0, ttl(record))),
        _ => None,
    }
}

fn ttl(record: &Record) -> Duration {
    // The top bit is not used (RFC 2181, section 8).
    let seconds = if i32::try_from(record.ttl).is_ok() { record.ttl } else { 0 };
    Duration::from_secs(seconds.into())
}

/// Returns how long an answer without records is valid (RFC 2308, section 5).
fn negative_ttl(authorities: &[Record], name: &Name) -> Option<Duration> {
    authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) if record.name.zone_of(name) => Some(ttl(record).min(Duration::from_secs(soa.minimum.into()))),
        _ => None,
    })
}
