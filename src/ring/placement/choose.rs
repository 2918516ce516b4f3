//! Owners that are computed from a key, without points or slots; and what other clients make of a key first. Nothing here
//! allocates.

use crate::ring::hash::{Joined, murmur3, murmur64a, spooky};

use super::PythonKeys;

/// What stands between the first `open` and the first `close` after it, if anything does.
pub(super) fn tagged(key: &[u8], (open, close): (u8, u8)) -> Option<&[u8]> {
    let start = memchr::memchr(open, key)? + 1;
    let len = memchr::memchr(close, &key[start..])?;
    (len > 0).then(|| &key[start..start + len])
}

impl PythonKeys {
    /// Python hashes characters: of each the low eight bits.
    pub(super) fn score(self, prefix: &[u8], key: &[u8]) -> u32 {
        let prefix = prefix.iter().copied();
        match self {
            Self::Str => murmur3(prefix.chain(low_bytes(key)), 0),
            Self::Bytes => murmur3(prefix.chain(printed(key)), 0),
        }
    }
}

fn low_bytes(text: &[u8]) -> impl Iterator<Item = u8> {
    text.utf8_chunks().flat_map(|chunk| {
        let valid = chunk.valid().chars().map(|char| char as u32 as u8);
        valid.chain(chunk.invalid().iter().copied())
    })
}

/// Bytes as Python prints them.
fn printed(key: &[u8]) -> impl Iterator<Item = u8> {
    let quote = if key.contains(&b'\'') && !key.contains(&b'"') { b'"' } else { b'\'' };
    let escaped = move |&byte: &u8| {
        let (text, len) = match byte {
            b'\t' => ([b'\\', b't', 0, 0], 2),
            b'\n' => ([b'\\', b'n', 0, 0], 2),
            b'\r' => ([b'\\', b'r', 0, 0], 2),
            b'\\' => ([b'\\', b'\\', 0, 0], 2),
            _ if byte == quote => ([b'\\', quote, 0, 0], 2),
            b' '..=b'~' => ([byte, 0, 0, 0], 1),
            _ => ([b'\\', b'x', hex_digit(byte >> 4), hex_digit(byte & 0xf)], 4),
        };
        text.into_iter().take(len)
    };
    [b'b', quote].into_iter().chain(key.iter().flat_map(escaped)).chain([quote])
}

fn hex_digit(half: u8) -> u8 {
    if half < 10 { b'0' + half } else { b'a' + half - 10 }
}

/// Lamping and Veach's jump hash.
pub(super) fn jump(mut key: u64, buckets: usize) -> usize {
    let (mut bucket, mut next) = (0_i64, 0_i64);
    while next < buckets as i64 {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((bucket + 1) as f64 * ((1_i64 << 31) as f64 / ((key >> 33) + 1) as f64)) as i64;
    }
    bucket as usize
}

/// How often mcrouter tries before it takes what it has.
pub(super) const TRIES: u8 = 32;

/// mcrouter's furc hash.
pub(super) fn ch3(key: Joined<'_>, servers: u32) -> u32 {
    const STEP: usize = 23;
    if servers <= 1 {
        return 0;
    }
    let mut bits = Bits::of(key);
    let mut depth = (u32::BITS - (servers - 1).leading_zeros()) as usize;
    let mut at = depth;
    for _ in 0..TRIES {
        while bits.at(at) == 0 {
            depth -= 1;
            if depth == 0 {
                return 0;
            }
            at = depth;
        }
        at += STEP;
        let mut number = 1;
        for _ in 0..depth - 1 {
            number = number << 1 | bits.at(at) as u32;
            at += STEP;
        }
        if number < servers {
            return number;
        }
    }
    0
}

/// The bits that mcrouter draws from a key: a chain of words, each the hash of the one before. Of the chain only the word
/// last asked for is kept, and the first to begin again from, for the search goes back to its beginning and no other place.
struct Bits {
    first: u64,
    index: usize,
    word: u64,
}

impl Bits {
    const SEED: u64 = 4_193_360_111;

    fn of(key: Joined<'_>) -> Self {
        let first = murmur64a(key, Self::SEED);
        Self { first, index: 0, word: first }
    }

    fn at(&mut self, at: usize) -> u64 {
        if at / 64 < self.index {
            (self.index, self.word) = (0, self.first);
        }
        while self.index < at / 64 {
            self.word = murmur64a(Joined::from(&self.word.to_le_bytes()[..]), Self::SEED);
            self.index += 1;
        }
        self.word >> (at % 64) & 1
    }
}

/// mcrouter's Ch3 with weights: a server takes so many keys, of all that come to it, as its limit is of 2^32; those it
/// leaves are hashed again, each time with another number behind them.
pub(super) fn weighted_ch3(key: &[u8], limits: &[u64]) -> usize {
    const SEED: u32 = 0xface_2014;
    let mut salt: [u8; 2];
    let mut salted = Joined::from(key);
    let mut index = 0;
    for number in 0..TRIES {
        index = ch3(salted, limits.len() as u32) as usize;
        if u64::from(spooky(salted, SEED)) < limits[index] {
            break;
        }
        // Backwards, as it comes.
        salt = [b'0' + number % 10, b'0' + number / 10];
        salted = Joined(key, &salt[..if number < 10 { 1 } else { 2 }]);
    }
    index
}

/// A server's part in mcrouter's rendezvous hash.
pub(super) fn rendezvous_server(tag: &[u8]) -> u64 {
    murmur64a(tag.into(), Bits::SEED)
}

/// mcrouter's rendezvous hash: the place of the server with the highest score.
pub(super) fn rendezvous(key: &[u8], servers: &[u64]) -> Option<usize> {
    let key = murmur64a(key.into(), 2_718_281_828);
    let scores = servers.iter().map(|&server| hash_128_to_64(server, key) as f64);
    // Of equal scores the last wins.
    scores.enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(index, _)| index)
}

/// CityHash's `Hash128to64`.
fn hash_128_to_64(upper: u64, lower: u64) -> u64 {
    const MUL: u64 = 0x9ddf_ea08_eb38_2d69;
    let a = (lower ^ upper).wrapping_mul(MUL);
    let b = (upper ^ a ^ a >> 47).wrapping_mul(MUL);
    (b ^ b >> 47).wrapping_mul(MUL)
}
