//! A client that is asked nothing does nothing.
//!
//! On its own, because a process whose children end wakes every runtime in it.

use std::time::Duration;

use memring::testing::Service;
use memring::{Client, Ttl};

#[test]
fn an_idle_client_sleeps() {
    let pods = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let service = pods.block_on(Service::start(3)).unwrap();
    let nodes: Vec<_> = service.pods().iter().map(|pod| pod.addr.to_string()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let cache = Client::builder().nodes(nodes).connect().await.unwrap();
        for n in 0..100 {
            cache.set(format!("key-{n}"), "v", Ttl::NEVER).await.unwrap();
        }
        // The timers of the last deadlines, and of the patience with the servers, run out.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let metrics = tokio::runtime::Handle::current().metrics();
        let before = metrics.worker_park_count(0);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let woken = metrics.worker_park_count(0) - before;
        // By the sleep itself, and the timer wheel's own steps.
        assert!(woken <= 4, "woken {woken} times in two seconds of idleness");
    });
    pods.block_on(async { drop(service) });
}
