//! Server versions, and the ones that commands depend on.

use std::fmt;

/// A released version, such as 1.6.18.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServerVersion(u16, u16, u16);

impl ServerVersion {
    /// The first version with today's meta commands.
    ///
    /// 1.5.22 replies to `mg` in an older form, and runs the data block of an `ms` as commands.
    pub(crate) const META: Self = Self(1, 6, 10);
    /// Misses carry the opaque token and the key. The data block behind an unknown flag is read and dropped.
    pub(crate) const META_ECHO_ON_MISS: Self = Self(1, 6, 18);
    /// `ms` creates a missing item in append and prepend mode (`N`).
    pub(crate) const META_APPEND_VIVIFY: Self = Self(1, 6, 20);
    /// `E` sets the new CAS unique; `md` removes the value and keeps the item (`x`).
    pub(crate) const META_EXPLICIT_CAS: Self = Self(1, 6, 27);
    /// `mg` leaves out the value if its CAS unique is the given one (`C`).
    pub(crate) const META_CONDITIONAL_GET: Self = Self(1, 6, 40);

    /// Parses the text after `VERSION `.
    ///
    /// Text after the three numbers is ignored, because distributions and clouds add some. A text that does not begin
    /// with three numbers, such as a proxy's name, gives `None`.
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
    fn version_texts_of_servers_are_parsed() {
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
