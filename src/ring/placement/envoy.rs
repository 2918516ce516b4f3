//! The tables of Envoy's load balancers. Numbers are rounded where Envoy rounds them: weights are shares, of 64 bits.

use xxhash_rust::xxh64::xxh64;

use crate::ring::hash::murmur64a;

use super::spelling::Spelling;
use super::{EnvoyHash, Server};

/// Envoy's default for the fewest points a ring has.
pub(super) const MINIMUM_RING_SIZE: u32 = 1024;
/// Envoy's default for the most, and the largest it accepts.
pub(super) const MAXIMUM_RING_SIZE: u32 = 8 << 20;
/// Envoy's default for the slots of Maglev, a prime.
pub(super) const MAGLEV_TABLE_SIZE: u32 = 65_537;

impl EnvoyHash {
    fn of(self, text: &str) -> u64 {
        match self {
            Self::XxHash => xxh64(text.as_bytes(), 0),
            // The seed of std::hash in libstdc++, and what that computes with it.
            Self::Murmur2 => murmur64a(text.as_bytes().into(), 0xc70f_6907),
        }
    }
}

/// What each server's weight is of all. Envoy knows none under 1.
fn shares(servers: &[Server]) -> Vec<f64> {
    let weight = |server: &Server| server.weight.max(1);
    let total: u64 = servers.iter().map(|server| u64::from(weight(server))).sum();
    servers.iter().map(|server| f64::from(weight(server)) / total as f64).collect()
}

/// The points of a ring and whose they are, in the servers' order. The least server has a whole number of points; others
/// come by a fraction now and then, so that the order of servers plays a part.
pub(super) fn ring(order: &[u16], servers: &[Server], hash: EnvoyHash, (min, max): (u32, u32)) -> Vec<(u64, u16)> {
    let shares = shares(servers);
    let least = shares.iter().copied().fold(1.0, f64::min);
    let scale = ((least * f64::from(min)).ceil() / least).min(f64::from(max));
    let (mut made, mut due) = (0.0, 0.0);
    let mut points = Vec::with_capacity(scale.ceil() as usize);
    for &server in order {
        let name = Spelling::Named.of(&servers[usize::from(server)]);
        due += scale * shares[usize::from(server)];
        for index in 0.. {
            if made >= due {
                break;
            }
            points.push((hash.of(&format!("{name}_{index}")), server));
            made += 1.0;
        }
    }
    points
}

/// Who has which slot: servers choose in turn, each by a sequence of its own, as often as their weights say.
pub(super) fn maglev(servers: &[Server], size: u32) -> Vec<u16> {
    struct Chooser {
        server: u16,
        next: u64,
        skip: u64,
        share: f64,
        due: f64,
    }
    let shares = shares(servers);
    let most = shares.iter().copied().fold(0.0, f64::max);
    let size = u64::from(size);
    let mut named: Vec<_> = (0_u16..).zip(servers).map(|(index, server)| (Spelling::Named.of(server), index)).collect();
    named.sort();
    let mut choosers: Vec<_> = named
        .into_iter()
        .map(|(name, server)| Chooser {
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
        for chooser in &mut choosers {
            if free == 0 {
                break;
            }
            if round * chooser.share < chooser.due {
                continue;
            }
            chooser.due += most;
            let slot = loop {
                let slot = chooser.next as usize;
                chooser.next = (chooser.next + chooser.skip) % size;
                if slots[slot].is_none() {
                    break slot;
                }
            };
            slots[slot] = Some(chooser.server);
            free -= 1;
        }
    }
    slots.into_iter().flatten().collect()
}
