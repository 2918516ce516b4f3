//! Set-up that the tests share: servers, services, clients and deadlines.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use memring::testing::{Memcached, Service};
use memring::{Client, ClientBuilder, DiscoveryOptions, Error, Item, NodeId, SrvDiscovery, Startup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// The longest a test waits for a condition: enough for a loaded machine, and short enough to notice a hang.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(90);

/// A request timeout that a healthy server meets even on a loaded machine.
pub(crate) const LONG_TIMEOUT: Duration = Duration::from_secs(60);

/// The client's default request timeout.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_millis(250);

/// How long after its deadline an operation may end.
const DEADLINE_SLACK: Duration = Duration::from_millis(50);

/// Runs an operation and panics if it ends later than `deadline` and a slack of 50 ms.
///
/// Before it panics, it yields many times, so that tasks that a loaded machine has delayed can still end the operation.
pub(crate) async fn within<T>(deadline: Duration, operation: impl Future<Output = T>) -> T {
    let late = async {
        tokio::time::sleep(deadline + DEADLINE_SLACK).await;
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        outcome = pin!(operation) => outcome,
        () = late => panic!("the operation missed its deadline of {deadline:?}"),
    }
}

/// Waits until a condition holds, for at most [`TEST_TIMEOUT`].
pub(crate) async fn eventually(condition: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < TEST_TIMEOUT, "not within {TEST_TIMEOUT:?}: {condition}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Repeats an operation until `duration` has passed.
pub(crate) async fn repeat_for(duration: Duration, mut operation: impl AsyncFnMut()) {
    let start = Instant::now();
    while start.elapsed() < duration {
        operation().await;
    }
}

/// Returns the number of tasks of the current runtime that have not ended.
pub(crate) fn alive_tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Starts a real memcached and connects a client to it.
pub(crate) async fn memcached() -> (Memcached, Client) {
    let server = Memcached::start().await.expect("memcached must be installed: see scripts/test");
    let client = client_of(&server).await;
    (server, client)
}

/// As [`memcached`], or `None`, with a message, if the installed memcached is older than `needed`.
pub(crate) async fn memcached_at_least(needed: Version) -> Option<(Memcached, Client)> {
    let (server, client) = memcached().await;
    let version = server_version(server.addr()).await;
    if version < needed {
        eprintln!("skipped: needs memcached {needed:?}, this is {version:?}");
        return None;
    }
    Some((server, client))
}

/// Returns a builder for a client of one node, with a request timeout that only a broken server exceeds.
pub(crate) fn client_builder(node: impl ToString) -> ClientBuilder {
    Client::builder().nodes([node.to_string()]).request_timeout(LONG_TIMEOUT)
}

/// Connects one more client to a server, as another process would.
pub(crate) async fn client_of(server: &Memcached) -> Client {
    client_builder(server.addr()).connect().await.unwrap()
}

/// Connects a client that accepts values larger than the server does.
pub(crate) async fn client_with_large_value_limit(server: &Memcached) -> Client {
    client_builder(server.addr()).max_value_size(8 << 20).connect().await.unwrap()
}

/// Connects a client with default options.
pub(crate) async fn default_client(node: SocketAddr) -> Client {
    Client::builder().nodes([node.to_string()]).connect().await.unwrap()
}

/// Starts a service of real memcached pods whose DNS answers have a TTL of a second.
pub(crate) async fn service(pods: usize) -> Service {
    Service::builder().pods(pods).ttl(Duration::from_secs(1)).memcached().start().await.expect("pods must start")
}

/// Options with short intervals between the polls of discovery.
pub(crate) fn fast_polling() -> DiscoveryOptions {
    DiscoveryOptions::default().poll_interval(Duration::from_millis(100), Duration::from_millis(300))
}

/// Connects a client that discovers the pods of a service, with a request timeout that only a broken server exceeds.
pub(crate) async fn service_client(service: &Service, options: DiscoveryOptions) -> Client {
    service_client_builder(service, options).request_timeout(LONG_TIMEOUT).connect().await.unwrap()
}

/// Returns a builder for a client that discovers the pods of a service.
pub(crate) fn service_client_builder(service: &Service, options: DiscoveryOptions) -> ClientBuilder {
    Client::builder().service(srv_source(service)).discovery_options(options)
}

/// Connects a client that waits 1.5 seconds for the first answer of DNS.
pub(crate) async fn connect_with_startup_wait(service: &Service) -> Result<Client, Error> {
    let options = fast_polling().startup(Startup::Wait(Duration::from_millis(1_500)));
    within(Duration::from_secs(5), service_client_builder(service, options).connect()).await
}

/// Returns a discovery source that asks the DNS server of a service.
pub(crate) fn srv_source(service: &Service) -> SrvDiscovery {
    SrvDiscovery::new(service.name()).nameservers([service.dns().addr()])
}

/// A version of memcached, for tests that depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl Version {
    /// The first version with the meta commands that the client uses.
    pub(crate) const META: Self = Self(1, 6, 10);
}

/// Asks a server for its version, not through a client.
pub(crate) async fn server_version(server: SocketAddr) -> Version {
    let mut socket = TcpStream::connect(server).await.unwrap();
    socket.write_all(b"version\r\n").await.unwrap();
    let mut reply = [0; 64];
    let count = socket.read(&mut reply).await.unwrap();
    let text = std::str::from_utf8(&reply[..count]).unwrap().strip_prefix("VERSION ").unwrap().trim_end();
    let numbers: Vec<u32> = text.split('.').map(|number| number.parse().unwrap()).collect();
    Version(numbers[0], numbers[1], numbers[2])
}

/// Asks a server for one of its statistics, not through a client.
pub(crate) async fn stat(server: SocketAddr, name: &str) -> u64 {
    let mut socket = TcpStream::connect(server).await.unwrap();
    socket.write_all(b"stats\r\n").await.unwrap();
    let mut text = String::new();
    let mut buffer = [0; 8192];
    while !text.ends_with("END\r\n") {
        let count = socket.read(&mut buffer).await.unwrap();
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    let line = format!("STAT {name} ");
    text.lines().find_map(|found| found.strip_prefix(&line)).unwrap().parse().unwrap()
}

/// Counts the connections that the client's only server has accepted. The number stays the same while the client keeps
/// its connections.
pub(crate) async fn connections_opened(cache: &Client) -> u64 {
    let accepted = stat(cache.topology().nodes[0].address.unwrap(), "total_connections").await;
    // Each call opens a connection of its own, which is subtracted.
    CALLS.with(|calls| {
        calls.set(calls.get() + 1);
        accepted - calls.get()
    })
}

thread_local! {
    static CALLS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

pub(crate) fn node_id(node: SocketAddr) -> NodeId {
    node.to_string().parse().unwrap()
}

/// Returns the host names of the client's nodes.
pub(crate) fn node_hosts(cache: &Client) -> Vec<String> {
    cache.topology().nodes.iter().map(|node| node.id.host().to_owned()).collect()
}

/// Returns a key that the given node owns.
pub(crate) fn key_owned_by(client: &Client, node: &NodeId) -> String {
    (0..).map(|n| format!("key-{n}")).find(|key| client.node_for(key).unwrap() == *node).unwrap()
}

pub(crate) async fn value_of(cache: &Client, key: &str) -> Option<Vec<u8>> {
    cache.get(key).await.unwrap().map(|item| item.value.to_vec())
}

pub(crate) fn is_miss(outcome: &Result<Option<Item>, Error>) -> bool {
    matches!(outcome, Ok(None))
}
