//! The meta commands, one short method each.

use bytes::Bytes;

use super::Client;
use crate::error::Error;
#[cfg(doc)]
use crate::meta::Outcome;
use crate::meta::{Arithmetic, Changed, Delete, Get, Item, Number, Options, Set};
use crate::node_id::NodeId;
use crate::protocol::{MetaCode, MetaVerb, Request};

impl Client {
    /// Sends `mg`: reads the parts of an item that the options request. Returns `None` if the item is not there.
    ///
    /// Without options, the result only tells whether the item is there.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) below memcached 1.6.10, or below what an option needs.
    pub async fn meta_get(&self, key: impl AsRef<[u8]>, options: Get) -> Result<Option<Item>, Error> {
        let (key, deadline) = (self.any_key(key)?, self.deadline());
        Item::from_reply(self.operations().meta(MetaVerb::Get, key, options, Bytes::new(), deadline).await?)
    }

    /// Sends `ms`: stores an item. [`Outcome`] tells whether it was stored, and if not, why.
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
        let (key, value, deadline) = (self.any_key(key)?, value.into(), self.deadline());
        self.operations().value_limit().check(&value)?;
        Ok(Changed::from_reply(self.operations().meta(MetaVerb::Set, key, options, value, deadline).await?))
    }

    /// Sends `md`: deletes an item, or marks it as stale.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) below memcached 1.6.10, or below what an option needs.
    pub async fn meta_delete(&self, key: impl AsRef<[u8]>, options: Delete) -> Result<Changed, Error> {
        let (key, deadline) = (self.any_key(key)?, self.deadline());
        let reply = self.operations().meta(MetaVerb::Delete, key, options, Bytes::new(), deadline).await?;
        Ok(Changed::from_reply(reply))
    }

    /// Sends `ma`: adds to or subtracts from a number, and can create it.
    ///
    /// # Errors
    /// [`ErrorKind::Server`](crate::ErrorKind::Server) if the item is not a number.
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) below memcached 1.6.10, or below what an option needs.
    pub async fn meta_arithmetic(&self, key: impl AsRef<[u8]>, options: Arithmetic) -> Result<Number, Error> {
        let (key, deadline) = (self.any_key(key)?, self.deadline());
        Number::from_reply(self.operations().meta(MetaVerb::Arithmetic, key, options, Bytes::new(), deadline).await?)
    }

    /// Sends `me`: reads the metadata of an item, as names and values for people to read. Returns `None` if the item is
    /// not there.
    ///
    /// Names are `exp`, `la` (seconds since it was last read), `cas`, `fetch`, `cls` and `size`. The server's version
    /// decides which of them there are.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`](crate::ErrorKind::InvalidKey) for a key that is not text, even if
    /// [binary keys](crate::ClientBuilder::binary_keys) are allowed: a server may reply with the raw bytes, line ends
    /// included.
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) below memcached 1.6.10.
    pub async fn meta_debug(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<(String, String)>>, Error> {
        let (key, deadline) = (self.keys.key(key.as_ref())?.into(), self.deadline());
        let reply = self.operations().meta(MetaVerb::Debug, key, Options::default(), Bytes::new(), deadline).await?;
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

    /// Sends `mn` to every node: a probe that does no work on the server. Returns a result for each node, all by one
    /// deadline.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) from a node below memcached 1.6.10.
    pub async fn meta_noop(&self) -> Vec<(NodeId, Result<(), Error>)> {
        self.broadcast(|| Request::MetaNoop).await
    }
}
