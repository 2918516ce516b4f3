//! Reading many keys.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::turns::{Turn, take_turns};
use super::{Failures, KeysFailed};
use crate::client::Client;
use crate::client::commands::exptime;
use crate::client::lookup::may_be_lease;
use crate::connection::{Answer, GetResult, unexpected_response};
use crate::error::Error;
use crate::item::Item;
use crate::key::Key;
use crate::node::Node;
use crate::protocol::{Keys, LARGEST_LINE_KEYS, Request};
use crate::ttl::{IntoTtl, InvalidTtl};

/// How many lines of one batch a node has at a time: some thousand keys, which it answers in some milliseconds. A small part
/// of its queue, and measured to be as fast as all at once.
const WINDOW: usize = 32;

/// How many of the empty values of one batch are looked at again at a time.
const DOUBTFUL_AT_A_TIME: usize = 256;

/// What was found of many keys, and what could not be said.
///
/// Keys that are neither among the hits nor the errors are not in the cache.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GetMany<K> {
    /// The items found, each with the key as the caller gave it, in the caller's order. A key given twice is answered
    /// twice.
    pub hits: Vec<(K, Item)>,
    /// The keys of which nothing can be said, by their common cause.
    pub errors: Vec<KeysFailed<K>>,
}

impl<K> GetMany<K> {
    /// Whether every key was answered, found or not.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.errors.is_empty()
    }

    /// The items found, by key; leaves the errors behind.
    #[must_use]
    pub fn into_map(self) -> HashMap<K, Item>
    where
        K: Eq + Hash,
    {
        self.hits.into_iter().collect()
    }
}

impl Client {
    /// Reads many items: one round trip to each node concerned, all at the same time.
    ///
    /// Never fails as a whole: what some nodes cannot say is in [`GetMany::errors`], and an invalid key fails alone. Any
    /// number of keys may be asked for; some thousands at a time go to each node, so that other callers get their turn, and
    /// the one deadline is for all of them.
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
        self.look_up_many(keys.into_iter().collect(), false, None).await.gather()
    }

    /// As [`get_many`](Self::get_many), with each item's version ([`Item::cas`]).
    pub async fn gets_many<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> GetMany<K> {
        self.look_up_many(keys.into_iter().collect(), true, None).await.gather()
    }

    /// As [`get_many`](Self::get_many), and gives each item found a new time to live. Needs memcached 1.5.3, as
    /// [`get_and_touch`](Self::get_and_touch) does. With a time to live that is none, all keys fail for it, unsent.
    pub async fn get_and_touch_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        ttl: impl IntoTtl,
    ) -> GetMany<K> {
        self.get_and_touch_all(keys.into_iter().collect(), false, exptime(ttl)).await
    }

    /// As [`get_and_touch_many`](Self::get_and_touch_many), with each item's version ([`Item::cas`]).
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
            Ok(exptime) => self.look_up_many(keys, cas, Some(exptime)).await.gather(),
            Err(_) if keys.is_empty() => GetMany { hits: Vec::new(), errors: Vec::new() },
            Err(reason) => GetMany { hits: Vec::new(), errors: vec![KeysFailed { error: reason.into(), keys }] },
        }
    }

    /// As [`get_many`](Self::get_many), with every key in the caller's order and an outcome of its own: what
    /// [`get`](Self::get) would say to it.
    ///
    /// ```no_run
    /// # async fn doc(cache: memring::Client) {
    /// for (key, outcome) in cache.get_each(["a", "b", "c"]).await {
    ///     match outcome {
    ///         Ok(Some(item)) => println!("{key}: {} bytes", item.value.len()),
    ///         Ok(None) => println!("{key}: not there"),
    ///         Err(error) => println!("{key}: {error}"),
    ///     }
    /// }
    /// # }
    /// ```
    pub async fn get_each<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Vec<(K, Result<Option<Item>, Error>)> {
        self.look_up_many(keys.into_iter().collect(), false, None).await.into_outcomes().collect()
    }

    async fn look_up_many<K: AsRef<[u8]>>(&self, keys: Vec<K>, cas: bool, touch: Option<u32>) -> Answered<K> {
        let deadline = self.deadline();
        let mut lookups: Vec<GetResult> = Vec::with_capacity(keys.len());
        let groups = self.group_by_owner(&keys, &mut lookups);
        let answers = join_all(groups.map(|group| group.ask(self, cas, touch, deadline))).await;
        for (places, answer) in answers.into_iter().flatten() {
            match answer {
                Ok(Answer::Many(found)) => {
                    for (place, lookup) in places.into_iter().zip(found) {
                        lookups[place] = lookup;
                    }
                }
                other => {
                    let error = other.err().unwrap_or_else(unexpected_response);
                    places.into_iter().for_each(|place| lookups[place] = Err(error.clone()));
                }
            }
        }
        let mut answered = Answered { keys, lookups };
        if answered.lookups.iter().flatten().flatten().any(may_be_lease) {
            Box::pin(self.ask_again(&mut answered, cas, deadline)).await;
        }
        answered
    }

    /// Looks closely at what may be leases and no values.
    async fn ask_again<K: AsRef<[u8]>>(&self, answered: &mut Answered<K>, cas: bool, deadline: Instant) {
        let Answered { keys, lookups } = answered;
        // Each key once, wherever it was given.
        let mut doubtful: HashMap<Key, (Item, Vec<usize>)> = HashMap::new();
        for (place, (key, lookup)) in keys.iter().zip(&*lookups).enumerate() {
            if let Ok(Some(item)) = lookup
                && may_be_lease(item)
                && let Ok(key) = self.key(key)
            {
                doubtful.entry(key).or_insert_with(|| (item.clone(), Vec::new())).1.push(place);
            }
        }
        let mut doubtful = doubtful.into_iter();
        loop {
            // What is left of the one deadline.
            let hasty = &self.until(deadline);
            let look = |(key, (item, places)): (Key, (Item, Vec<usize>))| async move {
                (places, hasty.unless_lease(key.into(), item, cas).await)
            };
            let looked = join_all(doubtful.by_ref().take(DOUBTFUL_AT_A_TIME).map(look)).await;
            if looked.is_empty() {
                return;
            }
            for (places, lookup) in looked {
                places.into_iter().for_each(|place| lookups[place].clone_from(&lookup));
            }
        }
    }

    /// What to ask of which node. What needs no asking is in `lookups`. Apart from the asking, which must not hold on to
    /// borrowed keys: its future could be sent to another thread only if the keys could be shared with it.
    fn group_by_owner<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        lookups: &mut Vec<GetResult>,
    ) -> impl Iterator<Item = Group> + use<K> {
        let snapshot = self.inner.snapshot.load_full();
        // Somewhat more than its part for each node, for parts are not equal.
        let part = keys.len() / snapshot.nodes().len().max(1);
        let part = (part + part / 4 + 4).min(LARGEST_LINE_KEYS).min(keys.len());
        let mut groups: Vec<Group> = snapshot.nodes().iter().map(|node| Group::new(Arc::clone(node), part)).collect();
        let mut nobody = None;
        let mut whole = Key::blank();
        for (place, key) in keys.iter().enumerate() {
            lookups.push(match self.put_key(key.as_ref(), &mut whole) {
                Ok(()) => match snapshot.owner(whole.as_bytes()) {
                    Some(owner) => {
                        groups[owner].add(place, &whole);
                        Ok(None)
                    }
                    // One cause for all of them.
                    None => Err(nobody.get_or_insert_with(|| snapshot.no_nodes()).clone()),
                },
                Err(invalid) => Err(invalid.into()),
            });
        }
        // The nodes are not held on to while waiting: the groups have those they need.
        groups.into_iter().filter(|group| !group.lines.is_empty())
    }
}

