//! A placement worked out for certain servers: what a look-up reads.

use std::fmt::Write as _;

use xxhash_rust::xxh64::xxh64;

use super::points::as_unsigned_order;
use super::spelling::{Order, Spelling};
use super::{CircleHash, CircleScheme, Placement, PythonKeys, Scheme, Server, SlotHash};
use crate::ring::circle::{Circle, Point};
use crate::ring::circle_shares;
use crate::ring::hash::{crc32, java_string, md5_number, murmur3, murmur64a};

/// Who owns which key.
#[derive(Clone)]
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
    Slots {
        slots: Vec<u16>,
        hash: SlotHash,
        hash_tag: Option<(u8, u8)>,
    },
    /// The beginnings of what is hashed, and the servers, greater names first.
    Rendezvous {
        nodes: Vec<(Box<[u8]>, u16)>,
        keys: PythonKeys,
    },
    Jump {
        order: Vec<u16>,
    },
    /// Points of 128 bits, in order, and a circle of their upper 32.
    Wide {
        points: Vec<(u128, u16)>,
        upper: Circle,
    },
    Ch3 {
        order: Vec<u16>,
    },
    Buckets {
        buckets: Vec<u16>,
    },
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
                Self::Slots { slots: slots.collect(), hash: *key, hash_tag: *hash_tag }
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
            // A native ring has no table of this kind.
            Scheme::Native => Self::Empty,
            Scheme::Jump => Self::Jump { order: Order::Natural.of(servers) },
            Scheme::Uhashring => {
                let mut points: Vec<(u128, u16)> = Vec::new();
                for (index, server) in (0_u16..).zip(servers) {
                    let name = Spelling::Bracketed.of(server);
                    points.extend((0..160).map(|point| (md5_number(format!("{name}-{point}").as_bytes()), index)));
                }
                points.sort_by_key(|(at, _)| *at);
                let upper: Vec<_> = points.iter().map(|&(at, node)| Point { at: (at >> 96) as u32, node }).collect();
                Self::Wide { points, upper: Circle::new(&upper) }
            }
            Scheme::Ch3 { order } => Self::Ch3 { order: order.of(servers) },
            Scheme::PeclConsistent => pecl_buckets(servers),
        }
    }

    /// Which part of all keys each server owns; exact where keys meet points or slots, and what is meant elsewhere.
    pub(in crate::ring) fn shares(&self, servers: usize) -> Vec<f64> {
        let mut shares = vec![0.0; servers];
        match self {
            Self::Circle { circle, .. } => return circle_shares(circle, servers),
            Self::Slots { slots, .. } | Self::Buckets { buckets: slots } => {
                slots.iter().for_each(|&server| shares[usize::from(server)] += 1.0 / slots.len() as f64);
            }
            Self::Wide { points, .. } => {
                let before = points.last().map_or(0, |(at, _)| *at);
                points.iter().fold(before, |before, &(at, server)| {
                    shares[usize::from(server)] += at.wrapping_sub(before) as f64 / u128::MAX as f64;
                    at
                });
            }
            Self::Empty | Self::Single | Self::Rendezvous { .. } | Self::Jump { .. } | Self::Ch3 { .. } => {
                shares.fill(1.0 / servers.max(1) as f64);
            }
        }
        shares
    }

    /// This circle and another, if a key lies at the same place on both.
    pub(in crate::ring) fn circles<'a>(&'a self, other: &'a Self) -> Option<(&'a Circle, &'a Circle)> {
        match (self, other) {
            (
                Self::Circle { circle: ours, key: our_key, mirrored: our_side, hash_tag: None },
                Self::Circle { circle: theirs, key, mirrored, hash_tag: None },
            ) if our_key == key && our_side == mirrored => Some((ours, theirs)),
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
            Self::Slots { slots, hash, hash_tag } => {
                let key = hash_tag.and_then(|tag| tagged(key, tag)).unwrap_or(key);
                *slots.get(hash.of(key) as usize % slots.len().max(1))?
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
            Self::Wide { points, upper } => {
                let at = md5_number(key);
                if let Some(owner) = upper.owner_beyond((at >> 96) as u32) {
                    return Some(owner);
                }
                // A point that begins as the key does may come before it or after.
                let next = points.get(upper.first_from((at >> 96) as u32)..)?.iter().find(|(point, _)| *point > at);
                next.or_else(|| points.first())?.1
            }
            Self::Ch3 { order } => *order.get(ch3(key, order.len() as u32) as usize)?,
            Self::Buckets { buckets } => *buckets.get(crc32(key) as usize % buckets.len().max(1))?,
        };
        Some(usize::from(index))
    }
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

