//! Load from many callers while pods pause and restart. Every value is checked, and no operation may hang.
//!
//! The tests take some seconds. `MEMRING_STRESS_SECONDS` makes them longer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use memring::testing::Service;
use memring::{Client, Delivery, Error};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{
    LONG_TIMEOUT, MINUTE, TEST_TIMEOUT, Version, eventually, fast_polling, server_version, service, service_client,
};

const WORKERS: usize = 8;
const PODS: usize = 3;

/// Returns how long the load lasts.
fn load_time() -> Duration {
    let seconds = std::env::var("MEMRING_STRESS_SECONDS").ok().map(|text| text.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(4))
}

/// Pauses and resumes pods in random order for the time of the load, and kills and restarts them if that is asked for.
/// A pause lasts at most `longest_pause` milliseconds.
async fn disrupt(service: &Service, longest_pause: u64, restarts: bool) {
    let end = Instant::now() + load_time();
    while Instant::now() < end {
        let pod = fastrand::usize(..PODS);
        if restarts && fastrand::u8(..4) == 0 {
            service.crash(pod).await.unwrap();
            sleep(Duration::from_millis(fastrand::u64(..200))).await;
            service.restart(pod).await.unwrap();
        } else {
            service.pause(pod).await.unwrap();
            sleep(Duration::from_millis(fastrand::u64(..longest_pause))).await;
            service.resume(pod).await.unwrap();
        }
        sleep(Duration::from_millis(fastrand::u64(..100))).await;
    }
}

/// Runs an operation, and in a quarter of the cases drops it early. Panics if it hangs.
async fn run_or_drop<T>(operation: impl Future<Output = T>) -> Option<T> {
    if fastrand::u8(..4) == 0 {
        return timeout(Duration::from_micros(fastrand::u64(..5_000)), operation).await.ok();
    }
    Some(timeout(TEST_TIMEOUT, operation).await.expect("an operation hangs"))
}

/// The keys that only one worker writes, with the values that may be found.
#[derive(Default)]
struct Own {
    worker: usize,
    writes: u64,
    /// The value of the last write that succeeded.
    stored: HashMap<String, u64>,
    /// Values of writes with an unknown outcome. Such a write may be applied late.
    perhaps_stored: HashMap<String, HashSet<u64>>,
    found: u64,
}

impl Own {
    fn random_key(&self) -> String {
        format!("{}/{}{}", self.worker, fastrand::u8(..50), "x".repeat(fastrand::usize(..2) * 80))
    }

    /// A value that names its key and write, of up to 30 KB.
    fn value(key: &str, write: u64) -> String {
        let len = if write.is_multiple_of(8) { write as usize * 7919 % 30_000 } else { write as usize % 200 };
        format!("{key} {write} {}", "v".repeat(len))
    }

    fn new_write(&mut self) -> u64 {
        self.writes += 1;
        self.writes
    }

    fn wrote(&mut self, key: &str, write: u64, outcome: Option<Result<(), Error>>) {
        match outcome {
            Some(Ok(())) => {
                self.stored.insert(key.to_owned(), write);
            }
            Some(Err(error)) if error.delivery() == Delivery::NotSent => {}
            _ => {
                self.perhaps_stored.entry(key.to_owned()).or_default().insert(write);
            }
        }
    }

    fn check(&mut self, key: &str, value: &[u8]) {
        let text = std::str::from_utf8(value).unwrap();
        let mut words = text.split(' ');
        assert_eq!(words.next(), Some(key), "the value of another key");
        let write: u64 = words.next().unwrap().parse().unwrap();
        assert!(text == Self::value(key, write), "{key}: a part of a value, or of two");
        let is_last = self.stored.get(key) == Some(&write);
        let may_be_late = self.perhaps_stored.get(key).is_some_and(|writes| writes.contains(&write));
        assert!(is_last || may_be_late, "{key}: write {write} was replaced by {:?}", self.stored.get(key));
        self.found += 1;
    }

