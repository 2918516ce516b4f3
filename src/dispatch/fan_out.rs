//! Batches: the keys grouped by the nodes that own them, all nodes at the same time, a window of requests at each.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::Dispatcher;
use crate::connection::{NewCall, Response, TimedResponse};
use crate::error::{Delivery, Error, ErrorKind};
use crate::node::Node;
use crate::topology::Snapshot;

/// What a batch asks of each node, as values that become calls when it is their turn.
pub(crate) struct FanOut<P> {
    snapshot: Arc<Snapshot>,
    /// By the index of the node in the snapshot.
    parts: Vec<Vec<P>>,
    no_nodes: Option<Error>,
}

/// One request of a batch.
pub(crate) struct Part<T, R> {
    /// What the batch knows the response by.
    pub(crate) tag: T,
    pub(crate) call: NewCall<R>,
    /// The index, among this node's parts, of an earlier part that must be complete before this one is sent.
    pub(crate) after: Option<usize>,
}

impl<P: Send> FanOut<P> {
    pub(crate) fn new(dispatcher: &Dispatcher) -> Self {
        let snapshot = dispatcher.snapshot();
        let parts = snapshot.nodes().iter().map(|_| Vec::new()).collect();
        Self { snapshot, parts, no_nodes: None }
    }

    pub(crate) fn nodes(&self) -> usize {
        self.parts.len()
    }

    /// Returns the parts of the node that owns a key.
    ///
    /// # Errors
    /// Why there is no such node: one error for all keys of the batch.
    #[inline]
    pub(crate) fn parts_for(&mut self, key: &[u8]) -> Result<&mut Vec<P>, Error> {
        match self.snapshot.owner(key).and_then(|owner| self.parts.get_mut(owner)) {
            Some(parts) => Ok(parts),
            None => Err(self.no_nodes.get_or_insert_with(|| self.snapshot.no_nodes()).clone()),
        }
    }

    /// Sends everything, and returns the responses by their tags, in no particular order.
    ///
    /// Each node has at most `window` requests of the batch queued or in flight: a batch of any size leaves other
    /// callers space in the queue, and delays them by no more than a window. A node's requests leave in order, and all
    /// have the batch's deadline. There is no task per key or node.
    ///
    /// Cancel safe: what is not written yet is cancelled.
    pub(crate) async fn send<T: Send, R: Response + Send>(
        self,
        dispatcher: &Dispatcher,
        window: usize,
        deadline: Instant,
        make_part: impl Fn(P) -> Part<T, R> + Sync + Send,
    ) -> impl Iterator<Item = (T, Result<R, Error>)> {
        let Self { snapshot, parts, .. } = self;
        let busy = snapshot.nodes().iter().zip(parts).filter(|(_, parts)| !parts.is_empty());
        let busy: Vec<(Arc<Node>, Vec<P>)> = busy.map(|(node, parts)| (Arc::clone(node), parts)).collect();
        // A node without a part in the batch may be closed and dropped meanwhile.
        drop(snapshot);
        let make_part = &make_part;
        let each = busy.into_iter().map(|(node, parts)| async move {
            send_windowed(dispatcher, &node, parts.into_iter().map(make_part), window, deadline).await
        });
        join_all(each).await.into_iter().flatten()
    }
}

async fn send_windowed<T: Send, R: Response + Send>(
    dispatcher: &Dispatcher,
    node: &Arc<Node>,
    parts: impl ExactSizeIterator<Item = Part<T, R>> + Send,
    window: usize,
    deadline: Instant,
) -> Vec<(T, Result<R, Error>)> {
    let mut responses = Vec::with_capacity(parts.len());
    let mut pending: VecDeque<(usize, T, TimedResponse<R>)> = VecDeque::with_capacity(window.min(parts.len()));
    let mut timed_out = None;
    for (index, Part { tag, call, after }) in parts.enumerate() {
        let must_wait =
            |oldest: usize, pending: usize| pending >= window || after.is_some_and(|earlier| oldest <= earlier);
        while pending.front().is_some_and(|(oldest, ..)| must_wait(*oldest, pending.len())) {
            let Some((_, tag, response)) = pending.pop_front() else { break };
            responses.push((tag, response.await));
        }
        // One error for everything that is left, which can be much.
        if timed_out.is_none() && Instant::now() >= deadline {
            timed_out = Some(Error::new(ErrorKind::Timeout, Delivery::NotSent).with_node(node.id()));
        }
        let queued = match &timed_out {
            Some(error) => Err(error.clone()),
            None => dispatcher.queue_at(node, call).await,
        };
        match queued {
            Ok(response) => pending.push_back((index, tag, response)),
            Err(error) => responses.push((tag, Err(error))),
        }
    }
    for (_, tag, response) in pending {
        responses.push((tag, response.await));
    }
    responses
}

/// Items of one request, each with its index in the batch.
pub(crate) struct Line<I> {
    pub(crate) indexes: Vec<usize>,
    pub(crate) items: Vec<I>,
}

impl<I> Line<I> {
    /// Adds an item to the last line, or to a new one if that has `max_items`. `capacity` is how many a line is likely
    /// to get.
    #[inline]
    pub(crate) fn add(lines: &mut Vec<Self>, index: usize, item: I, max_items: usize, capacity: usize) {
        if lines.last().is_none_or(|line| line.items.len() == max_items) {
            lines.push(Self { indexes: Vec::with_capacity(capacity), items: Vec::with_capacity(capacity) });
        }
        if let Some(line) = lines.last_mut() {
            line.indexes.push(index);
            line.items.push(item);
        }
    }

    /// Puts the response to a line into the results of the batch.
    pub(crate) fn gather<T>(
        indexes: Vec<usize>,
        response: Result<Vec<Result<T, Error>>, Error>,
        results: &mut [Result<T, Error>],
    ) {
        match response {
            Ok(response) => {
                for (index, result) in indexes.into_iter().zip(response) {
                    results[index] = result;
                }
            }
            Err(error) => indexes.into_iter().for_each(|index| results[index] = Err(error.clone())),
        }
    }
}
