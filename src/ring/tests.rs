use proptest::prelude::*;

use super::*;

fn pods(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("memcached-{i}.memcached.default.svc.cluster.local:11211")).collect()
}

fn ring(labels: &[String]) -> Ring {
    Ring::new(labels.iter().map(String::as_str)).unwrap()
}

/// A ring whose nodes have the points they are given here, and no others.
fn crafted(nodes: &[(&str, &[u32])]) -> Ring {
    let labels = nodes.iter().map(|(label, _)| RingNode::new(*label)).collect();
    let points_of = |node: &RingNode| {
        let (_, points) = nodes.iter().find(|(label, _)| *label == node.label()).unwrap();
        points.iter().copied()
    };
    Ring::place(labels, points_of).unwrap()
}

/// What the contract says, word for word: over all points, without order or index.
fn oracle(nodes: &[RingNode], key: &[u8]) -> Option<usize> {
    let points = || {
        nodes.iter().enumerate().flat_map(|(index, node)| {
            native::points(node.label(), node.weight()).map(move |at| (at, node.label().as_bytes(), index))
        })
    };
    let at = native::position(key);
    points().filter(|point| point.0 >= at).min().or_else(|| points().min()).map(|point| point.2)
}

/// Some nodes of different weights, no label twice.
fn nodes(max: usize) -> impl Strategy<Value = Vec<RingNode>> {
    proptest::collection::hash_map("[a-z0-9.:-]{1,24}", 1_u32..=3, 0..=max)
        .prop_map(|nodes| nodes.into_iter().map(|(label, weight)| RingNode::new(label).with_weight(weight)).collect())
}

fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 20)
}

fn part(positions: u64) -> f64 {
    positions as f64 / POSITIONS as f64
}

fn owner<'a>(ring: &'a Ring, key: &[u8]) -> Option<&'a str> {
    ring.node_for(key).map(RingNode::label)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn finds_what_a_scan_of_all_points_finds(nodes in nodes(6), keys in keys()) {
        let ring = Ring::new(nodes.clone()).unwrap();
        for key in keys {
            prop_assert_eq!(ring.index_for(&key), oracle(&nodes, &key));
        }
    }

    #[test]
    fn the_order_of_the_nodes_plays_no_part(
        (nodes, shuffled) in nodes(6).prop_flat_map(|nodes| (Just(nodes.clone()), Just(nodes).prop_shuffle())),
        keys in keys(),
    ) {
        let (ring, other) = (Ring::new(nodes).unwrap(), Ring::new(shuffled.clone()).unwrap());
        prop_assert_eq!(ring.moved(&other), 0.0);
        prop_assert_eq!(other.nodes(), shuffled);
        for key in keys {
            prop_assert_eq!(owner(&ring, &key), owner(&other, &key));
        }
    }

    #[test]
    fn only_the_keys_of_a_node_that_leaves_or_joins_move(
        nodes in nodes(6),
        keys in keys(),
        left in any::<prop::sample::Index>(),
    ) {
        prop_assume!(nodes.len() > 1);
        let left = left.index(nodes.len());
        let mut fewer = nodes.clone();
        let gone = fewer.remove(left);
        let (all, fewer) = (Ring::new(nodes).unwrap(), Ring::new(fewer).unwrap());
        prop_assert_eq!(all.moved(&fewer), all.shares()[left]);
        prop_assert_eq!(fewer.moved(&all), all.shares()[left]);
        for key in keys {
            let (before, after) = (owner(&all, &key).unwrap(), owner(&fewer, &key).unwrap());
            prop_assert_eq!(before == gone.label(), before != after);
        }
    }

    #[test]
    fn successors_are_who_would_own_if_those_before_left(nodes in nodes(5), keys in keys()) {
        let ring = Ring::new(nodes.clone()).unwrap();
        for key in &keys[..3] {
            let found = ring.nodes_for(key, usize::MAX);
            prop_assert_eq!(found.len(), nodes.len());
            let mut rest = nodes.clone();
            for next in found {
                prop_assert_eq!(oracle(&rest, key).map(|node| &rest[node]), Some(next));
                rest.retain(|node| node != next);
            }
        }
    }

    #[test]
    fn any_points_are_found(
        points in proptest::collection::vec(any::<u32>(), 1..60),
        crowded in 0_u32..30,
        near in any::<i8>(),
        keys in keys(),
    ) {
        // Some clients' hashes have 15 bits: then all points are in a few of the index's buckets.
        let points: Vec<_> = points.into_iter().map(|at| at >> crowded).collect();
        let places: Vec<_> = (0..).zip(&points).map(|(node, &at)| Point { at, node }).collect();
        let circle = Circle::new(&places);
        let edges = points.iter().map(|&at| at.wrapping_add_signed(near.into()));
        for at in keys.iter().map(|key| native::position(key)).chain(edges).chain([0, u32::MAX]) {
            let first = |from| points.iter().enumerate().filter(|point| *point.1 >= from).min_by_key(|point| *point.1);
            let owner = first(at).or_else(|| first(0)).map(|point| point.0);
            prop_assert_eq!(circle.owner(at), owner);
            prop_assert_eq!(circle.first_from(at), points.iter().filter(|point| **point < at).count());
            let beyond = circle.owner_beyond(at);
            prop_assert!(beyond.is_none() || beyond == owner && !points.contains(&at), "{beyond:?}");
        }
    }
}

