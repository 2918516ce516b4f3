//! Writing many keys.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;

use super::turns::{Turn, take_turns};
use super::{Failures, KeysFailed};
use crate::client::Client;
use crate::client::commands::{exptime, not_stored};
use crate::client::store::{TooLarge, Write};
use crate::connection::{Answer, unexpected_response};
use crate::error::Error;
use crate::item::SetOptions;
use crate::key::Key;
use crate::node::Node;
use crate::protocol::{Reply, Request};
use crate::ttl::IntoTtl;

/// How many writes of one batch a node has at a time: a small part of its queue, and measured to be as fast as all at once.
const WINDOW: usize = 256;

/// What came of writing many keys. Each list is in the caller's order; a key given twice is told of twice.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WriteMany<K> {
    /// Stored, deleted or touched.
    pub done: Vec<K>,
    /// Not there, and so neither deleted nor touched; always empty after `set_many`.
    pub not_found: Vec<K>,
    /// The keys that failed, by their common cause. [`Error::delivery`] says whether they may have been written all the
    /// same.
    pub errors: Vec<KeysFailed<K>>,
}

impl<K> WriteMany<K> {
    /// Whether every key was answered: none failed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.errors.is_empty()
    }
}

impl Client {
    /// Stores many items: each node gets its own, all nodes at the same time.
    ///
    /// Never fails as a whole: an invalid key, or a value over the limit, fails alone and unsent, and what a node
    /// refuses or cannot answer is in [`WriteMany::errors`]. Any number of items may be given; some hundreds at a
    /// time go to each node, so that other callers get their turn, and the one deadline is for all of them. Of a key
    /// given twice, both are sent, the second after the first was answered: the last wins, unless the first failed with
    /// [`Delivery::Unknown`](crate::Delivery::Unknown) and the server comes to it late.
    ///
    /// ```no_run
    /// # async fn doc(cache: memring::Client) {
    /// use std::time::Duration;
    ///
    /// let written = cache.set_many([("a", "1"), ("b", "2")], Duration::from_secs(60)).await;
    /// for failed in &written.errors {
    ///     println!("{:?}: {}", failed.keys, failed.error);
    /// }
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// Dropped, it leaves some items stored and others not.
    pub async fn set_many<K: AsRef<[u8]>, V: Into<Bytes>>(
        &self,
        entries: impl IntoIterator<Item = (K, V)>,
        options: impl Into<SetOptions>,
    ) -> WriteMany<K> {
        let options = options.into();
        let exptime = options.exptime().map_err(Error::from);
        let (keys, values): (Vec<K>, Vec<V>) = entries.into_iter().unzip();
        let mut values = values.into_iter();
        self.write_many(keys, |key| {
            let value = values.next().map(Into::into).unwrap_or_default();
            self.set_request(key?, value, options.wire_flags(), exptime.clone()?)
        })
        .await
    }

    /// Deletes many items, as [`set_many`](Self::set_many) stores them. Those that were not there are told apart.
    pub async fn delete_many<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> WriteMany<K> {
        self.write_many(keys.into_iter().collect(), |key| Ok(Request::Delete { key: key? }.into())).await
    }

    /// Gives many items a new time to live, as [`set_many`](Self::set_many) stores them. Those that were not there are
    /// told apart. Needs memcached 1.4.8.
    pub async fn touch_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        ttl: impl IntoTtl,
    ) -> WriteMany<K> {
        let exptime = exptime(ttl).map_err(Error::from);
        let request = |key: Result<Key, Error>| Ok(Request::Touch { key: key?, exptime: exptime.clone()? }.into());
        self.write_many(keys.into_iter().collect(), request).await
    }

    /// Makes every key's request, in order, and sends those that can be sent.
    async fn write_many<K: AsRef<[u8]>>(
        &self,
        keys: Vec<K>,
        mut write: impl FnMut(Result<Key, Error>) -> Result<Write, Error>,
    ) -> WriteMany<K> {
        let writes = keys.iter().map(|key| write(self.key(key))).collect();
        let outcomes = self.write_at_every_owner(writes).await;
        let (mut done, mut not_found, mut failures) = (Vec::with_capacity(keys.len()), Vec::new(), Failures::new());
        for (key, outcome) in keys.into_iter().zip(outcomes) {
            match outcome {
                Ok(true) => done.push(key),
                Ok(false) => not_found.push(key),
                Err(error) => failures.add(key, error),
            }
        }
        WriteMany { done, not_found, errors: failures.errors }
    }

    /// Sends every request to its key's owner. For each, whether it was done, or its key was not there.
    async fn write_at_every_owner(&self, writes: Vec<Result<Write, Error>>) -> Vec<Result<bool, Error>> {
        let deadline = self.deadline();
        let snapshot = self.inner.snapshot.load_full();
        let mut groups: Vec<_> = snapshot.nodes().iter().map(|node| (Arc::clone(node), Vec::new())).collect();
        let no_nodes = snapshot.no_nodes();
        let earlier = earlier_of_the_same_key(&writes);
        // Where each write stands in its node's part of the batch.
        let mut places = vec![0; writes.len()];
        let mut outcomes = Vec::with_capacity(writes.len());
        for (at, write) in writes.into_iter().enumerate() {
            outcomes.push(match write {
                Ok(Write { request, too_large }) => {
                    match request.routed_by().and_then(|key| snapshot.owner(key)) {
                        Some(owner) => {
                            let turns = &mut groups[owner].1;
                            places[at] = turns.len();
                            let after = earlier[at].map(|earlier| places[earlier]);
                            turns.push(Turn { tag: (at, too_large), request, after });
                            // Until it is answered.
                            Ok(false)
                        }
                        None => Err(no_nodes.clone()),
                    }
                }
                Err(error) => Err(error),
            });
        }
        // The nodes are not held on to while waiting: the groups have those they need.
        drop(snapshot);
        let groups = groups.into_iter().filter(|(_, turns)| !turns.is_empty());
        let write = async |(node, turns): (Arc<Node>, Vec<_>)| take_turns(self, &node, turns, WINDOW, deadline).await;
        for ((at, too_large), answer) in join_all(groups.map(write)).await.into_iter().flatten() {
            outcomes[at] = outcome(too_large, answer);
        }
        outcomes
    }
}

/// For each write the last one before it of the very same key on the wire. They must not be under way together: two
/// connections to a node, or an old one and the one that replaces it, keep no order between them.
fn earlier_of_the_same_key<'a>(writes: &'a [Result<Write, Error>]) -> Vec<Option<usize>> {
    let mut last: HashMap<&[u8], usize> = HashMap::with_capacity(writes.len());
    let mut note = |at, write: &'a Result<Write, Error>| {
        let key = write.as_ref().ok()?.request.routed_by()?;
        last.insert(key, at)
    };
    writes.iter().enumerate().map(|(at, write)| note(at, write)).collect()
}

fn outcome(too_large: Option<TooLarge>, answer: Result<Answer, Error>) -> Result<bool, Error> {
    let reply = match answer {
        Ok(Answer::Reply(reply)) => reply,
        Ok(_) => Err(unexpected_response()),
        Err(error) => Err(error),
    };
    match (too_large, reply) {
        (Some(too_large), reply) => Err(too_large.after_delete(reply)),
        (None, Ok(Reply::NotFound)) => Ok(false),
        (None, Ok(Reply::NotStored)) => Err(not_stored()),
        (None, reply) => reply.map(|_| true),
    }
}
