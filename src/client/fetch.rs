//! Get or compute, with one caller computing.

mod flight;
mod lease;
mod options;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

pub(super) use self::flight::Flights;
pub use self::options::{FetchError, FetchOptions, Fetched, OnWaitTimeout, Origin, Stale};

use self::flight::{Flight, FlightResult};
use self::lease::{Lease, LeaseKind, Lock};
use super::Client;
use crate::config::LONGEST_WAIT;
use crate::error::{Error, ErrorKind};
use crate::item::Cas;
use crate::key::{KeySpace, MetaKey};
use crate::meta::{Get, Item, Outcome};
use crate::operations::{MetaAttempt, Operations};
use crate::protocol::{MetaVerb, StoreVerb};
use crate::ttl::Ttl;

/// How long to wait before the first look for a value that another process computes. Later waits are longer.
const FIRST_LOOK_AFTER: Duration = Duration::from_millis(10);

/// The longest wait between two such looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl Client {
    /// Returns the item's value, or computes and stores it. One caller at a time computes, however many ask.
    ///
    /// In this process, callers that miss wait for the first of them to compute. If that one fails or is dropped, the
    /// next computes. Other processes are kept from computing by a lease: an empty item in place of the value, which
    /// memcached gives to one reader ([`FetchOptions::lease`]). They look for the value in growing intervals
    /// ([`FetchOptions::wait_timeout`]). A stale item ([`invalidate`](Self::invalidate)), or one that soon expires
    /// ([`FetchOptions::recache_within`]), is given to one caller to renew, while the others may get the old value
    /// ([`FetchOptions::stale`]).
    ///
    /// A value is not stored, and returned to its own caller only, if the item was invalidated, deleted or stored by
    /// another client while the value was computed. If the cache fails, the value is still computed, once in this
    /// process. If computing fails and there is an old value that may be served, that is returned.
    ///
    /// Below memcached 1.6.10, and without CAS uniques (`-C`), there are no leases: a key of its own (`memring:lock:…`)
    /// keeps other processes from computing. That is weaker: a value is stored even if the item was deleted meanwhile,
    /// nothing is renewed early, and nothing is ever stale, or stays so. [The
    /// guide](crate::guide#leases-stale-items-early-renewal) shows both on the wire.
    ///
    /// ```no_run
    /// # async fn doc(cache: memring::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// let page = cache
    ///     .fetch("page:/", Duration::from_secs(300), || async { Ok::<_, std::io::Error>("<html>".to_owned()) })
    ///     .await?;
    /// println!("{} bytes, {:?}", page.value.len(), page.origin);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`FetchError`]: the error of `compute`, or a timeout of it or of another process that computes. Errors of
    /// the cache are returned only if the fetch cannot be made at all.
    ///
    /// A fetch takes at most twice the sum of [wait](FetchOptions::wait_timeout) and [limit on
    /// computing](FetchOptions::compute_timeout): once as a follower, then as the one that computes. (A `compute` that
    /// fetches its own key waits for itself until that limit.)
    ///
    /// # Cancel safety
    /// May be dropped at any time: another caller that waits takes over, and a lease is given back.
    pub async fn fetch<V, E, F, Fut>(
        &self,
        key: impl AsRef<[u8]>,
        options: impl Into<FetchOptions>,
        compute: F,
    ) -> Result<Fetched, FetchError<E>>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<V, E>>,
        V: Into<Bytes>,
    {
        let task = Task::new(self, self.any_key(key).map_err(FetchError::Cache)?, options.into())?;
        // Boxed because the future is large and this is not the hot path.
        Box::pin(task.run(async { compute().await.map(Into::into) })).await
    }
}

/// One caller's fetch.
struct Task<'a> {
    operations: &'a Operations,
    flights: &'a Flights,
    keys: &'a KeySpace,
    /// The deadline of each command.
    timeout: Duration,
    key: MetaKey,
    options: FetchOptions,
    look: Get,
    /// The server was seen to have no CAS uniques.
    has_no_versions: AtomicBool,
}

/// What a look in the cache found.
enum Look {
    Found(Fetched),
    /// The lease on the item, and the old value if there is one that may be served.
    Won(Lease, Option<Fetched>),
    /// Another client has the lease. The old value, if there is one that may be served.
    Taken(Option<Fetched>),
    /// Nothing is there, and the server has no leases, or none that could be used.
    Absent,
    /// The cache failed.
    Failed(Error),
}

