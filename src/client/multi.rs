//! Many keys at once: grouped by node, nodes together, answered by the caller's own keys.

mod read;
mod turns;
mod write;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

pub use self::read::GetMany;
pub(super) use self::turns::{Turn, take_turns};
pub use self::write::WriteMany;

use crate::error::Error;

/// Keys that failed for one cause.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct KeysFailed<K> {
    /// Why.
    pub error: Error,
    /// The keys, as the caller gave them.
    pub keys: Vec<K>,
}

/// Gathers keys that failed, by their common cause.
struct Failures<K> {
    errors: Vec<KeysFailed<K>>,
    /// Where each failure stands among the errors, which keep it alive.
    causes: HashMap<usize, usize>,
}

impl<K> Failures<K> {
    fn new() -> Self {
        Self { errors: Vec::new(), causes: HashMap::new() }
    }

    fn add(&mut self, key: K, error: Error) {
        match self.causes.entry(error.identity()) {
            Entry::Occupied(at) => self.errors[*at.get()].keys.push(key),
            Entry::Vacant(at) => {
                at.insert(self.errors.len());
                self.errors.push(KeysFailed { error, keys: vec![key] });
            }
        }
    }
}
