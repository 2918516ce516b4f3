//! An async memcached client for services on Kubernetes and OpenShift.
//!
//! Memcached runs there as a StatefulSet behind a headless service: pods with stable names and changing addresses,
//! without a proxy that shards keys over them. memring takes the service's name and does the rest. It follows the pods
//! by the service's SRV records, places keys on a consistent-hash ring of pod *names*, and sends commands over
//! pipelined connections to each pod. It keeps working while pods restart elsewhere, come, go or hang, and while DNS
//! fails. An application sees a value, a miss, or a typed error within its deadline: never another key's value, and
//! never a hang.
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
//! # Where to find what
//! - Commands: [`Client`]. Its options: [`ClientBuilder`]. Clones of a client share everything.
//! - Get or compute, by one caller at a time: [`Client::fetch`], and [`Client::invalidate`] to have a value renewed.
//! - Changes that are safe against other clients: [`Client::update`], [`Client::take`], [`Client::count_up`],
//!   [`Client::count_down`].
//! - Many keys at once: [`Client::get_many`], [`Client::set_many`] and others. Keys that fail are reported one by one.
//! - Leases, CAS uniques, TTLs and access times of items: the [meta commands](meta).
//! - Keys: 1 to 250 bytes of text ([`Key`]). [`Client::namespace`] puts a prefix in front of every key.
//!   [`ClientBuilder::binary_keys`] allows any bytes. The feature `long-keys` allows longer keys.
//! - Statistics and item lists: [`Client::stats`], [`Client::metadump`].
//! - Every command and reply on the wire: the [guide].
//! - Sources of nodes: a service's name (feature `dns`), a [fixed list](ClientBuilder::nodes), or your own
//!   [`Discovery`]. [`DiscoveryOptions`] has the timers, and the rules for pods that vanish and for empty answers.
//! - The state of the client: [`Client::topology`], [`Client::watch_topology`], [`Client::discovery_status`],
//!   [`Client::rediscover`].
//! - The owner of a key: [`Client::node_for`], or the [`Ring`] alone. The placement is a contract: the same names have
//!   the same keys in every version of this crate.
//! - Errors: [`ErrorKind`], and [`Delivery`], which tells whether the server may have applied the command.
//!
//! # What happens when things fail
//! | event | what the application sees |
//! |---|---|
//! | a pod restarts, at any address | [`Unavailable`](ErrorKind::Unavailable) for its keys while it is away, then misses, because the cache is empty; no key moves |
//! | a pod is added | its share of the keys moves to it, after it is connected, and misses until it is filled |
//! | a pod is removed | as for a restart until the removal grace ends (default 120 s); then its share moves to the other pods |
//! | a pod hangs | [`Timeout`](ErrorKind::Timeout) for its keys once, then [`Unavailable`](ErrorKind::Unavailable) at once until it replies to a background probe ([`BreakerOptions`]) |
//! | a pod is slow | [`Timeout`](ErrorKind::Timeout) for what takes too long; if that is half of its requests, [`Unavailable`](ErrorKind::Unavailable) at once until a probe is answered in time |
//! | a removed pod returns without a restart | old values of keys that were written elsewhere meanwhile, until their TTLs end: have a liveness probe restart such a pod before the removal grace ends, or flush it before it is ready |
//! | DNS fails, returns no records, or is unreachable | nothing: the last good set of nodes stays, and so do the connections |
//! | most pods vanish from DNS at once | nothing for at least 30 s, then as for removals |
//! | a node gets more requests than it can take | callers wait for space until their deadline, then [`Overloaded`](ErrorKind::Overloaded) |
//! | a server is too old for a meta command | [`Unsupported`](ErrorKind::Unsupported), not sent; [`fetch`](Client::fetch) and others use [another way](guide#by-server-version), except [`take`](Client::take) |
//! | a server runs without CAS uniques (`-C`) | [`Unsupported`](ErrorKind::Unsupported) for [`cas`](Client::cas), [`update`](Client::update) and [`take`](Client::take); [`fetch`](Client::fetch) uses a lock instead of leases |
//! | a server has not stated its version yet, because it stalls | [`Timeout`](ErrorKind::Timeout) or [`Unavailable`](ErrorKind::Unavailable) for what needs it; a lease is never taken for a value |
//! | other clients change the same item all the time | [`update`](Client::update) starts again, at most 16 times, then [`Contended`](ErrorKind::Contended) |
//! | the caller that computes a value fails | the next caller computes: at once in the same process, in another process when the lease is given back |
//! | a process dies while it computes a value | a caller in another process waits for a second, then computes and stores it ([`FetchOptions::wait_timeout`]) |
//! | the cache fails during a [`fetch`](Client::fetch) | the value is computed, once in each process, and returned although it cannot be stored |
//! | a server has no room for connections, or speaks TLS or HTTP | [`Unavailable`](ErrorKind::Unavailable) at once, with the reason if the server tells it; the client dials again with a growing backoff |
//! | a server refuses or requires credentials | [`Auth`](ErrorKind::Auth) at once; the client dials again after the backoff |
//! | a proxy answers a key with an error line | [`Server`](ErrorKind::Server) for that key; for calls in flight with it once, then the key travels alone |
//! | the client's runtime is blocked, or nothing drives it | callers on other runtimes get [`Timeout`](ErrorKind::Timeout) at their deadline |
//! | the client's runtime is gone | [`Closed`](ErrorKind::Closed) at once |
//! | a server sends an invalid reply | [`Protocol`](ErrorKind::Protocol) for all requests in flight on that connection, and a new connection |
//!
//! # Cancel safety
//! Every future of this crate may be dropped at any time. A command that was not written yet is then never sent. One
//! that was written may or may not be applied. Other callers are not affected.
//!
//! # Runtime
//! Any tokio runtime with I/O and time enabled. A client belongs to the runtime it was connected on, and ends with it:
//! commands then fail with [`Closed`](ErrorKind::Closed).
//!
//! Commands may be called on other runtimes with time enabled, and outside any runtime. Their deadline is kept even if
//! the client's runtime is blocked or not driven: by a thread named `memring-timers`, which the first such call starts.
//! Statistics and item lists open connections of their own, and need a tokio runtime with I/O enabled.
//!
//! # Features
//! | feature | default | what it adds |
//! |---|---|---|
//! | `dns` | yes | `SrvDiscovery` and `ClientBuilder::service`, with hickory-resolver |
//! | `placements` | no | `Placement`, `Ring::with_placement` and `ClientBuilder::placement`: keys placed as clients of other languages place them |
//! | `long-keys` | no | `LongKeys` and `ClientBuilder::long_keys`: keys over 250 bytes, shortened by a digest |
//! | `testing` | no | the module `testing`: in-process pods and DNS to test an application with |
//!
//! # Logging
//! `tracing` events with the target `memring`: connections made, closed and lost, nodes that cannot be reached, circuit
//! breakers that open and close, changes of the topology and of discovery's state. There is no event per request, and
//! no event has a key or a value.
//!
//! # Stability
//! Before 1.0, minor versions may break the API. The placement of keys on the native ring never changes.

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
mod timer;
mod topology;
mod ttl;

// The public API:
pub use crate::client::{
    Client, ClientBuilder, Computed, Counter, FetchError, FetchOptions, Fetched, GetMany, KeysFailed, Metadump,
    OnWaitTimeout, Origin, Stale, WriteMany,
};
pub use crate::config::BreakerOptions;
pub use crate::discovery::{
    Discovery, DiscoveryError, DiscoveryOptions, DiscoveryState, DiscoveryStatus, DynDiscovery, EmptyPolicy, Endpoint,
    HostAddresses, Membership, Startup, StaticNodes,
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

/// Compiles the examples of the README.
#[cfg(all(doctest, feature = "testing"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// Compiles the examples of docs/rings.md.
#[cfg(all(doctest, feature = "placements"))]
#[doc = include_str!("../docs/rings.md")]
struct Rings;

/// Compiles the examples of docs/sharing.md.
#[cfg(all(doctest, feature = "placements"))]
#[doc = include_str!("../docs/sharing.md")]
struct Sharing;
