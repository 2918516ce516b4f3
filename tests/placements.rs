//! Compares placements with vectors recorded from other clients, through the public API and the parser of `locate`.
#![expect(clippy::unwrap_used, reason = "an unexpected value fails the test")]

#[path = "../examples/locate/vector.rs"]
mod vector;

use std::path::{Path, PathBuf};
use std::{env, fs};

use serde_json::Value;

use self::vector::Vector;

/// Compares every file of a folder with the owners here. Returns the number of files and the number of keys.
fn compare_files(folder: &Path) -> (usize, usize) {
    let (mut files, mut keys, mut mismatches) = (0, 0, Vec::new());
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let recorded: Value = serde_json::from_str(&text).unwrap();
        let recorded: Vec<_> =
            recorded["owner"].as_array().unwrap().iter().map(|owner| owner.as_u64().unwrap()).collect();
        let owners: Vec<_> = Vector::parse(&text).unwrap().owners().map(|owner| owner.unwrap() as u64).collect();
        assert_eq!(owners.len(), recorded.len());
        if owners != recorded {
            let equal = owners.iter().zip(&recorded).filter(|(ours, recorded)| ours == recorded).count();
            mismatches.push(format!("{}: {equal} of {} owners agree", path.display(), recorded.len()));
        }
        (files, keys) = (files + 1, keys + owners.len());
    }
    assert!(mismatches.is_empty(), "{mismatches:#?}");
    (files, keys)
}

fn recorded_vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/placements")
}

#[test]
fn owners_match_every_recorded_vector() {
    let (files, keys) = compare_files(&recorded_vectors());
    assert!(files == 299 && keys > 50_000, "{files} files, {keys} keys");
}

/// Compares vectors of random servers, weights and keys.
///
/// `scripts/placement_vectors.py` recorded them from the clients that need no servers to compute an owner.
/// `scripts/interop` records new ones and passes their folder in `PLACEMENT_VECTORS`.
#[test]
fn owners_match_every_random_vector() {
    let Some(folder) = env::var_os("PLACEMENT_VECTORS") else {
        let (files, keys) = compare_files(&recorded_vectors().join("further"));
        assert!(files == 81 && keys == 60 * 81, "{files} files, {keys} keys");
        return;
    };
    let (files, keys) = compare_files(Path::new(&folder));
    assert!(files > 0, "no files in {}", folder.display());
    println!("{files} files with {keys} keys: all owners agree");
}

#[test]
fn an_unknown_client_or_option_is_an_error() {
    let file = |client: &str, config: &str| {
        format!(
            r#"{{"client": "{client}", "config": {config}, "servers": [{{"host": "a", "port": 1}}], "keys": ["k"]}}"#
        )
    };
    for (client, config) in [
        ("unknown", "{}"),
        ("libmemcached", r#"{"distribution": "virtual_bucket"}"#),
        ("libmemcached", r#"{"distribution": "ketama", "hash": "sha256"}"#),
        ("twemproxy", r#"{"distribution": "random"}"#),
        ("pymemcache", r#"{"distribution": "rendezvous", "seed": 7}"#),
        ("dalli", r#"{"hash": "md5"}"#),
        ("pecl-memcache", r#"{"distribution": "standard", "hash": "fnv"}"#),
        ("uhashring", r#"{"distribution": "ketama"}"#),
        ("spymemcached", r#"{"locator": "KetamaNodeLocator", "hash": "FNV1_64_HASH"}"#),
    ] {
        assert!(Vector::parse(&file(client, config)).is_err(), "{client} {config}");
    }
    assert!(Vector::parse(&file("dalli", "{}")).is_ok());
    assert!(Vector::parse("{").is_err() && Vector::parse("{}").is_err());
}
