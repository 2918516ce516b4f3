//! Large values over real sockets: whole, in order, and with small ones between them.

use std::time::Duration;

use futures_util::future::join_all;
use memring::Client;
use memring::testing::Memcached;

use crate::support::{NO_HURRY, memcached};

const MINUTE: Duration = Duration::from_secs(60);

/// Around the sizes from which values are written and read without a copy, and up to what a server takes with its key.
const SIZES: [usize; 16] =
    [0, 1, 4095, 4096, 4097, 8191, 8192, 8193, 16_384, 32_767, 32_768, 65_536, 131_073, 262_144, 524_289, 1_000_000];

/// Bytes that tell their place, and the values of different keys apart.
fn body(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251 + seed * 13) as u8).collect()
}

#[tokio::test]
async fn values_of_every_size_come_back_as_they_were_stored() {
    let (_server, cache) = memcached().await;
    let keys: Vec<_> = (0..SIZES.len()).map(|seed| (format!("large-{seed}"), format!("small-{seed}"))).collect();
    // All under way at a time.
    let sets = keys.iter().zip(SIZES).enumerate().map(async |(seed, ((large, small), len))| {
        let (large, small) = tokio::join!(cache.set(large, body(seed, len), MINUTE), cache.set(small, "v", MINUTE));
        large.unwrap();
        small.unwrap();
    });
    join_all(sets).await;
    let gets = keys.iter().zip(SIZES).enumerate().map(async |(seed, ((large, small), len))| {
        let (large, small, with_version) = tokio::join!(cache.get(large), cache.get(small), cache.gets(large));
        assert!(large.unwrap().unwrap().value == body(seed, len), "{len}");
        assert!(with_version.unwrap().unwrap().value == body(seed, len), "{len}");
        assert_eq!(small.unwrap().unwrap().value, b"v"[..]);
    });
    join_all(gets).await;
    // And in one call, misses between them.
    let asked: Vec<_> = keys.iter().flat_map(|(large, small)| [large, "missing", small]).collect();
    let found = cache.get_many(&asked).await;
    assert!(found.errors.is_empty());
    for (seed, ((large, small), len)) in keys.iter().zip(SIZES).enumerate() {
        let value = |key: &String| &found.hits.iter().find(|(found, _)| *found == key).unwrap().1.value;
        assert!(*value(large) == body(seed, len), "{len}");
        assert_eq!(value(small), &b"v"[..]);
    }
}

#[tokio::test]
async fn a_value_of_many_megabytes_comes_back() {
    let server = Memcached::start_with(&["-I", "32m", "-m", "256"]).await.unwrap();
    let builder = Client::builder().nodes([server.addr().to_string()]).max_value_size(32 << 20);
    let cache = builder.request_timeout(NO_HURRY).connect().await.unwrap();
    let value = body(1, 9_000_001);
    cache.set("k", value.clone(), MINUTE).await.unwrap();
    assert!(cache.append("k", body(2, 1_000_000)).await.unwrap());
    let found = cache.get("k").await.unwrap().unwrap().value;
    assert!(found == [value, body(2, 1_000_000)].concat());
}

#[tokio::test]
async fn a_value_is_its_callers_alone() {
    let (_server, cache) = memcached().await;
    for len in [8192, 16_384, 1_000_000] {
        cache.set("k", body(1, len), MINUTE).await.unwrap();
        let value = cache.get("k").await.unwrap().unwrap().value;
        let kept = value.try_into_mut().expect("shared with the connection").capacity();
        assert!(kept <= len + 2048, "{kept} bytes are kept for {len}");
    }
}