#[test]
fn agrees_with_the_second_implementation() {
    let mut nodes: Vec<RingNode> = Vec::new();
    let (mut ring, mut vectors) = (Ring::default(), 0);
    for line in include_str!("../../tests/data/ring-native.tsv").lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<_> = line.split('\t').collect();
        match fields[..] {
            ["ring", _] => nodes.clear(),
            ["node", label, weight] => {
                nodes.push(RingNode::new(label).with_weight(weight.parse().unwrap()));
                ring = Ring::new(nodes.clone()).unwrap();
            }
            ["point", label, index, at] => {
                let weight = nodes.iter().find(|node| node.label() == label).unwrap().weight();
                let at = u32::from_str_radix(at, 16).unwrap();
                assert_eq!(native::points(label, weight).nth(index.parse().unwrap()), Some(at), "{line}");
            }
            ["share", label, positions] => {
                let node = nodes.iter().position(|node| node.label() == label).unwrap();
                assert_eq!(ring.shares()[node], part(positions.parse().unwrap()), "{line}");
            }
            ["key", key, at, ref successors @ ..] => {
                let key = unhex(key);
                assert_eq!(native::position(&key), u32::from_str_radix(at, 16).unwrap(), "{line}");
                assert_eq!(owner(&ring, &key), Some(successors[0]), "{line}");
                let found = ring.nodes_for(&key, 5);
                assert_eq!(found.iter().map(|node| node.label()).collect::<Vec<_>>(), successors, "{line}");
            }
            _ => panic!("not a vector: {line}"),
        }
        vectors += 1;
    }
    assert!(vectors > 500, "the file holds {vectors} lines");
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// The bounds the number of points was chosen for. `cargo bench --bench ring_balance` shows how much room there is.
#[test]
fn load_is_balanced() {
    for (n, bound) in [(10, 1.10), (100, 1.15)] {
        let mut fullest: Vec<_> = (0..200)
            .map(|set| {
                let pod = |i| format!("memcached-{i}.memcached.ns{set}.svc.cluster.local:11211");
                Ring::new((0..n).map(pod)).unwrap().shares().into_iter().fold(0.0, f64::max) * f64::from(n)
            })
            .collect();
        fullest.sort_unstable_by(f64::total_cmp);
        let median = fullest[fullest.len() / 2];
        assert!(median <= bound, "the fullest of {n} nodes holds {median:.3} times the mean");
    }
}

