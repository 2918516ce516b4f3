//! A placement applied to a list of servers: the data that a lookup reads.

use xxhash_rust::xxh64::xxh64;

use super::custom::CustomTable;
use super::hash_tag::hashed_part;
use super::jump::jump_hash;
use super::lookup_hash::{CircleHash, SlotHash, WideHash};
use super::mcrouter::{TRIES, ch3, rendezvous, rendezvous_tag_hash, weighted_ch3};
use super::name_format::NameFormat;
use super::order::ServerOrder;
use super::{CircleScheme, KeyHash, Placement, PythonKeys, Scheme, Server, envoy};
use crate::ring::circle::{Circle, Point};
use crate::ring::hash::{Joined, crc32, md5_number};

/// The owners of all keys.
pub(in crate::ring) enum PlacementTable {
    /// No servers.
    Empty,
    /// One server, which owns all keys.
    Single,
    Circle {
        circle: Circle,
        key: CircleHash,
        is_mirrored: bool,
        hash_tag: Option<(u8, u8)>,
    },
    Slots(Slots),
    /// For each server the part of the hashed text that precedes the key. Sorted by name, greater names first.
    Rendezvous {
        nodes: Vec<(Box<[u8]>, u16)>,
        keys: PythonKeys,
    },
    Jump {
        order: Vec<u16>,
    },
    /// Sorted points of up to 128 bits, and a circle of their upper 32 bits.
    Wide {
        points: Vec<(u128, u16)>,
        upper: Circle,
        key: WideHash,
    },
    Ch3 {
        order: Vec<u16>,
    },
    /// For each server the number of values of a key's second hash that it accepts, out of 2^32.
    WeightedCh3 {
        order: Vec<u16>,
        limits: Vec<u64>,
    },
    /// For each server the hash of its tag.
    McrouterRendezvous {
        order: Vec<u16>,
        tag_hashes: Vec<u64>,
    },
    Custom(CustomTable),
}

/// Slots with an owner each. The slot of a key is its hash modulo the number of slots.
pub(in crate::ring) struct Slots {
    pub(super) owners: Vec<u16>,
    hash: SlotHash,
    hash_tag: Option<(u8, u8)>,
}

impl PlacementTable {
    pub(in crate::ring) fn new(placement: &Placement, servers: &[Server]) -> Self {
        match servers.len() {
            0 => return Self::Empty,
            1 => return Self::Single,
            _ => {}
        }
        match &placement.scheme {
            // `Ring` builds these itself.
            Scheme::Native | Scheme::Custom { .. } => Self::Empty,
            Scheme::Circle(scheme) => Self::circle(scheme, servers),
            Scheme::Modulo { key, order, uses_weights, hash_tag } => {
                let slots_of =
                    |index: &u16| if *uses_weights { servers[usize::from(*index)].weight as usize } else { 1 };
                let order = order.sorted_indices(servers).into_iter();
                let owners = order.flat_map(|index| std::iter::repeat_n(index, slots_of(&index))).collect();
                Self::Slots(Slots { owners, hash: *key, hash_tag: *hash_tag })
            }
            Scheme::PymemcacheRendezvous { keys } => {
                let prefix = |server| format!("{}-", NameFormat::Full.name_of(server)).into_bytes().into_boxed_slice();
                let mut nodes: Vec<_> = (0_u16..).zip(servers).map(|(index, server)| (prefix(server), index)).collect();
                // Of equal scores the greater name wins: after sorting, the first one found.
                nodes.sort_by(|(a, _), (b, _)| b[..b.len() - 1].cmp(&a[..a.len() - 1]));
                Self::Rendezvous { nodes, keys: *keys }
            }
            Scheme::Jump => Self::Jump { order: ServerOrder::Natural.sorted_indices(servers) },
            Scheme::Uhashring => {
                let named =
                    (0_u16..).zip(servers).map(|(index, server)| (NameFormat::Bracketed.name_of(server), index));
                let points = named.flat_map(|(name, index)| {
                    (0..160).map(move |point| (md5_number(format!("{name}-{point}").as_bytes()), index))
                });
                Self::wide(points, WideHash::AfterMd5)
            }
            Scheme::Ch3 { order } => Self::Ch3 { order: order.sorted_indices(servers) },
            Scheme::WeightedCh3 { order, one } => {
                let order = order.sorted_indices(servers);
                let weight = |index: &u16| f64::from(servers[usize::from(*index)].weight) / f64::from(*one);
                let limits = order.iter().map(|index| (weight(index).min(1.0) * f64::from(u32::MAX)) as u64).collect();
                Self::WeightedCh3 { order, limits }
            }
            Scheme::McrouterRendezvous { order } => {
                let order = order.sorted_indices(servers);
                let tag = |index: &u16| NameFormat::Named.name_of(&servers[usize::from(*index)]);
                let tag_hashes = order.iter().map(|index| rendezvous_tag_hash(tag(index).as_bytes())).collect();
                Self::McrouterRendezvous { order, tag_hashes }
            }
            Scheme::PeclConsistent => Self::pecl_consistent(servers),
            Scheme::EnvoyRing { order, hash, minimum_size } => {
                let sizes = (*minimum_size, envoy::MAXIMUM_RING_SIZE);
                let points = envoy::ring_points(&order.sorted_indices(servers), servers, *hash, sizes);
                let wide = points.into_iter().map(|(position, server)| (u128::from(position) << 64, server));
                Self::wide(wide, WideHash::Xxh64)
            }
            Scheme::EnvoyMaglev => {
                let owners = envoy::maglev_slots(servers, envoy::MAGLEV_TABLE_SIZE);
                Self::Slots(Slots { owners, hash: SlotHash::Xxh64, hash_tag: None })
            }
        }
    }