/// What stands between the first `open` and the first `close` after it, if anything does.
fn tagged(key: &[u8], (open, close): (u8, u8)) -> Option<&[u8]> {
    let start = memchr::memchr(open, key)? + 1;
    let len = memchr::memchr(close, &key[start..])?;
    (len > 0).then(|| &key[start..start + len])
}

impl CircleHash {
    fn of(self, key: &[u8]) -> u32 {
        match self {
            Self::Key(hash) => hash.hash(key),
            Self::Folsom => as_unsigned_order(murmur3(key.iter().copied(), 0)),
        }
    }
}

impl SlotHash {
    fn of(self, key: &[u8]) -> u32 {
        match self {
            Self::Key(hash) => hash.hash(key),
            Self::Java => java_string(key),
            Self::Pecl => match (crc32(key) >> 16) & 0x7fff {
                0 => 1,
                hash => hash,
            },
        }
    }
}

impl PythonKeys {
    /// Python hashes characters: of each the low eight bits.
    fn score(self, prefix: &[u8], key: &[u8]) -> u32 {
        let prefix = prefix.iter().copied();
        match self {
            Self::Str => murmur3(prefix.chain(low_bytes(key)), 0),
            Self::Bytes => murmur3(prefix.chain(printed(key).into_bytes()), 0),
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
fn printed(key: &[u8]) -> String {
    let quote = if key.contains(&b'\'') && !key.contains(&b'"') { '"' } else { '\'' };
    let mut text = format!("b{quote}");
    for &byte in key {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b'\t' => text.push_str("\\t"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b' '..=b'~' if char::from(byte) == quote => {
                text.push('\\');
                text.push(quote);
            }
            b' '..=b'~' => text.push(char::from(byte)),
            // Writing to a string does not fail.
            _ => drop(write!(text, "\\x{byte:02x}")),
        }
    }
    text.push(quote);
    text
}

fn jump(mut key: u64, buckets: usize) -> usize {
    let (mut bucket, mut next) = (0_i64, 0_i64);
    while next < buckets as i64 {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((bucket + 1) as f64 * ((1_i64 << 31) as f64 / ((key >> 33) + 1) as f64)) as i64;
    }
    bucket as usize
}

/// mcrouter's furc hash.
fn ch3(key: &[u8], servers: u32) -> u32 {
    const SEED: u64 = 4_193_360_111;
    const TRIES: u32 = 32;
    const STEP: usize = 23;
    if servers <= 1 {
        return 0;
    }
    let mut words = vec![murmur64a(key, SEED)];
    let mut bit = |at: usize| {
        while words.len() <= at / 64 {
            let last = words.last().copied().unwrap_or_default();
            words.push(murmur64a(&last.to_le_bytes(), SEED));
        }
        words[at / 64] >> (at % 64) & 1
    };
    let mut depth = (u32::BITS - (servers - 1).leading_zeros()) as usize;
    let mut at = depth;
    for _ in 0..TRIES {
        while bit(at) == 0 {
            depth -= 1;
            if depth == 0 {
                return 0;
            }
            at = depth;
        }
        at += STEP;
        let mut number = 1;
        for _ in 0..depth - 1 {
            number = number << 1 | bit(at) as u32;
            at += STEP;
        }
        if number < servers {
            return number;
        }
    }
    0
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
    Table::Buckets { buckets: (0..BUCKETS).filter_map(bucket).collect() }
}
