//! Reading many keys.

use std::collections::HashMap;
use std::hash::Hash;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::{Failures, KeysFailed, Turns, collect_pairs, pair};
use crate::client::Client;
use crate::client::commands::exptime;
use crate::connection::{GetForm, GetResult, NewCall};
use crate::dispatch::{FanOut, Limits, Line, Part};
use crate::error::{Delivery, Error, ErrorKind};
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
    /// All keys have one deadline, which starts when the iterator has ended. Keys that cannot be sent by then fail with
    /// [`Timeout`](ErrorKind::Timeout).
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
        self.read_many(keys.into_iter().collect(), GetForm::default()).await.gather().await
    }

    /// Reads as [`get_many`](Self::get_many), with each item's CAS unique ([`Item::cas`]).
    pub async fn gets_many<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> GetMany<K> {
        self.read_many(keys.into_iter().collect(), GetForm::with_cas(true)).await.gather().await
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
            Ok(exptime) => self.read_many(keys, GetForm { cas, touch: Some(exptime) }).await.gather().await,
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
        let read = self.read_many(keys.into_iter().collect(), GetForm::default()).await;
        collect_pairs(read.keys, read.results).await
    }

    async fn read_many<K: AsRef<[u8]>>(&self, mut keys: Vec<K>, form: GetForm) -> KeyResults<K> {
        let limits = Limits { items: keys.len(), window: WINDOW, deadline: self.deadline() };
        let dispatcher = self.operations().dispatcher();
        let lines = FanOut::new(dispatcher);
        // Somewhat more than an equal share, because the nodes' shares differ.
        let share = keys.len() / lines.nodes().max(1);
        let capacity = (share + share / 4 + 4).min(LARGEST_LINE_KEYS).min(keys.len());
        let mut results: Vec<GetResult> = Vec::with_capacity(keys.len());
        // Exclusive, although the keys are only read: the future is `Send` for keys that are not `Sync`, too.
        let (callers_keys, grouped, mut whole) = (&mut keys, &mut results, Key::placeholder());
        // Puts a result in place for each key: an error, or a miss until the response comes.
        let group = move |lines: &mut FanOut<Line<Key>>, index: usize| {
            let queued = self.keys.write_key(callers_keys[index].as_ref(), &mut whole).map_err(Error::from);
            let queued = queued.and_then(|()| lines.parts_for(whole.as_bytes()));
            grouped.push(queued.map(|lines| {
                Line::add(lines, index, whole.clone(), LARGEST_LINE_KEYS, capacity);
                None
            }));
        };
        let make_part =
            |Line { indexes, items }| Part::of_line(indexes, move || NewCall::get_many(items, form, limits.deadline));
        let mut turns = Turns::default();
        for (indexes, response) in lines.send(dispatcher, limits, group, make_part).await.into_iter().flatten() {
            turns.count(indexes.len()).await;
            Line::<Key>::gather(indexes, response, &mut results);
        }
        let mut read = KeyResults { keys, results };
        if read.results.iter().flatten().flatten().any(may_be_lease) {
            Box::pin(self.drop_leases(&mut read, form, limits.deadline)).await;
        }
        read
    }

    /// Reads the items that may be leases again, each key once, and makes misses of the leases among them.
    async fn drop_leases<K: AsRef<[u8]>>(&self, read: &mut KeyResults<K>, form: GetForm, deadline: Instant) {
        let KeyResults { keys, results } = read;
        let mut doubtful: HashMap<Key, (Item, Vec<usize>)> = HashMap::new();
        let mut turns = Turns::default();
        for index in 0..results.len() {
            turns.count(1).await;
            if let Ok(Some(item)) = &results[index]
                && may_be_lease(item)
                && let Ok(key) = self.keys.key(keys[index].as_ref())
            {
                doubtful.entry(key).or_insert_with(|| (item.clone(), Vec::new())).1.push(index);
            }
        }
        let mut doubtful = doubtful.into_iter();
        loop {
            if Instant::now() >= deadline {
                // One error for everything that is left, which can be much.
                let timed_out = Error::new(ErrorKind::Timeout, Delivery::Unknown);
                for (_, (_, indexes)) in doubtful {
                    turns.count(indexes.len()).await;
                    indexes.into_iter().for_each(|index| results[index] = Err(timed_out.clone()));
                }
                return;
            }
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

/// The results of the keys that were grouped by the deadline, in the caller's order.
struct KeyResults<K> {
    keys: Vec<K>,
    results: Vec<GetResult>,
}

impl<K> KeyResults<K> {
    async fn gather(self) -> GetMany<K> {
        let (mut hits, mut failures) = (Vec::with_capacity(self.keys.len()), Failures::new());
        let mut turns = Turns::default();
        for (key, result) in pair(self.keys, self.results) {
            turns.count(1).await;
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
