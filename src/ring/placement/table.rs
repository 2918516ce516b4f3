//! A placement worked out for certain servers: what a look-up reads.

use xxhash_rust::xxh64::xxh64;

use super::choose::{TRIES, ch3, jump, rendezvous, rendezvous_server, tagged, weighted_ch3};
use super::custom::CustomTable;
use super::points::as_unsigned_order;
use super::spelling::{Order, Spelling};
use super::{CircleHash, CircleScheme, KeyHash, Placement, PythonKeys, Scheme, Server, SlotHash, envoy};
use crate::ring::circle::{Circle, POSITIONS, Point};
use crate::ring::circle_shares;
use crate::ring::hash::{Joined, crc32, java_string, md5_number, murmur3};

/// Who owns which key.
pub(in crate::ring) enum Table {
    Empty,
    /// The only server owns all.
    Single,
    Circle {
        circle: Circle,
        key: CircleHash,
        mirrored: bool,
        hash_tag: Option<(u8, u8)>,
    },
    Slots(Slots),
    /// The beginnings of what is hashed, and the servers, greater names first.
    Rendezvous {
        nodes: Vec<(Box<[u8]>, u16)>,
        keys: PythonKeys,
    },
    Jump {
        order: Vec<u16>,
    },
    /// Points of up to 128 bits, in order, and a circle of their upper 32.
    Wide {
        points: Vec<(u128, u16)>,
        upper: Circle,
        key: WideHash,
    },
    Ch3 {
        order: Vec<u16>,
    },
    /// For each server how many of the 2^32 values of a key's second hash it accepts.
    WeightedCh3 {
        order: Vec<u16>,
        limits: Vec<u64>,
    },
    /// The hashes of the servers' tags.
    McrouterRendezvous {
        order: Vec<u16>,
        tags: Vec<u64>,
    },
    Custom(CustomTable),
}

/// Slots, to which keys come by the remainder of their hash.
pub(in crate::ring) struct Slots {
    pub(super) slots: Vec<u16>,
    hash: SlotHash,
    hash_tag: Option<(u8, u8)>,
}

/// Where a key lies among wide points; its owner is the first point there or beyond.
#[derive(Debug, Clone, Copy)]
pub(in crate::ring) enum WideHash {
    /// Behind its MD5: a point at it is not its.
    BehindMd5,
    /// At its XXH64, of which the numbers are the upper half.
    Xxh64,
}

