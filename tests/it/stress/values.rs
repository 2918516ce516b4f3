//! No value is wrong: each names its key and its write.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use memring::{Client, Delivery, Error};
use tokio::task::JoinSet;

use super::{Figures, PODS, WORKERS, disrupt, random_timeout};
use crate::support::{LONG_TIMEOUT, MINUTE, eventually, fast_polling, service, service_client};

/// The keys that only one worker writes, with the values that may be found.
#[derive(Default)]
struct Own {
    worker: usize,
    writes: u64,
    /// The value of the last write that succeeded.
    stored: HashMap<String, u64>,
    /// Values of writes with an unknown outcome. Such a write may be applied late.
    perhaps_stored: HashMap<String, HashSet<u64>>,
    figures: Figures,
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
        if let Some(Err(error)) = &outcome {
            self.figures.count_error(error);
        }
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
        self.figures.verified_values += 1;
    }

    async fn run_one(&mut self, cache: &Client) {
        let key = self.random_key();
        match fastrand::u8(..8) {
            0..=2 => {
                let write = self.new_write();
                let outcome = self.figures.run_or_drop(cache.set(&key, Self::value(&key, write), MINUTE)).await;
                self.wrote(&key, write, outcome);
            }
            3 => {
                let entries: HashMap<String, u64> = (0..20).map(|_| (self.random_key(), self.new_write())).collect();
                let values = entries.iter().map(|(key, &write)| (key.clone(), Self::value(key, write)));
                let written = self.figures.run_or_drop(cache.set_many(values.collect::<Vec<_>>(), MINUTE)).await;
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
                let Some(found) = self.figures.run_or_drop(cache.get_many(keys)).await else { return };
                for (key, item) in found.hits {
                    self.check(&key, &item.value);
                }
                found.errors.iter().for_each(|failed| self.figures.count_error(&failed.error));
            }
            _ => match self.figures.run_or_drop(cache.get(&key)).await {
                Some(Ok(Some(item))) => self.check(&key, &item.value),
                Some(Err(error)) => self.figures.count_error(&error),
                Some(Ok(None)) | None => {}
            },
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
                own.run_one(&cache.with_request_timeout(random_timeout())).await;
            }
            own.figures
        });
    }
    disrupt(&service, 600, true).await;
    stop.store(true, Ordering::Relaxed);
    let mut figures = Figures::default();
    while let Some(worker) = workers.join_next().await {
        figures.add(worker.unwrap());
    }
    println!("values: {figures}");
    assert!(figures.verified_values > 100, "{figures}");
    eventually("every pod serves again", async || {
        let each = cache.with_request_timeout(LONG_TIMEOUT).get_each((0..100).map(|n| n.to_string())).await;
        each.iter().all(|(_, outcome)| outcome.is_ok())
    })
    .await;
}
