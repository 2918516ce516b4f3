//! Gets of 16 callers from four memcached processes while one of them is stopped: what the circuit breaker is for.
//! Prints hits and errors a second before, while the first requests time out, while it stays stopped, and after.
//!
//! `cargo bench --bench stopped_server` (about 15 seconds). Fails if the hits fall below 90 % of the other servers'
//! part, or if the server does not serve within a second after it continues.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memring::testing::Memcached;
use memring::{Client, NodeId, Ttl};
use tokio::task::JoinSet;
use tokio::time::sleep;

const NODES: usize = 4;
const KEYS: usize = 20_000;
const CALLERS: u64 = 16;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What the callers have seen so far.
#[derive(Debug, Default)]
struct Counters {
    hits: AtomicU64,
    errors: AtomicU64,
    end: AtomicBool,
}

/// Gets random keys and checks their values until the end.
async fn call(client: Client, keys: Arc<Vec<String>>, counters: Arc<Counters>, seed: u64) -> Outcome<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    while !counters.end.load(Ordering::Relaxed) {
        let key = &keys[random.usize(..keys.len())];
        let counter = match client.get(key).await {
            Ok(Some(item)) if item.value == key.as_bytes() => &counters.hits,
            Ok(_) => return Err("wrong or missing value".into()),
            Err(_) => &counters.errors,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Prints hits and errors a second in each of some slices of time. Returns the hits a second.
async fn measure(counters: &Counters, phase: &str, slices: u32, slice: Duration) -> Vec<f64> {
    let mut rates = Vec::new();
    for _ in 0..slices {
        let read = || (counters.hits.load(Ordering::Relaxed), counters.errors.load(Ordering::Relaxed));
        let (start, before) = (Instant::now(), read());
        sleep(slice).await;
        let (after, seconds) = (read(), start.elapsed().as_secs_f64());
        let (hits, errors) = ((after.0 - before.0) as f64 / seconds, (after.1 - before.1) as f64 / seconds);
        println!("{phase:>8} {hits:>9.0} hits/s {errors:>9.0} errors/s");
        rates.push(hits);
    }
    rates
}

async fn run() -> Outcome<()> {
    let mut servers = Vec::new();
    for _ in 0..NODES {
        servers.push(Memcached::start().await?);
    }
    let nodes = servers.iter().map(|server| server.addr().to_string());
    let client = Client::builder().nodes(nodes).connect().await?;
    let stopped: NodeId = servers[0].addr().to_string().parse()?;
    let keys: Arc<Vec<_>> = Arc::new((0..KEYS).map(|n| format!("key-{n}")).collect());
    let mut lost = Vec::new();
    for key in keys.iter() {
        client.set(key, key.clone(), Ttl::NEVER).await?;
        if client.node_for(key)? == stopped {
            lost.push(key);
        }
    }
    let counters = Arc::<Counters>::default();
    let mut callers = JoinSet::new();
    for seed in 0..CALLERS {
        callers.spawn(call(client.clone(), Arc::clone(&keys), Arc::clone(&counters), seed));
    }

    sleep(Duration::from_millis(500)).await;
    let before = measure(&counters, "before", 4, Duration::from_millis(500)).await;
    servers[0].pause().await?;
    measure(&counters, "timeouts", 2, Duration::from_millis(250)).await;
    let while_stopped = measure(&counters, "stopped", 20, Duration::from_millis(250)).await;
    servers[0].resume().await?;
    let resumed = Instant::now();
    while client.get(lost[0]).await.is_err() {
        sleep(Duration::from_millis(1)).await;
    }
    let back_after = resumed.elapsed();
    measure(&counters, "after", 4, Duration::from_millis(500)).await;
    counters.end.store(true, Ordering::Relaxed);
    while let Some(done) = callers.join_next().await {
        done??;
    }

    let share = 1.0 - lost.len() as f64 / keys.len() as f64;
    let others = before.iter().sum::<f64>() / before.len() as f64 * share;
    let lowest = while_stopped.iter().copied().fold(f64::INFINITY, f64::min) / others;
    println!("lowest while stopped: {lowest:.2} of the other servers' part; serves again after {back_after:?}");
    if lowest < 0.9 || back_after > Duration::from_secs(1) {
        return Err("below the bars".into());
    }
    Ok(())
}

fn main() -> Outcome<()> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run())
}
