//! Placements that agree with other clients: the same key on the same pod, whatever language asks.
//!
//! A placement is data: how a node's name is spelled, how its points are made, how a key is hashed, how the two meet. The
//! functions are in `hash`, the spellings in `spelling`, the ways to meet in `table`, and in `choose` those that need no
//! table.

mod choose;
mod custom;
#[cfg(test)]
mod edges;
mod envoy;
#[cfg(test)]
mod golden;
mod names;
mod points;
mod spelling;
mod table;

use std::fmt;
use std::sync::Arc;

use self::custom::{Custom, CustomTable};
pub(super) use self::table::Table;

pub use self::custom::{CustomPlacement, OwnerOf};
pub use self::names::UnknownPlacement;
use self::spelling::{Order, Spelling};
use super::RingNode;
pub use super::hash::KeyHash;

/// How keys find their node: memring's own way, or bit for bit that of another client.
#[derive(Clone, PartialEq, Eq)]
pub struct Placement {
    scheme: Scheme,
}

/// A server as a placement sees it.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) weight: u32,
    /// A name of its own, where a client knows such.
    pub(super) name: Option<String>,
    /// The address its name was resolved to, where a client looks at that.
    pub(super) ip: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Scheme {
    /// memring's own.
    Native,
    /// Points on a circle of 2^32 positions.
    Circle(CircleScheme),
    /// hash mod number of slots.
    Modulo { key: SlotHash, order: Order, by_weight: bool, hash_tag: Option<(u8, u8)> },
    /// The highest score wins.
    Rendezvous { keys: PythonKeys },
    /// Lamping and Veach's jump hash.
    Jump,
    /// 128-bit MD5 numbers.
    Uhashring,
    /// mcrouter's Ch3.
    Ch3 { order: Order },
    /// mcrouter's Ch3, and the weight that is its 1.0.
    WeightedCh3 { order: Order, one: u32 },
    /// mcrouter's rendezvous hash.
    McrouterRendezvous { order: Order },
    /// pecl-memcache's 1024 buckets of a ring.
    PeclConsistent,
    /// Envoy's ring of 64 bits.
    EnvoyRing { order: Order, hash: EnvoyHash, minimum_size: u32 },
    /// Envoy's Maglev.
    EnvoyMaglev,
    /// A user's own.
    Custom { order: Order, custom: Custom },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct CircleScheme {
    order: Order,
    spelling: Spelling,
    points: Points,
    key: CircleHash,
    /// The owner is the last point at or before the key, not the first at or after it.
    predecessor: bool,
    /// Of servers with the same point the last listed owns it.
    last_wins: bool,
    hash_tag: Option<(u8, u8)>,
}

/// How a server comes by its points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Points {
    /// So many hashes of the numbered name.
    Hashed { count: u32, hash: KeyHash, weighted_if_any: bool },
    /// Groups of four words of the MD5 of the numbered name, as many as the weight says, by arithmetic of 32 bits.
    Weighted { zero_is_one: bool },
    /// The same in a fixed number.
    Groups(u32),
    /// Dalli's: SHA-1, in numbers by the weight.
    Sha1,
    /// nginx's chain of CRCs.
    Chain,
    /// folsom's chain of Murmur3.
    Folsom,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CircleHash {
    Key(KeyHash),
    /// Murmur3 without a seed, as a signed number.
    Folsom,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotHash {
    Key(KeyHash),
    Java,
    /// pecl-memcache's: 15 bits of CRC-32, and never 0.
    Pecl,
    /// mcrouter's: CRC-32 without its highest bit.
    Mcrouter,
    /// XXH64.
    Xxh64,
}

/// What pymemcache is given for keys, which makes a difference to where they go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PythonKeys {
    /// `str`: hashed by the low eight bits of each character.
    Str,
    /// `bytes`: hashed as Python prints them, `b'…'`.
    Bytes,
}

/// libmemcached's distributions, and those of what is built on it (php-memcached, pylibmc).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Libmemcached {
    /// `modula`: hash mod number of servers, weights ignored. The default there.
    Modula,
    /// `ketama`, `consistent`, `consistent_ketama`: 100 points a server, made with the key's hash. As soon as a server
    /// has a weight over 1, as [`KetamaWeighted`](Self::KetamaWeighted), but for the key's hash.
    Ketama,
    /// As [`Ketama`](Self::Ketama), where servers were added before the option was set: weights are ignored.
    KetamaUnweighted,
    /// `ketama_weighted`; `OPT_LIBKETAMA_COMPATIBLE` of PHP: 160 points for a mean weight, of MD5.
    KetamaWeighted,
    /// `consistent_ketama_spy`.
    Spy,
    /// `ketama_weighted` and `consistent_ketama_spy`.
    SpyWeighted,
}

