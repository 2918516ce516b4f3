//! The client: one short method per command, and one way down.

mod builder;
mod multi;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

pub use self::builder::ClientBuilder;
pub use self::multi::{GetMany, KeysFailed};

use crate::config::{LONGEST_WAIT, Settings};
use crate::connection::{Answer, Call};
use crate::discovery::{DiscoveryStatus, Monitor};
use crate::error::{Delivery, Error, ErrorKind};
use crate::item::{Item, SetOptions};
use crate::key::Key;
use crate::node::Node;
use crate::node_id::NodeId;
use crate::protocol::{ArithmeticVerb, Keys, Reply, Request, StoreVerb};
use crate::topology::{Map, Snapshot, Topology, TopologyWatch};
use crate::ttl::{InvalidTtl, Ttl};

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
/// Every method keeps one deadline, the [request timeout](ClientBuilder::request_timeout), over waiting for room in the
/// queue, writing and waiting for the answer. What can go wrong is listed at [`ErrorKind`]. Invalid keys and times to
/// live, and values over the limit, are refused before anything is sent.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    timeout: Duration,
}

struct Inner {
    snapshot: Arc<ArcSwap<Snapshot>>,
    published: watch::Receiver<Arc<Map>>,
    discovery: Monitor,
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
        Self { inner: Arc::clone(&self.inner), timeout: timeout.min(LONGEST_WAIT) }
    }

    /// Reads an item: `None` if it is not there.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Item>, Error> {
        self.get_one(Key::new(key)?, false).await
    }

    /// Reads an item with its version ([`Item::cas`]).
    pub async fn gets(&self, key: impl AsRef<[u8]>) -> Result<Option<Item>, Error> {
        self.get_one(Key::new(key)?, true).await
    }

    /// Stores an item, whether or not it is there already.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] with [`Delivery::NotSent`] if the value is over the
    /// [client's limit](ClientBuilder::max_value_size): the old value stays. With [`Delivery::Answered`] if it is over
    /// the server's: the server has then deleted the old value.
    pub async fn set(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: impl Into<SetOptions>,
    ) -> Result<(), Error> {
        match self.store(StoreVerb::Set, Key::new(key)?, value.into(), options.into()).await? {
            true => Ok(()),
            // No memcached says so to a set, but a proxy may.
            false => Err(Error::new(ErrorKind::Server, Delivery::Answered).saying("NOT_STORED")),
        }
    }

    /// Stores an item unless it is there already; says whether it did.
    pub async fn add(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: impl Into<SetOptions>,
    ) -> Result<bool, Error> {
        self.store(StoreVerb::Add, Key::new(key)?, value.into(), options.into()).await
    }

    /// Stores an item only if it is there already; says whether it did.
    pub async fn replace(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: impl Into<SetOptions>,
    ) -> Result<bool, Error> {
        self.store(StoreVerb::Replace, Key::new(key)?, value.into(), options.into()).await
    }

    /// Deletes an item; says whether it was there.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        let key = Key::new(key)?;
        match self.reply_to(Request::Delete { key }).await? {
            Reply::Deleted => Ok(true),
            _ => Ok(false),
        }
    }

    /// Gives an item a new time to live; says whether it was there. Needs memcached 1.4.8.
    pub async fn touch<T>(&self, key: impl AsRef<[u8]>, ttl: T) -> Result<bool, Error>
    where
        T: TryInto<Ttl>,
        InvalidTtl: From<T::Error>,
    {
        let key = Key::new(key)?;
        let exptime = ttl.try_into().map_err(InvalidTtl::from)?.exptime(SystemTime::now)?;
        match self.reply_to(Request::Touch { key, exptime }).await? {
            Reply::Touched => Ok(true),
            _ => Ok(false),
        }
    }

    /// Adds to a number stored as decimal text, wrapping at 2^64; answers the new number, or `None` if the item is not
    /// there.
    ///
    /// # Errors
    /// [`ErrorKind::Server`] if the item is not a number.
    pub async fn incr(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>, Error> {
        self.arithmetic(ArithmeticVerb::Incr, Key::new(key)?, delta).await
    }

    /// Subtracts from a number stored as decimal text, stopping at 0; answers the new number, or `None` if the item is
    /// not there. The server may keep the item's length, and pad a number that lost digits with spaces: a later
    /// [`get`](Self::get) brings them.
    ///
    /// # Errors
    /// [`ErrorKind::Server`] if the item is not a number.
    pub async fn decr(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>, Error> {
        self.arithmetic(ArithmeticVerb::Decr, Key::new(key)?, delta).await
    }

    /// Asks every node for its version; each answers for itself, by the one deadline. Empty while no nodes are known, and
    /// after [`shutdown`](Self::shutdown).
    pub async fn versions(&self) -> Vec<(NodeId, Result<String, Error>)> {
        let answers = self.on_every_node(|| Request::Version).await.into_iter();
        answers
            .map(|(id, reply)| {
                let version = reply.map(|reply| match reply {
                    Reply::Version(version) => version.into_string(),
                    _ => String::new(),
                });
                (id, version)
            })
            .collect()
    }

    /// Deletes every item on every node; each answers for itself, by the one deadline. Empty while no nodes are known, and
    /// after [`shutdown`](Self::shutdown): nothing is deleted then.
    pub async fn flush_all(&self) -> Vec<(NodeId, Result<(), Error>)> {
        let answers = self.on_every_node(|| Request::FlushAll).await.into_iter();
        answers.map(|(id, reply)| (id, reply.map(|_| ()))).collect()
    }

    /// The nodes as the client knows them now.
    #[must_use]
    pub fn topology(&self) -> Topology {
        self.inner.snapshot.load().view()
    }

    /// The node that owns a key now.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`]; [`ErrorKind::NoNodes`]; [`ErrorKind::Closed`] after [`shutdown`](Self::shutdown).
    pub fn node_for(&self, key: impl AsRef<[u8]>) -> Result<NodeId, Error> {
        let key = Key::new(key)?;
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
    /// [`ErrorKind::Closed`].
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
    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    async fn get_one(&self, key: Key, cas: bool) -> Result<Option<Item>, Error> {
        match self.dispatch(Request::Get { keys: Keys::One(key), cas }).await? {
            Answer::One(lookup) => lookup,
            _ => Err(misfit()),
        }
    }

    async fn store(&self, verb: StoreVerb, key: Key, value: Bytes, options: SetOptions) -> Result<bool, Error> {
        let (flags, exptime) = (options.wire_flags(), options.exptime()?);
        let limit = self.inner.settings.max_value;
        if value.len() > limit {
            let text = format!("{} bytes, {limit} are allowed", value.len());
            return Err(Error::not_sent(ErrorKind::TooLarge).saying(text));
        }
        match self.reply_to(Request::Store { verb, key, flags, exptime, value }).await? {
            Reply::Stored => Ok(true),
            _ => Ok(false),
        }
    }

    async fn arithmetic(&self, verb: ArithmeticVerb, key: Key, delta: u64) -> Result<Option<u64>, Error> {
        match self.reply_to(Request::Arithmetic { verb, key, delta }).await? {
            Reply::Number(number) => Ok(Some(number)),
            _ => Ok(None),
        }
    }

    async fn reply_to(&self, request: Request) -> Result<Reply, Error> {
        match self.dispatch(request).await? {
            Answer::Reply(reply) => reply,
            _ => Err(misfit()),
        }
    }

    /// The only way down for a command with one key.
    async fn dispatch(&self, request: Request) -> Result<Answer, Error> {
        let call = Arc::new(Call::new(request, self.deadline()));
        let ticket = loop {
            let node = {
                let snapshot = self.inner.snapshot.load();
                let key = call.request().key().map_or(&[][..], Key::as_bytes);
                Arc::clone(snapshot.route(key)?)
            };
            match node.call(&call).await {
                Ok(ticket) => break ticket,
                // The node left between the look at the snapshot and the call. Nothing was sent; the next snapshot
                // does not have it.
                Err(_) if node.has_left() && self.is_superseded(&node) => {}
                Err(error) => {
                    // A failure that needs no waiting must not let a caller who tries again and again keep its thread.
                    tokio::task::coop::consume_budget().await;
                    return Err(error);
                }
            }
        };
        Ok(ticket.await)
    }

    fn is_superseded(&self, node: &Arc<Node>) -> bool {
        !self.inner.snapshot.load().nodes().iter().any(|known| Arc::ptr_eq(known, node))
    }

    async fn on_every_node(&self, request: impl Fn() -> Request) -> Vec<(NodeId, Result<Reply, Error>)> {
        let deadline = self.deadline();
        let snapshot = self.inner.snapshot.load_full();
        let calls = snapshot.nodes().iter().map(|node| {
            let call = Arc::new(Call::new(request(), deadline));
            async move {
                let reply = match node.call(&call).await {
                    Ok(ticket) => match ticket.await {
                        Answer::Reply(reply) => reply,
                        _ => Err(misfit()),
                    },
                    Err(error) => Err(error),
                };
                (node.id().clone(), reply)
            }
        });
        join_all(calls).await
    }
}

/// An answer of another shape than its request: the pipeline makes none.
fn misfit() -> Error {
    Error::new(ErrorKind::Protocol, Delivery::Answered).saying("an answer of the wrong shape")
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = self.inner.snapshot.load();
        let nodes: Vec<_> = snapshot.nodes().iter().map(|node| node.id()).collect();
        f.debug_struct("Client").field("nodes", &nodes).finish_non_exhaustive()
    }
}
