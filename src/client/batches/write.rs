//! Writing many keys.

use std::collections::HashMap;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Failures, KeysFailed, Turns, pair};
use crate::client::Client;
use crate::client::commands::exptime;
use crate::connection::NewCall;
use crate::dispatch::{FanOut, Limits, Part};
use crate::error::{Delivery, Error, ErrorKind};
use crate::item::SetOptions;
use crate::key::Key;
use crate::operations::not_stored;
use crate::protocol::{Reply, Request, StoreVerb};
use crate::ttl::IntoTtl;

/// The most writes of one batch at a node: a small part of the queue, and measured to be as fast as all at once.
const WINDOW: usize = 256;

/// The results of writing many keys. Each list is in the caller's order. A key given twice has two results.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WriteMany<K> {
    /// Stored, deleted or touched.
    pub done: Vec<K>,
    /// Not there, and therefore neither deleted nor touched. Always empty after `set_many`.
    pub not_found: Vec<K>,
    /// The keys that failed, grouped by error. [`Error::delivery`] tells whether they may have been written.
    pub errors: Vec<KeysFailed<K>>,
}

impl<K> WriteMany<K> {
    /// Returns whether no key failed.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.errors.is_empty()
    }
}

impl Client {
    /// Stores many items, on all nodes at the same time.
    ///
    /// Never fails as a whole: keys that fail are in [`WriteMany::errors`]. An invalid key, or a value over the limit,
    /// fails alone and is not sent. There is no limit on the number of items. Each node gets some hundreds of them at a
    /// time, so that other callers get their turn. All items have one deadline, which starts when the iterator has
    /// ended. Items that cannot be sent by then fail with [`Timeout`](crate::ErrorKind::Timeout), not sent.
    ///
    /// If a key is given twice, both values are sent, the second one after the first is acknowledged. The last one
    /// wins, unless the first fails with [`Delivery::Unknown`] and the server applies it late.
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
    /// If the future is dropped, some items may be stored and others not.
    pub async fn set_many<K: AsRef<[u8]>, V: Into<Bytes>>(
        &self,
        entries: impl IntoIterator<Item = (K, V)>,
        options: impl Into<SetOptions>,
    ) -> WriteMany<K> {
        let options = options.into();
        // One error for all keys.
        let (flags, exptime) = (options.wire_flags(), options.exptime().map_err(Error::from));
        let limit = self.operations().value_limit();
        let entries = entries.into_iter().map(|(key, value)| (key, value.into()));
        let (keys, mut values): (Vec<K>, Vec<Bytes>) = entries.unzip();
        let mut too_large = HashMap::new();
        let to_request = |index: usize, key| {
            let (exptime, value) = (exptime.clone()?, std::mem::take(&mut values[index]));
            match limit.check(&value) {
                Ok(()) => Ok(Request::Store { verb: StoreVerb::Set, key, flags, exptime, value }),
                Err(refused) if limit.deletes_old_value() => {
                    too_large.insert(index, refused);
                    Ok(Request::Delete { key })
                }
                Err(refused) => Err(refused.into()),
            }
        };
        let mut written = self.write_many(keys, to_request).await;
        for (index, refused) in too_large {
            // Without an owner there is no delete either, and all keys have one error.
            if matches!(&written.results[index], Err(error) if has_no_owner(error)) {
                continue;
            }
            let deleted = std::mem::replace(&mut written.results[index], Ok(false));
            written.results[index] = Err(refused.after_delete(deleted));
        }
        let mut turns = Turns::default();
        for _unsent in values {
            turns.count(1).await;
        }
        written.gather().await
    }

    /// Deletes many items. Works as [`set_many`](Self::set_many). Keys that were not there are in
    /// [`WriteMany::not_found`].
    pub async fn delete_many<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> WriteMany<K> {
        let delete = |_, key| Ok(Request::Delete { key });
        self.write_many(keys.into_iter().collect(), delete).await.gather().await
    }

