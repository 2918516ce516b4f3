//! Meta commands: what the classic ones cannot say. For each there is a builder of its options and a typed answer.
//!
//! | command | method | options | answer |
//! |---|---|---|---|
//! | `mg` | [`Client::meta_get`], [`Client::meta_get_many`] | [`Get`] | [`Item`], or `None` for a miss |
//! | `ms` | [`Client::meta_set`] | [`Set`] | [`Changed`] |
//! | `md` | [`Client::meta_delete`] | [`Delete`] | [`Changed`] |
//! | `ma` | [`Client::meta_arithmetic`] | [`Arithmetic`] | [`Number`] |
//! | `me` | [`Client::meta_debug`] | | names and values |
//! | `mn` | [`Client::meta_noop`] | | each node's word |
//!
//! All need memcached 1.6.10, some options a later one, which their documentation names. What a server is, is asked once
//! per connection, when a meta command first needs to know; one that is too old, or does not say, is not sent any: the
//! command fails with [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported), and everything classic goes on.
//!
//! Every flag, what needs which server, and what the replies mean: [the guide](crate::guide#meta-flags).
//!
//! Deadlines, cancel safety and errors are those of every command: see [`Client`]. A command the server answers with an
//! error line fails with [`ErrorKind::Server`](crate::ErrorKind::Server).
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
