//! The client: what every command shares, and the one way down. The commands themselves are in the modules below.

mod asking;
mod binary;
mod builder;
mod commands;
mod fetch;
mod fleet;
mod inspect;
mod lookup;
pub mod meta;
mod multi;
mod recipes;
mod store;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use self::builder::ClientBuilder;
pub use self::fetch::{FetchError, FetchOptions, Fetched, Origin, Stale, WaitOver};
pub use self::inspect::Metadump;
pub use self::multi::{GetMany, KeysFailed, WriteMany};
pub use self::recipes::Counter;

use self::asking::Asking;
use self::fetch::Flights;
use crate::config::{LONGEST_WAIT, Settings};
use crate::connection::{Call, Ticket};
use crate::discovery::{DiscoveryStatus, StatusReader};
use crate::error::Error;
use crate::key::{InvalidKey, Key, MetaKey, nested_prefix};
use crate::node::Node;
use crate::node_id::NodeId;
use crate::protocol::Request;
use crate::topology::{Snapshot, Topology, TopologyView, TopologyWatch};

/// A memcached client over all the nodes of a service.
///
/// Made by [`Client::builder`]. Cheap to clone, and meant to be shared: all clones use the same connections, and
/// many callers share few of them. When the last clone is dropped, every task ends and every connection closes.
///
/// # Cancel safety
/// Nothing is sent until a method's future is first polled, and dropping a future is always safe for the client, its
/// connections and every other caller. A command dropped while it waits in the queue is never sent; one that a connection
/// has taken may or may not be applied, and its reply is read and dropped.
///
/// # Errors
/// Every method but [`metadump`](Self::metadump) keeps one deadline, the [request timeout](ClientBuilder::request_timeout), over waiting for room in the
/// queue, writing and waiting for the answer. (What is built of several commands, [`update`](Self::update) and the like, keeps
/// it for each; [`fetch`](Self::fetch) has limits of its own.) What can go wrong is listed at [`ErrorKind`](crate::ErrorKind). Invalid keys and times to
/// live, and values over the limit, are refused before anything is sent.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    timeout: Duration,
    /// Put in front of every key.
    prefix: Option<Arc<[u8]>>,
}

struct Inner {
    snapshot: Arc<ArcSwap<Snapshot>>,
    published: watch::Receiver<Arc<TopologyView>>,
    discovery: StatusReader,
    /// Values being computed.
    flights: Flights,
    settings: Settings,
    /// Discovery and the topology's worker; aborted when dropped.
    tasks: Mutex<JoinSet<()>>,
}

impl Client {
    /// Begins to build a client.
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

    /// The same client with another deadline for its commands. The time after which a silent server is given up stays
    /// what the client was [built with](ClientBuilder::request_timeout).
    #[must_use]
    pub fn with_request_timeout(&self, timeout: Duration) -> Self {
        Self { timeout: timeout.min(LONGEST_WAIT), ..self.clone() }
    }

    /// The same client with a prefix in front of every key: for applications, tenants or formats that share nodes.
    ///
    /// A view, as cheap as a clone. On the wire, at the server and on the ring a key is the prefix followed by the caller's
    /// bytes, with nothing in between: say `"orders:"` for a separator. The whole is limited to 250 bytes, and
    /// the whole is what places it on a node. Answers carry the caller's own keys. A namespace of a namespace appends its
    /// prefix. Commands for whole nodes, such as [`flush_all`](Self::flush_all), know no namespaces: they act
    /// on everybody's items.
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
    /// There is no emptying a namespace at a stroke. Prefixes with a version in them would have to be looked up before
    /// every get, which doubles its cost, or be remembered for a while, in which it answers what was thrown away.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`](crate::ErrorKind::InvalidKey) if the prefix is empty, holds what no key may, or is longer than 200 bytes, those it is
    /// nested in included.
    pub fn namespace(&self, prefix: impl AsRef<[u8]>) -> Result<Self, Error> {
        let outer = self.prefix.as_deref().unwrap_or_default();
        let prefix = nested_prefix(outer, prefix.as_ref())
            .map_err(|reason| Error::from(reason).saying("the prefix of a namespace"))?;
        Ok(Self { prefix: Some(prefix.into()), ..self.clone() })
    }

    /// The nodes as the client knows them now.
    #[must_use]
    pub fn topology(&self) -> Topology {
        self.inner.snapshot.load().topology()
    }

    /// The node that owns a key now.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`](crate::ErrorKind::InvalidKey); [`ErrorKind::NoNodes`](crate::ErrorKind::NoNodes); [`ErrorKind::Closed`](crate::ErrorKind::Closed) after [`shutdown`](Self::shutdown).
    pub fn node_for(&self, key: impl AsRef<[u8]>) -> Result<NodeId, Error> {
        let key = self.any_key(key)?;
        self.inner.snapshot.load().route(key.as_bytes()).map(|node| node.id().clone())
    }

