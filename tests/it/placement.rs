//! Clients with the placement of another client or a custom one, against real memcached processes.

use std::time::Duration;

use memring::testing::Memcached;
use memring::{Client, CustomPlacement, ErrorKind, KeyHash, Libmemcached, OwnerFn, Placement, Ring, RingNode};

use crate::support::{LONG_TIMEOUT, stat};

#[tokio::test]
async fn keys_are_on_the_node_where_the_other_client_looks() {
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(Memcached::start().await.unwrap());
    }
    // Listed out of order, as discovery may do. The client uses the natural order.
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
        let cache = Client::builder().nodes(&nodes).placement(placement.clone()).request_timeout(LONG_TIMEOUT);
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
async fn a_client_takes_nodes_in_natural_order() {
    // Nothing listens at these addresses, and nothing needs to. In alphabetical order 10 to 12 come before 2.
    let nodes: Vec<_> = (1..=12).map(|n| format!("127.0.0.{n}:1")).collect();
    for placement in [
        Placement::mcrouter_ch3(),
        Placement::mcrouter_weighted_ch3(1),
        Placement::mcrouter_crc32(),
        Placement::gomemcache(),
        Placement::dskit(),
        Placement::pecl_standard(),
        Placement::custom(ByNumber),
    ] {
        let cache = Client::builder().nodes(nodes.iter().rev()).placement(placement.clone()).connect().await.unwrap();
        let ring = Ring::with_placement(&placement, nodes.iter().map(String::as_str)).unwrap();
        for n in 0..100 {
            let key = format!("key-{n}");
            let owner = ring.node_for(&key).unwrap().label();
            assert_eq!(cache.node_for(&key).unwrap().to_string(), owner, "{placement:?}");
        }
    }
}

/// The owner of a key is the number in it, modulo the sum of the weights.
#[derive(Debug)]
struct ByNumber;

impl CustomPlacement for ByNumber {
    fn owners(&self, nodes: &[RingNode]) -> OwnerFn {
        // Uses the weights, to test that they arrive.
        let slots: Vec<usize> =
            nodes.iter().enumerate().flat_map(|(index, node)| vec![index; node.weight() as usize]).collect();
        Box::new(move |key| {
            let digits = key.iter().filter(|byte| byte.is_ascii_digit());
            let number = digits.fold(0, |number: usize, digit| number.wrapping_mul(10) + usize::from(digit - b'0'));
            slots[number % slots.len()]
        })
    }
}

#[tokio::test]
async fn a_custom_placement_routes_every_command() {
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(Memcached::start().await.unwrap());
    }
    let mut nodes: Vec<_> = servers.iter().map(|server| server.addr()).collect();
    let cache = Client::builder().nodes(nodes.iter().rev().map(ToString::to_string));
    let cache = cache.placement(Placement::custom(ByNumber)).request_timeout(LONG_TIMEOUT).connect().await.unwrap();
    nodes.sort();
    let keys: Vec<String> = (0..30).map(|n| format!("key-{n}")).collect();
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(cache.node_for(key).unwrap().to_string(), nodes[n % 3].to_string());
        cache.set(key, key.as_bytes().to_vec(), Duration::from_secs(60)).await.unwrap();
    }
    for node in &nodes {
        assert_eq!(stat(*node, "curr_items").await, 10);
    }
    assert_eq!(cache.get_many(&keys).await.hits.len(), 30);
    // A key without a number belongs to the first node, and so does every sample key.
    for node in cache.topology().nodes {
        assert_eq!(node.share, if node.id.to_string() == nodes[0].to_string() { 1.0 } else { 0.0 });
    }
}

/// Returns the same number for every key.
#[derive(Debug)]
struct Constant(usize);

impl CustomPlacement for Constant {
    fn owners(&self, nodes: &[RingNode]) -> OwnerFn {
        assert!(nodes.len() > 1, "a single node needs no placement");
        let index = self.0;
        Box::new(move |_| index)
    }
}

#[test]
fn the_index_of_a_custom_placement_is_taken_modulo_the_number_of_nodes() {
    for (index, owner) in [(0, "a"), (3, "a"), (4, "b"), (usize::MAX, "a")] {
        let placement = Placement::custom(Constant(index));
        let ring = Ring::with_placement(&placement, ["a", "b", "c"]).unwrap();
        assert_eq!(ring.node_for("k").map(RingNode::label), Some(owner), "{index}");
        assert_eq!(ring.shares(), ["a", "b", "c"].map(|label| f64::from(u8::from(label == owner))));
        let one = Ring::with_placement(&placement, ["a"]).unwrap();
        assert_eq!(one.node_for("k").map(RingNode::label), Some("a"));
        let none = Ring::with_placement(&placement, Vec::<RingNode>::new()).unwrap();
        assert_eq!(none.node_for("k"), None);
        let diff = Ring::diff(&ring, &one);
        assert_eq!((diff.moved(), diff.is_exact), (if owner == "a" { 0.0 } else { 1.0 }, false));
    }
}

#[test]
fn a_custom_placement_is_equal_to_its_clones_and_has_its_own_debug_output() {
    let placement = Placement::custom(ByNumber);
    assert_eq!(placement, placement.clone());
    assert_ne!(placement, Placement::custom(ByNumber));
    assert_ne!(placement, Placement::native());
    assert!(format!("{placement:?}").contains("ByNumber"), "{placement:?}");
    for invalid in [["", "b"], ["b", "b"]] {
        Ring::with_placement(&placement, invalid).unwrap_err();
    }
}

/// Panics when it is applied to nodes.
#[derive(Debug)]
struct Panics;

impl CustomPlacement for Panics {
    fn owners(&self, _nodes: &[RingNode]) -> OwnerFn {
        panic!("on purpose")
    }
}

#[tokio::test]
async fn a_custom_placement_that_panics_fails_to_connect() {
    let builder = || Client::builder().nodes(["127.0.0.1:1", "127.0.0.2:1"]);
    for builder in [builder().placement(Placement::custom(Panics)), builder().node_labels(|_| panic!("on purpose"))] {
        let error = builder.connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}
