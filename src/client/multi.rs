//! Many keys at once: grouped by node, nodes together, answered by the caller's own keys.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::commands::exptime;
use super::{Client, misfit};
use crate::connection::{Answer, Call, Lookup};
use crate::error::Error;
use crate::item::Item;
use crate::key::Key;
use crate::node::Node;
use crate::protocol::{Keys, LARGEST_LINE_KEYS, Request};
use crate::ttl::{InvalidTtl, Ttl};

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

/// Keys that failed for one cause.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct KeysFailed<K> {
    /// Why.
    pub error: Error,
    /// The keys, as the caller gave them.
    pub keys: Vec<K>,
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
    /// number of keys may be asked for; the one deadline is for all of them.
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
        self.look_up_many(keys.into_iter().collect(), false, None).await
    }

    /// As [`get_many`](Self::get_many), with each item's version ([`Item::cas`]).
    pub async fn gets_many<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> GetMany<K> {
        self.look_up_many(keys.into_iter().collect(), true, None).await
    }

    /// As [`get_many`](Self::get_many), and gives each item found a new time to live. Needs memcached 1.5.3, as
    /// [`get_and_touch`](Self::get_and_touch) does. With a time to live that is none, all keys fail for it, unsent.
    pub async fn get_and_touch_many<K, T>(&self, keys: impl IntoIterator<Item = K>, ttl: T) -> GetMany<K>
    where
        K: AsRef<[u8]>,
        T: TryInto<Ttl>,
        InvalidTtl: From<T::Error>,
    {
        self.touch_many(keys.into_iter().collect(), false, exptime(ttl)).await
    }

    /// As [`get_and_touch_many`](Self::get_and_touch_many), with each item's version ([`Item::cas`]).
    pub async fn gets_and_touch_many<K, T>(&self, keys: impl IntoIterator<Item = K>, ttl: T) -> GetMany<K>
    where
        K: AsRef<[u8]>,
        T: TryInto<Ttl>,
        InvalidTtl: From<T::Error>,
    {
        self.touch_many(keys.into_iter().collect(), true, exptime(ttl)).await
    }

    async fn touch_many<K>(&self, keys: Vec<K>, cas: bool, exptime: Result<u32, InvalidTtl>) -> GetMany<K>
    where
        K: AsRef<[u8]>,
    {
        match exptime {
            Ok(exptime) => self.look_up_many(keys, cas, Some(exptime)).await,
            Err(_) if keys.is_empty() => GetMany { hits: Vec::new(), errors: Vec::new() },
            Err(reason) => GetMany { hits: Vec::new(), errors: vec![KeysFailed { error: reason.into(), keys }] },
        }
    }

    async fn look_up_many<K: AsRef<[u8]>>(&self, keys: Vec<K>, cas: bool, touch: Option<u32>) -> GetMany<K> {
        let deadline = self.deadline();
        // Which question each of the caller's keys is answered by, or why it was not asked.
        let mut questions: Vec<Result<usize, Error>> = Vec::with_capacity(keys.len());
        let mut asked = Vec::with_capacity(keys.len());
        {
            let mut known: HashMap<&[u8], usize> = HashMap::with_capacity(keys.len());
            for key in &keys {
                let bytes = key.as_ref();
                questions.push(match known.get(bytes) {
                    Some(&question) => Ok(question),
                    None => self.key(bytes).map(|key| {
                        known.insert(bytes, asked.len());
                        asked.push(key);
                        asked.len() - 1
                    }),
                });
            }
        }
        let answers = self.ask_every_owner(asked, cas, touch, deadline).await;
        assemble(keys, questions, answers)
    }

    /// Asks for every key at the node that owns it.
    async fn ask_every_owner(&self, asked: Vec<Key>, cas: bool, touch: Option<u32>, deadline: Instant) -> Vec<Lookup> {
        let mut answers: Vec<Lookup> = std::iter::repeat_with(|| Ok(None)).take(asked.len()).collect();
        let snapshot = self.inner.snapshot.load_full();
        let mut groups: Vec<Group> = snapshot.nodes().iter().map(|node| Group::new(Arc::clone(node))).collect();
        if groups.is_empty() {
            answers.fill(Err(snapshot.no_nodes()));
            return answers;
        }
        for (question, key) in asked.into_iter().enumerate() {
            if let Some(owner) = snapshot.owner(key.as_bytes()) {
                groups[owner].add(question, key);
            }
        }
        // The nodes are not held on to while waiting: the groups have those they need.
        drop(snapshot);
        let groups = groups.into_iter().filter(|group| !group.lines.is_empty());
        for (questions, lookups) in
            join_all(groups.map(|group| group.ask(cas, touch, deadline))).await.into_iter().flatten()
        {
            for (question, lookup) in questions.into_iter().zip(lookups) {
                answers[question] = lookup;
            }
        }
        answers
    }
}

