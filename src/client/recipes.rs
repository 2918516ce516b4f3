//! What applications build out of several commands, with the races in between thought through.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::Client;
use super::meta::{self, Arithmetic, Delete, Outcome, Set};
use crate::connection::unexpected_response;
use crate::error::{Delivery, Error, ErrorKind};
use crate::item::{Cas, CasOutcome, Item, SetOptions};
use crate::key::MetaKey;
use crate::protocol::{ArithmeticVerb, MetaVerb, StoreVerb};
use crate::ttl::{IntoTtl, InvalidTtl, Ttl};

/// How often [`Client::update`] and [`Client::take`] try against others who change the same item.
const ATTEMPTS: u32 = 16;

/// How a counter that is not there comes to be: see [`Client::count_up`].
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Counter {
    initial: u64,
    ttl: Result<Ttl, InvalidTtl>,
}

impl Counter {
    /// A counter that begins with a number, and lives so long from then on: counting does not prolong it.
    pub fn new(initial: u64, ttl: impl IntoTtl) -> Self {
        Self { initial, ttl: ttl.into_ttl() }
    }
}

/// What an item is when it is to be changed.
struct Current {
    /// None if nothing is there, or nothing that may be built upon.
    item: Option<Item>,
    /// The version to replace; none if there is nothing to replace.
    cas: Option<Cas>,
    /// This reader was asked to renew it.
    won: bool,
}

impl Client {
    /// Marks an item as stale, to live for `grace` yet: [`fetch`](Self::fetch) has one caller compute a new value, and
    /// gives the others the old one meanwhile, or lets them wait. Says whether there was an item.
    ///
    /// A value being computed by any process when this is called is not stored. A plain [`get`](Self::get) goes on to give
    /// the old value until it is renewed or the grace is over: the classic protocol has no word for stale. Below memcached
    /// 1.6.10 the item is deleted.
    pub async fn invalidate(&self, key: impl AsRef<[u8]>, grace: impl IntoTtl) -> Result<bool, Error> {
        let key = self.any_key(key)?;
        let options = stale_for(grace.into_ttl()?);
        self.inner.flights.forget(key.as_bytes());
        let outcome = match self.meta(MetaVerb::Delete, key.clone(), options.into(), Bytes::new()).await {
            Ok(reply) => Ok(Outcome::of(reply.code) == Outcome::Done),
            Err(error) if error.kind() == ErrorKind::Unsupported => self.delete_at(key.clone()).await,
            Err(error) => Err(error),
        };
        // Also those who began while this was under way.
        self.inner.flights.forget(key.as_bytes());
        outcome
    }

    /// Changes an item by what it is: reads it, asks `change` for the new value, and stores that unless somebody else
    /// has changed the item in between, in which case it begins again. Gives the value stored, or `None` if `change` did
    /// not want to store any.
    ///
    /// `change` may be called several times. It is given `None` if there is no item, or only a stale one or somebody's
    /// lease; what it answers is then stored as new. The options say how the new item is stored: its time to live begins
    /// again, and the flags are those of the options.
    ///
    /// ```no_run
    /// # async fn doc(cache: memring::Client) -> Result<(), memring::Error> {
    /// use std::time::Duration;
    ///
    /// let list = cache
    ///     .update("recent", Duration::from_secs(60), |old| {
    ///         let mut list = old.map(|item| item.value.to_vec()).unwrap_or_default();
    ///         list.extend_from_slice(b"42,");
    ///         Some(list)
    ///     })
    ///     .await?;
    /// # let _ = list;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Contended`] if others were faster 16 times. A failure on the way ends it: with
    /// [`Delivery::Unknown`] the value may have been stored.
    pub async fn update<V: Into<Bytes>>(
        &self,
        key: impl AsRef<[u8]>,
        options: impl Into<SetOptions>,
        mut change: impl FnMut(Option<&Item>) -> Option<V>,
    ) -> Result<Option<Bytes>, Error> {
        let (key, options) = (self.any_key(key)?, options.into());
        options.exptime()?;
        for attempt in 0..ATTEMPTS {
            back_off(attempt).await;
            let current = self.current(&key).await?;
            let Some(value) = change(current.item.as_ref()) else {
                if let (true, Some(cas)) = (current.won, current.cas) {
                    self.decline(&key, cas).await;
                }
                return Ok(None);
            };
            let value = value.into();
            let stored = match current.cas {
                Some(cas) => self.compare_at(&key, cas, value.clone(), options).await?,
                None => self.store_as(StoreVerb::Add, key.clone(), value.clone(), options).await?,
            };
            if stored {
                return Ok(Some(value));
            }
        }
        Err(contended())
    }

