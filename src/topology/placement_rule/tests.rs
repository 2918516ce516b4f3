use super::*;
use crate::node_id::NodeId;

fn endpoints(count: usize) -> Vec<Endpoint> {
    (0..count).map(|n| Endpoint::new(NodeId::new(&format!("n{n}"), 1).unwrap())).collect()
}

fn labels(ring: &Ring) -> Vec<(&str, u32)> {
    ring.nodes().iter().map(|node| (node.label(), node.weight())).collect()
}

#[test]
fn labels_and_weights_come_from_the_source() {
    let [a, b, c] = endpoints(3).try_into().unwrap();
    let endpoints = [a.with_label("old").with_weight(3), b.with_weight(0), c.with_weight(u32::MAX)];
    let ring = PlacementRule::default().ring_of(&endpoints);
    assert_eq!(labels(&ring), [("old", 3), ("n1:1", 1), ("n2:1", 100)]);
}

#[test]
fn invalid_labels_and_weights_leave_every_node_on_the_ring() {
    let by_identity = PlacementRule::default().ring_of(&endpoints(200));
    for spoil in [
        (|endpoint: Endpoint| endpoint.with_label("same")) as fn(Endpoint) -> Endpoint,
        |endpoint| endpoint.with_label(""),
        |endpoint| endpoint.with_weight(100),
    ] {
        let spoilt: Vec<_> = endpoints(200).into_iter().map(spoil).collect();
        assert_eq!(labels(&PlacementRule::default().ring_of(&spoilt)), labels(&by_identity));
    }
}

/// A ring of some nodes is better than none.
#[test]
fn nodes_beyond_the_rings_room_get_no_keys() {
    let all = endpoints(10_001);
    let ring = PlacementRule::default().ring_of(&all);
    assert_eq!(ring.nodes().len(), 10_000);
    assert!(ring.index_for(b"k").is_some());
    #[cfg(feature = "placements")]
    {
        let mut rule = PlacementRule::default();
        rule.set_placement(Placement::dskit());
        assert_eq!(rule.ring_of(&all).nodes().len(), 10_000);
    }
}

#[test]
fn the_ring_hashes_the_labels_of_the_rule() {
    let pods = || {
        (0..3).map(|n| {
            let id = NodeId::new(&format!("cache-{n}.cache.svc"), 11212).unwrap();
            Endpoint::new(id).with_addresses([[10, 0, 0, 7 + n].into()])
        })
    };
    let by_pod = |endpoint: &Endpoint| endpoint.id().host().split('.').next().unwrap().to_owned();
    let by_address = |endpoint: &Endpoint| format!("{}:{}", endpoint.addresses()[0], endpoint.id().port());
    let by_shard = |endpoint: &Endpoint| format!("shard {}", endpoint.id().host().as_bytes()[6]);
    let rule_with = |label_of: fn(&Endpoint) -> String| {
        let mut rule = PlacementRule::default();
        rule.set_labels(label_of);
        rule
    };
    for (label_of, expected) in [
        (by_pod as fn(&Endpoint) -> String, ["cache-0", "cache-1", "cache-2"]),
        (by_address, ["10.0.0.7:11212", "10.0.0.8:11212", "10.0.0.9:11212"]),
        (by_shard, ["shard 48", "shard 49", "shard 50"]),
    ] {
        let ring = rule_with(label_of).ring_of(&pods().collect::<Vec<_>>());
        assert_eq!(ring.nodes().iter().map(|node| node.label()).collect::<Vec<_>>(), expected);
        assert_eq!(ring.moved(&Ring::new(expected).unwrap()), 0.0);
    }
    // The endpoint's own label comes first.
    let own: Vec<_> = pods().enumerate().map(|(n, pod)| if n == 1 { pod.with_label("own") } else { pod }).collect();
    assert_eq!(labels(&rule_with(by_pod).ring_of(&own)), [("cache-0", 1), ("own", 1), ("cache-2", 1)]);
    // If two labels are the same, no node has the label of the rule.
    let ring = rule_with(|_| "same".to_owned()).ring_of(&own[2..]);
    assert_eq!(labels(&ring), [("same", 1)]);
    let ring = rule_with(|_| "same".to_owned()).ring_of(&pods().collect::<Vec<_>>());
    assert_eq!(ring.nodes()[2].label(), "cache-2.cache.svc:11212");
}

#[cfg(feature = "placements")]
#[test]
fn labels_that_a_placement_cannot_parse_leave_every_node_on_the_ring() {
    let mut rule = PlacementRule::default();
    rule.set_placement(Placement::dskit());
    for (label_of, is_parsed) in [
        ((|endpoint| endpoint.id().host().to_owned()) as fn(&Endpoint) -> String, true),
        (|endpoint| format!("shard:{}", endpoint.id().host()), false),
        (|endpoint| format!("::{}", endpoint.id().host().len()), false),
        (|endpoint| if endpoint.id().host() == "n0" { "n1:11211".into() } else { endpoint.id().host().into() }, false),
    ] {
        rule.set_labels(label_of);
        // In the alphabet 10 and 11 come before 2.
        let mut nodes = endpoints(12);
        nodes.sort_by(|a, b| a.id().cmp(b.id()));
        let ring = rule.ring_of(&nodes);
        let labels: Vec<_> = (0..12).map(|n| if is_parsed { format!("n{n}") } else { format!("n{n}:1") }).collect();
        let expected = Ring::with_placement(&Placement::dskit(), labels).unwrap();
        for key in 0..100 {
            let key = format!("key-{key}");
            assert_eq!(ring.node_for(&key), expected.node_for(&key));
        }
    }
}
