//! A client that places keys as another does, against real memcached processes.

use std::time::Duration;

use memring::testing::Memcached;
use memring::{Client, KeyHash, Libmemcached, Placement, Ring};

use crate::support::{NO_HURRY, stat};

#[tokio::test]
async fn keys_are_where_the_other_client_looks_for_them() {
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(Memcached::start().await.unwrap());
    }
    // Out of order, as discovery may list them: what counts is the natural order.
    let mut nodes: Vec<_> = servers.iter().map(|server| server.addr().to_string()).collect();
    nodes.reverse();
    for placement in [
        Placement::dalli(),
        Placement::libmemcached(Libmemcached::Modula, KeyHash::OneAtATime),
        Placement::libmemcached(Libmemcached::KetamaWeighted, KeyHash::Md5),
        Placement::gomemcache(),
        Placement::pymemcache(memring::PythonKeys::Str),
        Placement::native(),
    ] {
        let cache = Client::builder().nodes(&nodes).placement(placement.clone()).request_timeout(NO_HURRY);
        let cache = cache.connect().await.unwrap();
        cache.flush_all().await;
        let listed = cache.topology().nodes;
        let mut listed: Vec<_> = listed.iter().map(|node| node.id.to_string()).collect();
        listed.sort_by_key(|node| {
            let numbers = node.split(['.', ':']).map(|number| number.parse().unwrap());
            numbers.collect::<Vec<u32>>()
        });
        let ring = Ring::with_placement(&placement, listed.iter().map(String::as_str)).unwrap();
        let mut owned = vec![0; 3];
        for n in 0..100 {
            let key = format!("key-{n}");
            let owner = ring.node_for(&key).unwrap().label().to_owned();
            assert_eq!(cache.node_for(&key).unwrap().to_string(), owner, "{placement:?}");
            cache.set(&key, "x", Duration::from_secs(60)).await.unwrap();
            owned[servers.iter().position(|server| server.addr().to_string() == owner).unwrap()] += 1;
        }
        for (server, owned) in servers.iter().zip(owned) {
            assert_eq!(stat(server.addr(), "curr_items").await, owned, "{placement:?}");
        }
    }
}

#[tokio::test]
async fn servers_whose_order_matters_are_taken_in_natural_order() {
    // Nobody listens there, nor has to. In the alphabet 10 to 12 come before 2.
    let nodes: Vec<_> = (1..=12).map(|n| format!("127.0.0.{n}:1")).collect();
    for placement in
        [Placement::mcrouter_ch3(), Placement::gomemcache(), Placement::dskit(), Placement::pecl_standard()]
    {
        let cache = Client::builder().nodes(nodes.iter().rev()).placement(placement.clone()).connect().await.unwrap();
        let ring = Ring::with_placement(&placement, nodes.iter().map(String::as_str)).unwrap();
        for n in 0..100 {
            let key = format!("key-{n}");
            let owner = ring.node_for(&key).unwrap().label();
            assert_eq!(cache.node_for(&key).unwrap().to_string(), owner, "{placement:?}");
        }
    }
}
