//! Counts the allocations of commands.
//!
//! The tests have their own process, because the allocator counts the whole process. The server is another process.
#![expect(clippy::unwrap_used, reason = "a test fails with a panic")]

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use memring::testing::Memcached;
use memring::{Client, Placement, Ring, RingNode, Ttl};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn allocations() -> usize {
    let stats = COUNTING.stats();
    stats.allocations + stats.reallocations
}

/// Returns the allocations per run, after as many runs that fill buffers and pools.
async fn allocations_per_run<F: Future<Output = ()>>(runs: usize, mut run: impl FnMut() -> F) -> f64 {
    for _ in 0..runs {
        run().await;
    }
    let before = allocations();
    for _ in 0..runs {
        run().await;
    }
    (allocations() - before) as f64 / runs as f64
}

/// Held by each test, because the counts are those of the whole process.
static ONE_TEST_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Starts a memcached, and connects a client whose deadlines only a broken server exceeds.
async fn memcached() -> (Memcached, Client) {
    let server = Memcached::start().await.unwrap();
    let client = connect(server.addr()).await;
    (server, client)
}

async fn connect(addr: SocketAddr) -> Client {
    Client::builder().nodes([addr.to_string()]).request_timeout(Duration::from_secs(60)).connect().await.unwrap()
}

/// Starts a proxy for one connection that sends the server's replies in segments of the size of an Ethernet frame. It
/// does not allocate while it forwards.
fn segmenting_proxy(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        client.set_nodelay(true).unwrap();
        let mut server = TcpStream::connect(server).unwrap();
        server.set_nodelay(true).unwrap();
        let (mut client_reader, mut server_writer) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(count @ 1..) = client_reader.read(&mut buffer) {
                if server_writer.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            let _ = server_writer.shutdown(Shutdown::Both);
        });
        let mut segment = [0; 1_448];
        while let Ok(count @ 1..) = server.read(&mut segment) {
            if client.write_all(&segment[..count]).is_err() {
                break;
            }
            // Gives the client time to read the segment before the next one arrives.
            thread::sleep(Duration::from_micros(50));
        }
    });
    addr
}

#[tokio::test]
async fn allocations_of_get_many_grow_linearly_when_values_arrive_in_many_segments() {
    const VALUE_LEN: usize = 1_024;
    let _lock = ONE_TEST_AT_A_TIME.lock().await;
    let server = Memcached::start().await.unwrap();
    let cache = connect(segmenting_proxy(server.addr())).await;
    let keys: Vec<String> = (0..800).map(|n| format!("key-{n}")).collect();
    let written = cache.set_many(keys.iter().map(|key| (key, vec![b'v'; VALUE_LEN])), Ttl::NEVER).await;
    assert!(written.is_complete());
    for count in [100, 800, 800] {
        let before = COUNTING.stats();
        let found = cache.get_many(&keys[..count]).await;
        let after = COUNTING.stats();
        assert_eq!(found.hits.len(), count);
        let allocations = after.allocations + after.reallocations - before.allocations - before.reallocations;
        let bytes = after.bytes_allocated - before.bytes_allocated;
        println!("allocations: get_many of {count} in segments: {allocations}, {bytes} bytes");
        // One allocation for each value, and a few that many keys share.
        assert!(allocations <= count * 3 / 2 + 100, "{allocations} allocations for {count} keys");
        assert!(bytes <= count * (VALUE_LEN + 1_024) + 128 * 1024, "{bytes} bytes allocated for {count} keys");
    }
}

#[tokio::test]
async fn set_many_makes_about_one_allocation_for_each_entry() {
    let _lock = ONE_TEST_AT_A_TIME.lock().await;
    let (_server, cache) = memcached().await;
    let keys: Vec<String> = (0..1_000).map(|n| format!("key-{n}")).collect();
    let set = allocations_per_run(50, async || {
        let written = cache.set_many(keys.iter().map(|key| (key, &b"value"[..])), Ttl::NEVER).await;
        assert!(written.is_complete());
    });
    let set = set.await;
    println!("allocations: set_many of 1000 {set:.1}");
    assert!(set <= 1_050.0, "{set} allocations per set_many of 1000");
}

