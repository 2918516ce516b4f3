//! Builds a client: collects and validates its options, and starts its tasks.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::fetch::Flights;
use super::{Client, Inner};
use crate::config::{BreakerOptions, LONGEST_WAIT, Settings};
use crate::credentials::Credentials;
#[cfg(feature = "dns")]
use crate::discovery::SrvDiscovery;
use crate::discovery::{
    Discovery, DiscoveryError, DiscoveryHandle, DiscoveryOptions, Endpoint, StaticNodes, start_refresh,
};
use crate::dispatch::Dispatcher;
use crate::error::{Error, ErrorKind};
use crate::key::KeySpace;
#[cfg(feature = "long-keys")]
use crate::key::LongKeys;
use crate::operations::{Operations, ValueLimit};
use crate::protocol::LARGEST_ITEM;
#[cfg(feature = "placements")]
use crate::ring::placement::Placement;
use crate::topology::{PlacementRule, Snapshot, Worker};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
/// Starts discovery with a source, whose type is erased here.
type Start = Box<dyn FnOnce(DiscoveryOptions) -> (DiscoveryHandle, Task) + Send>;

/// Builds a [`Client`].
///
/// A source of nodes is required: `service`, [`nodes`](Self::nodes) or [`discovery`](Self::discovery). If more than one
/// is set, the last one counts. Everything else has a default.
#[must_use = "a builder does nothing until `connect` is called"]
pub struct ClientBuilder {
    start: Result<Option<Start>, Error>,
    discovery: DiscoveryOptions,
    rule: PlacementRule,
    settings: Settings,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            start: Ok(None),
            discovery: DiscoveryOptions::default(),
            rule: PlacementRule::default(),
            settings: Settings::default(),
        }
    }
}

impl ClientBuilder {
    /// Discovers the nodes by the SRV records of a headless service, and keeps them up to date.
    ///
    /// Takes the service's name, such as `memcached.default.svc.cluster.local`, or an [`SrvDiscovery`] with its own
    /// options.
    #[cfg(feature = "dns")]
    pub fn service(self, service: impl Into<SrvDiscovery>) -> Self {
        self.discovery(service.into())
    }

    /// Uses a fixed list of nodes: `host`, `host:port` or `[v6]:port`. Their order does not matter.
    ///
    /// Host names are looked up for every dial. A name that ends with a dot is looked up without a search list.
    pub fn nodes<N: AsRef<str>>(mut self, nodes: impl IntoIterator<Item = N>) -> Self {
        let parse = |node: &str| match node.parse() {
            Ok(id) => Ok(Endpoint::new(id)),
            Err(error) => Err(Error::from(error).with_message(format!("node {node:?}"))),
        };
        match nodes.into_iter().map(|node| parse(node.as_ref())).collect::<Result<Vec<_>, _>>() {
            Ok(endpoints) => self.discovery(StaticNodes::new(endpoints)),
            Err(error) => {
                self.start = Err(error);
                self
            }
        }
    }

    /// Uses your own implementation of [`Discovery`].
    ///
    /// Also takes an `Arc` of it, of which you keep a clone, and a `Box` of a [`DynDiscovery`](crate::DynDiscovery).
    pub fn discovery(mut self, source: impl Discovery) -> Self {
        self.start = Ok(Some(Box::new(|options| {
            let (handle, task) = start_refresh(Arc::new(source), options);
            (handle, Box::pin(task))
        })));
        self
    }

    /// Sets how the source is polled and how its results are applied: interval, removal grace, start-up.
    pub fn discovery_options(mut self, options: DiscoveryOptions) -> Self {
        self.discovery = options;
        self
    }

