use proptest::prelude::*;

use super::*;

fn pods(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("memcached-{i}.memcached.default.svc.cluster.local:11211")).collect()
}

fn ring(labels: &[String]) -> Ring {
    Ring::new(labels.iter().map(String::as_str)).unwrap()
}

/// Builds a ring whose nodes have exactly the given points.
fn ring_of_points(nodes: &[(&str, &[u32])]) -> Ring {
    let labels = nodes.iter().map(|(label, _)| RingNode::new(*label)).collect();
    let points_of = |node: &RingNode| {
        let (_, points) = nodes.iter().find(|(label, _)| *label == node.label()).unwrap();
        points.iter().copied()
    };
    Ring::from_points(labels, points_of).unwrap()
}

/// Finds the owner as the contract defines it: by a scan of all points, unsorted and without an index.
fn owner_by_scan(nodes: &[RingNode], key: &[u8]) -> Option<usize> {
    let points = || {
        nodes.iter().enumerate().flat_map(|(index, node)| {
            native::points(node.label(), node.weight()).map(move |point| (point, node.label().as_bytes(), index))
        })
    };
    let position = native::position(key);
    points().filter(|point| point.0 >= position).min().or_else(|| points().min()).map(|point| point.2)
}

/// Generates nodes of different weights, without duplicate labels.
fn nodes(max: usize) -> impl Strategy<Value = Vec<RingNode>> {
    proptest::collection::hash_map("[a-z0-9.:-]{1,24}", 1_u32..=3, 0..=max)
        .prop_map(|nodes| nodes.into_iter().map(|(label, weight)| RingNode::new(label).with_weight(weight)).collect())
}

fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 20)
}

fn share(positions: u64) -> f64 {
    positions as f64 / POSITIONS as f64
}

fn owner<'a>(ring: &'a Ring, key: &[u8]) -> Option<&'a str> {
    ring.node_for(key).map(RingNode::label)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn owners_match_a_scan_of_all_points(nodes in nodes(6), keys in keys()) {
        let ring = Ring::new(nodes.clone()).unwrap();
        for key in keys {
            prop_assert_eq!(ring.index_for(&key), owner_by_scan(&nodes, &key));
        }
    }

    #[test]
    fn the_order_of_nodes_does_not_change_owners(
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
    fn only_keys_of_the_node_that_leaves_or_joins_move(
        nodes in nodes(6),
        keys in keys(),
        removed in any::<prop::sample::Index>(),
    ) {
        prop_assume!(nodes.len() > 1);
        let removed = removed.index(nodes.len());
        let mut fewer = nodes.clone();
        let removed_node = fewer.remove(removed);
        let (all, fewer) = (Ring::new(nodes).unwrap(), Ring::new(fewer).unwrap());
        prop_assert_eq!(all.moved(&fewer), all.shares()[removed]);
        prop_assert_eq!(fewer.moved(&all), all.shares()[removed]);
        for key in keys {
            let (before, after) = (owner(&all, &key).unwrap(), owner(&fewer, &key).unwrap());
            prop_assert_eq!(before == removed_node.label(), before != after);
        }
    }

    #[test]
    fn each_successor_owns_the_key_once_the_nodes_before_it_leave(nodes in nodes(5), keys in keys()) {
        let ring = Ring::new(nodes.clone()).unwrap();
        for key in &keys[..3] {
            let found = ring.nodes_for(key, usize::MAX);
            prop_assert_eq!(found.len(), nodes.len());
            let mut rest = nodes.clone();
            for next in found {
                prop_assert_eq!(owner_by_scan(&rest, key).map(|node| &rest[node]), Some(next));
                rest.retain(|node| node != next);
            }
        }
    }

    #[test]
    fn the_circle_finds_any_points(
        points in proptest::collection::vec(any::<u32>(), 1..60),
        shift in 0_u32..30,
        offset in any::<i8>(),
        keys in keys(),
    ) {
        // The shift crowds all points into a few buckets, as hashes of 15 bits do.
        let points: Vec<_> = points.into_iter().map(|point| point >> shift).collect();
        let with_nodes: Vec<_> = (0..).zip(&points).map(|(node, &position)| Point { position, node }).collect();
        let circle = Circle::new(&with_nodes);
        let near_points = points.iter().map(|&point| point.wrapping_add_signed(offset.into()));
        for position in keys.iter().map(|key| native::position(key)).chain(near_points).chain([0, u32::MAX]) {
            let first = |from| points.iter().enumerate().filter(|point| *point.1 >= from).min_by_key(|point| *point.1);
            let owner = first(position).or_else(|| first(0)).map(|point| point.0);
            prop_assert_eq!(circle.owner(position), owner);
            let before = points.iter().filter(|point| **point < position).count();
            prop_assert_eq!(circle.first_point_from(position), before);
            let fast = circle.owner_unless_on_point(position);
            prop_assert!(fast.is_none() || fast == owner && !points.contains(&position), "{fast:?}");
        }
    }
}

