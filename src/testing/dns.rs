//! The DNS server of a service under test: real UDP and TCP on a loopback address, with faults on demand.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_server::Server;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Mutex as AsyncMutex;

use self::handler::Handler;
use self::zone::Zone;
pub(super) use self::zone::{ReadyPod, ZoneSettings};
use super::addresses::{ATTEMPTS, Loopback};

mod handler;
mod zone;

/// How long a client's TCP connection may be idle before it is closed.
const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How many replies may be queued on one TCP connection.
const TCP_REPLY_QUEUE: usize = 32;

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
pub struct Dns {
    zone: Arc<Mutex<Zone>>,
    addr: SocketAddr,
    server: AsyncMutex<Option<Server<Handler>>>,
}

impl Dns {
    pub(super) async fn launch(settings: ZoneSettings<'_>, loopback: Loopback) -> io::Result<Self> {
        let zone = Arc::new(Mutex::new(Zone::new(settings)?));
        let mut attempt = 1;
        loop {
            // TCP needs the port that the system chose for UDP, and another process may hold it.
            match serve((loopback.bind_ip(), 0).into(), &zone).await {
                Ok((server, addr)) => return Ok(Self { zone, addr, server: AsyncMutex::new(Some(server)) }),
                Err(_) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
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

    /// Applies the fault to every query from now on.
    pub fn set_fault(&self, fault: DnsFault) {
        self.zone().fault = Some(fault);
    }

    /// Ends the fault set by [`set_fault`](Self::set_fault).
    pub fn clear_fault(&self) {
        self.zone().fault = None;
    }

    /// Sets the TTL of positive and negative answers. Fractions of a second are cut off.
    pub fn set_ttl(&self, ttl: Duration) {
        self.zone().ttl = zone::seconds(ttl);
    }

    /// Sets whether SRV answers include the targets' addresses as additional records (glue).
    pub fn set_glue(&self, glue: bool) {
        self.zone().glue = glue;
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

    /// Removes everything set by [`set_srv`](Self::set_srv) and [`set_host`](Self::set_host).
    pub fn clear_overrides(&self) {
        self.zone().clear_overrides();
    }

    /// Returns how many queries have arrived since the service started, answered or not.
    #[must_use]
    pub fn queries(&self) -> DnsQueries {
        self.zone().queries
    }

    /// Closes the server's sockets. Nothing listens at [`addr`](Self::addr) until [`start`](Self::start).
    pub async fn stop(&self) {
        let server = self.server.lock().await.take();
        if let Some(mut server) = server {
            // The only possible error is a socket's, and the sockets are being closed.
            let _ = server.shutdown_gracefully().await;
        }
    }

    /// Listens again at the same address after [`stop`](Self::stop). Does nothing while the server listens.
    ///
    /// # Errors
    /// If another process has taken the port.
    pub async fn start(&self) -> io::Result<()> {
        let mut server = self.server.lock().await;
        if server.is_none() {
            *server = Some(serve(self.addr, &self.zone).await?.0);
        }
        Ok(())
    }

    fn zone(&self) -> MutexGuard<'_, Zone> {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns").field("addr", &self.addr).field("zone", &self.zone).finish_non_exhaustive()
    }
}

async fn serve(addr: SocketAddr, zone: &Arc<Mutex<Zone>>) -> io::Result<(Server<Handler>, SocketAddr)> {
    let udp = UdpSocket::bind(addr).await?;
    let addr = udp.local_addr()?;
    let tcp = TcpListener::bind(addr).await?;
    let mut server = Server::new(Handler { zone: Arc::clone(zone) });
    server.register_socket(udp);
    server.register_listener(tcp, TCP_IDLE_TIMEOUT, TCP_REPLY_QUEUE);
    Ok((server, addr))
}

/// A failure of the DNS server, for [`Dns::set_fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DnsFault {
    /// SERVFAIL for every query, as from a CoreDNS that has lost its API server.
    ServFail,
    /// REFUSED for every query, as from a server that does not serve this client or zone.
    Refused,
    /// NXDOMAIN for every name.
    NxDomain,
    /// No records for any name.
    NoData,
    /// Queries are read and never answered.
    Silent,
    /// UDP replies hold half of the records and are flagged as truncated; TCP works.
    Truncated,
    /// As [`Truncated`](Self::Truncated), and queries over TCP are never answered.
    TruncatedWithoutTcp,
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
