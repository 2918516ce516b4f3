//! Get or compute, with one caller computing.

mod claim;
mod computed;
mod flight;
mod lock;
mod look;
mod options;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

#[cfg(doc)]
use bytes::Bytes;
use tokio::time::Instant;

pub use self::computed::Computed;
pub(super) use self::flight::Flights;
pub use self::options::{FetchError, FetchOptions, Fetched, OnWaitTimeout, Origin, Stale};

use self::claim::{Claim, renew_during, renewal_interval};
use self::flight::{Flight, FlightResult};
use self::lock::Lock;
use self::look::Look;
use super::Client;
use crate::config::LONGEST_WAIT;
use crate::error::{Error, ErrorKind};
use crate::item::{Cas, SetOptions};
use crate::key::{KeySpace, MetaKey};
use crate::meta::{Get, Item, Outcome, TimeLeft};
use crate::operations::{Lease, LeaseKind, Operations};
use crate::protocol::StoreVerb;
use crate::timer::{sleep_until, timeout, timeout_at};
use crate::ttl::Ttl;

/// How long to wait before the first look for a value that another process computes. Later waits are longer.
const FIRST_LOOK_AFTER: Duration = Duration::from_millis(10);

/// The longest wait between two such looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A value of this size may be over the server's limit, so the item is looked at before it is stored.
const MAY_BE_TOO_LARGE: usize = 64 * 1024;

