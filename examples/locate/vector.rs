//! Test vectors of other clients: files with the client, its configuration, its servers, and keys with their owners.

use memring::{KeyHash, Libmemcached, Placement, PythonKeys, Ring, RingNode, SpyFormat};
use serde_json::Value;

/// The ring that a file describes, and its keys.
pub(crate) struct Vector {
    ring: Ring,
    keys: Vec<String>,
}

impl Vector {
    /// Parses a file. The error names the part that is missing or unknown.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let file: Value = serde_json::from_str(text).map_err(|error| format!("invalid JSON: {error}"))?;
        let client = string(&file, "client")?;
        let placement = placement(client, &file["config"])?;
        let servers = array(&file, "servers")?.iter().map(node).collect::<Result<Vec<_>, _>>()?;
        let ring = Ring::with_placement(&placement, servers).map_err(|error| error.to_string())?;
        let key = |key: &Value| key.as_str().map(str::to_owned).ok_or("a key is not a string");
        let keys = array(&file, "keys")?.iter().map(key).collect::<Result<_, _>>()?;
        Ok(Self { ring, keys })
    }

    /// Returns the owner of each key as an index into the servers.
    pub(crate) fn owners(&self) -> impl Iterator<Item = Option<usize>> {
        self.keys.iter().map(|key| {
            let owner = self.ring.node_for(key)?;
            self.ring.nodes().iter().position(|node| std::ptr::eq(node, owner))
        })
    }
}

fn string<'a>(object: &'a Value, field: &str) -> Result<&'a str, String> {
    object[field].as_str().ok_or_else(|| format!("{field:?} is missing or not a string"))
}

fn array<'a>(object: &'a Value, field: &str) -> Result<&'a Vec<Value>, String> {
    object[field].as_array().ok_or_else(|| format!("{field:?} is missing or not a list"))
}

fn node(server: &Value) -> Result<RingNode, String> {
    let host = string(server, "host")?;
    let port = server["port"].as_u64().ok_or("a server's port is missing")?;
    let label = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let weight = server["weight"].as_u64().unwrap_or(1);
    let weight = u32::try_from(weight).map_err(|_| "a weight is too large")?;
    let mut node = RingNode::new(label).with_weight(weight);
    if let Some(name) = server["name"].as_str() {
        node = node.with_name(name);
    }
    if let Some(ip) = server["ip"].as_str() {
        node = node.with_ip(ip);
    }
    Ok(node)
}

/// Returns the placement for the configuration of a client.
fn placement(client: &str, config: &Value) -> Result<Placement, String> {
    let text = |name: &str| config[name].as_str().unwrap_or_default();
    let unknown = || format!("no known placement for {client} with {config}");
    // An option that the placement does not cover is an error, because the owners would be a guess.
    let expect = |name: &str, known: &[&str]| {
        if config[name].is_null() || known.contains(&text(name)) { Ok(()) } else { Err(unknown()) }
    };
    match client {
        "libmemcached" | "php-memcached" | "pylibmc" => libmemcached(config).ok_or_else(unknown),
        "twemproxy" => twemproxy(config).ok_or_else(unknown),
        "spymemcached" => spymemcached(config).ok_or_else(unknown),
        "dalli" => {
            expect("distribution", &["dalli_ring"])?;
            expect("hash", &["crc32"])?;
            expect("points", &["sha1"])?;
            Ok(Placement::dalli())
        }
        "dskit" => {
            expect("distribution", &["jump_hash"])?;
            expect("hash", &["xxhash64"])?;
            expect("order", &["natural_sort"])?;
            Ok(Placement::dskit())
        }
        "gomemcache" => {
            expect("distribution", &["modulo"])?;
            expect("hash", &["crc32"])?;
            Ok(Placement::gomemcache())
        }
        "nginx" => {
            expect("distribution", &["hash_consistent"])?;
            expect("hash", &["crc32"])?;
            Ok(Placement::nginx())
        }
        "pecl-memcache" => {
            expect("hash", &["crc32"])?;
            match text("distribution") {
                "standard" => Ok(Placement::pecl_standard()),
                "consistent" => Ok(Placement::pecl_consistent()),
                _ => Err(unknown()),
            }
        }
        "uhashring" => {
            expect("distribution", &["ring"])?;
            expect("hash", &["md5"])?;
            Ok(Placement::uhashring())
        }
        "pymemcache" => {
            expect("distribution", &["rendezvous"])?;
            expect("hash", &["murmur3_32"])?;
            expect("key_type", &["str", "bytes"])?;
            if config["seed"].as_u64().is_some_and(|seed| seed != 0) {
                return Err(unknown());
            }
            Ok(Placement::pymemcache(if text("key_type") == "bytes" { PythonKeys::Bytes } else { PythonKeys::Str }))
        }
        _ => Err(unknown()),
    }
}

fn libmemcached(config: &Value) -> Option<Placement> {
    let text = |name: &str| config[name].as_str();
    let are_options_set_last = match text("servers_added") {
        None | Some("after_options" | "pushed_list_after_options") => false,
        Some("before_options") => true,
        Some(_) => return None,
    };
    let distribution = match text("distribution")? {
        "modula" => Libmemcached::Modula,
        "ketama" | "consistent" | "consistent_ketama" if are_options_set_last => Libmemcached::KetamaUnweighted,
        "ketama" | "consistent" | "consistent_ketama" => Libmemcached::Ketama,
        "ketama_weighted" => Libmemcached::KetamaWeighted,
        "spy" => Libmemcached::Spy,
        "spy_weighted" => Libmemcached::SpyWeighted,
        _ => return None,
    };
    let is_sorted = config["sort_hosts"].as_bool().unwrap_or(false);
    let constructor = if is_sorted { Placement::libmemcached_sorted } else { Placement::libmemcached };
    Some(constructor(distribution, hash(text("hash").unwrap_or("default"))?))
}

fn twemproxy(config: &Value) -> Option<Placement> {
    let hash = match config["hash"].as_str().unwrap_or("fnv1a_64") {
        // In twemproxy this name means 15 bits of CRC-32.
        "crc32" => KeyHash::Crc,
        name => hash(name)?,
    };
    let tag = match config["hash_tag"].as_str().unwrap_or_default().as_bytes() {
        &[open, close] => Some((open, close)),
        [] => None,
        _ => return None,
    };
    match config["distribution"].as_str()? {
        "ketama" => Some(Placement::twemproxy_ketama(hash).with_hash_tag(tag)),
        "modula" => Some(Placement::twemproxy_modula(hash).with_hash_tag(tag)),
        _ => None,
    }
}

fn spymemcached(config: &Value) -> Option<Placement> {
    match (config["locator"].as_str()?, config["hash"].as_str()?) {
        ("ArrayModNodeLocator", "NATIVE_HASH") => Some(Placement::spymemcached_array_mod()),
        ("KetamaNodeLocator", "KETAMA_HASH") => {
            let format = match config["node_key_format"].as_str().unwrap_or("SPYMEMCACHED") {
                "LIBMEMCACHED" => SpyFormat::Libmemcached,
                "SPYMEMCACHED" => SpyFormat::Spymemcached,
                _ => return None,
            };
            Some(Placement::spymemcached(format, config["weighted"].as_bool().unwrap_or(false)))
        }
        _ => None,
    }
}

/// Parses the name of a hash, except `crc32`, which is ambiguous: clients use it for different hashes.
fn hash(name: &str) -> Option<KeyHash> {
    name.parse().ok().filter(|_| name != "crc32")
}
