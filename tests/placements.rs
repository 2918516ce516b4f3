//! Every vector recorded from another client, through the public interface and the reader the example `locate` has.

#[path = "../examples/locate/vector.rs"]
mod vector;

use std::fs;
use std::path::Path;

use serde_json::Value;

use self::vector::Vector;

#[test]
fn every_recorded_vector() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/placements");
    let (mut files, mut keys, mut wrong) = (0, 0, Vec::new());
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
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
    assert!(files == 299 && keys > 50_000, "{files} files, {keys} keys");
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
        ("spymemcached", r#"{"locator": "KetamaNodeLocator", "hash": "FNV1_64_HASH"}"#),
    ] {
        assert!(Vector::parse(&file(client, config)).is_err(), "{client} {config}");
    }
    assert!(Vector::parse(&file("dalli", "{}")).is_ok());
    assert!(Vector::parse("{").is_err() && Vector::parse("{}").is_err());
}
