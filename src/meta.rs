//! The meta commands: their options and typed responses.
//!
//! Meta commands do what the classic ones cannot: leases, stale items, CAS on deletes, TTLs and access times of items.
//!
//! | command | method | options | response |
//! |---|---|---|---|
//! | `mg` | [`Client::meta_get`](crate::Client::meta_get), [`Client::meta_get_many`](crate::Client::meta_get_many) | [`Get`] | [`Item`], or `None` for a miss |
//! | `ms` | [`Client::meta_set`](crate::Client::meta_set) | [`Set`] | [`Changed`] |
//! | `md` | [`Client::meta_delete`](crate::Client::meta_delete) | [`Delete`] | [`Changed`] |
//! | `ma` | [`Client::meta_arithmetic`](crate::Client::meta_arithmetic) | [`Arithmetic`] | [`Number`] |
//! | `me` | [`Client::meta_debug`](crate::Client::meta_debug) | | names and values |
//! | `mn` | [`Client::meta_noop`](crate::Client::meta_noop) | | one result for each node |
//!
//! All need memcached 1.6.10. Some options need a later version, which their documentation names. A connection asks the
//! server for its version when a meta command first needs it. A server that is too old, or no memcached, gets no meta
//! command: the command fails with [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported). A server that has not
//! stated its version yet gets none either: the command waits until its deadline, or fails with
//! [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable). Classic commands go on as before.
//!
//! Deadlines, cancel safety and errors are those of every command: see [`Client`](crate::Client). A command that the
//! server answers with an error line fails with [`ErrorKind::Server`](crate::ErrorKind::Server). [The
//! guide](crate::guide#meta-flags) lists every flag, the version it needs, and the replies.
//!
//! ```no_run
//! # async fn doc(cache: memring::Client) -> Result<(), memring::Error> {
//! use std::time::Duration;
//! use memring::meta;
//!
//! cache.meta_set("k", "v", meta::Set::new(Duration::from_secs(60)).flags(7).return_cas()).await?;
//! if let Some(item) = cache.meta_get("k", meta::Get::new().value().ttl_left().hit_before()).await? {
//!     println!("{:?} bytes, {:?}, read before: {:?}", item.value.map(|v| v.len()), item.ttl_left, item.hit_before);
//! }
//! # Ok(())
//! # }
//! ```

mod answer;
#[cfg(test)]
mod fuzz;
mod options;

pub use self::answer::{Changed, Item, Number, Outcome, TimeLeft};
pub(crate) use self::options::Options;
pub use self::options::{Arithmetic, Delete, Get, InvalidFlag, Mode, Set};
