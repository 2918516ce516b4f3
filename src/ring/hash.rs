//! The hash functions of other clients, bit for bit. None is memring's own choice, and none is secure.
//!
//! "Signed bytes" means that a byte from 0x80 up enters the arithmetic as a negative number, as in the C originals on
//! platforms where `char` is signed.

mod spooky;

use crc32fast::Hasher as Crc32;
use md5::{Digest, Md5};
use sha1::Sha1;

pub(super) use self::spooky::spooky;

/// A hash function of libmemcached or twemproxy, for keys and in some placements for the points of a node.
///
/// The names and values are those of libmemcached and twemproxy, including the oddities: `Crc` keeps 15 bits, `Fnv64a`
/// computes with 32 bits, and most functions read signed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyHash {
    /// Jenkins's one-at-a-time hash of signed bytes. The default of libmemcached (`HASHKIT_DEFAULT`,
    /// `MEMCACHED_HASH_DEFAULT`).
    OneAtATime,
    /// The first four bytes of the MD5, little-endian.
    Md5,
    /// 15 bits of CRC-32: `crc` in libmemcached, `crc32` in twemproxy.
    Crc,
    /// All 32 bits of CRC-32: `crc32a` in twemproxy.
    Crc32,
    /// `crc16` of twemproxy: the table of CRC-16/XMODEM with a 32-bit accumulator.
    Crc16,
    /// 32-bit FNV-1 of signed bytes.
    Fnv32,
    /// 32-bit FNV-1a of signed bytes.
    Fnv32a,
    /// The lower half of 64-bit FNV-1 of signed bytes.
    Fnv64,
    /// The lower half of 64-bit FNV-1a of signed bytes: `fnv1a_64` in libmemcached and twemproxy. The default of
    /// twemproxy.
    Fnv64a,
    /// MurmurHash2, seeded with the length.
    Murmur,
    /// MurmurHash3 (x86, 32 bits), seeded with the length.
    Murmur3,
    /// Jenkins's lookup3 (`hashlittle`) with the initial value 13.
    Jenkins,
    /// Hsieh's SuperFastHash.
    Hsieh,
}

impl KeyHash {
    /// Returns the hash of some bytes.
    #[must_use]
    pub fn hash(self, bytes: &[u8]) -> u32 {
        match self {
            Self::OneAtATime => one_at_a_time(bytes),
            Self::Md5 => md5_word(bytes),
            Self::Crc => (crc32(bytes) >> 16) & 0x7fff,
            Self::Crc32 => crc32(bytes),
            Self::Crc16 => crc16(bytes),
            Self::Fnv32 => {
                bytes.iter().fold(FNV_32, |hash, &byte| hash.wrapping_mul(FNV_PRIME_32) ^ sign_extended(byte))
            }
            Self::Fnv32a => {
                bytes.iter().fold(FNV_32, |hash, &byte| (hash ^ sign_extended(byte)).wrapping_mul(FNV_PRIME_32))
            }
            // 32 bits suffice: the lower half of a product or an exclusive or depends on the lower halves alone.
            Self::Fnv64 => {
                bytes.iter().fold(FNV_64_LOW, |hash, &byte| hash.wrapping_mul(FNV_PRIME_64_LOW) ^ sign_extended(byte))
            }
            Self::Fnv64a => {
                bytes.iter().fold(FNV_64_LOW, |hash, &byte| (hash ^ sign_extended(byte)).wrapping_mul(FNV_PRIME_64_LOW))
            }
            Self::Murmur => murmur2(bytes),
            Self::Murmur3 => murmur3(bytes.iter().copied(), length_seed(bytes)),
            Self::Jenkins => lookup3(bytes, 13),
            Self::Hsieh => super_fast(bytes),
        }
    }
}

const FNV_32: u32 = 0x811c_9dc5;
const FNV_PRIME_32: u32 = 0x0100_0193;
const FNV_64_LOW: u32 = 0x8422_2325;
const FNV_PRIME_64_LOW: u32 = 0x1b3;

/// Widens a byte as C widens a signed `char`.
fn sign_extended(byte: u8) -> u32 {
    i32::from(byte as i8) as u32
}

/// Returns libmemcached's seed for the Murmur hashes.
fn length_seed(bytes: &[u8]) -> u32 {
    0xdead_beef_u32.wrapping_mul(bytes.len() as u32)
}

/// Reads up to four bytes as a little-endian number.
fn word(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte))
}