    /// Sets a new TTL of many items. Works as [`set_many`](Self::set_many). Keys that were not there are in
    /// [`WriteMany::not_found`]. Needs memcached 1.4.8.
    pub async fn touch_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        ttl: impl IntoTtl,
    ) -> WriteMany<K> {
        let exptime = exptime(ttl).map_err(Error::from);
        let touch = |_, key| Ok(Request::Touch { key, exptime: exptime.clone()? });
        self.write_many(keys.into_iter().collect(), touch).await.gather().await
    }

    /// Sends one write for each key. `to_request` makes it of the key's index and the key.
    async fn write_many<K: AsRef<[u8]>>(
        &self,
        mut keys: Vec<K>,
        mut to_request: impl FnMut(usize, Key) -> Result<Request, Error> + Send,
    ) -> KeyOutcomes<K> {
        let limits = Limits { items: keys.len(), window: WINDOW, deadline: self.deadline() };
        let dispatcher = self.operations().dispatcher();
        let mut results = Vec::with_capacity(keys.len());
        let mut last_writes = LastWrites::with_capacity(keys.len());
        // Exclusive, although the keys are only read: the future is `Send` for keys that are not `Sync`, too.
        let (callers_keys, grouped) = (&mut keys, &mut results);
        // Puts a result in place for each key: an error, or `false` until the response comes.
        let group = move |writes: &mut FanOut<WriteRequest>, index: usize| {
            let mut add = |key: &K| {
                let request = to_request(index, self.keys.key(key.as_ref())?)?;
                let key = request.routed_by().unwrap_or_default();
                let (writes, after) = (writes.parts_for(key)?, last_writes.replace(key, index));
                writes.push(WriteRequest { index, request, after });
                Ok(false)
            };
            grouped.push(add(&callers_keys[index]));
        };
        let make_part = |WriteRequest { index, request, after }| Part {
            tag: index,
            position: index,
            after,
            make_call: move || NewCall::command(request, limits.deadline),
        };
        let responses = FanOut::new(dispatcher).send(dispatcher, limits, group, make_part).await;
        let mut turns = Turns::default();
        for (index, reply) in responses.into_iter().flatten() {
            turns.count(1).await;
            results[index] = match reply {
                Ok(Reply::NotFound) => Ok(false),
                Ok(Reply::NotStored) => Err(not_stored()),
                reply => reply.map(|_| true),
            };
        }
        KeyOutcomes { keys, results }
    }
}

/// One write of a batch.
struct WriteRequest {
    index: usize,
    request: Request,
    after: Option<usize>,
}

/// The last write of each key so far. Two writes of one key must not be in flight together: two connections to a node,
/// or an old one and its replacement, keep no order between them.
struct LastWrites {
    seed: u64,
    /// By the hash of the key. A write that shares it with another key waits as well, which does no harm.
    indexes: HashMap<u64, usize>,
}

impl LastWrites {
    fn with_capacity(keys: usize) -> Self {
        Self { seed: fastrand::u64(..), indexes: HashMap::with_capacity(keys) }
    }

    /// Records a write, and returns the last one of its key before it.
    fn replace(&mut self, key: &[u8], index: usize) -> Option<usize> {
        self.indexes.insert(xxh3_64_with_seed(key, self.seed), index)
    }
}

/// For each key that was grouped by the deadline an error, or whether its write was done: otherwise the key was not
/// there.
struct KeyOutcomes<K> {
    keys: Vec<K>,
    results: Vec<Result<bool, Error>>,
}

impl<K> KeyOutcomes<K> {
    async fn gather(self) -> WriteMany<K> {
        let (mut done, mut not_found) = (Vec::with_capacity(self.keys.len()), Vec::new());
        let (mut failures, mut turns) = (Failures::new(), Turns::default());
        for (key, result) in pair(self.keys, self.results) {
            turns.count(1).await;
            match result {
                Ok(true) => done.push(key),
                Ok(false) => not_found.push(key),
                Err(error) => failures.add(key, error),
            }
        }
        WriteMany { done, not_found, errors: failures.errors }
    }
}

/// Returns whether the client has no node for the key.
fn has_no_owner(error: &Error) -> bool {
    error.delivery() == Delivery::NotSent && matches!(error.kind(), ErrorKind::NoNodes | ErrorKind::Closed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn without_an_owner_all_keys_have_one_error_those_of_large_values_too() {
        // No server listens there, and none has to.
        let builder = Client::builder().nodes(["127.0.0.1:1"]).max_value_size(1).delete_when_too_large(true);
        let cache = builder.connect().await.unwrap();
        cache.operations().dispatcher().remove_owners();
        let written = cache.set_many([("a", "1"), ("b", "22"), ("c", "3")], Duration::from_secs(60)).await;
        let [failed] = &written.errors[..] else { panic!("{written:?}") };
        assert_eq!((failed.error.kind(), &failed.keys[..]), (ErrorKind::NoNodes, &["a", "b", "c"][..]));
    }
}
