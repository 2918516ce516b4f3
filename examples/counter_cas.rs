//! Changing what others change too: a counter, and a list that every task adds to. Nothing is lost.
//!
//! Runs by itself (`cargo run --example counter_cas`): on two `memcached` processes if the program is installed, or else
//! on two pods in this process. Exits with an error if a count or an entry is missing.

use std::collections::BTreeSet;
use std::error::Error;
use std::io;
use std::time::Duration;

use memring::testing::Service;
use memring::{Client, Counter, ErrorKind, SrvDiscovery};
use tokio::task::JoinSet;

const TASKS: u64 = 20;
const ROUNDS: u64 = 50;
const ENTRIES: u64 = 5;

/// How long what is written here lives.
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let service = start().await?;
    let cache = connect(&service).await?;
    println!("servers: {:?}", cache.versions().await.into_iter().flat_map(|(_, version)| version).collect::<Vec<_>>());
    count(&cache).await?;
    collect(&cache).await
}

/// The server adds. Whoever comes first creates the counter, and everybody gets a number of their own.
async fn count(cache: &Client) -> Result<(), Box<dyn Error>> {
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let cache = cache.clone();
        tasks.spawn(async move {
            let mut drawn = Vec::new();
            for _ in 0..ROUNDS {
                // 1 to begin with, or 1 more than there was.
                drawn.push(cache.count_up("tickets", 1, Counter::new(1, HOUR)).await?);
            }
            Ok::<_, memring::Error>(drawn)
        });
    }
    let mut drawn = BTreeSet::new();
    while let Some(numbers) = tasks.join_next().await {
        drawn.extend(numbers??);
    }
    println!("{TASKS} tasks drew {ROUNDS} numbers each: {} different ones, up to {:?}", drawn.len(), drawn.last());
    if drawn.into_iter().eq(1..=TASKS * ROUNDS) { Ok(()) } else { Err("a count was lost or given twice".into()) }
}

/// The client computes the new value, and the server takes it only over the version it was made from.
async fn collect(cache: &Client) -> Result<(), Box<dyn Error>> {
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let cache = cache.clone();
        tasks.spawn(async move {
            let mut again = 0;
            for number in 0..ENTRIES {
                again += add_entry(&cache, &format!("{task}.{number} ")).await?;
            }
            Ok::<_, memring::Error>(again)
        });
    }
    let mut again = 0;
    while let Some(count) = tasks.join_next().await {
        again += count??;
    }
    let list = cache.get("entries").await?.map(|item| item.value).unwrap_or_default();
    let list = String::from_utf8_lossy(&list).into_owned();
    let entries: BTreeSet<&str> = list.split_whitespace().collect();
    println!("{TASKS} tasks added {ENTRIES} entries each: {} are there; {again} attempts were in vain", entries.len());
    let complete = entries.len() as u64 == TASKS * ENTRIES && list.split_whitespace().count() == entries.len();
    if complete { Ok(()) } else { Err("an entry was lost or added twice".into()) }
}

/// Says how many attempts were in vain.
async fn add_entry(cache: &Client, entry: &str) -> Result<u64, memring::Error> {
    let mut attempts = 0;
    loop {
        let added = cache.update("entries", HOUR, |old| {
            attempts += 1;
            let mut list = old.map(|item| item.value.to_vec()).unwrap_or_default();
            list.extend_from_slice(entry.as_bytes());
            Some(list)
        });
        match added.await {
            Ok(_) => return Ok(attempts - 1),
            // Others were faster again and again. Nothing was stored, so that nothing is added twice.
            Err(error) if error.kind() == ErrorKind::Contended => {}
            Err(error) => return Err(error),
        }
    }
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
