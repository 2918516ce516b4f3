//! Every vector recorded from another client, through the public interface and the reader the example `locate` has.
#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect has failed")]

#[path = "../examples/locate/vector.rs"]
mod vector;

use std::path::{Path, PathBuf};
use std::{env, fs};

use serde_json::Value;

use self::vector::Vector;

/// Compares every file of a folder, and says how many files there were and how many keys in them.
fn compare(folder: &Path) -> (usize, usize) {
    let (mut files, mut keys, mut wrong) = (0, 0, Vec::new());
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
            let right = owners.iter().zip(&recorded).filter(|(ours, theirs)| ours == theirs).count();
            wrong.push(format!("{}: {right} of {}", path.display(), recorded.len()));
        }
        (files, keys) = (files + 1, keys + owners.len());
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    (files, keys)
}

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/placements")
}

#[test]
fn every_recorded_vector() {
    let (files, keys) = compare(&recorded());
    assert!(files == 299 && keys > 50_000, "{files} files, {keys} keys");
}

/// Random servers, weights and keys, put to those of the clients that can be asked without servers:
/// `scripts/placement_vectors.py`, which also asks anew, about others, and names the folder here.
#[test]
fn every_vector_recorded_at_random() {
    let Some(folder) = env::var_os("PLACEMENT_VECTORS") else {
        let (files, keys) = compare(&recorded().join("further"));
        assert!(files == 81 && keys == 60 * 81, "{files} files, {keys} keys");
        return;
    };
    let (files, keys) = compare(Path::new(&folder));
    assert!(files > 0, "no files in {}", folder.display());
    println!("{files} files with {keys} keys: all owners agree");
}

#[test]
fn what_is_not_known_is_an_error_and_no_guess() {
    let file = |client: &str, config: &str| {
        format!(
            r#"{{"client": "{client}", "config": {config}, "servers": [{{"host": "a", "port": 1}}], "keys": ["k"]}}"#
        )
    };
    for (client, config) in [
        ("nobody", "{}"),
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
