//! Commands for every node at once: each answers for itself.

use std::sync::Arc;

use futures_util::future::join_all;

use super::{Client, misfit};
use crate::connection::{Answer, Call};
use crate::error::Error;
use crate::node_id::NodeId;
use crate::protocol::{Reply, Request};

impl Client {
    /// Asks every node for its version; each answers for itself, by the one deadline. Empty while no nodes are known, and
    /// after [`shutdown`](Self::shutdown).
    pub async fn versions(&self) -> Vec<(NodeId, Result<String, Error>)> {
        let answers = self.on_every_node(|| Request::Version).await.into_iter();
        answers
            .map(|(id, reply)| {
                let version = reply.map(|reply| match reply {
                    Reply::Version(version) => version.into_string(),
                    _ => String::new(),
                });
                (id, version)
            })
            .collect()
    }

    /// Deletes every item on every node, whatever its [namespace](Client::namespace); each answers for itself, by the one
    /// deadline. Empty while no nodes are known, and
    /// after [`shutdown`](Self::shutdown): nothing is deleted then.
    pub async fn flush_all(&self) -> Vec<(NodeId, Result<(), Error>)> {
        let answers = self.on_every_node(|| Request::FlushAll).await.into_iter();
        answers.map(|(id, reply)| (id, reply.map(|_| ()))).collect()
    }

    async fn on_every_node(&self, request: impl Fn() -> Request) -> Vec<(NodeId, Result<Reply, Error>)> {
        let deadline = self.deadline();
        let snapshot = self.inner.snapshot.load_full();
        let calls = snapshot.nodes().iter().map(|node| {
            let call = Arc::new(Call::new(request(), deadline));
            async move {
                let reply = match node.call(&call).await {
                    Ok(ticket) => match ticket.await {
                        Answer::Reply(reply) => reply,
                        _ => Err(misfit()),
                    },
                    Err(error) => Err(error),
                };
                (node.id().clone(), reply)
            }
        });
        join_all(calls).await
    }
}
