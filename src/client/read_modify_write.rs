//! Commands made of several steps on one item, safe against other clients that change the item in between.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::Client;
use crate::error::{Delivery, Error, ErrorKind};
use crate::item::{Cas, CasOutcome, Item, SetOptions};
use crate::key::MetaKey;
use crate::meta::{self, Arithmetic, Delete, Options, Outcome, Set};
use crate::operations::{Lease, LeaseKind, MetaAttempt, Operations};
use crate::protocol::{ArithmeticVerb, MetaVerb, StoreVerb};
use crate::timer::sleep;
use crate::ttl::{IntoTtl, InvalidTtl, Ttl};

/// How often an operation is tried while other clients change the same item.
const ATTEMPTS: u32 = 16;

/// How a counter that does not exist is created: see [`Client::count_up`].
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Counter {
    initial: u64,
    ttl: Result<Ttl, InvalidTtl>,
}

impl Counter {
    /// A counter that starts with a number. Its TTL runs from its creation: counting does not prolong it.
    pub fn new(initial: u64, ttl: impl IntoTtl) -> Self {
        Self { initial, ttl: ttl.into_ttl() }
    }
}

impl Client {
    /// Marks an item as stale, and keeps it for `grace`. Returns whether there was an item.
    ///
    /// [`fetch`](Self::fetch) then has one caller compute a new value. The other callers get the old value meanwhile,
    /// or wait, as [`FetchOptions::stale`](crate::FetchOptions::stale) says. A value that any process is computing when
    /// this is called is not stored.
    ///
    /// A plain [`get`](Self::get) returns the old value until it is renewed or the grace is over, because the classic
    /// protocol cannot mark a reply as stale. Below memcached 1.6.10 the item is deleted.
    pub async fn invalidate(&self, key: impl AsRef<[u8]>, grace: impl IntoTtl) -> Result<bool, Error> {
        let steps = self.steps(key)?;
        let grace = grace.into_ttl()?;
        self.inner.flights.forget(steps.key.as_bytes());
        let outcome = steps.mark_stale(grace).await;
        // Callers that joined a flight meanwhile may get the old value, but later callers must not join them.
        self.inner.flights.forget(steps.key.as_bytes());
        outcome
    }

    /// Changes an item depending on its value: reads it, calls `change`, and stores the new value unless another client
    /// has changed the item in between. In that case it starts again. Returns the value stored, or `None` if `change`
    /// returned `None`.
    ///
    /// `change` may be called several times. Its argument is `None` if there is no item, or only a stale one or a
    /// lease. The value it returns is then stored as a new item. The TTL and flags are those of the options each time.
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
    /// [`ErrorKind::Contended`] if other clients changed the item 16 times in between. [`ErrorKind::Unsupported`] if
    /// the server runs without CAS uniques (`-C`) and there is an item. Any other failure ends the update. After one
    /// with [`Delivery::Unknown`] the value may have been stored.
    ///
    /// # Cancel safety
    /// If the future is dropped, the value may be stored. If the item is stale, another client may renew it.
    pub async fn update<V: Into<Bytes>>(
        &self,
        key: impl AsRef<[u8]>,
        options: impl Into<SetOptions>,
        mut change: impl FnMut(Option<&Item>) -> Option<V>,
    ) -> Result<Option<Bytes>, Error> {
        let (steps, options) = (self.steps(key)?, options.into());
        options.exptime()?;
        for attempt in 0..ATTEMPTS {
            back_off(attempt).await;
            let Current { item, cas, renewal } = steps.read().await?;
            let Some(value) = change(item.as_ref()) else {
                steps.decline(renewal).await;
                return Ok(None);
            };
            let value = value.into();
            let is_stored = steps.store_over(cas, value.clone(), options).await?;
            renewal.into_iter().for_each(Lease::end);
            if is_stored {
                return Ok(Some(value));
            }
        }
        Err(contended())
    }

