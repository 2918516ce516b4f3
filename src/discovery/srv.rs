//! Discovery by DNS SRV records, as cluster DNS serves them for a headless service.

mod answer;
mod resolver;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use tokio::sync::OnceCell;
use tracing::warn;

use crate::discovery::{Discovery, DiscoveryError, HostAddresses, Membership};
use crate::node_id::DEFAULT_PORT;
use answer::{RecordOptions, Warning, to_membership};
use resolver::Resolver;

/// Finds the pods of a headless service by its SRV records.
///
/// Give the service's full name, `memcached.my-namespace.svc.cluster.local`. A shorter name is tried with the search
/// list of `/etc/resolv.conf`, until an answer shows the full name. A trailing dot disables the search list.
///
/// Pods are identified by name, so they need stable names. Run them as a StatefulSet whose `serviceName` is the
/// headless service. The pods of a Deployment are listed under names made of their IP addresses: that works, but a pod
/// that restarts is then a new node.
///
/// A lookup has no time limit of its own: the client ends it after
/// [`lookup_timeout`](crate::DiscoveryOptions::lookup_timeout). If you call the methods of [`Discovery`] yourself, set
/// one, for example with `tokio::time::timeout`.
///
/// If the service has several ports, select memcached's by [name](Self::port_name), which keeps the others out of the
/// answer, or by [number](Self::port).
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
    tcp_only: bool,
    record_options: RecordOptions,
    /// Built at the first lookup, which reads the system's configuration.
    resolver: OnceCell<Resolver>,
    /// The kinds of warnings already logged.
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

/// What the client makes of the weights in SRV records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WeightPolicy {
    /// Ignores them. The weights of cluster DNS depend only on the number of pods.
    #[default]
    Ignore,
    /// Gives each node a share of the keys proportional to its weight, among the records of its priority.
    ///
    /// The steps are a sixteenth of the largest weight. Weight 0 counts as 1.
    Relative,
}

impl SrvDiscovery {
    /// Creates a source that lists the pods of this service.
    #[must_use]
    pub fn new(service: impl Into<String>) -> Self {
        Self {
            name: service.into(),
            port_name: None,
            nameservers: Vec::new(),
            tcp_only: false,
            record_options: RecordOptions { port: None, default_port: DEFAULT_PORT, weights: WeightPolicy::Ignore },
            resolver: OnceCell::new(),
            warned: Mutex::default(),
        }
    }

    /// Queries only the port of this name: `_memcached._tcp.<service>`.
    ///
    /// The port must have that name in the service's definition.
    #[must_use]
    pub fn port_name(mut self, name: impl Into<String>) -> Self {
        self.port_name = Some(name.into());
        self
    }

    /// Uses only records of this port.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.record_options.port = Some(port);
        self
    }

    /// Sets the default port, 11211 unless set.
    ///
    /// It replaces port 0 in records. It is also the port used if a pod has several and none is selected. If a pod has
    /// several and none of them is this one, polls fail: select one by [name](Self::port_name) or [number](Self::port).
    #[must_use]
    pub fn default_port(mut self, port: u16) -> Self {
        self.record_options.default_port = port;
        self
    }

    /// Queries these DNS servers instead of the ones in the system's configuration.
    ///
    /// This also disables the system's search list: the service's name is used as it is.
    #[must_use]
    pub fn nameservers(mut self, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.nameservers = servers.into_iter().collect();
        self
    }

    /// Queries DNS servers over TCP only. By default the client tries UDP first, and TCP as well if UDP is silent.
    ///
    /// `options use-vc` in `/etc/resolv.conf` does the same.
    #[must_use]
    pub fn tcp_only(mut self) -> Self {
        self.tcp_only = true;
        self
    }

    /// Sets what the client makes of the weights in the records. By default it ignores them.
    #[must_use]
    pub fn weights(mut self, policy: WeightPolicy) -> Self {
        self.record_options.weights = policy;
        self
    }

    async fn resolver(&self) -> Result<&Resolver, DiscoveryError> {
        self.resolver
            .get_or_try_init(|| async { Resolver::new(&self.query_name(), &self.nameservers, self.tcp_only) })
            .await
    }

    fn query_name(&self) -> String {
        match &self.port_name {
            Some(port) => format!("_{}._tcp.{}", port.trim_start_matches('_'), self.name),
            None => self.name.clone(),
        }
    }

    /// Adds the query to an empty answer, and what to check.
    fn explain(&self, error: DiscoveryError) -> DiscoveryError {
        let query = self.query_name();
        match &self.port_name {
            Some(port) => error.with_detail(format!(
                "SRV {query}; this name exists only if the port is named `{port}` in the service's definition: name \
                 the port there, or query the service's bare name"
            )),
            None => error.with_detail(format!("SRV {query}")),
        }
    }

    fn warn_once(&self, warnings: Vec<Warning>) {
        // A panic cannot leave the set half-changed.
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
        let (membership, warnings) = to_membership(answer, &self.record_options)?;
        self.warn_once(warnings);
        Ok(membership)
    }

    async fn resolve(&self, host: &str) -> Result<HostAddresses, DiscoveryError> {
        self.resolver().await?.host(host).await.map_err(|error| match error {
            DiscoveryError::Empty { negative_ttl, .. } => DiscoveryError::no_such_host(host, negative_ttl),
            failure => failure,
        })
    }
}
