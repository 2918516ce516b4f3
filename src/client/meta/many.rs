//! Many meta gets at once: quietly, so that a miss costs no reply.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;

use super::{Get, Item, Options};
use crate::client::Client;
use crate::client::multi::{Turn, take_turns};
use crate::connection::{Answer, unexpected_response};
use crate::error::Error;
use crate::protocol::{LARGEST_LINE_KEYS, MetaRequest, MetaVerb, Request};

/// How many runs of one batch a node has at a time.
const WINDOW: usize = 32;

impl Client {
    /// `mg` for many keys: every key in the caller's order, with an outcome of its own, which is what
    /// [`meta_get`](Self::meta_get) would say.
    ///
    /// Each node gets its keys in runs, all nodes at the same time; the replies to misses are left out on the wire, and
    /// an `mn` closes each run. An invalid key fails alone. An error line fails what is not yet answered of its run. An
    /// [`opaque`](Get::opaque) token is not sent: the client needs it for its own. Any number of keys may be asked for,
    /// and the one deadline is for all of them.
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
        self.look_at_many(keys.into_iter().collect(), options.into()).await
    }

    async fn look_at_many<K: AsRef<[u8]>>(
        &self,
        keys: Vec<K>,
        mut options: Options,
    ) -> Vec<(K, Result<Option<Item>, Error>)> {
        options.forget_opaque();
        let request = |key: &K| options.clone().into_request(MetaVerb::Get, self.any_key(key)?, Bytes::new());
        let requests = keys.iter().map(request).collect();
        let outcomes = self.run_at_every_owner(requests).await;
        keys.into_iter().zip(outcomes).collect()
    }

    async fn run_at_every_owner(&self, requests: Vec<Result<MetaRequest, Error>>) -> Vec<Result<Option<Item>, Error>> {
        let deadline = self.deadline();
        let snapshot = self.inner.snapshot.load_full();
        let mut groups: Vec<(_, Vec<Run>)> =
            snapshot.nodes().iter().map(|node| (Arc::clone(node), Vec::new())).collect();
        let mut outcomes = Vec::with_capacity(requests.len());
        for (at, request) in requests.into_iter().enumerate() {
            outcomes.push(request.and_then(|request| {
                let owner = snapshot.owner(request.key.as_bytes()).ok_or_else(|| snapshot.no_nodes())?;
                add(&mut groups[owner].1, at, request);
                // Until it is answered.
                Ok(None)
            }));
        }
        // The nodes are not held on to while waiting: the groups have those they need.
        drop(snapshot);
        let groups = groups.into_iter().filter(|(_, runs)| !runs.is_empty());
        let ask = async |(node, runs): (Arc<_>, Vec<Run>)| {
            let turn = |(places, run)| Turn { tag: places, request: Request::MetaRun(run), after: None };
            take_turns(self, &node, runs.into_iter().map(turn).collect(), WINDOW, deadline).await
        };
        for (places, answer) in join_all(groups.map(ask)).await.into_iter().flatten() {
            match answer {
                Ok(Answer::Run(replies)) => {
                    for (at, reply) in places.into_iter().zip(replies) {
                        outcomes[at] = reply.and_then(Item::from_reply);
                    }
                }
                other => {
                    let error = other.err().unwrap_or_else(unexpected_response);
                    places.into_iter().for_each(|at| outcomes[at] = Err(error.clone()));
                }
            }
        }
        outcomes
    }
}

/// The caller's places of what goes out in one run.
type Run = (Vec<usize>, Vec<MetaRequest>);

fn add(runs: &mut Vec<Run>, at: usize, request: MetaRequest) {
    match runs.last_mut() {
        Some((places, run)) if run.len() < LARGEST_LINE_KEYS => {
            places.push(at);
            run.push(request);
        }
        _ => runs.push((vec![at], vec![request])),
    }
}
