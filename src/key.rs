//! Keys, validated when they enter the client, so that no key can change the command it is written into.

#[cfg(feature = "long-keys")]
mod long;
mod space;

use std::borrow::Borrow;
use std::fmt;

use bytes::BytesMut;
use data_encoding::BASE64;
use thiserror::Error;

#[cfg(feature = "long-keys")]
pub use self::long::LongKeys;
pub(crate) use self::space::KeySpace;

/// Keys up to this length need no allocation.
const INLINE_LEN: usize = 62;

/// The longest namespace prefix in bytes. The rest of [`Key::MAX_LEN`] is for the caller's key.
const MAX_PREFIX_LEN: usize = 200;

/// A memcached key: 1 to 250 bytes without spaces and control bytes.
///
/// Every method of [`Client`](crate::Client) that takes a key validates it by this rule before it sends anything. Bytes
/// from 0x80 up are allowed, so UTF-8 keys work on every server. The feature `long-keys` allows longer keys.
///
/// ```
/// use memring::{InvalidKey, Key};
///
/// assert!(Key::new("user:42").is_ok());
/// assert!(Key::new("naïve").is_ok());
/// assert_eq!(Key::new("").unwrap_err(), InvalidKey::Empty);
/// assert!(matches!(Key::new("two words").unwrap_err(), InvalidKey::Byte { value: b' ', at: 3, .. }));
/// assert!(matches!(Key::new("x".repeat(251)).unwrap_err(), InvalidKey::TooLong { len: 251, .. }));
/// ```
#[derive(Clone)]
pub struct Key(Repr);

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE_LEN] },
    Heap(Box<[u8]>),
}

impl Key {
    /// The longest key that memcached accepts, in bytes.
    pub const MAX_LEN: usize = 250;

    /// Validates and copies a key.
    ///
    /// # Errors
    /// [`InvalidKey`] if the key is empty, is longer than [`MAX_LEN`](Self::MAX_LEN), or holds a space or control byte.
    #[inline]
    pub fn new(key: impl AsRef<[u8]>) -> Result<Self, InvalidKey> {
        let mut new = Self::placeholder();
        new.assign(&[], key.as_ref())?;
        Ok(new)
    }

    /// Returns a placeholder to [assign](Self::assign) a key to.
    #[inline]
    pub(crate) fn placeholder() -> Self {
        Self(Repr::Inline { len: 0, bytes: [0; INLINE_LEN] })
    }

    /// Replaces this key by `prefix` and `key`, in place. The prefix has been validated. On an error nothing changes.
    ///
    /// In place because every get does this, and the processor stalls if bytes written in one width are then moved in
    /// another.
    #[inline]
    pub(crate) fn assign(&mut self, prefix: &[u8], key: &[u8]) -> Result<(), InvalidKey> {
        if key.is_empty() {
            return Err(InvalidKey::Empty);
        }
        let len = prefix.len() + key.len();
        if len > Self::MAX_LEN {
            return Err(InvalidKey::TooLong { len });
        }
        check_bytes(key)?;
        match (&mut self.0, u8::try_from(len)) {
            (Repr::Inline { len: inline_len, bytes }, Ok(len)) if usize::from(len) <= INLINE_LEN => {
                *inline_len = len;
                if prefix.is_empty() {
                    bytes[..key.len()].copy_from_slice(key);
                } else {
                    let (head, rest) = bytes.split_at_mut(prefix.len());
                    head.copy_from_slice(prefix);
                    rest[..key.len()].copy_from_slice(key);
                }
            }
            (repr, _) => *repr = Repr::from_parts(prefix, key),
        }
        Ok(())
    }

    /// Returns the key's bytes, as they go over the wire.
    #[must_use]
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Heap(bytes) => bytes,
        }
    }
}

impl Repr {
    /// Joins two parts that are a valid key together.
    #[cold]
    fn from_parts(prefix: &[u8], key: &[u8]) -> Self {
        let whole = [prefix, key].concat();
        match u8::try_from(whole.len()) {
            Ok(len) if whole.len() <= INLINE_LEN => {
                let mut bytes = [0; INLINE_LEN];
                bytes[..whole.len()].copy_from_slice(&whole);
                Self::Inline { len, bytes }
            }
            _ => Self::Heap(whole.into_boxed_slice()),
        }
    }
}

/// Returns the prefix of a namespace within another one.
fn nested_prefix(outer: &[u8], inner: &[u8]) -> Result<Vec<u8>, InvalidKey> {
    if inner.is_empty() {
        return Err(InvalidKey::Empty);
    }
    check_bytes(inner)?;
    let len = outer.len() + inner.len();
    if len > MAX_PREFIX_LEN {
        return Err(InvalidKey::PrefixTooLong { len });
    }
    Ok([outer, inner].concat())
}

#[inline]
fn check_bytes(key: &[u8]) -> Result<(), InvalidKey> {
    if is_allowed(key) {
        return Ok(());
    }
    match key.iter().position(|&byte| is_forbidden(byte)) {
        Some(at) => Err(InvalidKey::Byte { value: key[at], at }),
        None => Ok(()),
    }
}