/// How spymemcached spells a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SpyFormat {
    /// As libmemcached does.
    Libmemcached,
    /// With the address, its own default: a pod that comes back elsewhere has other points.
    Spymemcached,
}

/// How Envoy's ring hashes hosts (`hash_function`). Keys it hashes by XXH64 with either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EnvoyHash {
    /// `XX_HASH`, the default there.
    XxHash,
    /// `MURMUR_HASH_2`.
    Murmur2,
}

impl Placement {
    /// memring's own placement: see [`Ring`](crate::Ring).
    #[must_use]
    pub fn native() -> Self {
        Scheme::Native.into()
    }

    pub(crate) fn is_native(&self) -> bool {
        self.scheme == Scheme::Native
    }

    /// Takes nodes in natural order of their labels (`cache-2` before `cache-10`), wherever the placement would take them as
    /// they are listed. [`ClientBuilder::placement`](crate::ClientBuilder::placement) does so always; with it a
    /// [`Ring`](crate::Ring) of nodes in any order places keys as a client does.
    ///
    /// ```
    /// use memring::{Placement, Ring};
    ///
    /// let placement = Placement::gomemcache();
    /// let listed = Ring::with_placement(&placement, ["cache-2:11211", "cache-10:11211"])?;
    /// let shuffled = Ring::with_placement(&placement.in_natural_order(), ["cache-10:11211", "cache-2:11211"])?;
    /// assert_eq!(listed.moved(&shuffled), 0.0);
    /// # Ok::<(), memring::InvalidRing>(())
    /// ```
    #[must_use]
    pub fn in_natural_order(mut self) -> Self {
        match &mut self.scheme {
            Scheme::Circle(CircleScheme { order, .. })
            | Scheme::Modulo { order, .. }
            | Scheme::Ch3 { order }
            | Scheme::WeightedCh3 { order, .. }
            | Scheme::McrouterRendezvous { order }
            | Scheme::EnvoyRing { order, .. }
            | Scheme::Custom { order, .. }
                if *order == Order::Listed =>
            {
                *order = Order::Natural;
            }
            _ => {}
        }
        self
    }

    /// libmemcached, php-memcached, pylibmc. `hash` is the key hash in effect there.
    #[must_use]
    pub fn libmemcached(distribution: Libmemcached, hash: KeyHash) -> Self {
        Self::libmemcached_in(Order::Listed, distribution, hash)
    }

    /// As [`libmemcached`](Self::libmemcached), with `SORT_HOSTS`.
    #[must_use]
    pub fn libmemcached_sorted(distribution: Libmemcached, hash: KeyHash) -> Self {
        Self::libmemcached_in(Order::ByHost, distribution, hash)
    }

    fn libmemcached_in(order: Order, distribution: Libmemcached, hash: KeyHash) -> Self {
        let spelling = match distribution {
            Libmemcached::Spy | Libmemcached::SpyWeighted => Spelling::Slashed,
            _ => Spelling::Short,
        };
        let points = match distribution {
            Libmemcached::Modula => {
                return Scheme::Modulo { key: SlotHash::Key(hash), order, by_weight: false, hash_tag: None }.into();
            }
            Libmemcached::Ketama | Libmemcached::Spy => Points::Hashed { count: 100, hash, weighted_if_any: true },
            Libmemcached::KetamaUnweighted => Points::Hashed { count: 100, hash, weighted_if_any: false },
            Libmemcached::KetamaWeighted | Libmemcached::SpyWeighted => Points::Weighted { zero_is_one: true },
        };
        CircleScheme { order, ..CircleScheme::new(spelling, points, CircleHash::Key(hash)) }.into()
    }

