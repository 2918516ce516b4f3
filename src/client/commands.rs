//! One short method per command with a key.

use std::time::SystemTime;

use bytes::Bytes;

use super::{Client, misfit};
use crate::connection::Answer;
use crate::error::{Delivery, Error, ErrorKind};
use crate::item::{Item, SetOptions};
use crate::key::Key;
use crate::protocol::{ArithmeticVerb, Keys, Reply, Request, StoreVerb};
use crate::ttl::{InvalidTtl, Ttl};

impl Client {
    /// Reads an item: `None` if it is not there.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Item>, Error> {
        self.get_one(self.key(key)?, false).await
    }

    /// Reads an item with its version ([`Item::cas`]).
    pub async fn gets(&self, key: impl AsRef<[u8]>) -> Result<Option<Item>, Error> {
        self.get_one(self.key(key)?, true).await
    }

    /// Stores an item, whether or not it is there already.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] with [`Delivery::NotSent`] if the value is over the
    /// [client's limit](crate::ClientBuilder::max_value_size): the old value stays, unless it is
    /// [to be deleted](crate::ClientBuilder::delete_when_too_large). With [`Delivery::Answered`] if it is over the
    /// server's: the server has then deleted the old value.
    pub async fn set(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: impl Into<SetOptions>,
    ) -> Result<(), Error> {
        let options = options.into();
        let write = self.set_request(self.key(key)?, value.into(), options.wire_flags(), options.exptime()?)?;
        let reply = self.reply_to(write.request).await;
        match (write.too_large, reply) {
            (None, Ok(Reply::Stored)) => Ok(()),
            (None, Ok(_)) => Err(not_stored()),
            (None, Err(error)) => Err(error),
            (Some(too_large), reply) => Err(too_large.after_delete(reply)),
        }
    }

    /// Stores an item unless it is there already; says whether it did.
    pub async fn add(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: impl Into<SetOptions>,
    ) -> Result<bool, Error> {
        self.store(StoreVerb::Add, self.key(key)?, value.into(), options.into()).await
    }

    /// Stores an item only if it is there already; says whether it did.
    pub async fn replace(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: impl Into<SetOptions>,
    ) -> Result<bool, Error> {
        self.store(StoreVerb::Replace, self.key(key)?, value.into(), options.into()).await
    }

    /// Deletes an item; says whether it was there.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        let key = self.key(key)?;
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
        let key = self.key(key)?;
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
        self.arithmetic(ArithmeticVerb::Incr, self.key(key)?, delta).await
    }

    /// Subtracts from a number stored as decimal text, stopping at 0; answers the new number, or `None` if the item is
    /// not there. The server may keep the item's length, and pad a number that lost digits with spaces: a later
    /// [`get`](Self::get) brings them.
    ///
    /// # Errors
    /// [`ErrorKind::Server`] if the item is not a number.
    pub async fn decr(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>, Error> {
        self.arithmetic(ArithmeticVerb::Decr, self.key(key)?, delta).await
    }

    async fn get_one(&self, key: Key, cas: bool) -> Result<Option<Item>, Error> {
        match self.dispatch(Request::Get { keys: Keys::One(key), cas }).await? {
            Answer::One(lookup) => lookup,
            _ => Err(misfit()),
        }
    }

    async fn store(&self, verb: StoreVerb, key: Key, value: Bytes, options: SetOptions) -> Result<bool, Error> {
        let request = self.store_request(verb, key, value, options.wire_flags(), options.exptime()?)?;
        match self.reply_to(request).await? {
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
}

/// No memcached says `NOT_STORED` to a set, but a proxy may.
pub(super) fn not_stored() -> Error {
    Error::new(ErrorKind::Server, Delivery::Answered).saying("NOT_STORED")
}
