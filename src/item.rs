//! The result of a get and the options of a set.

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
    /// Values of up to 256 bytes may share an allocation of 1 KiB with other values, so a small value kept for long may
    /// hold up to 1 KiB of memory. If you keep many of them, keep copies ([`Bytes::copy_from_slice`]). A larger value
    /// has its own buffer.
    pub value: Bytes,
    /// The flags: 32 bits stored with the value. memcached gives them no meaning; clients use them for encodings.
    pub flags: u32,
    /// The CAS unique, if it was requested ([`Client::gets`](crate::Client::gets)). It is 0 if the server runs without
    /// CAS uniques (`-C`): a [`cas`](crate::Client::cas) then fails with
    /// [`Unsupported`](crate::ErrorKind::Unsupported).
    pub cas: Option<Cas>,
}

impl fmt::Debug for Item {
    /// Prints the value's length only, because values do not belong in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item")
            .field("value", &format_args!("{} bytes", self.value.len()))
            .field("flags", &self.flags)
            .field("cas", &self.cas)
            .finish()
    }
}

/// An item's CAS unique: a number that the server changes with every write ("compare and swap").
///
/// Only compare it for equality; do not compute with one that the server made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cas(pub(crate) u64);

/// The result of a [`Client::cas`](crate::Client::cas).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[must_use = "nothing was stored unless this is `Stored`"]
pub enum CasOutcome {
    /// The item had the given CAS unique and was replaced.
    Stored,
    /// The item was written since, so it was left unchanged.
    Changed,
    /// The item no longer exists, so nothing was stored.
    Missing,
}

impl Cas {
    /// Makes a CAS unique from a number of the application, such as the version of a database row.
    ///
    /// An item can be stored under it: [`new_cas`](crate::meta::Set::new_cas).
    #[must_use]
    pub fn new(unique: u64) -> Self {
        Self(unique)
    }

    /// Returns the number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// Returns whether the server that stated it has no CAS uniques (`-C`). Others count from 1.
    pub(crate) fn is_switched_off(self) -> bool {
        self.0 == 0
    }
}

/// The options of a set: the TTL (time to live) and the flags.
///
/// Methods that take these options also take a [`Duration`] or a [`Ttl`]. There is no default TTL: an item that does
/// not expire needs [`Ttl::NEVER`].
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
    /// An invalid duration is an error of the command that gets these options.
    ttl: Result<Ttl, InvalidTtl>,
    flags: u32,
}

impl SetOptions {
    /// Sets the flags: 32 bits that are stored and returned with the value. The default is 0.
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
