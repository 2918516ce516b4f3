//! A headless service on loopback: pods that come and go, and the DNS that tells of them.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Mutex as AsyncMutex;

use self::builder::ServiceBuilder;
use super::addresses::{ATTEMPTS, Loopback};
use super::dns::{Dns, Listed};
use super::pod::{Engine, Pod, Server};
use crate::node_id::{DEFAULT_PORT, NodeId};

pub(super) mod builder;

/// A headless service with its pods and its DNS server, all on this machine's loopback addresses.
///
/// Pods are numbered as a StatefulSet's are. Each has a name that stays and an address that may change; DNS lists
/// those that are *ready*, as CoreDNS does. Dropping the service ends every server, task and socket of it.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use memring::testing::Service;
///
/// let service = Service::start(3).await?;
/// assert_eq!(service.pods()[0].fqdn, "memcached-0.memcached.default.svc.cluster.local");
///
/// service.kill(1).await?; // the pod is gone, and DNS no longer lists it
/// assert!(!service.pods()[1].ready);
///
/// // It comes back with the same name, an empty cache and another address.
/// let old = service.pods()[1].addr;
/// if let Some(new) = service.restart_at_new_address(1).await? {
///     assert_ne!(new.ip(), old.ip());
///     assert_eq!(new.port(), old.port());
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Addresses
/// Every pod has an address of its own in 127.0.0.0/8, picked at random, so that services in test processes that run
/// side by side keep clear of each other; all pods share one port, 11211 if it can be had. Where only 127.0.0.1 can be
/// listened on (macOS), every pod has that address and a port of its own, and
/// [`restart_at_new_address`](Self::restart_at_new_address) answers `None`.
///
/// # Cancel safety
/// Operations on pods run one after another. One whose future is dropped half-way leaves its pod in a state in between,
/// which [`pods`](Self::pods) tells; it never leaves a server behind.
#[derive(Debug)]
pub struct Service {
    name: String,
    engine: Engine,
    loopback: Loopback,
    fleet: AsyncMutex<Fleet>,
    /// What [`Service::pods`] tells, so that asking waits for nobody.
    view: Mutex<Vec<Pod>>,
    dns: Dns,
}

#[derive(Debug, Default)]
struct Fleet {
    slots: Vec<Slot>,
    /// By ordinal, of pods that were scaled away too: a pod that comes back has the identity it had.
    ports: Vec<u16>,
}

#[derive(Debug)]
struct Slot {
    fqdn: String,
    addr: SocketAddr,
    ready: bool,
    paused: bool,
    server: Option<Server>,
}

impl Service {
    /// Starts a service of this many embedded pods, named `memcached.default.svc.cluster.local`.
    ///
    /// # Errors
    /// If no socket can be had.
    pub async fn start(pods: usize) -> io::Result<Self> {
        Self::builder().pods(pods).start().await
    }

    /// Everything that can be chosen about a service.
    pub fn builder() -> ServiceBuilder {
        ServiceBuilder::new()
    }

    /// The name to look the service up by, without a trailing dot.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The service's DNS server.
    #[must_use]
    pub fn dns(&self) -> &Dns {
        &self.dns
    }

    /// The pods as they are now, by ordinal, listed in DNS or not.
    #[must_use]
    pub fn pods(&self) -> Vec<Pod> {
        self.lock_view().clone()
    }

    /// Adds or removes pods of the highest ordinals. A new pod is listed once it answers, and has an address of its own
    /// even if its ordinal was in use before; one that goes leaves DNS first and is then killed.
    ///
    /// # Errors
    /// If a pod cannot be started; those before it have been.
    pub async fn scale(&self, pods: usize) -> io::Result<()> {
        let mut fleet = self.fleet.lock().await;
        while fleet.slots.len() > pods {
            let Some(mut slot) = fleet.slots.pop() else { break };
            self.publish(&fleet);
            slot.kill().await?;
        }
        while fleet.slots.len() < pods {
            let ordinal = fleet.slots.len();
            let fqdn = self.pod_name(ordinal)?;
            let port = match self.loopback {
                Loopback::Many => fleet.ports.first(),
                Loopback::One => fleet.ports.get(ordinal),
            };
            let (server, addr) = self.start_somewhere(port.copied()).await?;
            if ordinal == fleet.ports.len() {
                fleet.ports.push(addr.port());
            }
            fleet.slots.push(Slot { fqdn, addr, ready: true, paused: false, server: Some(server) });
            self.publish(&fleet);
        }
        Ok(())
    }

    /// The pod is deleted: it leaves DNS, and then its server is gone at once, with all its connections and items. It
    /// keeps its ordinal, to be [restarted](Self::restart).
    ///
    /// # Errors
    /// If there is no such pod.
    pub async fn kill(&self, pod: usize) -> io::Result<()> {
        self.set_ready(pod, false).await?;
        self.crash(pod).await
    }

    /// The server dies, and DNS goes on listing the pod: no readiness probe has noticed, or the service publishes
    /// addresses that are not ready.
    ///
    /// # Errors
    /// If there is no such pod.
    pub async fn crash(&self, pod: usize) -> io::Result<()> {
        let mut fleet = self.fleet.lock().await;
        let killed = fleet.slot(pod)?.kill().await;
        self.publish(&fleet);
        killed
    }

    /// The server is killed if it runs, and started anew where it was: same name, same address, nothing in the cache.
    /// DNS does not list it in between.
    ///
    /// # Errors
    /// If there is no such pod, or the server cannot be started; it stays out of DNS then.
    pub async fn restart(&self, pod: usize) -> io::Result<()> {
        let mut fleet = self.fleet.lock().await;
        let addr = self.take_down(&mut fleet, pod).await?;
        let server = self.engine.start(addr).await?;
        self.bring_up(&mut fleet, pod, server, addr)
    }

