//! Files that say which server another client picks for each key: its configuration, its servers, the keys.

use memring::{KeyHash, Libmemcached, Placement, PythonKeys, Ring, RingNode, SpyFormat};
use serde_json::Value;

/// What a file asks.
pub(crate) struct Vector {
    ring: Ring,
    keys: Vec<String>,
}

impl Vector {
    /// Reads one. What it does not understand is an error that says what.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let file: Value = serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))?;
        let client = string(&file, "client")?;
        let placement = placement(client, &file["config"])?;
        let servers = array(&file, "servers")?.iter().map(node).collect::<Result<Vec<_>, _>>()?;
        let ring = Ring::with_placement(&placement, servers).map_err(|error| error.to_string())?;
        let key = |key: &Value| key.as_str().map(str::to_owned).ok_or("a key is no string");
        let keys = array(&file, "keys")?.iter().map(key).collect::<Result<_, _>>()?;
        Ok(Self { ring, keys })
    }

    /// For each key its owner, as an index into the servers.
    pub(crate) fn owners(&self) -> impl Iterator<Item = Option<usize>> {
        self.keys.iter().map(|key| {
            let owner = self.ring.node_for(key)?;
            self.ring.nodes().iter().position(|node| std::ptr::eq(node, owner))
        })
    }
}

fn string<'a>(of: &'a Value, field: &str) -> Result<&'a str, String> {
    of[field].as_str().ok_or_else(|| format!("{field:?} is missing or no string"))
}

fn array<'a>(of: &'a Value, field: &str) -> Result<&'a Vec<Value>, String> {
    of[field].as_array().ok_or_else(|| format!("{field:?} is missing or no list"))
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

/// The placement that a configuration of another client amounts to.
fn placement(client: &str, config: &Value) -> Result<Placement, String> {
    let text = |name: &str| config[name].as_str().unwrap_or_default();
    let unknown = || format!("no placement is known for {client} with {config}");
    // What is configured must be what the placement stands for, or the answer would be a guess.
    let only = |name: &str, known: &[&str]| {
        if config[name].is_null() || known.contains(&text(name)) { Ok(()) } else { Err(unknown()) }
    };
    match client {
        "libmemcached" | "php-memcached" | "pylibmc" => libmemcached(config).ok_or_else(unknown),
        "twemproxy" => twemproxy(config).ok_or_else(unknown),
        "spymemcached" => spymemcached(config).ok_or_else(unknown),
        "dalli" => {
            only("distribution", &["dalli_ring"])?;
            only("hash", &["crc32"])?;
            only("points", &["sha1"])?;
            Ok(Placement::dalli())
        }
        "dskit" => {
            only("distribution", &["jump_hash"])?;
            only("hash", &["xxhash64"])?;
            only("order", &["natural_sort"])?;
            Ok(Placement::dskit())
        }
        "gomemcache" => {
            only("distribution", &["modulo"])?;
            only("hash", &["crc32"])?;
            Ok(Placement::gomemcache())
        }
        "nginx" => {
            only("distribution", &["hash_consistent"])?;
            only("hash", &["crc32"])?;
            Ok(Placement::nginx())
        }
        "pecl-memcache" => {
            only("hash", &["crc32"])?;
            match text("distribution") {
                "standard" => Ok(Placement::pecl_standard()),
                "consistent" => Ok(Placement::pecl_consistent()),
                _ => Err(unknown()),
            }
        }
        "uhashring" => {
            only("distribution", &["ring"])?;
            only("hash", &["md5"])?;
            Ok(Placement::uhashring())
        }
        "pymemcache" => {
            only("distribution", &["rendezvous"])?;
            only("hash", &["murmur3_32"])?;
            only("key_type", &["str", "bytes"])?;
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
    let options_last = match text("servers_added") {
        None | Some("after_options" | "pushed_list_after_options") => false,
        Some("before_options") => true,
        Some(_) => return None,
    };
    let distribution = match text("distribution")? {
        "modula" => Libmemcached::Modula,
        "ketama" | "consistent" | "consistent_ketama" if options_last => Libmemcached::KetamaUnweighted,
        "ketama" | "consistent" | "consistent_ketama" => Libmemcached::Ketama,
        "ketama_weighted" => Libmemcached::KetamaWeighted,
        "spy" => Libmemcached::Spy,
        "spy_weighted" => Libmemcached::SpyWeighted,
        _ => return None,
    };
    let sorted = config["sort_hosts"].as_bool().unwrap_or(false);
    let make = if sorted { Placement::libmemcached_sorted } else { Placement::libmemcached };
    Some(make(distribution, hash(text("hash").unwrap_or("default"))?))
}

fn twemproxy(config: &Value) -> Option<Placement> {
    let hash = match config["hash"].as_str().unwrap_or("fnv1a_64") {
        // What is called so there is 15 bits of it.
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

/// `crc32` is not everybody's name for the same.
fn hash(name: &str) -> Option<KeyHash> {
    name.parse().ok().filter(|_| name != "crc32")
}
