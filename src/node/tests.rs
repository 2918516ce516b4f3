//! Nodes that are found elsewhere.

use std::net::IpAddr;

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use super::*;
use crate::discovery::{DiscoveryOptions, Endpoint, Startup, StaticNodes, start_refresh};

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

/// The orders name another address, but what the dial goes by does not: the connection is the node's.
#[tokio::test]
async fn a_redial_that_leads_to_the_same_server_keeps_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = listener.local_addr().unwrap();
    let id = NodeId::new("mc-0", peer.port()).unwrap();
    let listed = Endpoint::new(id.clone()).with_addresses([peer.ip()]);
    let options = DiscoveryOptions::default().startup(Startup::Bootstrap(vec![listed.clone()]));
    let (discovery, _refresh) = start_refresh(Arc::new(StaticNodes::new([listed])), options);
    let node = Node::open(id, at(1), discovery.locator, Settings::default(), Arc::default());
    let (first, _) = listener.accept().await.unwrap();
    node.set_addresses(&at(2));
    let (mut second, _) = listener.accept().await.unwrap();
    // One of them is closed: the second, because it leads where the first does.
    let closed = timeout(Duration::from_secs(30), second.read(&mut [0])).await;
    assert_eq!(closed.expect("the second connection is closed").unwrap(), 0);
    sleep(Duration::from_millis(50)).await;
    assert_eq!(first.try_read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(node.peer(), Some(peer));
}