    /// Reads an item and deletes it, for one caller only: of many who take the same item at once, one gets it.
    ///
    /// Stale items are taken as they are; a lease is not an item, and stays.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] below memcached 1.6.10, which cannot delete by version. [`ErrorKind::Contended`] if
    /// others changed the item 16 times in between. With [`Delivery::Unknown`] the item may be deleted.
    pub async fn take(&self, key: impl AsRef<[u8]>) -> Result<Option<Item>, Error> {
        let key = self.any_key(key)?;
        for attempt in 0..ATTEMPTS {
            back_off(attempt).await;
            let Some(found) = self.read(&key, None).await? else { return Ok(None) };
            if found.is_lease() {
                if let (true, Some(cas)) = (found.won, found.cas) {
                    self.decline(&key, cas).await;
                }
                return Ok(None);
            }
            let (Some(cas), Some(item)) = (found.cas, found.into_item(true)) else { return Err(unexpected_response()) };
            let options = Delete::new().compare(cas);
            let reply = self.meta(MetaVerb::Delete, key.clone(), options.into(), Bytes::new()).await?;
            match Outcome::of(reply.code) {
                Outcome::Done => return Ok(Some(item)),
                Outcome::NotFound => return Ok(None),
                _ => {}
            }
        }
        Err(contended())
    }

    /// Adds to a counter, wrapping at 2^64, or creates it: with its initial number, to which nothing is added then. Gives
    /// its number.
    ///
    /// ```no_run
    /// # async fn doc(cache: memring::Client) -> Result<(), memring::Error> {
    /// use std::time::Duration;
    /// use memring::Counter;
    ///
    /// let logins = cache.count_up("logins:42", 1, Counter::new(1, Duration::from_secs(3600))).await?;
    /// println!("{logins} in the hour since the first");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Server`] if the item is not a number. With [`Delivery::Unknown`] it may have been counted.
    pub async fn count_up(&self, key: impl AsRef<[u8]>, delta: u64, counter: Counter) -> Result<u64, Error> {
        self.count(self.any_key(key)?, Arithmetic::incr(delta), counter, Count::Up(delta)).await
    }

    /// Subtracts from a counter, stopping at 0, or creates it: as [`count_up`](Self::count_up).
    ///
    /// # Errors
    /// As [`count_up`](Self::count_up).
    pub async fn count_down(&self, key: impl AsRef<[u8]>, delta: u64, counter: Counter) -> Result<u64, Error> {
        self.count(self.any_key(key)?, Arithmetic::decr(delta), counter, Count::Down(delta)).await
    }

    async fn count(&self, key: MetaKey, step: Arithmetic, counter: Counter, count: Count) -> Result<u64, Error> {
        let ttl = counter.ttl?;
        let options = step.create(counter.initial, ttl);
        let reply = match self.meta(MetaVerb::Arithmetic, key.clone(), options.into(), Bytes::new()).await {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                return self.count_classically(&key, counter.initial, ttl, count).await;
            }
            reply => reply?,
        };
        meta::Number::from_reply(reply)?.value.ok_or_else(unexpected_response)
    }

    async fn count_classically(&self, key: &MetaKey, initial: u64, ttl: Ttl, count: Count) -> Result<u64, Error> {
        for attempt in 0..ATTEMPTS {
            back_off(attempt).await;
            let counted = match count {
                Count::Up(delta) => self.arithmetic(ArithmeticVerb::Incr, key.clone(), delta).await?,
                Count::Down(delta) => self.arithmetic(ArithmeticVerb::Decr, key.clone(), delta).await?,
            };
            if let Some(number) = counted {
                return Ok(number);
            }
            // Somebody else may be creating it just now.
            if self.store_as(StoreVerb::Add, key.clone(), initial.to_string().into(), ttl.into()).await? {
                return Ok(initial);
            }
        }
        Err(contended())
    }

    /// What is there to be changed, and under which version.
    async fn current(&self, key: &MetaKey) -> Result<Current, Error> {
        match self.read(key, None).await {
            Ok(None) => Ok(Current { item: None, cas: None, won: false }),
            Ok(Some(found)) => {
                let (cas, won) = (found.cas, found.won);
                let item = if found.stale { None } else { found.into_item(true) };
                Ok(Current { item, cas, won })
            }
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                let item = self.find_at(key, true).await?;
                Ok(Current { cas: item.as_ref().and_then(|item| item.cas), item, won: false })
            }
            Err(error) => Err(error),
        }
    }

    /// Stores over one version only, by whichever command the server has.
    async fn compare_at(&self, key: &MetaKey, cas: Cas, value: Bytes, options: SetOptions) -> Result<bool, Error> {
        self.check_size(&value)?;
        let set = Set::from_store(&options).compare(cas);
        match self.meta(MetaVerb::Set, key.clone(), set.into(), value.clone()).await {
            Ok(reply) => Ok(Outcome::of(reply.code) == Outcome::Done),
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                Ok(self.cas_at(key.clone(), cas, value, options).await? == CasOutcome::Stored)
            }
            Err(error) => Err(error),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Count {
    Up(u64),
    Down(u64),
}

/// Before another attempt, a moment of chance: those who got in each other's way part.
async fn back_off(attempt: u32) {
    if attempt > 0 {
        let most = Duration::from_millis(1 << attempt.min(6));
        sleep(most.mul_f64(fastrand::f64())).await;
    }
}

fn stale_for(grace: Ttl) -> Delete {
    Delete::new().mark_stale().ttl(grace)
}

fn contended() -> Error {
    Error::new(ErrorKind::Contended, Delivery::Answered)
}
