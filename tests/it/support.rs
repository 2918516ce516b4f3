//! What the tests share.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use memring::testing::{Memcached, Service};
use memring::{Client, ClientBuilder, DiscoveryOptions, Error, Item, SrvDiscovery};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Long enough for a loaded machine, short enough to notice a hang.
pub(crate) const SOON: Duration = Duration::from_secs(90);

/// A deadline that a healthy server keeps however loaded the machine is.
pub(crate) const NO_HURRY: Duration = Duration::from_secs(60);

/// The client's own deadline unless it is told another.
pub(crate) const DEADLINE: Duration = Duration::from_millis(250);
/// How late a deadline may be kept.
const SLACK: Duration = Duration::from_millis(50);

/// Expects an operation with the given deadline to end by it. What a loaded machine does not let run is given its turn
/// before it is called late.
pub(crate) async fn by<T>(deadline: Duration, operation: impl Future<Output = T>) -> T {
    let late = async {
        tokio::time::sleep(deadline + SLACK).await;
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        outcome = pin!(operation) => outcome,
        () = late => panic!("not by its deadline of {deadline:?}"),
    }
}

/// A real memcached, and a client of it alone.
pub(crate) async fn memcached() -> (Memcached, Client) {
    let server = Memcached::start().await.expect("memcached must be installed: see scripts/test");
    let client = Client::builder().nodes([server.addr().to_string()]).request_timeout(NO_HURRY);
    (server, client.connect().await.unwrap())
}

/// A version of memcached, as tests that depend on it compare it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl Version {
    /// The first whose meta commands are today's.
    pub(crate) const META: Self = Self(1, 6, 10);
}

pub(crate) async fn version_of(server: SocketAddr) -> Version {
    let mut socket = TcpStream::connect(server).await.unwrap();
    socket.write_all(b"version\r\n").await.unwrap();
    let mut reply = [0; 64];
    let count = socket.read(&mut reply).await.unwrap();
    let text = std::str::from_utf8(&reply[..count]).unwrap().strip_prefix("VERSION ").unwrap().trim_end();
    let numbers: Vec<u32> = text.split('.').map(|number| number.parse().unwrap()).collect();
    Version(numbers[0], numbers[1], numbers[2])
}

/// As [`memcached`], or nothing, and a word about it, where the one at hand is too old for what is to be tested.
pub(crate) async fn memcached_from(needed: Version) -> Option<(Memcached, Client)> {
    let (server, client) = memcached().await;
    let version = version_of(server.addr()).await;
    if version < needed {
        eprintln!("skipped: needs memcached {needed:?}, this is {version:?}");
        return None;
    }
    Some((server, client))
}

/// A service with quick answers.
pub(crate) async fn service(pods: usize) -> Service {
    Service::builder().pods(pods).ttl(Duration::from_secs(1)).memcached().start().await.expect("pods must start")
}

pub(crate) fn quick() -> DiscoveryOptions {
    DiscoveryOptions::default().poll_interval(Duration::from_millis(100), Duration::from_millis(300))
}

/// Follows a service with deadlines that only a test which is about them would miss.
pub(crate) async fn follow(service: &Service, options: DiscoveryOptions) -> Client {
    builder(service, options).request_timeout(NO_HURRY).connect().await.unwrap()
}

pub(crate) fn builder(service: &Service, options: DiscoveryOptions) -> ClientBuilder {
    let source = SrvDiscovery::new(service.name()).nameservers([service.dns().addr()]);
    Client::builder().service(source).discovery_options(options)
}

/// One of the server's own counters.
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

/// A server that takes connections and hands each to `serve`.
pub(crate) async fn peer<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    accept(listener, serve);
    addr
}

pub(crate) fn accept<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) {
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket));
        }
    });
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
