//! Cache-aside without stampedes: many callers miss at the same time, and one of them computes the value.
//!
//! Needs no setup (`cargo run --example cache_aside`): it starts two `memcached` processes if the program is installed,
//! or else two pods in this process. It exits with an error if a value is computed more than once.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use memring::testing::Service;
use memring::{Client, FetchOptions, SrvDiscovery};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// How often the slow operation ran. In a real service that is a database query.
static COMPUTATIONS: AtomicUsize = AtomicUsize::new(0);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let service = start().await?;
    let first = connect(&service).await?;
    // Like a client in another process, the second one shares only the servers with the first.
    let second = connect(&service).await?;
    println!("servers: {:?}", first.versions().await.into_iter().flat_map(|(_, version)| version).collect::<Vec<_>>());

    println!("\nThe item is missing, and 1,000 callers of one client fetch it:");
    fetch_and_check("report:1", &[(&first, 1_000)], 1).await?;

    println!("\nThe item is cached, and 1,000 callers fetch it:");
    fetch_and_check("report:1", &[(&first, 1_000)], 0).await?;

    println!("\nThe item is missing, and 500 callers each of two clients fetch it:");
    fetch_and_check("report:2", &[(&first, 500), (&second, 500)], 1).await?;

    // Other callers still get the stale value for 30 s, while one computes the new one. Servers before 1.6.10 have no
    // stale items: there the item is deleted, and all callers wait for the new value.
    first.invalidate("report:2", Duration::from_secs(30)).await?;
    println!("\nThe item is invalidated, and 500 callers each of two clients fetch it:");
    fetch_and_check("report:2", &[(&first, 500), (&second, 500)], 1).await?;
    Ok(())
}

/// Returns the report from the cache, and computes it on a miss. An application calls this wherever it needs the
/// report.
async fn report(cache: &Client, key: &str) -> Result<memring::Fetched, memring::FetchError<io::Error>> {
    // The TTL is five minutes. Other processes wait up to ten seconds for the report before they compute it, too: that
    // long if this one dies.
    let options = FetchOptions::from(Duration::from_secs(300)).wait_timeout(Duration::from_secs(10));
    cache.fetch(key, options, compute).await
}

async fn compute() -> io::Result<String> {
    let count = COMPUTATIONS.fetch_add(1, Ordering::Relaxed) + 1;
    sleep(Duration::from_millis(200)).await;
    Ok(format!("report, computation {count}"))
}

/// Fetches the report from many callers at once, and checks how often it was computed.
async fn fetch_and_check(
    key: &'static str,
    callers: &[(&Client, usize)],
    expected_computations: usize,
) -> Result<(), Box<dyn Error>> {
    let before = COMPUTATIONS.load(Ordering::Relaxed);
    fetch_all(key, callers).await?;
    let computations = COMPUTATIONS.load(Ordering::Relaxed) - before;
    println!("  computations: {computations}");
    if computations != expected_computations {
        return Err(format!("{computations} computations instead of {expected_computations}").into());
    }
    Ok(())
}

async fn fetch_all(key: &'static str, callers: &[(&Client, usize)]) -> Result<(), Box<dyn Error>> {
    let mut tasks = JoinSet::new();
    for (cache, count) in callers {
        for _ in 0..*count {
            let cache = (*cache).clone();
            tasks.spawn(async move { report(&cache, key).await });
        }
    }
    let mut results = BTreeMap::<String, usize>::new();
    while let Some(fetched) = tasks.join_next().await {
        let fetched = fetched??;
        let value = String::from_utf8_lossy(&fetched.value).into_owned();
        *results.entry(format!("{:?}: {value}", fetched.origin)).or_default() += 1;
    }
    results.iter().for_each(|(result, count)| println!("{count:>6} × {result}"));
    Ok(())
}

/// Starts memcached processes, or pods in this process if the program is not installed.
async fn start() -> io::Result<Service> {
    match Service::builder().pods(2).memcached().start().await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Service::start(2).await,
        started => started,
    }
}

async fn connect(service: &Service) -> Result<Client, memring::Error> {
    let pods = SrvDiscovery::new(service.name()).nameservers([service.dns().addr()]);
    // A long timeout, because the example may run on a slow machine.
    Client::builder().service(pods).request_timeout(Duration::from_secs(10)).connect().await
}
