//! Counts and latencies: in total, per second and per node.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use memring::{ErrorKind, NodeId};

use crate::value::Outcome;

/// An operation that ends later than this after its deadline counts as late.
pub(crate) const LATE: Duration = Duration::from_millis(50);

/// Workers beyond this number share locks, which are held only for moments.
const SHARDS: usize = 16;

/// Latencies in microseconds, up to one minute, to two significant digits.
#[derive(Debug, Clone)]
pub(crate) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "the bounds are constants")]
        Self(Histogram::new_with_bounds(1, 60_000_000, 2).expect("valid bounds"))
    }
}

impl Latencies {
    fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    fn merge(&mut self, other: &Self) {
        // Cannot fail: both have the same bounds.
        let _ = self.0.add(&other.0);
    }

    /// Returns a quantile in microseconds, or 0 without any latency.
    pub(crate) fn at(&self, quantile: f64) -> u64 {
        if self.0.is_empty() { 0 } else { self.0.value_at_quantile(quantile) }
    }

    pub(crate) fn max(&self) -> u64 {
        self.0.max()
    }
}

/// A finished operation.
#[derive(Debug)]
pub(crate) struct Op {
    pub(crate) node: Option<NodeId>,
    pub(crate) outcome: Outcome,
    pub(crate) error: Option<ErrorKind>,
    pub(crate) latency: Duration,
    pub(crate) late: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) ops: u64,
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    /// By the `Debug` name of the error kind.
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) wrong: u64,
    pub(crate) stale: u64,
    /// Stale although the owner did not change and no write was in doubt.
    pub(crate) unexplained: u64,
    /// Operations that ended more than [`LATE`] after their deadline.
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
        self.latencies.record(op.latency);
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
            tally.latencies.record(op.latency);
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

    /// Returns the number of failed operations.
    pub(crate) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

/// Collects finished operations by the second in which they ended, so that a late reader still gets each second alone.
#[derive(Debug)]
pub(crate) struct Recorder {
    start: Instant,
    shards: Vec<Mutex<BTreeMap<u64, Tally>>>,
}

impl Recorder {
    /// Creates a recorder that numbers seconds from `start`.
    pub(crate) fn since(start: Instant) -> Self {
        Self { start, shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect() }
    }

    pub(crate) fn record(&self, worker: usize, op: Op) {
        let second = self.start.elapsed().as_secs();
        let mut shard = self.shards[worker % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
        shard.entry(second).or_default().record(op);
    }

    /// Takes all operations that ended before second number `end`, counting from 0.
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
