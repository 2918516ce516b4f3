//! The workers. Each one owns a share of the keys and runs one operation at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memring::{Client, Delivery, NodeId};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::sleep;

use crate::options::Options;
use crate::tally::{LATE, Op, Recorder, Tally};
use crate::value::{Entry, Outcome};

/// Longer than any run, and short enough that left-over items soon expire.
const TTL: Duration = Duration::from_secs(3600);

/// An operation that fails unsent and faster than this never yielded to the runtime.
const INSTANT_FAILURE: Duration = Duration::from_millis(1);

/// After this many instant failures in a row, a worker sleeps. Otherwise it would spin while every pod is down.
const INSTANT_FAILURES_BEFORE_SLEEP: u32 = 8;

/// One operation in this many is a set.
const OPERATIONS_PER_SET: u32 = 10;

/// State that all workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) client: Client,
    timeout: Duration,
    /// The number of address changes of any node.
    pub(crate) epoch: AtomicU64,
}

/// All keys, grouped by the worker that owns them.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) shared: Arc<Shared>,
    shares: Vec<Vec<Entry>>,
    rate: Option<u32>,
}

/// The operation that a pass does on each key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pass {
    Write,
    Read,
}

impl Load {
    pub(crate) fn new(client: Client, options: &Options) -> Self {
        let workers = options.concurrency.min(options.keys);
        let mut shares: Vec<Vec<Entry>> = std::iter::repeat_with(Vec::new).take(workers).collect();
        for number in 0..options.keys {
            shares[number % workers].push(Entry::new(format!("{}:{number}", options.prefix), options.value_size));
        }
        let shared = Shared { client, timeout: options.timeout, epoch: AtomicU64::new(0) };
        Self { shared: Arc::new(shared), shares, rate: options.rate }
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.shares.iter().flatten()
    }

    /// Returns the current owner of each key, in the order of [`entries`](Self::entries).
    pub(crate) fn owners(&self) -> Vec<Option<NodeId>> {
        self.entries().map(|entry| self.shared.client.node_for(entry.key()).ok()).collect()
    }

    /// Runs one operation on every key, and calls `on_done` after each.
    pub(crate) async fn pass(&mut self, pass: Pass, on_done: impl Fn() + Clone + Send + 'static) -> Tally {
        let recorder = Arc::new(Recorder::since(Instant::now()));
        let tasks: Vec<_> = std::mem::take(&mut self.shares)
            .into_iter()
            .enumerate()
            .map(|(number, mut entries)| {
                let mut worker = Worker::new(number, &self.shared, &recorder);
                let on_done = on_done.clone();
                tokio::spawn(async move {
                    for entry in &mut entries {
                        match pass {
                            Pass::Write => worker.set(entry).await,
                            Pass::Read => worker.get(entry).await,
                        }
                        on_done();
                    }
                    entries
                })
            })
            .collect();
        self.shares = join_all(tasks).await;
        recorder.take(u64::MAX)
    }

    /// Starts a load until `end`: nine gets to one set on random keys, and a set after each miss.
    pub(crate) fn start(&mut self, recorder: &Arc<Recorder>, end: Instant) -> Running {
        let shares = std::mem::take(&mut self.shares);
        // Per worker, so that all workers together keep the rate.
        let interval = self.rate.map(|rate| Duration::from_secs(1).mul_f64(shares.len() as f64 / f64::from(rate)));
        let tasks = shares.into_iter().enumerate().map(|(number, mut entries)| {
            let mut worker = Worker::new(number, &self.shared, recorder);
            tokio::spawn(async move {
                worker.run(&mut entries, interval, end).await;
                entries
            })
        });
        Running { tasks: tasks.collect() }
    }

    /// Waits for the workers and takes their keys back.
    pub(crate) async fn stop(&mut self, running: Running) {
        self.shares = join_all(running.tasks).await;
    }
}

