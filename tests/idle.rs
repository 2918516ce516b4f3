//! An idle client does not wake its runtime.
//!
//! The test has its own process, because the end of a child process wakes every runtime.

use std::time::Duration;

use memring::testing::Service;
use memring::{Client, Ttl};

#[test]
fn an_idle_client_does_not_wake_its_runtime() {
    let pod_runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let service = pod_runtime.block_on(Service::start(3)).unwrap();
    let nodes: Vec<_> = service.pods().iter().map(|pod| pod.addr.to_string()).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let cache = Client::builder().nodes(nodes).connect().await.unwrap();
        for n in 0..100 {
            cache.set(format!("key-{n}"), "v", Ttl::NEVER).await.unwrap();
        }
        // Until then, the timers of the last deadlines and of the silence timeouts fire.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let metrics = tokio::runtime::Handle::current().metrics();
        let before = metrics.worker_park_count(0);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let wakes = metrics.worker_park_count(0) - before;
        // The sleep itself and the steps of the timer wheel wake the runtime.
        assert!(wakes <= 4, "{wakes} wakes in two idle seconds");
    });
    pod_runtime.block_on(async { drop(service) });
}