fn one_at_a_time(bytes: &[u8]) -> u32 {
    let mut hash = bytes.iter().fold(0_u32, |hash, &byte| {
        let hash = hash.wrapping_add(sign_extended(byte));
        let hash = hash.wrapping_add(hash << 10);
        hash ^ hash >> 6
    });
    hash = hash.wrapping_add(hash << 3);
    hash ^= hash >> 11;
    hash.wrapping_add(hash << 15)
}

/// Returns the four words of the MD5, little-endian.
pub(super) fn md5_words(bytes: &[u8]) -> [u32; 4] {
    let digest: [u8; 16] = Md5::digest(bytes).into();
    std::array::from_fn(|at| word(&digest[4 * at..4 * at + 4]))
}

/// Returns the first four bytes of the MD5, little-endian.
pub(super) fn md5_word(bytes: &[u8]) -> u32 {
    md5_words(bytes)[0]
}

/// Returns the MD5 as one big-endian number, as Python's `int(hexdigest, 16)` does.
pub(super) fn md5_number(bytes: &[u8]) -> u128 {
    u128::from_be_bytes(Md5::digest(bytes).into())
}

/// Returns the first four bytes of the SHA-1, big-endian.
pub(super) fn sha1_word(bytes: &[u8]) -> u32 {
    let digest: [u8; 20] = Sha1::digest(bytes).into();
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

pub(super) fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = Crc32::new();
    crc.update(bytes);
    crc.finalize()
}

fn crc16(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0_u32, |crc, &byte| {
        let mut entry = (crc >> 8 ^ u32::from(byte)) & 0xff;
        entry <<= 8;
        for _ in 0..8 {
            entry = if entry & 0x8000 != 0 { entry << 1 ^ 0x1021 } else { entry << 1 } & 0xffff;
        }
        crc << 8 ^ entry
    })
}

fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = length_seed(bytes) ^ bytes.len() as u32;
    let blocks = bytes.chunks_exact(4);
    let tail = blocks.remainder();
    for block in blocks {
        let mut k = word(block).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        hash = (hash ^ word(tail)).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

/// MurmurHash3 (x86, 32 bits) of an iterator of bytes.
pub(super) fn murmur3(mut bytes: impl Iterator<Item = u8>, seed: u32) -> u32 {
    let scramble = |k: u32| k.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let (mut hash, mut len) = (seed, 0_u32);
    loop {
        let mut block = [0; 4];
        let mut filled = 0;
        while filled < 4 {
            let Some(byte) = bytes.next() else { break };
            block[filled] = byte;
            filled += 1;
        }
        len = len.wrapping_add(filled as u32);
        hash ^= scramble(word(&block));
        if filled < 4 {
            break;
        }
        hash = hash.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    hash ^= len;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

fn lookup3(bytes: &[u8], initial: u32) -> u32 {
    let start = 0xdead_beef_u32.wrapping_add(bytes.len() as u32).wrapping_add(initial);
    let [mut a, mut b, mut c] = [start; 3];
    let mut rest = bytes;
    // The last 12 bytes are mixed differently, even if they are a full block.
    while rest.len() > 12 {
        a = a.wrapping_add(word(&rest[..4]));
        b = b.wrapping_add(word(&rest[4..8]));
        c = c.wrapping_add(word(&rest[8..12]));
        for rotation in [4, 6, 8, 16, 19, 4] {
            a = a.wrapping_sub(c) ^ c.rotate_left(rotation);
            c = c.wrapping_add(b);
            (a, b, c) = (b, c, a);
        }
        rest = &rest[12..];
    }
    if rest.is_empty() {
        return c;
    }
    let mut last = [0; 12];
    last[..rest.len()].copy_from_slice(rest);
    a = a.wrapping_add(word(&last[..4]));
    b = b.wrapping_add(word(&last[4..8]));
    c = c.wrapping_add(word(&last[8..]));
    for rotation in [14, 11, 25, 16, 4, 14, 24] {
        c = (c ^ b).wrapping_sub(b.rotate_left(rotation));
        (a, b, c) = (b, c, a);
    }
    // Each step ends by renaming `c` to `b`, so the last result is in `b`.
    b
}

fn super_fast(bytes: &[u8]) -> u32 {
    if bytes.is_empty() {
        return 0;
    }
    let half = |bytes: &[u8]| u32::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    let mut hash = 0_u32;
    let blocks = bytes.chunks_exact(4);
    let tail = blocks.remainder();
    for block in blocks {
        hash = hash.wrapping_add(half(block));
        let mixed = half(&block[2..]) << 11 ^ hash;
        hash = hash << 16 ^ mixed;
        hash = hash.wrapping_add(hash >> 11);
    }
    match tail {
        [_, _, last] => {
            hash = hash.wrapping_add(half(tail));
            hash ^= hash << 16;
            hash ^= sign_extended(*last) << 18;
            hash = hash.wrapping_add(hash >> 11);
        }
        [_, _] => {
            hash = hash.wrapping_add(half(tail));
            hash ^= hash << 11;
            hash = hash.wrapping_add(hash >> 17);
        }
        [last] => {
            hash = hash.wrapping_add(sign_extended(*last));
            hash ^= hash << 10;
            hash = hash.wrapping_add(hash >> 1);
        }
        _ => {}
    }
    hash ^= hash << 3;
    hash = hash.wrapping_add(hash >> 5);
    hash ^= hash << 4;
    hash = hash.wrapping_add(hash >> 17);
    hash ^= hash << 25;
    hash.wrapping_add(hash >> 6)
}

/// Java's `String.hashCode` over the UTF-16 code units of a text. Bytes that are not UTF-8 count as one unit each.
pub(super) fn java_string(bytes: &[u8]) -> u32 {
    let add = |hash: u32, unit: u16| hash.wrapping_mul(31).wrapping_add(u32::from(unit));
    bytes.utf8_chunks().fold(0, |hash, chunk| {
        let hash = chunk.valid().encode_utf16().fold(hash, add);
        chunk.invalid().iter().fold(hash, |hash, &byte| add(hash, byte.into()))
    })
}

/// Two byte slices that are hashed as if they were one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Joined<'a>(pub(super) &'a [u8], pub(super) &'a [u8]);

impl Joined<'_> {
    fn len(self) -> usize {
        self.0.len() + self.1.len()
    }

    /// Reads eight bytes as a little-endian number, with zeros for bytes beyond the end.
    fn word(self, at: usize) -> u64 {
        match self.0.get(at..).and_then(|rest| rest.first_chunk()) {
            Some(&bytes) => u64::from_le_bytes(bytes),
            None => (at..at + 8).rev().fold(0, |word, at| word << 8 | u64::from(self.byte(at))),
        }
    }

    fn byte(self, at: usize) -> u8 {
        let in_second = || self.1.get(at.checked_sub(self.0.len())?);
        self.0.get(at).or_else(in_second).copied().unwrap_or_default()
    }
}

impl<'a> From<&'a [u8]> for Joined<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(bytes, &[])
    }
}

