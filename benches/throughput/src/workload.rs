//! What is done, how much of it at a time, and for how long; and the loop in which every client does it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::Outcome;
use crate::data::{Dataset, Key, Pick};
use crate::meter::Latencies;

/// How many keys one get_many or set_many has.
pub(crate) const BATCH: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    Get,
    Miss,
    Set,
    /// Nine gets to a set.
    Mixed,
    GetMany,
    SetMany,
}

impl Op {
    pub(crate) const ALL: [Self; 6] = [Self::Get, Self::Miss, Self::Set, Self::Mixed, Self::GetMany, Self::SetMany];

    pub(crate) fn keys(self) -> usize {
        if matches!(self, Self::GetMany | Self::SetMany) { BATCH } else { 1 }
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
        found.ok_or_else(|| format!("no operation {text:?}: get, miss, set, mixed, get_many, set_many"))
    }
}

/// When a run is over: nothing new is begun then, and what was begun is waited for and counted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    Elapsed(Duration),
    Count(u64),
}

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) op: Op,
    pub(crate) data: Arc<Dataset>,
    /// How many operations are under way at a time, over all nodes.
    pub(crate) window: usize,
    pub(crate) until: Until,
    pub(crate) latencies: Arc<Latencies>,
}

/// A client under measurement. Values are compared before they count.
pub(crate) trait Cache: Clone + Send + Sync + 'static {
    fn get(&self, key: &str) -> impl Future<Output = Outcome<Option<impl AsRef<[u8]> + Send>>> + Send;

    fn set(&self, key: &str, value: &Bytes) -> impl Future<Output = Outcome<()>> + Send;

    /// Fails unless there is a value for every key, and `check` finds it right.
    fn get_many(
        &self,
        keys: &[Key],
        check: impl Fn(&str, &[u8]) -> bool + Send + Sync,
    ) -> impl Future<Output = Outcome<()>> + Send;

    fn set_many(&self, keys: &[Key], values: &[Bytes]) -> impl Future<Output = Outcome<()>> + Send;
}

/// How many operations were done: one task per operation under way, as in a service.
pub(crate) async fn drive<C: Cache>(cache: &C, work: &Work) -> Outcome<u64> {
    let start = Instant::now();
    let window = work.window as u64;
    let callers: Vec<_> = (0..window)
        .map(|caller| {
            let (cache, mut work) = (cache.clone(), work.clone());
            if let Until::Count(count) = work.until {
                work.until = Until::Count(count / window + u64::from(caller < count % window));
            }
            tokio::spawn(async move { call(&cache, &work, start, caller).await })
        })
        .collect();
    let mut done = 0;
    for caller in callers {
        done += caller.await??;
    }
    Ok(done)
}

/// With many under way, each caller takes the time of one operation in so many: reading the clock and recording what it says
/// would otherwise cost as much as a part of what is measured. (The ceilings read it once for every read of a socket.)
const TIMED_ONE_IN: u64 = 8;
const ALL_TIMED_UP_TO: usize = 16;

async fn call<C: Cache>(cache: &C, work: &Work, start: Instant, seed: u64) -> Outcome<u64> {
    let stride = if work.window <= ALL_TIMED_UP_TO || work.op.keys() > 1 { 1 } else { TIMED_ONE_IN };
    let mut turn = Turn::new(work, seed);
    let mut done = 0;
    loop {
        let begun = Instant::now();
        match work.until {
            // Everybody does one, so that callers that are slow to start do not count as none.
            Until::Elapsed(time) if begun - start >= time && done > 0 => return Ok(done),
            Until::Count(count) if done >= count => return Ok(done),
            _ => once(cache, work, &mut turn).await?,
        }
        done += 1;
        work.latencies.record(begun.elapsed(), 1);
        let untimed = match work.until {
            Until::Count(count) => (stride - 1).min(count - done),
            Until::Elapsed(_) => stride - 1,
        };
        for _ in 0..untimed {
            once(cache, work, &mut turn).await?;
        }
        done += untimed;
    }
}

/// The place of a caller in the list of picks, which it walks from a random start. A service has its key at hand, and
/// would not fetch it from somewhere in memory for every operation. A batch is [`BATCH`] neighbours of the list of items.
struct Turn {
    at: usize,
    places: usize,
    done: usize,
}

impl Turn {
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

async fn once<C: Cache>(cache: &C, work: &Work, turn: &mut Turn) -> Outcome<()> {
    let Work { op, data, .. } = work;
    let at = turn.next();
    let op = match op {
        Op::Mixed if turn.done.is_multiple_of(10) => Op::Set,
        Op::Mixed => Op::Get,
        &op => op,
    };
    match op {
        Op::Get | Op::Mixed => {
            let key = &data.picks[at].key;
            match cache.get(key).await? {
                Some(value) if data.is_value_of(key, value.as_ref()) => Ok(()),
                Some(_) => Err("a wrong value".into()),
                None => Err("a miss where there is a value".into()),
            }
        }
        Op::Miss => match cache.get(&data.missing[data.picks[at].item as usize]).await? {
            Some(_) => Err("a value where there is none".into()),
            None => Ok(()),
        },
        Op::Set => {
            let Pick { key, item } = &data.picks[at];
            cache.set(key, &data.values[*item as usize]).await
        }
        Op::GetMany => {
            let keys = &data.keys[at..at + BATCH];
            cache.get_many(keys, |key, value| data.is_value_of(key, value)).await
        }
        Op::SetMany => cache.set_many(&data.keys[at..at + BATCH], &data.values[at..at + BATCH]).await,
    }
}
