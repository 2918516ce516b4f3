//! Batches: the keys grouped by the nodes that own them, all nodes at the same time, a window of requests at each.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use tokio::task::yield_now;
use tokio::time::Instant;

use super::Dispatcher;
use crate::connection::{NewCall, Response, TimedResponse, lock};
use crate::error::{Delivery, Error, ErrorKind};
use crate::node::Node;
use crate::topology::Snapshot;

/// How many items are grouped at a time, in some hundred microseconds. Batches up to this size are grouped at once.
const SLICE: usize = 1024;

/// The parts of a batch by node: values that become calls when it is their turn.
pub(crate) struct FanOut<P> {
    snapshot: Arc<Snapshot>,
    /// By the index of the node in the snapshot.
    parts: Vec<Vec<P>>,
    no_nodes: Option<Error>,
}

/// The limits of a batch.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// How many items the batch has.
    pub(crate) items: usize,
    /// The most requests of the batch that one node has queued or in flight.
    pub(crate) window: usize,
    pub(crate) deadline: Instant,
}

/// One request of a batch.
pub(crate) struct Part<T, C> {
    /// What the batch knows the response by.
    pub(crate) tag: T,
    /// Grows from one part of a node to the next, where `after` is used.
    pub(crate) position: usize,
    /// The position of an earlier part of the node that must be complete before this one is sent.
    pub(crate) after: Option<usize>,
    /// Makes the call. A part that is too late is never made a call.
    pub(crate) make_call: C,
}

impl<C> Part<Vec<usize>, C> {
    /// A part for items of these indexes that waits for no other part.
    pub(crate) fn of_line(indexes: Vec<usize>, make_call: C) -> Self {
        Self { tag: indexes, position: 0, after: None, make_call }
    }
}

/// The responses to the parts of a batch by their tags, one list for each node.
pub(crate) type Responses<T, R> = Vec<Vec<(T, Result<R, Error>)>>;

impl<P: Send> FanOut<P> {
    pub(crate) fn new(dispatcher: &Dispatcher) -> Self {
        let snapshot = dispatcher.snapshot();
        let parts = snapshot.nodes().iter().map(|_| Vec::new()).collect();
        Self { snapshot, parts, no_nodes: None }
    }

    pub(crate) fn nodes(&self) -> usize {
        self.parts.len()
    }

    /// Returns the parts of the node that owns a key. Earlier parts may be missing, because they were sent.
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

    /// Groups the items of a batch, sends them, and returns the responses in no particular order.
    ///
    /// `group` adds the item of an index to the parts of its node. It is called in the order of the indexes, for a
    /// slice of items at a time: first at once, then whenever a node has nothing left to send. In between, other tasks
    /// run. Items that are not grouped by the deadline are not sent, and `group` is not called for them.
    ///
    /// Each node has at most a window of requests queued or in flight: a batch of any size leaves other callers space
    /// in the queue, and delays them by no more than a window. A node's requests leave in order, and all have the
    /// batch's deadline. There is no task per key or node.
    ///
    /// Cancel safe: what is not written yet is cancelled.
    pub(crate) async fn send<T, R, C>(
        self,
        dispatcher: &Dispatcher,
        limits: Limits,
        group: impl FnMut(&mut Self, usize),
        make_part: impl Fn(P) -> Part<T, C> + Sync + Send,
    ) -> Responses<T, R>
    where
        T: Send,
        R: Response + Send,
        C: FnOnce() -> NewCall<R> + Send,
    {
        let mut grouping = Grouping { fan_out: self, group, limits, grouped: 0, is_resting: false };
        grouping.group_slice();
        let nodes = grouping.nodes_to_send_to();
        let (grouping, make_part) = (&Mutex::new(grouping), &make_part);
        let each = nodes.into_iter().map(|(index, node)| async move {
            let mut window = Window::new(dispatcher, &node, limits);
            loop {
                let parts = next_parts(grouping, index).await;
                if parts.is_empty() {
                    return window.finish().await;
                }
                window.send(parts.into_iter().map(make_part)).await;
            }
        });
        join_all(each).await
    }
}

/// The grouping of a batch, advanced by whichever node's sender has nothing left to send.
struct Grouping<P, G> {
    fan_out: FanOut<P>,
    group: G,
    limits: Limits,
    /// How many items are grouped.
    grouped: usize,
    /// A sender has grouped a slice, and lets other tasks run before the next one.
    is_resting: bool,
}