    fn circle(scheme: &CircleScheme, servers: &[Server]) -> Self {
        let mut order = scheme.order.sorted_indices(servers);
        // `Circle` gives a contested point to the server whose point comes first.
        if scheme.last_listed_wins {
            order.reverse();
        }
        let mut points = Vec::new();
        for node in order {
            let server = &servers[usize::from(node)];
            let name = scheme.name_format.name_of(server);
            let positions = scheme.points.points(server, &name, servers).into_iter();
            points.extend(positions.map(|at| Point { position: if scheme.is_mirrored { !at } else { at }, node }));
        }
        Self::Circle {
            circle: Circle::new(&points),
            key: scheme.key,
            is_mirrored: scheme.is_mirrored,
            hash_tag: scheme.hash_tag,
        }
    }

    /// Of points at the same position the first wins.
    fn wide(points: impl Iterator<Item = (u128, u16)>, key: WideHash) -> Self {
        let mut points: Vec<_> = points.collect();
        points.sort_by_key(|(position, _)| *position);
        let upper: Vec<_> =
            points.iter().map(|&(position, node)| Point { position: (position >> 96) as u32, node }).collect();
        Self::Wide { points, upper: Circle::new(&upper), key }
    }

    /// pecl-memcache samples a ring of points at 1024 positions.
    fn pecl_consistent(servers: &[Server]) -> Self {
        const SLOTS: u32 = 1024;
        let mut points = Vec::new();
        for (node, server) in (0_u16..).zip(servers) {
            let name = NameFormat::Full.name_of(server);
            let hash = |index| crc32(format!("{name}-{index}").as_bytes());
            points.extend((0..160 * server.weight).map(|index| Point { position: hash(index), node }));
        }
        let circle = Circle::new(&points);
        let owner = |slot| circle.owner(slot * (u32::MAX / SLOTS)).and_then(|node| u16::try_from(node).ok());
        let owners = (0..SLOTS).filter_map(owner).collect();
        Self::Slots(Slots { owners, hash: SlotHash::Key(KeyHash::Crc32), hash_tag: None })
    }

