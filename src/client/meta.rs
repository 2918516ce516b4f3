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
mod many;
mod options;

use bytes::Bytes;

pub use self::answer::{Changed, Item, Number, Outcome, TimeLeft};
pub use self::options::{Arithmetic, Delete, Get, InvalidFlag, Mode, Set};

pub(super) use self::options::Options;
use super::Client;
use crate::connection::unexpected_response;
use crate::error::Error;
use crate::key::MetaKey;
use crate::node_id::NodeId;
use crate::protocol::{MetaCode, MetaReply, MetaVerb, Reply, Request};

impl Client {
    /// `mg`: reads of an item what the options ask for. `None` if it is not there.
    ///
    /// Without options it only says whether the item is there.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) below memcached 1.6.10, or below what an option needs.
    pub async fn meta_get(&self, key: impl AsRef<[u8]>, options: Get) -> Result<Option<Item>, Error> {
        let reply = self.meta(MetaVerb::Get, self.any_key(key)?, options.into(), Bytes::new()).await?;
        Item::from_reply(reply)
    }

    /// `ms`: stores an item. [`Outcome`] says whether it was, and if not, why.
    ///
    /// # Errors
    /// As [`set`](Self::set), and [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) below memcached 1.6.10, or
    /// below what an option needs.
    pub async fn meta_set(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: Set,
    ) -> Result<Changed, Error> {
        let (key, value) = (self.any_key(key)?, value.into());
        self.check_size(&value)?;
        Ok(Changed::from_reply(self.meta(MetaVerb::Set, key, options.into(), value).await?))
    }

    /// `md`: deletes an item, or marks it as stale.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) below memcached 1.6.10, or below what an option needs.
    pub async fn meta_delete(&self, key: impl AsRef<[u8]>, options: Delete) -> Result<Changed, Error> {
        let key = self.any_key(key)?;
        Ok(Changed::from_reply(self.meta(MetaVerb::Delete, key, options.into(), Bytes::new()).await?))
    }

    /// `ma`: adds to or subtracts from a number, and can create it.
    ///
    /// # Errors
    /// [`ErrorKind::Server`](crate::ErrorKind::Server) if the item is not a number.
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) below memcached 1.6.10, or below what an option needs.
    pub async fn meta_arithmetic(&self, key: impl AsRef<[u8]>, options: Arithmetic) -> Result<Number, Error> {
        let key = self.any_key(key)?;
        Number::from_reply(self.meta(MetaVerb::Arithmetic, key, options.into(), Bytes::new()).await?)
    }

    /// `me`: what the server knows of an item, value aside, as names and values for people to read: `exp`, `la`
    /// (seconds since it was last read), `cas`, `fetch`, `cls`, `size`. Which there are depends on the server.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`](crate::ErrorKind::InvalidKey) for a key that is not text, also where the others take
    /// [such](crate::ClientBuilder::binary_keys): a server may answer with its bytes as they are, line ends and all.
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) below memcached 1.6.10.
    pub async fn meta_debug(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<(String, String)>>, Error> {
        let reply = self.meta(MetaVerb::Debug, self.key(key)?.into(), Options::default(), Bytes::new()).await?;
        if reply.code == MetaCode::Miss {
            return Ok(None);
        }
        let pair = |word: &Bytes| {
            let text = String::from_utf8_lossy(word);
            let (name, value) = text.split_once('=').unwrap_or((&text, ""));
            (name.to_owned(), value.to_owned())
        };
        Ok(Some(reply.other.iter().map(pair).collect()))
    }

    /// `mn`: asks every node for a sign of life that costs it nothing; each answers for itself, by the one deadline.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) from a node below memcached 1.6.10.
    pub async fn meta_noop(&self) -> Vec<(NodeId, Result<(), Error>)> {
        let answers = self.on_every_node(|| Request::MetaNoop).await.into_iter();
        answers.map(|(id, reply)| (id, reply.map(|_| ()))).collect()
    }

    pub(super) async fn meta(
        &self,
        verb: MetaVerb,
        key: MetaKey,
        options: Options,
        value: Bytes,
    ) -> Result<MetaReply, Error> {
        match self.reply_to(Request::Meta(Box::new(options.into_request(verb, key, value)?))).await? {
            Reply::Meta(reply) => Ok(*reply),
            _ => Err(unexpected_response()),
        }
    }
}