/// MurmurHash64A.
pub(super) fn murmur64a(bytes: Joined<'_>, seed: u64) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    let len = bytes.len();
    let mut hash = seed ^ (len as u64).wrapping_mul(M);
    let whole = len / 8 * 8;
    for at in (0..whole).step_by(8) {
        let mut k = bytes.word(at).wrapping_mul(M);
        k ^= k >> 47;
        hash = (hash ^ k.wrapping_mul(M)).wrapping_mul(M);
    }
    if whole < len {
        hash = (hash ^ bytes.word(whole)).wrapping_mul(M);
    }
    hash = (hash ^ hash >> 47).wrapping_mul(M);
    hash ^ hash >> 47
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh64::xxh64;

    #[test]
    fn hashes_match_the_values_of_other_clients() {
        use KeyHash::*;
        for (hash, ascii, cyrillic) in [
            (OneAtATime, 2_773_942_091, 338_704_646),
            (Md5, 282_964_413, 710_309_305),
            (Crc, 31_653, 24_653),
            (Crc32, 2_074_460_802, 1_615_717_244),
            (Crc16, 3_580_783_130, 659_134_217),
            (Fnv32, 13_403_571, 1_792_811_611),
            (Fnv32a, 1_830_439_627, 1_140_258_887),
            (Fnv64, 3_376_212_627, 164_478_907),
            (Fnv64a, 1_963_465_963, 125_077_287),
            (Murmur, 3_587_224_931, 2_397_996_884),
            (Murmur3, 3_313_101_634, 3_693_630_361),
            (Jenkins, 936_206_289, 3_911_876_536),
            (Hsieh, 3_888_060_454, 2_053_593_001),
        ] {
            assert_eq!((hash.hash(b"user:1"), hash.hash("ключ-ab".as_bytes())), (ascii, cyrillic), "{hash:?}");
        }
        let unseeded = |text: &str| murmur3(text.bytes(), 0);
        assert_eq!((unseeded("user:1"), unseeded("ключ-ab")), (3_416_794_175, 2_556_222_789));
        assert_eq!(
            (xxh64(b"user:1", 0), xxh64("ключ-ab".as_bytes(), 0)),
            (15_692_727_345_848_811_763, 3_427_508_981_832_946_860)
        );
    }
}
