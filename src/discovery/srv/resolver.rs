//! The DNS resolver. Only this file and those in its folder use the types of hickory.

mod name_server;
mod name_servers;
mod race;
mod response;
mod search;
mod system;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::stream::{FuturesOrdered, StreamExt};
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::answer::SrvAnswer;
use crate::discovery::{DiscoveryError, HostAddresses};
use name_servers::NameServers;
use response::{Found, RecordLookup, host_addresses, shorter};
use search::candidates;
use system::Config;

/// How long a candidate of the search list may take before a warning.
const SLOW_CANDIDATE: Duration = Duration::from_secs(1);
/// How often the candidates before the full name are queried once more. They have no records, unless a service was
/// created since.
const CANDIDATE_CHECK: Duration = Duration::from_secs(60);
/// How long that may delay an answer.
const CANDIDATE_CHECK_WAIT: Duration = Duration::from_millis(500);
/// How long the addresses of one family may take after those of the other: some servers never answer AAAA queries.
const OTHER_FAMILY_WAIT: Duration = Duration::from_millis(100);
/// How long a host with IPv4 addresses alone is not asked for IPv6 addresses again: it halves the queries.
const NO_V6: Duration = Duration::from_secs(300);
/// Hosts looked up at the same time, because each takes two sockets or more.
const MAX_HOST_LOOKUPS: usize = 64;

/// Resolves the SRV records of one service, and the addresses of its pods.
///
/// Lookups have no time limit of their own: their callers set it, by dropping them.
#[derive(Debug)]
pub(super) struct Resolver {
    servers: NameServers,
    /// The absolute names that the service's name may stand for, likeliest first.
    candidates: Vec<Name>,
    pinned: Mutex<Option<Pin>>,
    has_warned_of_slow_candidate: AtomicBool,
    host_lookups: Semaphore,
    /// Hosts that have IPv4 addresses alone, and until when that is believed.
    without_v6: Mutex<HashMap<Name, Instant>>,
}

/// The candidate that is the full name of the service.
#[derive(Debug, Clone, Copy)]
struct Pin {
    index: usize,
    /// When to query the candidates before it once more.
    next_check: Instant,
}

impl Resolver {
    /// Creates a resolver for the SRV records of a name. Without nameservers it uses those of the system.
    ///
    /// # Errors
    /// [`DiscoveryError::Config`] if `query` is no DNS name, or the system's configuration cannot be read.
    pub(super) fn new(query: &str, nameservers: &[SocketAddr], is_tcp_only: bool) -> Result<Self, DiscoveryError> {
        let config = if nameservers.is_empty() {
            Config::of_system().map_err(|error| {
                DiscoveryError::Config(format!("{query}: cannot read the system's DNS configuration: {error}"))
            })?
        } else {
            Config { servers: nameservers.to_vec(), ..Config::default() }
        };
        Self::with_config(query, &Config { is_tcp_only: is_tcp_only || config.is_tcp_only, ..config })
    }

    /// Creates a resolver with a search list.
    #[cfg(test)]
    pub(super) fn with_search(
        query: &str,
        nameservers: &[SocketAddr],
        search: &[&str],
        ndots: usize,
    ) -> Result<Self, DiscoveryError> {
        let search = search.iter().map(|domain| to_name(domain)).collect::<Result<Vec<_>, _>>()?;
        let servers = nameservers.to_vec();
        Self::with_config(query, &Config { servers, search, ndots, is_tcp_only: false })
    }

    fn with_config(query: &str, config: &Config) -> Result<Self, DiscoveryError> {
        let name = to_name(query)?;
        if name.num_labels() == 0 {
            return Err(DiscoveryError::Config(format!("{query}: the name of the service is empty")));
        }
        Ok(Self {
            servers: NameServers::new(&config.servers, config.is_tcp_only),
            candidates: candidates(&name, &config.search, config.ndots),
            pinned: Mutex::default(),
            has_warned_of_slow_candidate: AtomicBool::new(false),
            host_lookups: Semaphore::new(MAX_HOST_LOOKUPS),
            without_v6: Mutex::default(),
        })
    }

