//! How long an item lives, without memcached's traps.

use std::convert::Infallible;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use thiserror::Error;

/// The longest time memcached reads as "from now"; anything above is a Unix timestamp to it.
pub(crate) const MAX_RELATIVE: u64 = 60 * 60 * 24 * 30;

/// 2038-01-19T03:14:07Z. A server stores a later timestamp and at once treats the item as expired.
const LAST_TIMESTAMP: u64 = i32::MAX as u64;

/// An item's time to live.
///
/// On the wire memcached's expiry time is a trap: 0 is for ever, more than 30 days is read as a Unix timestamp (so
/// that "31 days" is a moment in 1970), from 2^31 on items vanish at once, and 2^32 + 5 means 5 seconds. A `Ttl` is a
/// plain duration: fractions of a second are rounded up, zero is refused, "for ever" is spelled [`Ttl::NEVER`], and more
/// than 30 days is turned into the timestamp the server needs, by this machine's clock when the command is made.
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
    /// The item stays until it is deleted or evicted.
    pub const NEVER: Self = Self(None);

    /// A time to live from now, rounded up to whole seconds.
    ///
    /// # Errors
    /// [`InvalidTtl`] if it is zero, or if it ends after 2038-01-19T03:14:07Z, the last moment memcached can hold.
    pub fn new(ttl: Duration) -> Result<Self, InvalidTtl> {
        let seconds = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
        if seconds == 0 {
            return Err(InvalidTtl::Zero);
        }
        let ttl = Self(Some(seconds));
        ttl.exptime(SystemTime::now)?;
        Ok(ttl)
    }

    /// What goes over the wire if the command is made at `now`, which is asked for only where it plays a part.
    pub(crate) fn exptime(self, now: impl FnOnce() -> SystemTime) -> Result<u32, InvalidTtl> {
        let Some(seconds) = self.0 else { return Ok(0) };
        if seconds <= MAX_RELATIVE {
            return u32::try_from(seconds).map_err(|_| InvalidTtl::TooFar);
        }
        // A clock set before 1970 leaves no way to say it.
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

/// What a command takes for a time to live: a [`Ttl`], a [`Duration`], or anything that makes a `Ttl`.
pub trait IntoTtl {
    /// The time to live.
    ///
    /// # Errors
    /// [`InvalidTtl`] if it makes none. A command it is given to then fails with
    /// [`ErrorKind::InvalidTtl`](crate::ErrorKind::InvalidTtl), unsent.
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

/// Why a duration is not a time to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidTtl {
    /// Zero means "for ever" to memcached and "at once" to most people. Say [`Ttl::NEVER`], or delete the item.
    #[error("a time to live of zero; say Ttl::NEVER for an item that does not expire")]
    Zero,
    /// It ends after 2038-01-19T03:14:07Z, beyond which memcached drops items at once.
    #[error("the time to live ends after 2038-01-19T03:14:07Z, the last moment memcached can hold")]
    TooFar,
}

impl From<Infallible> for InvalidTtl {
    /// For a `Ttl` given where a `Duration` would do.
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
    fn fractions_round_up_and_zero_is_refused() {
        assert_eq!(exptime(Duration::from_millis(500), 1_000), Ok(1));
        assert_eq!(exptime(Duration::from_nanos(1), 1_000), Ok(1));
        assert_eq!(exptime(Duration::from_millis(1_001), 1_000), Ok(2));
        assert_eq!(Ttl::new(Duration::ZERO), Err(InvalidTtl::Zero));
        assert_eq!(Ttl::NEVER.exptime(|| at(1_000)), Ok(0));
    }

    #[test]
    fn more_than_thirty_days_is_a_timestamp() {
        let days = |n: u64| Duration::from_secs(n * 86_400);
        assert_eq!(exptime(days(30), 1_700_000_000), Ok(2_592_000));
        assert_eq!(exptime(days(30) + Duration::from_nanos(1), 1_700_000_000), Ok(1_700_000_000 + 2_592_001));
        assert_eq!(exptime(days(365), 1_700_000_000), Ok(1_700_000_000 + 31_536_000));
    }

    #[test]
    fn nothing_ends_after_2038() {
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
