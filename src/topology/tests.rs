use super::*;
use crate::config::Settings;
use crate::discovery::{DiscoveryOptions, ListedAddresses, StaticNodes, start_refresh};

fn endpoints(count: usize) -> Vec<Endpoint> {
    (0..count).map(|n| Endpoint::new(NodeId::new(&format!("n{n}"), 1).unwrap())).collect()
}

/// Returns the changes between the views of rosters that follow one another.
fn changes(rosters: Vec<Vec<Endpoint>>) -> Vec<TopologyChange> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let (discovery, _task) = start_refresh(Arc::new(StaticNodes::new(endpoints(1))), DiscoveryOptions::default());
    let open = |endpoint: &Endpoint| {
        let listed = endpoint.listed_addresses().clone();
        Node::open(endpoint.id().clone(), listed, discovery.locator.clone(), Settings::default(), Arc::default())
    };
    let mut snapshot = Snapshot::empty();
    let mut changes = Vec::new();
    for (version, endpoints) in (1..).zip(rosters) {
        let roster = Roster { version, addr_epoch: 0, endpoints };
        let next = snapshot.rebuild(&roster, &PlacementRule::default(), open);
        changes.push(TopologyChange::between(&snapshot.view, &next.view));
        snapshot = next;
    }
    changes
}

fn at(number: usize, last_bytes: &[u8]) -> Endpoint {
    let id = NodeId::new(&format!("n{number}"), 1).unwrap();
    Endpoint::new(id).with_addresses(last_bytes.iter().map(|last| [10, 0, 0, *last].into()))
}

/// docs/discovery.md, row 6.
#[test]
fn a_reordered_answer_is_no_change_of_the_topology() {
    let listings: [&[u8]; 4] = [&[1, 2], &[2, 1], &[2, 1, 2], &[1, 2]];
    let changes = changes(listings.map(|last_bytes| vec![at(0, last_bytes)]).to_vec());
    assert_eq!(changes[0].added.len(), 1);
    for change in &changes[1..] {
        assert!(change.is_nothing(), "{change:?}");
    }
}

/// docs/discovery.md, row 11.
#[test]
fn a_node_at_other_addresses_is_readdressed() {
    let listings: [&[u8]; 5] = [&[], &[1], &[1, 2], &[3], &[3]];
    let changes = changes(listings.map(|last_bytes| vec![at(0, last_bytes), at(1, &[9])]).to_vec());
    assert!(changes[0].readdressed.is_empty(), "new nodes were nowhere before");
    for (step, is_readdressed) in [(1, false), (2, true), (3, true), (4, false)] {
        let change = &changes[step];
        assert_eq!(change.readdressed, if is_readdressed { vec![at(0, &[]).id().clone()] } else { vec![] }, "{step}");
        assert_eq!(change.is_nothing(), !is_readdressed, "{step}");
    }
}

#[test]
fn a_change_of_weights_moves_keys_between_nodes_that_stay() {
    let changes = changes(vec![vec![at(0, &[]), at(1, &[])], vec![at(0, &[]).with_weight(3), at(1, &[])]]);
    assert!(changes[1].moved > 0.0 && !changes[1].is_nothing());
}

#[test]
fn nodes_that_stay_and_an_unchanged_ring_are_kept() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let (discovery, _task) = start_refresh(Arc::new(StaticNodes::new(endpoints(1))), DiscoveryOptions::default());
    let mut opened = Vec::new();
    let mut open = |endpoint: &Endpoint| {
        opened.push(endpoint.id().to_string());
        let listed = ListedAddresses::WithoutAddresses;
        Node::open(endpoint.id().clone(), listed, discovery.locator.clone(), Settings::default(), Arc::default())
    };
    let roster = |version, addr_epoch, endpoints| Roster { version, addr_epoch, endpoints };
    let rule = PlacementRule::default();
    let first = Snapshot::empty().rebuild(&roster(1, 0, endpoints(2)), &rule, &mut open);
    let moved = first.rebuild(&roster(1, 1, endpoints(2)), &rule, &mut open);
    let grown = moved.rebuild(&roster(2, 1, endpoints(3)), &rule, &mut open);
    assert_eq!(opened, ["n0:1", "n1:1", "n2:1"]);
    for (old, new) in first.nodes.iter().zip(&grown.nodes) {
        assert!(Arc::ptr_eq(old, new));
    }
    assert_eq!((moved.view.version, moved.view.addr_epoch), (1, 1));
    assert_eq!(first.view.ring.moved(&moved.view.ring), 0.0);
    assert_eq!(grown.topology().nodes.len(), 3);
}
