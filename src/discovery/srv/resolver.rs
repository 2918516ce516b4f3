//! The DNS resolver. The only file that uses the types of hickory-resolver.

use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use futures_util::stream::{FuturesOrdered, FuturesUnordered, StreamExt};
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Resolver as Hickory, TokioResolver};
use tokio::time::sleep;
use tracing::debug;

use super::answer::{SrvAnswer, SrvRecord};
use crate::discovery::{DiscoveryError, HostAddresses};

/// The time limit of one try at one server. Lost datagrams are sent again within it.
const TRY_TIMEOUT: Duration = Duration::from_secs(2);
/// The number of tries after the first. At least one is needed, because hickory stops resending lost datagrams after
/// many empty answers.
const RETRIES: usize = 1;
/// How long a server may take before the next one is queried as well.
const NEXT_SERVER_DELAY: Duration = Duration::from_millis(500);

/// Resolves the SRV records of one service, and the addresses of its pods.
#[derive(Debug)]
pub(super) struct Resolver {
    /// One resolver for each server. A resolver with several servers would take the first SERVFAIL for an answer.
    servers: Vec<TokioResolver>,
    /// The absolute names that the service's name may stand for, likeliest first.
    candidates: Vec<Name>,
    /// The candidate that was the first to be answered with records. From then on it is the only one queried.
    pinned: OnceLock<Name>,
}

impl Resolver {
    /// Creates a resolver for the SRV records of a name.
    ///
    /// # Errors
    /// [`DiscoveryError::Config`] if `query` is no DNS name, or the system's configuration cannot be read.
    pub(super) fn new(query: &str, nameservers: &[SocketAddr]) -> Result<Self, DiscoveryError> {
        let config = |error: &dyn std::fmt::Display| DiscoveryError::Config(format!("{query}: {error}"));
        let name = Name::from_ascii(query).map_err(|error| config(&error))?;
        if name.num_labels() == 0 {
            return Err(config(&"the name of the service is empty"));
        }
        let (servers, search, ndots) = if nameservers.is_empty() {
            let (system, options) = read_system_conf()
                .map_err(|error| config(&format!("cannot read the system's DNS configuration: {error}")))?;
            let (_, search, servers) = system.into_parts();
            (servers, search, options.ndots)
        } else {
            (nameservers.iter().copied().map(server_config).collect(), Vec::new(), 0)
        };
        let servers = servers.into_iter().map(build).collect::<Result<_, _>>().map_err(|error| config(&error))?;
        Ok(Self { servers, candidates: candidates(name, &search, ndots), pinned: OnceLock::new() })
    }

    /// Creates a resolver with a search list.
    #[cfg(test)]
    pub(super) fn with_search(
        query: &str,
        nameservers: &[SocketAddr],
        search: &[&str],
        ndots: usize,
    ) -> Result<Self, DiscoveryError> {
        let name = |text: &str| Name::from_ascii(text).map_err(|error| DiscoveryError::Config(error.to_string()));
        let search = search.iter().map(|domain| name(domain)).collect::<Result<Vec<_>, _>>()?;
        let candidates = candidates(name(query)?, &search, ndots);
        Ok(Self { candidates, ..Self::new(query, nameservers)? })
    }

