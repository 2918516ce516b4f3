//! Where calls wait for a connection: one bounded queue per node, drained by the node's connections.
//!
//! What is in here has not been sent. It stays through the loss of a connection, until another one takes it, its
//! deadline passes, or its caller goes away. One short mutex guards it, never held across an await, a system call or a
//! wake-up.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Waker;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::call::{Call, ResponseFuture};
use super::{WakeList, lock};
use crate::config::QueueLimits;
use crate::error::{Delivery, Error, ErrorKind};
use crate::node_id::NodeId;

/// A batch takes calls up to about this many bytes, so that no single batch keeps the next waiting for long. The
/// replies owed on a connection are bounded with it.
const BATCH_BYTES: usize = 256 * 1024;
/// And up to this many calls.
const BATCH_CALLS: usize = 1024;

#[derive(Debug)]
pub(crate) struct Queue {
    node: NodeId,
    limits: QueueLimits,
    state: Mutex<State>,
    /// Told whenever room is made while somebody waits for it.
    space: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Arc<Call>>,
    bytes: usize,
    /// How many callers wait for room.
    waiters: usize,
    /// One per connection of the node.
    tasks: Vec<Task>,
    /// When the first task has promised to look for passed deadlines.
    sweep_at: Option<Instant>,
    availability: Availability,
}

/// Whether a node's queue accepts calls.
#[derive(Debug, Clone, Default)]
pub(crate) enum Availability {
    /// Calls are queued.
    #[default]
    Available,
    /// The last dial failed and no connection is up: calls fail at once with this error.
    Unavailable(Error),
    /// The node has left the topology, or its tasks have ended: no call is accepted again.
    Closed,
}

/// A connection's task, as the queue knows it.
#[derive(Debug, Default)]
struct Task {
    waker: Option<Waker>,
    /// It has nothing under way and waits to be told of a call.
    idle: bool,
}

enum PushError {
    Full,
    Unavailable(Error),
}

impl Queue {
    pub(crate) fn new(node: NodeId, limits: QueueLimits, connections: usize) -> Self {
        let tasks = std::iter::repeat_with(Task::default).take(connections).collect();
        let state = State { tasks, ..State::default() };
        Self { node, limits, state: Mutex::new(state), space: Notify::new() }
    }

    /// Puts a call in the queue, waiting for room until its deadline at the most.
    ///
    /// Cancel safe: nothing is queued unless a ticket is given, and dropping that takes the call back.
    pub(crate) async fn enter(self: &Arc<Self>, call: &Arc<Call>) -> Result<ResponseFuture, Error> {
        match self.push(call) {
            Ok(()) => {}
            Err(PushError::Unavailable(error)) => return Err(error),
            // Boxed, so that the rare wait does not make every command's future larger.
            Err(PushError::Full) => Box::pin(self.enter_when_there_is_room(call)).await?,
        }
        Ok(ResponseFuture::new(Arc::clone(call), Arc::clone(self)))
    }

    /// As [`enter`](Self::enter), if that needs no waiting and does not fail; otherwise the call comes back.
    #[inline]
    pub(crate) fn enter_at_once(self: &Arc<Self>, call: Arc<Call>) -> Result<ResponseFuture, Arc<Call>> {
        match self.push(&call) {
            Ok(()) => Ok(ResponseFuture::new(call, Arc::clone(self))),
            Err(_) => Err(call),
        }
    }

    async fn enter_when_there_is_room(&self, call: &Arc<Call>) -> Result<(), Error> {
        let _waiter = WaiterGuard::join(self);
        loop {
            let mut room = pin!(self.space.notified());
            // From here on no notice is missed, so that asking once more settles it.
            room.as_mut().enable();
            match self.push(call) {
                Ok(()) => return Ok(()),
                Err(PushError::Unavailable(error)) => return Err(error),
                Err(PushError::Full) => {}
            }
            if timeout_at(call.deadline(), room).await.is_err() {
                return Err(Error::not_sent(ErrorKind::Overloaded).with_node(&self.node));
            }
        }
    }

