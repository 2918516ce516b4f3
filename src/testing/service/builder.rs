//! What can be chosen about a service.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;

use super::{Fleet, Service, checked};
use crate::testing::addresses::Loopback;
use crate::testing::dns::{Dns, Settings};
use crate::testing::memcached;
use crate::testing::pod::Engine;

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
    engine: Engine,
    extra_args: Vec<OsString>,
}

impl ServiceBuilder {
    pub(super) fn new() -> Self {
        Self {
            pods: 1,
            name: "memcached.default.svc.cluster.local".to_owned(),
            port_name: "memcached".to_owned(),
            // As CoreDNS answers unless it is configured otherwise.
            ttl: Duration::from_secs(5),
            glue: true,
            engine: Engine::Embedded,
            extra_args: Vec::new(),
        }
    }

    /// How many pods there are to begin with; 1 unless said. With 0, DNS does not know the service until it is scaled.
    pub fn pods(mut self, pods: usize) -> Self {
        self.pods = pods;
        self
    }

    /// The service's name, without a trailing dot; `memcached.default.svc.cluster.local` unless said. Pods are named
    /// after its first label.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The name of the service's port, `memcached` unless said: DNS answers for `_memcached._tcp.<name>` too.
    pub fn port_name(mut self, port_name: impl Into<String>) -> Self {
        self.port_name = port_name.into();
        self
    }

    /// How long DNS answers may be relied on, in whole seconds; 5 unless said, and 0 is allowed.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Whether SRV answers bring the pods' addresses along, as CoreDNS's do. On unless said.
    pub fn glue(mut self, glue: bool) -> Self {
        self.glue = glue;
        self
    }

    /// Pods are real `memcached` processes: the program the environment variable `MEMCACHED` names, or else `memcached`
    /// on the `PATH`. Otherwise they are embedded in this process, which needs no program and knows fewer commands (see
    /// the [module's documentation](crate::testing#embedded-pods)).
    pub fn memcached(self) -> Self {
        self.memcached_at(memcached::program())
    }

    /// Pods are processes of this `memcached` program.
    pub fn memcached_at(mut self, program: impl Into<PathBuf>) -> Self {
        self.engine = Engine::Memcached { program: program.into(), args: Vec::new() };
        self
    }

    /// More arguments for real `memcached` processes, such as `["-I", "4m"]`; embedded pods heed none.
    pub fn extra_args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.extra_args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Starts DNS, and then the pods, one after another; returns when all of them answer.
    ///
    /// # Errors
    /// If a name is no DNS name, no socket can be had, or `memcached` cannot be run.
    pub async fn start(self) -> io::Result<Service> {
        self.start_on(Loopback::probe()).await
    }

    async fn start_on(self, loopback: Loopback) -> io::Result<Service> {
        let name = self.name.trim_end_matches('.').to_owned();
        checked(&name)?;
        let settings = Settings { service: &name, port_name: &self.port_name, ttl: self.ttl, glue: self.glue };
        let dns = Dns::launch(settings, loopback).await?;
        let engine = match self.engine {
            Engine::Embedded => Engine::Embedded,
            Engine::Memcached { program, .. } => Engine::Memcached { program, args: self.extra_args },
        };
        let service =
            Service { name, engine, loopback, fleet: AsyncMutex::new(Fleet::default()), view: Mutex::default(), dns };
        service.scale(self.pods).await?;
        Ok(service)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    /// What macOS does, tried wherever the tests run.
    #[tokio::test]
    async fn one_loopback_address_is_enough() {
        let service = ServiceBuilder::new().pods(3).start_on(Loopback::One).await.unwrap();
        let before = service.pods();
        assert!(before.iter().all(|pod| pod.addr.ip().is_loopback() && pod.addr.ip() == before[0].addr.ip()));
        assert_eq!(service.restart_at_new_address(1).await.unwrap(), None);
        service.restart(1).await.unwrap();
        assert_eq!(service.pods(), before);

        // A pod that comes back has the identity it had: its port here, not its address, is what tells it from others.
        service.scale(1).await.unwrap();
        assert!(TcpStream::connect(before[2].addr).await.is_err());
        service.scale(3).await.unwrap();
        assert_eq!(service.pods(), before);
    }
}
