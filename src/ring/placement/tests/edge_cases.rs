//! Edge cases: few servers, unusual labels, weights and keys.

use std::collections::{BTreeMap, HashMap};

use crate::ring::hash::{java_string, md5_number, murmur3};
use crate::ring::placement::*;
use crate::ring::{InvalidRing, Ring, RingNode};

/// Names of placements, at least one of each kind.
const NAMES: [&str; 24] = [
    "native",
    "libmemcached:modula",
    "libmemcached:modula:crc",
    "libmemcached:ketama",
    "libmemcached:ketama:crc",
    "libmemcached:ketama_weighted",
    "libmemcached:spy",
    "dalli",
    "spymemcached",
    "spymemcached:weighted",
    "spymemcached:array_mod",
    "twemproxy:ketama:md5:{}",
    "twemproxy:modula:crc16:{}",
    "pymemcache",
    "pymemcache:bytes",
    "dskit",
    "nginx",
    "folsom",
    "uhashring",
    "mcrouter:ch3:weighted",
    "mcrouter:rendezvous",
    "pecl:consistent",
    "envoy:murmur2",
    "envoy:maglev",
];

fn build_ring(name: &str, nodes: &[(&str, u32)]) -> Result<Ring, InvalidRing> {
    let nodes = nodes.iter().map(|&(label, weight)| RingNode::new(label).with_weight(weight));
    Ring::with_placement(&name.parse().unwrap(), nodes)
}

fn is_limited_to_native_weights(name: &str) -> bool {
    name == "native"
}

#[test]
fn every_key_has_an_owner_and_the_shares_add_up_to_one() {
    let keys: [&[u8]; 14] = [
        b"",
        b"k",
        b"{",
        b"}",
        b"{}",
        b"{}k",
        b"}k{",
        b"{k",
        b"a{b}c{d}",
        b"{{}}",
        b"\xff",
        b"\xd0",
        b"'\"\\\n\x00",
        &[0x80; 250],
    ];
    for name in NAMES {
        for nodes in [
            &[("a:1", 1)][..],
            &[("[::1]:11211", 1), ("[::1]:11212", 1)],
            &[("a", 1), ("b:11212", 1), ("[fe80::1%eth0]", 1)],
            &[("a", 0), ("b", 7)],
            &[("a", 1), ("b", 1), ("c", 30)],
        ] {
            if is_limited_to_native_weights(name) && nodes.iter().any(|node| !(1..=100).contains(&node.1)) {
                continue;
            }
            let ring = build_ring(name, nodes).unwrap();
            for key in keys {
                assert!(ring.node_for(key).is_some(), "{name} {nodes:?} {key:?}");
            }
            let sum: f64 = ring.shares().iter().sum();
            assert!((sum - 1.0).abs() < 1e-9, "{name} {nodes:?}: {sum}");
        }
    }
}

#[test]
fn the_moved_share_is_the_sum_of_its_pairs() {
    for name in ["native", "dalli", "pecl", "envoy:maglev", "dskit"] {
        let [old, new] =
            [&[("a", 1), ("b", 1), ("c", 1)][..], &[("c", 1), ("a", 1)]].map(|nodes| build_ring(name, nodes).unwrap());
        let diff = Ring::diff(&old, &new);
        assert!((diff.pairs.iter().map(|pair| pair.share).sum::<f64>() - diff.moved()).abs() < 1e-9, "{name}");
        assert_eq!(old.moved(&new), diff.moved(), "{name}");
    }
}

/// Leaves out the placements for which this means millions of points.
#[test]
fn the_largest_and_the_smallest_weight_share_a_ring() {
    for name in NAMES.into_iter().filter(|name| !["native", "nginx", "pecl:consistent"].contains(name)) {
        let ring = build_ring(name, &[("a", 1), ("b", 65_535)]).unwrap();
        assert!((ring.shares().iter().sum::<f64>() - 1.0).abs() < 1e-9, "{name}");
        assert!(ring.node_for("k").is_some());
    }
}

#[test]
fn a_ring_without_an_owner_is_rejected() {
    for name in NAMES.into_iter().filter(|name| !is_limited_to_native_weights(name)) {
        let zero_means_no_keys =
            ["dalli", "nginx", "spymemcached:weighted", "pecl:consistent"].contains(&name) || name.starts_with("twem");
        let ring = build_ring(name, &[("a", 0), ("b", 0)]);
        assert_eq!(ring.as_ref().err(), zero_means_no_keys.then_some(&InvalidRing::NoOwner), "{name}");
        assert!(ring.is_err() || ring.unwrap().node_for("k").is_some(), "{name}");
        assert!(build_ring(name, &[("a", 0)]).unwrap().node_for("k").is_some(), "{name}");
    }
    assert_eq!(build_ring("pecl", &[("a", 0), ("b", 0)]).unwrap_err(), InvalidRing::NoOwner);
}

