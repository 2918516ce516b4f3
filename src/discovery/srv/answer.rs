//! From SRV records to a membership: pure, and free of the resolver's types.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::WeightPolicy;
use crate::discovery::{DiscoveryError, Endpoint, Membership};
use crate::node_id::NodeId;

/// The largest weight a node gets: it multiplies its points on the ring, and so the ring's size.
const MAX_WEIGHT: u32 = 16;

/// An answer as it came.
#[derive(Debug, Clone, Default)]
pub(super) struct SrvAnswer {
    pub(super) records: Vec<SrvRecord>,
    /// Addresses sent along, by host name.
    pub(super) glue: Vec<(String, IpAddr)>,
    /// The least of the records' TTLs.
    pub(super) ttl: Duration,
}

#[derive(Debug, Clone)]
pub(super) struct SrvRecord {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    pub(super) target: String,
}

/// How to read answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) port: Option<u16>,
    pub(super) default_port: u16,
    pub(super) weights: WeightPolicy,
}

/// What is odd about an answer that can be used nevertheless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Warning {
    SeveralPorts { host: String, taken: u16 },
    UnstableName { host: String },
    Skipped { target: String },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SeveralPorts { host, taken } => write!(
                f,
                "pods have several ports (so does {host}), {taken} is taken: name memcached's port, or give its number"
            ),
            Self::UnstableName { host } => write!(
                f,
                "pods are named after their addresses ({host}), so that keys move whenever one restarts: run them as a \
                 StatefulSet whose serviceName is the headless service"
            ),
            Self::Skipped { target } => write!(f, "a record's target is no host name and is left out: {target:?}"),
        }
    }
}

/// Makes one endpoint of each pod. The order of the records plays no part.
///
/// Every priority is passed on: which is in use is decided over time, not by one answer.
///
/// # Errors
/// [`DiscoveryError::Config`] if records are listed, but none of them has the port asked for.
pub(super) fn normalize(answer: SrvAnswer, rules: &Rules) -> Result<(Membership, Vec<Warning>), DiscoveryError> {
    let mut warnings = Vec::new();
    let hosts = by_host(answer.records, rules.default_port, &mut warnings);
    let had_any = !hosts.is_empty();

    let mut chosen = Vec::with_capacity(hosts.len());
    for (host, ports) in hosts {
        let Some((port, record)) = choose_port(ports, rules) else { continue };
        if port.alternatives && rules.port.is_none() {
            warnings.push(Warning::SeveralPorts { host: host.to_string(), taken: port.number });
        }
        if is_named_after_address(&host) {
            warnings.push(Warning::UnstableName { host: host.to_string() });
        }
        if let Ok(id) = NodeId::new(&host, port.number) {
            chosen.push((id, record));
        }
    }
    if had_any && chosen.is_empty() {
        let port = rules.port.unwrap_or(rules.default_port);
        return Err(DiscoveryError::Config(format!("the service is listed, but no pod of it has port {port}")));
    }

    let glue = glue_by_host(answer.glue);
    let scale = Scale::new(rules.weights, &chosen);
    let endpoints = chosen.iter().map(|(id, record)| {
        let addresses = glue.get(id.host()).into_iter().flatten().copied();
        Endpoint::new(id.clone())
            .with_priority(record.priority)
            .with_weight(scale.weight(record))
            .with_addresses(addresses)
    });
    Ok((Membership::new(endpoints).with_ttl(answer.ttl), warnings))
}

type Ports = BTreeMap<u16, SrvRecord>;

/// Sorts the records by host and port; of records for the same, the one of the lowest priority value and then the
/// largest weight stays, whatever their order.
fn by_host(records: Vec<SrvRecord>, default_port: u16, warnings: &mut Vec<Warning>) -> BTreeMap<String, Ports> {
    let mut hosts: BTreeMap<String, Ports> = BTreeMap::new();
    for record in records {
        let port = if record.port == 0 { default_port } else { record.port };
        let Ok(id) = NodeId::new(&record.target, port) else {
            // "." is how a domain says that it does not offer the service (RFC 2782).
            if record.target != "." {
                warnings.push(Warning::Skipped { target: record.target });
            }
            continue;
        };
        let ports = hosts.entry(id.host().to_owned()).or_default();
        let rank = |record: &SrvRecord| (record.priority, u16::MAX - record.weight);
        match ports.get(&port) {
            Some(other) if rank(other) <= rank(&record) => {}
            _ => drop(ports.insert(port, record)),
        }
    }
    hosts
}

struct Port {
    number: u16,
    alternatives: bool,
}

fn choose_port(mut ports: Ports, rules: &Rules) -> Option<(Port, SrvRecord)> {
    let alternatives = ports.len() > 1;
    let number = match rules.port {
        Some(port) => port,
        None if ports.contains_key(&rules.default_port) => rules.default_port,
        None => *ports.keys().next()?,
    };
    let record = ports.remove(&number)?;
    Some((Port { number, alternatives }, record))
}

/// IPv4 before IPv6, otherwise in the order sent.
fn glue_by_host(glue: Vec<(String, IpAddr)>) -> BTreeMap<String, Vec<IpAddr>> {
    let mut hosts: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for (name, ip) in glue {
        let host = name.strip_suffix('.').unwrap_or(&name).to_ascii_lowercase();
        let ips = hosts.entry(host).or_default();
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    for ips in hosts.values_mut() {
        ips.sort_by_key(IpAddr::is_ipv6);
    }
    hosts
}

/// Whether the first label is an IP address with dashes for dots or colons.
fn is_named_after_address(host: &str) -> bool {
    let label = host.split('.').next().unwrap_or_default();
    label.replace('-', ".").parse::<Ipv4Addr>().is_ok() || label.replace('-', ":").parse::<Ipv6Addr>().is_ok()
}

/// How the weights of each priority translate.
struct Scale {
    policy: WeightPolicy,
    /// By priority: the greatest common divisor, and the largest weight.
    tiers: BTreeMap<u16, (u32, u32)>,
}

impl Scale {
    fn new(policy: WeightPolicy, chosen: &[(NodeId, SrvRecord)]) -> Self {
        let mut tiers: BTreeMap<u16, (u32, u32)> = BTreeMap::new();
        for (_, record) in chosen {
            let weight = u32::from(record.weight.max(1));
            let (divisor, largest) = tiers.entry(record.priority).or_insert((0, 0));
            *divisor = gcd(weight, *divisor);
            *largest = weight.max(*largest);
        }
        Self { policy, tiers }
    }

    fn weight(&self, record: &SrvRecord) -> u32 {
        let weight = u32::from(record.weight.max(1));
        match (self.policy, self.tiers.get(&record.priority)) {
            (WeightPolicy::Relative, Some((divisor, largest))) if largest / divisor > MAX_WEIGHT => {
                // Rounded to the nearest step, and never to nothing.
                ((weight * MAX_WEIGHT + largest / 2) / largest).max(1)
            }
            (WeightPolicy::Relative, Some((divisor, _))) => weight / divisor,
            _ => 1,
        }
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