/// The keys one node is asked for, in lines of the size the wire likes, each with its place among all keys.
struct Group {
    node: Arc<Node>,
    lines: Vec<(Vec<usize>, Vec<Key>)>,
    /// How many keys a line is likely to hold.
    part: usize,
}

impl Group {
    fn new(node: Arc<Node>, part: usize) -> Self {
        Self { node, lines: Vec::new(), part }
    }

    fn add(&mut self, place: usize, key: &Key) {
        if self.lines.last().is_none_or(|(_, keys)| keys.len() == LARGEST_LINE_KEYS) {
            self.lines.push((Vec::with_capacity(self.part), Vec::with_capacity(self.part)));
        }
        if let Some((places, keys)) = self.lines.last_mut() {
            places.push(place);
            keys.push(key.clone());
        }
    }

    async fn ask(
        self,
        client: &Client,
        cas: bool,
        touch: Option<u32>,
        deadline: Instant,
    ) -> Vec<(Vec<usize>, Result<Answer, Error>)> {
        let turn = |(places, keys)| Turn {
            tag: places,
            request: Request::Get { keys: Keys::Many(keys), cas, touch },
            after: None,
        };
        let turns = self.lines.into_iter().map(turn).collect();
        take_turns(client, &self.node, turns, WINDOW, deadline).await
    }
}

/// What came of a look-up of many keys: one outcome for each.
struct Answered<K> {
    keys: Vec<K>,
    lookups: Vec<GetResult>,
}

impl<K> Answered<K> {
    /// Every key with its outcome, in the caller's order.
    fn into_outcomes(self) -> impl Iterator<Item = (K, GetResult)> {
        self.keys.into_iter().zip(self.lookups)
    }

    fn gather(self) -> GetMany<K> {
        let mut hits = Vec::with_capacity(self.keys.len());
        let mut failures = Failures::new();
        for (key, lookup) in self.into_outcomes() {
            match lookup {
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

    /// It does not happen; if it did, it would be no miss.
    #[tokio::test]
    async fn a_key_without_an_owner_is_an_error() {
        // Nobody listens there, nor has to.
        let cache = Client::builder().nodes(["127.0.0.1:1"]).connect().await.unwrap();
        let snapshot = cache.inner.snapshot.load().without_owners();
        cache.inner.snapshot.store(Arc::new(snapshot));
        let found = cache.get_many(["a", "b"]).await;
        let [failed] = &found.errors[..] else { panic!("{found:?}") };
        assert_eq!((failed.error.kind(), &failed.keys[..]), (ErrorKind::NoNodes, &["a", "b"][..]));
        assert_eq!(cache.get("a").await.unwrap_err().kind(), ErrorKind::NoNodes);
    }
}
