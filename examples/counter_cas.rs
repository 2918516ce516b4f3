//! Concurrent updates without lost writes: tasks share a counter, and a list that each of them appends to.
//!
//! Needs no setup (`cargo run --example counter_cas`): it starts two `memcached` processes if the program is installed,
//! or else two pods in this process. It exits with an error if an increment or an entry is lost.

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

/// The TTL of all items.
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let service = start().await?;
    let cache = connect(&service).await?;
    println!("servers: {:?}", cache.versions().await.into_iter().flat_map(|(_, version)| version).collect::<Vec<_>>());
    count(&cache).await?;
    append(&cache).await
}

/// Increments a counter on the server. The first task creates it, and every increment returns a different number.
async fn count(cache: &Client) -> Result<(), Box<dyn Error>> {
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let cache = cache.clone();
        tasks.spawn(async move {
            let mut numbers = Vec::new();
            for _ in 0..ROUNDS {
                // Creates the counter with 1, or adds 1.
                numbers.push(cache.count_up("tickets", 1, Counter::new(1, HOUR)).await?);
            }
            Ok::<_, memring::Error>(numbers)
        });
    }
    let mut numbers = BTreeSet::new();
    while let Some(of_task) = tasks.join_next().await {
        numbers.extend(of_task??);
    }
    let (distinct, last) = (numbers.len(), numbers.last());
    println!("{TASKS} tasks made {ROUNDS} increments each: {distinct} distinct numbers up to {last:?}");
    if numbers.into_iter().eq(1..=TASKS * ROUNDS) { Ok(()) } else { Err("an increment was lost or repeated".into()) }
}

/// Appends to a list with compare-and-swap: the server stores the new list only if the old one is still current.
async fn append(cache: &Client) -> Result<(), Box<dyn Error>> {
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let cache = cache.clone();
        tasks.spawn(async move {
            let mut retries = 0;
            for number in 0..ENTRIES {
                retries += append_entry(&cache, &format!("{task}.{number} ")).await?;
            }
            Ok::<_, memring::Error>(retries)
        });
    }
    let mut retries = 0;
    while let Some(of_task) = tasks.join_next().await {
        retries += of_task??;
    }
    let list = cache.get("entries").await?.map(|item| item.value).unwrap_or_default();
    let list = String::from_utf8_lossy(&list).into_owned();
    let entries: BTreeSet<&str> = list.split_whitespace().collect();
    println!("{TASKS} tasks appended {ENTRIES} entries each: {} entries after {retries} retries", entries.len());
    let complete = entries.len() as u64 == TASKS * ENTRIES && list.split_whitespace().count() == entries.len();
    if complete { Ok(()) } else { Err("an entry was lost or appended twice".into()) }
}

/// Appends one entry. Returns the number of retries.
async fn append_entry(cache: &Client, entry: &str) -> Result<u64, memring::Error> {
    let mut attempts = 0;
    loop {
        let update = cache.update("entries", HOUR, |old| {
            attempts += 1;
            let mut list = old.map(|item| item.value.to_vec()).unwrap_or_default();
            list.extend_from_slice(entry.as_bytes());
            Some(list)
        });
        match update.await {
            Ok(_) => return Ok(attempts - 1),
            // Lost the race too often. Nothing was stored, so trying again cannot append the entry twice.
            Err(error) if error.kind() == ErrorKind::Contended => {}
            Err(error) => return Err(error),
        }
    }
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
