//! Cache-aside without stampedes: many ask for a value that is not in the cache, and one computes it.
//!
//! Runs by itself (`cargo run --example cache_aside`): on two `memcached` processes if the program is installed, or else
//! on two pods in this process. Exits with an error if a value was computed more than once.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use memring::testing::Service;
use memring::{Client, FetchOptions, SrvDiscovery};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// How often the slow thing was done. A real one would be a database's.
static COMPUTED: AtomicUsize = AtomicUsize::new(0);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let service = start().await?;
    let ours = connect(&service).await?;
    // Another client shares nothing with the first but the servers, as another process would.
    let theirs = connect(&service).await?;
    println!("servers: {:?}", ours.versions().await.into_iter().flat_map(|(_, version)| version).collect::<Vec<_>>());

    println!("\nNothing is there, and 1,000 callers of one process ask:");
    ask("report:1", &[(&ours, 1_000)]).await?;

    println!("\nIt is there, and 1,000 more ask:");
    let before = COMPUTED.load(Ordering::Relaxed);
    fetch_all("report:1", &[(&ours, 1_000)]).await?;
    expect_computed(before, 0)?;

    println!("\nNothing is there, and two processes of 500 callers ask:");
    ask("report:2", &[(&ours, 500), (&theirs, 500)]).await?;

    // The old value stays for 30 s yet, for those who do not mind. Servers before 1.6.10 know nothing of stale items:
    // there it is deleted, and all wait for the new one.
    ours.invalidate("report:2", Duration::from_secs(30)).await?;
    println!("\nIt was invalidated, and two processes of 500 callers ask:");
    ask("report:2", &[(&ours, 500), (&theirs, 500)]).await?;
    Ok(())
}

/// What an application does wherever it needs the report.
async fn report(cache: &Client, key: &str) -> Result<memring::Fetched, memring::FetchError<io::Error>> {
    // It lives for five minutes. Should we die while computing it, another process may begin after ten seconds.
    let options = FetchOptions::from(Duration::from_secs(300)).lease(Duration::from_secs(10));
    cache.fetch(key, options, compute).await
}

async fn compute() -> io::Result<String> {
    let count = COMPUTED.fetch_add(1, Ordering::Relaxed) + 1;
    sleep(Duration::from_millis(200)).await;
    Ok(format!("report, computing no. {count}"))
}

/// Has many callers ask at once, and sees that one computing was enough for all of them.
async fn ask(key: &'static str, callers: &[(&Client, usize)]) -> Result<(), Box<dyn Error>> {
    let before = COMPUTED.load(Ordering::Relaxed);
    fetch_all(key, callers).await?;
    expect_computed(before, 1)
}

async fn fetch_all(key: &'static str, callers: &[(&Client, usize)]) -> Result<(), Box<dyn Error>> {
    let mut asking = JoinSet::new();
    for (cache, count) in callers {
        for _ in 0..*count {
            let cache = (*cache).clone();
            asking.spawn(async move { report(&cache, key).await });
        }
    }
    let mut given = BTreeMap::<String, usize>::new();
    while let Some(fetched) = asking.join_next().await {
        let fetched = fetched??;
        let value = String::from_utf8_lossy(&fetched.value).into_owned();
        *given.entry(format!("{:?}: {value}", fetched.origin)).or_default() += 1;
    }
    given.iter().for_each(|(what, count)| println!("{count:>6} × {what}"));
    Ok(())
}

fn expect_computed(before: usize, expected: usize) -> Result<(), Box<dyn Error>> {
    let computed = COMPUTED.load(Ordering::Relaxed) - before;
    println!("  computed: {computed}");
    if computed == expected { Ok(()) } else { Err(format!("computed {computed} times, not {expected}").into()) }
}

async fn start() -> io::Result<Service> {
    match Service::builder().pods(2).memcached().start().await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Service::start(2).await,
        started => started,
    }
}

async fn connect(service: &Service) -> Result<Client, memring::Error> {
    let pods = SrvDiscovery::new(service.name()).nameservers([service.dns().addr()]);
    // A demonstration is in no hurry, and may run on a slow machine.
    Client::builder().service(pods).request_timeout(Duration::from_secs(10)).connect().await
}