    #[inline]
    fn push(&self, call: &Arc<Call>) -> Result<(), PushError> {
        let weight = call.weight();
        let wake = {
            let mut state = lock(&self.state);
            match &state.availability {
                Availability::Available => {}
                Availability::Unavailable(error) => return Err(PushError::Unavailable(error.clone())),
                Availability::Closed => return Err(PushError::Unavailable(self.gone())),
            }
            // A call heavier than the whole limit may pass alone, or it could never pass.
            let fits = state.bytes + weight <= self.limits.bytes || state.waiting.is_empty();
            if state.waiting.len() >= self.limits.calls || !fits {
                return Err(PushError::Full);
            }
            state.waiting.push_back(Arc::clone(call));
            state.bytes += weight;
            state.waker_for(call.deadline())
        };
        if let Some(waker) = wake {
            waker.wake();
        }
        Ok(())
    }

    /// Moves the next batch into `batch`. With nothing to take, the task is noted as idle, to be woken by the next call.
    pub(super) fn take_batch(&self, task: usize, waker: &Waker, batch: &mut VecDeque<Arc<Call>>) {
        let (has_waiters, wake) = {
            let mut state = lock(&self.state);
            if batch.is_empty() && state.waiting.len() <= BATCH_CALLS && state.bytes <= BATCH_BYTES {
                // All of them, without a look at each: callers on other threads wait for the lock.
                std::mem::swap(&mut state.waiting, batch);
                state.bytes = 0;
            } else {
                state.move_some_to(batch);
            }
            let idle = batch.is_empty();
            state.note_task(task, waker, idle);
            (!idle && state.waiters > 0, state.waker_for_remaining())
        };
        if has_waiters {
            self.space.notify_waiters();
        }
        if let Some(waker) = wake {
            waker.wake();
        }
    }

    /// Puts back, at the front, calls a connection took and then could not write a byte of.
    pub(super) fn requeue(&self, calls: impl DoubleEndedIterator<Item = Arc<Call>>) {
        let mut wakes = WakeList::default();
        let mut state = lock(&self.state);
        for call in calls.rev().filter(|call| !call.is_over()) {
            state.bytes += call.weight();
            state.waiting.push_front(call);
        }
        if state.is_closed() {
            state.fail_all(&self.gone(), &mut wakes);
        }
        wakes.add(state.waker_for_remaining());
        drop(state);
    }

    /// A task has no connection to put calls on any more; whatever was left to it is another's.
    pub(super) fn leave(&self, task: usize) {
        let wake = {
            let mut state = lock(&self.state);
            if let Some(task) = state.tasks.get_mut(task) {
                task.idle = false;
            }
            state.waker_for_remaining()
        };
        if let Some(waker) = wake {
            waker.wake();
        }
    }

    /// From now on until [`mark_available`](Self::mark_available), calls fail at once, and so do those that wait.
    pub(crate) fn mark_unavailable(&self, error: &Error) {
        let mut wakes = WakeList::default();
        let mut state = lock(&self.state);
        if !state.is_closed() {
            state.availability = Availability::Unavailable(error.clone());
        }
        state.fail_all(error, &mut wakes);
        drop(state);
        self.space.notify_waiters();
    }

    pub(crate) fn mark_available(&self) {
        let mut state = lock(&self.state);
        if !state.is_closed() {
            state.availability = Availability::Available;
        }
    }

    /// No call is taken in ever again, and those that wait fail.
    pub(crate) fn close(&self) {
        let mut wakes = WakeList::default();
        let mut state = lock(&self.state);
        state.availability = Availability::Closed;
        state.fail_all(&self.gone(), &mut wakes);
        drop(state);
        self.space.notify_waiters();
    }

    fn gone(&self) -> Error {
        Error::not_sent(ErrorKind::Unavailable).with_node(&self.node).with_message("the node has left")
    }