    /// As [`restart`](Self::restart), but at another address on the same port, as a rescheduled pod does. The new
    /// address is answered.
    ///
    /// `None` says that this machine has no other loopback address to offer; the pod has been left alone then, and a
    /// test had better say that it was skipped.
    ///
    /// # Errors
    /// As [`restart`](Self::restart).
    pub async fn restart_at_new_address(&self, pod: usize) -> io::Result<Option<SocketAddr>> {
        let mut fleet = self.fleet.lock().await;
        let port = fleet.slot(pod)?.addr.port();
        if self.loopback == Loopback::One {
            return Ok(None);
        }
        self.take_down(&mut fleet, pod).await?;
        let (server, addr) = self.start_somewhere(Some(port)).await?;
        self.bring_up(&mut fleet, pod, server, addr)?;
        Ok(Some(addr))
    }

    /// DNS lists the pod, whether or not its server runs.
    ///
    /// # Errors
    /// If there is no such pod.
    pub async fn ready(&self, pod: usize) -> io::Result<()> {
        self.set_ready(pod, true).await
    }

    /// DNS no longer lists the pod; its server is left alone.
    ///
    /// # Errors
    /// If there is no such pod.
    pub async fn unready(&self, pod: usize) -> io::Result<()> {
        self.set_ready(pod, false).await
    }

    /// The server neither reads nor answers any more, while the kernel goes on accepting connections and bytes for it:
    /// what a stopped process or a dead host looks like. DNS goes on listing the pod.
    ///
    /// # Errors
    /// If there is no such pod, its server does not run, or, for real servers, there is no program `kill` to do it with.
    pub async fn pause(&self, pod: usize) -> io::Result<()> {
        self.set_paused(pod, true).await
    }

    /// A paused server goes on, and answers what has arrived meanwhile.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    pub async fn resume(&self, pod: usize) -> io::Result<()> {
        self.set_paused(pod, false).await
    }

    fn pod_name(&self, ordinal: usize) -> io::Result<String> {
        let stateful_set = self.name.split('.').next().unwrap_or_default();
        let fqdn = format!("{stateful_set}-{ordinal}.{}", self.name);
        checked(&fqdn)?;
        Ok(fqdn)
    }

    async fn set_ready(&self, pod: usize, ready: bool) -> io::Result<()> {
        let mut fleet = self.fleet.lock().await;
        fleet.slot(pod)?.ready = ready;
        self.publish(&fleet);
        Ok(())
    }

    async fn set_paused(&self, pod: usize, paused: bool) -> io::Result<()> {
        let mut fleet = self.fleet.lock().await;
        let slot = fleet.slot(pod)?;
        match &slot.server {
            Some(server) if paused => server.pause().await?,
            Some(server) => server.resume().await?,
            None => return Err(io::Error::new(io::ErrorKind::NotFound, format!("pod {pod} does not run"))),
        }
        slot.paused = paused;
        self.publish(&fleet);
        Ok(())
    }

    /// Out of DNS, then out of existence. Answers where it was.
    async fn take_down(&self, fleet: &mut Fleet, pod: usize) -> io::Result<SocketAddr> {
        fleet.slot(pod)?.ready = false;
        self.publish(fleet);
        let slot = fleet.slot(pod)?;
        slot.kill().await?;
        let addr = slot.addr;
        self.publish(fleet);
        Ok(addr)
    }

    fn bring_up(&self, fleet: &mut Fleet, pod: usize, server: Server, addr: SocketAddr) -> io::Result<()> {
        let slot = fleet.slot(pod)?;
        (slot.server, slot.addr, slot.ready) = (Some(server), addr, true);
        self.publish(fleet);
        Ok(())
    }

    async fn start_somewhere(&self, port: Option<u16>) -> io::Result<(Server, SocketAddr)> {
        let mut attempt = 1;
        loop {
            let addr = self.loopback.pick(port)?;
            match self.engine.start(addr).await {
                Ok(server) => return Ok((server, addr)),
                // Someone took it since it was picked.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Tells DNS and whoever asks for [`pods`](Self::pods).
    fn publish(&self, fleet: &Fleet) {
        let listed = fleet.slots.iter().filter(|slot| slot.ready);
        self.dns.list(listed.map(|slot| Listed { fqdn: &slot.fqdn, addr: slot.addr }));
        *self.lock_view() = fleet.slots.iter().map(Slot::pod).collect();
    }

    fn lock_view(&self) -> MutexGuard<'_, Vec<Pod>> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What DNS cannot say, or a client would not take, had better be told here than searched for there.
fn checked(name: &str) -> io::Result<NodeId> {
    NodeId::new(name, DEFAULT_PORT)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("`{name}` cannot be a name: {error}")))
}

impl Fleet {
    fn slot(&mut self, pod: usize) -> io::Result<&mut Slot> {
        let pods = self.slots.len();
        let problem = || io::Error::new(io::ErrorKind::NotFound, format!("there is no pod {pod} among {pods}"));
        self.slots.get_mut(pod).ok_or_else(problem)
    }
}

impl Slot {
    async fn kill(&mut self) -> io::Result<()> {
        self.paused = false;
        match self.server.take() {
            Some(server) => server.kill().await,
            None => Ok(()),
        }
    }

    fn pod(&self) -> Pod {
        Pod {
            fqdn: self.fqdn.clone(),
            addr: self.addr,
            ready: self.ready,
            running: self.server.is_some(),
            paused: self.paused,
        }
    }
}
