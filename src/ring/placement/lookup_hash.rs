//! How a placement hashes a key to find its owner: to a position on a circle, to a slot, or to a wide position.

use xxhash_rust::xxh64::xxh64;

use super::points::signed_to_unsigned_order;
use crate::ring::circle::POSITIONS;
use crate::ring::hash::{KeyHash, crc32, java_string, md5_number, murmur3};

/// The hash that gives a key its position on a circle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ring) enum CircleHash {
    Key(KeyHash),
    /// Unseeded Murmur3, read as a signed number.
    Folsom,
}

/// The hash that is taken modulo the number of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ring) enum SlotHash {
    Key(KeyHash),
    /// `String.hashCode` of Java.
    Java,
    /// 15 bits of CRC-32, with 0 replaced by 1.
    Pecl,
    /// CRC-32 without its highest bit.
    Mcrouter,
    Xxh64,
}

/// How a key gets its position among wide points. Its owner is the first point at or after the position.
#[derive(Debug, Clone, Copy)]
pub(in crate::ring) enum WideHash {
    /// The position after its MD5: a point at the MD5 itself does not own the key.
    AfterMd5,
    /// Its XXH64, as the upper half of the position.
    Xxh64,
}

impl CircleHash {
    pub(super) fn position(self, key: &[u8]) -> u32 {
        match self {
            Self::Key(hash) => hash.hash(key),
            Self::Folsom => signed_to_unsigned_order(murmur3(key.iter().copied(), 0)),
        }
    }

    pub(super) fn value_count(self) -> u64 {
        match self {
            Self::Key(KeyHash::Crc) => 1 << 15,
            Self::Key(_) | Self::Folsom => POSITIONS,
        }
    }
}

impl SlotHash {
    pub(super) fn hash(self, key: &[u8]) -> u64 {
        match self {
            Self::Key(hash) => hash.hash(key).into(),
            Self::Java => java_string(key).into(),
            Self::Pecl => match (crc32(key) >> 16) & 0x7fff {
                0 => 1,
                hash => hash.into(),
            },
            Self::Mcrouter => (crc32(key) & 0x7fff_ffff).into(),
            Self::Xxh64 => xxh64(key, 0),
        }
    }

    pub(super) fn value_count(self) -> u128 {
        match self {
            Self::Key(KeyHash::Crc) | Self::Pecl => 1 << 15,
            Self::Mcrouter => 1 << 31,
            Self::Key(_) | Self::Java => 1 << 32,
            Self::Xxh64 => 1 << 64,
        }
    }

    /// Returns the number of hash values that have this remainder.
    pub(super) fn values_with_remainder(self, remainder: u64, modulus: u64) -> u128 {
        let modulus = u128::from(modulus);
        let values = self.value_count() / modulus + u128::from(u128::from(remainder) < self.value_count() % modulus);
        match (self, remainder) {
            // pecl-memcache turns the hash 0 into 1.
            (Self::Pecl, 0) if modulus > 1 => values - 1,
            (Self::Pecl, 1) => values + 1,
            _ => values,
        }
    }
}

impl WideHash {
    pub(super) fn position(self, key: &[u8]) -> u128 {
        match self {
            // Wraps around: the last position is followed by the first.
            Self::AfterMd5 => md5_number(key).wrapping_add(1),
            Self::Xxh64 => u128::from(xxh64(key, 0)) << 64,
        }
    }
}
