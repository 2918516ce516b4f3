//! Placements by name, for configuration files and command lines.

use std::str::FromStr;

use thiserror::Error;

use super::{EnvoyHash, KeyHash, Libmemcached, Placement, PythonKeys, SpyFormat};

/// A name that no placement, or no hash, has.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no placement or hash is called {name:?}")]
#[non_exhaustive]
pub struct UnknownPlacement {
    /// The name.
    pub name: String,
}

impl FromStr for KeyHash {
    type Err = UnknownPlacement;

    /// Reads the name libmemcached has for it, or twemproxy: `default`, `one_at_a_time`, `md5`, `crc`, `crc32a`, `crc16`,
    /// `fnv1_32`, `fnv1a_32`, `fnv1_64`, `fnv1a_64`, `murmur`, `murmur3`, `jenkins`, `hsieh`. `crc32` is the whole of it, as
    /// everywhere but in twemproxy, where `crc` is called so.
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

    /// Reads a name, with what can be chosen behind colons: `native`, `libmemcached:modula:md5`, `libmemcached:ketama`,
    /// `libmemcached:ketama_weighted`, `libmemcached:spy`, `libmemcached:spy_weighted` (each with `:HASH`, and then
    /// `:sort_hosts`), `php` and `pylibmc` for `libmemcached`, `dalli`, `spymemcached`, `spymemcached:weighted`,
    /// `spymemcached:libmemcached`, `spymemcached:libmemcached:weighted`, `spymemcached:array_mod`, `twemproxy:ketama:HASH`,
    /// `twemproxy:modula:HASH` (a hash tag such as `{}` behind the hash), `pymemcache`, `pymemcache:bytes`, `gomemcache`,
    /// `dskit`, `nginx`, `folsom`, `uhashring`, `mcrouter:ch3`, `mcrouter:ch3:weighted` (a weight of 100 is 1.0 there; another
    /// number behind a colon if not), `mcrouter:crc32`, `mcrouter:rendezvous`, `pecl`, `pecl:consistent`, `envoy`,
    /// `envoy:murmur2`, `envoy:maglev`.
    ///
    /// ```
    /// use memring::{KeyHash, Libmemcached, Placement};
    ///
    /// let placement: Placement = "php:ketama_weighted".parse()?;
    /// assert_eq!(placement, Placement::libmemcached(Libmemcached::KetamaWeighted, KeyHash::Md5));
    /// # Ok::<(), memring::UnknownPlacement>(())
    /// ```
    fn from_str(name: &str) -> Result<Self, UnknownPlacement> {
        by_name(&name.split(':').collect::<Vec<_>>()).ok_or_else(|| UnknownPlacement { name: name.to_owned() })
    }
}

fn by_name(words: &[&str]) -> Option<Placement> {
    Some(match words {
        ["native"] => Placement::native(),
        ["libmemcached" | "php" | "pylibmc", rest @ ..] => return libmemcached(rest),
        ["dalli"] => Placement::dalli(),
        ["spymemcached"] => Placement::spymemcached(SpyFormat::Spymemcached, false),
        ["spymemcached", "weighted"] => Placement::spymemcached(SpyFormat::Spymemcached, true),
        ["spymemcached", "libmemcached"] => Placement::spymemcached(SpyFormat::Libmemcached, false),
        ["spymemcached", "libmemcached", "weighted"] => Placement::spymemcached(SpyFormat::Libmemcached, true),
        ["spymemcached", "array_mod"] => Placement::spymemcached_array_mod(),
        ["twemproxy", "ketama"] => Placement::twemproxy_ketama(KeyHash::Fnv64a),
        ["twemproxy", "ketama", hash] => Placement::twemproxy_ketama(twemproxy_hash(hash)?),
        ["twemproxy", "modula"] => Placement::twemproxy_modula(KeyHash::Fnv64a),
        ["twemproxy", "modula", hash] => Placement::twemproxy_modula(twemproxy_hash(hash)?),
        ["twemproxy", rest @ .., tag] if rest.len() == 2 => {
            let &[open, close] = tag.as_bytes() else { return None };
            by_name(&words[..3])?.with_hash_tag(Some((open, close)))
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

fn libmemcached(words: &[&str]) -> Option<Placement> {
    let (words, sorted) = match words {
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
    let make = if sorted { Placement::libmemcached_sorted } else { Placement::libmemcached };
    Some(make(distribution, hash))
}

/// twemproxy means something else by `crc32`.
fn twemproxy_hash(name: &str) -> Option<KeyHash> {
    if name == "crc32" { Some(KeyHash::Crc) } else { name.parse().ok() }
}
