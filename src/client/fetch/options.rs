//! How a fetch is to go, what it gives, and how it fails.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::error::Error;
use crate::item::SetOptions;

/// How [`Client::fetch`](crate::Client::fetch) goes about it.
///
/// Made from what [`set`](crate::Client::set) takes: a [`Duration`], a [`Ttl`](crate::Ttl) or [`SetOptions`] say how the computed
/// value is stored. Everything else has a default.
///
/// ```
/// use std::time::Duration;
/// use memring::{FetchOptions, SetOptions};
///
/// let options = FetchOptions::from(SetOptions::from(Duration::from_secs(300)).flags(7))
///     .lease(Duration::from_secs(10))
///     .recache_within(Duration::from_secs(30));
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct FetchOptions {
    pub(super) store: SetOptions,
    pub(super) lease: Duration,
    pub(super) compute_limit: Duration,
    pub(super) wait: Duration,
    pub(super) when_wait_ends: OnWaitTimeout,
    pub(super) recache_within: Option<Duration>,
    pub(super) stale: Stale,
}

impl FetchOptions {
    fn new(store: SetOptions) -> Self {
        Self {
            store,
            lease: Duration::from_secs(30),
            compute_limit: Duration::from_secs(30),
            wait: Duration::from_secs(10),
            when_wait_ends: OnWaitTimeout::Compute,
            recache_within: None,
            stale: Stale::Serve,
        }
    }

    /// For how long other processes leave the computing to the one that has begun; 30 s unless set, in whole seconds.
    /// Should that one die, another takes over after this time at the latest, so it should be a little more than the
    /// computing takes.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// How long the computing may take; 30 s unless set.
    pub fn compute_limit(mut self, limit: Duration) -> Self {
        self.compute_limit = limit;
        self
    }

    /// How long to wait for a value that another process computes; 10 s unless set.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// What to do when that time is over; to compute, unless set.
    pub fn when_wait_ends(mut self, what: OnWaitTimeout) -> Self {
        self.when_wait_ends = what;
        self
    }

    /// Has one caller compute a new value when the item lives less long than this, while everybody else still gets the
    /// old one. Not done unless set. At most 30 days. Needs memcached 1.6.10; without effect on an older one.
    pub fn recache_within(mut self, time: Duration) -> Self {
        self.recache_within = Some(time);
        self
    }

    /// What to make of an item that was [invalidated](crate::Client::invalidate); to serve it, unless set.
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

/// What a caller does who has waited long enough for a value that another process computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnWaitTimeout {
    /// Computes the value for itself, and does not store it.
    Compute,
    /// Fails with [`FetchError::WaitTimeout`].
    Fail,
}

/// What a caller does with a stale value while another computes the new one, and when its own computing fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stale {
    /// Takes it.
    Serve,
    /// Waits for the new one.
    Wait,
}

/// What [`Client::fetch`](crate::Client::fetch) gives.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fetched {
    /// The value.
    pub value: Bytes,
    /// The 32 bits stored beside it.
    pub flags: u32,
    /// Where it comes from.
    pub origin: Origin,
}

impl fmt::Debug for Fetched {
    /// Prints the value's length only: values do not belong in a log.
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
    /// It was in the cache.
    Cached,
    /// It was in the cache, and stale.
    Stale,
    /// It was computed, by this caller or another of this client, and stored.
    Computed,
    /// It was computed and could not be stored: the item has changed since, the node is away, the value is too large,
    /// or another process is still at it.
    Unstored,
}

/// Why a fetch gives no value.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError<E> {
    /// The fetch cannot be made at all: the key, a time to live or an option is invalid, or the client was shut down.
    /// (A cache that merely fails is no reason: the value is then computed.)
    #[error("the value cannot be fetched")]
    Cache(#[source] Error),
    /// The computing failed, with this.
    #[error("the value could not be computed")]
    Compute(#[source] E),
    /// The computing took longer than [`FetchOptions::compute_limit`].
    #[error("the value was not computed in time")]
    ComputeTimeout,
    /// Another process is computing the value, and was not done within [`FetchOptions::wait`].
    #[error("the value was not computed elsewhere in time")]
    WaitTimeout,
}
