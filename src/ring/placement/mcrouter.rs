//! mcrouter's hash functions, which compute the owner of a key without points or slots. No allocation.

use crate::ring::hash::{Joined, murmur64a, spooky};

/// The number of tries after which Ch3 and WeightedCh3 give up and take a default.
pub(super) const TRIES: u8 = 32;

/// mcrouter's seed for MurmurHash64A, of Ch3 and of the servers' tags.
const SEED: u64 = 4_193_360_111;

/// Ch3, which mcrouter also calls furc hash: returns an index below `servers`.
pub(super) fn ch3(key: Joined<'_>, servers: u32) -> u32 {
    /// The distance between the bits of a number.
    const STEP: usize = 23;
    if servers <= 1 {
        return 0;
    }
    let mut bits = KeyBits::new(key);
    let mut depth = (u32::BITS - (servers - 1).leading_zeros()) as usize;
    let mut position = depth;
    for _ in 0..TRIES {
        while bits.bit(position) == 0 {
            depth -= 1;
            if depth == 0 {
                return 0;
            }
            position = depth;
        }
        position += STEP;
        let mut number = 1;
        for _ in 0..depth - 1 {
            number = number << 1 | bits.bit(position) as u32;
            position += STEP;
        }
        if number < servers {
            return number;
        }
    }
    0
}

/// The endless bits of a key: a chain of words in which each word is the hash of the one before.
///
/// Keeps the current word and the first one, because Ch3 either continues or starts again from the beginning.
struct KeyBits {
    first: u64,
    index: usize,
    word: u64,
}

impl KeyBits {
    fn new(key: Joined<'_>) -> Self {
        let first = murmur64a(key, SEED);
        Self { first, index: 0, word: first }
    }

    fn bit(&mut self, position: usize) -> u64 {
        if position / 64 < self.index {
            (self.index, self.word) = (0, self.first);
        }
        while self.index < position / 64 {
            self.word = murmur64a(Joined::from(&self.word.to_le_bytes()[..]), SEED);
            self.index += 1;
        }
        self.word >> (position % 64) & 1
    }
}

/// WeightedCh3: returns the index of a server.
///
/// A server accepts a key if the key's second hash is below the server's limit, out of 2^32. A rejected key is hashed
/// again with the number of the try appended. After the last try the key stays where it is.
pub(super) fn weighted_ch3(key: &[u8], limits: &[u64]) -> usize {
    const WEIGHT_SEED: u32 = 0xface_2014;
    let mut salt: [u8; 2];
    let mut salted = Joined::from(key);
    let mut index = 0;
    for number in 0..TRIES {
        index = ch3(salted, limits.len() as u32) as usize;
        if u64::from(spooky(salted, WEIGHT_SEED)) < limits[index] {
            break;
        }
        // mcrouter appends the digits in reverse order.
        salt = [b'0' + number % 10, b'0' + number / 10];
        salted = Joined(key, &salt[..if number < 10 { 1 } else { 2 }]);
    }
    index
}

/// Returns the hash of a server's tag for [`rendezvous`].
pub(super) fn rendezvous_tag_hash(tag: &[u8]) -> u64 {
    murmur64a(tag.into(), SEED)
}

/// Rendezvous: returns the index of the server with the highest score for a key; `None` without servers.
pub(super) fn rendezvous(key: &[u8], tag_hashes: &[u64]) -> Option<usize> {
    let key = murmur64a(key.into(), 2_718_281_828);
    let scores = tag_hashes.iter().map(|&tag| hash_128_to_64(tag, key) as f64);
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