    /// Queries the service's SRV records.
    ///
    /// # Errors
    /// `Empty` if no candidate has records. Another error if a candidate could not be queried, as it may have records.
    pub(super) async fn srv(&self) -> Result<SrvAnswer, DiscoveryError> {
        let pinned = *self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match pinned {
            None => self.first_candidate(&self.candidates).await.map(|(index, found)| {
                self.pin(index);
                found
            }),
            Some(pin) if pin.index > 0 && pin.next_check <= Instant::now() => self.check_candidates(pin.index).await,
            Some(pin) => {
                let outcome = self.lookup(&self.candidates[pin.index], RecordType::SRV).await;
                if matches!(outcome, Err(DiscoveryError::Empty { .. })) {
                    // The service may exist under a nearer name by now.
                    self.pin_until(pin.index, Instant::now());
                }
                outcome
            }
        };
        found.map(Found::into_srv)
    }

    /// Queries candidates at the same time. Returns the first one that has records, if those before it have none.
    async fn first_candidate(&self, names: &[Name]) -> Result<(usize, Found), DiscoveryError> {
        let mut outcomes: FuturesOrdered<_> = names.iter().map(|name| self.lookup(name, RecordType::SRV)).collect();
        let (mut all_nxdomain, mut shortest) = (true, None);
        for (index, name) in names.iter().enumerate() {
            match self.warn_if_slow((names.len() > 1).then_some(name), outcomes.next()).await {
                Some(Ok(found)) => {
                    debug!(target: "memring", %name, "found the full name of the service");
                    return Ok((index, found));
                }
                Some(Err(DiscoveryError::Empty { nxdomain, negative_ttl, .. })) => {
                    all_nxdomain &= nxdomain;
                    shortest = shorter(shortest, negative_ttl);
                }
                // It may be the right one.
                Some(Err(error)) => return Err(if names.len() > 1 { of_candidate(error, name) } else { error }),
                None => break,
            }
        }
        Err(DiscoveryError::empty(all_nxdomain, shortest))
    }

    /// Waits for the outcome of a candidate. Warns once if that takes long.
    async fn warn_if_slow<T>(&self, candidate: Option<&Name>, outcome: impl Future<Output = T>) -> T {
        let mut outcome = std::pin::pin!(outcome);
        match timeout(SLOW_CANDIDATE, &mut outcome).await {
            Ok(outcome) => outcome,
            Err(_) => {
                if let Some(name) = candidate
                    && !self.has_warned_of_slow_candidate.swap(true, Ordering::Relaxed)
                {
                    warn!(
                        target: "memring", %name,
                        "DNS is slow to answer whether a name of the search list exists: to query only one name, end \
                         the name of the service with a dot"
                    );
                }
                outcome.await
            }
        }
    }

    /// Queries the full name, and the candidates before it. One of them that has records now becomes the full name.
    ///
    /// Their failures do not matter, because the full name was right when it was found.
    async fn check_candidates(&self, pinned: usize) -> Result<Found, DiscoveryError> {
        let before = async {
            let candidates = self.candidates[..pinned].iter();
            let mut outcomes: FuturesOrdered<_> = candidates.map(|name| self.lookup(name, RecordType::SRV)).collect();
            for index in 0..pinned {
                if let Some(Ok(found)) = outcomes.next().await {
                    return Some((index, found));
                }
            }
            None
        };
        let name = &self.candidates[pinned];
        let (nearer, outcome) = tokio::join!(timeout(CANDIDATE_CHECK_WAIT, before), self.lookup(name, RecordType::SRV));
        match nearer {
            Ok(Some((index, found))) => {
                let nearer = &self.candidates[index];
                warn!(target: "memring", before = %name, now = %nearer, "the service's name now stands for another");
                self.pin(index);
                Ok(found)
            }
            Ok(None) | Err(_) => {
                if !matches!(outcome, Err(DiscoveryError::Empty { .. })) {
                    self.pin(pinned);
                }
                outcome
            }
        }
    }