#[test]
fn labels_that_are_not_host_and_port_are_rejected() {
    for label in [
        "::1",
        "fd00::1",
        "fd00::1:11211",
        "[a]:1",
        "[]:1",
        "[::1",
        "[::1]1",
        "[::1]:",
        "a:",
        ":1",
        "a:b",
        "a:+1",
        "a:65536",
        "a:1:2",
        "a: 1",
    ] {
        let error = InvalidRing::Label { label: label.to_owned() };
        assert_eq!(build_ring("dalli", &[(label, 1)]).unwrap_err(), error);
        assert_eq!(build_ring("dskit", &[("a", 1), (label, 1)]).unwrap_err(), error);
        // A custom placement accepts any label.
        let custom = Placement::custom(ByKeyLength);
        Ring::with_placement(&custom, ["a", label].map(RingNode::new)).unwrap();
    }
}

/// The owner is the key's length modulo the number of nodes.
#[derive(Debug)]
struct ByKeyLength;

impl CustomPlacement for ByKeyLength {
    fn owners(&self, _nodes: &[RingNode]) -> OwnerFn {
        Box::new(<[u8]>::len)
    }
}

#[test]
fn two_labels_of_one_server_are_rejected() {
    for (label, same) in [("a", "a:11211"), ("a:1", "a:01"), ("[::1]", "[::1]:11211")] {
        let error = InvalidRing::DuplicateLabel { label: same.to_owned() };
        assert_eq!(build_ring("gomemcache", &[(label, 1), ("b", 1), (same, 1)]).unwrap_err(), error);
    }
    // twemproxy's servers differ if their names do.
    let named = |label: &str, name: &str| RingNode::new(label).with_name(name);
    Ring::with_placement(&"twemproxy:ketama".parse().unwrap(), [named("a", "x"), named("a:11211", "y")]).unwrap();
}

#[test]
fn a_missing_port_means_11211() {
    for name in NAMES.into_iter().filter(|name| *name != "native") {
        let [short, long] = [["a", "[::1]", "c"], ["a:11211", "[::1]:11211", "c:11211"]]
            .map(|labels| build_ring(name, &labels.map(|label| (label, 1))).unwrap());
        for key in 0..50 {
            let key = format!("key-{key}");
            assert_eq!(short.index_for(key.as_bytes()), long.index_for(key.as_bytes()), "{name}");
        }
    }
}