    /// Reads an item and deletes it. If many callers take the same item at once, one of them gets it.
    ///
    /// Stale items are taken. A lease is not an item and stays.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] below memcached 1.6.10, which cannot delete by version, or if the server runs without
    /// CAS uniques (`-C`). [`ErrorKind::Contended`] if
    /// other clients changed the item 16 times in between. After an error with [`Delivery::Unknown`] the item may be
    /// deleted.
    pub async fn take(&self, key: impl AsRef<[u8]>) -> Result<Option<Item>, Error> {
        let steps = self.steps(key)?;
        for attempt in 0..ATTEMPTS {
            back_off(attempt).await;
            let Some(found) = steps.read_by_meta().await? else { return Ok(None) };
            let renewal = steps.check_version(steps.renewal(&found), found.cas).await?;
            if found.is_lease() {
                steps.decline(renewal).await;
                return Ok(None);
            }
            let (Some(cas), Some(item)) = (found.cas, found.into_item(true)) else {
                return Err(Error::unexpected_response());
            };
            let outcome = steps.delete_version(cas).await?;
            renewal.into_iter().for_each(Lease::end);
            match outcome {
                Outcome::Done => return Ok(Some(item)),
                Outcome::NotFound => return Ok(None),
                _ => {}
            }
        }
        Err(contended())
    }

    /// Adds to a counter, wrapping at 2^64, or creates it. Returns its number: the initial one if it was created,
    /// because nothing is added then.
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
    /// [`ErrorKind::Server`] if the item is not a number. After an error with [`Delivery::Unknown`] it may have been
    /// counted.
    pub async fn count_up(&self, key: impl AsRef<[u8]>, delta: u64, counter: Counter) -> Result<u64, Error> {
        self.steps(key)?.count(ArithmeticVerb::Incr, delta, counter).await
    }

    /// Subtracts from a counter, stopping at 0, or creates it. Otherwise as [`count_up`](Self::count_up).
    ///
    /// # Errors
    /// As [`count_up`](Self::count_up).
    pub async fn count_down(&self, key: impl AsRef<[u8]>, delta: u64, counter: Counter) -> Result<u64, Error> {
        self.steps(key)?.count(ArithmeticVerb::Decr, delta, counter).await
    }

    fn steps(&self, key: impl AsRef<[u8]>) -> Result<Steps<'_>, Error> {
        Ok(Steps { operations: self.operations(), key: self.any_key(key)?, timeout: self.timeout })
    }
}

/// The steps of one command on one item, each with a deadline of its own.
struct Steps<'a> {
    operations: &'a Operations,
    key: MetaKey,
    timeout: Duration,
}

/// An item that is to be changed.
struct Current {
    /// `None` if there is no item, or none that may be built upon.
    item: Option<Item>,
    /// The version to replace. `None` if there is nothing to replace.
    cas: Option<Cas>,
    /// The server chose this reader to renew the item.
    renewal: Option<Lease>,
}

