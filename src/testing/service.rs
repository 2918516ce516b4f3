//! A headless service on loopback addresses: pods that start, stop and move, and a DNS server that lists them.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Mutex as AsyncMutex;

use self::builder::ServiceBuilder;
use super::addresses::{ATTEMPTS, Loopback};
use super::dns::{Dns, ReadyPod};
use super::pod::{Pod, Server, ServerKind};
use crate::node_id::{DEFAULT_PORT, NodeId};

pub(super) mod builder;

/// A headless service with its pods and its DNS server, on this machine's loopback addresses.
///
/// Pods are numbered like those of a StatefulSet. The name of a pod is stable, its address may change. DNS lists the
/// pods that are *ready*, as CoreDNS does. Dropping the service ends all its servers, tasks and sockets.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use memring::testing::Service;
///
/// let service = Service::start(3).await?;
/// assert_eq!(service.pods()[0].fqdn, "memcached-0.memcached.default.svc.cluster.local");
///
/// service.kill(1).await?; // the server is dead, and DNS no longer lists the pod
/// assert!(!service.pods()[1].ready);
///
/// // The pod comes back with the same name, an empty cache and another address.
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
/// Every pod has its own random address in 127.0.0.0/8, so that the services of concurrent test processes rarely
/// collide. All pods share one port, 11211 if it is available. On a machine whose only loopback address is 127.0.0.1
/// (macOS), every pod has that address and its own port, and [`restart_at_new_address`](Self::restart_at_new_address)
/// returns `None`.
///
/// # Cancel safety
/// Operations on pods run one after another. An operation whose future is dropped may leave its pod in an intermediate
/// state, which [`pods`](Self::pods) shows, but it never leaks a server.
#[derive(Debug)]
pub struct Service {
    name: String,
    server_kind: ServerKind,
    loopback: Loopback,
    pod_set: AsyncMutex<PodSet>,
    /// A copy for [`Service::pods`], which therefore does not wait for operations on pods.
    snapshot: Mutex<Vec<Pod>>,
    dns: Dns,
}

#[derive(Debug, Default)]
struct PodSet {
    slots: Vec<Slot>,
    /// The ports by ordinal, kept when pods are scaled away so that a pod comes back with its old identity.
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
    /// Starts a service named `memcached.default.svc.cluster.local` with the given number of embedded pods.
    ///
    /// # Errors
    /// If a socket cannot be opened.
    pub async fn start(pods: usize) -> io::Result<Self> {
        Self::builder().pods(pods).start().await
    }

    /// Returns a builder for a service with other options.
    pub fn builder() -> ServiceBuilder {
        ServiceBuilder::new()
    }

    /// Returns the DNS name of the service, without a trailing dot.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the DNS server of the service.
    #[must_use]
    pub fn dns(&self) -> &Dns {
        &self.dns
    }

    /// Returns all pods by ordinal, listed in DNS or not.
    #[must_use]
    pub fn pods(&self) -> Vec<Pod> {
        self.lock_snapshot().clone()
    }

    /// Adds or removes pods with the highest ordinals until there are `pods`.
    ///
    /// DNS lists a new pod once it answers. A new pod has a new address even if its ordinal was in use before. A
    /// removed pod leaves DNS before its server is killed.
    ///
    /// # Errors
    /// If a pod cannot be started. The pods started before it stay.
    pub async fn scale(&self, pods: usize) -> io::Result<()> {
        let mut pod_set = self.pod_set.lock().await;
        while pod_set.slots.len() > pods {
            let Some(mut slot) = pod_set.slots.pop() else { break };
            self.publish(&pod_set);
            slot.kill().await?;
        }
        while pod_set.slots.len() < pods {
            let ordinal = pod_set.slots.len();
            let fqdn = self.pod_name(ordinal)?;
            let port = match self.loopback {
                Loopback::Many => pod_set.ports.first(),
                Loopback::One => pod_set.ports.get(ordinal),
            };
            let (server, addr) = self.start_at_free_addr(port.copied()).await?;
            if ordinal == pod_set.ports.len() {
                pod_set.ports.push(addr.port());
            }
            pod_set.slots.push(Slot { fqdn, addr, ready: true, paused: false, server: Some(server) });
            self.publish(&pod_set);
        }
        Ok(())
    }

    /// Kills a pod as a deletion does: the pod leaves DNS, then its server ends with all its connections and items.
    ///
    /// The pod keeps its ordinal and can be [restarted](Self::restart).
    ///
    /// # Errors
    /// If there is no such pod.
    pub async fn kill(&self, pod: usize) -> io::Result<()> {
        self.set_ready(pod, false).await?;
        self.crash(pod).await
    }

    /// Kills a pod's server while DNS still lists the pod.
    ///
    /// This happens in a cluster before a readiness probe fails, or if the service publishes addresses that are not
    /// ready.
    ///
    /// # Errors
    /// If there is no such pod.
    pub async fn crash(&self, pod: usize) -> io::Result<()> {
        let mut pod_set = self.pod_set.lock().await;
        let killed = pod_set.slot(pod)?.kill().await;
        self.publish(&pod_set);
        killed
    }

    /// Restarts a pod's server with the same name and address and an empty cache, after killing it if it runs.
    ///
    /// DNS does not list the pod until the new server answers.
    ///
    /// # Errors
    /// If there is no such pod, or its server cannot be started. In the latter case DNS does not list the pod.
    pub async fn restart(&self, pod: usize) -> io::Result<()> {
        let mut pod_set = self.pod_set.lock().await;
        let addr = self.take_down(&mut pod_set, pod).await?;
        let server = self.server_kind.start(addr).await?;
        self.bring_up(&mut pod_set, pod, server, addr)
    }