impl<P: Send, G: FnMut(&mut FanOut<P>, usize)> Grouping<P, G> {
    fn group_slice(&mut self) {
        let end = self.limits.items.min(self.grouped + SLICE);
        for index in self.grouped..end {
            (self.group)(&mut self.fan_out, index);
        }
        self.grouped = end;
    }

    fn is_complete(&self) -> bool {
        self.grouped == self.limits.items
    }

    /// The nodes that have parts, or may get some, with their indexes.
    fn nodes_to_send_to(&self) -> Vec<(usize, Arc<Node>)> {
        let nodes = self.fan_out.snapshot.nodes().iter().zip(&self.fan_out.parts).enumerate();
        let nodes = nodes.filter(|(_, (_, parts))| !parts.is_empty() || !self.is_complete());
        nodes.map(|(index, (node, _))| (index, Arc::clone(node))).collect()
    }

    /// Takes the parts of a node. Its last part stays while items are left to group, because it may grow.
    fn take_parts(&mut self, node: usize) -> Vec<P> {
        let is_complete = self.is_complete();
        match self.fan_out.parts.get_mut(node) {
            Some(parts) if is_complete => std::mem::take(parts),
            Some(parts) if parts.len() > 1 => {
                let last = parts.split_off(parts.len() - 1);
                std::mem::replace(parts, last)
            }
            _ => Vec::new(),
        }
    }
}

/// Returns the next parts of a node, and groups more items until there are some. Empty if there are no more.
async fn next_parts<P, G>(grouping: &Mutex<Grouping<P, G>>, node: usize) -> Vec<P>
where
    P: Send,
    G: FnMut(&mut FanOut<P>, usize),
{
    let mut has_grouped = false;
    loop {
        {
            let mut grouping = lock(grouping);
            if std::mem::take(&mut has_grouped) {
                grouping.is_resting = false;
            }
            let parts = grouping.take_parts(node);
            if !parts.is_empty() || grouping.is_complete() {
                return parts;
            }
            if Instant::now() >= grouping.limits.deadline {
                // What is grouped so far is all. The next turn takes it.
                grouping.limits.items = grouping.grouped;
                continue;
            }
            if !grouping.is_resting {
                grouping.is_resting = true;
                has_grouped = true;
                grouping.group_slice();
            }
        }
        yield_now().await;
    }
}

/// Sends the parts of a batch to one node, a window of them at a time.
struct Window<'a, T, R> {
    dispatcher: &'a Dispatcher,
    node: &'a Arc<Node>,
    limits: Limits,
    /// Queued or in flight, with their positions and tags.
    pending: VecDeque<(usize, T, TimedResponse<R>)>,
    responses: Vec<(T, Result<R, Error>)>,
    timed_out: Option<Error>,
}

impl<'a, T: Send, R: Response + Send> Window<'a, T, R> {
    fn new(dispatcher: &'a Dispatcher, node: &'a Arc<Node>, limits: Limits) -> Self {
        Self { dispatcher, node, limits, pending: VecDeque::new(), responses: Vec::new(), timed_out: None }
    }

    /// Sends more parts. Returns when the last one is queued.
    async fn send<C: FnOnce() -> NewCall<R> + Send>(
        &mut self,
        parts: impl ExactSizeIterator<Item = Part<T, C>> + Send,
    ) {
        self.responses.reserve(parts.len());
        self.pending.reserve(self.limits.window.min(parts.len()).saturating_sub(self.pending.len()));
        for Part { tag, position, after, make_call } in parts {
            while self.pending.front().is_some_and(|(oldest, ..)| {
                self.pending.len() >= self.limits.window || after.is_some_and(|earlier| *oldest <= earlier)
            }) {
                self.complete_oldest().await;
            }
            // One error for everything that is left, which can be much.
            if self.timed_out.is_none() && Instant::now() >= self.limits.deadline {
                let error = Error::new(ErrorKind::Timeout, Delivery::NotSent).with_node(self.node.id());
                self.timed_out = Some(error);
            }
            let queued = match &self.timed_out {
                Some(error) => Err(error.clone()),
                None => self.dispatcher.queue_at(self.node, make_call()).await,
            };
            match queued {
                Ok(response) => self.pending.push_back((position, tag, response)),
                Err(error) => self.responses.push((tag, Err(error))),
            }
        }
    }

    async fn complete_oldest(&mut self) {
        if let Some((_, tag, response)) = self.pending.pop_front() {
            self.responses.push((tag, response.await));
        }
    }

    /// Waits for the pending responses, and returns all.
    async fn finish(mut self) -> Vec<(T, Result<R, Error>)> {
        while !self.pending.is_empty() {
            self.complete_oldest().await;
        }
        self.responses
    }
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