    /// Queries the service's SRV records.
    ///
    /// # Errors
    /// `Empty` if no candidate has records. Another error if a candidate could not be queried, as it may have records.
    pub(super) async fn srv(&self) -> Result<SrvAnswer, DiscoveryError> {
        let names = self.pinned.get().map_or(self.candidates.as_slice(), std::slice::from_ref);
        // All at once, because a domain of the search list may lead to servers that do not answer. The order decides.
        let mut answers: FuturesOrdered<_> =
            names.iter().map(|name| async move { (name, self.lookup(name, RecordType::SRV).await) }).collect();
        let mut empty = None;
        let mut failure = None;
        while let Some((name, outcome)) = answers.next().await {
            match outcome {
                Ok(lookup) => {
                    if names.len() > 1 {
                        debug!(target: "memring", %name, "found the full name of the service");
                    }
                    // Fails only if a concurrent query has pinned a name.
                    let _ = self.pinned.set(name.clone());
                    return Ok(srv_answer(&lookup));
                }
                Err(DiscoveryError::Empty { nxdomain, negative_ttl, .. }) => {
                    let (all_nxdomain, _) = empty.get_or_insert((true, negative_ttl));
                    *all_nxdomain &= nxdomain;
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        // A candidate that could not be queried may be the right one.
        Err(failure.unwrap_or_else(|| {
            let (nxdomain, negative_ttl) = empty.unwrap_or((false, None));
            DiscoveryError::empty(nxdomain, negative_ttl)
        }))
    }

    /// Queries a pod's addresses: IPv4, or IPv6 if it has no IPv4 address.
    pub(super) async fn host(&self, host: &str) -> Result<HostAddresses, DiscoveryError> {
        let mut name = Name::from_ascii(host).map_err(|error| DiscoveryError::Config(format!("{host}: {error}")))?;
        name.set_fqdn(true);
        let v4 = self.lookup(&name, RecordType::A).await;
        let found = match v4 {
            // The name exists, with other records. NXDOMAIN would be about records of all types.
            Err(DiscoveryError::Empty { nxdomain: false, .. }) => self.lookup(&name, RecordType::AAAA).await,
            outcome => outcome,
        }?;
        let ips: Vec<IpAddr> = found.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
        let ttl = found.answers().iter().map(|record| record.ttl).min().unwrap_or_default();
        if ips.is_empty() {
            return Err(DiscoveryError::empty(false, None));
        }
        Ok(HostAddresses::new(ips).with_ttl(Duration::from_secs(ttl.into())))
    }

    /// Queries the servers in turn: the next one when those before it have failed or are slow.
    ///
    /// Returns the first answer, also if it is empty.
    async fn lookup(&self, name: &Name, kind: RecordType) -> Result<Lookup, DiscoveryError> {
        let mut servers = self.servers.iter();
        let mut in_flight = FuturesUnordered::new();
        let mut failure = None;
        loop {
            if let Some(server) = servers.next() {
                in_flight.push(server.lookup(name.clone(), kind));
            } else if in_flight.is_empty() {
                return Err(failure.unwrap_or_else(|| DiscoveryError::Config("no DNS server is known".into())));
            }
            tokio::select! {
                Some(outcome) = in_flight.next() => match outcome {
                    Ok(lookup) => return Ok(lookup),
                    Err(error) => match to_discovery_error(&error) {
                        empty if empty.is_empty() => return Err(empty),
                        error => failure = failure.or(Some(error)),
                    },
                },
                () = sleep(NEXT_SERVER_DELAY), if servers.len() > 0 => {}
            }
        }
    }
}

fn server_config(server: SocketAddr) -> NameServerConfig {
    let at_port = |mut connection: ConnectionConfig| {
        connection.port = server.port();
        connection
    };
    let connections = vec![at_port(ConnectionConfig::udp()), at_port(ConnectionConfig::tcp())];
    NameServerConfig::new(server.ip(), true, connections)
}

fn build(server: NameServerConfig) -> Result<TokioResolver, NetError> {
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let mut builder = Hickory::builder_with_config(config, TokioRuntimeProvider::default());
    let options: &mut ResolverOpts = builder.options_mut();
    options.timeout = TRY_TIMEOUT;
    options.attempts = RETRIES;
    // Without EDNS answers are truncated at 512 bytes, which is five pods. The resolv.conf of pods does not enable it.
    options.edns0 = true;
    // No cache: it would hide the changes that polls look for.
    options.cache_size = 0;
    builder.build()
}

/// Returns the absolute names that a name may stand for, likeliest first.
///
/// The name as it is comes first if it has enough dots, or ends in a domain of the search list. In a pod
/// `x.svc.cluster.local` has fewer dots than `ndots`, but never stands for `x.svc.cluster.local.svc.cluster.local`.
fn candidates(name: Name, search: &[Name], ndots: usize) -> Vec<Name> {
    let mut absolute = name.clone();
    absolute.set_fqdn(true);
    if name.is_fqdn() {
        return vec![absolute];
    }
    let dots = usize::from(name.num_labels()).saturating_sub(1);
    let is_full = dots >= ndots
        || search.iter().any(|domain| {
            let mut domain = domain.clone();
            domain.set_fqdn(true);
            domain.num_labels() > 0 && domain.zone_of(&absolute)
        });
    let mut names = Vec::with_capacity(search.len() + 1);
    if is_full {
        names.push(absolute.clone());
    }
    for domain in search {
        // Skips names that are too long with the domain appended.
        if let Ok(name) = name.clone().append_domain(domain)
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    if !names.contains(&absolute) {
        names.push(absolute);
    }
    names
}

fn srv_answer(lookup: &Lookup) -> SrvAnswer {
    let mut answer = SrvAnswer { ttl: Duration::MAX, ..SrvAnswer::default() };
    for record in lookup.answers() {
        // Including those of aliases (CNAME) on the way.
        answer.ttl = answer.ttl.min(Duration::from_secs(record.ttl.into()));
        if let RData::SRV(srv) = &record.data {
            let (priority, weight, port) = (srv.priority, srv.weight, srv.port);
            answer.records.push(SrvRecord { priority, weight, port, target: srv.target.to_ascii() });
        }
    }
    for record in lookup.additionals() {
        if let Some(ip) = record.data.ip_addr() {
            answer.glue.push((record.name.to_ascii(), ip));
        }
    }
    if answer.records.is_empty() {
        answer.ttl = Duration::ZERO;
    }
    answer
}

fn to_discovery_error(error: &NetError) -> DiscoveryError {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(empty)) => DiscoveryError::empty(
            empty.response_code == ResponseCode::NXDomain,
            empty.negative_ttl.map(|seconds| Duration::from_secs(seconds.into())),
        ),
        NetError::Dns(DnsError::ResponseCode(ResponseCode::Refused)) => {
            DiscoveryError::ServerFailure("REFUSED: it may not serve this name, or not to this client".into())
        }
        NetError::Dns(DnsError::ResponseCode(code)) => {
            DiscoveryError::ServerFailure(format!("{code:?}").to_uppercase())
        }
        NetError::Timeout => DiscoveryError::Timeout,
        NetError::Truncated => DiscoveryError::Truncated,
        other => DiscoveryError::Transport(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(texts: &[&str]) -> Vec<Name> {
        texts.iter().map(|text| Name::from_ascii(text).unwrap()).collect()
    }

    fn candidates_of(query: &str, ndots: usize) -> Vec<String> {
        let search = names(&["default.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"]);
        candidates(Name::from_ascii(query).unwrap(), &search, ndots).iter().map(Name::to_ascii).collect()
    }

    #[test]
    fn names_that_look_absolute_are_tried_unchanged_first() {
        assert_eq!(candidates_of("memcached.default.svc.cluster.local.", 5), ["memcached.default.svc.cluster.local."]);
        assert_eq!(candidates_of("memcached.default.svc.cluster.local", 5)[0], "memcached.default.svc.cluster.local.");
        assert_eq!(candidates_of("_memcached._tcp.a.b.c.d", 5)[0], "_memcached._tcp.a.b.c.d.");
        let short = candidates_of("memcached", 5);
        assert_eq!(short[0], "memcached.default.svc.cluster.local.");
        assert_eq!((short.len(), short[4].as_str()), (5, "memcached."));
        assert_eq!(candidates(Name::from_ascii("a.b").unwrap(), &[], 0), names(&["a.b."]));
    }
}
