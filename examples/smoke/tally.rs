//! Counts and latencies, of everything, of each second, and of each node.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use memring::{ErrorKind, NodeId};

use crate::value::Outcome;

/// How far past its deadline an operation may end before it counts as late.
pub(crate) const LATE: Duration = Duration::from_millis(50);

/// More workers than this take turns at a lock, which none holds for long.
const SHARDS: usize = 16;

/// Latencies in microseconds up to a minute, to two digits.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "the bounds are constants")]
        Self(Histogram::new_with_bounds(1, 60_000_000, 2).expect("sound bounds"))
    }
}

impl Latencies {
    fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    fn merge(&mut self, other: &Self) {
        // Both have the same bounds.
        let _ = self.0.add(&other.0);
    }

    /// In microseconds; 0 if there are none.
    pub(crate) fn at(&self, quantile: f64) -> u64 {
        if self.0.is_empty() { 0 } else { self.0.value_at_quantile(quantile) }
    }

    pub(crate) fn max(&self) -> u64 {
        self.0.max()
    }
}

/// One operation that has ended.
#[derive(Debug)]
pub(crate) struct Op {
    pub(crate) node: Option<NodeId>,
    pub(crate) outcome: Outcome,
    pub(crate) error: Option<ErrorKind>,
    pub(crate) took: Duration,
    pub(crate) late: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) ops: u64,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    /// By the `Debug` name of their kind.
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) wrong: u64,
    pub(crate) stale: u64,
    /// Stale without any reason known: neither had the owner changed nor was a write in doubt.
    pub(crate) unexplained: u64,
    /// Ended more than [`LATE`] past the deadline.
    pub(crate) late: u64,
    pub(crate) latencies: Latencies,
    pub(crate) nodes: BTreeMap<NodeId, NodeTally>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct NodeTally {
    pub(crate) ops: u64,
    pub(crate) failed: u64,
    pub(crate) latencies: Latencies,
}

impl Tally {
    fn record(&mut self, op: Op) {
        self.ops += 1;
        self.latencies.record(op.took);
        self.late += u64::from(op.late);
        match op.outcome {
            Outcome::Fresh => self.hits += 1,
            Outcome::Stale { explained } => {
                self.hits += 1;
                self.stale += 1;
                self.unexplained += u64::from(!explained);
            }
            Outcome::Wrong => {
                self.hits += 1;
                self.wrong += 1;
            }
            Outcome::Missing => self.misses += 1,
            Outcome::None | Outcome::Stored | Outcome::Failed => {}
        }
        if let Some(kind) = op.error {
            *self.errors.entry(format!("{kind:?}")).or_default() += 1;
        }
        if let Some(node) = op.node {
            let tally = self.nodes.entry(node).or_default();
            tally.ops += 1;
            tally.failed += u64::from(op.error.is_some());
            tally.latencies.record(op.took);
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.ops += other.ops;
        self.hits += other.hits;
        self.misses += other.misses;
        for (kind, count) in &other.errors {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
        self.wrong += other.wrong;
        self.stale += other.stale;
        self.unexplained += other.unexplained;
        self.late += other.late;
        self.latencies.merge(&other.latencies);
        for (id, theirs) in &other.nodes {
            let ours = self.nodes.entry(id.clone()).or_default();
            ours.ops += theirs.ops;
            ours.failed += theirs.failed;
            ours.latencies.merge(&theirs.latencies);
        }
    }

    /// How many operations failed.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// Where workers leave what they did, by the second in which it ended: whoever collects may come late and still tells
/// the seconds apart.
#[derive(Debug)]
pub(crate) struct Recorder {
    start: Instant,
    shards: Vec<Mutex<BTreeMap<u64, Tally>>>,
}

impl Recorder {
    /// Counts seconds from then on.
    pub(crate) fn since(start: Instant) -> Self {
        Self { start, shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect() }
    }

    pub(crate) fn record(&self, worker: usize, op: Op) {
        let second = self.start.elapsed().as_secs();
        let mut shard = self.shards[worker % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
        shard.entry(second).or_default().record(op);
    }

    /// Everything that ended before the second numbered `end`, counting from 0, and was not taken yet.
    pub(crate) fn take(&self, end: u64) -> Tally {
        let mut taken = Tally::default();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let rest = shard.split_off(&end);
            let due = std::mem::replace(&mut *shard, rest);
            drop(shard);
            due.values().for_each(|tally| taken.merge(tally));
        }
        taken
    }
}
