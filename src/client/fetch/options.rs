//! Options, results and errors of a fetch.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::config::LEASE;
use crate::error::Error;
use crate::item::SetOptions;

/// Options of [`Client::fetch`](crate::Client::fetch).
///
/// Made from the options for storing the computed value: a [`Duration`], a [`Ttl`](crate::Ttl) or [`SetOptions`].
/// Everything else has a default.
///
/// ```
/// use std::time::Duration;
/// use memring::{FetchOptions, SetOptions};
///
/// let options = FetchOptions::from(SetOptions::from(Duration::from_secs(300)).flags(7))
///     .wait_timeout(Duration::from_secs(5))
///     .recache_within(Duration::from_secs(30));
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct FetchOptions {
    pub(super) store: SetOptions,
    pub(super) lease: Duration,
    pub(super) compute_timeout: Duration,
    pub(super) wait_timeout: Duration,
    pub(super) on_wait_timeout: OnWaitTimeout,
    pub(super) recache_within: Option<Duration>,
    pub(super) stale: Stale,
}

impl FetchOptions {
    fn new(store: SetOptions) -> Self {
        Self {
            store,
            lease: LEASE,
            compute_timeout: Duration::from_secs(30),
            wait_timeout: Duration::from_secs(1),
            on_wait_timeout: OnWaitTimeout::Compute,
            recache_within: None,
            stale: Stale::Serve,
        }
    }

    /// Sets how long a lease lasts unless it is renewed, in whole seconds. The default is 10 s.
    ///
    /// While a process holds the lease, others wait for the value ([`wait_timeout`](Self::wait_timeout)). A process
    /// that computes renews its lease every third of this time, at least every 3.3 s and at most every 0.5 s. So the
    /// computation may take longer than this. If the process dies, its lease ends after this time, or when another
    /// process has stored a value. A server may end a lease almost a second early: below 3 s, it may end before it is
    /// renewed.
    ///
    /// A computation that blocks its thread for longer is not renewed, and its value not stored. Choose a longer lease
    /// then, or compute in a task for blocking work. Use the same lease in all processes: one that waits with a shorter
    /// lease shortens that of another process, so that it may end before it is renewed.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets how long the computation may take, and with it, how long a lease is renewed. The default is 30 s.
    pub fn compute_timeout(mut self, timeout: Duration) -> Self {
        self.compute_timeout = timeout;
        self
    }

    /// Sets how long to wait for a value that another process computes. The default is 1 s.
    ///
    /// The other process may have died, which cannot be known, so after this time the value is computed here too
    /// ([`OnWaitTimeout::Compute`]). Choose more if a computation takes longer and must not run in several processes at
    /// the same time. Then callers also wait longer if a process has died.
    pub fn wait_timeout(mut self, timeout: Duration) -> Self {
        self.wait_timeout = timeout;
        self
    }

    /// Sets what to do after waiting that long. The default is [`OnWaitTimeout::Compute`].
    pub fn on_wait_timeout(mut self, action: OnWaitTimeout) -> Self {
        self.on_wait_timeout = action;
        self
    }

    /// Renews an item early: one caller computes a new value if the TTL left is below `time`. Off by default.
    ///
    /// All other callers get the old value meanwhile. `time` is at most 30 days. Has no effect before memcached 1.6.10.
    pub fn recache_within(mut self, time: Duration) -> Self {
        self.recache_within = Some(time);
        self
    }

    /// Sets how to use an item that was [invalidated](crate::Client::invalidate). The default is [`Stale::Serve`].
    pub fn stale(mut self, stale: Stale) -> Self {
        self.stale = stale;
        self
    }
}

impl<T: Into<SetOptions>> From<T> for FetchOptions {
    fn from(store: T) -> Self {
        Self::new(store.into())
    }
}

/// What to do if another process does not compute the value within [`FetchOptions::wait_timeout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnWaitTimeout {
    /// Computes the value, and stores it if the item has not changed since the computation began.
    ///
    /// The other process keeps its lease and may still compute. The first of both to finish stores its value. Each one
    /// returns its own value to its own callers.
    Compute,
    /// Fails with [`FetchError::WaitTimeout`].
    Fail,
}

/// How to use a stale value while another caller computes a new one, or if the caller's own computation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stale {
    /// Returns the stale value (stale-while-revalidate).
    Serve,
    /// Waits for the new value.
    Wait,
}

/// The result of [`Client::fetch`](crate::Client::fetch).
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fetched {
    /// The value.
    pub value: Bytes,
    /// The flags stored with the value.
    pub flags: u32,
    /// Where the value comes from.
    pub origin: Origin,
}

impl fmt::Debug for Fetched {
    /// Prints the value's length only, because values do not belong in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetched")
            .field("value", &format_args!("{} bytes", self.value.len()))
            .field("flags", &self.flags)
            .field("origin", &self.origin)
            .finish()
    }
}

/// Where a fetched value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// The value was in the cache.
    Cached,
    /// The value was in the cache, and stale.
    Stale,
    /// The value was computed, by this caller or another one of this client, and stored.
    Computed,
    /// The value was computed and not stored.
    ///
    /// The item was changed meanwhile, also by another process that has computed it, the node is unavailable, the value
    /// is too large, or the computation [decided so](crate::Computed::do_not_store).
    NotStored,
}

/// The error of a fetch that returned no value.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError<E> {
    /// The fetch is not possible: the key, a TTL or an option is invalid, or the client was shut down.
    ///
    /// If only the cache fails, the value is computed instead, without this error.
    #[error("the value cannot be fetched")]
    Cache(#[source] Error),
    /// The computation failed with this error.
    #[error("computing the value failed")]
    Compute(#[source] E),
    /// The computation took longer than [`FetchOptions::compute_timeout`].
    #[error("computing the value took too long")]
    ComputeTimeout,
    /// Another process did not compute the value within [`FetchOptions::wait_timeout`].
    #[error("another process did not compute the value in time")]
    WaitTimeout,
}
