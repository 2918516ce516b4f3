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
use self::lease::{Kind, Lease, Lock};
use super::Client;
use super::meta::{Get, Item, Outcome};
use crate::config::LONGEST_WAIT;
use crate::error::{Error, ErrorKind};
use crate::key::MetaKey;
use crate::protocol::MetaVerb;
use crate::ttl::Ttl;

/// How often a value that another process computes is looked for: at first, and at most.
const FIRST_LOOK_AFTER: Duration = Duration::from_millis(10);
const LOOK_EVERY: Duration = Duration::from_millis(500);

impl Client {
    /// Gives the item's value, or computes and stores it: by one caller at a time, however many ask.
    ///
    /// In this process the callers who miss wait for the first of them to compute; one whose computing fails, or who goes
    /// away, is followed by the next. Other processes are kept from computing by a lease: an empty item that stands for
    /// the value, which memcached hands to one reader ([`FetchOptions::lease`]). They wait for the value, looking for it
    /// in growing intervals ([`FetchOptions::wait`]). A stale item ([`invalidate`](Self::invalidate)) or one that soon
    /// expires ([`FetchOptions::recache_within`]) is given to one caller to renew, while the others may take the old
    /// value ([`FetchOptions::stale`]).
    ///
    /// A value that was computed while the item was invalidated, deleted or stored by someone else goes to its own caller
    /// only, and is not stored. A cache that fails keeps nobody from their value: it is computed, once in this process.
    /// When the computing fails and there is an old value that may be served, that is given.
    ///
    /// Below memcached 1.6.10 there are no leases: a key of its own (`memring:lock:…`) keeps other processes from
    /// computing. That is weaker: a value computed while the item was deleted is stored all the same, nothing is renewed
    /// early, and nothing is ever stale. What goes over the wire either way is in
    /// [the guide](crate::guide#leases-stale-items-early-renewal).
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
    /// [`FetchError`]: what computing answered, or that it took too long, or that another process took too long. The
    /// cache's own failures only where the fetch cannot be made at all.
    ///
    /// It ends by itself, at the latest after twice the [wait](FetchOptions::wait) and the
    /// [limit on computing](FetchOptions::compute_limit) together: as a follower, then as the one who computes. (Computing
    /// that fetches its own key waits for itself, until that limit.)
    ///
    /// # Cancel safety
    /// May be dropped at any time: another caller who waits takes over, and a lease is given back.
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
        // Large, and not the hot path: a caller's future stays small.
        Box::pin(task.run(async { compute().await.map(Into::into) })).await
    }
}

/// One caller's fetch.
struct Task<'a> {
    client: &'a Client,
    key: MetaKey,
    options: FetchOptions,
    look: Get,
}

/// What a look in the cache found.
enum Look {
    Found(Fetched),
    /// The right to fill the item, and the old value if there is one.
    Won(Lease, Option<Fetched>),
    /// Somebody else fills it; the old value, if there is one that may be served.
    Taken(Option<Fetched>),
    /// The server has no leases.
    Absent,
    /// Nothing can be said.
    Failed(Error),
}

/// The caller's computing, which begins when it is first polled, if ever.
trait Computing<E>: Future<Output = Result<Bytes, E>> {}

impl<E, T: Future<Output = Result<Bytes, E>>> Computing<E> for T {}

/// Why a leader has nothing for those who follow it.
enum LeaderError<E> {
    Failed(FetchError<E>),
    /// It has a value that is good for its own caller only.
    Private(Fetched),
}