#[test]
fn owners_points_and_shares_match_the_second_implementation() {
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
            ["point", label, index, position] => {
                let weight = nodes.iter().find(|node| node.label() == label).unwrap().weight();
                let position = u32::from_str_radix(position, 16).unwrap();
                assert_eq!(native::points(label, weight).nth(index.parse().unwrap()), Some(position), "{line}");
            }
            ["share", label, positions] => {
                let node = nodes.iter().position(|node| node.label() == label).unwrap();
                assert_eq!(ring.shares()[node], share(positions.parse().unwrap()), "{line}");
            }
            ["key", key, position, ref successors @ ..] => {
                let key = unhex(key);
                assert_eq!(native::position(&key), u32::from_str_radix(position, 16).unwrap(), "{line}");
                assert_eq!(owner(&ring, &key), Some(successors[0]), "{line}");
                let found = ring.nodes_for(&key, 5);
                assert_eq!(found.iter().map(|node| node.label()).collect::<Vec<_>>(), successors, "{line}");
            }
            _ => panic!("not a vector: {line}"),
        }
        vectors += 1;
    }
    assert!(vectors > 500, "the file has only {vectors} lines");
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Holds the bounds for which the number of points was chosen. `cargo bench --bench ring_balance` prints the margin.
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
        assert!(median <= bound, "the fullest of {n} nodes holds {median:.3} times the mean, the bound is {bound}");
    }
}

#[test]
fn load_follows_weights() {
    let ring = Ring::new((1..=10).map(|weight| RingNode::new(format!("cache-{weight}")).with_weight(weight))).unwrap();
    for (node, share) in ring.nodes().iter().zip(ring.shares()) {
        let ideal = f64::from(node.weight()) / 55.0;
        assert!((0.85..1.15).contains(&(share / ideal)), "{node:?} owns {share:.4} instead of about {ideal:.4}");
    }
}