impl Table {
    pub(in crate::ring) fn new(placement: &Placement, servers: &[Server]) -> Self {
        match servers.len() {
            0 => return Self::Empty,
            1 => return Self::Single,
            _ => {}
        }
        match &placement.scheme {
            Scheme::Circle(scheme) => circle(scheme, servers),
            Scheme::Modulo { key, order, by_weight, hash_tag } => {
                let times = |index: &u16| if *by_weight { servers[usize::from(*index)].weight as usize } else { 1 };
                let slots = order.of(servers).into_iter().flat_map(|index| std::iter::repeat_n(index, times(&index)));
                Self::Slots(Slots { slots: slots.collect(), hash: *key, hash_tag: *hash_tag })
            }
            Scheme::Rendezvous { keys } => {
                let mut nodes: Vec<_> = (0_u16..)
                    .zip(servers)
                    .map(|(index, server)| {
                        (format!("{}-", Spelling::Full.of(server)).into_bytes().into_boxed_slice(), index)
                    })
                    .collect();
                // Of equal scores the greater name wins: the first met, from here on.
                nodes.sort_by(|(a, _), (b, _)| b[..b.len() - 1].cmp(&a[..a.len() - 1]));
                Self::Rendezvous { nodes, keys: *keys }
            }
            // Made elsewhere: they have no tables of this kind, or none of servers.
            Scheme::Native | Scheme::Custom { .. } => Self::Empty,
            Scheme::Jump => Self::Jump { order: Order::Natural.of(servers) },
            Scheme::Uhashring => {
                let named = (0_u16..).zip(servers).map(|(index, server)| (Spelling::Bracketed.of(server), index));
                let points = named.flat_map(|(name, index)| {
                    (0..160).map(move |point| (md5_number(format!("{name}-{point}").as_bytes()), index))
                });
                Self::wide(points, WideHash::BehindMd5)
            }
            Scheme::Ch3 { order } => Self::Ch3 { order: order.of(servers) },
            Scheme::WeightedCh3 { order, one } => {
                let order = order.of(servers);
                let weight = |index: &u16| f64::from(servers[usize::from(*index)].weight) / f64::from(*one);
                let limits = order.iter().map(|index| (weight(index).min(1.0) * f64::from(u32::MAX)) as u64).collect();
                Self::WeightedCh3 { order, limits }
            }
            Scheme::McrouterRendezvous { order } => {
                let order = order.of(servers);
                let tag = |index: &u16| Spelling::Named.of(&servers[usize::from(*index)]);
                let tags = order.iter().map(|index| rendezvous_server(tag(index).as_bytes())).collect();
                Self::McrouterRendezvous { order, tags }
            }
            Scheme::PeclConsistent => pecl_buckets(servers),
            Scheme::EnvoyRing { order, hash, minimum_size } => {
                let sizes = (*minimum_size, envoy::MAXIMUM_RING_SIZE);
                let points = envoy::ring(&order.of(servers), servers, *hash, sizes);
                Self::wide(points.into_iter().map(|(at, server)| (u128::from(at) << 64, server)), WideHash::Xxh64)
            }
            Scheme::EnvoyMaglev => {
                let slots = envoy::maglev(servers, envoy::MAGLEV_TABLE_SIZE);
                Self::Slots(Slots { slots, hash: SlotHash::Xxh64, hash_tag: None })
            }
        }
    }

    /// Of points at one place the first counts.
    fn wide(points: impl Iterator<Item = (u128, u16)>, key: WideHash) -> Self {
        let mut points: Vec<_> = points.collect();
        points.sort_by_key(|(at, _)| *at);
        let upper: Vec<_> = points.iter().map(|&(at, node)| Point { at: (at >> 96) as u32, node }).collect();
        Self::Wide { points, upper: Circle::new(&upper), key }
    }

    /// Which part of all keys each server owns; exact where keys meet points or slots, and what is meant elsewhere.
    pub(in crate::ring) fn shares(&self, servers: usize) -> Vec<f64> {
        let mut shares = vec![0.0; servers];
        match self {
            Self::Circle { circle, key, .. } => return circle_shares(circle, key.range(), servers),
            Self::Custom(table) => return table.shares(),
            Self::Slots(slots) => {
                for (slot, &server) in slots.slots.iter().enumerate() {
                    shares[usize::from(server)] += slots.hash.values(slot as u64, slots.slots.len() as u64) as f64;
                }
                shares.iter_mut().for_each(|share| *share /= slots.hash.range() as f64);
            }
            Self::Wide { points, .. } => {
                let before = points.last().map_or(0, |(at, _)| *at);
                points.iter().fold(before, |before, &(at, server)| {
                    shares[usize::from(server)] += at.wrapping_sub(before) as f64 / u128::MAX as f64;
                    at
                });
            }
            Self::WeightedCh3 { order, limits } => {
                let part = |limit: u64| limit as f64 / (u64::from(u32::MAX) + 1) as f64;
                let taken = limits.iter().map(|&limit| part(limit)).sum::<f64>() / servers as f64;
                // What nobody took in all tries but the last stays where that one went.
                let left = (1.0 - taken).powi(i32::from(TRIES) - 1);
                // So many come to a server in all tries together.
                let come = if taken > 0.0 { (1.0 - left * (1.0 - taken)) / taken } else { 0.0 };
                for (&server, &limit) in order.iter().zip(limits) {
                    shares[usize::from(server)] = (part(limit) * come + (1.0 - part(limit)) * left) / servers as f64;
                }
            }
            Self::Empty
            | Self::Single
            | Self::Rendezvous { .. }
            | Self::Jump { .. }
            | Self::Ch3 { .. }
            | Self::McrouterRendezvous { .. } => shares.fill(1.0 / servers.max(1) as f64),
        }
        shares
    }

