use super::*;
use crate::config::Settings;
use crate::discovery::{DiscoveryOptions, ListedAddresses, StaticNodes, start_refresh};

fn endpoints(count: usize) -> Vec<Endpoint> {
    (0..count).map(|n| Endpoint::new(NodeId::new(&format!("n{n}"), 1).unwrap())).collect()
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
        Node::open(endpoint.id().clone(), listed, discovery.locator.clone(), Settings::default())
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
