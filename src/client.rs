//! The client: its construction, views of it, and what it knows of its nodes. The commands are in the modules below.

mod batches;
mod broadcast;
mod builder;
mod commands;
mod fetch;
mod inspect;
mod meta_commands;
mod read_modify_write;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use self::batches::{GetMany, KeysFailed, WriteMany};
pub use self::builder::ClientBuilder;
pub use self::fetch::{Computed, FetchError, FetchOptions, Fetched, OnWaitTimeout, Origin, Stale};
pub use self::inspect::Metadump;
pub use self::read_modify_write::Counter;

use self::fetch::Flights;
use crate::config::{LONGEST_WAIT, Settings};
use crate::discovery::{DiscoveryHandle, DiscoveryStatus};
use crate::error::Error;
use crate::key::{KeySpace, MetaKey};
use crate::node_id::NodeId;
use crate::operations::Operations;
use crate::timer::timeout;
use crate::topology::{Topology, TopologyView, TopologyWatch};

/// A memcached client for all nodes of a service.
///
/// Made by [`Client::builder`]. Cheap to clone: all clones share the same few connections. When the last clone is
/// dropped, every task ends and every connection closes.
///
/// # Cancel safety
/// Nothing is sent until a method's future is first polled. Dropping a future is always safe for the client, its
/// connections and other callers. A command whose future is dropped while it is queued is never sent. One that a
/// connection has taken may or may not be applied, and its reply is read and dropped.
///
/// # Errors
/// [`ErrorKind`](crate::ErrorKind) lists what can go wrong. Invalid keys and TTLs, and values over the limit, are
/// refused before anything is sent.
///
/// A method has one deadline, the [request timeout](ClientBuilder::request_timeout), for waiting for space in the
/// queue, writing, and waiting for the reply. Three differ: [`metadump`](Self::metadump) has no deadline, methods made
/// of several commands, such as [`update`](Self::update), have one for each command, and [`fetch`](Self::fetch) has
/// limits of its own.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    timeout: Duration,
    keys: KeySpace,
}

struct Inner {
    operations: Operations,
    published: watch::Receiver<Arc<TopologyView>>,
    discovery: DiscoveryHandle,
    /// Values that callers of [`Client::fetch`] are computing.
    flights: Flights,
    settings: Settings,
    /// The tasks of discovery and topology. Aborted when dropped.
    tasks: Mutex<JoinSet<()>>,
}

impl Client {
    /// Returns a builder of clients.
    ///
    /// ```no_run
    /// # async fn doc() -> Result<(), memring::Error> {
    /// use std::time::Duration;
    /// use memring::Client;
    ///
    /// let cache = Client::builder()
    ///     .service("memcached.default.svc.cluster.local")
    ///     .request_timeout(Duration::from_millis(250))
    ///     .connect()
    ///     .await?;
    /// cache.set("user:42", "Ada", Duration::from_secs(300)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Returns the same client with another request timeout.
    ///
    /// The time after which a connection to a silent server is given up does not change: it follows the timeout that
    /// the client was [built with](ClientBuilder::request_timeout).
    #[must_use]
    pub fn with_request_timeout(&self, timeout: Duration) -> Self {
        Self { timeout: timeout.min(LONGEST_WAIT), ..self.clone() }
    }

    /// Returns the same client with a prefix in front of every key, for applications, tenants or formats that share
    /// nodes.
    ///
    /// The result is a view, as cheap as a clone. A key is the prefix followed by the caller's bytes, with nothing in
    /// between: use `"orders:"` for a separator. The whole key is limited to 250 bytes and decides which node owns it.
    /// Results carry the caller's own keys. A namespace of a namespace appends its prefix. Commands on whole nodes,
    /// such as [`flush_all`](Self::flush_all), ignore namespaces and act on all items.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), memring::Error> {
    /// let cache = memring::Client::builder().nodes(["127.0.0.1:1", "127.0.0.1:2"]).connect().await?;
    /// let orders = cache.namespace("shop:")?.namespace("orders:")?;
    /// assert_eq!(orders.node_for("42")?, cache.node_for("shop:orders:42")?);
    /// assert!(cache.namespace("two words").is_err());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// A namespace cannot be emptied at once. That would need a version in the prefix, which clients would have to read
    /// before every get, at twice its cost, or cache for a while, in which they would return deleted items.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`](crate::ErrorKind::InvalidKey) if the prefix is empty, has a byte that no key may have,
    /// or is longer than 200 bytes together with the prefixes it is nested in.
    pub fn namespace(&self, prefix: impl AsRef<[u8]>) -> Result<Self, Error> {
        let keys = self.keys.nested(prefix.as_ref());
        let keys = keys.map_err(|reason| Error::from(reason).with_message("the prefix of a namespace"))?;
        Ok(Self { keys, ..self.clone() })
    }