    /// Whether calls wait, and fewer than a batch holds.
    pub(super) fn has_room_in_its_batch(&self) -> bool {
        (1..BATCH_CALLS).contains(&lock(&self.state).waiting.len())
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.state).is_closed()
    }

    pub(crate) fn availability(&self) -> Availability {
        lock(&self.state).availability.clone()
    }

    #[cfg(test)]
    pub(super) fn assert_empty(&self) {
        let state = lock(&self.state);
        assert_eq!((state.waiting.len(), state.bytes, state.waiters), (0, 0, 0));
    }

    /// Takes a call out, if no connection has taken it yet: its caller has gone.
    pub(super) fn cancel(&self, call: &Arc<Call>) {
        let has_waiters = {
            let mut state = lock(&self.state);
            let Some(at) = state.waiting.iter().position(|waiting| Arc::ptr_eq(waiting, call)) else { return };
            state.waiting.remove(at);
            state.bytes -= call.weight();
            state.waiters > 0
        };
        if has_waiters {
            self.space.notify_waiters();
        }
    }

    /// Fails the calls whose deadline has passed and says when the next one does.
    pub(super) fn sweep(&self, now: Instant) -> Option<Instant> {
        let mut wakes = WakeList::default();
        let mut late = Vec::new();
        let mut state = lock(&self.state);
        let mut next = None::<Instant>;
        state.waiting.retain(|waiting| {
            let deadline = waiting.deadline();
            if deadline <= now {
                late.push(Arc::clone(waiting));
                return false;
            }
            next = Some(next.map_or(deadline, |next| next.min(deadline)));
            true
        });
        state.bytes -= late.iter().map(|call| call.weight()).sum::<usize>();
        state.sweep_at = next;
        let has_waiters = state.waiters > 0;
        drop(state);
        if !late.is_empty() {
            let error = Error::new(ErrorKind::Timeout, Delivery::NotSent).with_node(&self.node);
            late.iter().for_each(|call| wakes.add(call.fail(&error)));
            if has_waiters {
                self.space.notify_waiters();
            }
        }
        next
    }

    /// When the next sweep is due, for the first task, which keeps that promise.
    pub(super) fn sweep_at(&self, waker: &Waker) -> Option<Instant> {
        let mut state = lock(&self.state);
        state.note_waker(0, waker);
        state.promise_sweep();
        state.sweep_at
    }
}

impl State {
    fn is_closed(&self) -> bool {
        matches!(self.availability, Availability::Closed)
    }

    /// As many as a batch holds.
    fn move_some_to(&mut self, batch: &mut VecDeque<Arc<Call>>) {
        let mut bytes = 0;
        while batch.len() < BATCH_CALLS && bytes < BATCH_BYTES {
            let Some(call) = self.waiting.pop_front() else { break };
            let weight = call.weight();
            bytes += weight;
            self.bytes -= weight;
            batch.push_back(call);
        }
    }

    /// Who must hear of a call that was just queued: a connection with nothing to do, or else the first task, if it
    /// would look for passed deadlines too late.
    #[inline]
    fn waker_for(&mut self, deadline: Instant) -> Option<Waker> {
        if let Some(task) = self.tasks.iter_mut().find(|task| task.idle) {
            task.idle = false;
            return task.waker.clone();
        }
        if self.sweep_at.is_none_or(|at| deadline < at) {
            self.sweep_at = Some(deadline);
            return self.first_task();
        }
        None
    }

    fn first_task(&self) -> Option<Waker> {
        self.tasks.first().and_then(|task| task.waker.clone())
    }

    /// Without a promise yet, the earliest deadline waiting becomes one.
    fn promise_sweep(&mut self) {
        if self.sweep_at.is_none() {
            self.sweep_at = self.waiting.iter().map(|call| call.deadline()).min();
        }
    }

    /// Who must hear that calls are left waiting, if any are, now that a connection took its fill or went away. Nobody may
    /// have promised to look for their deadlines yet, and the most urgent may stand anywhere.
    fn waker_for_remaining(&mut self) -> Option<Waker> {
        let deadline = self.waiting.iter().map(|call| call.deadline()).min()?;
        self.waker_for(deadline)
    }

    fn note_waker(&mut self, task: usize, waker: &Waker) {
        let Some(task) = self.tasks.get_mut(task) else { return };
        match &mut task.waker {
            Some(known) if known.will_wake(waker) => {}
            known => *known = Some(waker.clone()),
        }
    }

    fn note_task(&mut self, task: usize, waker: &Waker, idle: bool) {
        self.note_waker(task, waker);
        if let Some(task) = self.tasks.get_mut(task) {
            task.idle = idle;
        }
    }

    fn fail_all(&mut self, error: &Error, wakes: &mut WakeList) {
        self.bytes = 0;
        self.sweep_at = None;
        for call in self.waiting.drain(..) {
            wakes.add(call.fail(error));
        }
    }
}

/// Counts a caller among those who wait for room, for as long as it lives.
struct WaiterGuard<'a>(&'a Queue);

impl<'a> WaiterGuard<'a> {
    fn join(queue: &'a Queue) -> Self {
        lock(&queue.state).waiters += 1;
        Self(queue)
    }
}

impl Drop for WaiterGuard<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).waiters -= 1;
    }
}