    /// Whether no key has an owner, though there are servers.
    pub(in crate::ring) fn owns_nothing(&self) -> bool {
        match self {
            Self::Circle { circle, .. } => circle.len() == 0,
            Self::Slots(slots) => slots.slots.is_empty(),
            _ => false,
        }
    }

    /// This circle and another, if a key lies at the same place on both, and at how many places it can lie.
    pub(in crate::ring) fn circles<'a>(&'a self, other: &'a Self) -> Option<(&'a Circle, &'a Circle, u64)> {
        match (self, other) {
            (
                Self::Circle { circle: ours, key: our_key, mirrored: our_side, hash_tag: None },
                Self::Circle { circle: theirs, key, mirrored, hash_tag: None },
            ) if our_key == key && our_side == mirrored => Some((ours, theirs, key.range())),
            _ => None,
        }
    }

    /// These slots and others, if a key has the same hash for both.
    pub(in crate::ring) fn slots<'a>(&'a self, other: &'a Self) -> Option<(&'a Slots, &'a Slots)> {
        match (self, other) {
            (Self::Slots(ours), Self::Slots(theirs)) if ours.hash == theirs.hash => {
                (ours.hash_tag.is_none() && theirs.hash_tag.is_none()).then_some((ours, theirs))
            }
            _ => None,
        }
    }

    /// The owner of a key, as an index into the servers as they were given.
    pub(in crate::ring) fn owner(&self, key: &[u8]) -> Option<usize> {
        let index = match self {
            Self::Empty => return None,
            Self::Single => 0,
            Self::Circle { circle, key: hash, mirrored, hash_tag } => {
                let at = hash.of(hash_tag.and_then(|tag| tagged(key, tag)).unwrap_or(key));
                return circle.owner(if *mirrored { !at } else { at });
            }
            Self::Slots(Slots { slots, hash, hash_tag }) => {
                let key = hash_tag.and_then(|tag| tagged(key, tag)).unwrap_or(key);
                *slots.get(hash.of(key).checked_rem(slots.len() as u64)? as usize)?
            }
            Self::Rendezvous { nodes, keys } => {
                let mut best: Option<(u32, u16)> = None;
                for (prefix, index) in nodes {
                    let score = keys.score(prefix, key);
                    if best.is_none_or(|(most, _)| score > most) {
                        best = Some((score, *index));
                    }
                }
                best?.1
            }
            Self::Jump { order } => *order.get(jump(xxh64(key, 0), order.len()))?,
            Self::Wide { points, upper, key: hash } => {
                let at = hash.of(key);
                if let Some(owner) = upper.owner_beyond((at >> 96) as u32) {
                    return Some(owner);
                }
                // A point that begins as the key does may come before it or after.
                let next = points.get(upper.first_from((at >> 96) as u32)..)?.iter().find(|(point, _)| *point >= at);
                next.or_else(|| points.first())?.1
            }
            Self::Ch3 { order } => *order.get(ch3(Joined::from(key), order.len() as u32) as usize)?,
            Self::WeightedCh3 { order, limits } => *order.get(weighted_ch3(key, limits))?,
            Self::McrouterRendezvous { order, tags } => *order.get(rendezvous(key, tags)?)?,
            Self::Custom(table) => table.owner(key)?,
        };
        Some(usize::from(index))
    }
}

impl Slots {
    /// The most remainders that are gone through to compare two tables.
    const REMAINDERS: u64 = 1 << 22;