/// The tasks of running workers.
#[derive(Debug)]
pub(crate) struct Running {
    tasks: Vec<JoinHandle<Vec<Entry>>>,
}

async fn join_all(tasks: Vec<JoinHandle<Vec<Entry>>>) -> Vec<Vec<Entry>> {
    let mut shares = Vec::with_capacity(tasks.len());
    for task in tasks {
        match task.await {
            Ok(entries) => shares.push(entries),
            // Tasks are not aborted, so this is a panic. It ends the whole run.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    shares
}

#[derive(Debug)]
struct Worker {
    number: usize,
    shared: Arc<Shared>,
    recorder: Arc<Recorder>,
    /// The number of instant failures in a row.
    instant_failures: u32,
}

impl Worker {
    fn new(number: usize, shared: &Arc<Shared>, recorder: &Arc<Recorder>) -> Self {
        Self { number, shared: Arc::clone(shared), recorder: Arc::clone(recorder), instant_failures: 0 }
    }

    async fn run(&mut self, entries: &mut [Entry], interval: Option<Duration>, end: Instant) {
        // With a rate limit, workers start at random times within the interval.
        let mut due = Instant::now() + interval.unwrap_or_default().mul_f64(fastrand::f64());
        while Instant::now() < end {
            if let Some(interval) = interval {
                tokio::time::sleep_until(due.min(end).into()).await;
                // Operations missed while a pod was down are not made up for.
                due = (due + interval).max(Instant::now());
                if Instant::now() >= end {
                    break;
                }
            }
            let entry = &mut entries[fastrand::usize(..entries.len())];
            if entry.last == Outcome::Missing || fastrand::u32(..OPERATIONS_PER_SET) == 0 {
                self.set(entry).await;
            } else {
                self.get(entry).await;
            }
        }
    }

    async fn get(&mut self, entry: &mut Entry) {
        let client = &self.shared.client;
        let owner = client.node_for(entry.key()).ok();
        let start = Instant::now();
        let result = client.get(entry.key()).await;
        let latency = start.elapsed();
        let error = match result {
            Ok(Some(item)) => {
                entry.check(&item.value, self.shared.epoch.load(Ordering::Relaxed));
                None
            }
            Ok(None) => {
                entry.last = Outcome::Missing;
                None
            }
            Err(error) => {
                entry.last = Outcome::Failed;
                Some(error)
            }
        };
        self.record(entry, owner, error, latency).await;
    }

    async fn set(&mut self, entry: &mut Entry) {
        let client = &self.shared.client;
        let value = entry.next_value();
        let owner = client.node_for(entry.key()).ok();
        let start = Instant::now();
        let result = client.set(entry.key(), value, TTL).await;
        let latency = start.elapsed();
        let error = match result {
            Ok(()) => {
                let owners = [owner.clone(), client.node_for(entry.key()).ok()];
                entry.acknowledged(owners, self.shared.epoch.load(Ordering::Relaxed));
                None
            }
            Err(error) => {
                entry.failed(error.delivery());
                Some(error)
            }
        };
        self.record(entry, owner, error, latency).await;
    }

    async fn record(&mut self, entry: &Entry, owner: Option<NodeId>, error: Option<memring::Error>, latency: Duration) {
        let kind = error.as_ref().map(memring::Error::kind);
        let node = error.as_ref().and_then(|error| error.node().cloned()).or(owner);
        let late = latency > self.shared.timeout + LATE;
        self.recorder.record(self.number, Op { node, outcome: entry.last, error: kind, latency, late });
        if latency >= INSTANT_FAILURE || error.is_none_or(|error| error.delivery() != Delivery::NotSent) {
            self.instant_failures = 0;
            return;
        }
        // This task did not yield, so give the others a turn.
        self.instant_failures += 1;
        if self.instant_failures.is_multiple_of(INSTANT_FAILURES_BEFORE_SLEEP) {
            sleep(INSTANT_FAILURE).await;
        } else {
            yield_now().await;
        }
    }
}