    /// Dalli, 3 to 5.
    #[must_use]
    pub fn dalli() -> Self {
        let scheme = CircleScheme::new(Spelling::Full, Points::Sha1, CircleHash::Key(KeyHash::Crc32));
        CircleScheme { predecessor: true, last_wins: true, ..scheme }.into()
    }

    /// spymemcached's ketama (`KetamaNodeLocator`, `KETAMA_HASH`).
    #[must_use]
    pub fn spymemcached(format: SpyFormat, weighted: bool) -> Self {
        let spelling = match format {
            SpyFormat::Libmemcached => Spelling::JavaShort,
            SpyFormat::Spymemcached => Spelling::Java,
        };
        let points = if weighted { Points::Weighted { zero_is_one: false } } else { Points::Groups(40) };
        CircleScheme { last_wins: true, ..CircleScheme::new(spelling, points, CircleHash::Key(KeyHash::Md5)) }.into()
    }

    /// spymemcached's default (`ArrayModNodeLocator`, `NATIVE_HASH`).
    #[must_use]
    pub fn spymemcached_array_mod() -> Self {
        Scheme::Modulo { key: SlotHash::Java, order: Order::Listed, by_weight: false, hash_tag: None }.into()
    }

    /// twemproxy's ketama.
    #[must_use]
    pub fn twemproxy_ketama(hash: KeyHash) -> Self {
        let points = Points::Weighted { zero_is_one: false };
        let scheme = CircleScheme::new(Spelling::NamedShort, points, CircleHash::Key(hash));
        CircleScheme { order: Order::ByNameLength, ..scheme }.into()
    }

    /// twemproxy's modula.
    #[must_use]
    pub fn twemproxy_modula(hash: KeyHash) -> Self {
        Scheme::Modulo { key: SlotHash::Key(hash), order: Order::ByNameLength, by_weight: true, hash_tag: None }.into()
    }

    /// Hashes of a key only what stands between two bytes, if something does (`hash_tag`). Without effect on placements
    /// of others than twemproxy.
    #[must_use]
    pub fn with_hash_tag(mut self, tag: Option<(u8, u8)>) -> Self {
        match &mut self.scheme {
            Scheme::Circle(CircleScheme { order: Order::ByNameLength, hash_tag, .. })
            | Scheme::Modulo { order: Order::ByNameLength, hash_tag, .. } => *hash_tag = tag,
            _ => {}
        }
        self
    }

    /// pymemcache's `HashClient`: rendezvous hashing.
    #[must_use]
    pub fn pymemcache(keys: PythonKeys) -> Self {
        Scheme::Rendezvous { keys }.into()
    }

    /// gomemcache: CRC-32 mod number of servers.
    #[must_use]
    pub fn gomemcache() -> Self {
        Scheme::Modulo { key: SlotHash::Key(KeyHash::Crc32), order: Order::Listed, by_weight: false, hash_tag: None }
            .into()
    }

    /// dskit and Thanos: jump hash over servers in natural order.
    #[must_use]
    pub fn dskit() -> Self {
        Scheme::Jump.into()
    }

    /// nginx: `hash … consistent`.
    #[must_use]
    pub fn nginx() -> Self {
        CircleScheme::new(Spelling::Full, Points::Chain, CircleHash::Key(KeyHash::Crc32)).into()
    }

    /// folsom's ketama.
    #[must_use]
    pub fn folsom() -> Self {
        CircleScheme { last_wins: true, ..CircleScheme::new(Spelling::Bracketed, Points::Folsom, CircleHash::Folsom) }
            .into()
    }

    /// uhashring, which meta-memcache-py uses.
    #[must_use]
    pub fn uhashring() -> Self {
        Scheme::Uhashring.into()
    }

    /// mcrouter's `Ch3`, without weights.
    #[must_use]
    pub fn mcrouter_ch3() -> Self {
        Scheme::Ch3 { order: Order::Listed }.into()
    }