    /// Sets the timeout of each command. The default is 250 ms.
    ///
    /// It covers the wait for space in the queue, the write and the wait for the response. If replies are pending and
    /// the server sends nothing for twice as long (at least 1 s), the connection is closed and redialed. After this
    /// timeout without any reply, the node's [circuit breaker](Self::circuit_breaker) opens.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.settings.request_timeout = timeout.min(LONGEST_WAIT);
        self
    }

    /// Sets the user and password for servers with an authentication file (`-Y`, memcached 1.5.15 or later).
    ///
    /// They are sent alone on every new connection, before anything else. They are not encrypted.
    ///
    /// The user must not be empty or hold a space, neither may hold a line break, and together they may have at most
    /// 1,024 bytes. Otherwise [`connect`](Self::connect) fails with [`ErrorKind::Config`]. Up to 1.6.18 at least,
    /// servers accept no password that is empty or holds a space.
    ///
    /// While a server rejects the credentials, commands for it fail at once with [`ErrorKind::Auth`]. The client
    /// redials it after the [backoff](Self::redial_backoff), because its file may change. On a server that needs no
    /// credentials they only replace an item with the key `memring:auth`.
    pub fn credentials(mut self, user: impl AsRef<str>, password: impl AsRef<str>) -> Self {
        self.settings.credentials = Some(Credentials::new(user.as_ref(), password.as_ref()));
        self
    }

    /// Sets the timeout for connecting to each address of a node. The default is 500 ms.
    ///
    /// The exchange of the [credentials](Self::credentials) has the same timeout.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// Sets the number of connections to each node, from 1 to 16. The default is 1.
    ///
    /// One connection is fastest on a link with low latency, because requests that wait together are sent together.
    /// More connections help if values are large or the latency is high.
    pub fn connections_per_node(mut self, connections: usize) -> Self {
        self.settings.connections = connections;
        self
    }

    /// Sets the limits of each node's queue. The defaults are 4,096 requests and 8 MiB.
    ///
    /// Callers beyond a limit wait for space. A `get_many` counts as one request for every 100 keys, a `set_many` as
    /// one for every key, and either as at most 256 at a time.
    pub fn queue_limits(mut self, requests: usize, bytes: usize) -> Self {
        self.settings.queue.calls = requests;
        self.settings.queue.bytes = bytes;
        self
    }

    /// Sets the largest value to send or accept, in bytes, up to 1 GiB. The default is 1 MiB, as memcached's (`-I`).
    ///
    /// Reading a larger stored value fails with [`ErrorKind::TooLarge`].
    pub fn max_value_size(mut self, bytes: usize) -> Self {
        self.settings.max_value = bytes;
        self
    }

    /// Sets whether a `set` over [`max_value_size`](Self::max_value_size) deletes the old value. Off by default.
    ///
    /// Use it in caches where an old value is worse than none. It makes the client's limit behave as the server's: a
    /// server that rejects a set for its size deletes the old value.
    ///
    /// The set, alone or in a `set_many`, sends a `delete` and still fails with [`ErrorKind::TooLarge`]. The error's
    /// [`delivery`](Error::delivery) is that of the delete. It is [`Answered`](crate::Delivery::Answered), without a
    /// [`source`](std::error::Error::source), if the old value is deleted. If the delete failed, its error is the
    /// source, and the old value may still exist. A rejected `add` or `replace` deletes nothing, because it is unknown
    /// whether it would have stored anything.
    pub fn delete_when_too_large(mut self, delete: bool) -> Self {
        self.settings.delete_when_too_large = delete;
        self
    }

    /// Sets what to do with keys over 250 bytes, a namespace's prefix included. The default is [`LongKeys::Refuse`].
    #[cfg(feature = "long-keys")]
    pub fn long_keys(mut self, long_keys: LongKeys) -> Self {
        self.settings.long_keys = long_keys;
        self
    }

    /// Allows keys of up to 186 arbitrary bytes. Off by default.
    ///
    /// Such binary keys go over the wire in base64, in meta commands, which need memcached 1.6.10. Their bytes, not the
    /// base64, place them on a node. Keys that are valid text are sent as before.
    ///
    /// Applies to every command with one key and to [`meta_get_many`](Client::meta_get_many). Other batches reject
    /// binary keys.
    pub fn binary_keys(mut self, allowed: bool) -> Self {
        self.settings.binary_keys = allowed;
        self
    }

    /// Sets the placement of keys: as another client places them, or [your own](Placement::custom).
    ///
    /// With the same placement, applications in other languages find the same items: see
    /// [`Placement`].
    ///
    /// A placement hashes each node's label: the label of its [`Endpoint`](Endpoint::with_label), the result of
    /// [`node_labels`](Self::node_labels), or else its identity, `host:port`. Except for your own placement, a label
    /// must be a `host`, which means port 11211, or a `host:port`. If one is not, or two are equal, all nodes use their
    /// identities, and a warning is logged.
    ///
    /// Some clients' placements depend on the order of the servers. The nodes are then in natural order of their labels
    /// (`cache-2` before `cache-10`): list them in this order in the other client.
    #[cfg(feature = "placements")]
    pub fn placement(mut self, placement: Placement) -> Self {
        self.rule.set_placement(placement);
        self
    }

    /// Sets the label to hash of each node whose [`Endpoint`] has no [label](Endpoint::with_label).
    ///
    /// The default is the text of the identity, `host:port`. Use it for applications that know the pods by other names.
    ///
    /// The function is called again whenever nodes are added or removed, but not when a node's address changes. Labels
    /// must be unique and not empty. Otherwise all nodes use their identities, and a warning is logged.
    ///
    /// ```
    /// # use memring::{Client, Endpoint};
    /// // The pod's name alone.
    /// let by_pod = |endpoint: &Endpoint| endpoint.id().host().split('.').next().unwrap_or_default().to_owned();
    /// // The pod's name and port.
    /// let by_pod_and_port = move |endpoint: &Endpoint| format!("{}:{}", by_pod(endpoint), endpoint.id().port());
    /// // The address, if discovery provides one, as SRV records may. A pod that restarts with another address is then
    /// // another node, and its items are lost.
    /// let by_address = |endpoint: &Endpoint| match endpoint.addresses().first() {
    ///     Some(address) => format!("{address}:{}", endpoint.id().port()),
    ///     None => endpoint.id().to_string(),
    /// };
    /// // Anything else that the applications agree on.
    /// let by_number = |endpoint: &Endpoint| {
    ///     let pod = endpoint.id().host().split('.').next().unwrap_or_default();
    ///     format!("shard-{}", pod.rsplit('-').next().unwrap_or(pod))
    /// };
    ///
    /// let pod: Endpoint = Endpoint::new("memcached-7.memcached.default.svc.cluster.local:11212".parse()?);
    /// assert_eq!(by_pod(&pod), "memcached-7");
    /// assert_eq!(by_pod_and_port(&pod), "memcached-7:11212");
    /// assert_eq!(by_address(&pod.clone().with_addresses([[10, 1, 2, 3].into()])), "10.1.2.3:11212");
    /// assert_eq!(by_number(&pod), "shard-7");
    /// let builder = Client::builder().nodes(["memcached-7.memcached"]).node_labels(by_pod_and_port);
    /// # let _ = builder;
    /// # Ok::<(), memring::InvalidNodeId>(())
    /// ```
    pub fn node_labels(mut self, label: impl Fn(&Endpoint) -> String + Send + Sync + 'static) -> Self {
        self.rule.set_labels(label);
        self
    }

    /// Sets the backoff between attempts to dial an unreachable node. The defaults are 50 ms and 5 s.
    ///
    /// The delay starts at `min`, doubles with each attempt up to `max`, and is shortened by a random jitter of up to
    /// half. It ends early if discovery lists the node again, or with another address.
    pub fn redial_backoff(mut self, min: Duration, max: Duration) -> Self {
        self.settings.backoff_min = min.min(LONGEST_WAIT);
        self.settings.backoff_max = max.min(LONGEST_WAIT);
        self
    }

    /// Sets when a node's requests fail at once because its server does not reply. See [`BreakerOptions`].
    pub fn circuit_breaker(mut self, options: BreakerOptions) -> Self {
        self.settings.breaker = options;
        self
    }

    /// Starts discovery and connects to the nodes.
    ///
    /// Waits for nodes as the [start-up mode](crate::Startup) requires, then at most one second for connections. An
    /// unreachable node is no error: the client dials it in the background.
    ///
    /// # Errors
    /// - [`ErrorKind::Config`] if an option is out of range, there is no source of nodes, the source reports an invalid
    ///   configuration, the function of [`node_labels`](Self::node_labels) or your own placement panics, or there is no
    ///   tokio runtime.
    /// - [`ErrorKind::NoNodes`] if no nodes were found in time.
    ///
    /// An error of discovery is the source of the error.
    ///
    /// # Cancel safety
    /// Dropping the future ends all tasks that it started.
    ///
    /// # Panics
    /// Panics on a tokio runtime without I/O and time enabled.
    pub async fn connect(self) -> Result<Client, Error> {
        let Self { start, discovery, rule, settings } = self;
        if Handle::try_current().is_err() {
            return Err(config("a client needs a tokio runtime to connect on"));
        }
        validate(&settings, &discovery)?;
        let start = start?.ok_or_else(|| config("no source of nodes is set: call service, nodes or discovery"))?;
        let startup = discovery.startup.clone();
        let (discovery, refresh) = start(discovery);

        let mut tasks = JoinSet::new();
        tasks.spawn(refresh);
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::empty()));
        let (publish, mut published) = watch::channel(snapshot.load().view());
        let worker = Worker {
            snapshot: Arc::clone(&snapshot),
            published: publish,
            roster: discovery.roster.clone(),
            locator: discovery.locator.clone(),
            rule,
            settings: settings.clone(),
            outage: Arc::default(),
        };
        tasks.spawn(worker.run());

        discovery.wait_for_nodes(&startup).await.map_err(no_nodes)?;
        if !discovery.roster.borrow().endpoints.is_empty() {
            // The worker ends before the other tasks only if a placement or label function panics.
            let known = published.wait_for(|view| view.is_known()).await.map(drop);
            known.map_err(|_| config("the placement or the node labels panicked"))?;
        }
        let operations = Operations::new(Dispatcher::new(snapshot), ValueLimit::new(&settings));
        let keys = KeySpace::new(
            settings.binary_keys,
            #[cfg(feature = "long-keys")]
            settings.long_keys,
        );
        let timeout = settings.request_timeout;
        let inner =
            Inner { operations, published, discovery, flights: Flights::default(), settings, tasks: Mutex::new(tasks) };
        Ok(Client { inner: Arc::new(inner), timeout, keys })
    }
}

