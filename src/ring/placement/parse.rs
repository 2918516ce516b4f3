//! Parses the names of placements and hashes, for configuration files and command lines.

use std::str::FromStr;

use thiserror::Error;

use super::{EnvoyHash, KeyHash, Libmemcached, Placement, PythonKeys, SpyFormat};

/// The error for a name that no placement, or no hash, has.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown placement or hash {name:?}")]
#[non_exhaustive]
pub struct UnknownPlacement {
    /// The name.
    pub name: String,
}

impl FromStr for KeyHash {
    type Err = UnknownPlacement;

    /// Parses the name that libmemcached or twemproxy has for the hash.
    ///
    /// The names are `default`, `one_at_a_time`, `md5`, `crc`, `crc32a`, `crc16`, `fnv1_32`, `fnv1a_32`, `fnv1_64`,
    /// `fnv1a_64`, `murmur`, `murmur3`, `jenkins` and `hsieh`. `crc32` means all 32 bits, as it does everywhere but in
    /// twemproxy, where it means [`Crc`](Self::Crc).
    fn from_str(name: &str) -> Result<Self, UnknownPlacement> {
        Ok(match name {
            "default" | "one_at_a_time" => Self::OneAtATime,
            "md5" => Self::Md5,
            "crc" => Self::Crc,
            "crc32" | "crc32a" => Self::Crc32,
            "crc16" => Self::Crc16,
            "fnv1_32" => Self::Fnv32,
            "fnv1a_32" => Self::Fnv32a,
            "fnv1_64" => Self::Fnv64,
            "fnv1a_64" => Self::Fnv64a,
            "murmur" => Self::Murmur,
            "murmur3" => Self::Murmur3,
            "jenkins" => Self::Jenkins,
            "hsieh" => Self::Hsieh,
            _ => return Err(UnknownPlacement { name: name.to_owned() }),
        })
    }
}

impl FromStr for Placement {
    type Err = UnknownPlacement;

    /// Parses the name of a placement, with its options after colons.
    ///
    /// - memring: `native`
    /// - libmemcached: `libmemcached:modula`, `libmemcached:ketama`, `libmemcached:ketama_unweighted`,
    ///   `libmemcached:ketama_weighted`, `libmemcached:spy`, `libmemcached:spy_weighted`. Each may continue with
    ///   `:HASH`, and then with `:sort_hosts`.
    /// - php-memcached and pylibmc: the same, with `php` or `pylibmc` instead of `libmemcached`
    /// - Dalli: `dalli`
    /// - spymemcached: `spymemcached`, `spymemcached:weighted`, `spymemcached:libmemcached`,
    ///   `spymemcached:libmemcached:weighted`, `spymemcached:array_mod`
    /// - twemproxy: `twemproxy:ketama:HASH`, `twemproxy:modula:HASH`. Each may continue with a hash tag such as `:{}`.
    /// - pymemcache: `pymemcache`, `pymemcache:bytes`
    /// - gomemcache: `gomemcache`
    /// - dskit: `dskit`
    /// - nginx: `nginx`
    /// - folsom: `folsom`
    /// - uhashring: `uhashring`
    /// - mcrouter: `mcrouter:ch3`, `mcrouter:crc32`, `mcrouter:rendezvous`, and `mcrouter:ch3:weighted`, where the
    ///   weight 100 is 1.0 in mcrouter. Another number may follow: `mcrouter:ch3:weighted:1000`.
    /// - pecl-memcache: `pecl`, `pecl:consistent`
    /// - Envoy: `envoy`, `envoy:murmur2`, `envoy:maglev`
    ///
    /// `HASH` is the name of a [`KeyHash`]. After `twemproxy`, `crc32` means [`KeyHash::Crc`], as it does in twemproxy.
    ///
    /// ```
    /// use memring::{KeyHash, Libmemcached, Placement};
    ///
    /// let placement: Placement = "php:ketama_weighted".parse()?;
    /// assert_eq!(placement, Placement::libmemcached(Libmemcached::KetamaWeighted, KeyHash::Md5));
    /// # Ok::<(), memring::UnknownPlacement>(())
    /// ```
    fn from_str(name: &str) -> Result<Self, UnknownPlacement> {
        parse_placement(&name.split(':').collect::<Vec<_>>()).ok_or_else(|| UnknownPlacement { name: name.to_owned() })
    }
}