    /// mcrouter's `WeightedCh3`. Its weights are fractions, from 0.0 to 1.0; here they are divided by `one`: with 100,
    /// nodes of the weights 100 and 70 are 1.0 and 0.7 there. Weights over `one` count as 1.0; a `one` of 0 counts as 1.
    ///
    /// A node that was given no weight has 1, which is little of 100: give every node one.
    #[must_use]
    pub fn mcrouter_weighted_ch3(one: u32) -> Self {
        Scheme::WeightedCh3 { order: Order::Listed, one: one.max(1) }.into()
    }

    /// mcrouter's `Crc32`.
    #[must_use]
    pub fn mcrouter_crc32() -> Self {
        Scheme::Modulo { key: SlotHash::Mcrouter, order: Order::Listed, by_weight: false, hash_tag: None }.into()
    }

    /// mcrouter's `Rendezvous`. A server's tag there is its [name](crate::RingNode::with_name) here, or else `host:port`.
    #[must_use]
    pub fn mcrouter_rendezvous() -> Self {
        Scheme::McrouterRendezvous { order: Order::Listed }.into()
    }

    /// Envoy's ring hash, where what is hashed of a request is the key (a header, say).
    ///
    /// A host is hashed as `ip:port`, which is then what a node's label has to be; or by a
    /// [name](crate::RingNode::with_name), where Envoy is told to hash its host name or a hash key of its metadata.
    #[must_use]
    pub fn envoy_ring(hash: EnvoyHash) -> Self {
        Scheme::EnvoyRing { order: Order::Listed, hash, minimum_size: envoy::MINIMUM_RING_SIZE }.into()
    }

    /// The fewest points Envoy's ring is to have (`minimum_ring_size`), from 1 to 8,388,608; 1024 unless set. Without
    /// effect on other placements. A point takes some 42 bytes here, and while the ring is built as much again.
    #[must_use]
    pub fn with_minimum_ring_size(mut self, points: u32) -> Self {
        if let Scheme::EnvoyRing { minimum_size, .. } = &mut self.scheme {
            *minimum_size = points.clamp(1, envoy::MAXIMUM_RING_SIZE);
        }
        self
    }

    /// Envoy's Maglev, with its default of 65,537 slots. Hosts are hashed as for [`envoy_ring`](Self::envoy_ring).
    #[must_use]
    pub fn envoy_maglev() -> Self {
        Scheme::EnvoyMaglev.into()
    }

    /// A placement of your own: see [`CustomPlacement`]. It is equal to its clones only.
    ///
    /// Its nodes' labels need not be a `host:port`. [`Ring::shares`](crate::Ring::shares) and
    /// [`Ring::diff`](crate::Ring::diff) ask it for the owners of 65,536 random keys of sixteen letters, which says little
    /// of a placement that looks for something else in keys.
    #[must_use]
    pub fn custom(placement: impl CustomPlacement) -> Self {
        Scheme::Custom { order: Order::Listed, custom: Custom(Arc::new(placement)) }.into()
    }

    /// What a user's placement makes of these nodes, if it is one.
    pub(super) fn custom_table(&self, nodes: &[RingNode]) -> Option<Table> {
        let Scheme::Custom { order, custom } = &self.scheme else { return None };
        Some(match nodes.len() {
            0 => Table::Empty,
            1 => Table::Single,
            _ => Table::Custom(CustomTable::new(custom, nodes, *order == Order::Natural)),
        })
    }

    /// pecl-memcache's `standard` strategy.
    #[must_use]
    pub fn pecl_standard() -> Self {
        Scheme::Modulo { key: SlotHash::Pecl, order: Order::Listed, by_weight: true, hash_tag: None }.into()
    }

    /// pecl-memcache's `consistent` strategy.
    #[must_use]
    pub fn pecl_consistent() -> Self {
        Scheme::PeclConsistent.into()
    }
}

impl CircleScheme {
    fn new(spelling: Spelling, points: Points, key: CircleHash) -> Self {
        Self { order: Order::Listed, spelling, points, key, predecessor: false, last_wins: false, hash_tag: None }
    }
}

impl From<Scheme> for Placement {
    fn from(scheme: Scheme) -> Self {
        Self { scheme }
    }
}

impl From<CircleScheme> for Placement {
    fn from(scheme: CircleScheme) -> Self {
        Scheme::Circle(scheme).into()
    }
}

impl fmt::Debug for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.scheme.fmt(f)
    }
}
