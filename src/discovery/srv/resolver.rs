//! The DNS resolver. The only file that knows which.

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
use crate::discovery::DiscoveryError;

/// One try at one server; a lost datagram is sent again within it.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Tries after the first. One, for the resolver forgets to send datagrams again once it saw many empty answers.
const RETRIES: usize = 1;
/// How long the first server is given before the next is asked as well.
const HEAD_START: Duration = Duration::from_millis(500);

/// Asks for one service, and for the hosts of its pods.
#[derive(Debug)]
pub(super) struct Resolver {
    /// One to a server, for a resolver that knows several takes the first one's SERVFAIL for an answer.
    servers: Vec<TokioResolver>,
    /// What the service's name may mean, likeliest first; every one absolute.
    candidates: Vec<Name>,
    /// Which of them it does mean: the one that was answered first.
    pinned: OnceLock<Name>,
}

impl Resolver {
    /// # Errors
    /// [`DiscoveryError::Config`] if the question is no DNS name, or the system's configuration cannot be read.
    pub(super) fn new(question: &str, nameservers: &[SocketAddr]) -> Result<Self, DiscoveryError> {
        let config = |error: &dyn std::fmt::Display| DiscoveryError::Config(format!("{question}: {error}"));
        let name = Name::from_ascii(question).map_err(|error| config(&error))?;
        if name.num_labels() == 0 {
            return Err(config(&"no service's name"));
        }
        let (servers, search, ndots) = if nameservers.is_empty() {
            let (system, options) =
                read_system_conf().map_err(|error| config(&format!("the system's DNS configuration: {error}")))?;
            let (_, search, servers) = system.into_parts();
            (servers, search, options.ndots)
        } else {
            (nameservers.iter().copied().map(server_config).collect(), Vec::new(), 0)
        };
        let servers = servers.into_iter().map(build).collect::<Result<_, _>>().map_err(|error| config(&error))?;
        Ok(Self { servers, candidates: candidates(name, &search, ndots), pinned: OnceLock::new() })
    }

    /// One that was told a search list.
    #[cfg(test)]
    pub(super) fn with_search(
        question: &str,
        nameservers: &[SocketAddr],
        search: &[&str],
        ndots: usize,
    ) -> Result<Self, DiscoveryError> {
        let name = |text: &str| Name::from_ascii(text).map_err(|error| DiscoveryError::Config(error.to_string()));
        let search = search.iter().map(|domain| name(domain)).collect::<Result<Vec<_>, _>>()?;
        let candidates = candidates(name(question)?, &search, ndots);
        Ok(Self { candidates, ..Self::new(question, nameservers)? })
    }

