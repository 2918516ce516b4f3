//! The measures of a run: operations, time, CPU time, latencies and memory.

use std::cell::Cell;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::Outcome;

/// The measures of one contender's run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) ops: u64,
    pub(crate) duration: Duration,
    /// CPU time of this process, in user space and kernel.
    pub(crate) cpu: Duration,
    /// The 50th and the 99th percentile.
    pub(crate) latency: Option<[Duration; 2]>,
}

impl Sample {
    pub(crate) fn per_second(&self) -> f64 {
        self.ops as f64 / self.duration.as_secs_f64()
    }

    pub(crate) fn cpu_micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.ops.max(1) as f64
    }
}

/// Latencies, sharded so that threads do not contend when they record.
#[derive(Debug)]
pub(crate) struct Latencies {
    shards: Vec<Mutex<Histogram<u32>>>,
}

const SHARDS: usize = 4;

impl Latencies {
    pub(crate) fn new() -> Outcome<Self> {
        let shard = || Ok(Mutex::new(Histogram::new_with_bounds(1_000, 60_000_000_000, 3)?));
        Ok(Self { shards: (0..SHARDS).map(|_| shard()).collect::<Outcome<_>>()? })
    }

    pub(crate) fn record(&self, latency: Duration, times: usize) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        lock(&self.shards[thread_shard()]).saturating_record_n(nanos, times as u32);
    }

    /// Returns the 50th and the 99th percentile, and resets all latencies.
    pub(crate) fn take(&self) -> Option<[Duration; 2]> {
        let mut all = lock(&self.shards[0]);
        for shard in &self.shards[1..] {
            let mut shard = lock(shard);
            // Cannot fail: both have the same bounds.
            let _ = all.add(&*shard);
            shard.reset();
        }
        let at = |quantile| Duration::from_nanos(all.value_at_quantile(quantile));
        let latency = (!all.is_empty()).then(|| [at(0.5), at(0.99)]);
        all.reset();
        latency
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn thread_shard() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static OWN: Cell<usize> = const { Cell::new(usize::MAX) });
    OWN.with(|own| {
        if own.get() == usize::MAX {
            own.set(THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        own.get()
    })
}

/// Returns the CPU time of this process's threads, with nanosecond resolution. Excludes threads that have ended.
pub(crate) fn cpu() -> Outcome<Duration> {
    let mut nanos = 0;
    for task in fs::read_dir("/proc/self/task")? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        nanos += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// Returns the resident memory of this process in bytes.
pub(crate) fn resident() -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? << 10)
}
