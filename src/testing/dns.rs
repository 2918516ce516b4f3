//! The DNS server of a service under test: real UDP and TCP on a loopback address, with faults on demand.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;

pub use self::fault::{DnsFault, DnsFilter};
pub use self::query_log::{DnsQueries, DnsQuery, DnsRecordType};
use self::responder::Responder;
use self::sockets::Sockets;
pub(super) use self::zone::{ReadyPod, ZoneSettings};
use self::zone::{Ttls, Zone};
use super::addresses::{ATTEMPTS, Loopback};

mod fault;
mod query_log;
mod responder;
mod sockets;
mod zone;

/// The DNS server of a [`Service`](super::Service).
///
/// It answers as CoreDNS does for a headless service:
///
/// - `SRV <service>` and `SRV _<port name>._tcp.<service>`: one record for each ready pod, with priority 0 and weight
///   100 divided by the number of ready pods. The pods' addresses come as additional records.
/// - `A <service>`: the addresses of all ready pods. `A <pod>.<service>`: the address of that pod, if it is ready.
/// - Any other record type for these names: no records (NODATA).
/// - Any other name, and every name while no pod is ready: NXDOMAIN.
///
/// A reply too large for UDP is truncated and flagged, and TCP serves it whole. Every setting can change while the
/// server runs, and takes effect with the next query.
///
/// A reply over 64 KiB is truncated over TCP as well, as CoreDNS does it. Knot and unbound reply SERVFAIL instead: set
/// that fault for TCP.
pub struct Dns {
    responder: Arc<Responder>,
    loopback: Loopback,
    addr: SocketAddr,
    sockets: AsyncMutex<Sockets>,
}

impl Dns {
    pub(super) async fn launch(settings: ZoneSettings<'_>, loopback: Loopback) -> io::Result<Self> {
        Self::launch_with(Responder::new(Arc::new(Mutex::new(Zone::new(settings)?))), loopback).await
    }

