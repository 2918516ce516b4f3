//! Commands on many keys: grouped by node, all nodes at the same time, with a result for each of the caller's keys.

mod meta;
mod read;
mod write;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

pub use self::read::GetMany;
pub use self::write::WriteMany;

use crate::error::Error;

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
}

impl<K> Failures<K> {
    fn new() -> Self {
        Self { errors: Vec::new(), indexes: HashMap::new() }
    }

    fn add(&mut self, key: K, error: Error) {
        match self.indexes.entry(error.identity()) {
            Entry::Occupied(index) => self.errors[*index.get()].keys.push(key),
            Entry::Vacant(index) => {
                index.insert(self.errors.len());
                self.errors.push(KeysFailed { error, keys: vec![key] });
            }
        }
    }
}
