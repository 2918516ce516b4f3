//! Placements that agree with other clients: a key has the same node in every language.
//!
//! A [`Placement`] is data. It combines the format of a server's name (`name_format`), the order of servers (`order`),
//! the way points are made (`points`), and the hash of a key (`lookup_hash`). `table` applies it to a list of servers.

mod custom;
mod envoy;
mod hash_tag;
mod jump;
mod lookup_hash;
mod mcrouter;
mod name_format;
mod order;
mod parse;
mod points;
mod pymemcache;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use self::custom::{Custom, CustomTable};
use self::lookup_hash::{CircleHash, SlotHash};
use self::name_format::NameFormat;
use self::order::ServerOrder;
use self::points::PointScheme;
pub(super) use self::table::PlacementTable;
use super::RingNode;

pub use self::custom::{CustomPlacement, OwnerFn};
pub use self::parse::UnknownPlacement;
pub use super::hash::KeyHash;

/// A rule that maps keys to nodes: memring's own, or that of another client, bit for bit.
///
/// Pass it to [`ClientBuilder::placement`](crate::ClientBuilder::placement) or to
/// [`Ring::with_placement`](crate::Ring::with_placement). A placement can also be parsed from a name such as
/// `php:ketama_weighted`; see the implementation of [`FromStr`](std::str::FromStr) for all names.
#[derive(Clone, PartialEq, Eq)]
pub struct Placement {
    scheme: Scheme,
}

/// A server as another client's configuration describes it.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) weight: u32,
    /// The server's own name, for the clients that have one.
    pub(super) name: Option<String>,
    /// The resolved address of the host, for the clients that hash it.
    pub(super) ip: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Scheme {
    /// memring's own placement.
    Native,
    /// Points on a circle of 2^32 positions.
    Circle(CircleScheme),
    /// A hash modulo the number of slots. Each server has one slot, or as many as its weight.
    Modulo { key: SlotHash, order: ServerOrder, uses_weights: bool, hash_tag: Option<(u8, u8)> },
    /// pymemcache: the server with the highest score wins.
    PymemcacheRendezvous { keys: PythonKeys },
    /// Jump hash by Lamping and Veach.
    Jump,
    /// Points that are whole MD5s, 128 bits.
    Uhashring,
    /// mcrouter's Ch3.
    Ch3 { order: ServerOrder },
    /// mcrouter's WeightedCh3. `one` is the weight that mcrouter calls 1.0.
    WeightedCh3 { order: ServerOrder, one: u32 },
    /// mcrouter's rendezvous hash.
    McrouterRendezvous { order: ServerOrder },
    /// pecl-memcache's 1024 slots, sampled from a ring.
    PeclConsistent,
    /// Envoy's ring of 64-bit positions.
    EnvoyRing { order: ServerOrder, hash: EnvoyHash, minimum_size: u32 },
    /// Envoy's Maglev.
    EnvoyMaglev,
    /// A placement of the user.
    Custom { order: ServerOrder, custom: Custom },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct CircleScheme {
    order: ServerOrder,
    name_format: NameFormat,
    points: PointScheme,
    key: CircleHash,
    /// The owner is the last point at or before the key, instead of the first point at or after it. Mirroring all
    /// positions turns the one into the other.
    is_mirrored: bool,
    /// A point that several servers have belongs to the last of them in the order, instead of the first.
    last_listed_wins: bool,
    hash_tag: Option<(u8, u8)>,
}

/// The Python type of pymemcache's keys, on which their owner depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PythonKeys {
    /// `str`: pymemcache hashes the low eight bits of each character.
    Str,
    /// `bytes`: pymemcache hashes them as Python prints them, `b'…'`.
    Bytes,
}

