//! Collects a client's options, checks them once, and starts its tasks.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::fetch::Flights;
use super::{Client, Inner};
use crate::config::{LONGEST_WAIT, Settings};
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
/// Starts discovery by a source whose type is known only here.
type Start = Box<dyn FnOnce(DiscoveryOptions) -> (DiscoveryHandle, Task) + Send>;

/// Builds a [`Client`]. A source of nodes must be named (`service`, [`nodes`](Self::nodes) or
/// [`discovery`](Self::discovery), the last one counts); everything else has a default.
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
    /// Finds the nodes by the SRV records of a headless service, and follows them. Takes the service's name, such as
    /// `memcached.default.svc.cluster.local`, or an [`SrvDiscovery`] with options of its own.
    #[cfg(feature = "dns")]
    pub fn service(self, service: impl Into<SrvDiscovery>) -> Self {
        self.discovery(service.into())
    }

    /// Uses a fixed list of nodes: `host`, `host:port`, `[v6]:port`. Host names are looked up at every dial. The order
    /// makes no difference.
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

    /// Uses a source of your own.
    pub fn discovery(mut self, source: impl Discovery) -> Self {
        self.start = Ok(Some(Box::new(|options| {
            let (handle, task) = start_refresh(Arc::new(source), options);
            (handle, Box::pin(task))
        })));
        self
    }

    /// How the source is asked and its answers are taken: pace, removal grace, start-up.
    pub fn discovery_options(mut self, options: DiscoveryOptions) -> Self {
        self.discovery = options;
        self
    }

    /// The deadline of each command, over waiting for room in the queue, writing and waiting for the answer; 250 ms
    /// unless set. A server that owes replies and says nothing for twice as long (at least 1 s) is given up and
    /// redialled.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.settings.request_timeout = timeout.min(LONGEST_WAIT);
        self
    }

    /// What to show a server that asks for a user and a password: one started with an authentication file (`-Y`,
    /// memcached 1.5.15 or later). Shown on every new connection, alone and before anything else; they cross the network
    /// as they are, unencrypted.
    ///
    /// The user is not empty and holds no space; neither holds a line break; together they are 1,024 bytes long at most:
    /// anything else is refused by [`connect`](Self::connect) with [`ErrorKind::Config`]. (Up to 1.6.18 at least, servers
    /// take no password that is empty or holds a space.)
    ///
    /// While the server refuses them, commands for it fail at once with [`ErrorKind::Auth`], and it is dialled again
    /// after the [backoff](Self::redial_backoff), for its file may change. A server that asks for no credentials is not
    /// disturbed by them, except that it loses an item of the key `memring:auth`.
    pub fn credentials(mut self, user: impl AsRef<str>, password: impl AsRef<str>) -> Self {
        self.settings.credentials = Some(Credentials::new(user.as_ref(), password.as_ref()));
        self
    }

    /// How long each address of a node is given to accept a connection, and the server to accept the
    /// [credentials](Self::credentials); 500 ms unless set.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// How many connections are kept to each node, from 1 to 16; 1 unless set, which is fastest on a short link, for what
    /// waits together goes out together. More help when values are large or the link is long.
    pub fn connections_per_node(mut self, connections: usize) -> Self {
        self.settings.connections = connections;
        self
    }

    /// How much may wait at each node before callers wait for room: requests (4,096 unless set; a `get_many` counts once
    /// for every 100 keys, a `set_many` for every key, and either for 256 at a time at the most) and bytes (8 MiB unless
    /// set).
    pub fn queue_limits(mut self, requests: usize, bytes: usize) -> Self {
        self.settings.queue.calls = requests;
        self.settings.queue.bytes = bytes;
        self
    }

    /// The largest value sent or accepted, in bytes, up to 1 GiB; 1 MiB unless set, as is memcached's (`-I`). A larger
    /// stored value is not given, but `TooLarge`.
    pub fn max_value_size(mut self, bytes: usize) -> Self {
        self.settings.max_value = bytes;
        self
    }

    /// Whether a `set` of a value over [`max_value_size`](Self::max_value_size) deletes the old value, as it is gone when
    /// the server itself refuses a set for its size; not unless set. For caches in which an old value is worse than none.
    ///
    /// The set, alone or in a `set_many`, sends a `delete` and fails with [`ErrorKind::TooLarge`] all the same; its
    /// [`delivery`](Error::delivery) is then the delete's: [`Answered`](crate::Delivery::Answered) and without a
    /// [`source`](std::error::Error::source) if the old value is gone. If the delete failed, its error is the source, and
    /// the old value may still be there. `add` and `replace` that are refused delete nothing: whether they would have
    /// stored anything is not known.
    pub fn delete_when_too_large(mut self, delete: bool) -> Self {
        self.settings.delete_when_too_large = delete;
        self
    }

    /// What becomes of keys over 250 bytes, a namespace's prefix included; they are refused unless set.
    #[cfg(feature = "long-keys")]
    pub fn long_keys(mut self, long_keys: LongKeys) -> Self {
        self.settings.long_keys = long_keys;
        self
    }

    /// Takes keys of any bytes, up to 186 of them, where they are not the text that keys otherwise must be: they go over the
    /// wire in base64, by meta commands, which need memcached 1.6.10. Off unless set.
    ///
    /// For every command with one key, and [`meta_get_many`](Client::meta_get_many); the other batches refuse such keys
    /// as ever. Keys that are text stay what they are. Placement goes by the bytes, not by their base64.
    pub fn binary_keys(mut self, allowed: bool) -> Self {
        self.settings.binary_keys = allowed;
        self
    }

    /// Places keys as another client does, so that applications in other languages find them, or as
    /// [you say](Placement::custom): see [`Placement`](Placement).
    ///
    /// What is hashed of a node is its label: its identity's text, `host:port`, unless its
    /// [`Endpoint`](Endpoint::with_label) has one of its own or [`node_labels`](Self::node_labels) gives one. That must then
    /// be a `host`, which means port 11211, or a `host:port`, except for a placement of your own: if one is not, or two are
    /// the same, all nodes go by their identities, and a warning is logged. Where a client's placement depends on the order in which servers are listed, they are taken in natural
    /// order of their labels (`cache-2` before `cache-10`): list them so there.
    #[cfg(feature = "placements")]
    pub fn placement(mut self, placement: Placement) -> Self {
        self.rule.set_placement(placement);
        self
    }

    /// What the ring hashes of each node whose [`Endpoint`] has no [label](Endpoint::with_label) of its own; its
    /// identity's text, `host:port`, unless set. For applications that know the pods by other names.
    ///
    /// Asked anew whenever nodes come or go, and not when one merely moves to another address. Two nodes must not have the
    /// same label, or an empty one: then all go by their identities, and a warning is logged.
    ///
    /// ```
    /// # use memring::{Client, Endpoint};
    /// // The pod's name alone.
    /// let by_pod = |endpoint: &Endpoint| endpoint.id().host().split('.').next().unwrap_or_default().to_owned();
    /// // The pod's name and port.
    /// let by_pod_and_port = move |endpoint: &Endpoint| format!("{}:{}", by_pod(endpoint), endpoint.id().port());
    /// // The address, if the source of nodes tells one: SRV records may. A pod that comes back elsewhere is then another
    /// // node, and what was its part of the keys is lost.
    /// let by_address = |endpoint: &Endpoint| match endpoint.addresses().first() {
    ///     Some(address) => format!("{address}:{}", endpoint.id().port()),
    ///     None => endpoint.id().to_string(),
    /// };
    /// // Or whatever else applications agree on.
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

    /// The delay before a node that could not be reached is dialled again: `min` (50 ms unless set), doubled each time
    /// up to `max` (5 s), and shortened at random by up to half. An answer of discovery that lists the node again, or elsewhere, ends it early.
    pub fn redial_backoff(mut self, min: Duration, max: Duration) -> Self {
        self.settings.backoff_min = min.min(LONGEST_WAIT);
        self.settings.backoff_max = max.min(LONGEST_WAIT);
        self
    }

    /// Starts discovery, waits for nodes as the [start-up mode](crate::Startup) says, and for at most a second for
    /// connections to them. A node that cannot be reached is no failure: it is dialled in the background.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if an option is out of range, no source was named, the source says that it is configured
    /// wrongly, or what names or places the nodes ([`node_labels`](Self::node_labels), a placement of your own) panics; [`ErrorKind::NoNodes`] if no nodes were found in time. Discovery's own error is the source of either.
    ///
    /// # Cancel safety
    /// Dropping the future ends whatever it started.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled.
    pub async fn connect(self) -> Result<Client, Error> {
        let Self { start, discovery, rule, settings } = self;
        validate(&settings, &discovery)?;
        let start = start?.ok_or_else(|| config("no source of nodes: call service, nodes or discovery"))?;
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
        };
        tasks.spawn(worker.run());

        discovery.wait_for_nodes(&startup).await.map_err(no_nodes)?;
        if !discovery.roster.borrow().endpoints.is_empty() {
            // The worker lives in `tasks`, and ends before they do only if what it was given to call panics.
            let known = published.wait_for(|view| view.is_known()).await.map(drop);
            known.map_err(|_| config("the placement or the labels of the nodes panicked"))?;
        }
        let operations = Operations::new(Dispatcher::new(snapshot), ValueLimit::new(&settings));
        let keys = KeySpace::new(
            settings.binary_keys,
            #[cfg(feature = "long-keys")]
            settings.long_keys,
        );
        let timeout = settings.request_timeout;
        let inner = Inner {
            operations,
            published,
            discovery: discovery.status,
            flights: Flights::default(),
            settings,
            tasks: Mutex::new(tasks),
        };
        Ok(Client { inner: Arc::new(inner), timeout, keys })
    }
}

fn validate(settings: &Settings, discovery: &DiscoveryOptions) -> Result<(), Error> {
    let rules = [
        (!settings.request_timeout.is_zero(), "the request timeout is zero"),
        (!settings.connect_timeout.is_zero(), "the connect timeout is zero"),
        (!discovery.lookup_timeout.is_zero(), "the look-up timeout is zero"),
        ((1..=16).contains(&settings.connections), "connections per node are from 1 to 16"),
        (settings.queue.calls > 0 && settings.queue.bytes > 0, "the queue has no room"),
        (settings.max_value <= LARGEST_ITEM, "the largest value is over 1 GiB, more than any memcached takes"),
        (!settings.backoff_min.is_zero(), "the redial backoff is zero"),
        (settings.backoff_min <= settings.backoff_max, "the redial backoff's minimum is over its maximum"),
    ];
    if let Some(problem) = settings.credentials.as_ref().and_then(Credentials::problem) {
        return Err(config(problem));
    }
    match rules.into_iter().find(|(holds, _)| !holds) {
        Some((_, broken)) => Err(config(broken)),
        None => Ok(()),
    }
}

/// Why there is nothing to connect to: a mistake, which trying again will not mend, or nobody there.
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
