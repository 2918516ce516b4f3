//! What a get answers and what a set may say.

use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::ttl::{InvalidTtl, Ttl};

/// A value found in the cache.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Item {
    /// The value, exactly as it was stored.
    ///
    /// A small one, of up to 256 bytes, may share an allocation of 1 KiB with those that came before and after it, which
    /// is freed with the last of them: one that is kept for long may keep up to 1 KiB. Where many are kept, keep a copy
    /// ([`Bytes::copy_from_slice`]). A larger one has a buffer of its own.
    pub value: Bytes,
    /// The 32 bits stored beside the value. memcached gives them no meaning; clients use them for encodings.
    pub flags: u32,
    /// The item's version, if it was asked for ([`Client::gets`](crate::Client::gets)).
    pub cas: Option<Cas>,
}

impl fmt::Debug for Item {
    /// Prints the value's length only: values do not belong in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item")
            .field("value", &format_args!("{} bytes", self.value.len()))
            .field("flags", &self.flags)
            .field("cas", &self.cas)
            .finish()
    }
}

/// An item's version ("compare and swap" token). It changes with every write; compare only, and never compute with one the
/// server made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cas(pub(crate) u64);

/// What became of a [`Client::cas`](crate::Client::cas).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[must_use = "nothing was stored unless it says so"]
pub enum CasOutcome {
    /// The item was still the version named, and is replaced.
    Stored,
    /// Somebody has written it since; it was left alone.
    Changed,
    /// It is not there any more; nothing was stored.
    Missing,
}

impl Cas {
    /// A version made elsewhere: a row's version, say, that the item is stored under
    /// ([`new_cas`](crate::meta::Set::new_cas)).
    #[must_use]
    pub fn new(version: u64) -> Self {
        Self(version)
    }

    /// The number itself.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

/// How an item is stored: how long it lives, and its flags.
///
/// Wherever options are taken, a [`Duration`] or a [`Ttl`] will do. There is no default time to live: an item for ever
/// must be asked for.
///
/// ```
/// use std::time::Duration;
/// use memring::{SetOptions, Ttl};
///
/// let brief = SetOptions::from(Duration::from_secs(60));
/// let tagged = SetOptions::from(Ttl::NEVER).flags(7);
/// # let _ = (brief, tagged);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct SetOptions {
    /// A duration that makes no `Ttl` is refused by the command it is given to.
    ttl: Result<Ttl, InvalidTtl>,
    flags: u32,
}

impl SetOptions {
    /// The 32 bits kept beside the value and given back with it; 0 unless set.
    #[must_use]
    pub fn flags(mut self, flags: u32) -> Self {
        self.flags = flags;
        self
    }

    pub(crate) fn wire_flags(&self) -> u32 {
        self.flags
    }

    pub(crate) fn ttl(&self) -> Result<Ttl, InvalidTtl> {
        self.ttl
    }

    pub(crate) fn exptime(&self) -> Result<u32, InvalidTtl> {
        self.ttl?.exptime(SystemTime::now)
    }
}

impl From<Duration> for SetOptions {
    fn from(ttl: Duration) -> Self {
        Self { ttl: Ttl::new(ttl), flags: 0 }
    }
}

impl From<Ttl> for SetOptions {
    fn from(ttl: Ttl) -> Self {
        Self { ttl: Ok(ttl), flags: 0 }
    }
}
