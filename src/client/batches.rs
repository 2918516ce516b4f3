//! Commands on many keys: grouped by node, all nodes at the same time, with a result for each of the caller's keys.

mod meta;
mod read;
mod write;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tokio::task::yield_now;

pub use self::read::GetMany;
pub use self::write::WriteMany;

use crate::error::{Delivery, Error, ErrorKind};

/// How many results are put in their places at a time, in some tens of microseconds.
const RESULTS_PER_TURN: usize = 4096;

/// Keys that failed for the same reason.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct KeysFailed<K> {
    /// Why the keys failed.
    pub error: Error,
    /// The keys, as the caller gave them.
    pub keys: Vec<K>,
}

/// Groups failed keys by their common error.
struct Failures<K> {
    errors: Vec<KeysFailed<K>>,
    /// The index in `errors` of each error, by its identity. `errors` keeps the identities valid.
    indexes: HashMap<usize, usize>,
    /// The index of the error of the key added last: often that of the next one, too.
    latest: usize,
}

impl<K> Failures<K> {
    fn new() -> Self {
        Self { errors: Vec::new(), indexes: HashMap::new(), latest: 0 }
    }

    fn add(&mut self, key: K, error: Error) {
        if let Some(latest) = self.errors.get_mut(self.latest)
            && latest.error.identity() == error.identity()
        {
            latest.keys.push(key);
            return;
        }
        match self.indexes.entry(error.identity()) {
            Entry::Occupied(index) => {
                self.latest = *index.get();
                self.errors[self.latest].keys.push(key);
            }
            Entry::Vacant(index) => {
                self.latest = *index.insert(self.errors.len());
                self.errors.push(KeysFailed { error, keys: vec![key] });
            }
        }
    }
}

/// Pairs the keys of a batch with their results. Keys without a result were not grouped by the deadline, and fail with
/// one error.
fn pair<K, T>(keys: Vec<K>, results: Vec<Result<T, Error>>) -> impl Iterator<Item = (K, Result<T, Error>)> {
    let mut timed_out = None;
    let ungrouped = std::iter::repeat_with(move || {
        let error: &mut Error = timed_out.get_or_insert_with(|| Error::new(ErrorKind::Timeout, Delivery::NotSent));
        Err(error.clone())
    });
    keys.into_iter().zip(results.into_iter().chain(ungrouped))
}

/// Lets other tasks run after every few thousand results: a million at once would block the thread.
#[derive(Default)]
struct Turns {
    results: usize,
}

impl Turns {
    /// Counts results that were put in their places.
    #[inline]
    async fn count(&mut self, results: usize) {
        self.results += results;
        if self.results >= RESULTS_PER_TURN {
            self.results = 0;
            yield_now().await;
        }
    }
}

/// Returns the keys of a batch with their results.
async fn collect_pairs<K, T>(keys: Vec<K>, results: Vec<Result<T, Error>>) -> Vec<(K, Result<T, Error>)> {
    let (mut pairs, mut turns) = (Vec::with_capacity(keys.len()), Turns::default());
    for pair in pair(keys, results) {
        turns.count(1).await;
        pairs.push(pair);
    }
    pairs
}