/// The keys one node is asked for, in lines of the size the wire likes.
struct Group {
    node: Arc<Node>,
    lines: Vec<(Vec<usize>, Vec<Key>)>,
}

impl Group {
    fn new(node: Arc<Node>) -> Self {
        Self { node, lines: Vec::new() }
    }

    fn add(&mut self, question: usize, key: Key) {
        match self.lines.last_mut() {
            Some((questions, keys)) if keys.len() < LARGEST_LINE_KEYS => {
                questions.push(question);
                keys.push(key);
            }
            _ => self.lines.push((vec![question], vec![key])),
        }
    }

    /// Puts all lines in the node's queue before the first is waited for, as far as there is room.
    async fn ask(self, cas: bool, touch: Option<u32>, deadline: Instant) -> Vec<(Vec<usize>, Vec<Lookup>)> {
        let mut tickets = Vec::with_capacity(self.lines.len());
        for (questions, keys) in self.lines {
            let call = Arc::new(Call::new(Request::Get { keys: Keys::Many(keys), cas, touch }, deadline));
            tickets.push((questions, self.node.call(&call).await));
        }
        let mut answers = Vec::with_capacity(tickets.len());
        for (questions, ticket) in tickets {
            let answer = match ticket {
                Ok(ticket) => match ticket.await {
                    Answer::Many(lookups) => Ok(lookups),
                    _ => Err(misfit()),
                },
                Err(error) => Err(error),
            };
            let lookups = answer.unwrap_or_else(|error| vec![Err(error); questions.len()]);
            answers.push((questions, lookups));
        }
        answers
    }
}

fn assemble<K>(keys: Vec<K>, questions: Vec<Result<usize, Error>>, mut answers: Vec<Lookup>) -> GetMany<K> {
    // An answer is moved to the last key it is for, and copied for those before: there is rarely more than one.
    let mut uses = vec![0u32; answers.len()];
    questions.iter().flatten().for_each(|&question| uses[question] += 1);
    let mut take = |question: usize| {
        uses[question] -= 1;
        if uses[question] == 0 {
            std::mem::replace(&mut answers[question], Ok(None))
        } else {
            answers[question].clone()
        }
    };
    let mut hits = Vec::with_capacity(keys.len());
    let mut errors: Vec<KeysFailed<K>> = Vec::new();
    // Where each failure stands among the errors.
    let mut causes: HashMap<usize, usize> = HashMap::new();
    for (key, question) in keys.into_iter().zip(questions) {
        match question.and_then(&mut take) {
            Ok(Some(item)) => hits.push((key, item)),
            Ok(None) => {}
            Err(error) => match causes.entry(error.identity()) {
                Entry::Occupied(at) => errors[*at.get()].keys.push(key),
                Entry::Vacant(at) => {
                    at.insert(errors.len());
                    errors.push(KeysFailed { error, keys: vec![key] });
                }
            },
        }
    }
    GetMany { hits, errors }
}