    /// Follows the nodes as they come, go and move, from now on.
    #[must_use]
    pub fn watch_topology(&self) -> TopologyWatch {
        TopologyWatch::new(self.inner.published.clone())
    }

    /// How discovery fares.
    #[must_use]
    pub fn discovery_status(&self) -> DiscoveryStatus {
        self.inner.discovery.status()
    }

    /// Ends discovery, answers what is queued and under way, and closes every connection, within at most a second or
    /// twice the request timeout, whichever is longer. Commands given later, by any clone, fail with
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    ///
    /// # Cancel safety
    /// May be dropped, and called again to finish what it began.
    pub async fn shutdown(&self) {
        let mut tasks = std::mem::take(&mut *self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        // Waited for, so that no snapshot comes after the last.
        tasks.shutdown().await;
        let last = self.inner.snapshot.swap(Arc::new(Snapshot::closed()));
        let limit = self.inner.settings.patience();
        join_all(last.nodes().iter().map(|node| node.retire(limit))).await;
    }

    /// When a command begun now must have ended.
    #[inline]
    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// The same client with what is left until a deadline, for a command's further steps.
    fn until(&self, deadline: Instant) -> Self {
        self.with_request_timeout(deadline.saturating_duration_since(Instant::now()))
    }

    /// The only place where a caller's bytes become a key.
    fn key(&self, key: impl AsRef<[u8]>) -> Result<Key, Error> {
        Ok(self.text_key(key.as_ref())?)
    }

    /// As [`key`](Self::key), or bytes that only a meta command can carry, where the user opted in to that.
    fn any_key(&self, key: impl AsRef<[u8]>) -> Result<MetaKey, Error> {
        let key = key.as_ref();
        match self.text_key(key) {
            Ok(key) => Ok(MetaKey::Text(key)),
            Err(InvalidKey::Byte { .. }) if self.inner.settings.binary_keys => match &self.prefix {
                None => Ok(MetaKey::binary(key)?),
                Some(prefix) => Ok(MetaKey::binary(&[prefix, key].concat())?),
            },
            Err(invalid) => Err(invalid.into()),
        }
    }

    fn text_key(&self, key: &[u8]) -> Result<Key, InvalidKey> {
        let mut made = Key::blank();
        self.put_key(key, &mut made)?;
        Ok(made)
    }

    /// As [`text_key`](Self::text_key), put where it will stay.
    #[inline]
    fn put_key(&self, key: &[u8], place: &mut Key) -> Result<(), InvalidKey> {
        let made = place.become_key(self.prefix.as_deref().unwrap_or_default(), key);
        #[cfg(feature = "long-keys")]
        if let Err(too_long @ InvalidKey::TooLong { .. }) = made {
            *place = self.inner.settings.long_keys.shorten(self.prefix.as_deref(), key, too_long)?;
            return Ok(());
        }
        made
    }

    /// Becomes a call at once: the future holds that, and not the request beside it.
    fn reply_to(&self, request: Request) -> Asking<'_> {
        Asking::new(self, Call::filled(request, self.deadline()))
    }

    /// Puts a call in the queue of the node that owns its key: the only way down for a command with one key.
    async fn enter(&self, call: Arc<Call>) -> Result<Ticket, Error> {
        match self.enter_at_once(call) {
            Ok(ticket) => Ok(ticket),
            // Boxed, so that what is rare does not make every command's future larger.
            Err(call) => Box::pin(self.enter_patiently(&call)).await,
        }
    }

    #[inline]
    fn enter_at_once(&self, call: Arc<Call>) -> Result<Ticket, Arc<Call>> {
        let snapshot = self.inner.snapshot.load();
        match snapshot.route(call.request().routed_by().unwrap_or_default()) {
            Ok(node) => node.call_at_once(call),
            Err(_) => Err(call),
        }
    }

    async fn enter_patiently(&self, call: &Arc<Call>) -> Result<Ticket, Error> {
        loop {
            let node = {
                let snapshot = self.inner.snapshot.load();
                Arc::clone(snapshot.route(call.request().routed_by().unwrap_or_default())?)
            };
            match node.call(call).await {
                Ok(ticket) => return Ok(ticket),
                // The node left between the look at the snapshot and the call. Nothing was sent; the next snapshot
                // does not have it.
                Err(_) if node.has_left() && self.is_superseded(&node) => {}
                Err(error) => {
                    // A failure that needs no waiting must not let a caller who tries again and again keep its thread.
                    tokio::task::coop::consume_budget().await;
                    return Err(error);
                }
            }
        }
    }

    fn is_superseded(&self, node: &Arc<Node>) -> bool {
        !self.inner.snapshot.load().nodes().iter().any(|known| Arc::ptr_eq(known, node))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = self.inner.snapshot.load();
        let nodes: Vec<_> = snapshot.nodes().iter().map(|node| node.id()).collect();
        f.debug_struct("Client").field("nodes", &nodes).finish_non_exhaustive()
    }
}
