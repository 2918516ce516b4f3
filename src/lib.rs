//! An async memcached client for services on Kubernetes and OpenShift.
//!
//! Memcached runs there as a StatefulSet behind a headless service: pods with stable names and changing addresses, and
//! nothing in between to spread keys over them. Give memring the service's name, and it does: it follows the service's
//! SRV records, places keys on a consistent-hash ring whose members are pod *names*, and sends commands over a few
//! pipelined connections to each pod, while pods restart elsewhere, come, go, stop answering, and DNS blinks. An
//! application sees a value, a miss, or a typed error within its deadline: never another key's value, and never a hang.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! # async fn doc() -> Result<(), memring::Error> {
//! let cache = memring::Client::builder()
//!     .service("memcached.default.svc.cluster.local")
//!     .connect()
//!     .await?;
//!
//! cache.set("user:42", "Ada", Duration::from_secs(300)).await?;
//! if let Some(item) = cache.get("user:42").await? {
//!     println!("{} bytes, flags {}", item.value.len(), item.flags);
//! }
//! let found = cache.get_many(["user:1", "user:2", "user:3"]).await;
//! println!("{} hits, {} failures", found.hits.len(), found.errors.len());
//! # Ok(())
//! # }
//! ```
//!
//! # A tour
//! - [`Client`] has the commands; [`ClientBuilder`] its options. Clone the client freely: clones share everything.
//! - What a cache is there for: [`Client::fetch`] gives a value or computes it, by one caller at a time, however many ask;
//!   [`Client::invalidate`] has it computed anew. [`Client::update`] and [`Client::take`] change and take an item that others
//!   change too, [`Client::count_up`] and [`Client::count_down`] count.
//! - Many keys at once: [`Client::get_many`], [`Client::set_many`] and their like. A part that fails is told apart.
//! - What classic commands cannot say: the [meta commands](meta), with their versions, leases and times left.
//! - Keys: 1 to 250 bytes of text ([`Key`]). [`Client::namespace`] puts a prefix in front of all of them;
//!   [`ClientBuilder::binary_keys`] takes any bytes; the feature `long-keys` takes longer ones.
//! - What servers tell of themselves: [`Client::stats`], [`Client::metadump`].
//! - What goes over the wire, each reply and what it becomes: the [guide].
//! - Where the nodes come from: a service's name (feature `dns`), a [fixed list](ClientBuilder::nodes), or a
//!   [`Discovery`] of your own. [`DiscoveryOptions`] says how answers are taken: how often, what a vanished pod is given
//!   before its keys move, what an empty answer means.
//! - What the client knows: [`Client::topology`], [`Client::watch_topology`], [`Client::discovery_status`].
//! - Which node owns a key: [`Client::node_for`], or the [`Ring`] alone. The placement is a contract: the same names give
//!   the same owners in every version of this crate.
//! - What can go wrong: [`ErrorKind`], and [`Delivery`] for whether the server may have acted on it. A miss is no error.
//!
//! # What happens when things fail
//! | event | what the application sees |
//! |---|---|
//! | a pod restarts, at whatever address | errors for its keys while it is away ([`Unavailable`](ErrorKind::Unavailable) at once after a failed dial), then misses, for the cache is empty; no key moves |
//! | a pod is added | its share of the keys moves to it, and misses until filled; it is connected before it is asked |
//! | a pod is removed | as a restart, until the removal grace is over (120 s unless set); then its share moves to the others |
//! | a pod stops answering | [`Timeout`](ErrorKind::Timeout) for its keys at each deadline; the connection is given up and redialled |
//! | DNS fails, lies empty, or is gone | nothing: the last good set of nodes stays, connections too |
//! | most pods vanish from DNS at once | nothing for at least 30 s, then as removals |
//! | more requests than a node takes | callers wait for room until their deadline, then [`Overloaded`](ErrorKind::Overloaded) |
//! | a server is too old for a meta command | [`Unsupported`](ErrorKind::Unsupported), unsent; [`fetch`](Client::fetch) and its like [do without](guide#by-server-version), but for [`take`](Client::take) |
//! | others change the same item all the time | [`update`](Client::update) begins again, 16 times at most, then [`Contended`](ErrorKind::Contended) |
//! | who computes a value fails, or dies | the next who waits computes: at once in the same process, in another one when the lease was given back or is over |
//! | the cache fails under a [`fetch`](Client::fetch) | the value is computed, once in each process, and given though it cannot be stored |
//! | a server refuses the credentials, or asks for some | [`Auth`](ErrorKind::Auth) at once; it is dialled again after the backoff |
//! | a server sends what the protocol does not allow | [`Protocol`](ErrorKind::Protocol) for what was under way on that connection, and a new connection |
//!
//! # Cancel safety
//! Every future of this crate may be dropped at any time. A command that was not yet written is then never sent; one that
//! was may or may not have been applied. Nobody else's command is disturbed.
//!
//! # Runtime
//! Any tokio runtime with I/O and time enabled. A client belongs to the runtime it was connected on, and ends with it.
//!
//! # Features
//! | feature | default | what it adds |
//! |---|---|---|
//! | `dns` | yes | `SrvDiscovery` and `ClientBuilder::service`, on hickory-resolver |
//! | `placements` | no | `Placement`, `Ring::with_placement` and `ClientBuilder::placement`: keys where clients of other languages look for them |
//! | `long-keys` | no | `LongKeys` and `ClientBuilder::long_keys`: keys over 250 bytes, shortened by a digest |
//! | `testing` | no | the `testing` module: in-process pods and DNS to test an application against |
//!
//! # Logging
//! `tracing` events with the target `memring`: connections made, lost and given up, nodes that cannot be reached, changes
//! of the topology and of discovery's state. Never one per request, and never a key or a value.
//!
//! # Stability
//! Before 1.0 minor versions may break the interface; the placement of keys on the native ring never changes.

