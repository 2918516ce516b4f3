//! A headless service to test against, in this process: pods, their DNS server, and the failures of both.
//!
//! Behind the feature `testing`. An application's tests can use what the crate's own tests use: start a [`Service`],
//! let the application look up its pods at [`Dns::addr`], then restart, move, pause or kill pods and make DNS fail.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! use memring::testing::{DnsFault, Service};
//!
//! let service = Service::start(3).await?;
//! println!("SRV {} at {}", service.name(), service.dns().addr());
//!
//! service.crash(2).await?;                      // the pod refuses connections, DNS still lists it
//! service.dns().set_fault(DnsFault::ServFail);  // now DNS fails too
//! service.restart_at_new_address(2).await?;     // the pod is back, at a new address and empty
//! service.dns().clear_faults();
//! # Ok(())
//! # }
//! ```
//!
//! [`Dns`] also serves what a healthy cluster does not: [faults](Dns::set_fault_for) of some queries only,
//! [aliases](Dns::set_alias), [wrong glue](Dns::set_glue_for), [records](Dns::add_foreign_srv) of other owners,
//! and [several servers](Dns::start_another) of which one is dead. Its [log](Dns::query_log) tells what was asked when.
//!
//! Only the cluster is simulated. Sockets are real, and so are the processes if [`ServiceBuilder::memcached`] is
//! chosen. The tokio runtime must therefore have I/O and time enabled, and its time must not be paused.
//!
//! # Embedded pods
//! Pods are embedded in this process unless [`ServiceBuilder::memcached`] makes them real. An embedded pod is enough to
//! see where keys go and how a client handles failures. It supports these commands:
//!
//! - `get`, `gets`, `gat`, `gats`, `set`, `add`, `replace`, `append`, `prepend`, `cas`, `delete`, `touch`, `incr`,
//!   `decr`, `flush_all`, `verbosity` (without effect), `version` and `quit`. Their replies equal those of memcached
//!   1.6.18 byte for byte.
//! - `stats`, with `pid`, `time`, `version`, `limit_maxbytes`, `bytes`, `curr_items` and `total_items`, and
//!   `stats reset`.
//!
//! The reply to any other command is `ERROR`. An embedded pod differs from a real server in these points:
//!
//! - It has no meta commands, no `cache_memlimit`, no other `stats`, no item listing, no authentication, no TLS, no UDP
//!   and none of memcached's options. Its version is `0.0.0-memring`, so that a client can tell it from a real server.
//! - It holds 64 MiB, counting keys, values and 128 bytes an item. When full, it evicts the item with the oldest write,
//!   while memcached evicts by last use. Retrieval lines are limited to 1 MiB.
//! - A failed retrieval does not affect other replies, and a connection is closed after its last reply. memcached may
//!   drop replies that are still in its output buffer. A counter that loses digits is always padded with spaces, while
//!   memcached pads it only if no other connection references the item at that moment. Flushed items stay flushed,
//!   while a later `flush_all` with a delay can revive them in memcached.
//!
//! Test the behavior of memcached itself against a real one. [`Memcached`] runs a single server.

pub use self::dns::{Dns, DnsFault, DnsFilter, DnsOrder, DnsQueries, DnsQuery, DnsRecordType, SrvRecord};
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
