//! Nodes whose servers do not listen, in paused time.

use std::net::IpAddr;

use tokio::time::Instant;

use super::*;
use crate::discovery::{DiscoveryOptions, StaticNodes, start_refresh};

/// Nothing listens on this port.
const CLOSED_PORT: u16 = 1;

fn at(last: u8) -> ListedAddresses {
    [IpAddr::from([127, 0, 0, last])].into_iter().collect()
}

/// Returns the time until the next dial that fails, which requests a poll.
async fn next_dial(locator: &NodeLocator) -> Duration {
    let start = Instant::now();
    locator.poll_requested().await;
    start.elapsed()
}

/// The new address may be reachable, and the delays of the old one are no reason to wait.
#[tokio::test(start_paused = true)]
async fn a_new_address_starts_the_backoff_over() {
    let id = NodeId::new("127.0.0.1", CLOSED_PORT).unwrap();
    let source = Arc::new(StaticNodes::new([id.clone()]));
    let (discovery, _refresh) = start_refresh(source, DiscoveryOptions::default());
    let locator = discovery.locator;
    let node = Node::open(id, at(1), locator.clone(), Settings::default(), Arc::default());
    let mut longest = Duration::ZERO;
    for _ in 0..10 {
        longest = longest.max(next_dial(&locator).await);
    }
    assert!(longest > Duration::from_secs(2), "{longest:?}");
    node.set_addresses(&at(2));
    for _ in 0..3 {
        let delay = next_dial(&locator).await;
        assert!(delay < Duration::from_millis(500), "{delay:?}");
    }
}
