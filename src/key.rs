//! Keys: checked once, at the door, so that nothing below can be made to write a command it did not mean to.

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

/// Keys up to this length are held without an allocation.
const INLINE_LEN: usize = 62;

/// The longest prefix of a namespace. What is left of [`Key::MAX_LEN`] is the caller's.
const MAX_PREFIX_LEN: usize = 200;

/// A memcached key: 1 to 250 bytes, none of them a space or a control byte.
///
/// Every method of [`Client`](crate::Client) that takes a key checks it by the same rule before anything is sent. Bytes
/// from 0x80 up are allowed: UTF-8 keys work on every server. Longer keys can be had with the feature `long-keys`.
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
    /// The longest key memcached takes, in bytes.
    pub const MAX_LEN: usize = 250;

    /// Checks and copies a key.
    ///
    /// # Errors
    /// [`InvalidKey`] says what is wrong with it.
    #[inline]
    pub fn new(key: impl AsRef<[u8]>) -> Result<Self, InvalidKey> {
        let mut made = Self::blank();
        made.become_key(&[], key.as_ref())?;
        Ok(made)
    }

    /// No key yet, to [become](Self::become_key) one where it lies.
    #[inline]
    pub(crate) fn blank() -> Self {
        Self(Repr::Inline { len: 0, bytes: [0; INLINE_LEN] })
    }

    /// Becomes another key: that of a namespace, whose prefix has been checked, or of none. It stays what it is if that
    /// fails.
    ///
    /// In place, for every get has one, and the processor waits for bytes that are written in one width and moved on in
    /// another.
    #[inline]
    pub(crate) fn become_key(&mut self, prefix: &[u8], key: &[u8]) -> Result<(), InvalidKey> {
        if key.is_empty() {
            return Err(InvalidKey::Empty);
        }
        let whole = prefix.len() + key.len();
        if whole > Self::MAX_LEN {
            return Err(InvalidKey::TooLong { len: whole });
        }
        check_bytes(key)?;
        match (&mut self.0, u8::try_from(whole)) {
            (Repr::Inline { len, bytes }, Ok(whole)) if usize::from(whole) <= INLINE_LEN => {
                *len = whole;
                if prefix.is_empty() {
                    bytes[..key.len()].copy_from_slice(key);
                } else {
                    let (head, rest) = bytes.split_at_mut(prefix.len());
                    head.copy_from_slice(prefix);
                    rest[..key.len()].copy_from_slice(key);
                }
            }
            (repr, _) => *repr = Repr::of_parts(prefix, key),
        }
        Ok(())
    }

    /// The key's bytes, as they go over the wire.
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
    /// Of two parts, which are a key together.
    #[cold]
    fn of_parts(prefix: &[u8], key: &[u8]) -> Self {
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

/// A namespace's prefix: that of the one it lies in, and its own.
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

/// Whether no byte is forbidden; every key of every command is asked, so eight bytes at a time.
#[inline]
fn is_allowed(key: &[u8]) -> bool {
    let Some(last) = key.last_chunk::<8>() else { return !key.iter().any(|&byte| is_forbidden(byte)) };
    // The last eight bytes overlap those before, unless the length is a multiple of eight.
    let mut found = forbidden_in(u64::from_ne_bytes(*last));
    for chunk in key.as_chunks::<8>().0 {
        found |= forbidden_in(u64::from_ne_bytes(*chunk));
    }
    found == 0
}

/// Zero if no byte is forbidden. The tests for a byte less than some and for a zero byte, of "Bit Twiddling Hacks" by
/// Sean Eron Anderson.
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
        // As a byte slice hashes, which `Borrow<[u8]>` promises.
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Key {
    /// Prints the length only: keys may carry what does not belong in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} bytes)", self.as_bytes().len())
    }
}

/// The key of a meta command: text as it is, or any bytes at all, in base64 on the wire. Placement goes by the bytes.
#[derive(Clone)]
pub(crate) enum MetaKey {
    Text(Key),
    Binary(Box<[u8]>),
}

impl MetaKey {
    /// 187 bytes make 252 of base64: a server refuses those, and some then run the data block as commands.
    const MAX_BINARY_LEN: usize = 186;

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

    pub(crate) fn wire_len(&self) -> usize {
        match self {
            Self::Text(key) => key.as_bytes().len(),
            Self::Binary(bytes) => BASE64.encode_len(bytes.len()),
        }
    }

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