    /// The service's records.
    pub(super) async fn srv(&self) -> Result<SrvAnswer, DiscoveryError> {
        let names = self.pinned.get().map_or(self.candidates.as_slice(), std::slice::from_ref);
        // All at once, for one of the search list may lead to servers that do not answer; the order decides.
        let mut answers: FuturesOrdered<_> =
            names.iter().map(|name| async move { (name, self.lookup(name, RecordType::SRV).await) }).collect();
        let mut nothing = None;
        let mut failure = None;
        while let Some((name, outcome)) = answers.next().await {
            match outcome {
                Ok(lookup) => {
                    if names.len() > 1 {
                        debug!(target: "memring", %name, "the service's full name");
                    }
                    // Lost only to a look-up that pinned a name at the same time.
                    let _ = self.pinned.set(name.clone());
                    return Ok(srv_answer(&lookup));
                }
                Err(DiscoveryError::Empty { nxdomain, negative_ttl, .. }) => {
                    let known = nothing.get_or_insert((true, negative_ttl));
                    known.0 &= nxdomain;
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        // A name that could not be asked for may be the one that is meant.
        Err(failure.unwrap_or_else(|| {
            let (nxdomain, negative_ttl) = nothing.unwrap_or((false, None));
            DiscoveryError::empty(nxdomain, negative_ttl)
        }))
    }

    /// A pod's addresses: those of IPv4, or else those of IPv6.
    pub(super) async fn host(&self, host: &str) -> Result<Vec<IpAddr>, DiscoveryError> {
        let mut name = Name::from_ascii(host).map_err(|error| DiscoveryError::Config(format!("{host}: {error}")))?;
        name.set_fqdn(true);
        let v4 = self.lookup(&name, RecordType::A).await;
        let found = match v4 {
            // The name exists; NXDOMAIN would have been about every type of record.
            Err(DiscoveryError::Empty { nxdomain: false, .. }) => self.lookup(&name, RecordType::AAAA).await,
            outcome => outcome,
        }?;
        let ips: Vec<IpAddr> = found.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
        if ips.is_empty() { Err(DiscoveryError::empty(false, None)) } else { Ok(ips) }
    }

    /// Asks the servers in turn: the next as soon as those before it failed, or took long. What one answers is taken,
    /// also if that is "nothing".
    async fn lookup(&self, name: &Name, kind: RecordType) -> Result<Lookup, DiscoveryError> {
        let mut waiting = self.servers.iter();
        let mut asked = FuturesUnordered::new();
        let mut failure = None;
        loop {
            if let Some(server) = waiting.next() {
                asked.push(server.lookup(name.clone(), kind));
            } else if asked.is_empty() {
                return Err(failure.unwrap_or_else(|| DiscoveryError::Config("no DNS server is known".into())));
            }
            tokio::select! {
                Some(outcome) = asked.next() => match outcome {
                    Ok(lookup) => return Ok(lookup),
                    Err(error) => match translate(&error) {
                        nothing if nothing.is_empty() => return Err(nothing),
                        error => failure = failure.or(Some(error)),
                    },
                },
                () = sleep(HEAD_START), if waiting.len() > 0 => {}
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
    options.timeout = TIMEOUT;
    options.attempts = RETRIES;
    // Without it answers are cut at 512 bytes, and that is five pods. resolv.conf does not ask for it in pods.
    options.edns0 = true;
    // Answers are kept here, by rules of our own; a second cache below would hide what a poll is meant to see.
    options.cache_size = 0;
    builder.build()
}

/// What a name may mean. As it stands first if it has enough dots, or ends in a domain of the search list: in a pod,
/// `x.svc.cluster.local` has fewer dots than `ndots`, and yet nobody means `x.svc.cluster.local.svc.cluster.local`.
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
        // A name too long for a domain cannot be meant with it.
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
        // The TTL of an alias on the way counts as well.
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

fn translate(error: &NetError) -> DiscoveryError {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(nothing)) => DiscoveryError::empty(
            nothing.response_code == ResponseCode::NXDomain,
            nothing.negative_ttl.map(|seconds| Duration::from_secs(seconds.into())),
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

    fn tried(question: &str, ndots: usize) -> Vec<String> {
        let search = names(&["default.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"]);
        candidates(Name::from_ascii(question).unwrap(), &search, ndots).iter().map(Name::to_ascii).collect()
    }

    #[test]
    fn names_that_look_full_are_tried_as_they_stand_first() {
        assert_eq!(tried("memcached.default.svc.cluster.local.", 5), ["memcached.default.svc.cluster.local."]);
        assert_eq!(tried("memcached.default.svc.cluster.local", 5)[0], "memcached.default.svc.cluster.local.");
        assert_eq!(tried("_memcached._tcp.a.b.c.d", 5)[0], "_memcached._tcp.a.b.c.d.");
        let short = tried("memcached", 5);
        assert_eq!(short[0], "memcached.default.svc.cluster.local.");
        assert_eq!((short.len(), short[4].as_str()), (5, "memcached."));
        assert_eq!(candidates(Name::from_ascii("a.b").unwrap(), &[], 0), names(&["a.b."]));
    }
}
