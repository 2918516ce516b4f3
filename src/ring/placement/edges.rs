//! What is at the edges: few servers, unusual labels, weights and keys.

use std::collections::{BTreeMap, HashMap};

use super::*;
use crate::ring::hash::{java_string, murmur3};
use crate::ring::{InvalidRing, Ring, RingNode};

/// At least one of each kind.
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

fn placed(name: &str, nodes: &[(&str, u32)]) -> Result<Ring, InvalidRing> {
    let nodes = nodes.iter().map(|&(label, weight)| RingNode::new(label).with_weight(weight));
    Ring::with_placement(&name.parse().unwrap(), nodes)
}

fn weights_are_refused(name: &str) -> bool {
    name == "native"
}

#[test]
fn every_key_has_an_owner_and_the_shares_add_up_to_the_whole() {
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
            if weights_are_refused(name) && nodes.iter().any(|node| !(1..=100).contains(&node.1)) {
                continue;
            }
            let ring = placed(name, nodes).unwrap();
            for key in keys {
                assert!(ring.node_for(key).is_some(), "{name} {nodes:?} {key:?}");
            }
            let whole: f64 = ring.shares().iter().sum();
            assert!((whole - 1.0).abs() < 1e-9, "{name} {nodes:?}: {whole}");
        }
    }
}

#[test]
fn what_moves_is_the_sum_of_its_parts() {
    for name in ["native", "dalli", "pecl", "envoy:maglev", "dskit"] {
        let [old, new] =
            [&[("a", 1), ("b", 1), ("c", 1)][..], &[("c", 1), ("a", 1)]].map(|nodes| placed(name, nodes).unwrap());
        let diff = Ring::diff(&old, &new);
        assert!((diff.pairs.iter().map(|pair| pair.share).sum::<f64>() - diff.moved()).abs() < 1e-9, "{name}");
        assert_eq!(old.moved(&new), diff.moved(), "{name}");
    }
}

/// Weights as far apart as can be, where that does not mean millions of points.
#[test]
fn the_heaviest_and_the_lightest() {
    for name in NAMES.into_iter().filter(|name| !["native", "nginx", "pecl:consistent"].contains(name)) {
        let ring = placed(name, &[("a", 1), ("b", 65_535)]).unwrap();
        assert!((ring.shares().iter().sum::<f64>() - 1.0).abs() < 1e-9, "{name}");
        assert!(ring.node_for("k").is_some());
    }
}

#[test]
fn a_ring_on_which_nobody_owns_anything_is_refused() {
    for name in NAMES.into_iter().filter(|name| !weights_are_refused(name)) {
        let counts_as_nothing =
            ["dalli", "nginx", "spymemcached:weighted", "pecl:consistent"].contains(&name) || name.starts_with("twem");
        let ring = placed(name, &[("a", 0), ("b", 0)]);
        assert_eq!(ring.as_ref().err(), counts_as_nothing.then_some(&InvalidRing::NoOwner), "{name}");
        assert!(ring.is_err() || ring.unwrap().node_for("k").is_some(), "{name}");
        assert!(placed(name, &[("a", 0)]).unwrap().node_for("k").is_some(), "{name}");
    }
    assert_eq!(placed("pecl", &[("a", 0), ("b", 0)]).unwrap_err(), InvalidRing::NoOwner);
}

#[test]
fn labels_that_are_no_host_and_port_are_refused() {
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
        assert_eq!(placed("dalli", &[(label, 1)]).unwrap_err(), error);
        assert_eq!(placed("dskit", &[("a", 1), (label, 1)]).unwrap_err(), error);
        // One's own placement may have any.
        let own = Placement::custom(Own);
        Ring::with_placement(&own, ["a", label].map(RingNode::new)).unwrap();
    }
}

#[derive(Debug)]
struct Own;

impl CustomPlacement for Own {
    fn owners(&self, _nodes: &[RingNode]) -> OwnerOf {
        Box::new(<[u8]>::len)
    }
}

#[test]
fn one_server_under_two_labels_is_refused() {
    for (one, same) in [("a", "a:11211"), ("a:1", "a:01"), ("[::1]", "[::1]:11211")] {
        let error = InvalidRing::DuplicateLabel { label: same.to_owned() };
        assert_eq!(placed("gomemcache", &[(one, 1), ("b", 1), (same, 1)]).unwrap_err(), error);
    }
    // Names tell twemproxy's servers apart.
    let named = |label: &str, name: &str| RingNode::new(label).with_name(name);
    Ring::with_placement(&"twemproxy:ketama".parse().unwrap(), [named("a", "x"), named("a:11211", "y")]).unwrap();
}

#[test]
fn a_port_left_out_is_memcacheds() {
    for name in NAMES.into_iter().filter(|name| *name != "native") {
        let [short, long] = [["a", "[::1]", "c"], ["a:11211", "[::1]:11211", "c:11211"]]
            .map(|labels| placed(name, &labels.map(|label| (label, 1))).unwrap());
        for key in 0..50 {
            let key = format!("key-{key}");
            assert_eq!(short.index_for(key.as_bytes()), long.index_for(key.as_bytes()), "{name}");
        }
    }
}

