//! Log events: each is logged once, however many requests are affected, and never with a key or a value.
//!
//! The test has its own process, because the log is global.

#![expect(clippy::unwrap_used, reason = "a test fails with a panic")]

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use memring::testing::{DnsFault, Service};
use memring::{Client, DiscoveryOptions, DiscoveryState, ErrorKind, NodeState, SrvDiscovery};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing_subscriber::fmt::MakeWriter;

#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Log {
    fn lines_with(&self, text: &str) -> usize {
        self.text().lines().filter(|line| line.contains(text)).count()
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// Waits until a condition holds, for at most 90 seconds.
async fn eventually(condition: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < Duration::from_secs(90), "not in time: {condition}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn each_event_is_logged_once_without_keys_values_or_credentials() {
    let log = Log::default();
    let filter = tracing_subscriber::EnvFilter::new("memring=info");
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(log.clone()).init();
    let service = Service::builder().pods(2).ttl(Duration::from_secs(1)).start().await.unwrap();
    let source = SrvDiscovery::new(service.name()).nameservers([service.dns().addr()]);
    let options = DiscoveryOptions::default().poll_interval(Duration::from_millis(100), Duration::from_millis(300));
    let builder = Client::builder().service(source).discovery_options(options);
    let cache = builder.request_timeout(Duration::from_secs(60)).connect().await.unwrap();
    let node = cache.topology().nodes[0].id.clone();
    let secret = (0..).map(|n| format!("secret-{n}")).find(|key| cache.node_for(key).unwrap() == node).unwrap();
    cache.set(&secret, "secret-value", Duration::from_secs(60)).await.unwrap();
    assert_eq!((log.lines_with(" connected "), log.lines_with("topology changed")), (2, 1), "{}", log.text());
    assert_eq!(log.lines_with("discovery found nodes"), 1, "{}", log.text());

    service.dns().set_fault(DnsFault::ServFail);
    let errors = cache.discovery_status().errors;
    eventually("four polls have failed", async || cache.discovery_status().errors > errors + 3).await;
    service.dns().clear_faults();
    eventually("a poll has succeeded", async || cache.discovery_status().state == DiscoveryState::Fresh).await;
    assert_eq!(log.lines_with("discovery found no nodes"), 1, "{}", log.text());
    assert_eq!(log.lines_with("discovery found nodes"), 2, "{}", log.text());

    service.crash(0).await.unwrap();
    eventually("gets fail", async || cache.get(&secret).await.is_err()).await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        let _ = cache.get(&secret).await;
    }
    assert_eq!(log.lines_with("node cannot be reached"), 1, "{}", log.text());
    assert_eq!(log.lines_with("connection closed") + log.lines_with("connection lost"), 1, "{}", log.text());

    service.scale(3).await.unwrap();
    eventually("the topology has three nodes", async || cache.topology().nodes.len() == 3).await;
    assert_eq!(log.lines_with("changed"), 2, "{}", log.text());

    // Pods that are gone are counted in one warning.
    let large = Service::builder().pods(20).ttl(Duration::from_secs(60)).glue(false).start().await.unwrap();
    let source = SrvDiscovery::new(large.name()).nameservers([large.dns().addr()]);
    let shrinking = Client::builder().service(source).connect().await.unwrap();
    let all_connected = async || shrinking.topology().nodes.iter().all(|node| node.state == NodeState::Connected);
    eventually("all pods are connected", all_connected).await;
    // Lookups of a host are a second apart. Without one, a pod that has just been looked up would be dialed.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let unreachable = log.lines_with("node cannot be reached");
    large.scale(3).await.unwrap();
    eventually("the pods are counted", async || log.lines_with("host names do not exist") > 0).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(log.lines_with("host names do not exist"), 1, "{}", log.text());
    assert_eq!(log.lines_with("nodes=17"), 1, "{}", log.text());
    assert_eq!(log.lines_with("node cannot be reached"), unreachable, "{}", log.text());
    drop(shrinking);

    // Refused credentials are logged without user and password, even if the server's error line contains them.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let node = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.read(&mut [0; 1024]).await;
            let _ = socket.write_all(b"CLIENT_ERROR no such user: secret-user secret-word\r\n").await;
        }
    });
    let builder = Client::builder().nodes([&node]).credentials("secret-user", "secret-word");
    let refused = builder.connect().await.unwrap();
    eventually("the credentials are refused", async || {
        refused.get("a").await.is_err_and(|error| error.kind() == ErrorKind::Auth)
    })
    .await;
    assert_eq!(log.lines_with("the credentials were refused"), 1, "{}", log.text());

    // Two servers that never reply: each breaker is logged, and once that it is most nodes.
    let mut silent = Vec::new();
    for _ in 0..2 {
        // The kernel accepts the connections.
        silent.push(tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let nodes = silent.iter().map(|listener| listener.local_addr().unwrap().to_string());
    let cache = Client::builder().nodes(nodes).connect().await.unwrap();
    eventually("both breakers are open", async || {
        let keys: Vec<_> = (0..100).map(|n| format!("secret-{n}")).collect();
        let _ = cache.get_many(&keys).await;
        cache.topology().nodes.iter().all(|node| node.state == NodeState::CircuitOpen)
    })
    .await;
    assert_eq!(log.lines_with("circuit breaker opened"), 2, "{}", log.text());
    assert_eq!(log.lines_with("most nodes do not reply"), 1, "{}", log.text());
    assert!(!log.text().contains("secret"), "{}", log.text());
}
