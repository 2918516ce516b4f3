//! The DNS server of a service under test: real UDP and TCP on a loopback address, answers that can be made to fail.

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
pub(super) use self::zone::{Listed, Settings};
use super::addresses::{ATTEMPTS, Loopback};

mod handler;
mod zone;

/// How long a client's TCP connection may be idle.
const TCP_IDLE: Duration = Duration::from_secs(30);

/// How many replies a TCP connection may have outstanding.
const TCP_BUFFER: usize = 32;

/// The DNS server of a [`Service`](super::Service).
///
/// It answers as CoreDNS does for a headless service:
///
/// | question | answer |
/// |---|---|
/// | `SRV <service>`, `SRV _<port name>._tcp.<service>` | one record for each ready pod, priority 0, weight 100 divided by their number; the pods' addresses as additional records |
/// | `A <service>`, `A <pod>.<service>` | the addresses of the ready pods, of the pod if it is ready |
/// | any other type for these names | no records (NODATA) |
/// | any other name, and all of them while no pod is ready | NXDOMAIN |
///
/// A reply too large for UDP is cut and flagged, and can be had whole over TCP. Everything can be changed while the
/// server runs, and what is changed holds for the next question.
pub struct Dns {
    zone: Arc<Mutex<Zone>>,
    addr: SocketAddr,
    server: AsyncMutex<Option<Server<Handler>>>,
}

impl Dns {
    pub(super) async fn launch(settings: Settings<'_>, loopback: Loopback) -> io::Result<Self> {
        let zone = Arc::new(Mutex::new(Zone::new(settings)?));
        let mut attempt = 1;
        loop {
            // TCP has to be had on the port UDP got, which somebody else may hold.
            match serve((loopback.any(), 0).into(), &zone).await {
                Ok((server, addr)) => return Ok(Self { zone, addr, server: AsyncMutex::new(Some(server)) }),
                Err(_) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn list<'a>(&self, pods: impl Iterator<Item = Listed<'a>>) {
        self.zone().list(pods);
    }

    /// Where it listens, over UDP and TCP; the same after [`stop`](Self::stop) and [`start`](Self::start).
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Every question is answered this way from now on.
    pub fn set_fault(&self, fault: DnsFault) {
        self.zone().fault = Some(fault);
    }

    /// Questions are answered properly again.
    pub fn clear_fault(&self) {
        self.zone().fault = None;
    }

    /// How long answers may be relied on, in whole seconds; negative ones too.
    pub fn set_ttl(&self, ttl: Duration) {
        self.zone().ttl = zone::seconds(ttl);
    }

    /// Whether SRV answers bring the targets' addresses along.
    pub fn set_glue(&self, glue: bool) {
        self.zone().glue = glue;
    }

    /// SRV questions for the service are answered with these records instead of the pods, odd as they may be: port 0,
    /// the target `.`, duplicates, upper case, several priorities, hundreds of them. With none, the service exists and
    /// has no SRV records.
    ///
    /// Targets that are neither pods nor given by [`set_host`](Self::set_host) have no address.
    ///
    /// # Errors
    /// If a target cannot be said in DNS at all; nothing is changed then.
    pub fn set_srv(&self, records: impl IntoIterator<Item = SrvRecord>) -> io::Result<()> {
        self.zone().set_srv(records)
    }

    /// A host has these addresses, of both kinds if need be, even if it is a pod. With none, it does not exist.
    ///
    /// # Errors
    /// If the name cannot be said in DNS.
    pub fn set_host(&self, host: &str, addresses: impl IntoIterator<Item = IpAddr>) -> io::Result<()> {
        self.zone().set_host(host, addresses)
    }

    /// Takes back what [`set_srv`](Self::set_srv) and [`set_host`](Self::set_host) have set.
    pub fn clear_overrides(&self) {
        self.zone().clear_overrides();
    }

    /// How many questions have arrived, answered or not, since the service was started.
    #[must_use]
    pub fn queries(&self) -> DnsQueries {
        self.zone().queries
    }

    /// Closes its sockets: nothing listens at [`addr`](Self::addr) any more.
    pub async fn stop(&self) {
        let server = self.server.lock().await.take();
        if let Some(mut server) = server {
            // An error would be that of a socket, and it is being closed.
            let _ = server.shutdown_gracefully().await;
        }
    }

    /// Listens again after [`stop`](Self::stop), at the same address.
    ///
    /// # Errors
    /// If somebody else has taken the port meanwhile.
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
    server.register_listener(tcp, TCP_IDLE, TCP_BUFFER);
    Ok((server, addr))
}

/// What is wrong with the DNS server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DnsFault {
    /// SERVFAIL, as from a CoreDNS that has lost its API server.
    ServFail,
    /// REFUSED, as from a server that does not serve this client or zone.
    Refused,
    /// NXDOMAIN for every name.
    NxDomain,
    /// No records for any name.
    NoData,
    /// Questions are read and never answered.
    Silent,
    /// UDP replies hold half of the records and are flagged as truncated; TCP works.
    Truncated,
    /// As [`Truncated`](Self::Truncated), and over TCP questions are never answered.
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
    /// The target is sent as it is spelled, upper case and all, and is absolute with a trailing dot or without.
    #[must_use]
    pub fn new(priority: u16, weight: u16, port: u16, target: impl Into<String>) -> Self {
        Self { priority, weight, port, target: target.into() }
    }
}

/// How many questions a DNS server was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DnsQueries {
    /// All of them.
    pub total: u64,
    /// Those that came over TCP.
    pub tcp: u64,
    /// Those for SRV records.
    pub srv: u64,
    /// Those for A records.
    pub a: u64,
    /// Those for AAAA records.
    pub aaaa: u64,
    /// Those for any other type.
    pub other: u64,
}
