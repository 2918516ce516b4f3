//! What a command costs in allocations, counted.
//!
//! On its own, because the allocator counts everything in the process: the server is another one.
#![expect(clippy::unwrap_used, reason = "a test that meets what it did not expect has failed")]

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

/// Allocations per run of `work`, once it is warm.
async fn per_run<F: Future<Output = ()>>(runs: usize, mut work: impl FnMut() -> F) -> f64 {
    for _ in 0..runs {
        work().await;
    }
    let before = allocations();
    for _ in 0..runs {
        work().await;
    }
    (allocations() - before) as f64 / runs as f64
}

/// One test after the other: the count is the whole process's.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A server that passes on what another says in segments of an Ethernet frame's size, each by itself. Allocates nothing
/// while it does.
fn in_segments(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        client.set_nodelay(true).unwrap();
        let mut server = TcpStream::connect(server).unwrap();
        server.set_nodelay(true).unwrap();
        let (mut asking, mut asked) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || {
            let mut bytes = [0; 16 * 1024];
            while let Ok(count @ 1..) = asking.read(&mut bytes) {
                if asked.write_all(&bytes[..count]).is_err() {
                    break;
                }
            }
            let _ = asked.shutdown(Shutdown::Both);
        });
        let mut segment = [0; 1_448];
        while let Ok(count @ 1..) = server.read(&mut segment) {
            if client.write_all(&segment[..count]).is_err() {
                break;
            }
            // For the client to have read it before the next one comes: on an idle machine it mostly has.
            thread::sleep(Duration::from_micros(50));
        }
    });
    addr
}

#[tokio::test]
async fn values_that_come_in_many_segments_cost_no_more_than_they_are() {
    const VALUE: usize = 1_024;
    let _alone = ALONE.lock().await;
    let server = Memcached::start().await.unwrap();
    let addr = in_segments(server.addr());
    let builder = Client::builder().nodes([addr.to_string()]).request_timeout(Duration::from_secs(60));
    let cache = builder.connect().await.unwrap();
    let keys: Vec<String> = (0..800).map(|n| format!("key-{n}")).collect();
    let written = cache.set_many(keys.iter().map(|key| (key, vec![b'v'; VALUE])), Ttl::NEVER).await;
    assert!(written.is_complete());
    for count in [100, 800, 800] {
        let before = COUNTING.stats();
        let found = cache.get_many(&keys[..count]).await;
        let after = COUNTING.stats();
        assert_eq!(found.hits.len(), count);
        let made = after.allocations + after.reallocations - before.allocations - before.reallocations;
        let bytes = after.bytes_allocated - before.bytes_allocated;
        println!("allocations: get_many of {count} in segments: {made}, {bytes} bytes");
        // The value, and for each key a small share of what there is one of for many.
        assert!(made <= count * 3 / 2 + 100, "{made} allocations for {count} keys");
        assert!(bytes <= count * (VALUE + 1_024) + 128 * 1024, "{bytes} bytes allocated for {count} keys");
    }
}

#[tokio::test]
async fn a_write_of_many_makes_one_allocation() {
    let _alone = ALONE.lock().await;
    let server = Memcached::start().await.unwrap();
    let builder = Client::builder().nodes([server.addr().to_string()]).request_timeout(Duration::from_secs(60));
    let cache = builder.connect().await.unwrap();
    let keys: Vec<String> = (0..1_000).map(|n| format!("key-{n}")).collect();
    let set = per_run(50, async || {
        let written = cache.set_many(keys.iter().map(|key| (key, &b"value"[..])), Ttl::NEVER).await;
        assert!(written.is_complete());
    });
    let set = set.await;
    println!("allocations: set_many of 1000 {set:.1}");
    assert!(set <= 1_050.0, "{set} allocations per set_many of 1000");
}

#[tokio::test]
async fn a_get_makes_none_but_for_the_value_and_small_values_share_theirs() {
    let _alone = ALONE.lock().await;
    let server = Memcached::start().await.unwrap();
    let cache = Client::builder().nodes([server.addr().to_string()]).connect().await.unwrap();
    cache.set("a-key-of-17-bytes", vec![b'v'; 100], Ttl::NEVER).await.unwrap();

    let hit = per_run(2_000, async || assert!(cache.get("a-key-of-17-bytes").await.unwrap().is_some())).await;
    let miss = per_run(2_000, async || assert!(cache.get("absent").await.unwrap().is_none())).await;
    let keys: Vec<String> = (0..100).map(|n| format!("key-{n}")).collect();
    for key in &keys {
        cache.set(key, vec![b'v'; 100], Ttl::NEVER).await.unwrap();
    }
    let many = per_run(500, async || assert_eq!(cache.get_many(&keys).await.hits.len(), 100)).await;
    println!("allocations: get hit {hit:.3}, get miss {miss:.3}, get_many of 100 {many:.1}");
    // A timer of the runtime or two may fall into the count.
    assert!(hit <= 0.3, "{hit} allocations per hit");
    assert!(miss <= 0.01, "{miss} allocations per miss");
    assert!(many <= 45.0, "{many} allocations per get_many of 100");
    assert!(tokio::time::timeout(Duration::from_secs(1), cache.shutdown()).await.is_ok());
}

#[tokio::test]
async fn a_set_of_a_value_that_is_bytes_makes_none() {
    let _alone = ALONE.lock().await;
    let server = Memcached::start().await.unwrap();
    let builder = Client::builder().nodes([server.addr().to_string()]).request_timeout(Duration::from_secs(60));
    let cache = builder.connect().await.unwrap();
    // One that is copied into what is written, and one that is not.
    for len in [100, 16 * 1024] {
        let value = Bytes::from(vec![b'v'; len]);
        let set =
            per_run(2_000, async || cache.set("a-key-of-17-bytes", value.clone(), Ttl::NEVER).await.unwrap()).await;
        println!("allocations: set of {len} bytes {set:.3}");
        assert!(set <= 0.01, "{set} allocations per set of {len} bytes");
        // Nor is it held on to for the next command.
        assert!(value.is_unique());
    }
}

#[tokio::test]
async fn what_waits_for_an_answer_is_small() {
    // Nobody listens there, nor has to.
    let cache = Client::builder().nodes(["127.0.0.1:1"]).connect().await.unwrap();
    let (get, set) = (size_of_val(&cache.get("key")), size_of_val(&cache.set("key", "value", Ttl::NEVER)));
    println!("bytes of a future: get {get}, set {set}");
    assert!(get <= 160, "{get} bytes");
    assert!(set <= 384, "{set} bytes");
}

#[tokio::test]
async fn finding_a_keys_node_makes_none() {
    let _alone = ALONE.lock().await;
    let keys =
        ["user:42", "", "ключ-ab", "it's \"quoted\" \\ and\ttabbed {tag}", &"x".repeat(250), &"long".repeat(250)];
    let names = "native libmemcached:modula libmemcached:ketama libmemcached:ketama_weighted libmemcached:spy_weighted \
        libmemcached:modula:crc libmemcached:modula:murmur libmemcached:modula:murmur3 libmemcached:modula:jenkins \
        libmemcached:modula:hsieh dalli pymemcache pymemcache:bytes spymemcached spymemcached:array_mod gomemcache dskit \
        twemproxy:ketama:md5:{} twemproxy:modula:crc16 nginx pecl pecl:consistent uhashring folsom mcrouter:ch3 \
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
