//! Many meta gets: as quiet runs, in which a miss has no reply.

use bytes::Bytes;

use super::{Turns, collect_pairs};
use crate::client::Client;
use crate::connection::NewCall;
use crate::dispatch::{FanOut, Limits, Line, Part};
use crate::error::Error;
use crate::meta::{Get, Item, Options};
use crate::protocol::{LARGEST_LINE_KEYS, MetaRequest, MetaVerb};

/// The most runs of one batch at a node.
const WINDOW: usize = 32;

impl Client {
    /// Sends `mg` for many keys. Returns every key in the caller's order with the result that
    /// [`meta_get`](Self::meta_get) would return.
    ///
    /// Each node gets its keys in runs of quiet gets, all nodes at the same time: a miss has no reply, and an `mn` ends
    /// each run. An invalid key fails alone. An error line fails the keys of its run that have no reply yet. An
    /// [`opaque`](Get::opaque) token is not sent, because the client needs tokens of its own. There is no limit on the
    /// number of keys, and all have one deadline.
    ///
    /// ```no_run
    /// # async fn doc(cache: memring::Client) {
    /// use memring::meta;
    ///
    /// for (key, outcome) in cache.meta_get_many(["a", "b"], meta::Get::new().ttl_left()).await {
    ///     println!("{key}: {:?}", outcome.map(|item| item.and_then(|item| item.ttl_left)));
    /// }
    /// # }
    /// ```
    pub async fn meta_get_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
        options: Get,
    ) -> Vec<(K, Result<Option<Item>, Error>)> {
        let mut keys: Vec<K> = keys.into_iter().collect();
        let limits = Limits { items: keys.len(), window: WINDOW, deadline: self.deadline() };
        let dispatcher = self.operations().dispatcher();
        let mut options = Options::from(options);
        options.forget_opaque();
        let mut results: Vec<Result<Option<Item>, Error>> = Vec::with_capacity(keys.len());
        // Exclusive, although the keys are only read: the future is `Send` for keys that are not `Sync`, too.
        let (callers_keys, grouped) = (&mut keys, &mut results);
        // Puts a result in place for each key: an error, or a miss until the response comes.
        let group = move |runs: &mut FanOut<Line<MetaRequest>>, index: usize| {
            let mut add = |key: &K| {
                let request = options.clone().into_request(MetaVerb::Get, self.any_key(key)?, Bytes::new())?;
                Line::add(runs.parts_for(request.key.as_bytes())?, index, request, LARGEST_LINE_KEYS, 0);
                Ok(None)
            };
            grouped.push(add(&callers_keys[index]));
        };
        let make_part =
            |Line { indexes, items }| Part::of_line(indexes, move || NewCall::meta_run(items, limits.deadline));
        let responses = FanOut::new(dispatcher).send(dispatcher, limits, group, make_part).await;
        let mut turns = Turns::default();
        for (indexes, response) in responses.into_iter().flatten() {
            turns.count(indexes.len()).await;
            let response =
                response.map(|replies| replies.into_iter().map(|reply| reply.and_then(Item::from_reply)).collect());
            Line::<MetaRequest>::gather(indexes, response, &mut results);
        }
        collect_pairs(keys, results).await
    }
}
