//! Every vector recorded from another client.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::*;

fn hash(name: &str) -> KeyHash {
    match name {
        "default" | "one_at_a_time" => KeyHash::OneAtATime,
        "md5" => KeyHash::Md5,
        "crc" => KeyHash::Crc,
        "crc32a" => KeyHash::Crc32,
        "crc16" => KeyHash::Crc16,
        "fnv1_32" => KeyHash::Fnv1_32,
        "fnv1a_32" => KeyHash::Fnv1a_32,
        "fnv1_64" => KeyHash::Fnv1_64,
        "fnv1a_64" => KeyHash::Fnv1a_64,
        "murmur" => KeyHash::Murmur,
        "murmur3" => KeyHash::Murmur3,
        "jenkins" => KeyHash::Jenkins,
        "hsieh" => KeyHash::Hsieh,
        other => panic!("{other}"),
    }
}

fn placement(client: &str, config: &Value) -> Placement {
    let text = |name: &str| config[name].as_str().unwrap_or("");
    match client {
        "dalli" => Placement::dalli(),
        "dskit" => Placement::dskit(),
        "gomemcache" => Placement::gomemcache(),
        "nginx" => Placement::nginx(),
        "libmemcached" | "php-memcached" | "pylibmc" => {
            let before = text("servers_added") == "before_options";
            let distribution = match text("distribution") {
                "modula" => Libmemcached::Modula,
                "ketama" | "consistent" | "consistent_ketama" if before => Libmemcached::KetamaUnweighted,
                "ketama" | "consistent" | "consistent_ketama" => Libmemcached::Ketama,
                "ketama_weighted" => Libmemcached::KetamaWeighted,
                "spy" => Libmemcached::Spy,
                "spy_weighted" => Libmemcached::SpyWeighted,
                other => panic!("{other}"),
            };
            let make =
                if config["sort_hosts"] == true { Placement::libmemcached_sorted } else { Placement::libmemcached };
            make(distribution, hash(text("hash")))
        }
        "pymemcache" if text("key_type") == "bytes" => Placement::pymemcache(PythonKeys::Bytes),
        "pymemcache" => Placement::pymemcache(PythonKeys::Str),
        "spymemcached" if text("locator") == "ArrayModNodeLocator" => Placement::spymemcached_array_mod(),
        "spymemcached" => {
            let libmemcached = text("node_key_format") == "LIBMEMCACHED";
            let format = if libmemcached { SpyFormat::Libmemcached } else { SpyFormat::Spymemcached };
            Placement::spymemcached(format, config["weighted"] == true)
        }
        "twemproxy" => {
            let hash = if text("hash") == "crc32" { KeyHash::Crc } else { hash(text("hash")) };
            match text("distribution") {
                "ketama" => {
                    let tag = text("hash_tag").as_bytes();
                    Placement::twemproxy_ketama(hash, (tag.len() == 2).then(|| (tag[0], tag[1])))
                }
                _ => Placement::twemproxy_modula(hash),
            }
        }
        other => panic!("{other}"),
    }
}

#[test]
fn every_recorded_vector() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/placements");
    let (mut files, mut keys_checked, mut wrong) = (0, 0, Vec::new());
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let vector: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let servers: Vec<Server> = vector["servers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|server| Server {
                host: server["host"].as_str().unwrap().to_owned(),
                port: server["port"].as_u64().unwrap() as u16,
                weight: server["weight"].as_u64().unwrap() as u32,
                name: server["name"].as_str().map(str::to_owned),
                ip: server["ip"].as_str().map(str::to_owned),
            })
            .collect();
        let table = Table::new(&placement(vector["client"].as_str().unwrap(), &vector["config"]), &servers);
        let (keys, owners) = (vector["keys"].as_array().unwrap(), vector["owner"].as_array().unwrap());
        let right = keys.iter().zip(owners).filter(|(key, owner)| {
            table.owner(key.as_str().unwrap().as_bytes()) == Some(owner.as_u64().unwrap() as usize)
        });
        let right = right.count();
        if right != keys.len() {
            wrong.push(format!("{} {right}/{}", path.file_name().unwrap().to_string_lossy(), keys.len()));
        }
        files += 1;
        keys_checked += keys.len();
    }
    wrong.sort();
    assert!(wrong.is_empty(), "{} of {files} files: {wrong:#?}", wrong.len());
    assert_eq!((files, keys_checked > 50_000), (299, true), "{keys_checked}");
}