    /// Restarts a pod's server at another address on the same port, as rescheduling does, and returns the new address.
    ///
    /// Returns `None`, and leaves the pod alone, if this machine has only one loopback address. Report the test as
    /// skipped in that case.
    ///
    /// # Errors
    /// As [`restart`](Self::restart).
    pub async fn restart_at_new_address(&self, pod: usize) -> io::Result<Option<SocketAddr>> {
        let mut pod_set = self.pod_set.lock().await;
        let port = pod_set.slot(pod)?.addr.port();
        if self.loopback == Loopback::One {
            return Ok(None);
        }
        self.take_down(&mut pod_set, pod).await?;
        let (server, addr) = self.start_at_free_addr(Some(port)).await?;
        self.bring_up(&mut pod_set, pod, server, addr)?;
        Ok(Some(addr))
    }

    /// Marks a pod as ready: DNS lists it, whether its server runs or not.
    ///
    /// # Errors
    /// If there is no such pod.
    pub async fn ready(&self, pod: usize) -> io::Result<()> {
        self.set_ready(pod, true).await
    }

    /// Marks a pod as not ready: DNS no longer lists it, while its server keeps running.
    ///
    /// # Errors
    /// If there is no such pod.
    pub async fn unready(&self, pod: usize) -> io::Result<()> {
        self.set_ready(pod, false).await
    }

    /// Pauses a pod's server, which then looks like a stopped process or a dead host.
    ///
    /// It neither reads nor answers, while the kernel still accepts connections and buffers bytes. DNS still lists the
    /// pod.
    ///
    /// # Errors
    /// If there is no such pod, if its server does not run, or if the program `kill`, which real servers need, cannot
    /// be run.
    pub async fn pause(&self, pod: usize) -> io::Result<()> {
        self.set_paused(pod, true).await
    }

    /// Resumes a paused server, which then answers the commands that arrived meanwhile.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    pub async fn resume(&self, pod: usize) -> io::Result<()> {
        self.set_paused(pod, false).await
    }

    fn pod_name(&self, ordinal: usize) -> io::Result<String> {
        let stateful_set = self.name.split('.').next().unwrap_or_default();
        let fqdn = format!("{stateful_set}-{ordinal}.{}", self.name);
        check_name(&fqdn)?;
        Ok(fqdn)
    }

    async fn set_ready(&self, pod: usize, ready: bool) -> io::Result<()> {
        let mut pod_set = self.pod_set.lock().await;
        pod_set.slot(pod)?.ready = ready;
        self.publish(&pod_set);
        Ok(())
    }

    async fn set_paused(&self, pod: usize, paused: bool) -> io::Result<()> {
        let mut pod_set = self.pod_set.lock().await;
        let slot = pod_set.slot(pod)?;
        match &slot.server {
            Some(server) if paused => server.pause().await?,
            Some(server) => server.resume().await?,
            None => return Err(io::Error::new(io::ErrorKind::NotFound, format!("pod {pod} does not run"))),
        }
        slot.paused = paused;
        self.publish(&pod_set);
        Ok(())
    }

    /// Removes a pod from DNS, kills its server, and returns the server's address.
    async fn take_down(&self, pod_set: &mut PodSet, pod: usize) -> io::Result<SocketAddr> {
        pod_set.slot(pod)?.ready = false;
        self.publish(pod_set);
        let slot = pod_set.slot(pod)?;
        slot.kill().await?;
        let addr = slot.addr;
        self.publish(pod_set);
        Ok(addr)
    }

    fn bring_up(&self, pod_set: &mut PodSet, pod: usize, server: Server, addr: SocketAddr) -> io::Result<()> {
        let slot = pod_set.slot(pod)?;
        (slot.server, slot.addr, slot.ready) = (Some(server), addr, true);
        self.publish(pod_set);
        Ok(())
    }

    async fn start_at_free_addr(&self, port: Option<u16>) -> io::Result<(Server, SocketAddr)> {
        let mut attempt = 1;
        loop {
            let addr = self.loopback.free_addr(port)?;
            match self.server_kind.start(addr).await {
                Ok(server) => return Ok((server, addr)),
                // Another process took the address first.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Updates DNS and the snapshot that [`pods`](Self::pods) returns.
    fn publish(&self, pod_set: &PodSet) {
        let ready = pod_set.slots.iter().filter(|slot| slot.ready);
        self.dns.set_pods(ready.map(|slot| ReadyPod { fqdn: &slot.fqdn, addr: slot.addr }));
        *self.lock_snapshot() = pod_set.slots.iter().map(Slot::pod).collect();
    }

    fn lock_snapshot(&self) -> MutexGuard<'_, Vec<Pod>> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks that DNS and the client both accept the name, so that a mistake in it is reported where it is made.
fn check_name(name: &str) -> io::Result<()> {
    match NodeId::new(name, DEFAULT_PORT) {
        Ok(_) => Ok(()),
        Err(error) => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, format!("`{name}` is not a valid name: {error}")))
        }
    }
}

impl PodSet {
    fn slot(&mut self, pod: usize) -> io::Result<&mut Slot> {
        let pods = self.slots.len();
        let error = || io::Error::new(io::ErrorKind::NotFound, format!("there is no pod {pod} among {pods}"));
        self.slots.get_mut(pod).ok_or_else(error)
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