#[tokio::test]
async fn a_get_allocates_only_for_its_value_and_small_values_share_an_allocation() {
    let _lock = ONE_TEST_AT_A_TIME.lock().await;
    let (_server, cache) = memcached().await;
    cache.set("a-key-of-17-bytes", vec![b'v'; 100], Ttl::NEVER).await.unwrap();

    let hit =
        allocations_per_run(2_000, async || assert!(cache.get("a-key-of-17-bytes").await.unwrap().is_some())).await;
    let miss = allocations_per_run(2_000, async || assert!(cache.get("absent").await.unwrap().is_none())).await;
    let keys: Vec<String> = (0..100).map(|n| format!("key-{n}")).collect();
    for key in &keys {
        cache.set(key, vec![b'v'; 100], Ttl::NEVER).await.unwrap();
    }
    let many = allocations_per_run(500, async || assert_eq!(cache.get_many(&keys).await.hits.len(), 100)).await;
    println!("allocations: get hit {hit:.3}, get miss {miss:.3}, get_many of 100 {many:.1}");
    // The count may include one or two timers of the runtime.
    assert!(hit <= 0.3, "{hit} allocations per hit");
    assert!(miss <= 0.01, "{miss} allocations per miss");
    assert!(many <= 45.0, "{many} allocations per get_many of 100");
    assert!(tokio::time::timeout(Duration::from_secs(1), cache.shutdown()).await.is_ok());
}

#[tokio::test]
async fn a_set_of_a_value_in_bytes_does_not_allocate() {
    let _lock = ONE_TEST_AT_A_TIME.lock().await;
    let (_server, cache) = memcached().await;
    // The small value is copied into the write buffer, the large one is not.
    for len in [100, 16 * 1024] {
        let value = Bytes::from(vec![b'v'; len]);
        let set = allocations_per_run(2_000, async || {
            cache.set("a-key-of-17-bytes", value.clone(), Ttl::NEVER).await.unwrap()
        })
        .await;
        println!("allocations: set of {len} bytes {set:.3}");
        assert!(set <= 0.01, "{set} allocations per set of {len} bytes");
        assert!(value.is_unique(), "the client must not keep a reference to the value");
    }
}

#[tokio::test]
async fn futures_of_get_and_set_are_small() {
    let _lock = ONE_TEST_AT_A_TIME.lock().await;
    // The test sends nothing, so no server needs to listen.
    let cache = Client::builder().nodes(["127.0.0.1:1"]).connect().await.unwrap();
    let (get, set) = (size_of_val(&cache.get("key")), size_of_val(&cache.set("key", "value", Ttl::NEVER)));
    println!("bytes of a future: get {get}, set {set}");
    assert!(get <= 160, "{get} bytes");
    assert!(set <= 384, "{set} bytes");
}

#[tokio::test]
async fn finding_the_node_of_a_key_does_not_allocate() {
    let _lock = ONE_TEST_AT_A_TIME.lock().await;
    let keys =
        ["user:42", "", "ключ-ab", "it's \"quoted\" \\ and\ttabbed {tag}", &"x".repeat(250), &"long".repeat(250)];
    let names = "native libmemcached:modula libmemcached:ketama libmemcached:ketama_weighted libmemcached:spy_weighted \
        libmemcached:modula:crc libmemcached:modula:murmur libmemcached:modula:murmur3 libmemcached:modula:jenkins \
        libmemcached:modula:hsieh dalli pymemcache pymemcache:bytes spymemcached spymemcached:array_mod gomemcache \
        dskit twemproxy:ketama:md5:{} twemproxy:modula:crc16 nginx pecl pecl:consistent uhashring folsom mcrouter:ch3 \
        mcrouter:ch3:weighted mcrouter:crc32 mcrouter:rendezvous envoy envoy:murmur2 envoy:maglev";
    for name in names.split_whitespace() {
        let placement: Placement = name.parse().unwrap();
        let nodes = (0..20).map(|n| RingNode::new(format!("cache-{n}:11211")).with_weight(n + 1));
        let ring = Ring::with_placement(&placement, nodes).unwrap();
        let before = allocations();
        for key in keys {
            assert!(ring.node_for(key).is_some());
        }
        assert_eq!(allocations() - before, 0, "{name}");
    }
}