fn is_forbidden(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7f
}

/// Returns whether no byte is forbidden. Tests eight bytes at a time, because every key of every command comes here.
#[inline]
fn is_allowed(key: &[u8]) -> bool {
    let Some(last) = key.last_chunk::<8>() else { return !key.iter().any(|&byte| is_forbidden(byte)) };
    // The last eight bytes overlap the chunks before, unless the length is a multiple of eight.
    let mut found = forbidden_in(u64::from_ne_bytes(*last));
    for chunk in key.as_chunks::<8>().0 {
        found |= forbidden_in(u64::from_ne_bytes(*chunk));
    }
    found == 0
}

/// Returns zero if none of the eight bytes is forbidden.
///
/// Uses the tests "a byte less than n" and "a zero byte" of Sean Eron Anderson's "Bit Twiddling Hacks".
fn forbidden_in(bytes: u64) -> u64 {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = EACH * 0x80;
    let delete = bytes ^ (EACH * 0x7f);
    let up_to_space = bytes.wrapping_sub(EACH * 0x21) & !bytes;
    let is_delete = delete.wrapping_sub(EACH) & !delete;
    (up_to_space | is_delete) & HIGH
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Key {}

impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // `Borrow<[u8]>` requires the hash of the byte slice.
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Key {
    /// Prints the length only, because keys may hold data that does not belong in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.as_bytes().len())
    }
}

/// The key of a meta command: a text key, or any bytes, which are base64 on the wire.
///
/// The bytes, not their base64, place the key on a node.
#[derive(Clone)]
pub(crate) enum MetaKey {
    Text(Key),
    Binary(Box<[u8]>),
}

impl MetaKey {
    /// 187 bytes would be 252 bytes of base64. Servers reject such a key, and some then run the data block as commands.
    const MAX_BINARY_LEN: usize = 186;

    /// Validates and copies a binary key.
    pub(crate) fn binary(key: &[u8]) -> Result<Self, InvalidKey> {
        match key.len() {
            0 => Err(InvalidKey::Empty),
            1..=Self::MAX_BINARY_LEN => Ok(Self::Binary(key.into())),
            len => Err(InvalidKey::BinaryTooLong { len }),
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(key) => key.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    pub(crate) fn is_base64(&self) -> bool {
        matches!(self, Self::Binary(_))
    }

    /// Returns the key's length on the wire, base64 included.
    pub(crate) fn wire_len(&self) -> usize {
        match self {
            Self::Text(key) => key.as_bytes().len(),
            Self::Binary(bytes) => BASE64.encode_len(bytes.len()),
        }
    }

    /// Appends the key as it goes over the wire.
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Text(key) => out.extend_from_slice(key.as_bytes()),
            Self::Binary(bytes) => {
                let start = out.len();
                out.resize(start + self.wire_len(), 0);
                BASE64.encode_mut(bytes, &mut out[start..]);
            }
        }
    }

    /// Returns whether `wire` is this key on the wire.
    pub(crate) fn matches_wire(&self, wire: &[u8]) -> bool {
        match self {
            Self::Text(key) => key.as_bytes() == wire,
            Self::Binary(bytes) => BASE64.decode(wire).is_ok_and(|decoded| *decoded == **bytes),
        }
    }
}

impl From<Key> for MetaKey {
    fn from(key: Key) -> Self {
        Self::Text(key)
    }
}

impl fmt::Debug for MetaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MetaKey({} bytes)", self.as_bytes().len())
    }
}