#[test]
fn errors_name_the_limits() {
    let error = build_ring("dalli", &[("a", 65_536)]).unwrap_err();
    assert_eq!(error.to_string(), r#"node "a" has weight 65536, allowed are 0 to 65535"#);
    let error = build_ring("dalli", &[("a", 65_535), ("b", 34_466)]).unwrap_err();
    assert_eq!(error.to_string(), "node weights add up to 100001, the limit is 100000");
    let many = |count: usize| {
        let nodes = (0..count).map(|node| RingNode::new(format!("n{node}")).with_weight(0));
        Ring::with_placement(&Placement::gomemcache(), nodes)
    };
    assert_eq!(many(10_000).unwrap().nodes().len(), 10_000);
    assert_eq!(many(10_001).unwrap_err().to_string(), "the ring has 10001 nodes, the limit is 10000");
    // One more node would exceed the indices of 16 bits.
    assert_eq!(many(65_535).unwrap_err(), InvalidRing::Nodes { count: 65_535, max: 10_000 });
}

/// libmemcached's `crc` has 15 bits, so all keys lie at the beginning of the circle.
#[test]
fn shares_and_moves_count_only_the_values_of_the_hash() {
    for name in ["libmemcached:ketama:crc", "libmemcached:ketama_weighted:crc", "twemproxy:ketama:crc32"] {
        let [old, new] = [&[("a", 1), ("b", 1), ("c", 1)][..], &[("a", 1), ("b", 1), ("c", 1), ("d", 1)]]
            .map(|nodes| build_ring(name, nodes).unwrap());
        const KEYS: u32 = 40_000;
        let keys = || (0..KEYS).map(|key| format!("key:{}", key.wrapping_mul(2_654_435_761)));
        for (node, share) in old.shares().into_iter().enumerate() {
            let owned = keys().filter(|key| old.index_for(key.as_bytes()) == Some(node)).count();
            let observed = owned as f64 / f64::from(KEYS);
            assert!((share - observed).abs() < 0.02, "{name}: share {share}, observed {observed}");
        }
        let diff = Ring::diff(&old, &new);
        let moved = keys().filter(|key| old.index_for(key.as_bytes()) != new.index_for(key.as_bytes())).count();
        let observed = moved as f64 / f64::from(KEYS);
        let is_close = (diff.moved() - observed).abs() < 0.02;
        assert!(diff.is_exact && is_close, "{name}: {} moves, observed {observed}", diff.moved());
    }
}

#[test]
fn a_divisor_of_zero_counts_as_one() {
    assert_eq!(Placement::mcrouter_weighted_ch3(0), Placement::mcrouter_weighted_ch3(1));
    let ring = |nodes: [(&str, u32); 2]| {
        let nodes = nodes.map(|(label, weight)| RingNode::new(label).with_weight(weight));
        Ring::with_placement(&Placement::mcrouter_weighted_ch3(0), nodes).unwrap()
    };
    assert!(ring([("a", 0), ("b", 1)]).shares()[0] < 1e-6);
}

#[test]
fn a_hash_tag_encloses_the_hashed_part() {
    let ring =
        build_ring("twemproxy:ketama:md5:{}", &[("a", 1), ("b", 1), ("c", 1), ("d", 1), ("e", 1), ("f", 1)]).unwrap();
    let plain =
        build_ring("twemproxy:ketama:md5", &[("a", 1), ("b", 1), ("c", 1), ("d", 1), ("e", 1), ("f", 1)]).unwrap();
    for n in 0..30 {
        for (key, hashed) in [
            (format!("x{{{n}}}y"), format!("{n}")),
            (format!("{{{n}}}{{y}}"), format!("{n}")),
            (format!("}}{{{n}}}"), format!("{n}")),
            (format!("{{{{{n}}}}}"), format!("{{{n}")),
            // Nothing enclosed, or no closing byte: the whole key is hashed, and later tags do not count.
            (format!("{{}}{n}{{a}}"), format!("{{}}{n}{{a}}")),
            (format!("{{{n}"), format!("{{{n}")),
            (format!("{n}}}{{"), format!("{n}}}{{")),
        ] {
            assert_eq!(ring.index_for(key.as_bytes()), plain.index_for(hashed.as_bytes()), "{key}");
        }
    }
}

#[test]
fn in_natural_order_the_listed_order_does_not_matter() {
    let labels = || (1..=12).map(|n| RingNode::new(format!("cache-{n}:11211")));
    for name in NAMES {
        let placement: Placement = name.parse().unwrap();
        let listed = Ring::with_placement(&placement, labels()).unwrap();
        let reversed = Ring::with_placement(&placement.in_natural_order(), labels().rev()).unwrap();
        for key in 0..100 {
            let key = format!("key-{key}");
            assert_eq!(listed.node_for(&key), reversed.node_for(&key), "{name}");
        }
    }
}

#[test]
fn natural_order_is_total_for_equal_numbers() {
    for placement in [Placement::gomemcache(), Placement::dskit(), Placement::custom(ByKeyLength)] {
        let ring = |labels: [&str; 3]| Ring::with_placement(&placement.clone().in_natural_order(), labels).unwrap();
        let [ring, shuffled] = [ring(["n01", "n1", "n001"]), ring(["n001", "n1", "n01"])];
        for key in ["a", "bb", "ccc", "dddd", "eeeee"] {
            assert_eq!(ring.node_for(key), shuffled.node_for(key), "{placement:?}");
        }
    }
}

#[test]
fn the_last_listed_server_wins_a_contested_point_of_folsom() {
    let points = |label: &str| {
        let next = |point: &u32| Some(murmur3(point.to_le_bytes().into_iter(), 0));
        std::iter::successors(Some(murmur3(label.bytes(), 0)), next).take(100).map(|point| point as i32)
    };
    let hash = |key: &str| murmur3(key.bytes(), 0) as i32;
    // The first two of many names that have a common point.
    let mut known = HashMap::new();
    let pair = (0..).map(|n| format!("n{n}:11211")).find_map(|label| {
        let common = points(&label).find_map(|point| Some((point, known.get(&point).cloned()?)));
        known.extend(points(&label).map(|point| (point, label.clone())));
        common.map(|(point, other)| (point, other, label))
    });
    let (contested, first, second) = pair.unwrap();
    for labels in [[&first, &second], [&second, &first]] {
        let all: BTreeMap<i32, &str> =
            labels.iter().flat_map(|label| points(label).map(move |point| (point, label.as_str()))).collect();
        let ring = Ring::with_placement(&Placement::folsom(), labels.map(|label| label.as_str())).unwrap();
        let mut contested_keys = 0;
        for key in (0..4_000).map(|key| format!("key-{key}")) {
            let (point, owner) = all.range(hash(&key)..).next().or_else(|| all.first_key_value()).unwrap();
            assert_eq!(ring.node_for(&key).map(RingNode::label), Some(*owner), "{key}");
            contested_keys += u32::from(*point == contested);
        }
        assert!(contested_keys > 0, "no key belongs to the contested point");
    }
}

#[test]
fn spymemcached_hashes_an_address_once_if_the_host_is_the_address() {
    let nodes = || ["10.0.0.1:11211", "10.0.0.2:11211", "10.0.0.3:11211"].map(RingNode::new);
    let placement = Placement::spymemcached(SpyFormat::Spymemcached, false);
    let resolved = nodes().map(|node| node.clone().with_ip(node.label().split(':').next().unwrap()));
    let [plain, resolved] = [nodes(), resolved].map(|nodes| Ring::with_placement(&placement, nodes).unwrap());
    assert_eq!(plain.shares(), resolved.shares());
}

#[test]
fn sort_hosts_compares_ports_as_numbers() {
    let ring = |name: &str, labels: [&str; 4]| Ring::with_placement(&name.parse().unwrap(), labels).unwrap();
    let sorted = ring("libmemcached:modula:default:sort_hosts", ["b:10", "a:9", "b:9", "a:10"]);
    let listed = ring("libmemcached:modula", ["a:9", "a:10", "b:9", "b:10"]);
    for key in 0..50 {
        let key = format!("key-{key}");
        assert_eq!(sorted.node_for(&key), listed.node_for(&key));
    }
}

#[test]
fn the_size_of_envoys_ring_is_from_one_to_eight_million_points() {
    let sized = |points| Placement::envoy_ring(EnvoyHash::XxHash).with_minimum_ring_size(points);
    assert_eq!((sized(0), sized(u32::MAX)), (sized(1), sized(8_388_608)));
    assert_eq!(sized(1_024), Placement::envoy_ring(EnvoyHash::XxHash));
    // In Envoy a weight of 0 counts as 1.
    for name in ["envoy", "envoy:maglev"] {
        let [zero, one] = [0, 1].map(|weight| build_ring(name, &[("a", weight), ("b", 3)]).unwrap());
        assert_eq!(zero.shares(), one.shares());
    }
}

#[test]
fn shares_of_small_weights_include_all_tries() {
    let weights = [1.0, 10.0, 100.0].map(|weight: f64| weight / 1_000.0);
    let ring = build_ring("mcrouter:ch3:weighted:1000", &[("a", 1), ("b", 10), ("c", 100)]).unwrap();
    let rejected = weights.iter().map(|weight| (1.0 - weight) / 3.0).sum::<f64>();
    for (weight, share) in weights.into_iter().zip(ring.shares()) {
        // What the server accepts in the first 31 tries, and all keys that reach it in the last one.
        let accepted: f64 = (0..31).map(|tries| rejected.powi(tries) * weight / 3.0).sum();
        let expected = accepted + rejected.powi(31) / 3.0;
        assert!((share - expected).abs() < 1e-8, "share {share}, expected {expected}");
    }
}

#[test]
fn rings_with_different_hashes_are_compared_by_samples() {
    let ring = |name: &str| build_ring(name, &[("a", 1), ("b", 1), ("c", 1)]).unwrap();
    let diff = Ring::diff(&ring("libmemcached:ketama_weighted"), &ring("libmemcached:ketama_weighted:fnv1a_32"));
    assert!(!diff.is_exact && diff.moved() > 0.5);
    assert!(!Ring::diff(&ring("dalli"), &ring("nginx")).is_exact, "Dalli's owner is before the key, nginx's after it");
}

#[test]
fn bytes_that_are_not_utf8_count_as_characters() {
    assert_eq!(java_string(b"a\xff"), 31 * 97 + 255);
    // Python decodes such a byte to U+DCxx.
    let ring = build_ring("pymemcache", &[("a", 1), ("b", 1), ("c", 1), ("d", 1)]).unwrap();
    for byte in 0x80..=0xff_u8 {
        let text = char::from(byte).to_string();
        assert_eq!(ring.node_for([byte]), ring.node_for(text), "{byte:#x}");
    }
}

#[test]
fn uhashring_compares_all_128_bits() {
    let labels: Vec<_> = (0..20).map(|n| format!("cache-{n}.cache.default.svc.cluster.local:11211")).collect();
    let number = |text: String| md5_number(text.as_bytes());
    let points = |node: usize| (0..160).map(move |index| (node, index));
    let mut points: Vec<_> =
        (0..20).flat_map(points).map(|(node, index)| (number(format!("{}-{index}", labels[node])), node)).collect();
    points.sort_unstable();
    let nodes = labels.iter().map(String::as_str);
    let ring = Ring::with_placement(&Placement::uhashring(), nodes).unwrap();
    // A key that is the text of a point lies on it and belongs to the next point.
    let on_points = (0..100).map(|index| format!("{}-{index}", labels[index % 20]));
    for key in (0..2_000).map(|key| format!("user:{key}")).chain(on_points) {
        let position = number(key.clone());
        let owner = points.iter().find(|point| point.0 > position).unwrap_or(&points[0]).1;
        assert_eq!(ring.node_for(&key).map(RingNode::label), Some(&*labels[owner]), "{key}");
    }
}