/// The distributions of libmemcached and of the clients built on it: php-memcached and pylibmc.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Libmemcached {
    /// `modula`, the default of libmemcached: the hash modulo the number of servers. Weights are ignored.
    Modula,
    /// `ketama`, `consistent`, `consistent_ketama`: 100 points a server, made with the hash of the keys.
    ///
    /// As soon as a server has a weight over 1, points are made as for [`KetamaWeighted`](Self::KetamaWeighted), while
    /// keys keep their hash.
    Ketama,
    /// [`Ketama`](Self::Ketama) if the servers were added before the option was set: weights are ignored.
    KetamaUnweighted,
    /// `ketama_weighted`, in PHP `OPT_LIBKETAMA_COMPATIBLE`: 160 points for the mean weight, made with MD5.
    KetamaWeighted,
    /// `consistent_ketama_spy`.
    Spy,
    /// `ketama_weighted` together with `consistent_ketama_spy`.
    SpyWeighted,
}

/// The format in which spymemcached hashes the name of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SpyFormat {
    /// The format of libmemcached.
    Libmemcached,
    /// spymemcached's default, which includes the address: a pod that restarts at another address has other points.
    Spymemcached,
}

/// The hash of the hosts on Envoy's ring (`hash_function`). Envoy always hashes keys with XXH64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EnvoyHash {
    /// `XX_HASH`, Envoy's default.
    XxHash,
    /// `MURMUR_HASH_2`.
    Murmur2,
}

impl Placement {
    /// Returns memring's own placement: see [`Ring`](crate::Ring).
    #[must_use]
    pub fn native() -> Self {
        Scheme::Native.into()
    }

    pub(crate) fn is_native(&self) -> bool {
        self.scheme == Scheme::Native
    }

