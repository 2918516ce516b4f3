//! A workload: its operation, window and duration, and the loop in which every client runs it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::Outcome;
use crate::data::{Dataset, Key, Pick};
use crate::meter::Latencies;

/// The number of keys of a get_many or set_many.
pub(crate) const BATCH_KEYS: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    Get,
    Miss,
    Set,
    /// Nine gets to one set.
    Mixed,
    GetMany,
    SetMany,
}

impl Op {
    pub(crate) const ALL: [Self; 6] = [Self::Get, Self::Miss, Self::Set, Self::Mixed, Self::GetMany, Self::SetMany];

    pub(crate) fn keys(self) -> usize {
        if matches!(self, Self::GetMany | Self::SetMany) { BATCH_KEYS } else { 1 }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Get => "get",
            Self::Miss => "miss",
            Self::Set => "set",
            Self::Mixed => "mixed",
            Self::GetMany => "get_many",
            Self::SetMany => "set_many",
        })
    }
}

impl FromStr for Op {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|op| op.to_string() == text);
        found.ok_or_else(|| format!("unknown operation {text:?}: use get, miss, set, mixed, get_many or set_many"))
    }
}

/// The end of a run. Operations in flight then are completed and counted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    Elapsed(Duration),
    Count(u64),
}

/// The workload of one run.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) op: Op,
    pub(crate) data: Arc<Dataset>,
    /// The number of concurrent operations, over all nodes.
    pub(crate) window: usize,
    pub(crate) until: Until,
    pub(crate) latencies: Arc<Latencies>,
}

/// A client to measure. The benchmark checks every value.
pub(crate) trait Cache: Clone + Send + Sync + 'static {
    fn get(&self, key: &str) -> impl Future<Output = Outcome<Option<impl AsRef<[u8]> + Send>>> + Send;

    fn set(&self, key: &str, value: &Bytes) -> impl Future<Output = Outcome<()>> + Send;

    /// Fails unless every key is a hit and `check` accepts its value.
    fn get_many(
        &self,
        keys: &[Key],
        check: impl Fn(&str, &[u8]) -> bool + Send + Sync,
    ) -> impl Future<Output = Outcome<()>> + Send;

    fn set_many(&self, keys: &[Key], values: &[Bytes]) -> impl Future<Output = Outcome<()>> + Send;
}

/// Runs the workload with one task per concurrent operation, as a service does. Returns the number of operations.
pub(crate) async fn drive<C: Cache>(cache: &C, work: &Work) -> Outcome<u64> {
    let start = Instant::now();
    let window = work.window as u64;
    let callers: Vec<_> = (0..window)
        .map(|caller| {
            let (cache, mut work) = (cache.clone(), work.clone());
            if let Until::Count(count) = work.until {
                work.until = Until::Count(count / window + u64::from(caller < count % window));
            }
            tokio::spawn(async move { run_caller(&cache, &work, start, caller).await })
        })
        .collect();
    let mut done = 0;
    for caller in callers {
        done += caller.await??;
    }
    Ok(done)
}

/// In large windows each caller times one operation in this many. Reading the clock and recording the latency would
/// otherwise be a considerable part of the cost. (The ceilings read the clock once per read of a socket.)
const OPERATIONS_PER_TIMING: u64 = 8;
/// The largest window in which every operation is timed.
const MAX_FULLY_TIMED_WINDOW: usize = 16;

async fn run_caller<C: Cache>(cache: &C, work: &Work, start: Instant, seed: u64) -> Outcome<u64> {
    let stride = if work.window <= MAX_FULLY_TIMED_WINDOW || work.op.keys() > 1 { 1 } else { OPERATIONS_PER_TIMING };
    let mut walk = KeyWalk::new(work, seed);
    let mut done = 0;
    loop {
        let begin = Instant::now();
        match work.until {
            // Every caller runs at least one operation, so that callers that start late count too.
            Until::Elapsed(time) if begin - start >= time && done > 0 => return Ok(done),
            Until::Count(count) if done >= count => return Ok(done),
            _ => run_operation(cache, work, &mut walk).await?,
        }
        done += 1;
        work.latencies.record(begin.elapsed(), 1);
        let untimed = match work.until {
            Until::Count(count) => (stride - 1).min(count - done),
            Until::Elapsed(_) => stride - 1,
        };
        for _ in 0..untimed {
            run_operation(cache, work, &mut walk).await?;
        }
        done += untimed;
    }
}

/// A caller's walk over the list of picks, from a random start. The list holds the keys themselves, because a service
/// has its key at hand and does not load it from elsewhere in memory. Batches take [`BATCH_KEYS`] neighbors of the
/// items.
struct KeyWalk {
    at: usize,
    places: usize,
    done: usize,
}

impl KeyWalk {
    fn new(work: &Work, seed: u64) -> Self {
        let Work { op, data, .. } = work;
        let places = if op.keys() > 1 { data.keys.len() + 1 - op.keys() } else { data.picks.len() };
        Self { at: fastrand::Rng::with_seed(seed).usize(..places), places, done: seed as usize }
    }

    fn next(&mut self) -> usize {
        self.done += 1;
        self.at = if self.at + 1 < self.places { self.at + 1 } else { 0 };
        self.at
    }
}

async fn run_operation<C: Cache>(cache: &C, work: &Work, walk: &mut KeyWalk) -> Outcome<()> {
    let Work { op, data, .. } = work;
    let at = walk.next();
    let op = match op {
        Op::Mixed if walk.done.is_multiple_of(10) => Op::Set,
        Op::Mixed => Op::Get,
        &op => op,
    };
    match op {
        Op::Get | Op::Mixed => {
            let key = &data.picks[at].key;
            match cache.get(key).await? {
                Some(value) if data.is_value_of(key, value.as_ref()) => Ok(()),
                Some(_) => Err("wrong value".into()),
                None => Err("unexpected miss".into()),
            }
        }
        Op::Miss => match cache.get(&data.missing[data.picks[at].item as usize]).await? {
            Some(_) => Err("unexpected hit".into()),
            None => Ok(()),
        },
        Op::Set => {
            let Pick { key, item } = &data.picks[at];
            cache.set(key, &data.values[*item as usize]).await
        }
        Op::GetMany => {
            let keys = &data.keys[at..at + BATCH_KEYS];
            cache.get_many(keys, |key, value| data.is_value_of(key, value)).await
        }
        Op::SetMany => cache.set_many(&data.keys[at..at + BATCH_KEYS], &data.values[at..at + BATCH_KEYS]).await,
    }
}