    /// Returns the nodes, their addresses and their states.
    #[must_use]
    pub fn topology(&self) -> Topology {
        self.inner.operations.dispatcher().snapshot().topology()
    }

    /// Returns the node that owns a key now.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`](crate::ErrorKind::InvalidKey), [`ErrorKind::NoNodes`](crate::ErrorKind::NoNodes), and
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) after [`shutdown`](Self::shutdown).
    pub fn node_for(&self, key: impl AsRef<[u8]>) -> Result<NodeId, Error> {
        let key = self.any_key(key)?;
        let snapshot = self.inner.operations.dispatcher().snapshot();
        snapshot.route(key.as_bytes()).map(|node| node.id().clone())
    }

    /// Returns a stream of topology changes from now on.
    #[must_use]
    pub fn watch_topology(&self) -> TopologyWatch {
        TopologyWatch::new(self.inner.published.clone())
    }

    /// Returns the state of discovery.
    #[must_use]
    pub fn discovery_status(&self) -> DiscoveryStatus {
        self.inner.discovery.status()
    }

    /// Polls the source of nodes now, and returns the state of discovery after that.
    ///
    /// For applications that learn of a change before the next poll, such as an operator or a webhook. When it returns,
    /// the nodes that the poll found are in use. The poll comes at once, but at least a second (or the shortest
    /// [poll interval](crate::DiscoveryOptions::poll_interval) if that is less) after the last one. All calls until
    /// then share one poll. It polls fixed lists and sources that fail, too. If the poll fails, the nodes known before
    /// stay in use, and [`state`](DiscoveryStatus::state) and [`last_error`](DiscoveryStatus::last_error) tell.
    ///
    /// It takes at most a second, two [lookup timeouts](crate::DiscoveryOptions::lookup_timeout) and another second for
    /// new nodes. After [`shutdown`](Self::shutdown) it returns the last state at once.
    ///
    /// A source that learns of changes by itself reports them: see [`Discovery::changed`](crate::Discovery::changed).
    ///
    /// ```
    /// use memring::DiscoveryState;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), memring::Error> {
    /// let cache = memring::Client::builder().nodes(["127.0.0.1:1"]).connect().await?;
    /// let status = cache.rediscover().await;
    /// assert_eq!((status.state, status.polls), (DiscoveryState::Static, 2));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// Cancel safe. The poll is made nevertheless.
    pub async fn rediscover(&self) -> DiscoveryStatus {
        let roster = self.inner.discovery.poll_now().await;
        // Fails if the client is shut down meanwhile.
        let _ = self.inner.published.clone().wait_for(|view| view.reflects(&roster)).await;
        self.discovery_status()
    }

    /// Ends discovery, waits for the responses to pending commands, and closes every connection.
    ///
    /// It waits for at most a second or twice the request timeout, whichever is longer. Later commands of any clone
    /// fail with [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    ///
    /// # Cancel safety
    /// May be dropped, and called again to finish what it started.
    pub async fn shutdown(&self) {
        let mut tasks = std::mem::take(&mut *self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        // Waits for the tasks to end, so that they publish no snapshot after the last one. They do not end while their
        // runtime is not driven.
        let limit = self.inner.settings.silence_timeout();
        let _ = timeout(limit, tasks.shutdown()).await;
        let last = self.inner.operations.dispatcher().close();
        join_all(last.nodes().iter().map(|node| node.retire(limit))).await;
    }

    /// Returns the deadline of a command that starts now.
    #[inline]
    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    #[inline]
    fn operations(&self) -> &Operations {
        &self.inner.operations
    }

    fn any_key(&self, key: impl AsRef<[u8]>) -> Result<MetaKey, Error> {
        Ok(self.keys.any_key(key.as_ref())?)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = self.inner.operations.dispatcher().snapshot();
        let nodes: Vec<_> = snapshot.nodes().iter().map(|node| node.id()).collect();
        f.debug_struct("Client").field("nodes", &nodes).finish_non_exhaustive()
    }
}