    /// Takes nodes in natural order of their labels, instead of as listed: `cache-2` before `cache-10`.
    ///
    /// Placements that sort nodes themselves do not change.
    /// [`ClientBuilder::placement`](crate::ClientBuilder::placement) always does this. A [`Ring`](crate::Ring) with
    /// such a placement agrees with a client, in whatever order you list the nodes.
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
                if *order == ServerOrder::Listed =>
            {
                *order = ServerOrder::Natural;
            }
            _ => {}
        }
        self
    }

    /// Returns the placement of libmemcached, php-memcached or pylibmc. `hash` is the key hash in effect there.
    #[must_use]
    pub fn libmemcached(distribution: Libmemcached, hash: KeyHash) -> Self {
        Self::libmemcached_in(ServerOrder::Listed, distribution, hash)
    }

    /// Returns the placement of [`libmemcached`](Self::libmemcached) with `SORT_HOSTS`.
    #[must_use]
    pub fn libmemcached_sorted(distribution: Libmemcached, hash: KeyHash) -> Self {
        Self::libmemcached_in(ServerOrder::ByHost, distribution, hash)
    }

    fn libmemcached_in(order: ServerOrder, distribution: Libmemcached, hash: KeyHash) -> Self {
        let name_format = match distribution {
            Libmemcached::Spy | Libmemcached::SpyWeighted => NameFormat::Slashed,
            _ => NameFormat::Short,
        };
        let points = match distribution {
            Libmemcached::Modula => {
                return Scheme::Modulo { key: SlotHash::Key(hash), order, uses_weights: false, hash_tag: None }.into();
            }
            Libmemcached::Ketama | Libmemcached::Spy => PointScheme::Hashed { count: 100, hash, uses_weights: true },
            Libmemcached::KetamaUnweighted => PointScheme::Hashed { count: 100, hash, uses_weights: false },
            Libmemcached::KetamaWeighted | Libmemcached::SpyWeighted => {
                PointScheme::WeightedMd5 { zero_counts_as_one: true }
            }
        };
        CircleScheme { order, ..CircleScheme::new(name_format, points, CircleHash::Key(hash)) }.into()
    }

    /// Returns the placement of Dalli, versions 3 to 5.
    #[must_use]
    pub fn dalli() -> Self {
        let scheme = CircleScheme::new(NameFormat::Full, PointScheme::Dalli, CircleHash::Key(KeyHash::Crc32));
        CircleScheme { is_mirrored: true, last_listed_wins: true, ..scheme }.into()
    }

    /// Returns the placement of spymemcached's ketama (`KetamaNodeLocator`, `KETAMA_HASH`).
    #[must_use]
    pub fn spymemcached(format: SpyFormat, weighted: bool) -> Self {
        let name_format = match format {
            SpyFormat::Libmemcached => NameFormat::JavaShort,
            SpyFormat::Spymemcached => NameFormat::Java,
        };
        let points =
            if weighted { PointScheme::WeightedMd5 { zero_counts_as_one: false } } else { PointScheme::Md5Groups(40) };
        let scheme = CircleScheme::new(name_format, points, CircleHash::Key(KeyHash::Md5));
        CircleScheme { last_listed_wins: true, ..scheme }.into()
    }

    /// Returns the default placement of spymemcached (`ArrayModNodeLocator`, `NATIVE_HASH`).
    #[must_use]
    pub fn spymemcached_array_mod() -> Self {
        Self::modulo(SlotHash::Java)
    }

    /// Returns the placement of twemproxy's `ketama`.
    #[must_use]
    pub fn twemproxy_ketama(hash: KeyHash) -> Self {
        let points = PointScheme::WeightedMd5 { zero_counts_as_one: false };
        let scheme = CircleScheme::new(NameFormat::NamedShort, points, CircleHash::Key(hash));
        CircleScheme { order: ServerOrder::ByNameLength, ..scheme }.into()
    }

    /// Returns the placement of twemproxy's `modula`.
    #[must_use]
    pub fn twemproxy_modula(hash: KeyHash) -> Self {
        let (key, order) = (SlotHash::Key(hash), ServerOrder::ByNameLength);
        Scheme::Modulo { key, order, uses_weights: true, hash_tag: None }.into()
    }

    /// Sets twemproxy's `hash_tag`: two bytes, of which the first opens and the second closes the part that is hashed.
    ///
    /// A key without such a part is hashed whole. This has no effect on the placements of other clients.
    #[must_use]
    pub fn with_hash_tag(mut self, tag: Option<(u8, u8)>) -> Self {
        match &mut self.scheme {
            Scheme::Circle(CircleScheme { order: ServerOrder::ByNameLength, hash_tag, .. })
            | Scheme::Modulo { order: ServerOrder::ByNameLength, hash_tag, .. } => *hash_tag = tag,
            _ => {}
        }
        self
    }

    /// Returns the placement of pymemcache's `HashClient`, a rendezvous hash.
    #[must_use]
    pub fn pymemcache(keys: PythonKeys) -> Self {
        Scheme::PymemcacheRendezvous { keys }.into()
    }

    /// Returns the placement of gomemcache: CRC-32 modulo the number of servers.
    #[must_use]
    pub fn gomemcache() -> Self {
        Self::modulo(SlotHash::Key(KeyHash::Crc32))
    }

    /// Returns the placement of dskit and Thanos: jump hash over the servers in natural order.
    #[must_use]
    pub fn dskit() -> Self {
        Scheme::Jump.into()
    }

    /// Returns the placement of nginx: `hash … consistent`.
    #[must_use]
    pub fn nginx() -> Self {
        CircleScheme::new(NameFormat::Full, PointScheme::Nginx, CircleHash::Key(KeyHash::Crc32)).into()
    }

    /// Returns the placement of folsom's ketama.
    #[must_use]
    pub fn folsom() -> Self {
        let scheme = CircleScheme::new(NameFormat::Bracketed, PointScheme::Folsom, CircleHash::Folsom);
        CircleScheme { last_listed_wins: true, ..scheme }.into()
    }

    /// Returns the placement of uhashring, which meta-memcache-py uses.
    #[must_use]
    pub fn uhashring() -> Self {
        Scheme::Uhashring.into()
    }

    /// Returns the placement of mcrouter's `Ch3`, without weights.
    #[must_use]
    pub fn mcrouter_ch3() -> Self {
        Scheme::Ch3 { order: ServerOrder::Listed }.into()
    }

    /// Returns the placement of mcrouter's `WeightedCh3`.
    ///
    /// In mcrouter weights are fractions from 0.0 to 1.0. Here they are divided by `one`: with 100, nodes of the
    /// weights 100 and 70 have 1.0 and 0.7 in mcrouter. Weights over `one` count as 1.0, and a `one` of 0 counts as 1.
    ///
    /// The default weight of a node is 1, which is little out of 100, so give every node a weight.
    #[must_use]
    pub fn mcrouter_weighted_ch3(one: u32) -> Self {
        Scheme::WeightedCh3 { order: ServerOrder::Listed, one: one.max(1) }.into()
    }

    /// Returns the placement of mcrouter's `Crc32`.
    #[must_use]
    pub fn mcrouter_crc32() -> Self {
        Self::modulo(SlotHash::Mcrouter)
    }

    /// Returns the placement of mcrouter's `Rendezvous`.
    ///
    /// The tag of a server in mcrouter is the [name](crate::RingNode::with_name) of the node here, or else `host:port`.
    #[must_use]
    pub fn mcrouter_rendezvous() -> Self {
        Scheme::McrouterRendezvous { order: ServerOrder::Listed }.into()
    }

    /// Returns the placement of Envoy's ring hash, for requests that Envoy hashes by the key (a header, for example).
    ///
    /// Envoy hashes a host as `ip:port`, so this must be the label of the node. If Envoy is configured to hash the host
    /// name or a hash key from the metadata, set that as the [name](crate::RingNode::with_name) of the node.
    #[must_use]
    pub fn envoy_ring(hash: EnvoyHash) -> Self {
        Scheme::EnvoyRing { order: ServerOrder::Listed, hash, minimum_size: envoy::MINIMUM_RING_SIZE }.into()
    }

    /// Sets the smallest number of points on Envoy's ring (`minimum_ring_size`), from 1 to 8,388,608. Defaults to 1024.
    ///
    /// This has no effect on other placements. A point takes about 42 bytes, and as much again while the ring is built.
    #[must_use]
    pub fn with_minimum_ring_size(mut self, points: u32) -> Self {
        if let Scheme::EnvoyRing { minimum_size, .. } = &mut self.scheme {
            *minimum_size = points.clamp(1, envoy::MAXIMUM_RING_SIZE);
        }
        self
    }

    /// Returns the placement of Envoy's Maglev, with its default of 65,537 slots.
    ///
    /// Hosts are hashed as for [`envoy_ring`](Self::envoy_ring).
    #[must_use]
    pub fn envoy_maglev() -> Self {
        Scheme::EnvoyMaglev.into()
    }

    /// Returns a placement of your own: see [`CustomPlacement`]. It is equal only to its clones.
    ///
    /// The labels of its nodes need not be a `host:port`. [`Ring::shares`](crate::Ring::shares) and
    /// [`Ring::diff`](crate::Ring::diff) sample it with 65,536 random keys of sixteen letters. These numbers mean
    /// little for a placement that depends on other parts of a key, such as digits or a prefix.
    #[must_use]
    pub fn custom(placement: impl CustomPlacement) -> Self {
        Scheme::Custom { order: ServerOrder::Listed, custom: Custom(Arc::new(placement)) }.into()
    }

    /// Returns the table of a custom placement; `None` if this is another placement.
    pub(super) fn custom_table(&self, nodes: &[RingNode]) -> Option<PlacementTable> {
        let Scheme::Custom { order, custom } = &self.scheme else { return None };
        Some(match nodes.len() {
            0 => PlacementTable::Empty,
            1 => PlacementTable::Single,
            _ => PlacementTable::Custom(CustomTable::new(custom, nodes, *order == ServerOrder::Natural)),
        })
    }

    /// Returns the placement of pecl-memcache's `standard` strategy.
    #[must_use]
    pub fn pecl_standard() -> Self {
        let (key, order) = (SlotHash::Pecl, ServerOrder::Listed);
        Scheme::Modulo { key, order, uses_weights: true, hash_tag: None }.into()
    }

    /// Returns the placement of pecl-memcache's `consistent` strategy.
    #[must_use]
    pub fn pecl_consistent() -> Self {
        Scheme::PeclConsistent.into()
    }

    fn modulo(key: SlotHash) -> Self {
        Scheme::Modulo { key, order: ServerOrder::Listed, uses_weights: false, hash_tag: None }.into()
    }
}

impl CircleScheme {
    fn new(name_format: NameFormat, points: PointScheme, key: CircleHash) -> Self {
        let order = ServerOrder::Listed;
        Self { order, name_format, points, key, is_mirrored: false, last_listed_wins: false, hash_tag: None }
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