/// The error for bytes that are not a valid key. Never holds the key itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidKey {
    /// The key is empty. With it, a server would read the next line as a command.
    #[error("the key is empty")]
    Empty,
    /// The key is longer than [`Key::MAX_LEN`], with the namespace's prefix.
    #[error("the key is {len} bytes long, at most {max} are allowed", max = Key::MAX_LEN)]
    #[non_exhaustive]
    TooLong {
        /// The key's length in bytes.
        len: usize,
    },
    /// A namespace's prefix is longer than 200 bytes, which would leave too few for keys.
    #[error("the namespace's prefix is {len} bytes long, at most {MAX_PREFIX_LEN} are allowed")]
    #[non_exhaustive]
    PrefixTooLong {
        /// The prefix's length in bytes, with the prefixes of the namespaces around it.
        len: usize,
    },
    /// The key needs base64 on the wire and is longer than the 186 bytes that fit.
    #[error("the binary key is {len} bytes long, at most {max} are allowed", max = MetaKey::MAX_BINARY_LEN)]
    #[non_exhaustive]
    BinaryTooLong {
        /// The key's length in bytes.
        len: usize,
    },
    /// The key holds a space or a control byte, which would end it early on the wire.
    #[error("byte 0x{value:02x} at offset {at} is not allowed in a key")]
    #[non_exhaustive]
    Byte {
        /// The forbidden byte.
        value: u8,
        /// The byte's offset in the key or prefix that the caller gave.
        at: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaced(prefix: &[u8], key: &[u8]) -> Result<Key, InvalidKey> {
        let mut joined = Key::placeholder();
        joined.assign(prefix, key)?;
        Ok(joined)
    }

    #[test]
    fn a_key_is_replaced_in_place() {
        let lengths = [1, 2, INLINE_LEN, INLINE_LEN + 1, 250];
        for old in lengths {
            for new in lengths {
                let (old, new) = ("o".repeat(old), "n".repeat(new));
                let mut key = Key::new(&old).unwrap();
                assert!(key.assign(b"", b"a b").is_err() && key.assign(b"p:", &[b'k'; 249]).is_err());
                assert_eq!(key.as_bytes(), old.as_bytes(), "an error changes nothing");
                key.assign(b"", new.as_bytes()).unwrap();
                assert_eq!(key, Key::new(&new).unwrap());
                assert_eq!(matches!(key.0, Repr::Heap(_)), new.len() > INLINE_LEN);
            }
        }
    }

    #[test]
    fn lengths_from_1_to_250_are_valid() {
        for len in [1, INLINE_LEN, INLINE_LEN + 1, 250] {
            let text = "k".repeat(len);
            assert_eq!(Key::new(&text).unwrap().as_bytes(), text.as_bytes());
        }
        assert_eq!(Key::new(""), Err(InvalidKey::Empty));
        assert_eq!(Key::new("k".repeat(251)), Err(InvalidKey::TooLong { len: 251 }));
    }

    #[test]
    fn spaces_and_control_bytes_are_rejected_at_any_offset() {
        for value in (0..=b' ').chain([0x7f]) {
            for at in 0..3 {
                let mut key = *b"abc";
                key[at] = value;
                assert_eq!(Key::new(key), Err(InvalidKey::Byte { value, at }));
            }
        }
        for value in (b'!'..=b'~').chain(0x80..=0xff) {
            assert!(Key::new([value]).is_ok(), "{value:#x}");
        }
    }

    #[test]
    fn testing_eight_bytes_at_a_time_agrees_with_testing_one() {
        for filler in [b'!', b'~', 0x80, 0xa0, 0xff] {
            for len in 1..=25 {
                for at in 0..len {
                    for value in 0..=0xff {
                        let mut key = vec![filler; len];
                        key[at] = value;
                        assert_eq!(is_allowed(&key), !is_forbidden(value), "{key:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_prefix_and_a_key_are_joined() {
        for len in [2, INLINE_LEN, INLINE_LEN + 1, 250] {
            let text = "k".repeat(len);
            let (prefix, key) = text.as_bytes().split_at(len / 2);
            let joined = namespaced(prefix, key).unwrap();
            assert_eq!(joined, Key::new(&text).unwrap());
            assert_eq!(matches!(joined.0, Repr::Heap(_)), len > INLINE_LEN);
        }
        assert_eq!(namespaced(b"p:", b""), Err(InvalidKey::Empty));
        assert_eq!(namespaced(b"p:", &[b'k'; 249]), Err(InvalidKey::TooLong { len: 251 }));
        assert_eq!(namespaced(b"p:", b"a b"), Err(InvalidKey::Byte { value: b' ', at: 1 }));
    }

    #[test]
    fn prefixes_nest_up_to_200_bytes() {
        assert_eq!(nested_prefix(b"", b"a:").unwrap(), b"a:");
        assert_eq!(nested_prefix(b"a:", b"b:").unwrap(), b"a:b:");
        assert_eq!(nested_prefix(b"a:", b""), Err(InvalidKey::Empty));
        assert_eq!(nested_prefix(b"a:", b"b\r\n"), Err(InvalidKey::Byte { value: b'\r', at: 1 }));
        assert!(nested_prefix(&[b'a'; 100], &[b'b'; 100]).is_ok());
        assert_eq!(nested_prefix(&[b'a'; 100], &[b'b'; 101]), Err(InvalidKey::PrefixTooLong { len: 201 }));
    }

    #[test]
    fn binary_keys_are_base64_on_the_wire() {
        for (key, wire) in [(&b"\0"[..], "AA=="), (b"a b", "YSBi"), (&[0xff; 186], &"/".repeat(248))] {
            let key = MetaKey::binary(key).unwrap();
            let mut out = BytesMut::new();
            key.encode(&mut out);
            assert_eq!((&out[..], out.len()), (wire.as_bytes(), key.wire_len()));
            assert!(key.matches_wire(wire.as_bytes()) && !key.matches_wire(b"AAA=") && !key.matches_wire(b"*"));
        }
        assert_eq!(MetaKey::binary(b"").unwrap_err(), InvalidKey::Empty);
        assert_eq!(MetaKey::binary(&[0; 187]).unwrap_err(), InvalidKey::BinaryTooLong { len: 187 });
    }

    #[test]
    fn debug_does_not_show_the_key() {
        assert!(!format!("{:?}", Key::new("secret").unwrap()).contains("secret"));
        assert!(!format!("{:?}", MetaKey::binary(b"secret").unwrap()).contains("secret"));
    }
}
