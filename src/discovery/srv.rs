//! Discovery by DNS SRV records, as cluster DNS has them for a headless service.

mod answer;
mod resolver;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use tokio::sync::OnceCell;
use tracing::warn;

use crate::discovery::{Discovery, DiscoveryError, Membership};
use crate::node_id::DEFAULT_PORT;
use answer::{Rules, Warning, normalize};
use resolver::Resolver;

/// Discovery of a headless service's pods by its SRV records.
///
/// Give the service's full name, `memcached.my-namespace.svc.cluster.local`. A shorter one is tried with the search list
/// of `/etc/resolv.conf`, until an answer shows which name is meant; a trailing dot keeps the search list out.
///
/// Pods are told apart by name, so they should have stable ones: run them as a StatefulSet whose `serviceName` is the
/// headless service. The pods of a Deployment are listed under names made of their IP addresses: that works, but each
/// restart is then another node.
///
/// If the service has several ports, say which one is memcached's: by [name](Self::port_name), which keeps the others
/// out of the answer, or by [number](Self::port).
///
/// ```
/// use memring::SrvDiscovery;
///
/// let pods = SrvDiscovery::new("memcached.default.svc.cluster.local").port_name("memcached");
/// # let _ = pods;
/// ```
#[derive(Debug)]
pub struct SrvDiscovery {
    name: String,
    port_name: Option<String>,
    nameservers: Vec<SocketAddr>,
    rules: Rules,
    /// Built at the first look-up, within the runtime that will drive it.
    resolver: OnceCell<Resolver>,
    /// What was warned about: once each.
    warned: Mutex<HashSet<std::mem::Discriminant<Warning>>>,
}

impl From<&str> for SrvDiscovery {
    fn from(service: &str) -> Self {
        Self::new(service)
    }
}

impl From<String> for SrvDiscovery {
    fn from(service: String) -> Self {
        Self::new(service)
    }
}

/// What the weights in SRV records count for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WeightPolicy {
    /// Nothing. The weights that cluster DNS makes up say only how many pods there are.
    #[default]
    Ignore,
    /// A node's share of the keys is proportional to its weight among the records of its priority, in steps of a
    /// sixteenth of the largest; weight 0 counts as 1.
    Relative,
}

impl SrvDiscovery {
    /// Follows the service of this name.
    #[must_use]
    pub fn new(service: impl Into<String>) -> Self {
        Self {
            name: service.into(),
            port_name: None,
            nameservers: Vec::new(),
            rules: Rules { port: None, default_port: DEFAULT_PORT, weights: WeightPolicy::Ignore },
            resolver: OnceCell::new(),
            warned: Mutex::default(),
        }
    }

    /// Asks for the service's port of this name only: `_memcached._tcp.<service>`. The port must have that name in the
    /// service's definition.
    #[must_use]
    pub fn port_name(mut self, name: impl Into<String>) -> Self {
        self.port_name = Some(name.into());
        self
    }

    /// Takes only records of this port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.rules.port = Some(port);
        self
    }

    /// The port of records that say 0, and the one taken if a pod has several and none was chosen: 11211.
    #[must_use]
    pub fn default_port(mut self, port: u16) -> Self {
        self.rules.default_port = port;
        self
    }

    /// Asks these DNS servers instead of those the system is configured with. Without the system's configuration there
    /// is no search list either: the name is taken as it stands.
    #[must_use]
    pub fn nameservers(mut self, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.nameservers = servers.into_iter().collect();
        self
    }

    /// What the weights in the records count for: nothing, by default.
    #[must_use]
    pub fn weights(mut self, policy: WeightPolicy) -> Self {
        self.rules.weights = policy;
        self
    }

    async fn resolver(&self) -> Result<&Resolver, DiscoveryError> {
        self.resolver.get_or_try_init(|| async { Resolver::new(&self.question(), &self.nameservers) }).await
    }

    fn question(&self) -> String {
        match &self.port_name {
            Some(port) => format!("_{}._tcp.{}", port.trim_start_matches('_'), self.name),
            None => self.name.clone(),
        }
    }

    /// Says what was asked for, and what is worth a look.
    fn explain(&self, error: DiscoveryError) -> DiscoveryError {
        let question = self.question();
        match &self.port_name {
            Some(port) => error.with_detail(format!(
                "SRV {question}; a service lists a port so only if the port is named `{port}` in its definition, else \
                 name it there, or ask for the service's bare name"
            )),
            None => error.with_detail(format!("SRV {question}")),
        }
    }

    fn warn_once(&self, warnings: Vec<Warning>) {
        // Never left half-changed.
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        for warning in warnings {
            if warned.insert(std::mem::discriminant(&warning)) {
                warn!(target: "memring", service = %self.name, "{warning}");
            }
        }
    }
}

impl Discovery for SrvDiscovery {
    async fn discover(&self) -> Result<Membership, DiscoveryError> {
        let answer = self.resolver().await?.srv().await.map_err(|error| self.explain(error))?;
        let (membership, warnings) = normalize(answer, &self.rules)?;
        self.warn_once(warnings);
        Ok(membership)
    }

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, DiscoveryError> {
        self.resolver().await?.host(host).await.map_err(|error| error.with_detail(format!("host {host}")))
    }
}
