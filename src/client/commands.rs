//! One short method per command with a key.

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
    /// Reads an item: `None` if it is not there.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Item>, Error> {
        self.operations().get(&self.keys, key.as_ref(), GetForm::default(), self.deadline()).await
    }

    /// Reads an item with its version ([`Item::cas`]).
    pub async fn gets(&self, key: impl AsRef<[u8]>) -> Result<Option<Item>, Error> {
        self.operations().get(&self.keys, key.as_ref(), GetForm::with_cas(true), self.deadline()).await
    }

    /// Reads an item and gives it a new time to live in one step: `None` if it is not there. Needs memcached 1.5.3: an
    /// older one answers with an error, and what is under way on the connection fails with it.
    ///
    /// # Errors
    /// If the [delivery](crate::Error::delivery) is not [`NotSent`](Delivery::NotSent), the item may have its new time to
    /// live all the same.
    pub async fn get_and_touch(&self, key: impl AsRef<[u8]>, ttl: impl IntoTtl) -> Result<Option<Item>, Error> {
        let form = GetForm { cas: false, touch: Some(exptime(ttl)?) };
        self.operations().get(&self.keys, key.as_ref(), form, self.deadline()).await
    }

    /// As [`get_and_touch`](Self::get_and_touch), with the item's version ([`Item::cas`]), which touching does not change.
    pub async fn gets_and_touch(&self, key: impl AsRef<[u8]>, ttl: impl IntoTtl) -> Result<Option<Item>, Error> {
        let form = GetForm { cas: true, touch: Some(exptime(ttl)?) };
        self.operations().get(&self.keys, key.as_ref(), form, self.deadline()).await
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
        self.operations().set(self.any_key(key)?, value.into(), options.into(), self.deadline()).await
    }

    /// Stores an item unless it is there already; says whether it did.
    pub async fn add(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: impl Into<SetOptions>,
    ) -> Result<bool, Error> {
        self.operations().add(self.any_key(key)?, value.into(), options.into(), self.deadline()).await
    }

    /// Stores an item only if it is there already; says whether it did.
    pub async fn replace(
        &self,
        key: impl AsRef<[u8]>,
        value: impl Into<Bytes>,
        options: impl Into<SetOptions>,
    ) -> Result<bool, Error> {
        self.operations().replace(self.any_key(key)?, value.into(), options.into(), self.deadline()).await
    }

    /// Stores an item only over the version that was read ([`gets`](Self::gets)): whoever wrote in between is not
    /// overwritten unread. The new item has the flags and time to live given here.
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
    /// [`ErrorKind::TooLarge`] if the value is over the client's limit or the server's; the old value stays either way.
    /// After an error of [`Delivery::Unknown`] it may have been stored: trying again with the same version then answers
    /// [`Changed`](CasOutcome::Changed).
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

    /// Adds to the end of an item's value; says whether it did. The item keeps its flags and its time to live.
    ///
    /// `false` if the item is not there. memcached says the same if the joined value would be over its own limit (1 MiB
    /// unless set), key and bookkeeping included: the value then stays as it was.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] if what is to be added is by itself over the client's limit or the server's; the value
    /// stays as it was either way.
    pub async fn append(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<bool, Error> {
        self.operations().extend(StoreVerb::Append, self.any_key(key)?, value.into(), self.deadline()).await
    }

    /// Adds to the beginning of an item's value; as [`append`](Self::append) in all else.
    pub async fn prepend(&self, key: impl AsRef<[u8]>, value: impl Into<Bytes>) -> Result<bool, Error> {
        self.operations().extend(StoreVerb::Prepend, self.any_key(key)?, value.into(), self.deadline()).await
    }

    /// Deletes an item; says whether it was there.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        self.operations().delete(self.any_key(key)?, self.deadline()).await
    }

    /// Gives an item a new time to live; says whether it was there. Needs memcached 1.4.8.
    pub async fn touch(&self, key: impl AsRef<[u8]>, ttl: impl IntoTtl) -> Result<bool, Error> {
        let key = self.any_key(key)?;
        let exptime = exptime(ttl)?;
        self.operations().touch(key, exptime, self.deadline()).await
    }

    /// Adds to a number stored as decimal text, wrapping at 2^64; answers the new number, or `None` if the item is not
    /// there.
    ///
    /// # Errors
    /// [`ErrorKind::Server`] if the item is not a number.
    pub async fn incr(&self, key: impl AsRef<[u8]>, delta: u64) -> Result<Option<u64>, Error> {
        self.operations().arithmetic(ArithmeticVerb::Incr, self.any_key(key)?, delta, self.deadline()).await
    }

    /// Subtracts from a number stored as decimal text, stopping at 0; answers the new number, or `None` if the item is
    /// not there. The server may keep the item's length, and pad a number that lost digits with spaces: a later
    /// [`get`](Self::get) brings them.
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
