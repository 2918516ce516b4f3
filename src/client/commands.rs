//! The commands with one key, one short method each.

use std::time::SystemTime;

use bytes::Bytes;

use super::Client;
use crate::connection::GetForm;
use crate::error::Error;
#[cfg(doc)]
use crate::error::{Delivery, ErrorKind};
use crate::item::{Cas, CasOutcome, Item, SetOptions};
use crate::protocol::{ArithmeticVerb, StoreVerb};
use crate::ttl::{IntoTtl, InvalidTtl};

impl Client {
    /// Reads an item. Returns `None` if it is not there.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Item>, Error> {
        self.operations().get(&self.keys, key.as_ref(), GetForm::default(), self.deadline()).await
    }

    /// Reads an item with its CAS unique ([`Item::cas`]).
    pub async fn gets(&self, key: impl AsRef<[u8]>) -> Result<Option<Item>, Error> {
        self.operations().get(&self.keys, key.as_ref(), GetForm::with_cas(true), self.deadline()).await
    }

    /// Reads an item and sets a new TTL in one step. Returns `None` if the item is not there. A lease of a
    /// [`fetch`](Self::fetch) is not there, and has at most 30 s left after this.
    ///
    /// Needs memcached 1.5.3. An older server replies with an error, which also fails the commands in flight on that
    /// connection.
    ///
    /// # Errors
    /// If the [delivery](crate::Error::delivery) is not [`NotSent`](Delivery::NotSent), the item may have the new TTL.
    pub async fn get_and_touch(&self, key: impl AsRef<[u8]>, ttl: impl IntoTtl) -> Result<Option<Item>, Error> {
        let form = GetForm { cas: false, touch: Some(exptime(ttl)?) };
        self.operations().get(&self.keys, key.as_ref(), form, self.deadline()).await
    }

    /// Reads and touches as [`get_and_touch`](Self::get_and_touch), with the item's CAS unique ([`Item::cas`]), which a
    /// touch does not change.
    pub async fn gets_and_touch(&self, key: impl AsRef<[u8]>, ttl: impl IntoTtl) -> Result<Option<Item>, Error> {
        let form = GetForm { cas: true, touch: Some(exptime(ttl)?) };
        self.operations().get(&self.keys, key.as_ref(), form, self.deadline()).await
    }

    /// Stores an item, and replaces one that is there.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] if the value is over a limit. With [`Delivery::NotSent`] it is the [client's
    /// limit](crate::ClientBuilder::max_value_size), and the old value stays, unless the client is set to [delete
    /// it](crate::ClientBuilder::delete_when_too_large). With [`Delivery::Answered`] it is the server's limit, and the
    /// server has deleted the old value.
    pub async fn set(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: impl Into<SetOptions>,
    ) -> Result<(), Error> {
        self.operations().set(self.any_key(key)?, value.into(), options.into(), self.deadline()).await
    }

    /// Stores an item that is not there yet. Returns whether it was stored.
    pub async fn add(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: impl Into<SetOptions>,
    ) -> Result<bool, Error> {
        let (key, deadline) = (self.any_key(key)?, self.deadline());
        self.operations().store_if(StoreVerb::Add, key, value.into(), options.into(), deadline).await
    }

    /// Stores an item that is there already. Returns whether it was stored.
    pub async fn replace(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: impl Into<SetOptions>,
    ) -> Result<bool, Error> {
        let (key, deadline) = (self.any_key(key)?, self.deadline());
        self.operations().store_if(StoreVerb::Replace, key, value.into(), options.into(), deadline).await
    }

    /// Stores an item if it has not changed since it was read by [`gets`](Self::gets). The new item has the flags and
    /// TTL given here.
    ///
    /// ```no_run
    /// # async fn doc(cache: memring::Client) -> Result<(), memring::Error> {
    /// use std::time::Duration;
    /// use memring::CasOutcome;
    ///
    /// while let Some(item) = cache.gets("list").await? {
    ///     let Some(version) = item.cas else { break };
    ///     let longer = [&item.value[..], b",more"].concat();
    ///     if cache.cas("list", version, longer, Duration::from_secs(300)).await? == CasOutcome::Stored {
    ///         break;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] if the value is over the client's limit or the server's. The old value stays in both
    /// cases. After an error with [`Delivery::Unknown`] the value may have been stored. A second try with the same CAS
    /// unique then returns [`Changed`](CasOutcome::Changed). [`ErrorKind::Unsupported`] if the CAS
    /// unique is 0: its server runs without them (`-C`).
    pub async fn cas(
        &self,
        key: impl AsRef<[u8]>,
        version: Cas,
        value: impl Into<Bytes>,
        options: impl Into<SetOptions>,
    ) -> Result<CasOutcome, Error> {
        self.operations()
            .compare_and_swap(self.any_key(key)?, version, value.into(), options.into(), self.deadline())
            .await
    }

    /// Appends to an item's value. Returns whether it did. The item keeps its flags and TTL.
    ///
    /// Returns `false` if the item is not there. memcached replies the same if the joined value, with key and header,
    /// would be over its limit (1 MiB by default). The value does not change then.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] if the appended part alone is over the client's limit or the server's. The value does
    /// not change in either case.
    pub async fn append(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<bool, Error> {
        self.operations().extend(StoreVerb::Append, self.any_key(key)?, value.into(), self.deadline()).await
    }

    /// Prepends to an item's value, otherwise as [`append`](Self::append).
    pub async fn prepend(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<bool, Error> {
        self.operations().extend(StoreVerb::Prepend, self.any_key(key)?, value.into(), self.deadline()).await
    }

    /// Deletes an item. Returns whether it was there.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        self.operations().delete(self.any_key(key)?, self.deadline()).await
    }

    /// Sets a new TTL of an item. Returns whether the item was there. Needs memcached 1.4.8.
    pub async fn touch(&self, key: impl AsRef<[u8]>, ttl: impl IntoTtl) -> Result<bool, Error> {
        let key = self.any_key(key)?;
        let exptime = exptime(ttl)?;
        self.operations().touch(key, exptime, self.deadline()).await
    }

    /// Adds to a number stored as decimal text, wrapping at 2^64. Returns the new number, or `None` if the item is not
    /// there.
    ///
    /// # Errors
    /// [`ErrorKind::Server`] if the item is not a number.
    pub async fn incr(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>, Error> {
        self.operations().arithmetic(ArithmeticVerb::Incr, self.any_key(key)?, delta, self.deadline()).await
    }

    /// Subtracts from a number stored as decimal text, stopping at 0. Returns the new number, or `None` if the item is
    /// not there.
    ///
    /// The server may keep the length of the value and pad a shorter number with spaces, which a later
    /// [`get`](Self::get) returns.
    ///
    /// # Errors
    /// [`ErrorKind::Server`] if the item is not a number.
    pub async fn decr(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>, Error> {
        self.operations().arithmetic(ArithmeticVerb::Decr, self.any_key(key)?, delta, self.deadline()).await
    }
}

/// Returns a TTL as a command made now sends it.
pub(super) fn exptime(ttl: impl IntoTtl) -> Result<u32, InvalidTtl> {
    ttl.into_ttl()?.exptime(SystemTime::now)
}
