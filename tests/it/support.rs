//! What the tests share.

use std::time::{Duration, Instant};

use memring::testing::{Memcached, Service};
use memring::{Client, DiscoveryOptions, Error, Item, SrvDiscovery};

/// Long enough for a loaded machine, short enough to notice a hang.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A real memcached, and a client of it alone.
pub(crate) async fn memcached() -> (Memcached, Client) {
    let server = Memcached::start().await.expect("memcached must be installed: see scripts/test");
    let client = Client::builder().nodes([server.addr().to_string()]).connect().await.unwrap();
    (server, client)
}

/// A service with quick answers.
pub(crate) async fn service(pods: usize) -> Service {
    Service::builder().pods(pods).ttl(Duration::from_secs(1)).memcached().start().await.expect("pods must start")
}

pub(crate) fn quick() -> DiscoveryOptions {
    DiscoveryOptions::default().poll_interval(Duration::from_millis(100), Duration::from_millis(300))
}

pub(crate) async fn follow(service: &Service, options: DiscoveryOptions) -> Client {
    let source = SrvDiscovery::new(service.name()).nameservers([service.dns().addr()]);
    Client::builder().service(source).discovery_options(options).connect().await.unwrap()
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < SOON, "not within {SOON:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A key that the given node owns.
pub(crate) fn key_on(client: &Client, node: &memring::NodeId) -> String {
    (0..).map(|n| format!("key-{n}")).find(|key| client.node_for(key).unwrap() == *node).unwrap()
}

pub(crate) fn is_miss(outcome: &Result<Option<Item>, Error>) -> bool {
    matches!(outcome, Ok(None))
}
