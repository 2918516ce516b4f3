//! Large values over real sockets: complete, in order, and mixed with small ones.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use memring::testing::Memcached;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::scripted::counting_server;
use crate::support::{LONG_TIMEOUT, MINUTE, client_builder, default_client, memcached};

/// Sizes around the limits from which values are written and read without a copy, up to the server's item size.
const SIZES: [usize; 16] =
    [0, 1, 4095, 4096, 4097, 8191, 8192, 8193, 16_384, 32_767, 32_768, 65_536, 131_073, 262_144, 524_289, 1_000_000];

/// Returns bytes that depend on their position and on the seed, so that values of different keys differ.
fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251 + seed * 13) as u8).collect()
}

#[tokio::test]
async fn concurrent_values_of_every_size_are_returned_as_stored() {
    let (_server, cache) = memcached().await;
    let keys: Vec<_> = (0..SIZES.len()).map(|seed| (format!("large-{seed}"), format!("small-{seed}"))).collect();
    // All commands are in flight at the same time.
    let sets = keys.iter().zip(SIZES).enumerate().map(async |(seed, ((large, small), len))| {
        let (large, small) = tokio::join!(cache.set(large, pattern(seed, len), MINUTE), cache.set(small, "v", MINUTE));
        large.unwrap();
        small.unwrap();
    });
    join_all(sets).await;
    let gets = keys.iter().zip(SIZES).enumerate().map(async |(seed, ((large, small), len))| {
        let (large, small, with_cas) = tokio::join!(cache.get(large), cache.get(small), cache.gets(large));
        assert!(large.unwrap().unwrap().value == pattern(seed, len), "{len}");
        assert!(with_cas.unwrap().unwrap().value == pattern(seed, len), "{len}");
        assert_eq!(small.unwrap().unwrap().value, b"v"[..]);
    });
    join_all(gets).await;
    // One batch of all keys, with misses between them.
    let requested: Vec<_> = keys.iter().flat_map(|(large, small)| [large, "missing", small]).collect();
    let found = cache.get_many(&requested).await;
    assert!(found.errors.is_empty());
    for (seed, ((large, small), len)) in keys.iter().zip(SIZES).enumerate() {
        let value = |key: &String| &found.hits.iter().find(|(found, _)| *found == key).unwrap().1.value;
        assert!(*value(large) == pattern(seed, len), "{len}");
        assert_eq!(value(small), &b"v"[..]);
    }
}

#[tokio::test]
async fn a_value_of_ten_megabytes_is_returned_as_stored() {
    let server = Memcached::start_with(&["-I", "32m", "-m", "256"]).await.unwrap();
    let cache = client_builder(server.addr()).max_value_size(32 << 20).connect().await.unwrap();
    let value = pattern(1, 9_000_001);
    cache.set("k", value.clone(), MINUTE).await.unwrap();
    assert!(cache.append("k", pattern(2, 1_000_000)).await.unwrap());
    let found = cache.get("k").await.unwrap().unwrap().value;
    assert!(found == [value, pattern(2, 1_000_000)].concat());
}

#[tokio::test]
async fn a_large_value_does_not_share_its_buffer_with_the_connection() {
    let (_server, cache) = memcached().await;
    for len in [8192, 16_384, 1_000_000] {
        cache.set("k", pattern(1, len), MINUTE).await.unwrap();
        let value = cache.get("k").await.unwrap().unwrap().value;
        let capacity = value.try_into_mut().expect("the value must not be shared").capacity();
        assert!(capacity <= len + 2048, "a buffer of {capacity} bytes for {len} bytes");
    }
}

/// Passes a connection on to a server, and its replies back: 50 KB each 100 ms.
async fn pass_on_slowly(client: TcpStream, server: SocketAddr) {
    let ((mut from_client, mut to_client), server) = (client.into_split(), TcpStream::connect(server).await.unwrap());
    let (mut from_server, mut to_server) = server.into_split();
    let requests = tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
    let mut piece = vec![0; 50_000];
    while let Ok(count @ 1..) = from_server.read(&mut piece).await {
        sleep(Duration::from_millis(100)).await;
        if to_client.write_all(&piece[..count]).await.is_err() {
            break;
        }
    }
    requests.abort();
}

/// The value takes two seconds to arrive. The connection to a silent server is given up after one.
#[tokio::test]
async fn a_value_that_arrives_slowly_is_returned_and_the_connection_serves_on() {
    let (server, direct) = memcached().await;
    direct.set("large", pattern(1, 1_000_000), MINUTE).await.unwrap();
    direct.set("small", "v", MINUTE).await.unwrap();
    let server_addr = server.addr();
    let (proxy, connections) = counting_server(move |client, _| pass_on_slowly(client, server_addr)).await;
    let cache = default_client(proxy).await.with_request_timeout(LONG_TIMEOUT);
    let (large, small) = tokio::join!(cache.get("large"), async {
        sleep(Duration::from_millis(500)).await;
        cache.get("small").await
    });
    assert!(large.unwrap().unwrap().value == pattern(1, 1_000_000));
    assert_eq!(small.unwrap().unwrap().value, "v");
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}
