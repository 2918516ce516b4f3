//! Keys longer than memcached takes: their beginning, and a digest of the whole.

use md5::Md5;
use sha2::{Digest, Sha256};

use super::{InvalidKey, Key, Repr, check_bytes};

/// What becomes of keys over 250 bytes, a [namespace](crate::Client::namespace)'s prefix included.
///
/// A shortened key is an ordinary one from there on: it is what goes over the wire and what is placed on a node, while
/// answers carry the caller's own key. Its beginning is that of the whole key, so that it can be told in a dump; it is
/// cut by bytes, if need be within a character. Bytes that no key may hold are refused in long keys too. Long and short
/// keys share one space: a caller's own key that reads like the shortened form of another is that key.
///
/// Every client of a cache must be set alike: one that shortens in another way looks elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LongKeys {
    /// They are refused: [`InvalidKey::TooLong`].
    #[default]
    Refuse,
    /// The first 178 bytes, `:sha256:`, and the SHA-256 of the whole in 64 hexadecimal digits: 250 bytes. Two keys that
    /// come out the same would give one caller the other's value; by SHA-256 nobody can make such keys.
    Sha256,
    /// As Dalli for Ruby does: the beginning, `:md5:`, and the MD5 of the whole in 32 hexadecimal digits; 249 bytes
    /// without a namespace, 250 with one. For caches shared with Dalli only: **whoever can choose keys can choose two
    /// that come out the same**, and so have one answered with the other's value, for MD5 does not resist that.
    ///
    /// Dalli puts a colon after a namespace: its `namespace: "app"` is `namespace("app:")` here. The keys are the same for
    /// ASCII only: Ruby counts and cuts by characters where this counts bytes, as memcached does.
    Dalli,
}

impl LongKeys {
    /// The key that stands for a key found to be `too_long`. A prefix has been checked.
    pub(crate) fn shorten(self, prefix: Option<&[u8]>, key: &[u8], too_long: InvalidKey) -> Result<Key, InvalidKey> {
        match self {
            Self::Refuse => Err(too_long),
            Self::Sha256 => join::<Sha256>(prefix, key, b":sha256:", Key::MAX_LEN),
            // One less without a namespace: nobody remembers why, and stored keys depend on it.
            Self::Dalli => join::<Md5>(prefix, key, b":md5:", Key::MAX_LEN - usize::from(prefix.is_none())),
        }
    }
}

/// The beginning of a key, `mark`, and a digest of the whole: `len` bytes.
fn join<D: Digest>(prefix: Option<&[u8]>, key: &[u8], mark: &[u8], len: usize) -> Result<Key, InvalidKey> {
    check_bytes(key)?;
    let prefix = prefix.unwrap_or_default();
    let digest = D::new().chain_update(prefix).chain_update(key).finalize();
    let beginning = len - mark.len() - 2 * digest.len();
    let mut short = Vec::with_capacity(len);
    short.extend(prefix.iter().chain(key).take(beginning));
    short.extend_from_slice(mark);
    for byte in digest {
        short.extend([byte >> 4, byte & 0xf].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
    }
    Ok(Key(Repr::Heap(short.into_boxed_slice())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shorten(how: LongKeys, prefix: Option<&str>, key: &str) -> Result<String, InvalidKey> {
        let len = prefix.map_or(0, str::len) + key.len();
        let made = how.shorten(prefix.map(str::as_bytes), key.as_bytes(), InvalidKey::TooLong { len })?;
        assert_eq!(Key::new(&made).unwrap(), made, "a key as any other");
        Ok(String::from_utf8_lossy(made.as_bytes()).into_owned())
    }

    /// By Python's hashlib.
    #[test]
    fn as_computed_elsewhere() {
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
        // Where the prefix ends makes no difference to the digest.
        assert_eq!(sha(Some("ns:xx"), &x(246)), sha(Some("ns:"), &x(248)));

        let (e, digest) = ("é".repeat(130), "0e4534362fc1bd4acf7b4e5c666b331c40885e13d9e4553199ca6664345ef867");
        assert_eq!(sha(None, &e), format!("{}:sha256:{digest}", "é".repeat(89)));
    }

    #[test]
    fn cuts_within_a_character() {
        let odd = format!("k{}", "é".repeat(130));
        for how in [LongKeys::Sha256, LongKeys::Dalli] {
            assert!(shorten(how, None, &odd).unwrap().contains("\u{fffd}:"));
        }
    }

    #[test]
    fn keys_that_differ_at_the_end_stay_different() {
        for how in [LongKeys::Sha256, LongKeys::Dalli] {
            let beginning = "k".repeat(300);
            let made: std::collections::HashSet<_> =
                (0..1_000).map(|n| shorten(how, None, &format!("{beginning}{n}")).unwrap()).collect();
            assert_eq!(made.len(), 1_000);
        }
    }

    #[test]
    fn what_no_key_may_hold_no_long_key_may_hold() {
        let key = format!("{}\r\n", "k".repeat(300));
        for how in [LongKeys::Sha256, LongKeys::Dalli] {
            assert_eq!(shorten(how, None, &key), Err(InvalidKey::Byte { value: b'\r', at: 300 }));
        }
        assert_eq!(shorten(LongKeys::Refuse, None, &"k".repeat(251)), Err(InvalidKey::TooLong { len: 251 }));
    }
}
