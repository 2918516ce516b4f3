//! The workers: each has its own share of the keys, and does one operation at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memring::{Client, Delivery, NodeId};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::sleep;

use crate::options::Options;
use crate::tally::{LATE, Op, Recorder, Tally};
use crate::value::{Entry, Outcome};

/// Long enough for any run, and what is left behind goes away by itself.
const TTL: Duration = Duration::from_secs(3600);

/// An operation that failed before it was sent, and sooner than this, cost nothing and waited for nothing.
const AT_ONCE: Duration = Duration::from_millis(1);

/// After so many of them in a row a worker pauses, as long: with every pod away, nobody is served by millions of them.
const PATIENCE: u32 = 8;

/// One operation in so many is a set.
const SETS: u32 = 10;

/// What all workers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) client: Client,
    timeout: Duration,
    /// How often a node changed its address.
    pub(crate) epoch: AtomicU64,
}

/// All keys, by the worker that uses them.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) shared: Arc<Shared>,
    shares: Vec<Vec<Entry>>,
    rate: Option<u32>,
}

/// What a pass over all keys does with each.
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

    /// Which node owns each key now, in the order of [`entries`](Self::entries).
    pub(crate) fn owners(&self) -> Vec<Option<NodeId>> {
        self.entries().map(|entry| self.shared.client.node_for(entry.key()).ok()).collect()
    }

    /// Goes over all keys once. `done` is called after each.
    pub(crate) async fn pass(&mut self, pass: Pass, done: impl Fn() + Clone + Send + 'static) -> Tally {
        let recorder = Arc::new(Recorder::since(Instant::now()));
        let tasks: Vec<_> = std::mem::take(&mut self.shares)
            .into_iter()
            .enumerate()
            .map(|(number, mut entries)| {
                let mut worker = Worker::new(number, &self.shared, &recorder);
                let done = done.clone();
                tokio::spawn(async move {
                    for entry in &mut entries {
                        match pass {
                            Pass::Write => worker.set(entry).await,
                            Pass::Read => worker.get(entry).await,
                        }
                        done();
                    }
                    entries
                })
            })
            .collect();
        self.shares = joined(tasks).await;
        recorder.take(u64::MAX)
    }

    /// Starts nine gets to a set on keys picked at random, and a set for each miss, until `end`.
    pub(crate) fn start(&mut self, recorder: &Arc<Recorder>, end: Instant) -> Running {
        let shares = std::mem::take(&mut self.shares);
        // Of each worker, so that all of them together keep the rate.
        let spacing = self.rate.map(|rate| Duration::from_secs(1).mul_f64(shares.len() as f64 / f64::from(rate)));
        let tasks = shares.into_iter().enumerate().map(|(number, mut entries)| {
            let mut worker = Worker::new(number, &self.shared, recorder);
            tokio::spawn(async move {
                worker.run(&mut entries, spacing, end).await;
                entries
            })
        });
        Running { tasks: tasks.collect() }
    }

    /// Takes the keys back from workers that have ended.
    pub(crate) async fn stop(&mut self, running: Running) {
        self.shares = joined(running.tasks).await;
    }
}

/// Workers at work.
#[derive(Debug)]
pub(crate) struct Running {
    tasks: Vec<JoinHandle<Vec<Entry>>>,
}

async fn joined(tasks: Vec<JoinHandle<Vec<Entry>>>) -> Vec<Vec<Entry>> {
    let mut shares = Vec::with_capacity(tasks.len());
    for task in tasks {
        match task.await {
            Ok(entries) => shares.push(entries),
            // A panic, then: it is the run's end, not one worker's.
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
    /// How many operations in a row were refused at once.
    refused: u32,
}

impl Worker {
    fn new(number: usize, shared: &Arc<Shared>, recorder: &Arc<Recorder>) -> Self {
        Self { number, shared: Arc::clone(shared), recorder: Arc::clone(recorder), refused: 0 }
    }

    async fn run(&mut self, entries: &mut [Entry], spacing: Option<Duration>, end: Instant) {
        // Where a rate is kept, not all workers begin at once.
        let mut due = Instant::now() + spacing.unwrap_or_default().mul_f64(fastrand::f64());
        while Instant::now() < end {
            if let Some(spacing) = spacing {
                tokio::time::sleep_until(due.min(end).into()).await;
                // What was missed, while a pod was away, is not made up for.
                due = (due + spacing).max(Instant::now());
                if Instant::now() >= end {
                    break;
                }
            }
            let entry = &mut entries[fastrand::usize(..entries.len())];
            if entry.last == Outcome::Missing || fastrand::u32(..SETS) == 0 {
                self.set(entry).await;
            } else {
                self.get(entry).await;
            }
        }
    }

    async fn get(&mut self, entry: &mut Entry) {
        let client = &self.shared.client;
        let owner = client.node_for(entry.key()).ok();
        let began = Instant::now();
        let answer = client.get(entry.key()).await;
        let took = began.elapsed();
        let error = match answer {
            Ok(Some(item)) => {
                entry.judge(&item.value, self.shared.epoch.load(Ordering::Relaxed));
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
        self.ended(entry, owner, error, took).await;
    }

    async fn set(&mut self, entry: &mut Entry) {
        let client = &self.shared.client;
        let value = entry.next_value();
        let owner = client.node_for(entry.key()).ok();
        let began = Instant::now();
        let answer = client.set(entry.key(), value, TTL).await;
        let took = began.elapsed();
        let error = match answer {
            Ok(()) => {
                let owners = [owner.clone(), client.node_for(entry.key()).ok()];
                entry.acknowledged(owners, self.shared.epoch.load(Ordering::Relaxed));
                None
            }
            Err(error) => {
                entry.refused(error.delivery());
                Some(error)
            }
        };
        self.ended(entry, owner, error, took).await;
    }

    async fn ended(&mut self, entry: &Entry, owner: Option<NodeId>, error: Option<memring::Error>, took: Duration) {
        let kind = error.as_ref().map(memring::Error::kind);
        let node = error.as_ref().and_then(|error| error.node().cloned()).or(owner);
        let late = took > self.shared.timeout + LATE;
        self.recorder.record(self.number, Op { node, outcome: entry.last, error: kind, took, late });
        if took >= AT_ONCE || error.is_none_or(|error| error.delivery() != Delivery::NotSent) {
            self.refused = 0;
            return;
        }
        // Nothing was waited for, and so no other task had its turn.
        self.refused += 1;
        if self.refused.is_multiple_of(PATIENCE) {
            sleep(AT_ONCE).await;
        } else {
            yield_now().await;
        }
    }
}
