//! How the placements with a circle make the points of a server.

use super::Server;
use crate::ring::hash::{KeyHash, crc32, md5_words, murmur3, sha1_word};

/// How a placement makes the points of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PointScheme {
    /// libmemcached: `count` hashes of the name with a number appended.
    ///
    /// With `uses_weights` it becomes [`WeightedMd5`](Self::WeightedMd5) as soon as one weight is over 1.
    Hashed { count: u32, hash: KeyHash, uses_weights: bool },
    /// Groups of four points: the words of the MD5 of the name with a number appended. The weight decides how many
    /// groups.
    WeightedMd5 { zero_counts_as_one: bool },
    /// The same groups, in a fixed number.
    Md5Groups(u32),
    /// Dalli: SHA-1 of the name with a number appended. The weight decides how many.
    Dalli,
    /// nginx: a chain in which each point is the CRC-32 of the name and the point before.
    Nginx,
    /// folsom: a chain in which each point is the Murmur3 of the point before.
    Folsom,
}

impl PointScheme {
    /// Returns the points of a server in the order the client makes them. `name` is the server's name as it is hashed.
    pub(super) fn points(self, server: &Server, name: &str, all: &[Server]) -> Vec<u32> {
        match self {
            Self::Hashed { uses_weights: true, .. } if all.iter().any(|server| server.weight > 1) => {
                Self::WeightedMd5 { zero_counts_as_one: true }.points(server, name, all)
            }
            Self::Hashed { count, hash, .. } => {
                (0..count).map(|index| hash.hash(format!("{name}-{index}").as_bytes())).collect()
            }
            Self::WeightedMd5 { zero_counts_as_one } => {
                md5_groups(name, weighted_group_count(server, all, zero_counts_as_one))
            }
            Self::Md5Groups(count) => md5_groups(name, count),
            Self::Dalli => {
                let total: u64 = all.iter().map(|server| u64::from(server.weight)).sum();
                let numerator = all.len() as u64 * 160 * u64::from(server.weight);
                let count = (numerator as f64 / total as f64).floor() as u32;
                (0..count).map(|index| sha1_word(format!("{name}:{index}").as_bytes())).collect()
            }
            Self::Nginx => {
                let mut input = format!("{}\0{}", server.host, server.port).into_bytes();
                let name_len = input.len();
                input.extend_from_slice(&[0; 4]);
                let next_point = |_| {
                    let point = crc32(&input);
                    input[name_len..].copy_from_slice(&point.to_le_bytes());
                    point
                };
                (0..160 * server.weight).map(next_point).collect()
            }
            Self::Folsom => {
                let mut point = murmur3(name.bytes(), 0);
                (0..100)
                    .map(|index| {
                        if index > 0 {
                            point = murmur3(point.to_le_bytes().into_iter(), 0);
                        }
                        signed_to_unsigned_order(point)
                    })
                    .collect()
            }
        }
    }
}

/// Maps the bits of signed numbers to unsigned numbers of the same order.
pub(super) fn signed_to_unsigned_order(signed: u32) -> u32 {
    signed ^ 1 << 31
}

fn md5_groups(name: &str, count: u32) -> Vec<u32> {
    (0..count).flat_map(|group| md5_words(format!("{name}-{group}").as_bytes())).collect()
}

/// Returns the number of MD5 groups of a server, 40 for the mean weight.
///
/// Every step is rounded to 32 bits, as in C. With 25 equal servers, for example, each one gets 39 groups and not 40.
fn weighted_group_count(server: &Server, all: &[Server], zero_counts_as_one: bool) -> u32 {
    let weight = |server: &Server| if zero_counts_as_one { server.weight.max(1) } else { server.weight };
    let total: u32 = all.iter().map(weight).sum();
    let mut groups = weight(server) as f32 / total as f32;
    groups *= 160.0;
    groups /= 4.0;
    groups *= all.len() as f32;
    groups += 1e-10;
    groups.floor() as u32
}