    /// Whether this is how the key looks on the wire.
    pub(crate) fn is_wire(&self, wire: &[u8]) -> bool {
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

/// Why bytes are not a key. Never holds the key itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidKey {
    /// The key has no bytes. The server would read the next line as a command.
    #[error("the key is empty")]
    Empty,
    /// The key, its namespace's prefix included, is longer than [`Key::MAX_LEN`].
    #[error("the key is {len} bytes long, {max} are allowed", max = Key::MAX_LEN)]
    #[non_exhaustive]
    TooLong {
        /// The key's length in bytes.
        len: usize,
    },
    /// A namespace's prefix is so long that little would be left for keys.
    #[error("the namespace's prefix is {len} bytes long, {MAX_PREFIX_LEN} are allowed")]
    #[non_exhaustive]
    PrefixTooLong {
        /// Its length in bytes, with the prefixes it is nested in.
        len: usize,
    },
    /// The key would need base64 on the wire, and is longer than the 186 bytes that fit then.
    #[error("the binary key is {len} bytes long, {max} are allowed", max = MetaKey::MAX_BINARY_LEN)]
    #[non_exhaustive]
    BinaryTooLong {
        /// The key's length in bytes.
        len: usize,
    },
    /// The key holds a space or a control byte, which would end it early on the wire.
    #[error("byte 0x{value:02x} at offset {at} is not allowed in a key")]
    #[non_exhaustive]
    Byte {
        /// The offending byte.
        value: u8,
        /// Its offset in the key, or in the prefix, as it was given.
        at: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaced(prefix: &[u8], key: &[u8]) -> Result<Key, InvalidKey> {
        let mut made = Key::blank();
        made.become_key(prefix, key)?;
        Ok(made)
    }

    #[test]
    fn a_key_becomes_another_wherever_it_lies() {
        let lengths = [1, 2, INLINE_LEN, INLINE_LEN + 1, 250];
        for old in lengths {
            for new in lengths {
                let (old, new) = ("o".repeat(old), "n".repeat(new));
                let mut key = Key::new(&old).unwrap();
                assert!(key.become_key(b"", b"a b").is_err() && key.become_key(b"p:", &[b'k'; 249]).is_err());
                assert_eq!(key.as_bytes(), old.as_bytes(), "it stays what it is");
                key.become_key(b"", new.as_bytes()).unwrap();
                assert_eq!(key, Key::new(&new).unwrap());
                assert_eq!(matches!(key.0, Repr::Heap(_)), new.len() > INLINE_LEN);
            }
        }
    }

    #[test]
    fn lengths_at_the_edges() {
        for len in [1, INLINE_LEN, INLINE_LEN + 1, 250] {
            let text = "k".repeat(len);
            assert_eq!(Key::new(&text).unwrap().as_bytes(), text.as_bytes());
        }
        assert_eq!(Key::new(""), Err(InvalidKey::Empty));
        assert_eq!(Key::new("k".repeat(251)), Err(InvalidKey::TooLong { len: 251 }));
    }

    #[test]
    fn every_control_byte_is_refused_wherever_it_stands() {
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
    fn eight_bytes_at_a_time_are_judged_as_one_by_one() {
        for around in [b'!', b'~', 0x80, 0xa0, 0xff] {
            for len in 1..=25 {
                for at in 0..len {
                    for value in 0..=0xff {
                        let mut key = vec![around; len];
                        key[at] = value;
                        assert_eq!(is_allowed(&key), !is_forbidden(value), "{key:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_namespaces_key_is_its_prefix_and_the_callers() {
        for whole in [2, INLINE_LEN, INLINE_LEN + 1, 250] {
            let text = "k".repeat(whole);
            let (prefix, key) = text.as_bytes().split_at(whole / 2);
            let made = namespaced(prefix, key).unwrap();
            assert_eq!(made, Key::new(&text).unwrap());
            assert_eq!(matches!(made.0, Repr::Heap(_)), whole > INLINE_LEN);
        }
        assert_eq!(namespaced(b"p:", b""), Err(InvalidKey::Empty));
        assert_eq!(namespaced(b"p:", &[b'k'; 249]), Err(InvalidKey::TooLong { len: 251 }));
        assert_eq!(namespaced(b"p:", b"a b"), Err(InvalidKey::Byte { value: b' ', at: 1 }));
    }

    #[test]
    fn prefixes_nest_and_leave_room() {
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
            assert!(key.is_wire(wire.as_bytes()) && !key.is_wire(b"AAA=") && !key.is_wire(b"*"));
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