/// If the points of different nodes were not independent, short names would suffer first.
#[test]
fn labels_that_differ_in_one_byte_get_even_shares() {
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
fn shares_add_up_to_one() {
    assert_eq!(ring(&pods(1)).shares(), [1.0]);
    assert_eq!(ring(&pods(37)).shares().iter().sum::<f64>(), 1.0);
    assert!(Ring::default().shares().is_empty());
}

#[test]
fn a_point_owns_the_positions_up_to_itself_and_the_first_point_also_those_after_the_last() {
    let ring = ring_of_points(&[("a", &[10, 0xffff_fff0]), ("b", &[20])]);
    for (at, owner) in [(0, 0), (10, 0), (11, 1), (20, 1), (21, 0), (0xffff_fff0, 0), (0xffff_fff1, 0), (u32::MAX, 0)] {
        assert_eq!(circle_of(&ring).owner(at), Some(owner), "{at:#x}");
    }
    assert_eq!(ring.shares(), [share(POSITIONS - 10), share(10)]);

    let edges = ring_of_points(&[("a", &[0]), ("b", &[u32::MAX])]);
    for (at, owner) in [(0, 0), (1, 1), (u32::MAX, 1)] {
        assert_eq!(circle_of(&edges).owner(at), Some(owner), "{at:#x}");
    }
    assert_eq!(edges.shares(), [share(1), share(POSITIONS - 1)]);
}

#[test]
fn of_points_at_the_same_position_the_smaller_label_wins() {
    let tied = |first, second| ring_of_points(&[(first, &[7, 500]), (second, &[7, 900])]);
    // Bytewise: upper case before lower case, a prefix before the longer label, ASCII before other characters.
    for (smaller, larger) in [("a", "b"), ("B", "a"), ("a", "a0"), ("a-10", "a-9"), ("z", "é")] {
        for ring in [tied(smaller, larger), tied(larger, smaller)] {
            let owner = |at| circle_of(&ring).owner(at).map(|node| ring.nodes()[node].label());
            assert_eq!((owner(7), owner(901)), (Some(smaller), Some(smaller)));
            let found: Vec<_> = circle_of(&ring).nodes_from(7).map(|node| ring.nodes()[node].label()).collect();
            assert_eq!(found[..2], [smaller, larger]);
        }
    }
    let all_tied = ring_of_points(&[("b", &[u32::MAX]), ("a", &[u32::MAX])]);
    assert_eq!((circle_of(&all_tied).owner(0), circle_of(&all_tied).owner(u32::MAX)), (Some(1), Some(1)));
    assert_eq!(all_tied.shares(), [0.0, 1.0]);
}

#[test]
fn moved_counts_every_position_once() {
    let ring = ring_of_points(&[("a", &[99]), ("b", &[199])]);
    // 0..=49 stays with a, 50..=99 moves to b, 100..=199 stays with b, and the rest stays with a.
    let narrowed = ring_of_points(&[("b", &[199]), ("a", &[49])]);
    assert_eq!(ring.moved(&narrowed), share(50));
    // The same points with swapped owners: everything moves. A node with another label is another node.
    assert_eq!(ring.moved(&ring_of_points(&[("b", &[99]), ("a", &[199])])), 1.0);
    assert_eq!(ring.moved(&ring_of_points(&[("c", &[99]), ("b", &[199])])), share(POSITIONS - 100));

    let empty = Ring::default();
    assert_eq!((empty.moved(&empty), empty.moved(&ring), ring.moved(&empty), ring.moved(&ring)), (0.0, 1.0, 1.0, 0.0));
}

#[test]
fn nodes_for_returns_distinct_nodes_up_to_all_of_them() {
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
fn invalid_nodes_are_rejected() {
    let weighted = |label: &str, weight| RingNode::new(label).with_weight(weight);
    let error = |nodes: Vec<RingNode>| Ring::new(nodes).unwrap_err();
    assert_eq!(error(vec!["".into()]), InvalidRing::EmptyLabel);
    assert_eq!(
        error(vec!["b".into(), "a".into(), weighted("b", 2)]),
        InvalidRing::DuplicateLabel { label: "b".into() }
    );
    for weight in [0, 101, u32::MAX] {
        let error = error(vec![weighted("a", weight)]);
        assert_eq!(error, InvalidRing::Weight { label: "a".into(), weight, allowed: 1..=100 });
        assert_eq!(error.to_string(), format!("node \"a\" has weight {weight}, allowed are 1 to 100"));
    }
    let heavy = |n: u32| (0..n).map(|i| weighted(&i.to_string(), 100)).collect::<Vec<_>>();
    assert_eq!(error(heavy(101)), InvalidRing::TotalWeight { total: 10_100, max: 10_000 });
    validate(&heavy(100)).unwrap();
}

#[test]
fn a_node_id_becomes_a_label_of_its_text() {
    for (id, label) in [("MC-0.svc.", "mc-0.svc:11211"), ("[0:0::1]:11212", "[::1]:11212")] {
        assert_eq!(RingNode::from(&id.parse::<NodeId>().unwrap()).label(), label);
    }
}

#[test]
fn debug_output_is_short() {
    assert_eq!(format!("{:?}", ring(&pods(3))), "Ring { nodes: 3, points: 1536, .. }");
}

fn circle_of(ring: &Ring) -> &Circle {
    match &ring.table {
        OwnerTable::Native(circle) => circle,
        OwnerTable::Placement(_) => panic!("not a native ring"),
    }
}
