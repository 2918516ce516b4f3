//! Writing many keys.

use std::collections::HashMap;

use bytes::Bytes;

use super::{Failures, KeysFailed};
use crate::client::Client;
use crate::client::commands::exptime;
use crate::connection::NewCall;
use crate::dispatch::{FanOut, Part};
use crate::error::Error;
use crate::item::SetOptions;
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
    /// time, so that other callers get their turn. All items have one deadline.
    ///
    /// If a key is given twice, both values are sent, the second one after the first is acknowledged. The last one
    /// wins, unless the first fails with [`Delivery::Unknown`](crate::Delivery::Unknown) and the server applies it
    /// late.
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
        let (keys, values): (Vec<K>, Vec<V>) = entries.into_iter().unzip();
        let mut too_large = HashMap::new();
        let requests = keys.iter().zip(values).enumerate().map(|(index, (key, value))| {
            let (key, exptime, value) = (self.keys.key(key.as_ref())?, exptime.clone()?, value.into());
            match limit.check(&value) {
                Ok(()) => Ok(Request::Store { verb: StoreVerb::Set, key, flags, exptime, value }),
                Err(refused) if limit.deletes_old_value() => {
                    too_large.insert(index, refused);
                    Ok(Request::Delete { key })
                }
                Err(refused) => Err(refused.into()),
            }
        });
        let writes = self.group_writes(requests.collect());
        // Without an owner there is no delete either, and all keys have one error.
        too_large.retain(|&index, _| writes.results[index].is_ok());
        let mut results = self.send_writes(writes).await;
        for (index, refused) in too_large {
            results[index] = Err(refused.after_delete(std::mem::replace(&mut results[index], Ok(false))));
        }
        gather(keys, results)
    }

    /// Deletes many items. Works as [`set_many`](Self::set_many). Keys that were not there are in
    /// [`WriteMany::not_found`].
    pub async fn delete_many<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> WriteMany<K> {
        let keys: Vec<K> = keys.into_iter().collect();
        let requests = keys.iter().map(|key| Ok(Request::Delete { key: self.keys.key(key.as_ref())? }));
        let writes = self.group_writes(requests.collect());
        gather(keys, self.send_writes(writes).await)
    }

    /// Sets a new TTL of many items. Works as [`set_many`](Self::set_many). Keys that were not there are in
    /// [`WriteMany::not_found`]. Needs memcached 1.4.8.
    pub async fn touch_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        ttl: impl IntoTtl,
    ) -> WriteMany<K> {
        let (keys, exptime): (Vec<K>, _) = (keys.into_iter().collect(), exptime(ttl).map_err(Error::from));
        let requests = keys.iter().map(|key| {
            let key = self.keys.key(key.as_ref())?;
            Ok(Request::Touch { key, exptime: exptime.clone()? })
        });
        let writes = self.group_writes(requests.collect());
        gather(keys, self.send_writes(writes).await)
    }

    /// Groups requests by the owners of their keys.
    fn group_writes(&self, requests: Vec<Result<Request, Error>>) -> Writes {
        let mut fan_out = FanOut::new(self.operations().dispatcher());
        let earlier = earlier_writes_of_same_key(&requests);
        // The index of each write among its node's parts.
        let mut part_indexes = vec![0; requests.len()];
        let mut results = Vec::with_capacity(requests.len());
        for (index, request) in requests.into_iter().enumerate() {
            results.push(request.and_then(|request| {
                let parts = fan_out.parts_for(request.routed_by().unwrap_or_default())?;
                part_indexes[index] = parts.len();
                let after = earlier[index].map(|earlier| part_indexes[earlier]);
                parts.push(WriteRequest { index, request, after });
                // Until the response comes.
                Ok(false)
            }));
        }
        Writes { fan_out, results }
    }

    /// Sends the writes. Returns for each whether it was done, or its key was not there.
    async fn send_writes(&self, writes: Writes) -> Vec<Result<bool, Error>> {
        let (Writes { fan_out, mut results }, deadline) = (writes, self.deadline());
        let make_part = |WriteRequest { index, request, after }| Part {
            tag: index,
            call: NewCall::command(request, deadline),
            after,
        };
        for (index, reply) in fan_out.send(self.operations().dispatcher(), WINDOW, deadline, make_part).await {
            results[index] = match reply {
                Ok(Reply::NotFound) => Ok(false),
                Ok(Reply::NotStored) => Err(not_stored()),
                reply => reply.map(|_| true),
            };
        }
        results
    }
}

/// Requests grouped by node, and a result for each key: an error, or `false` until the response comes.
struct Writes {
    fan_out: FanOut<WriteRequest>,
    results: Vec<Result<bool, Error>>,
}

/// One write of a batch.
struct WriteRequest {
    index: usize,
    request: Request,
    after: Option<usize>,
}

/// Returns for each write the last one before it of the same key. Two writes of one key must not be in flight together:
/// two connections to a node, or an old one and its replacement, keep no order between them.
fn earlier_writes_of_same_key(requests: &[Result<Request, Error>]) -> Vec<Option<usize>> {
    let mut last: HashMap<&[u8], usize> = HashMap::with_capacity(requests.len());
    let earlier = requests.iter().enumerate().map(|(index, request)| {
        let key = request.as_ref().ok()?.routed_by()?;
        last.insert(key, index)
    });
    earlier.collect()
}

fn gather<K>(keys: Vec<K>, results: Vec<Result<bool, Error>>) -> WriteMany<K> {
    let (mut done, mut not_found, mut failures) = (Vec::with_capacity(keys.len()), Vec::new(), Failures::new());
    for (key, result) in keys.into_iter().zip(results) {
        match result {
            Ok(true) => done.push(key),
            Ok(false) => not_found.push(key),
            Err(error) => failures.add(key, error),
        }
    }
    WriteMany { done, not_found, errors: failures.errors }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::ErrorKind;

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