    async fn launch_with(responder: Responder, loopback: Loopback) -> io::Result<Self> {
        let responder = Arc::new(responder);
        let mut attempt = 1;
        loop {
            // TCP needs the port that the system chose for UDP, and another process may hold it.
            let mut sockets = Sockets::default();
            match sockets.open((loopback.bind_ip(), 0).into(), &responder).await {
                Ok(addr) => return Ok(Self { responder, loopback, addr, sockets: AsyncMutex::new(sockets) }),
                Err(_) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Starts another server of the same zone, at an address of its own.
    ///
    /// The servers answer alike, because all of them know the pods and every record and setting of the zone. Each has
    /// its own faults, its own log of queries, and can be stopped alone. It stops when dropped.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// use memring::SrvDiscovery;
    /// use memring::testing::{DnsFault, Service};
    ///
    /// let service = Service::start(3).await?;
    /// let dead = service.dns().start_another().await?;
    /// dead.set_fault(DnsFault::Silent);
    /// let pods = SrvDiscovery::new(service.name()).nameservers([dead.addr(), service.dns().addr()]);
    /// # let _ = pods;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If a socket cannot be opened.
    pub async fn start_another(&self) -> io::Result<Self> {
        Self::launch_with(self.responder.with_same_zone(), self.loopback).await
    }

    pub(super) fn set_pods<'a>(&self, pods: impl Iterator<Item = ReadyPod<'a>>) {
        self.zone().set_pods(pods);
    }

    /// Returns the address the server listens on, over UDP and TCP.
    ///
    /// It stays the same after [`stop`](Self::stop) and [`start`](Self::start).
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Applies the fault to every query from now on, in place of all faults set before.
    pub fn set_fault(&self, fault: DnsFault) {
        let faults = &mut self.responder.state().faults;
        faults.clear();
        faults.add(DnsFilter::all(), fault);
    }

    /// Applies the fault to the queries that the filter matches from now on, beside the faults set before.
    ///
    /// If several faults match a query, the last one set decides. A [delay](DnsFault::Delayed) can be combined with
    /// another fault, and the last delay set decides.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// use std::time::Duration;
    /// use memring::testing::{DnsFault, DnsFilter, DnsRecordType, Service};
    ///
    /// let service = Service::start(3).await?;
    /// let dns = service.dns();
    /// // UDP is dropped, and TCP works.
    /// dns.set_fault_for(DnsFilter::all().udp(), DnsFault::Silent);
    /// // One pod has lost its address.
    /// dns.set_fault_for(DnsFilter::all().name(&service.pods()[1].fqdn), DnsFault::NxDomain);
    /// // Addresses take long, and SRV records do not.
    /// let late = DnsFault::Delayed(Duration::from_millis(600));
    /// dns.set_fault_for(DnsFilter::all().record_type(DnsRecordType::A), late);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_fault_for(&self, filter: DnsFilter, fault: DnsFault) {
        self.responder.state().faults.add(filter, fault);
    }

    /// Ends all faults set by [`set_fault`](Self::set_fault) and [`set_fault_for`](Self::set_fault_for).
    pub fn clear_faults(&self) {
        self.responder.state().faults.clear();
    }

    /// Sets the TTL of all answers. Fractions of a second are cut off, here and below.
    pub fn set_ttl(&self, ttl: Duration) {
        self.zone().ttls = Ttls::all(ttl);
    }

    /// Sets the TTL of A and AAAA records, glue included, until the next [`set_ttl`](Self::set_ttl).
    pub fn set_address_ttl(&self, ttl: Duration) {
        self.zone().ttls.address = zone::seconds(ttl);
    }

    /// Sets the TTL of [aliases](Self::set_alias), until the next [`set_ttl`](Self::set_ttl).
    pub fn set_alias_ttl(&self, ttl: Duration) {
        self.zone().ttls.alias = zone::seconds(ttl);
    }

    /// Sets the TTL of NXDOMAIN and NODATA, until the next [`set_ttl`](Self::set_ttl).
    pub fn set_negative_ttl(&self, ttl: Duration) {
        self.zone().ttls.negative = zone::seconds(ttl);
    }

    /// Sets whether SRV answers include the targets' addresses as additional records (glue).
    pub fn set_glue(&self, glue: bool) {
        self.zone().glue = glue;
    }

    /// Sets the glue of one host in every SRV answer, whatever [`set_glue`](Self::set_glue) says.
    ///
    /// The addresses may differ from the host's own: a cache may know older ones. With an empty iterator, the host has
    /// no glue. A host that is no target is added, as an unneeded address.
    ///
    /// # Errors
    /// If the host is not a valid DNS name.
    pub fn set_glue_for(&self, host: &str, addresses: impl IntoIterator<Item = IpAddr>) -> io::Result<()> {
        self.zone().set_glue_for(host, addresses)
    }

    /// Makes a name an alias (CNAME) of another, such as the service, its named port, a pod, or an alias.
    ///
    /// The answer has the aliases first and then the records of the name at their end, as from an authoritative server
    /// or a cache. A loop of aliases is answered with its aliases only. Setting an alias again changes it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// let service = memring::testing::Service::start(3).await?;
    /// service.dns().set_alias("cache.example.com", service.name())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If a name is not a valid DNS name.
    pub fn set_alias(&self, alias: &str, target: &str) -> io::Result<()> {
        self.zone().set_alias(alias, target)
    }

    /// Sets whether an alias is answered alone, without the records of its target.
    ///
    /// A server that is not responsible for the target answers so, and the client has to ask for the target.
    pub fn set_bare_aliases(&self, bare: bool) {
        self.zone().bare_aliases = bare;
    }

    /// Sets the order of the records in an answer. By default it is [`Fixed`](DnsOrder::Fixed).
    pub fn set_order(&self, order: DnsOrder) {
        self.zone().order = order;
    }

    /// Answers SRV queries for the service with these records instead of the pods.
    ///
    /// The records may be unusual: port 0, the target `.`, duplicates, upper case, several priorities, hundreds of
    /// them. With an empty iterator, the service exists and has no SRV records. A target that is neither a pod nor set
    /// by [`set_host`](Self::set_host) has no address.
    ///
    /// # Errors
    /// If a target is not a valid DNS name; nothing changes then.
    pub fn set_srv(&self, records: impl IntoIterator<Item = SrvRecord>) -> io::Result<()> {
        self.zone().set_srv(records)
    }

    /// Sets the IPv4 and IPv6 addresses of a host, which may be a pod. With an empty iterator, the host does not exist.
    ///
    /// # Errors
    /// If the host is not a valid DNS name.
    pub fn set_host(&self, host: &str, addresses: impl IntoIterator<Item = IpAddr>) -> io::Result<()> {
        self.zone().set_host(host, addresses)
    }

    /// Adds SRV records of another owner to the answer section of every reply about SRV records.
    ///
    /// A client must ignore them: it did not ask for this name. Replies with an error code and NXDOMAIN have none.
    ///
    /// # Errors
    /// If a name is not a valid DNS name.
    pub fn add_foreign_srv(&self, owner: &str, records: impl IntoIterator<Item = SrvRecord>) -> io::Result<()> {
        self.zone().add_foreign_srv(owner, records)
    }

    /// Adds A and AAAA records of another owner to the answer section of every reply about such records.
    ///
    /// As [`add_foreign_srv`](Self::add_foreign_srv). [`set_glue_for`](Self::set_glue_for) adds some to the additional
    /// section.
    ///
    /// # Errors
    /// If the owner is not a valid DNS name.
    pub fn add_foreign_addresses(&self, owner: &str, addresses: impl IntoIterator<Item = IpAddr>) -> io::Result<()> {
        self.zone().add_foreign_addresses(owner, addresses)
    }

    /// Removes the records set by [`set_srv`](Self::set_srv), [`set_host`](Self::set_host),
    /// [`set_glue_for`](Self::set_glue_for), [`set_alias`](Self::set_alias),
    /// [`add_foreign_srv`](Self::add_foreign_srv) and [`add_foreign_addresses`](Self::add_foreign_addresses).
    pub fn clear_overrides(&self) {
        self.zone().clear_overrides();
    }

    /// Returns how many queries have arrived at this server since it was started the first time, answered or not.
    #[must_use]
    pub fn queries(&self) -> DnsQueries {
        self.responder.state().queries.counts()
    }

    /// Returns how many of the queries in the [log](Self::query_log) are for this name.
    #[must_use]
    pub fn queries_for(&self, name: &str) -> DnsQueries {
        self.responder.state().queries.counts_for(name)
    }

    /// Returns the queries that have arrived at this server, answered or not, oldest first. Only the last 65,536 are
    /// kept.
    #[must_use]
    pub fn query_log(&self) -> Vec<DnsQuery> {
        self.responder.state().queries.latest()
    }

    /// Closes the server's sockets. Nothing listens at [`addr`](Self::addr) until [`start`](Self::start).
    pub async fn stop(&self) {
        let mut sockets = self.sockets.lock().await;
        sockets.close_udp().await;
        sockets.close_tcp().await;
    }

    /// Closes the socket for UDP until [`start`](Self::start): the system rejects datagrams. TCP works on.
    pub async fn stop_udp(&self) {
        self.sockets.lock().await.close_udp().await;
    }

    /// Closes the listener and the connections for TCP until [`start`](Self::start): the system refuses connections.
    /// UDP works on.
    pub async fn stop_tcp(&self) {
        self.sockets.lock().await.close_tcp().await;
    }

    /// Listens again at the same address. Does nothing while the server listens.
    ///
    /// # Errors
    /// If another process has taken the port.
    pub async fn start(&self) -> io::Result<()> {
        self.sockets.lock().await.open(self.addr, &self.responder).await?;
        Ok(())
    }

    fn zone(&self) -> MutexGuard<'_, Zone> {
        self.responder.zone()
    }
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns").field("addr", &self.addr).field("responder", &self.responder).finish_non_exhaustive()
    }
}

/// The order of the records in an answer, for [`Dns::set_order`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum DnsOrder {
    /// Pods by ordinal, and other records in the order in which they were set.
    #[default]
    Fixed,
    /// Each answer starts with the record after the one that came first last time. So does each host's glue.
    Rotated,
    /// At random, in each answer anew.
    Shuffled,
}

/// One record of an SRV answer, for [`Dns::set_srv`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SrvRecord {
    priority: u16,
    weight: u16,
    port: u16,
    target: String,
}

impl SrvRecord {
    /// Creates a record. The target is absolute with or without a trailing dot, and keeps its upper and lower case.
    #[must_use]
    pub fn new(priority: u16, weight: u16, port: u16, target: impl Into<String>) -> Self {
        Self { priority, weight, port, target: target.into() }
    }
}