    async fn run_one(&mut self, cache: &Client) {
        let key = self.random_key();
        match fastrand::u8(..8) {
            0..=2 => {
                let write = self.new_write();
                let outcome = run_or_drop(cache.set(&key, Self::value(&key, write), MINUTE)).await;
                self.wrote(&key, write, outcome);
            }
            3 => {
                let entries: HashMap<String, u64> = (0..20).map(|_| (self.random_key(), self.new_write())).collect();
                let values = entries.iter().map(|(key, &write)| (key.clone(), Self::value(key, write)));
                let written = run_or_drop(cache.set_many(values.collect::<Vec<_>>(), MINUTE)).await;
                let mut outcomes = HashMap::new();
                for (key, outcome) in written.into_iter().flat_map(|written| {
                    let failed = written.errors.into_iter();
                    let failed = failed
                        .flat_map(|failed| failed.keys.into_iter().map(move |key| (key, Err(failed.error.clone()))));
                    written.done.into_iter().map(|key| (key, Ok(()))).chain(failed)
                }) {
                    outcomes.insert(key, outcome);
                }
                for (key, write) in entries {
                    let outcome = outcomes.remove(&key);
                    self.wrote(&key, write, outcome);
                }
            }
            4 => {
                let keys: Vec<String> = (0..20).map(|_| self.random_key()).collect();
                for (key, item) in run_or_drop(cache.get_many(keys)).await.into_iter().flat_map(|found| found.hits) {
                    self.check(&key, &item.value);
                }
            }
            _ => {
                if let Some(Ok(Some(item))) = run_or_drop(cache.get(&key)).await {
                    self.check(&key, &item.value);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_value_is_wrong_and_no_operation_hangs_while_pods_pause_and_restart() {
    let service = service(PODS).await;
    let cache = service_client(&service, fast_polling()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (cache, stop) = (cache.clone(), Arc::clone(&stop));
        workers.spawn(async move {
            let mut own = Own { worker, ..Own::default() };
            while !stop.load(Ordering::Relaxed) {
                let deadline = Duration::from_millis(fastrand::u64(1..=50));
                own.run_one(&cache.with_request_timeout(deadline)).await;
            }
            own.found
        });
    }
    disrupt(&service, 600, true).await;
    stop.store(true, Ordering::Relaxed);
    let mut found = 0;
    while let Some(worker) = workers.join_next().await {
        found += worker.unwrap();
    }
    println!("{found} values found and checked");
    assert!(found > 100, "{found} values were found");
    eventually("every pod serves again", async || {
        let each = cache.with_request_timeout(LONG_TIMEOUT).get_each((0..100).map(|n| n.to_string())).await;
        each.iter().all(|(_, outcome)| outcome.is_ok())
    })
    .await;
}

/// A source of truth with one number for each key.
#[derive(Default)]
struct Source {
    /// The current numbers.
    current: [AtomicU64; 4],
    /// The numbers that no fetch may fall behind: the deletes after them were acknowledged.
    deleted: [AtomicU64; 4],
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_fetch_returns_a_value_from_before_an_acknowledged_delete() {
    let service = service(PODS).await;
    if server_version(service.pods()[0].addr).await < Version::META {
        return;
    }
    // As two processes.
    let caches = [service_client(&service, fast_polling()).await, service_client(&service, fast_polling()).await];
    let (source, stop) = (Arc::new(Source::default()), Arc::new(AtomicBool::new(false)));
    let mut tasks = JoinSet::new();
    for worker in 0..WORKERS {
        let (cache, source, stop) = (caches[worker % 2].clone(), Arc::clone(&source), Arc::clone(&stop));
        tasks.spawn(async move {
            let mut fetched = 0;
            while !stop.load(Ordering::Relaxed) {
                let n = fastrand::usize(..4);
                if worker < 2 {
                    // Each writes two of the keys, so that the numbers of a key only grow.
                    let n = n / 2 * 2 + worker;
                    let number = source.current[n].fetch_add(1, Ordering::SeqCst) + 1;
                    while cache.delete(format!("key-{n}")).await.is_err() {}
                    source.deleted[n].store(number, Ordering::SeqCst);
                    sleep(Duration::from_micros(fastrand::u64(..3_000))).await;
                    continue;
                }
                let least = source.deleted[n].load(Ordering::SeqCst);
                let compute = async || {
                    let number = source.current[n].load(Ordering::SeqCst);
                    sleep(Duration::from_micros(fastrand::u64(..2_000))).await;
                    Ok::<_, std::convert::Infallible>(number.to_string())
                };
                let fetch = cache.fetch(format!("key-{n}"), MINUTE, compute);
                if let Some(found) = run_or_drop(fetch).await {
                    let number: u64 = std::str::from_utf8(&found.unwrap().value).unwrap().parse().unwrap();
                    assert!(number >= least, "key-{n}: {number} from before the delete at {least}");
                    fetched += 1;
                }
            }
            fetched
        });
    }
    disrupt(&service, 2_000, false).await;
    stop.store(true, Ordering::Relaxed);
    let mut fetched = 0;
    while let Some(task) = tasks.join_next().await {
        fetched += task.unwrap();
    }
    println!("{fetched} fetches checked");
    assert!(fetched > 100, "{fetched} fetches");
}
