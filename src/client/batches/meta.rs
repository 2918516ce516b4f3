//! Many meta gets: as quiet runs, in which a miss has no reply.

use bytes::Bytes;

use crate::client::Client;
use crate::connection::NewCall;
use crate::dispatch::{FanOut, Line, Part};
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
        let (keys, deadline): (Vec<K>, _) = (keys.into_iter().collect(), self.deadline());
        let mut results = Vec::with_capacity(keys.len());
        let runs = self.group_runs(&keys, options.into(), &mut results);
        let make_part =
            |Line { indexes, items }| Part { tag: indexes, call: NewCall::meta_run(items, deadline), after: None };
        for (indexes, response) in runs.send(self.operations().dispatcher(), WINDOW, deadline, make_part).await {
            let response =
                response.map(|replies| replies.into_iter().map(|reply| reply.and_then(Item::from_reply)).collect());
            Line::<MetaRequest>::gather(indexes, response, &mut results);
        }
        keys.into_iter().zip(results).collect()
    }

    /// Groups the keys into runs by their owners, and puts a result in place for each: an error, or a miss until the
    /// response comes.
    fn group_runs<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        mut options: Options,
        results: &mut Vec<Result<Option<Item>, Error>>,
    ) -> FanOut<Line<MetaRequest>> {
        options.forget_opaque();
        let mut runs = FanOut::new(self.operations().dispatcher());
        let mut add = |index, key: &K| {
            let request = options.clone().into_request(MetaVerb::Get, self.any_key(key)?, Bytes::new())?;
            let runs = runs.parts_for(request.key.as_bytes())?;
            Line::add(runs, index, request, LARGEST_LINE_KEYS, 0);
            Ok(None)
        };
        results.extend(keys.iter().enumerate().map(|(index, key)| add(index, key)));
        runs
    }
}
