//! The effect of several connections per node: gets of 100-byte values from four memcached processes, with 1, 2 and 4
//! connections per node, in interleaved rounds. Prints the median over the rounds of the ratio to one connection.
//!
//! `cargo bench --bench connections` (about a minute)

use std::error::Error;
use std::time::{Duration, Instant};

use memring::testing::Memcached;
use memring::{Client, Ttl};

const NODES: usize = 4;
const KEYS: usize = 10_000;
const ROUNDS: usize = 5;
const RUN: Duration = Duration::from_millis(250);
const CONNECTIONS: [usize; 3] = [1, 2, 4];

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn key(index: usize) -> String {
    format!("key:{index:013}")
}

/// Returns operations per second with `window` concurrent callers.
async fn throughput(client: &Client, window: usize) -> Outcome<f64> {
    let start = Instant::now();
    let callers: Vec<_> = (0..window)
        .map(|caller| {
            let client = client.clone();
            tokio::spawn(async move {
                let keys: Vec<String> = (0..KEYS).map(key).collect();
                let mut done = 0u64;
                // Callers that walk the keys in order would meet, and their gets be merged.
                let mut rng = fastrand::Rng::with_seed(caller as u64);
                loop {
                    let item = client.get(&keys[rng.usize(..KEYS)]).await?;
                    if item.is_none_or(|item| item.value.len() != 100) {
                        return Err("wrong or missing value".into());
                    }
                    done += 1;
                    if done.is_multiple_of(16) && start.elapsed() > RUN {
                        break;
                    }
                }
                Outcome::Ok(done)
            })
        })
        .collect();
    let mut done = 0;
    for caller in callers {
        done += caller.await??;
    }
    Ok(done as f64 / start.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn measure(nodes: &[String], label: &str) -> Outcome<()> {
    let mut clients = Vec::new();
    for connections in CONNECTIONS {
        let client = Client::builder().nodes(nodes).connections_per_node(connections);
        clients.push(client.request_timeout(Duration::from_secs(5)).connect().await?);
    }
    for index in 0..KEYS {
        clients[0].set(key(index), vec![b'v'; 100], Ttl::NEVER).await?;
    }
    for window in [1, 16, 64, 256, 1024] {
        let mut ratios = vec![Vec::new(); CONNECTIONS.len()];
        let mut absolute = Vec::new();
        for round in 0..=ROUNDS {
            let mut rates = Vec::new();
            for client in &clients {
                rates.push(throughput(client, window).await?);
            }
            // The first round warms up.
            if round > 0 {
                absolute.push(rates[0]);
                ratios.iter_mut().zip(&rates).for_each(|(ratios, rate)| ratios.push(rate / rates[0]));
            }
        }
        let ratios: Vec<_> = ratios.into_iter().map(|ratios| format!("{:>6.2}", median(ratios))).collect();
        println!("{label:>9} {window:>6} {} {:>10.0}", ratios.join(" "), median(absolute));
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let outer = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut servers = Vec::new();
    for _ in 0..NODES {
        servers.push(outer.block_on(Memcached::start_with(["-m", "256"]))?);
    }
    let nodes: Vec<_> = servers.iter().map(|server| server.addr().to_string()).collect();
    println!("  runtime window  1 conn 2 conn 4 conn  1 conn, get/s");
    let one = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    one.block_on(measure(&nodes, "1 thread"))?;
    let two = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    two.block_on(async { tokio::spawn(async move { measure(&nodes, "2 workers").await }).await? })
}
