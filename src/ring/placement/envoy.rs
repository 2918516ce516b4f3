//! The ring and the Maglev table of Envoy.
//!
//! Numbers are rounded where Envoy rounds them: a weight is a 64-bit floating-point share of all weights.

use xxhash_rust::xxh64::xxh64;

use super::name_format::NameFormat;
use super::{EnvoyHash, Server};
use crate::ring::hash::murmur64a;

/// Envoy's default for the smallest number of points on a ring.
pub(super) const MINIMUM_RING_SIZE: u32 = 1024;
/// Envoy's default for the largest number of points on a ring, which is also the largest it accepts.
pub(super) const MAXIMUM_RING_SIZE: u32 = 8 << 20;
/// Envoy's default for the number of slots of Maglev, a prime.
pub(super) const MAGLEV_TABLE_SIZE: u32 = 65_537;

impl EnvoyHash {
    fn hash(self, text: &str) -> u64 {
        match self {
            Self::XxHash => xxh64(text.as_bytes(), 0),
            // The function and the seed of `std::hash` in libstdc++.
            Self::Murmur2 => murmur64a(text.as_bytes().into(), 0xc70f_6907),
        }
    }
}

/// Returns each server's share of all weights. Envoy has no weight under 1, so 0 counts as 1.
fn weight_shares(servers: &[Server]) -> Vec<f64> {
    let weight = |server: &Server| server.weight.max(1);
    let total: u64 = servers.iter().map(|server| u64::from(weight(server))).sum();
    servers.iter().map(|server| f64::from(weight(server)) / total as f64).collect()
}

/// Returns the points of a ring and their servers, made in the given order of servers.
///
/// The lightest server has a whole number of points. Fractions of a point accumulate over the others, so the order of
/// servers decides which of them gets a point more.
pub(super) fn ring_points(
    order: &[u16],
    servers: &[Server],
    hash: EnvoyHash,
    (min, max): (u32, u32),
) -> Vec<(u64, u16)> {
    let shares = weight_shares(servers);
    let least = shares.iter().copied().fold(1.0, f64::min);
    let scale = ((least * f64::from(min)).ceil() / least).min(f64::from(max));
    let (mut made, mut due) = (0.0, 0.0);
    let mut points = Vec::with_capacity(scale.ceil() as usize);
    for &server in order {
        let name = NameFormat::Named.name_of(&servers[usize::from(server)]);
        due += scale * shares[usize::from(server)];
        for index in 0.. {
            if made >= due {
                break;
            }
            points.push((hash.hash(&format!("{name}_{index}")), server));
            made += 1.0;
        }
    }
    points
}

/// Returns the owner of each Maglev slot.
///
/// Servers pick free slots in turn, each along a sequence of its own. A server's weight decides in how many rounds it
/// picks.
pub(super) fn maglev_slots(servers: &[Server], size: u32) -> Vec<u16> {
    struct Picker {
        server: u16,
        next: u64,
        skip: u64,
        share: f64,
        due: f64,
    }
    let shares = weight_shares(servers);
    let largest_share = shares.iter().copied().fold(0.0, f64::max);
    let size = u64::from(size);
    let mut named: Vec<_> =
        (0_u16..).zip(servers).map(|(index, server)| (NameFormat::Named.name_of(server), index)).collect();
    named.sort();
    let mut pickers: Vec<_> = named
        .into_iter()
        .map(|(name, server)| Picker {
            server,
            next: xxh64(name.as_bytes(), 0) % size,
            skip: xxh64(name.as_bytes(), 1) % (size - 1) + 1,
            share: shares[usize::from(server)],
            due: 0.0,
        })
        .collect();
    let mut slots: Vec<Option<u16>> = vec![None; size as usize];
    let mut free = slots.len();
    let mut round = 0.0;
    while free > 0 {
        round += 1.0;
        for picker in &mut pickers {
            if free == 0 {
                break;
            }
            if round * picker.share < picker.due {
                continue;
            }
            picker.due += largest_share;
            let slot = loop {
                let slot = picker.next as usize;
                picker.next = (picker.next + picker.skip) % size;
                if slots[slot].is_none() {
                    break slot;
                }
            };
            slots[slot] = Some(picker.server);
            free -= 1;
        }
    }
    slots.into_iter().flatten().collect()
}
