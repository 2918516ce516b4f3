//! What one batch asks of one node, some at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use crate::client::Client;
use crate::connection::{Answer, Call, ResponseFuture};
use crate::error::{Delivery, Error, ErrorKind};
use crate::node::Node;
use crate::protocol::Request;

/// One request of a batch.
pub(in crate::client) struct Turn<T> {
    /// Whatever tells the batch what the answer is to.
    pub(in crate::client) tag: T,
    pub(in crate::client) request: Request,
    /// The place, in this node's part of the batch, of an earlier request that must be over before this one is sent.
    pub(in crate::client) after: Option<usize>,
}

/// Asks all of it of one node, with at most `window` requests in its queue or under way at a time: however large the batch,
/// others find room in the queue, and wait behind no more than that. They go out in order, and all have the one deadline.
///
/// Cancel safe: what is not yet written is taken back.
pub(in crate::client) async fn take_turns<T>(
    client: &Client,
    node: &Arc<Node>,
    turns: Vec<Turn<T>>,
    window: usize,
    deadline: Instant,
) -> Vec<(T, Result<Answer, Error>)> {
    let mut answers = Vec::with_capacity(turns.len());
    let mut waiting: VecDeque<(usize, T, ResponseFuture)> = VecDeque::with_capacity(window.min(turns.len()));
    let mut too_late = None;
    for (place, Turn { tag, request, after }) in turns.into_iter().enumerate() {
        let must_wait = |(oldest, ..): &(usize, T, ResponseFuture), waiting: usize| {
            waiting >= window || after.is_some_and(|earlier| *oldest <= earlier)
        };
        while waiting.front().is_some_and(|oldest| must_wait(oldest, waiting.len())) {
            let Some((_, tag, ticket)) = waiting.pop_front() else { break };
            answers.push((tag, Ok(ticket.await)));
        }
        // One error for all that is left: there may be many.
        if too_late.is_none() && Instant::now() >= deadline {
            too_late = Some(Error::new(ErrorKind::Timeout, Delivery::NotSent).with_node(node.id()));
        }
        let entered = match &too_late {
            Some(error) => Err(error.clone()),
            None => enter(client, node, Arc::new(Call::new(request, deadline))).await,
        };
        match entered {
            Ok(ticket) => waiting.push_back((place, tag, ticket)),
            Err(error) => answers.push((tag, Err(error))),
        }
    }
    for (_, tag, ticket) in waiting {
        answers.push((tag, Ok(ticket.await)));
    }
    answers
}

async fn enter(client: &Client, node: &Arc<Node>, call: Arc<Call>) -> Result<ResponseFuture, Error> {
    match node.call(&call).await {
        // The node left meanwhile, and nothing of this was sent. A line of gets has keys that may now be anywhere.
        Err(_) if node.has_left() && !matches!(call.request(), Request::Get { .. } | Request::MetaRun(_)) => {
            client.enter(call).await
        }
        Err(error) => {
            // A failure that needs no waiting, told of a great many keys, must not keep others from the thread.
            tokio::task::coop::consume_budget().await;
            Err(error)
        }
        entered => entered,
    }
}