    fn pin(&self, index: usize) {
        self.pin_until(index, Instant::now() + CANDIDATE_CHECK);
    }

    fn pin_until(&self, index: usize, next_check: Instant) {
        *self.pinned.lock().unwrap_or_else(PoisonError::into_inner) = Some(Pin { index, next_check });
    }

    /// Queries a host's addresses: IPv4 first, then IPv6.
    pub(super) async fn host(&self, host: &str) -> Result<HostAddresses, DiscoveryError> {
        let mut name = to_name(host)?;
        name.set_fqdn(true);
        // The semaphore is never closed.
        let _slot = self.host_lookups.acquire().await;
        if self.is_without_v6(&name) {
            let v4 = self.lookup(&name, RecordType::A).await;
            // The host exists without IPv4 addresses: it may have the others now.
            if !matches!(v4, Err(DiscoveryError::Empty { nxdomain: false, .. })) {
                return host_addresses(Some(v4), None);
            }
        }
        let v4 = std::pin::pin!(self.lookup(&name, RecordType::A));
        let v6 = std::pin::pin!(self.lookup(&name, RecordType::AAAA));
        let (v4, v6) = match select(v4, v6).await {
            // NXDOMAIN is about records of all types.
            Either::Left((v4 @ Err(DiscoveryError::Empty { nxdomain: true, .. }), _)) => (Some(v4), None),
            Either::Left((v4 @ Ok(_), v6)) => (Some(v4), timeout(OTHER_FAMILY_WAIT, v6).await.ok()),
            Either::Left((v4 @ Err(_), v6)) => (Some(v4), Some(v6.await)),
            Either::Right((v6 @ Ok(_), v4)) => (timeout(OTHER_FAMILY_WAIT, v4).await.ok(), Some(v6)),
            // Some servers reply NXDOMAIN to AAAA queries although there is an IPv4 address.
            Either::Right((v6 @ Err(_), v4)) => (Some(v4.await), Some(v6)),
        };
        if let (Some(Ok(_)), Some(Err(DiscoveryError::Empty { .. }))) = (&v4, &v6) {
            self.record_without_v6(name.clone());
        }
        host_addresses(v4, v6)
    }

    fn is_without_v6(&self, host: &Name) -> bool {
        let hosts = self.without_v6.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.get(host).is_some_and(|until| Instant::now() < *until)
    }

    fn record_without_v6(&self, host: Name) {
        let now = Instant::now();
        let mut hosts = self.without_v6.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.retain(|_, until| now < *until);
        hosts.insert(host, now + NO_V6);
    }

    /// Queries the records of a name, or of the name that its aliases lead to.
    async fn lookup(&self, name: &Name, kind: RecordType) -> Result<Found, DiscoveryError> {
        let mut lookup = RecordLookup::new(name, kind);
        loop {
            let response = self.servers.query(lookup.name(), kind).await?;
            if let Some(found) = lookup.read(response)? {
                return Ok(found);
            }
        }
    }
}

fn to_name(text: &str) -> Result<Name, DiscoveryError> {
    Name::from_ascii(text).map_err(|error| DiscoveryError::Config(format!("{text}: {error}")))
}

/// Adds the name of a candidate to the failure to query it.
fn of_candidate(error: DiscoveryError, name: &Name) -> DiscoveryError {
    let text =
        format!("to SRV {name}, which the service's name may stand for; a name that ends with a dot is absolute");
    match error {
        DiscoveryError::ServerFailure(failure) => DiscoveryError::ServerFailure(format!("{failure} {text}")),
        DiscoveryError::Transport(failure) => DiscoveryError::Transport(format!("{failure} (query {text})")),
        other => other,
    }
}
