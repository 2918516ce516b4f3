//! Reading many keys.

use std::collections::HashMap;
use std::hash::Hash;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::{Failures, KeysFailed};
use crate::client::Client;
use crate::client::commands::exptime;
use crate::connection::{GetForm, GetResult, NewCall};
use crate::dispatch::{FanOut, Line, Part};
use crate::error::Error;
use crate::item::Item;
use crate::key::{Key, MetaKey};
use crate::operations::may_be_lease;
use crate::protocol::LARGEST_LINE_KEYS;
use crate::ttl::{IntoTtl, InvalidTtl};

/// The most lines of one batch at a node: some thousand keys, which it answers in some milliseconds. A small part of
/// the queue, and measured to be as fast as all lines at once.
const WINDOW: usize = 32;

/// The most empty values of one batch that are read again at a time.
const SECOND_LOOKS: usize = 256;

/// The results of reading many keys. A key that is neither among the hits nor the errors is a miss.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GetMany<K> {
    /// The items found, with the keys as the caller gave them, in the caller's order. A key given twice has two hits.
    pub hits: Vec<(K, Item)>,
    /// The keys that failed, grouped by error.
    pub errors: Vec<KeysFailed<K>>,
}

impl<K> GetMany<K> {
    /// Returns whether every key is a hit or a miss.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.errors.is_empty()
    }

    /// Returns the items found by key, without the errors.
    #[must_use]
    pub fn into_map(self) -> HashMap<K, Item>
    where
        K: Eq + Hash,
    {
        self.hits.into_iter().collect()
    }
}

impl Client {
    /// Reads many items: one round trip to each node that owns any of them, all nodes at the same time.
    ///
    /// Never fails as a whole: keys that fail are in [`GetMany::errors`]. An invalid key fails alone. There is no limit
    /// on the number of keys. Each node gets some thousands of them at a time, so that other callers get their turn.
    /// All keys have one deadline.
    ///
    /// ```no_run
    /// # async fn doc(cache: memring::Client) {
    /// let found = cache.get_many(["a", "b", "c"]).await;
    /// for (key, item) in &found.hits {
    ///     println!("{key}: {} bytes", item.value.len());
    /// }
    /// for failed in &found.errors {
    ///     println!("{:?}: {}", failed.keys, failed.error);
    /// }
    /// # }
    /// ```
    pub async fn get_many<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> GetMany<K> {
        self.read_many(keys.into_iter().collect(), GetForm::default()).await.gather()
    }

    /// Reads as [`get_many`](Self::get_many), with each item's CAS unique ([`Item::cas`]).
    pub async fn gets_many<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> GetMany<K> {
        self.read_many(keys.into_iter().collect(), GetForm::with_cas(true)).await.gather()
    }

