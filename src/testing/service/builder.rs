//! The options of a service.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;

use super::{PodSet, Service, check_name};
use crate::testing::addresses::Loopback;
use crate::testing::dns::{Dns, ZoneSettings};
use crate::testing::memcached;
use crate::testing::pod::ServerKind;

/// Builds a [`Service`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use std::time::Duration;
/// use memring::testing::Service;
///
/// let service = Service::builder()
///     .name("sessions.shop.svc.cluster.local")
///     .pods(2)
///     .ttl(Duration::from_secs(1))
///     .start()
///     .await?;
/// assert_eq!(service.pods()[1].fqdn, "sessions-1.sessions.shop.svc.cluster.local");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct ServiceBuilder {
    pods: usize,
    name: String,
    port_name: String,
    ttl: Duration,
    glue: bool,
    server_kind: ServerKind,
    extra_args: Vec<OsString>,
}

impl ServiceBuilder {
    pub(super) fn new() -> Self {
        Self {
            pods: 1,
            name: "memcached.default.svc.cluster.local".to_owned(),
            port_name: "memcached".to_owned(),
            // The default of CoreDNS.
            ttl: Duration::from_secs(5),
            glue: true,
            server_kind: ServerKind::Embedded,
            extra_args: Vec::new(),
        }
    }

    /// Sets the initial number of pods, by default 1. With 0, the service's name does not exist in DNS until it is
    /// scaled.
    pub fn pods(mut self, pods: usize) -> Self {
        self.pods = pods;
        self
    }

    /// Sets the DNS name of the service, by default `memcached.default.svc.cluster.local`.
    ///
    /// Pods are named after its first label. A trailing dot is ignored.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the name of the service's port, by default `memcached`, so that DNS answers for `_memcached._tcp.<name>`
    /// too.
    pub fn port_name(mut self, port_name: impl Into<String>) -> Self {
        self.port_name = port_name.into();
        self
    }

    /// Sets the TTL of DNS answers, by default 5 seconds. Fractions of a second are cut off, and 0 is allowed.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets whether SRV answers include the pods' addresses (glue), by default `true`, as with CoreDNS.
    pub fn glue(mut self, glue: bool) -> Self {
        self.glue = glue;
        self
    }

    /// Runs the pods as real `memcached` processes.
    ///
    /// The environment variable `MEMCACHED` names the program; otherwise it is `memcached` on the `PATH`. By default
    /// pods are embedded in this process, which needs no program and supports fewer commands (see the [module's
    /// documentation](crate::testing#embedded-pods)).
    pub fn memcached(self) -> Self {
        self.memcached_at(memcached::program())
    }

    /// Runs the pods as processes of the given `memcached` program.
    pub fn memcached_at(mut self, program: impl Into<PathBuf>) -> Self {
        self.server_kind = ServerKind::Memcached { program: program.into(), args: Vec::new() };
        self
    }

    /// Adds arguments for real `memcached` processes, such as `["-I", "4m"]`. Embedded pods ignore them.
    pub fn extra_args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.extra_args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Starts DNS and then the pods, one after another, and returns when all of them answer.
    ///
    /// # Errors
    /// If a name is not a valid DNS name, a socket cannot be opened, or `memcached` cannot be run.
    pub async fn start(self) -> io::Result<Service> {
        self.start_on(Loopback::probe()).await
    }

    async fn start_on(self, loopback: Loopback) -> io::Result<Service> {
        let name = self.name.trim_end_matches('.').to_owned();
        check_name(&name)?;
        let settings = ZoneSettings { service: &name, port_name: &self.port_name, ttl: self.ttl, glue: self.glue };
        let dns = Dns::launch(settings, loopback).await?;
        let server_kind = match self.server_kind {
            ServerKind::Embedded => ServerKind::Embedded,
            ServerKind::Memcached { program, .. } => ServerKind::Memcached { program, args: self.extra_args },
        };
        let pod_set = AsyncMutex::new(PodSet::default());
        let service = Service { name, server_kind, loopback, pod_set, snapshot: Mutex::default(), dns };
        service.scale(self.pods).await?;
        Ok(service)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    /// Runs as on macOS, on every system.
    #[tokio::test]
    async fn a_service_works_on_a_single_loopback_address() {
        let service = ServiceBuilder::new().pods(3).start_on(Loopback::One).await.unwrap();
        let before = service.pods();
        assert!(before.iter().all(|pod| pod.addr.ip().is_loopback() && pod.addr.ip() == before[0].addr.ip()));
        assert_eq!(service.restart_at_new_address(1).await.unwrap(), None);
        service.restart(1).await.unwrap();
        assert_eq!(service.pods(), before);

        // A pod comes back with its old identity, which is its port because all pods share the address.
        service.scale(1).await.unwrap();
        assert!(TcpStream::connect(before[2].addr).await.is_err());
        service.scale(3).await.unwrap();
        assert_eq!(service.pods(), before);
    }
}