#[test]
fn load_follows_weights() {
    let ring = Ring::new((1..=10).map(|weight| RingNode::new(format!("cache-{weight}")).with_weight(weight))).unwrap();
    for (node, share) in ring.nodes().iter().zip(ring.shares()) {
        let due = f64::from(node.weight()) / 55.0;
        assert!((0.85..1.15).contains(&(share / due)), "{node:?} owns {share:.4}, due is {due:.4}");
    }
}

/// Short names are the ones that suffer if points of different nodes are not independent.
#[test]
fn names_that_differ_in_one_byte_share_alike() {
    for (stem, tail) in
        [("", ""), ("mc", ""), ("mc-", "-eu"), ("cache-", ""), ("10.0.0.", ":11211"), ("pod", "2345678")]
    {
        let ring = Ring::new((0..4).map(|i| format!("{stem}{i}{tail}"))).unwrap();
        for share in ring.shares() {
            assert!((0.21..0.29).contains(&share), "{stem}N{tail}: {:?}", ring.shares());
        }
    }
}

#[test]
fn shares_add_up_to_the_whole() {
    assert_eq!(ring(&pods(1)).shares(), [1.0]);
    assert_eq!(ring(&pods(37)).shares().iter().sum::<f64>(), 1.0);
    assert!(Ring::default().shares().is_empty());
}

#[test]
fn a_point_owns_up_to_itself_and_the_first_beyond_the_last() {
    let ring = crafted(&[("a", &[10, 0xffff_fff0]), ("b", &[20])]);
    for (at, owner) in [(0, 0), (10, 0), (11, 1), (20, 1), (21, 0), (0xffff_fff0, 0), (0xffff_fff1, 0), (u32::MAX, 0)] {
        assert_eq!(circle_of(&ring).owner(at), Some(owner), "{at:#x}");
    }
    assert_eq!(ring.shares(), [part(POSITIONS - 10), part(10)]);

    let edges = crafted(&[("a", &[0]), ("b", &[u32::MAX])]);
    for (at, owner) in [(0, 0), (1, 1), (u32::MAX, 1)] {
        assert_eq!(circle_of(&edges).owner(at), Some(owner), "{at:#x}");
    }
    assert_eq!(edges.shares(), [part(1), part(POSITIONS - 1)]);
}

#[test]
fn of_points_at_one_place_the_smaller_label_owns() {
    let tied = |first, second| crafted(&[(first, &[7, 500]), (second, &[7, 900])]);
    // Bytewise: upper case before lower, a prefix before what it begins, ASCII before the rest.
    for (smaller, larger) in [("a", "b"), ("B", "a"), ("a", "a0"), ("a-10", "a-9"), ("z", "é")] {
        for ring in [tied(smaller, larger), tied(larger, smaller)] {
            let owner = |at| circle_of(&ring).owner(at).map(|node| ring.nodes()[node].label());
            assert_eq!((owner(7), owner(901)), (Some(smaller), Some(smaller)));
            let met: Vec<_> = circle_of(&ring).walk(7).map(|node| ring.nodes()[node].label()).collect();
            assert_eq!(met[..2], [smaller, larger]);
        }
    }
    let all_tied = crafted(&[("b", &[u32::MAX]), ("a", &[u32::MAX])]);
    assert_eq!((circle_of(&all_tied).owner(0), circle_of(&all_tied).owner(u32::MAX)), (Some(1), Some(1)));
    assert_eq!(all_tied.shares(), [0.0, 1.0]);
}

#[test]
fn moved_counts_every_position_once() {
    let ring = crafted(&[("a", &[99]), ("b", &[199])]);
    // 0..=49 stays a's, 50..=99 becomes b's, 100..=199 stays b's, the rest stays a's.
    let narrowed = crafted(&[("b", &[199]), ("a", &[49])]);
    assert_eq!(ring.moved(&narrowed), part(50));
    // Between the same points other owners: everything moves. A node of another name is another node.
    assert_eq!(ring.moved(&crafted(&[("b", &[99]), ("a", &[199])])), 1.0);
    assert_eq!(ring.moved(&crafted(&[("c", &[99]), ("b", &[199])])), part(POSITIONS - 100));

    let empty = Ring::default();
    assert_eq!((empty.moved(&empty), empty.moved(&ring), ring.moved(&empty), ring.moved(&ring)), (0.0, 1.0, 1.0, 0.0));
}