#[test]
fn limits_are_told_as_they_are() {
    let error = placed("dalli", &[("a", 65_536)]).unwrap_err();
    assert_eq!(error.to_string(), r#"node "a" has the weight 65536, 0 to 65535 are allowed"#);
    let error = placed("dalli", &[("a", 65_535), ("b", 34_466)]).unwrap_err();
    assert_eq!(error.to_string(), "the weights add up to 100001, 100000 are allowed");
    let many = |count: usize| {
        let nodes = (0..count).map(|node| RingNode::new(format!("n{node}")).with_weight(0));
        Ring::with_placement(&Placement::gomemcache(), nodes)
    };
    assert_eq!(many(10_000).unwrap().nodes().len(), 10_000);
    assert_eq!(many(10_001).unwrap_err().to_string(), "there are 10001 nodes, 10000 are allowed");
    // So many that the next one could not be numbered.
    assert_eq!(many(65_535).unwrap_err(), InvalidRing::Nodes { count: 65_535, max: 10_000 });
}

/// libmemcached's `crc` has 15 bits: all keys lie at the beginning of the circle.
#[test]
fn shares_and_moves_are_those_of_the_hashs_values() {
    for name in ["libmemcached:ketama:crc", "libmemcached:ketama_weighted:crc", "twemproxy:ketama:crc32"] {
        let [old, new] = [&[("a", 1), ("b", 1), ("c", 1)][..], &[("a", 1), ("b", 1), ("c", 1), ("d", 1)]]
            .map(|nodes| placed(name, nodes).unwrap());
        const KEYS: u32 = 40_000;
        let keys = || (0..KEYS).map(|key| format!("key:{}", key.wrapping_mul(2_654_435_761)));
        for (node, share) in old.shares().into_iter().enumerate() {
            let owned = keys().filter(|key| old.index_for(key.as_bytes()) == Some(node)).count();
            let seen = owned as f64 / f64::from(KEYS);
            assert!((share - seen).abs() < 0.02, "{name}: {share} of the keys, {seen} seen");
        }
        let diff = Ring::diff(&old, &new);
        let moved = keys().filter(|key| old.index_for(key.as_bytes()) != new.index_for(key.as_bytes())).count();
        let seen = moved as f64 / f64::from(KEYS);
        assert!(diff.is_exact && (diff.moved() - seen).abs() < 0.02, "{name}: {} moves, {seen} seen", diff.moved());
    }
}

#[test]
fn a_weight_is_divided_by_one_at_least() {
    assert_eq!(Placement::mcrouter_weighted_ch3(0), Placement::mcrouter_weighted_ch3(1));
    let ring = |nodes: [(&str, u32); 2]| {
        let nodes = nodes.map(|(label, weight)| RingNode::new(label).with_weight(weight));
        Ring::with_placement(&Placement::mcrouter_weighted_ch3(0), nodes).unwrap()
    };
    assert!(ring([("a", 0), ("b", 1)]).shares()[0] < 1e-6);
}

#[test]
fn a_hash_tag_is_what_stands_between() {
    let ring =
        placed("twemproxy:ketama:md5:{}", &[("a", 1), ("b", 1), ("c", 1), ("d", 1), ("e", 1), ("f", 1)]).unwrap();
    let plain = placed("twemproxy:ketama:md5", &[("a", 1), ("b", 1), ("c", 1), ("d", 1), ("e", 1), ("f", 1)]).unwrap();
    for n in 0..30 {
        for (key, hashed) in [
            (format!("x{{{n}}}y"), format!("{n}")),
            (format!("{{{n}}}{{y}}"), format!("{n}")),
            (format!("}}{{{n}}}"), format!("{n}")),
            (format!("{{{{{n}}}}}"), format!("{{{n}")),
            // Nothing between, or no end: all is hashed, and no later tag is looked for.
            (format!("{{}}{n}{{a}}"), format!("{{}}{n}{{a}}")),
            (format!("{{{n}"), format!("{{{n}")),
            (format!("{n}}}{{"), format!("{n}}}{{")),
        ] {
            assert_eq!(ring.index_for(key.as_bytes()), plain.index_for(hashed.as_bytes()), "{key}");
        }
    }
}

#[test]
fn in_natural_order_it_plays_no_part_how_nodes_are_listed() {
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
fn in_natural_order_equal_numbers_come_in_one_order_too() {
    for placement in [Placement::gomemcache(), Placement::dskit(), Placement::custom(Own)] {
        let ring = |labels: [&str; 3]| Ring::with_placement(&placement.clone().in_natural_order(), labels).unwrap();
        let [one, other] = [ring(["n01", "n1", "n001"]), ring(["n001", "n1", "n01"])];
        for key in ["a", "bb", "ccc", "dddd", "eeeee"] {
            assert_eq!(one.node_for(key), other.node_for(key), "{placement:?}");
        }
    }
}

#[test]
fn folsoms_points_are_a_chain_and_the_last_listed_has_a_contested_one() {
    let points = |label: &str| {
        let next = |point: &u32| Some(murmur3(point.to_le_bytes().into_iter(), 0));
        std::iter::successors(Some(murmur3(label.bytes(), 0)), next).take(100).map(|point| point as i32)
    };
    let hash = |key: &str| murmur3(key.bytes(), 0) as i32;
    // The first two of many names that have a point in common.
    let mut known = HashMap::new();
    let pair = (0..).map(|n| format!("n{n}:11211")).find_map(|label| {
        let met = points(&label).find_map(|point| Some((point, known.get(&point).cloned()?)));
        known.extend(points(&label).map(|point| (point, label.clone())));
        met.map(|(point, other)| (point, other, label))
    });
    let (contested, one, other) = pair.unwrap();
    for labels in [[&one, &other], [&other, &one]] {
        let all: BTreeMap<i32, &str> =
            labels.iter().flat_map(|label| points(label).map(move |point| (point, label.as_str()))).collect();
        let ring = Ring::with_placement(&Placement::folsom(), labels.map(|label| label.as_str())).unwrap();
        let mut met = 0;
        for key in (0..4_000).map(|key| format!("key-{key}")) {
            let (point, owner) = all.range(hash(&key)..).next().or_else(|| all.first_key_value()).unwrap();
            assert_eq!(ring.node_for(&key).map(RingNode::label), Some(*owner), "{key}");
            met += u32::from(*point == contested);
        }
        assert!(met > 0, "no key meets the contested point");
    }
}

#[test]
fn an_address_that_is_the_host_is_not_spelled_twice() {
    let address = || ["10.0.0.1:11211", "10.0.0.2:11211", "10.0.0.3:11211"].map(RingNode::new);
    let placement = Placement::spymemcached(SpyFormat::Spymemcached, false);
    let resolved = address().map(|node| node.clone().with_ip(node.label().split(':').next().unwrap()));
    let [plain, resolved] = [address(), resolved].map(|nodes| Ring::with_placement(&placement, nodes).unwrap());
    assert_eq!(plain.shares(), resolved.shares());
}

#[test]
fn hosts_are_sorted_by_port_as_a_number() {
    let ring = |name: &str, labels: [&str; 4]| Ring::with_placement(&name.parse().unwrap(), labels).unwrap();
    let sorted = ring("libmemcached:modula:default:sort_hosts", ["b:10", "a:9", "b:9", "a:10"]);
    let listed = ring("libmemcached:modula", ["a:9", "a:10", "b:9", "b:10"]);
    for key in 0..50 {
        let key = format!("key-{key}");
        assert_eq!(sorted.node_for(&key), listed.node_for(&key));
    }
}

#[test]
fn a_ring_of_envoys_has_a_point_at_least_and_eight_million_at_most() {
    let sized = |points| Placement::envoy_ring(EnvoyHash::XxHash).with_minimum_ring_size(points);
    assert_eq!((sized(0), sized(u32::MAX)), (sized(1), sized(8_388_608)));
    assert_eq!(sized(1_024), Placement::envoy_ring(EnvoyHash::XxHash));
    // A weight of 0 is one of 1 there.
    for name in ["envoy", "envoy:maglev"] {
        let [none, one] = [0, 1].map(|weight| placed(name, &[("a", weight), ("b", 3)]).unwrap());
        assert_eq!(none.shares(), one.shares());
    }
}

#[test]
fn shares_of_weights_that_take_little_are_those_of_all_tries() {
    let weights = [1.0, 10.0, 100.0].map(|weight: f64| weight / 1_000.0);
    let ring = placed("mcrouter:ch3:weighted:1000", &[("a", 1), ("b", 10), ("c", 100)]).unwrap();
    let leaves = weights.iter().map(|weight| (1.0 - weight) / 3.0).sum::<f64>();
    for (weight, share) in weights.into_iter().zip(ring.shares()) {
        // What it takes of what the tries before left, and all that comes last.
        let due = (0..31).map(|tries| leaves.powi(tries) * weight / 3.0).sum::<f64>() + leaves.powi(31) / 3.0;
        assert!((share - due).abs() < 1e-8, "{share} and not {due}");
    }
}

#[test]
fn what_is_hashed_differently_is_no_overlay() {
    let ring = |name: &str| placed(name, &[("a", 1), ("b", 1), ("c", 1)]).unwrap();
    let diff = Ring::diff(&ring("libmemcached:ketama_weighted"), &ring("libmemcached:ketama_weighted:fnv1a_32"));
    assert!(!diff.is_exact && diff.moved() > 0.5);
    assert!(!Ring::diff(&ring("dalli"), &ring("nginx")).is_exact, "one looks back, and one ahead");
}

#[test]
fn keys_that_are_no_text_count_by_the_byte() {
    assert_eq!(java_string(b"a\xff"), 31 * 97 + 255);
    // Python has such a byte as U+DCxx.
    let ring = placed("pymemcache", &[("a", 1), ("b", 1), ("c", 1), ("d", 1)]).unwrap();
    for byte in 0x80..=0xff_u8 {
        let text = char::from(byte).to_string();
        assert_eq!(ring.node_for([byte]), ring.node_for(text), "{byte:#x}");
    }
}