    /// Reads as [`get_many`](Self::get_many), and sets a new TTL of each item found. Needs memcached 1.5.3, as
    /// [`get_and_touch`](Self::get_and_touch). If the TTL is invalid, all keys fail and nothing is sent.
    pub async fn get_and_touch_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        ttl: impl IntoTtl,
    ) -> GetMany<K> {
        self.get_and_touch_all(keys.into_iter().collect(), false, exptime(ttl)).await
    }

    /// Reads as [`get_and_touch_many`](Self::get_and_touch_many), with each item's CAS unique ([`Item::cas`]).
    pub async fn gets_and_touch_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        ttl: impl IntoTtl,
    ) -> GetMany<K> {
        self.get_and_touch_all(keys.into_iter().collect(), true, exptime(ttl)).await
    }

    async fn get_and_touch_all<K>(&self, keys: Vec<K>, cas: bool, exptime: Result<u32, InvalidTtl>) -> GetMany<K>
    where
        K: AsRef<[u8]>,
    {
        match exptime {
            Ok(exptime) => self.read_many(keys, GetForm { cas, touch: Some(exptime) }).await.gather(),
            Err(_) if keys.is_empty() => GetMany { hits: Vec::new(), errors: Vec::new() },
            Err(reason) => GetMany { hits: Vec::new(), errors: vec![KeysFailed { error: reason.into(), keys }] },
        }
    }

    /// Reads as [`get_many`](Self::get_many), and returns every key in the caller's order with the result that
    /// [`get`](Self::get) would return.
    ///
    /// ```no_run
    /// # async fn doc(cache: memring::Client) {
    /// for (key, outcome) in cache.get_each(["a", "b", "c"]).await {
    ///     match outcome {
    ///         Ok(Some(item)) => println!("{key}: {} bytes", item.value.len()),
    ///         Ok(None) => println!("{key}: a miss"),
    ///         Err(error) => println!("{key}: {error}"),
    ///     }
    /// }
    /// # }
    /// ```
    pub async fn get_each<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Vec<(K, Result<Option<Item>, Error>)> {
        self.read_many(keys.into_iter().collect(), GetForm::default()).await.into_results().collect()
    }

    async fn read_many<K: AsRef<[u8]>>(&self, keys: Vec<K>, form: GetForm) -> KeyResults<K> {
        let deadline = self.deadline();
        let mut results = Vec::with_capacity(keys.len());
        let lines = self.group_by_owner(&keys, &mut results);
        let make_part = |Line { indexes, items }| Part {
            tag: indexes,
            call: NewCall::get_many(items, form, deadline),
            after: None,
        };
        for (indexes, response) in lines.send(self.operations().dispatcher(), WINDOW, deadline, make_part).await {
            Line::<Key>::gather(indexes, response, &mut results);
        }
        let mut read = KeyResults { keys, results };
        if read.results.iter().flatten().flatten().any(may_be_lease) {
            Box::pin(self.drop_leases(&mut read, form, deadline)).await;
        }
        read
    }

    /// Groups the keys into lines by their owners, and puts a result in place for each: an error, or a miss until the
    /// response comes.
    ///
    /// Apart from the sending, which must not borrow the keys: its future is `Send` for keys that are not `Sync`, too.
    fn group_by_owner<K: AsRef<[u8]>>(&self, keys: &[K], results: &mut Vec<GetResult>) -> FanOut<Line<Key>> {
        let mut lines = FanOut::new(self.operations().dispatcher());
        // Somewhat more than an equal share, because the nodes' shares differ.
        let share = keys.len() / lines.nodes().max(1);
        let capacity = (share + share / 4 + 4).min(LARGEST_LINE_KEYS).min(keys.len());
        let mut whole = Key::placeholder();
        for (index, key) in keys.iter().enumerate() {
            let queued = self.keys.write_key(key.as_ref(), &mut whole).map_err(Error::from);
            let queued = queued.and_then(|()| lines.parts_for(whole.as_bytes()));
            results.push(queued.map(|lines| {
                Line::add(lines, index, whole.clone(), LARGEST_LINE_KEYS, capacity);
                None
            }));
        }
        lines
    }

    /// Reads the items that may be leases again, each key once, and makes misses of the leases among them.
    async fn drop_leases<K: AsRef<[u8]>>(&self, read: &mut KeyResults<K>, form: GetForm, deadline: Instant) {
        let KeyResults { keys, results } = read;
        let mut doubtful: HashMap<Key, (Item, Vec<usize>)> = HashMap::new();
        for (index, (key, result)) in keys.iter().zip(&*results).enumerate() {
            if let Ok(Some(item)) = result
                && may_be_lease(item)
                && let Ok(key) = self.keys.key(key.as_ref())
            {
                doubtful.entry(key).or_insert_with(|| (item.clone(), Vec::new())).1.push(index);
            }
        }
        let mut doubtful = doubtful.into_iter();
        loop {
            let look = |(key, (item, indexes)): (Key, (Item, Vec<usize>))| async move {
                (indexes, self.operations().unless_lease(&MetaKey::from(key), item, form, deadline).await)
            };
            let looked = join_all(doubtful.by_ref().take(SECOND_LOOKS).map(look)).await;
            if looked.is_empty() {
                return;
            }
            for (indexes, result) in looked {
                indexes.into_iter().for_each(|index| results[index].clone_from(&result));
            }
        }
    }
}

/// One result for each key, in the caller's order.
struct KeyResults<K> {
    keys: Vec<K>,
    results: Vec<GetResult>,
}

impl<K> KeyResults<K> {
    fn into_results(self) -> impl Iterator<Item = (K, GetResult)> {
        self.keys.into_iter().zip(self.results)
    }

    fn gather(self) -> GetMany<K> {
        let mut hits = Vec::with_capacity(self.keys.len());
        let mut failures = Failures::new();
        for (key, result) in self.into_results() {
            match result {
                Ok(Some(item)) => hits.push((key, item)),
                Ok(None) => {}
                Err(error) => failures.add(key, error),
            }
        }
        GetMany { hits, errors: failures.errors }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    /// This does not happen. If it did, the key must not be a miss.
    #[tokio::test]
    async fn a_key_without_an_owner_is_an_error() {
        // No server listens there, and none has to.
        let cache = Client::builder().nodes(["127.0.0.1:1"]).connect().await.unwrap();
        cache.operations().dispatcher().remove_owners();
        let found = cache.get_many(["a", "b"]).await;
        let [failed] = &found.errors[..] else { panic!("{found:?}") };
        assert_eq!((failed.error.kind(), &failed.keys[..]), (ErrorKind::NoNodes, &["a", "b"][..]));
        assert_eq!(cache.get("a").await.unwrap_err().kind(), ErrorKind::NoNodes);
    }
}
