//! Versions of memcached, as far as commands depend on them.

use std::fmt;

/// A released version, such as 1.6.18.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServerVersion(u16, u16, u16);

impl ServerVersion {
    /// The first whose meta commands answer as today's do. (1.5.22 answers `mg` in an older framing, and runs the data
    /// block of an `ms` as commands.)
    pub(crate) const META: Self = Self(1, 6, 10);
    /// Misses echo the opaque token and the key; data blocks are swallowed when a flag is not known.
    pub(crate) const META_ECHO_ON_MISS: Self = Self(1, 6, 18);
    /// `ms` in append and prepend mode creates a missing item (`N`).
    pub(crate) const META_APPEND_VIVIFY: Self = Self(1, 6, 20);
    /// `E` names the new version; `md` takes a value off its item (`x`).
    pub(crate) const META_EXPLICIT_CAS: Self = Self(1, 6, 27);
    /// `mg` leaves out a value whose version is known (`C`).
    pub(crate) const META_CONDITIONAL_GET: Self = Self(1, 6, 40);

    /// Reads what follows `VERSION `. Builds of distributions and clouds add something to the three numbers; a proxy with
    /// a name of its own is no memcached.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.splitn(3, '.');
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.parse().ok()?;
        let patch = numbers.next()?;
        let digits = patch.bytes().take_while(u8::is_ascii_digit).count();
        Some(Self(major, minor, patch[..digits].parse().ok()?))
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_servers_say_it() {
        for (text, version) in [
            ("1.6.18", Some(ServerVersion(1, 6, 18))),
            ("1.4.31-beta", Some(ServerVersion(1, 4, 31))),
            ("1.6.21_17_gabc", Some(ServerVersion(1, 6, 21))),
            ("1.6.12 (Debian)", Some(ServerVersion(1, 6, 12))),
            ("mcrouter 0.41.0", None),
            ("1.6", None),
            ("1.6.", None),
            ("1.6.x", None),
            ("", None),
            ("99999.1.1", None),
        ] {
            assert_eq!(ServerVersion::parse(text), version, "{text:?}");
        }
        assert!(ServerVersion::META < ServerVersion::META_ECHO_ON_MISS);
        assert!(ServerVersion(1, 10, 0) > ServerVersion(1, 6, 45) && ServerVersion(2, 0, 0) > ServerVersion(1, 10, 0));
        assert_eq!(ServerVersion::META.to_string(), "1.6.10");
    }
}