/// The caller's computation. It starts when it is first polled, if ever.
trait Computation<E>: Future<Output = Result<Bytes, E>> {}

impl<E, T: Future<Output = Result<Bytes, E>>> Computation<E> for T {}

/// Why a leader has no value for its followers.
enum LeaderError<E> {
    Failed(FetchError<E>),
    /// The leader has a value that is valid for its own caller only.
    Private(Fetched),
}

/// Waits for the result of a flight: until the limit as a follower, without a limit once this caller leads.
async fn wait_for_flight<T>(limit: Instant, leads: &AtomicBool, result: impl Future<Output = T>) -> Option<T> {
    let (mut result, mut limit) = (pin!(result), pin!(sleep_until(limit)));
    poll_fn(|cx| match result.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending if leads.load(Ordering::Relaxed) => Poll::Pending,
        Poll::Pending => limit.as_mut().poll(cx).map(|()| None),
    })
    .await
}

impl<'a> Task<'a> {
    fn new<E>(client: &'a Client, key: MetaKey, options: FetchOptions) -> Result<Self, FetchError<E>> {
        let lease = Ttl::new(options.lease).and_then(|lease| options.store.exptime().map(|_| lease));
        let lease = lease.map_err(|invalid| FetchError::Cache(invalid.into()))?;
        let mut look = Get::new().value().flags().cas().vivify(lease);
        if let Some(time) = options.recache_within {
            look = look.recache_within(time);
        }
        Ok(Self {
            operations: client.operations(),
            flights: &client.inner.flights,
            keys: &client.keys,
            timeout: client.timeout,
            key,
            options,
            look,
            has_no_versions: AtomicBool::new(false),
        })
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    async fn run<E>(self, computation: impl Computation<E>) -> Result<Fetched, FetchError<E>> {
        let limit =
            Instant::now() + self.options.wait_timeout.saturating_add(self.options.compute_timeout).min(LONGEST_WAIT);
        let mut computation = Some(computation);
        loop {
            let look = self.look().await;
            // Without an await in between: a flight that is joined here was not closed when the look was complete.
            let guard = self.flights.join(self.key.as_bytes(), !matches!(look, Look::Failed(_)));
            let flight = guard.flight();
            let (mut old, mut cache_fails) = (None, false);
            match look {
                Look::Found(found) | Look::Taken(Some(found)) => return Ok(found),
                // Given to the flight: its leader fills the item.
                Look::Won(lease, value) => {
                    old = value;
                    flight.deposit(lease);
                }
                Look::Taken(None) | Look::Absent => {}
                Look::Failed(error) if error.kind() == ErrorKind::Closed => return Err(FetchError::Cache(error)),
                Look::Failed(_) => cache_fails = true,
            }
            // A leader has limits of its own.
            let leads = AtomicBool::new(false);
            let result = flight.result.get_or_try_init(|| {
                leads.store(true, Ordering::Relaxed);
                self.lead(flight, cache_fails, &mut computation)
            });
            let failed = match wait_for_flight(limit, &leads, result).await {
                Some(Ok(FlightResult::Value(fetched))) => return Ok(fetched.clone()),
                Some(Ok(FlightResult::LookAgain)) if Instant::now() < limit => continue,
                Some(Err(LeaderError::Private(fetched))) => return Ok(fetched),
                Some(Err(LeaderError::Failed(error))) => error,
                Some(Ok(FlightResult::LookAgain)) | None => FetchError::WaitTimeout,
            };
            return old.ok_or(failed);
        }
    }

    /// Computes the value, or waits for another process to.
    async fn lead<E>(
        &self,
        flight: &Flight,
        cache_fails: bool,
        computation: &mut Option<impl Computation<E>>,
    ) -> Result<FlightResult, LeaderError<E>> {
        let wait_end = Instant::now() + self.options.wait_timeout.min(LONGEST_WAIT);
        let mut pause = FIRST_LOOK_AFTER;
        let mut wait_is_over = cache_fails;
        loop {
            if let Some(lease) = flight.take_lease() {
                return self.fill(flight, lease, computation).await;
            }
            if wait_is_over {
                return match self.options.on_wait_timeout {
                    OnWaitTimeout::Fail if !cache_fails => Err(LeaderError::Failed(FetchError::WaitTimeout)),
                    _ => self.compute_leaseless(flight, computation).await,
                };
            }
            match self.look().await {
                // Every follower looks again, and so does this caller.
                Look::Found(_) | Look::Taken(Some(_)) => {
                    flight.close();
                    return Ok(FlightResult::LookAgain);
                }
                Look::Won(lease, old) => {
                    let filled = self.fill(flight, lease, computation).await;
                    return match (filled, old) {
                        (Err(LeaderError::Failed(_)), Some(old)) => Err(LeaderError::Private(old)),
                        (filled, _) => filled,
                    };
                }
                Look::Absent => match self.take_lock().await {
                    Ok(Some(lock)) => return self.fill_under(flight, lock, computation).await,
                    Ok(None) => wait_is_over = self.pause(flight, &mut pause, wait_end).await,
                    Err(_) => return self.compute_leaseless(flight, computation).await,
                },
                Look::Taken(None) => wait_is_over = self.pause(flight, &mut pause, wait_end).await,
                Look::Failed(_) => return self.compute_leaseless(flight, computation).await,
            }
        }
    }

    async fn take_lock(&self) -> Result<Option<Lock>, Error> {
        Lock::take(self.operations, self.keys, &self.key, self.options.lease, self.timeout).await
    }

    /// Waits until it is time to look again, or a follower has won a lease. Returns whether the wait is over.
    async fn pause(&self, flight: &Flight, pause: &mut Duration, wait_end: Instant) -> bool {
        let jittered = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        *pause = (*pause * 3 / 2).min(LOOK_EVERY);
        let _ = timeout_at(wait_end, timeout(jittered, pin!(flight.lease_won()))).await;
        Instant::now() >= wait_end
    }

    /// Computes under a lease.
    async fn fill<E>(
        &self,
        flight: &Flight,
        lease: Lease,
        computation: &mut Option<impl Computation<E>>,
    ) -> Result<FlightResult, LeaderError<E>> {
        let mut fetched = self.compute(flight, computation).await?;
        match lease.fill(fetched.value.clone(), &self.options.store).await {
            Ok(Outcome::Done) => fetched.origin = Origin::Computed,
            // Valid for every caller, though not for the cache.
            Err(error) if error.kind() == ErrorKind::TooLarge => {}
            // The item has changed meanwhile, or may have: a later caller may know of a newer value.
            _ => return Err(LeaderError::Private(fetched)),
        }
        Ok(FlightResult::Value(fetched))
    }

    /// Computes under a lock.
    async fn fill_under<E>(
        &self,
        flight: &Flight,
        lock: Lock,
        computation: &mut Option<impl Computation<E>>,
    ) -> Result<FlightResult, LeaderError<E>> {
        // The lock's previous holder may have stored the value since the last look.
        if let Look::Found(_) = self.look().await {
            flight.close();
            return Ok(FlightResult::LookAgain);
        }
        self.remove_unusable_lease().await;
        let mut fetched = self.compute(flight, computation).await?;
        // Not over a value that another client has stored meanwhile.
        let (verb, key, value) = (StoreVerb::Add, self.key.clone(), fetched.value.clone());
        let stored = self.operations.store_if(verb, key, value, self.options.store, self.deadline()).await;
        drop(lock);
        match stored {
            Ok(true) => fetched.origin = Origin::Computed,
            Ok(false) => return Err(LeaderError::Private(fetched)),
            Err(_) => {}
        }
        Ok(FlightResult::Value(fetched))
    }

    /// Computes without a lease. The result may be outdated when it is done.
    async fn compute_leaseless<E>(
        &self,
        flight: &Flight,
        computation: &mut Option<impl Computation<E>>,
    ) -> Result<FlightResult, LeaderError<E>> {
        flight.mark_leaseless();
        self.compute(flight, computation).await.map(FlightResult::Value)
    }

    async fn compute<E>(
        &self,
        flight: &Flight,
        computation: &mut Option<impl Computation<E>>,
    ) -> Result<Fetched, LeaderError<E>> {
        // A caller that has computed returns, with the value or an error, and never comes here again.
        let Some(computation) = computation.take() else { return Err(LeaderError::Failed(FetchError::WaitTimeout)) };
        match timeout(self.options.compute_timeout, computation).await {
            Ok(Ok(value)) => {
                flight.close();
                let flags = self.options.store.wire_flags();
                Ok(Fetched { value, flags, origin: Origin::NotStored })
            }
            Ok(Err(error)) => Err(LeaderError::Failed(FetchError::Compute(error))),
            Err(_) => Err(LeaderError::Failed(FetchError::ComputeTimeout)),
        }
    }

    async fn look(&self) -> Look {
        let (key, options, deadline) = (self.key.clone(), self.look.clone(), self.deadline());
        let has_no_versions = self.has_no_versions.load(Ordering::Relaxed);
        let found = if has_no_versions {
            self.operations.read_by_meta(&key, None, deadline).await
        } else {
            let reply = self.operations.meta(MetaVerb::Get, key, options, Bytes::new(), deadline).await;
            reply.and_then(Item::from_reply)
        };
        match MetaAttempt::of(found) {
            Ok(MetaAttempt::Answered(Some(item))) if item.cas.is_some_and(Cas::is_switched_off) => {
                self.has_no_versions.store(true, Ordering::Relaxed);
                self.look_at_unversioned(item).await
            }
            Ok(MetaAttempt::Answered(Some(item))) => self.look_at(item),
            Ok(MetaAttempt::Answered(None)) if has_no_versions => Look::Absent,
            // A vivifying get has no miss. A server that answers one has no leases.
            Ok(MetaAttempt::Answered(None) | MetaAttempt::NoMetaCommands) => self.look_by_classic().await,
            Err(error) => Look::Failed(error),
        }
    }

    async fn look_by_classic(&self) -> Look {
        match self.operations.get_checked(&self.key, false, self.deadline()).await {
            Ok(Some(item)) => Look::Found(Fetched { value: item.value, flags: item.flags, origin: Origin::Cached }),
            Ok(None) => Look::Absent,
            Err(error) => Look::Failed(error),
        }
    }

    /// Looks at an item of a server without CAS uniques. Nothing can be stored under a lease there, so a lease is given
    /// back, and so is a stale item that this caller is to renew.
    async fn look_at_unversioned(&self, item: Item) -> Look {
        if item.won && (item.stale || item.is_lease()) {
            let _ = self.operations.delete(self.key.clone(), self.deadline()).await;
            return Look::Absent;
        }
        let (is_lease, flags) = (item.is_lease(), item.flags.unwrap_or(0));
        match item.value.filter(|_| !is_lease) {
            Some(value) if !item.stale => Look::Found(Fetched { value, flags, origin: Origin::Cached }),
            Some(value) if self.options.stale == Stale::Serve => {
                Look::Taken(Some(Fetched { value, flags, origin: Origin::Stale }))
            }
            Some(_) => Look::Taken(None),
            None => Look::Absent,
        }
    }

    /// Deletes a lease on a server without CAS uniques, where its holder cannot use it. For the holder of the lock.
    async fn remove_unusable_lease(&self) {
        if self.has_no_versions.load(Ordering::Relaxed)
            && let Ok(Some(found)) = self.operations.read_by_meta(&self.key, None, self.deadline()).await
            && found.is_lease()
        {
            let _ = self.operations.delete(self.key.clone(), self.deadline()).await;
        }
    }

    fn look_at(&self, item: Item) -> Look {
        let is_lease = item.is_lease();
        let origin = if item.stale { Origin::Stale } else { Origin::Cached };
        let value = item.value.filter(|_| !is_lease);
        let old = value.map(|value| Fetched { value, flags: item.flags.unwrap_or(0), origin });
        let may_serve = !item.stale || self.options.stale == Stale::Serve;
        match (item.won, item.cas, old) {
            (true, Some(cas), old) => {
                let kind = match (is_lease, item.stale) {
                    (true, _) => LeaseKind::Vivified,
                    (false, true) => LeaseKind::Stale,
                    (false, false) => LeaseKind::Early,
                };
                let lease = Lease::new(self.operations, self.timeout, self.key.clone(), cas, kind);
                Look::Won(lease, old.filter(|_| may_serve))
            }
            (_, _, Some(old)) if !item.stale => Look::Found(old),
            (_, _, old) => Look::Taken(old.filter(|_| may_serve)),
        }
    }
}