#[test]
fn few_nodes_and_many_successors() {
    let empty = Ring::new(Vec::<RingNode>::new()).unwrap();
    assert_eq!((empty.node_for("k"), empty.index_for(b"k")), (None, None));
    assert!(empty.nodes_for("k", 3).is_empty());

    let one = ring(&pods(1));
    assert_eq!((one.index_for(b"k"), one.nodes_for("k", 3).len(), one.nodes_for("k", 0).len()), (Some(0), 1, 0));

    let many = ring(&pods(50));
    for n in [0, 1, 2, 49, 50, 51, usize::MAX] {
        let found = many.nodes_for("k", n);
        let distinct: std::collections::HashSet<_> = found.iter().map(|node| node.label()).collect();
        assert_eq!((found.len(), distinct.len()), (n.min(50), n.min(50)));
        assert!(found.first().is_none_or(|first| Some(*first) == many.node_for("k")));
    }
}

#[test]
fn unsound_nodes_are_refused() {
    let weighted = |label: &str, weight| RingNode::new(label).with_weight(weight);
    let refused = |nodes: Vec<RingNode>| Ring::new(nodes).unwrap_err();
    assert_eq!(refused(vec!["".into()]), InvalidRing::EmptyLabel);
    assert_eq!(
        refused(vec!["b".into(), "a".into(), weighted("b", 2)]),
        InvalidRing::DuplicateLabel { label: "b".into() }
    );
    for weight in [0, 101, u32::MAX] {
        let error = refused(vec![weighted("a", weight)]);
        assert_eq!(error, InvalidRing::Weight { label: "a".into(), weight, allowed: 1..=100 });
        assert_eq!(error.to_string(), format!("node \"a\" has the weight {weight}, 1 to 100 are allowed"));
    }
    let heavy = |n: u32| (0..n).map(|i| weighted(&i.to_string(), 100)).collect::<Vec<_>>();
    assert_eq!(refused(heavy(101)), InvalidRing::TotalWeight { total: 10_100, max: 10_000 });
    check(&heavy(100)).unwrap();
}

#[test]
fn an_identity_is_labelled_by_its_text() {
    for (id, label) in [("MC-0.svc.", "mc-0.svc:11211"), ("[0:0::1]:11212", "[::1]:11212")] {
        assert_eq!(RingNode::from(&id.parse::<NodeId>().unwrap()).label(), label);
    }
}

#[test]
fn debug_is_short() {
    assert_eq!(format!("{:?}", ring(&pods(3))), "Ring { nodes: 3, points: 1536, .. }");
}

fn circle_of(ring: &Ring) -> &Circle {
    match &ring.table {
        Table::Native(circle) => circle,
        Table::Foreign(_) => panic!("a native ring"),
    }
}

#[cfg(feature = "placements")]
#[test]
fn uhashring_goes_by_all_128_bits() {
    let labels = pods(20);
    let number = |text: String| hash::md5_number(text.as_bytes());
    let points = |node: usize| (0..160).map(move |index| (node, index));
    let mut points: Vec<_> =
        (0..20).flat_map(points).map(|(node, index)| (number(format!("{}-{index}", labels[node])), node)).collect();
    points.sort_unstable();
    let nodes = labels.iter().map(String::as_str);
    let ring = Ring::with_placement(&placement::Placement::uhashring(), nodes).unwrap();
    // Those that are a point's text lie on it, and belong to the next.
    let on_points = (0..100).map(|index| format!("{}-{index}", labels[index % 20]));
    for key in (0..2_000).map(|key| format!("user:{key}")).chain(on_points) {
        let at = number(key.clone());
        let owner = points.iter().find(|point| point.0 > at).unwrap_or(&points[0]).1;
        assert_eq!(ring.node_for(&key).map(RingNode::label), Some(&*labels[owner]), "{key}");
    }
}