impl Client {
    /// Returns the item's value, or computes and stores it. One caller at a time computes, however many ask.
    ///
    /// In this process, callers that miss wait for the first of them to compute. If that one fails or is dropped, the
    /// next computes. Other processes are kept from computing by a lease: an empty item in place of the value, which
    /// memcached gives to one reader ([`FetchOptions::lease`]). They look for the value in growing intervals, for a
    /// second by default ([`FetchOptions::wait_timeout`]). A process that died cannot give its lease back. So after
    /// that time they compute too, one caller in each, and the first value is stored. A stale item
    /// ([`invalidate`](Self::invalidate)), or one that soon expires ([`FetchOptions::recache_within`]), is given to one
    /// caller to renew, while the others may get the old value ([`FetchOptions::stale`]).
    ///
    /// A value is not stored, and returned to its own caller only, if the item was invalidated, deleted or stored by
    /// another client while the value was computed. If the cache fails, the value is still computed, once in this
    /// process. If computing fails and there is an old value that may be served, that is returned.
    ///
    /// `compute` returns a value, such as a `String`, a `Vec<u8>` or [`Bytes`], or a [`Computed`], which says how to
    /// store it.
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
    /// computing](FetchOptions::compute_timeout), and the time of its commands: once as a follower, then as the one
    /// that computes. (A `compute` that fetches its own key waits for itself until that limit.)
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
        V: Into<Computed>,
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

/// The caller's computation. It starts when it is first polled, if ever.
trait Computation<E>: Future<Output = Result<Computed, E>> {}

impl<E, T: Future<Output = Result<Computed, E>>> Computation<E> for T {}

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
                Look::Found(found) | Look::Taken(Some(found), _) => return Ok(found),
                // Given to the flight: its leader fills the item.
                Look::Won(lease, value) => {
                    old = value;
                    flight.deposit(lease);
                }
                Look::Taken(None, _) | Look::Absent => {}
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
        let mut has_limited_lease = false;
        loop {
            if let Some(lease) = flight.take_lease() {
                // One that was won while another caller computed was not renewed meanwhile, and may have ended.
                let (age, lasts) = (lease.age(), self.options.lease);
                if age < renewal_interval(lasts) || lease.renew(lasts, self.deadline()).await {
                    return self.fill(flight, lease, computation).await;
                }
                lease.give_back(self.deadline()).await;
            }
            if cache_fails {
                return self.compute_leaseless(flight, computation).await;
            }
            let wait_is_over = Instant::now() >= wait_end;
            match self.look().await {
                // Every follower looks again, and so does this caller.
                Look::Found(_) | Look::Taken(Some(_), _) => {
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
                    Ok(Some(lock)) => return self.fill_under(flight, Some(lock), computation).await,
                    Ok(None) if wait_is_over => {
                        self.check_may_join()?;
                        return self.fill_under(flight, None, computation).await;
                    }
                    Ok(None) => self.pause(flight, &mut pause, wait_end).await,
                    Err(_) => return self.compute_leaseless(flight, computation).await,
                },
                Look::Taken(None, cas) if wait_is_over => {
                    self.check_may_join()?;
                    return self.join(flight, cas, computation).await;
                }
                Look::Taken(None, _) => {
                    if !std::mem::replace(&mut has_limited_lease, true) {
                        self.limit_lease().await;
                    }
                    self.pause(flight, &mut pause, wait_end).await;
                }
                Look::Failed(_) => return self.compute_leaseless(flight, computation).await,
            }
        }
    }

    async fn take_lock(&self) -> Result<Option<Lock>, Error> {
        Lock::take(self.operations, self.keys, &self.key, self.options.lease, self.timeout).await
    }

    /// Waits until it is time to look again, or a follower has won a lease.
    async fn pause(&self, flight: &Flight, pause: &mut Duration, wait_end: Instant) {
        let jittered = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        *pause = (*pause * 3 / 2).min(LOOK_EVERY);
        let _ = timeout_at(wait_end, timeout(jittered, pin!(flight.lease_won()))).await;
    }

    /// Fails if this caller is to wait only, and not to compute while another process does.
    fn check_may_join<E>(&self) -> Result<(), LeaderError<E>> {
        match self.options.on_wait_timeout {
            OnWaitTimeout::Compute => Ok(()),
            OnWaitTimeout::Fail => Err(LeaderError::Failed(FetchError::WaitTimeout)),
        }
    }

    /// Computes under the lease of another process, which may have died. That lease's CAS unique is from before the
    /// computation, so it proves as much as one of this process: a store over it is refused if the item has changed.
    async fn join<E>(
        &self,
        flight: &Flight,
        cas: Option<Cas>,
        computation: &mut Option<impl Computation<E>>,
    ) -> Result<FlightResult, LeaderError<E>> {
        match cas {
            Some(cas) => {
                let lease = Lease::new(self.operations, self.key.clone(), cas, LeaseKind::Joined);
                self.fill(flight, lease, computation).await
            }
            None => self.compute_leaseless(flight, computation).await,
        }
    }

    /// Computes under a lease.
    async fn fill<E>(
        &self,
        flight: &Flight,
        mut lease: Lease,
        computation: &mut Option<impl Computation<E>>,
    ) -> Result<FlightResult, LeaderError<E>> {
        let (mut fetched, store) = self.compute(flight, &mut lease, computation).await?;
        // A value is valid for the followers if the item has not changed until the flight was closed. If it has, or may
        // have, a follower may know of a newer value.
        let store = store.filter(|_| self.operations.value_limit().check(&fetched.value).is_ok());
        let is_valid = if let Some(store) = store {
            // A server that refuses a value for its size does not compare the version first, and deletes the item.
            let is_large = fetched.value.len() >= MAY_BE_TOO_LARGE;
            if is_large && !lease.is_current(self.deadline()).await {
                return Err(LeaderError::Private(fetched));
            }
            match lease.fill(fetched.value.clone(), &store, self.deadline()).await {
                Ok(Outcome::Done) => {
                    fetched.origin = Origin::Computed;
                    true
                }
                Err(error) => is_large && error.kind() == ErrorKind::TooLarge,
                Ok(_) => false,
            }
        } else {
            lease.give_back(self.deadline()).await
        };
        if is_valid { Ok(FlightResult::Value(fetched)) } else { Err(LeaderError::Private(fetched)) }
    }

    /// Has a lease of another process end in time if it was touched. No lease may last longer than this fetch's own.
    async fn limit_lease(&self) {
        let found = self.operations.read_without_value(&self.key, Get::new(), self.deadline()).await;
        let Ok(Some(Item { cas: Some(cas), ttl_left: Some(left), recaching: true, size: Some(0), .. })) = found else {
            return;
        };
        // A server counts whole seconds.
        let longest = TimeLeft::Finite(self.options.lease + Duration::from_secs(1));
        if let (true, Ok(ttl)) = (left > longest, longest.as_ttl()) {
            let _ = self.operations.touch_lease(&self.key, cas, ttl, self.deadline()).await;
        }
    }

    /// Computes under a lock, or without one because another process has it and may have died.
    async fn fill_under<E>(
        &self,
        flight: &Flight,
        mut lock: Option<Lock>,
        computation: &mut Option<impl Computation<E>>,
    ) -> Result<FlightResult, LeaderError<E>> {
        // The lock's previous holder may have stored the value since the last look.
        if let Look::Found(_) = self.look().await {
            flight.close();
            return Ok(FlightResult::LookAgain);
        }
        self.remove_unusable_lease().await;
        let (mut fetched, store) = self.compute(flight, &mut lock, computation).await?;
        let stored = match store {
            // Not over a value that another client has stored meanwhile.
            Some(store) => {
                let (verb, key, value) = (StoreVerb::Add, self.key.clone(), fetched.value.clone());
                self.operations.store_if(verb, key, value, store, self.deadline()).await.map(Some)
            }
            None => Ok(None),
        };
        drop(lock);
        match stored {
            Ok(Some(true)) => fetched.origin = Origin::Computed,
            Ok(Some(false)) => return Err(LeaderError::Private(fetched)),
            Ok(None) | Err(_) => {}
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
        self.compute(flight, &mut None::<Lock>, computation).await.map(|(fetched, _)| FlightResult::Value(fetched))
    }

    /// Computes the value, and renews the claim meanwhile. Returns the value with the options to store it with, if it
    /// is to be stored.
    async fn compute<E>(
        &self,
        flight: &Flight,
        claim: &mut impl Claim,
        computation: &mut Option<impl Computation<E>>,
    ) -> Result<(Fetched, Option<SetOptions>), LeaderError<E>> {
        // A caller that has computed returns, with the value or an error, and never comes here again.
        let Some(computation) = computation.take() else { return Err(LeaderError::Failed(FetchError::WaitTimeout)) };
        let computed = timeout(self.options.compute_timeout, computation);
        match renew_during(claim, self.options.lease, self.timeout, computed).await {
            Ok(Ok(computed)) => {
                flight.close();
                let (value, store) = computed.into_parts(self.options.store);
                if let Some(Err(invalid)) = store.map(|store| store.exptime()) {
                    return Err(LeaderError::Failed(FetchError::Cache(invalid.into())));
                }
                let flags = store.unwrap_or(self.options.store).wire_flags();
                Ok((Fetched { value, flags, origin: Origin::NotStored }, store))
            }
            Ok(Err(error)) => Err(LeaderError::Failed(FetchError::Compute(error))),
            Err(_) => Err(LeaderError::Failed(FetchError::ComputeTimeout)),
        }
    }
}
