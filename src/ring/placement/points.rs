//! How clients make a server's points.

use super::{Points, Server};
use crate::ring::hash::{crc32, md5_words, murmur3, sha1_word};

impl Points {
    /// The points of a server, in the order they are made, by its spelled name.
    pub(super) fn of(self, server: &Server, name: &str, all: &[Server]) -> Vec<u32> {
        match self {
            Self::Hashed { weighted_if_any: true, .. } if all.iter().any(|server| server.weight > 1) => {
                Self::Weighted { zero_is_one: true }.of(server, name, all)
            }
            Self::Hashed { count, hash, .. } => {
                (0..count).map(|index| hash.hash(format!("{name}-{index}").as_bytes())).collect()
            }
            Self::Weighted { zero_is_one } => groups(name, weighted_groups(server, all, zero_is_one)),
            Self::Groups(count) => groups(name, count),
            Self::Sha1 => {
                let total: u64 = all.iter().map(|server| u64::from(server.weight)).sum();
                let numerator = all.len() as u64 * 160 * u64::from(server.weight);
                let count = (numerator as f64 / total as f64).floor() as u32;
                (0..count).map(|index| sha1_word(format!("{name}:{index}").as_bytes())).collect()
            }
            Self::Chain => {
                let mut input = format!("{}\0{}", server.host, server.port).into_bytes();
                let at = input.len();
                input.extend_from_slice(&[0; 4]);
                let step = |_| {
                    let point = crc32(&input);
                    input[at..].copy_from_slice(&point.to_le_bytes());
                    point
                };
                (0..160 * server.weight).map(step).collect()
            }
            Self::Folsom => {
                let mut point = murmur3(name.bytes(), 0);
                (0..100)
                    .map(|index| {
                        if index > 0 {
                            point = murmur3(point.to_le_bytes().into_iter(), 0);
                        }
                        as_unsigned_order(point)
                    })
                    .collect()
            }
        }
    }
}

/// Numbers compared as signed ones, moved to where they compare alike as unsigned ones.
pub(super) fn as_unsigned_order(signed: u32) -> u32 {
    signed ^ 1 << 31
}

fn groups(name: &str, count: u32) -> Vec<u32> {
    (0..count).flat_map(|group| md5_words(format!("{name}-{group}").as_bytes())).collect()
}

/// Each step is rounded to 32 bits, as in C: with 25 equal servers, say, everyone gets 39 groups and not 40.
fn weighted_groups(server: &Server, all: &[Server], zero_is_one: bool) -> u32 {
    let weight = |server: &Server| if zero_is_one { server.weight.max(1) } else { server.weight };
    let total: u32 = all.iter().map(weight).sum();
    let mut groups = weight(server) as f32 / total as f32;
    groups *= 160.0;
    groups /= 4.0;
    groups *= all.len() as f32;
    groups += 1e-10;
    groups.floor() as u32
}