fn validate(settings: &Settings, discovery: &DiscoveryOptions) -> Result<(), Error> {
    let rules = [
        (!settings.request_timeout.is_zero(), "the request timeout is zero"),
        (!settings.connect_timeout.is_zero(), "the connect timeout is zero"),
        (!discovery.lookup_timeout.is_zero(), "the lookup timeout is zero"),
        ((1..=16).contains(&settings.connections), "the connections per node are not from 1 to 16"),
        (settings.queue.calls > 0 && settings.queue.bytes > 0, "a queue limit is zero"),
        (settings.max_value <= LARGEST_ITEM, "the largest value is over 1 GiB, memcached's maximum"),
        (!settings.backoff_min.is_zero(), "the minimum of the redial backoff is zero"),
        (settings.backoff_min <= settings.backoff_max, "the minimum of the redial backoff is over its maximum"),
    ];
    if let Some(problem) = settings.credentials.as_ref().and_then(Credentials::problem) {
        return Err(config(problem));
    }
    match rules.into_iter().find(|(holds, _)| !holds) {
        Some((_, broken)) => Err(config(broken)),
        None => Ok(()),
    }
}

/// Maps an error of discovery: an invalid configuration, which a retry does not fix, or no nodes.
fn no_nodes(error: DiscoveryError) -> Error {
    let kind = if matches!(error, DiscoveryError::Config(_)) { ErrorKind::Config } else { ErrorKind::NoNodes };
    Error::not_sent(kind).with_source(error)
}

fn config(message: impl Into<Box<str>>) -> Error {
    Error::not_sent(ErrorKind::Config).with_message(message)
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("discovery", &self.discovery)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
