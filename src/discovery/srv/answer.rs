//! Turns SRV records into a membership. Pure, and free of the resolver's types.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::WeightPolicy;
use crate::discovery::{DiscoveryError, Endpoint, Membership};
use crate::node_id::NodeId;

/// The largest weight of a node. It multiplies the node's points, and so bounds the size of the ring.
const MAX_WEIGHT: u32 = 16;

/// The records of one answer.
#[derive(Debug, Clone, Default)]
pub(super) struct SrvAnswer {
    /// The name asked for, and the names its aliases lead to.
    pub(super) names: Vec<String>,
    pub(super) records: Vec<SrvRecord>,
    /// Addresses from the additional section, by host name.
    pub(super) glue: Vec<(String, IpAddr)>,
    /// The smallest TTL of the records, of the glue, and of the aliases.
    pub(super) ttl: Duration,
}

#[derive(Debug, Clone)]
pub(super) struct SrvRecord {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    pub(super) target: String,
}

/// Which records to use, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordOptions {
    pub(super) port: Option<u16>,
    pub(super) default_port: u16,
    pub(super) weights: WeightPolicy,
}

/// A doubtful part of an answer that is used nevertheless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Warning {
    SeveralPorts { host: String, taken: u16 },
    UnstableName { host: String },
    NotHeadless { host: String },
    Skipped { target: String },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SeveralPorts { host, taken } => write!(
                f,
                "pods such as {host} have several ports, using {taken}: select memcached's port by name or number"
            ),
            Self::UnstableName { host } => write!(
                f,
                "pods are named after their addresses ({host}), so keys move when a pod restarts: run the pods as a \
                 StatefulSet whose serviceName is the headless service"
            ),
            Self::NotHeadless { host } => write!(
                f,
                "the service {host} is not headless: its one address leads to any of its pods, so keys go missing at \
                 random; set clusterIP: None in its definition"
            ),
            Self::Skipped { target } => write!(f, "skipping an SRV record whose target is no host name: {target:?}"),
        }
    }
}

/// Turns the records into one endpoint for each pod. The order of the records does not matter.
///
/// Endpoints of all priorities are returned, because which priority is in use depends on earlier answers too.
///
/// # Errors
/// [`DiscoveryError::Config`] if there are records, but none has the selected port, or if a pod has several ports and
/// the choice is unclear. [`DiscoveryError::Empty`] if no target is a host name.
pub(super) fn to_membership(
    answer: SrvAnswer,
    options: &RecordOptions,
) -> Result<(Membership, Vec<Warning>), DiscoveryError> {
    let mut warnings = Vec::new();
    let names: Vec<_> = answer.names.iter().map(|name| service_of(name)).collect();
    let hosts = by_host(answer.records, options.default_port, &mut warnings);
    if hosts.is_empty() {
        return Err(no_hosts(&answer.names, answer.ttl, &warnings));
    }

    let mut chosen = Vec::with_capacity(hosts.len());
    for (host, ports) in hosts {
        let has_several = ports.len() > 1;
        let Some((port, record)) = choose_port(&host, ports, options)? else { continue };
        if has_several && options.port.is_none() {
            warnings.push(Warning::SeveralPorts { host: host.clone(), taken: port });
        }
        if is_named_after_address(&host) {
            warnings.push(Warning::UnstableName { host: host.clone() });
        }
        if names.contains(&host) {
            warnings.push(Warning::NotHeadless { host: host.clone() });
        }
        // Targets are absolute names.
        if let Ok(id) = NodeId::new(&format!("{host}."), port) {
            chosen.push((id, record));
        }
    }
    if chosen.is_empty() {
        let port = options.port.unwrap_or(options.default_port);
        return Err(DiscoveryError::Config(format!("the service lists pods, but none with port {port}")));
    }

    let glue = glue_by_host(answer.glue);
    let scale = WeightScale::new(options.weights, &chosen);
    let endpoints = chosen.iter().map(|(id, record)| {
        let addresses = glue.get(id.host()).into_iter().flatten().copied();
        Endpoint::new(id.clone())
            .with_priority(record.priority)
            .with_weight(scale.weight(record))
            .with_addresses(addresses)
    });
    Ok((Membership::new(endpoints).with_ttl(answer.ttl), warnings))
}

type RecordsByPort = BTreeMap<u16, SrvRecord>;