impl Steps<'_> {
    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    async fn mark_stale(&self, grace: Ttl) -> Result<bool, Error> {
        match MetaAttempt::of(self.delete_with(Delete::new().mark_stale().ttl(grace)).await)? {
            MetaAttempt::Answered(outcome) => Ok(outcome == Outcome::Done),
            MetaAttempt::NoMetaCommands => self.operations.delete(self.key.clone(), self.deadline()).await,
        }
    }

    async fn delete_version(&self, cas: Cas) -> Result<Outcome, Error> {
        self.delete_with(Delete::new().compare(cas)).await
    }

    async fn delete_with(&self, options: Delete) -> Result<Outcome, Error> {
        let (key, deadline) = (self.key.clone(), self.deadline());
        let reply = self.operations.meta(MetaVerb::Delete, key, options, Bytes::new(), deadline).await?;
        Ok(Outcome::of(reply.code))
    }

    /// Reads the item, and the version it has. Fails if the server has no versions.
    async fn read(&self) -> Result<Current, Error> {
        let Current { item, cas, renewal } = self.read_any().await?;
        let renewal = self.check_version(renewal, cas).await?;
        Ok(Current { item, cas, renewal })
    }

    /// Declines the renewal and fails if the server has no versions.
    async fn check_version(&self, renewal: Option<Lease>, cas: Option<Cas>) -> Result<Option<Lease>, Error> {
        if cas.is_some_and(Cas::is_switched_off) {
            self.decline(renewal).await;
            return Err(Error::without_cas_uniques(Delivery::Answered));
        }
        Ok(renewal)
    }

    async fn read_any(&self) -> Result<Current, Error> {
        match MetaAttempt::of(self.read_by_meta().await)? {
            MetaAttempt::Answered(None) => Ok(Current { item: None, cas: None, renewal: None }),
            MetaAttempt::Answered(Some(found)) => {
                let (cas, renewal) = (found.cas, self.renewal(&found));
                let item = if found.stale { None } else { found.into_item(true) };
                Ok(Current { item, cas, renewal })
            }
            MetaAttempt::NoMetaCommands => {
                let item = self.operations.get_checked(&self.key, true, self.deadline()).await?;
                Ok(Current { cas: item.as_ref().and_then(|item| item.cas), item, renewal: None })
            }
        }
    }

    async fn read_by_meta(&self) -> Result<Option<meta::Item>, Error> {
        self.operations.read_by_meta(&self.key, Options::default(), self.deadline()).await
    }

    /// Returns the right to renew the item, if the server chose this reader to. It is given back if the command fails,
    /// panics or is dropped, because no other reader renews the item until then.
    fn renewal(&self, found: &meta::Item) -> Option<Lease> {
        let cas = found.cas.filter(|_| found.won)?;
        Some(Lease::new(self.operations, self.key.clone(), cas, LeaseKind::Stale))
    }

    /// Has another reader renew the item.
    async fn decline(&self, renewal: Option<Lease>) {
        if let Some(renewal) = renewal {
            renewal.give_back(self.deadline()).await;
        }
    }

    /// Stores a value over one version only, or as a new item. Returns whether it was stored.
    async fn store_over(&self, version: Option<Cas>, value: Bytes, options: SetOptions) -> Result<bool, Error> {
        let Some(cas) = version else {
            return self.add(value, options).await;
        };
        self.operations.value_limit().check(&value)?;
        let (key, set) = (self.key.clone(), Set::from_store(&options).compare(cas));
        let reply = self.operations.meta(MetaVerb::Set, key, set, value.clone(), self.deadline()).await;
        match MetaAttempt::of(reply)? {
            MetaAttempt::Answered(reply) => Ok(Outcome::of(reply.code) == Outcome::Done),
            MetaAttempt::NoMetaCommands => {
                let (key, deadline) = (self.key.clone(), self.deadline());
                let outcome = self.operations.compare_and_swap(key, cas, value, options, deadline).await?;
                Ok(outcome == CasOutcome::Stored)
            }
        }
    }

    async fn add(&self, value: Bytes, options: SetOptions) -> Result<bool, Error> {
        self.operations.store_if(StoreVerb::Add, self.key.clone(), value, options, self.deadline()).await
    }

    async fn count(&self, verb: ArithmeticVerb, delta: u64, counter: Counter) -> Result<u64, Error> {
        let ttl = counter.ttl?;
        let options = match verb {
            ArithmeticVerb::Incr => Arithmetic::incr(delta),
            ArithmeticVerb::Decr => Arithmetic::decr(delta),
        };
        let (key, options) = (self.key.clone(), options.create(counter.initial, ttl));
        let reply = self.operations.meta(MetaVerb::Arithmetic, key, options, Bytes::new(), self.deadline()).await;
        match MetaAttempt::of(reply)? {
            MetaAttempt::Answered(reply) => {
                meta::Number::from_reply(reply)?.value.ok_or_else(Error::unexpected_response)
            }
            MetaAttempt::NoMetaCommands => self.count_by_classic(verb, delta, counter.initial, ttl).await,
        }
    }

    async fn count_by_classic(&self, verb: ArithmeticVerb, delta: u64, initial: u64, ttl: Ttl) -> Result<u64, Error> {
        for attempt in 0..ATTEMPTS {
            back_off(attempt).await;
            let counted = self.operations.arithmetic(verb, self.key.clone(), delta, self.deadline()).await?;
            if let Some(number) = counted {
                return Ok(number);
            }
            // Another client may be creating it at the same time.
            let value = initial.to_string().into();
            if self.add(value, ttl.into()).await? {
                return Ok(initial);
            }
        }
        Err(contended())
    }
}

/// Waits for a random time before another attempt, so that clients in each other's way part.
async fn back_off(attempt: u32) {
    if attempt > 0 {
        let most = Duration::from_millis(1 << attempt.min(6));
        sleep(most.mul_f64(fastrand::f64())).await;
    }
}

fn contended() -> Error {
    Error::new(ErrorKind::Contended, Delivery::Answered)
}
