//! Shortens keys that are longer than memcached accepts.

use md5::Md5;
use sha2::{Digest, Sha256};

use super::{InvalidKey, Key, Repr, check_bytes};

/// What to do with keys over 250 bytes, with the prefix of a [namespace](crate::Client::namespace).
///
/// A shortened key is the beginning of the whole key, so that it is recognizable in a dump, and a digest of the whole
/// key. The key is cut by bytes, possibly within a character. The shortened key goes over the wire and places the item
/// on a node; results carry the caller's own key. Bytes that are invalid in a key are invalid in a long key too.
///
/// Shortened keys are not kept apart from others: a caller's key that equals the shortened form of a long key names the
/// same item.
///
/// Use the same setting in every client of a cache. Clients that shorten keys differently do not find each other's
/// items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LongKeys {
    /// Rejects long keys with [`InvalidKey::TooLong`].
    #[default]
    Refuse,
    /// Shortens to the first 178 bytes, `:sha256:`, and the SHA-256 in 64 hexadecimal digits: 250 bytes.
    ///
    /// If two keys had the same shortened form, one would get the other's value. With SHA-256 it is infeasible to make
    /// such keys.
    Sha256,
    /// Shortens as Dalli for Ruby does: the beginning, `:md5:`, and the MD5 in 32 hexadecimal digits.
    ///
    /// The result is 249 bytes long, or 250 with a namespace. Use this only for caches shared with Dalli, because MD5
    /// does not resist collisions: **an attacker who can choose keys can make two with the same shortened form**, so
    /// that one gets the other's value.
    ///
    /// Dalli puts a colon after a namespace: its `namespace: "app"` is `namespace("app:")` here. The keys agree for
    /// ASCII only, because Ruby counts and cuts characters, while this crate and memcached count bytes.
    Dalli,
}

impl LongKeys {
    /// Shortens a key that was rejected with `too_long`. The prefix has been validated.
    pub(crate) fn shorten(self, prefix: Option<&[u8]>, key: &[u8], too_long: InvalidKey) -> Result<Key, InvalidKey> {
        match self {
            Self::Refuse => Err(too_long),
            Self::Sha256 => join::<Sha256>(prefix, key, b":sha256:", Key::MAX_LEN),
            // One byte less without a namespace. The reason is lost, but the keys of stored items depend on it.
            Self::Dalli => join::<Md5>(prefix, key, b":md5:", Key::MAX_LEN - usize::from(prefix.is_none())),
        }
    }
}

/// Joins the beginning of a key, `separator`, and a digest of the whole key to `len` bytes.
fn join<D: Digest>(prefix: Option<&[u8]>, key: &[u8], separator: &[u8], len: usize) -> Result<Key, InvalidKey> {
    check_bytes(key)?;
    let prefix = prefix.unwrap_or_default();
    let digest = D::new().chain_update(prefix).chain_update(key).finalize();
    let beginning = len - separator.len() - 2 * digest.len();
    let mut shortened = Vec::with_capacity(len);
    shortened.extend(prefix.iter().chain(key).take(beginning));
    shortened.extend_from_slice(separator);
    for byte in digest {
        shortened.extend([byte >> 4, byte & 0xf].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
    }
    Ok(Key(Repr::Heap(shortened.into_boxed_slice())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shorten(long_keys: LongKeys, prefix: Option<&str>, key: &str) -> Result<String, InvalidKey> {
        let len = prefix.map_or(0, str::len) + key.len();
        let shortened = long_keys.shorten(prefix.map(str::as_bytes), key.as_bytes(), InvalidKey::TooLong { len })?;
        assert_eq!(Key::new(&shortened).unwrap(), shortened, "a valid key");
        Ok(String::from_utf8_lossy(shortened.as_bytes()).into_owned())
    }

    /// The expected digests are from Python's hashlib.
    #[test]
    fn shortened_keys_match_known_digests() {
        let sha = |prefix, key: &str| shorten(LongKeys::Sha256, prefix, key).unwrap();
        let dalli = |prefix, key: &str| shorten(LongKeys::Dalli, prefix, key).unwrap();
        let k = |count| "k".repeat(count);
        let digest = "3b8059c637939a483bdc7beef09f11b566581be6d14e25083b3041b77717de02";
        assert_eq!(sha(None, &k(251)), format!("{}:sha256:{digest}", k(178)));
        let digest = "2e9724a8898370c48875cee88c8408ec0e33e876912dc67b5a2c7a4d1793b2ad";
        assert_eq!(sha(None, &k(252)), format!("{}:sha256:{digest}", k(178)));
        assert_eq!(dalli(None, &k(251)), format!("{}:md5:f0506ef804c48c4c4a9816dcef0b6091", k(212)));
        assert_eq!(dalli(None, &k(252)), format!("{}:md5:063d9ee70d41b9832a793b1d740f4694", k(212)));

        let x = |count| "x".repeat(count);
        let digest = "4253ea90e0110b71a9be4e2dfafbf7227f797b2bd06b5518dde46dfe8f69cae0";
        assert_eq!(sha(Some("ns:"), &x(248)), format!("ns:{}:sha256:{digest}", x(175)));
        let digest = "6bad8a453bebcf244e316be438049f04";
        assert_eq!(dalli(Some("ns:"), &x(248)), format!("ns:{}:md5:{digest}", x(210)));
        // The digest does not depend on where the prefix ends.
        assert_eq!(sha(Some("ns:xx"), &x(246)), sha(Some("ns:"), &x(248)));

        let (e, digest) = ("é".repeat(130), "0e4534362fc1bd4acf7b4e5c666b331c40885e13d9e4553199ca6664345ef867");
        assert_eq!(sha(None, &e), format!("{}:sha256:{digest}", "é".repeat(89)));
    }

    #[test]
    fn a_key_may_be_cut_within_a_character() {
        let odd = format!("k{}", "é".repeat(130));
        for long_keys in [LongKeys::Sha256, LongKeys::Dalli] {
            assert!(shorten(long_keys, None, &odd).unwrap().contains("\u{fffd}:"));
        }
    }

    #[test]
    fn long_keys_that_differ_only_at_the_end_stay_different() {
        for long_keys in [LongKeys::Sha256, LongKeys::Dalli] {
            let beginning = "k".repeat(300);
            let shortened: std::collections::HashSet<_> =
                (0..1_000).map(|n| shorten(long_keys, None, &format!("{beginning}{n}")).unwrap()).collect();
            assert_eq!(shortened.len(), 1_000);
        }
    }

    #[test]
    fn bytes_invalid_in_a_key_are_invalid_in_a_long_key() {
        let key = format!("{}\r\n", "k".repeat(300));
        for long_keys in [LongKeys::Sha256, LongKeys::Dalli] {
            assert_eq!(shorten(long_keys, None, &key), Err(InvalidKey::Byte { value: b'\r', at: 300 }));
        }
        assert_eq!(shorten(LongKeys::Refuse, None, &"k".repeat(251)), Err(InvalidKey::TooLong { len: 251 }));
    }
}