fn parse_placement(words: &[&str]) -> Option<Placement> {
    Some(match words {
        ["native"] => Placement::native(),
        ["libmemcached" | "php" | "pylibmc", rest @ ..] => return parse_libmemcached(rest),
        ["dalli"] => Placement::dalli(),
        ["spymemcached"] => Placement::spymemcached(SpyFormat::Spymemcached, false),
        ["spymemcached", "weighted"] => Placement::spymemcached(SpyFormat::Spymemcached, true),
        ["spymemcached", "libmemcached"] => Placement::spymemcached(SpyFormat::Libmemcached, false),
        ["spymemcached", "libmemcached", "weighted"] => Placement::spymemcached(SpyFormat::Libmemcached, true),
        ["spymemcached", "array_mod"] => Placement::spymemcached_array_mod(),
        ["twemproxy", "ketama"] => Placement::twemproxy_ketama(KeyHash::Fnv64a),
        ["twemproxy", "ketama", hash] => Placement::twemproxy_ketama(parse_twemproxy_hash(hash)?),
        ["twemproxy", "modula"] => Placement::twemproxy_modula(KeyHash::Fnv64a),
        ["twemproxy", "modula", hash] => Placement::twemproxy_modula(parse_twemproxy_hash(hash)?),
        ["twemproxy", rest @ .., tag] if rest.len() == 2 => {
            let &[open, close] = tag.as_bytes() else { return None };
            parse_placement(&words[..3])?.with_hash_tag(Some((open, close)))
        }
        ["pymemcache"] => Placement::pymemcache(PythonKeys::Str),
        ["pymemcache", "bytes"] => Placement::pymemcache(PythonKeys::Bytes),
        ["gomemcache"] => Placement::gomemcache(),
        ["dskit"] => Placement::dskit(),
        ["nginx"] => Placement::nginx(),
        ["folsom"] => Placement::folsom(),
        ["uhashring"] => Placement::uhashring(),
        ["mcrouter", "ch3"] => Placement::mcrouter_ch3(),
        ["mcrouter", "ch3", "weighted"] => Placement::mcrouter_weighted_ch3(100),
        ["mcrouter", "ch3", "weighted", one] => {
            Placement::mcrouter_weighted_ch3(one.parse().ok().filter(|&one| one > 0)?)
        }
        ["mcrouter", "crc32"] => Placement::mcrouter_crc32(),
        ["mcrouter", "rendezvous"] => Placement::mcrouter_rendezvous(),
        ["envoy"] => Placement::envoy_ring(EnvoyHash::XxHash),
        ["envoy", "murmur2"] => Placement::envoy_ring(EnvoyHash::Murmur2),
        ["envoy", "maglev"] => Placement::envoy_maglev(),
        ["pecl"] => Placement::pecl_standard(),
        ["pecl", "consistent"] => Placement::pecl_consistent(),
        _ => return None,
    })
}

fn parse_libmemcached(words: &[&str]) -> Option<Placement> {
    let (words, is_sorted) = match words {
        [rest @ .., "sort_hosts"] => (rest, true),
        words => (words, false),
    };
    let (distribution, hash) = match words {
        ["modula", rest @ ..] => (Libmemcached::Modula, rest),
        ["ketama" | "consistent" | "consistent_ketama", rest @ ..] => (Libmemcached::Ketama, rest),
        ["ketama_unweighted", rest @ ..] => (Libmemcached::KetamaUnweighted, rest),
        ["ketama_weighted", rest @ ..] => (Libmemcached::KetamaWeighted, rest),
        ["spy", rest @ ..] => (Libmemcached::Spy, rest),
        ["spy_weighted", rest @ ..] => (Libmemcached::SpyWeighted, rest),
        _ => return None,
    };
    let hash = match (hash, distribution) {
        ([], Libmemcached::KetamaWeighted | Libmemcached::SpyWeighted) => KeyHash::Md5,
        ([], _) => KeyHash::OneAtATime,
        ([hash], _) => hash.parse().ok()?,
        _ => return None,
    };
    let constructor = if is_sorted { Placement::libmemcached_sorted } else { Placement::libmemcached };
    Some(constructor(distribution, hash))
}

/// Parses the name of a hash as twemproxy means it: its `crc32` has 15 bits.
fn parse_twemproxy_hash(name: &str) -> Option<KeyHash> {
    if name == "crc32" { Some(KeyHash::Crc) } else { name.parse().ok() }
}