/// Groups the records by host and port.
///
/// Of several records for one port, keeps the one of the lowest priority value, and of those the one of the largest
/// weight, whatever their order.
fn by_host(records: Vec<SrvRecord>, default_port: u16, warnings: &mut Vec<Warning>) -> BTreeMap<String, RecordsByPort> {
    let mut hosts: BTreeMap<String, RecordsByPort> = BTreeMap::new();
    for record in records {
        let port = if record.port == 0 { default_port } else { record.port };
        let Ok(id) = NodeId::new(&record.target, port) else {
            // The target "." means that the domain does not offer the service (RFC 2782).
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

/// Chooses a port of a pod: the selected one, else the default one, else the only one.
///
/// # Errors
/// [`DiscoveryError::Config`] if none is selected, and there are several without the default one: the lowest may be a
/// metrics exporter.
fn choose_port(
    host: &str,
    mut ports: RecordsByPort,
    options: &RecordOptions,
) -> Result<Option<(u16, SrvRecord)>, DiscoveryError> {
    let number = match options.port {
        Some(port) => port,
        None if ports.contains_key(&options.default_port) => options.default_port,
        None if ports.len() == 1 => return Ok(ports.pop_first()),
        None => {
            let numbers: Vec<_> = ports.keys().map(u16::to_string).collect();
            return Err(DiscoveryError::Config(format!(
                "pods such as {host} have the ports {}, and none of them is {}: select memcached's by name \
                 (`port_name`) or by number (`port`)",
                numbers.join(", "),
                options.default_port
            )));
        }
    };
    Ok(ports.remove_entry(&number))
}

/// Returns why an answer without any host lists nothing.
fn no_hosts(names: &[String], ttl: Duration, warnings: &[Warning]) -> DiscoveryError {
    let name = names.first().map_or("", String::as_str);
    let reason = if warnings.is_empty() {
        "the only target is `.`: the domain says that it does not offer this service (RFC 2782)"
    } else {
        "no target is a host name"
    };
    DiscoveryError::empty(false, Some(ttl)).with_detail(format!("SRV {name}: {reason}"))
}

/// Returns the name of the service that an SRV name is about: the part after `_port._proto`, as in a host's identity.
fn service_of(name: &str) -> String {
    let mut service = name.strip_suffix('.').unwrap_or(name);
    while let Some((label, rest)) = service.split_once('.')
        && label.starts_with('_')
    {
        service = rest;
    }
    service.to_ascii_lowercase()
}

/// Groups the addresses by host: IPv4 before IPv6, otherwise in the order of the answer.
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

/// Returns whether the first label is an IP address, with dashes for its dots or colons.
fn is_named_after_address(host: &str) -> bool {
    let label = host.split('.').next().unwrap_or_default();
    label.replace('-', ".").parse::<Ipv4Addr>().is_ok() || label.replace('-', ":").parse::<Ipv6Addr>().is_ok()
}

/// Converts the weights of records to those of nodes, for each priority separately.
struct WeightScale {
    policy: WeightPolicy,
    by_priority: BTreeMap<u16, WeightRange>,
}

#[derive(Debug, Default)]
struct WeightRange {
    /// The greatest common divisor.
    divisor: u32,
    largest: u32,
}

impl WeightScale {
    fn new(policy: WeightPolicy, chosen: &[(NodeId, SrvRecord)]) -> Self {
        let mut by_priority: BTreeMap<u16, WeightRange> = BTreeMap::new();
        for (_, record) in chosen {
            let weight = u32::from(record.weight.max(1));
            let range = by_priority.entry(record.priority).or_default();
            range.divisor = gcd(weight, range.divisor);
            range.largest = weight.max(range.largest);
        }
        Self { policy, by_priority }
    }

    fn weight(&self, record: &SrvRecord) -> u32 {
        let weight = u32::from(record.weight.max(1));
        match (self.policy, self.by_priority.get(&record.priority)) {
            (WeightPolicy::Relative, Some(WeightRange { divisor, largest })) if largest / divisor > MAX_WEIGHT => {
                // Rounded to the nearest step, and at least 1.
                ((weight * MAX_WEIGHT + largest / 2) / largest).max(1)
            }
            (WeightPolicy::Relative, Some(WeightRange { divisor, .. })) => weight / divisor,
            _ => 1,
        }
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