/// Waits for what a flight brings, until the limit, or for as long as it takes once this caller leads.
async fn follow<T>(limit: Instant, leads: &AtomicBool, landing: impl Future<Output = T>) -> Option<T> {
    let (mut landing, mut limit) = (pin!(landing), pin!(sleep_until(limit)));
    poll_fn(|cx| match landing.as_mut().poll(cx) {
        Poll::Ready(landed) => Poll::Ready(Some(landed)),
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
        Ok(Self { client, key, options, look })
    }

    async fn run<E>(self, computing: impl Computing<E>) -> Result<Fetched, FetchError<E>> {
        let limit = Instant::now() + self.options.wait.saturating_add(self.options.compute_limit).min(LONGEST_WAIT);
        let mut computing = Some(computing);
        loop {
            let look = self.look().await;
            // Nothing is waited for in between: what is joined here was not closed when the look was over.
            let seat = self.client.inner.flights.join(self.key.as_bytes(), !matches!(look, Look::Failed(_)));
            let flight = seat.flight();
            let (mut old, mut cache_fails) = (None, false);
            match look {
                Look::Found(found) | Look::Taken(Some(found)) => return Ok(found),
                // The others may have it: who leads them fills the item.
                Look::Won(lease, value) => {
                    old = value;
                    flight.deposit(lease);
                }
                Look::Taken(None) | Look::Absent => {}
                Look::Failed(error) if error.kind() == ErrorKind::Closed => return Err(FetchError::Cache(error)),
                Look::Failed(_) => cache_fails = true,
            }
            // The one who leads has limits of its own.
            let leads = AtomicBool::new(false);
            let landing = flight.landed.get_or_try_init(|| {
                leads.store(true, Ordering::Relaxed);
                self.lead(flight, cache_fails, &mut computing)
            });
            let failed = match follow(limit, &leads, landing).await {
                Some(Ok(FlightResult::Value(fetched))) => return Ok(fetched.clone()),
                Some(Ok(FlightResult::LookAgain)) if Instant::now() < limit => continue,
                Some(Err(LeaderError::Private(fetched))) => return Ok(fetched),
                Some(Err(LeaderError::Failed(error))) => error,
                Some(Ok(FlightResult::LookAgain)) | None => FetchError::OnWaitTimeout,
            };
            return old.ok_or(failed);
        }
    }

    /// Computes, or waits for another process to.
    async fn lead<E>(
        &self,
        flight: &Flight,
        cache_fails: bool,
        computing: &mut Option<impl Computing<E>>,
    ) -> Result<FlightResult, LeaderError<E>> {
        let over = Instant::now() + self.options.wait.min(LONGEST_WAIT);
        let mut pause = FIRST_LOOK_AFTER;
        let mut wait_is_over = cache_fails;
        loop {
            if let Some(lease) = flight.take_lease() {
                return self.fill(flight, lease, computing).await;
            }
            if wait_is_over {
                return match self.options.when_wait_ends {
                    OnWaitTimeout::Fail if !cache_fails => Err(LeaderError::Failed(FetchError::OnWaitTimeout)),
                    _ => self.compute_leaseless(flight, computing).await,
                };
            }
            match self.look().await {
                // It is looked for once more, by every follower too.
                Look::Found(_) | Look::Taken(Some(_)) => {
                    flight.close();
                    return Ok(FlightResult::LookAgain);
                }
                Look::Won(lease, old) => {
                    let filled = self.fill(flight, lease, computing).await;
                    return match (filled, old) {
                        (Err(LeaderError::Failed(_)), Some(old)) => Err(LeaderError::Private(old)),
                        (filled, _) => filled,
                    };
                }
                Look::Absent => match Lock::take(self.client, self.key.as_bytes(), self.options.lease).await {
                    Ok(Some(lock)) => return self.fill_under(flight, lock, computing).await,
                    Ok(None) => wait_is_over = self.pause(flight, &mut pause, over).await,
                    Err(_) => return self.compute_leaseless(flight, computing).await,
                },
                Look::Taken(None) => wait_is_over = self.pause(flight, &mut pause, over).await,
                Look::Failed(_) => return self.compute_leaseless(flight, computing).await,
            }
        }
    }

    /// Waits until it is time to look again, or a lease has been won; says whether all waiting is over.
    async fn pause(&self, flight: &Flight, pause: &mut Duration, over: Instant) -> bool {
        let jittered = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        *pause = (*pause * 3 / 2).min(LOOK_EVERY);
        let _ = timeout_at(over, timeout(jittered, pin!(flight.lease_won()))).await;
        Instant::now() >= over
    }

    async fn fill<E>(
        &self,
        flight: &Flight,
        lease: Lease,
        computing: &mut Option<impl Computing<E>>,
    ) -> Result<FlightResult, LeaderError<E>> {
        let mut fetched = self.compute(flight, computing).await?;
        match lease.fill(fetched.value.clone(), &self.options.store).await {
            Ok(Outcome::Done) => fetched.origin = Origin::Computed,
            // Good for anybody, but not for the cache.
            Err(error) if error.kind() == ErrorKind::TooLarge => {}
            // The item has changed since, or may have, so that whoever came later may know more than this value does.
            _ => return Err(LeaderError::Private(fetched)),
        }
        Ok(FlightResult::Value(fetched))
    }

    async fn fill_under<E>(
        &self,
        flight: &Flight,
        lock: Lock,
        computing: &mut Option<impl Computing<E>>,
    ) -> Result<FlightResult, LeaderError<E>> {
        // Who had the lock before may have stored the value since it was looked for.
        if let Look::Found(_) = self.look().await {
            flight.close();
            return Ok(FlightResult::LookAgain);
        }
        let mut fetched = self.compute(flight, computing).await?;
        if self.client.set_at(self.key.clone(), fetched.value.clone(), self.options.store).await.is_ok() {
            fetched.origin = Origin::Computed;
        }
        drop(lock);
        Ok(FlightResult::Value(fetched))
    }

    /// Computes without a lease: nothing will tell whether the item has changed meanwhile.
    async fn compute_leaseless<E>(
        &self,
        flight: &Flight,
        computing: &mut Option<impl Computing<E>>,
    ) -> Result<FlightResult, LeaderError<E>> {
        flight.mark_leaseless();
        self.compute(flight, computing).await.map(FlightResult::Value)
    }

    async fn compute<E>(
        &self,
        flight: &Flight,
        computing: &mut Option<impl Computing<E>>,
    ) -> Result<Fetched, LeaderError<E>> {
        // One who has computed leaves: with the value, or with an error.
        let Some(computing) = computing.take() else { return Err(LeaderError::Failed(FetchError::OnWaitTimeout)) };
        match timeout(self.options.compute_limit, computing).await {
            Ok(Ok(value)) => {
                flight.close();
                let flags = self.options.store.wire_flags();
                Ok(Fetched { value, flags, origin: Origin::Unstored })
            }
            Ok(Err(error)) => Err(LeaderError::Failed(FetchError::Compute(error))),
            Err(_) => Err(LeaderError::Failed(FetchError::ComputeTimeout)),
        }
    }

    async fn look(&self) -> Look {
        let found = self.client.meta(MetaVerb::Get, self.key.clone(), self.look.clone().into(), Bytes::new()).await;
        match found.and_then(Item::from_reply) {
            Ok(Some(item)) => self.judge(item),
            // Nothing is missing where it is vivified: a server that does not is taken for one without leases.
            Ok(None) => self.look_plainly().await,
            Err(error) if error.kind() == ErrorKind::Unsupported => self.look_plainly().await,
            Err(error) => Look::Failed(error),
        }
    }

    async fn look_plainly(&self) -> Look {
        match self.client.find_at(&self.key, false).await {
            Ok(Some(item)) => Look::Found(Fetched { value: item.value, flags: item.flags, origin: Origin::Cached }),
            Ok(None) => Look::Absent,
            Err(error) => Look::Failed(error),
        }
    }

    fn judge(&self, item: Item) -> Look {
        let is_lease = item.is_lease();
        let origin = if item.stale { Origin::Stale } else { Origin::Cached };
        let value = item.value.filter(|_| !is_lease);
        let old = value.map(|value| Fetched { value, flags: item.flags.unwrap_or(0), origin });
        let may_serve = !item.stale || self.options.stale == Stale::Serve;
        match (item.won, item.cas, old) {
            (true, Some(cas), old) => {
                let kind = match (is_lease, item.stale) {
                    (true, _) => Kind::Vivified,
                    (false, true) => Kind::Stale,
                    (false, false) => Kind::Early,
                };
                Look::Won(Lease::new(self.client, self.key.clone(), cas, kind), old.filter(|_| may_serve))
            }
            (_, _, Some(old)) if !item.stale => Look::Found(old),
            (_, _, old) => Look::Taken(old.filter(|_| may_serve)),
        }
    }
}