mod client;
mod config;
mod connection;
mod credentials;
mod discovery;
mod dispatch;
mod error;
mod inspect;
mod item;
mod key;
mod node;
mod node_id;
mod operations;
mod protocol;
mod ring;
mod topology;
mod ttl;

// The public interface is:
pub use crate::client::{
    Client, ClientBuilder, Counter, FetchError, FetchOptions, Fetched, GetMany, KeysFailed, Metadump, OnWaitTimeout,
    Origin, Stale, WriteMany,
};
pub use crate::discovery::{
    Discovery, DiscoveryError, DiscoveryOptions, DiscoveryState, DiscoveryStatus, EmptyPolicy, Endpoint, Membership,
    Startup, StaticNodes,
};
#[cfg(feature = "dns")]
pub use crate::discovery::{SrvDiscovery, WeightPolicy};
pub use crate::error::{Delivery, Error, ErrorKind};
pub use crate::inspect::{MetadumpEntry, Stats, StatsKind};
pub use crate::item::{Cas, CasOutcome, Item, SetOptions};
#[cfg(feature = "long-keys")]
pub use crate::key::LongKeys;
pub use crate::key::{InvalidKey, Key};
pub use crate::node::NodeState;
pub use crate::node_id::{DEFAULT_PORT, InvalidNodeId, NodeId};
#[cfg(feature = "placements")]
pub use crate::ring::placement::{
    CustomPlacement, EnvoyHash, KeyHash, Libmemcached, OwnerFn, Placement, PythonKeys, SpyFormat, UnknownPlacement,
};
pub use crate::ring::{InvalidRing, MovedShare, Ring, RingDiff, RingNode};
pub use crate::topology::{NodeInfo, Topology, TopologyChange, TopologyWatch};
pub use crate::ttl::{IntoTtl, InvalidTtl, Ttl};
pub mod guide;
#[cfg(memring_internals)]
#[doc(hidden)]
pub use crate::connection::internals;
pub mod meta;
#[cfg(feature = "testing")]
pub mod testing;

/// Keeps the README's example compiling.
#[cfg(all(doctest, feature = "testing"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// Keeps what docs/rings.md shows compiling.
#[cfg(all(doctest, feature = "placements"))]
#[doc = include_str!("../docs/rings.md")]
struct Rings;

/// Keeps the names and constructors of docs/sharing.md true.
#[cfg(all(doctest, feature = "placements"))]
#[doc = include_str!("../docs/sharing.md")]
struct Sharing;
