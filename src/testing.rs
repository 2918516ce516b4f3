//! A headless service to test against, in this process: pods, DNS, and everything that goes wrong with them.
//!
//! Behind the feature `testing`. The crate's own tests run on it, and an application's can: start a [`Service`], have
//! the application look its pods up at [`Dns::addr`], and then let pods restart, vanish, stop answering, and DNS fail.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! use memring::testing::{DnsFault, Service};
//!
//! let service = Service::start(3).await?;
//! println!("SRV {} at {}", service.name(), service.dns().addr());
//!
//! service.crash(2).await?;                      // refuses connections, and DNS has not noticed
//! service.dns().set_fault(DnsFault::ServFail);  // now DNS fails too
//! service.restart_at_new_address(2).await?;     // back, elsewhere and empty
//! service.dns().clear_fault();
//! # Ok(())
//! # }
//! ```
//!
//! Everything is real but the cluster: sockets, kernel, processes if so chosen. So it needs a tokio runtime with I/O and
//! time enabled, and time must not be paused.
//!
//! # Embedded pods
//! Pods are embedded in this process unless [`ServiceBuilder::memcached`] makes them real. An embedded pod is enough to
//! see where keys go and what a client does when things fail. It knows `get`, `gets`, `gat`, `gats`, `set`, `add`,
//! `replace`, `append`, `prepend`, `cas`, `delete`, `touch`, `incr`, `decr`, `flush_all`, `verbosity` (which does
//! nothing), `version` and `quit`, answers them as memcached 1.6.18 does to the byte, knows a few of the real server's
//! `stats` (`pid`, `time`, `version`, `limit_maxbytes`, `bytes`, `curr_items`, `total_items`) and `stats reset`, and
//! answers `ERROR` to the rest. What it is not:
//!
//! - There are no meta commands, no `cache_memlimit`, no other `stats`, no list of items, no authentication, no TLS, no
//!   UDP, and none of memcached's options. Its version is `0.0.0-memring`, so that no client takes it for a real one's.
//! - It holds 64 MiB, counting keys, values and 128 bytes for each item, and evicts the item written longest ago,
//!   where memcached evicts by use. Retrieval lines are limited to 1 MiB.
//! - A retrieval that fails answers for itself only, and a connection is closed after its last reply, where memcached
//!   may forget replies it still owes. A counter that gets shorter is always padded with spaces, where memcached
//!   does so only if nobody holds the item just then. What is flushed stays flushed, where another `flush_all`
//!   with a delay may revive it.
//!
//! A test of what memcached does belongs on memcached. [`Memcached`] runs a single one.

pub use self::dns::{Dns, DnsFault, DnsQueries, SrvRecord};
pub use self::memcached::Memcached;
pub use self::pod::Pod;
pub use self::service::Service;
pub use self::service::builder::ServiceBuilder;

mod addresses;
mod dns;
mod embedded;
mod memcached;
mod pod;
mod service;
