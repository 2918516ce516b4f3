//! TTLs (times to live), without the pitfalls of memcached's expiry times.

use std::convert::Infallible;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;

/// The longest expiry time, in seconds, that memcached reads as relative. It reads a larger one as a Unix timestamp.
pub(crate) const MAX_RELATIVE: u64 = 60 * 60 * 24 * 30;

/// 2038-01-19T03:14:07Z. A server treats an item with a later timestamp as expired at once.
const LAST_TIMESTAMP: u64 = i32::MAX as u64;

/// An item's TTL (time to live).
///
/// A `Ttl` is a plain duration. Fractions of a second are rounded up, and zero is an error. An item that does not
/// expire has [`Ttl::NEVER`]. More than 30 days becomes the timestamp that the server needs, by this machine's clock at
/// the time the command is made.
///
/// memcached's own expiry times have pitfalls: 0 means never, and more than 30 days is read as a Unix timestamp, so "31
/// days" is in 1970. From 2^31 on, items expire at once, and 2^32 + 5 means 5 seconds.
///
/// ```
/// use std::time::Duration;
/// use memring::Ttl;
///
/// let a_year = Ttl::new(Duration::from_secs(365 * 24 * 3600))?;
/// assert_eq!(Ttl::new(Duration::from_millis(500))?, Ttl::new(Duration::from_secs(1))?);
/// assert!(Ttl::new(Duration::ZERO).is_err());
/// # Ok::<(), memring::InvalidTtl>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ttl(Option<u64>);

impl Ttl {
    /// The item does not expire: it stays until it is deleted or evicted.
    pub const NEVER: Self = Self(None);

    /// Makes a TTL from a duration, rounded up to whole seconds.
    ///
    /// # Errors
    /// [`InvalidTtl`] if the duration is zero, or if it ends after 2038-01-19T03:14:07Z, the last time memcached can
    /// store.
    pub fn new(ttl: Duration) -> Result<Self, InvalidTtl> {
        let seconds = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
        if seconds == 0 {
            return Err(InvalidTtl::Zero);
        }
        let ttl = Self(Some(seconds));
        ttl.exptime(SystemTime::now)?;
        Ok(ttl)
    }

    /// Returns the expiry time on the wire for a command made at `now`. Calls `now` only if the result depends on it.
    pub(crate) fn exptime(self, now: impl FnOnce() -> SystemTime) -> Result<u32, InvalidTtl> {
        let Some(seconds) = self.0 else { return Ok(0) };
        if seconds <= MAX_RELATIVE {
            return u32::try_from(seconds).map_err(|_| InvalidTtl::TooFar);
        }
        // With a clock before 1970 there is no valid timestamp.
        let now = now().duration_since(UNIX_EPOCH).map_err(|_| InvalidTtl::TooFar)?;
        let timestamp = now.as_secs().saturating_add(seconds);
        if timestamp > LAST_TIMESTAMP {
            return Err(InvalidTtl::TooFar);
        }
        u32::try_from(timestamp).map_err(|_| InvalidTtl::TooFar)
    }
}

impl TryFrom<Duration> for Ttl {
    type Error = InvalidTtl;

    fn try_from(ttl: Duration) -> Result<Self, InvalidTtl> {
        Self::new(ttl)
    }
}

/// Conversion into a [`Ttl`], for methods that take one: implemented for [`Ttl`] and [`Duration`].
///
/// Also implemented for every other type that converts into a `Ttl` by [`TryInto`].
pub trait IntoTtl {
    /// Converts into a TTL.
    ///
    /// # Errors
    /// [`InvalidTtl`] if the value is no valid TTL. The command that got it then fails with
    /// [`ErrorKind::InvalidTtl`](crate::ErrorKind::InvalidTtl), and nothing is sent.
    fn into_ttl(self) -> Result<Ttl, InvalidTtl>;
}

impl<T> IntoTtl for T
where
    T: TryInto<Ttl>,
    InvalidTtl: From<T::Error>,
{
    fn into_ttl(self) -> Result<Ttl, InvalidTtl> {
        self.try_into().map_err(InvalidTtl::from)
    }
}

/// The error for a duration that is not a valid TTL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidTtl {
    /// The TTL is zero, which memcached reads as "never" and most people as "at once".
    ///
    /// Use [`Ttl::NEVER`], or delete the item.
    #[error("the TTL is zero; use Ttl::NEVER for an item that does not expire")]
    Zero,
    /// The TTL ends after 2038-01-19T03:14:07Z. memcached would drop the item at once.
    #[error("the TTL ends after 2038-01-19T03:14:07Z, the last time memcached can store")]
    TooFar,
}

impl From<Infallible> for InvalidTtl {
    /// Lets [`IntoTtl`] cover `Ttl`, whose conversion into itself cannot fail.
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(timestamp: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(timestamp)
    }

    fn exptime(ttl: Duration, now: u64) -> Result<u32, InvalidTtl> {
        Ttl::new(ttl)?.exptime(|| at(now))
    }

    #[test]
    fn fractions_are_rounded_up_and_zero_is_rejected() {
        assert_eq!(exptime(Duration::from_millis(500), 1_000), Ok(1));
        assert_eq!(exptime(Duration::from_nanos(1), 1_000), Ok(1));
        assert_eq!(exptime(Duration::from_millis(1_001), 1_000), Ok(2));
        assert_eq!(Ttl::new(Duration::ZERO), Err(InvalidTtl::Zero));
        assert_eq!(Ttl::NEVER.exptime(|| at(1_000)), Ok(0));
    }

    #[test]
    fn more_than_30_days_becomes_a_timestamp() {
        let days = |n: u64| Duration::from_secs(n * 86_400);
        assert_eq!(exptime(days(30), 1_700_000_000), Ok(2_592_000));
        assert_eq!(exptime(days(30) + Duration::from_nanos(1), 1_700_000_000), Ok(1_700_000_000 + 2_592_001));
        assert_eq!(exptime(days(365), 1_700_000_000), Ok(1_700_000_000 + 31_536_000));
    }

    #[test]
    fn a_ttl_that_ends_after_2038_is_rejected() {
        let last = 2_147_483_647;
        let long = Duration::from_secs(2_592_001);
        let ttl = Ttl(Some(2_592_001));
        assert_eq!(ttl.exptime(|| at(last - 2_592_001)), Ok(last as u32));
        assert_eq!(ttl.exptime(|| at(last - 2_592_000)), Err(InvalidTtl::TooFar));
        assert_eq!(ttl.exptime(|| UNIX_EPOCH - long), Err(InvalidTtl::TooFar));
        for seconds in [1 << 31, (1 << 32) + 5, u64::MAX] {
            assert_eq!(Ttl::new(Duration::from_secs(seconds)), Err(InvalidTtl::TooFar), "{seconds}");
        }
        assert_eq!(Ttl::new(Duration::MAX), Err(InvalidTtl::TooFar));
    }
}