    /// Goes through these slots and others at once: for every remainder of a hash, its owner here, its owner there, and how
    /// many values of the hash have it. Says how many values there are in all; or none, if the remainders are too many.
    pub(in crate::ring) fn overlay(&self, other: &Self, mut each: impl FnMut(usize, usize, u128)) -> Option<u128> {
        let (ours, theirs) = (self.slots.len() as u64, other.slots.len() as u64);
        let remainders = ours.checked_mul(theirs)?.checked_div(common_divisor(ours, theirs))?;
        if remainders > Self::REMAINDERS {
            return None;
        }
        for remainder in 0..remainders {
            let owner = |slots: &[u16]| usize::from(slots[remainder as usize % slots.len()]);
            each(owner(&self.slots), owner(&other.slots), self.hash.values(remainder, remainders));
        }
        Some(self.hash.range())
    }
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common_divisor(b, a % b) }
}

fn circle(scheme: &CircleScheme, servers: &[Server]) -> Table {
    let mut order = scheme.order.of(servers);
    // The circle gives a contested point to the first that comes with it.
    if scheme.last_wins {
        order.reverse();
    }
    let mut points = Vec::new();
    for index in order {
        let server = &servers[usize::from(index)];
        let made = scheme.points.of(server, &scheme.spelling.of(server), servers);
        // The last point at or before a place is, seen in a mirror, the first at or after it.
        points.extend(made.into_iter().map(|at| Point { at: if scheme.predecessor { !at } else { at }, node: index }));
    }
    Table::Circle {
        circle: Circle::new(&points),
        key: scheme.key,
        mirrored: scheme.predecessor,
        hash_tag: scheme.hash_tag,
    }
}

impl CircleHash {
    fn of(self, key: &[u8]) -> u32 {
        match self {
            Self::Key(hash) => hash.hash(key),
            Self::Folsom => as_unsigned_order(murmur3(key.iter().copied(), 0)),
        }
    }

    /// How many values there are.
    fn range(self) -> u64 {
        match self {
            Self::Key(KeyHash::Crc) => 1 << 15,
            Self::Key(_) | Self::Folsom => POSITIONS,
        }
    }
}

impl SlotHash {
    fn of(self, key: &[u8]) -> u64 {
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

    /// How many values there are.
    fn range(self) -> u128 {
        match self {
            Self::Key(KeyHash::Crc) | Self::Pecl => 1 << 15,
            Self::Mcrouter => 1 << 31,
            Self::Key(_) | Self::Java => 1 << 32,
            Self::Xxh64 => 1 << 64,
        }
    }

    /// How many of them have this remainder.
    fn values(self, remainder: u64, modulus: u64) -> u128 {
        let modulus = u128::from(modulus);
        let values = self.range() / modulus + u128::from(u128::from(remainder) < self.range() % modulus);
        match (self, remainder) {
            // Its 0 is one more 1.
            (Self::Pecl, 0) if modulus > 1 => values - 1,
            (Self::Pecl, 1) => values + 1,
            _ => values,
        }
    }
}

impl WideHash {
    fn of(self, key: &[u8]) -> u128 {
        match self {
            // Behind the last place comes the first.
            Self::BehindMd5 => md5_number(key).wrapping_add(1),
            Self::Xxh64 => u128::from(xxh64(key, 0)) << 64,
        }
    }
}

fn pecl_buckets(servers: &[Server]) -> Table {
    const BUCKETS: u32 = 1024;
    let mut points = Vec::new();
    for (node, server) in (0_u16..).zip(servers) {
        let name = Spelling::Full.of(server);
        let count = 160 * server.weight;
        points.extend((0..count).map(|index| Point { at: crc32(format!("{name}-{index}").as_bytes()), node }));
    }
    let circle = Circle::new(&points);
    let bucket = |index| circle.owner(index * (u32::MAX / BUCKETS)).and_then(|node| u16::try_from(node).ok());
    let slots = (0..BUCKETS).filter_map(bucket).collect();
    Table::Slots(Slots { slots, hash: SlotHash::Key(KeyHash::Crc32), hash_tag: None })
}