    /// Returns the share of all keys that each server owns.
    ///
    /// Exact for points and slots. For other placements it is the share the placement aims at.
    pub(in crate::ring) fn shares(&self, servers: usize) -> Vec<f64> {
        let mut shares = vec![0.0; servers];
        match self {
            Self::Circle { circle, key, .. } => return circle.shares(key.value_count(), servers),
            Self::Custom(table) => return table.shares(),
            Self::Slots(slots) => {
                let slot_count = slots.owners.len() as u64;
                for (slot, &server) in (0..).zip(&slots.owners) {
                    shares[usize::from(server)] += slots.hash.values_with_remainder(slot, slot_count) as f64;
                }
                shares.iter_mut().for_each(|share| *share /= slots.hash.value_count() as f64);
            }
            Self::Wide { points, .. } => {
                let before = points.last().map_or(0, |(position, _)| *position);
                points.iter().fold(before, |before, &(position, server)| {
                    shares[usize::from(server)] += position.wrapping_sub(before) as f64 / u128::MAX as f64;
                    position
                });
            }
            Self::WeightedCh3 { order, limits } => {
                let accepted = |limit: u64| limit as f64 / (u64::from(u32::MAX) + 1) as f64;
                let mean_accepted = limits.iter().map(|&limit| accepted(limit)).sum::<f64>() / servers as f64;
                // The share of keys that all tries but the last reject. These stay where the last try leads.
                let rejected = (1.0 - mean_accepted).powi(i32::from(TRIES) - 1);
                // The mean number of tries for a key. Tries are spread evenly over the servers.
                let tries =
                    if mean_accepted > 0.0 { (1.0 - rejected * (1.0 - mean_accepted)) / mean_accepted } else { 0.0 };
                for (&server, &limit) in order.iter().zip(limits) {
                    shares[usize::from(server)] =
                        (accepted(limit) * tries + (1.0 - accepted(limit)) * rejected) / servers as f64;
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

    /// Returns whether no key has an owner although there are servers, because all weights are 0.
    pub(in crate::ring) fn is_ownerless(&self) -> bool {
        match self {
            Self::Circle { circle, .. } => circle.len() == 0,
            Self::Slots(slots) => slots.owners.is_empty(),
            _ => false,
        }
    }

    /// Returns both circles if a key has the same position on both, and the number of possible positions.
    pub(in crate::ring) fn comparable_circles<'a>(&'a self, other: &'a Self) -> Option<(&'a Circle, &'a Circle, u64)> {
        match (self, other) {
            (
                Self::Circle { circle, key, is_mirrored, hash_tag: None },
                Self::Circle { circle: other, key: other_key, is_mirrored: is_other_mirrored, hash_tag: None },
            ) if key == other_key && is_mirrored == is_other_mirrored => Some((circle, other, key.value_count())),
            _ => None,
        }
    }

    /// Returns the slots of both tables if a key has the same hash in both.
    pub(in crate::ring) fn comparable_slots<'a>(&'a self, other: &'a Self) -> Option<(&'a Slots, &'a Slots)> {
        match (self, other) {
            (Self::Slots(slots), Self::Slots(other)) if slots.hash == other.hash => {
                (slots.hash_tag.is_none() && other.hash_tag.is_none()).then_some((slots, other))
            }
            _ => None,
        }
    }

    /// Returns the owner of a key as an index into the servers given to [`new`](Self::new).
    pub(in crate::ring) fn owner(&self, key: &[u8]) -> Option<usize> {
        let index = match self {
            Self::Empty => return None,
            Self::Single => 0,
            Self::Circle { circle, key: hash, is_mirrored, hash_tag } => {
                let position = hash.position(hashed_part(key, *hash_tag));
                return circle.owner(if *is_mirrored { !position } else { position });
            }
            Self::Slots(Slots { owners, hash, hash_tag }) => {
                let slot = hash.hash(hashed_part(key, *hash_tag)).checked_rem(owners.len() as u64)?;
                *owners.get(slot as usize)?
            }
            Self::Rendezvous { nodes, keys } => {
                let mut best: Option<(u32, u16)> = None;
                for (prefix, index) in nodes {
                    let score = keys.score(prefix, key);
                    if best.is_none_or(|(highest, _)| score > highest) {
                        best = Some((score, *index));
                    }
                }
                best?.1
            }
            Self::Jump { order } => *order.get(jump_hash(xxh64(key, 0), order.len()))?,
            Self::Wide { points, upper, key: hash } => {
                let position = hash.position(key);
                let upper_bits = (position >> 96) as u32;
                if let Some(owner) = upper.owner_unless_on_point(upper_bits) {
                    return Some(owner);
                }
                // A point with the same upper bits as the key may come before it or after it.
                let candidates = points.get(upper.first_point_from(upper_bits)..)?;
                candidates.iter().find(|(point, _)| *point >= position).or_else(|| points.first())?.1
            }
            Self::Ch3 { order } => *order.get(ch3(Joined::from(key), order.len() as u32) as usize)?,
            Self::WeightedCh3 { order, limits } => *order.get(weighted_ch3(key, limits))?,
            Self::McrouterRendezvous { order, tag_hashes } => *order.get(rendezvous(key, tag_hashes)?)?,
            Self::Custom(table) => table.owner(key)?,
        };
        Some(usize::from(index))
    }
}

impl Slots {
    /// The largest number of remainders that a comparison of two tables visits.
    const MAX_REMAINDERS: u64 = 1 << 22;

    /// Compares two tables: calls `visit` for every remainder of a hash by the slots of both.
    ///
    /// `visit` gets the owner here, the owner in the other table, and the number of hash values with the remainder.
    /// Returns the number of all hash values; `None` if there are too many remainders.
    pub(in crate::ring) fn for_each_overlap(
        &self,
        other: &Self,
        mut visit: impl FnMut(usize, usize, u128),
    ) -> Option<u128> {
        let (ours, others) = (self.owners.len() as u64, other.owners.len() as u64);
        let remainders = ours.checked_mul(others)?.checked_div(greatest_common_divisor(ours, others))?;
        if remainders > Self::MAX_REMAINDERS {
            return None;
        }
        for remainder in 0..remainders {
            let owner = |owners: &[u16]| usize::from(owners[remainder as usize % owners.len()]);
            let values = self.hash.values_with_remainder(remainder, remainders);
            visit(owner(&self.owners), owner(&other.owners), values);
        }
        Some(self.hash.value_count())
    }
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}
