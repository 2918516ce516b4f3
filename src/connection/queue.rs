//! Where calls wait for a connection: one bounded queue per node, drained by the node's connections.
//!
//! Nothing of a call in a queue has been sent. It stays there when a connection is lost, until another connection takes
//! it, its deadline passes, or its caller drops the future. One short mutex guards the queue. It is never held across
//! an await, a system call or a wake-up.

mod call_list;

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

use tokio::runtime;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::call_list::CallList;
use super::call::Call;
use super::{WakeList, lock};
use crate::config::QueueLimits;
use crate::error::{Delivery, Error, ErrorKind};
use crate::node_id::NodeId;
use crate::timer::{current_runtime, timeout_away_from};

/// A batch has calls of about this many bytes at most, so that no batch delays the next for long. It also bounds the
/// responses in flight on a connection.
const BATCH_BYTES: usize = 256 * 1024;

/// A batch has this many calls at most.
const BATCH_CALLS: usize = 1024;

/// A node's pending calls.
#[derive(Debug)]
pub(crate) struct Queue {
    node: NodeId,
    limits: QueueLimits,
    /// The client's runtime: its tasks keep the deadlines of calls in the queue and on connections.
    runtime: Option<runtime::Id>,
    state: Mutex<State>,
    /// Notified when there is space while a caller waits for it.
    space: Notify,
}

#[derive(Debug)]
struct State {
    calls: CallList,
    /// How many callers wait for space.
    waiters: usize,
    /// One per connection of the node.
    tasks: Vec<Task>,
    /// When the sweeper looks for passed deadlines next. While calls are queued this is no later than the earliest of
    /// their deadlines, and the sweeper was woken when it was set.
    sweep_at: Option<Instant>,
    /// Of the task of the [`DeadlineSweeper`](super::DeadlineSweeper).
    sweeper: Option<Waker>,
    availability: Availability,
}

/// Whether a node's queue accepts calls.
#[derive(Debug, Clone, Default)]
pub(super) enum Availability {
    /// Calls are queued.
    #[default]
    Available,
    /// The last dial failed and no connection is up, or the node's circuit breaker is open: calls fail at once with
    /// this error.
    Unavailable(Error),
    /// The node has left the topology, or its tasks have ended: no call is accepted again. Calls fail with this error.
    Closed(Error),
}

/// When a sweeper is to look for passed deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SweepPlan {
    /// When it is woken: no call is queued.
    WhenWoken,
    At(Instant),
    /// Never again: the queue is closed, and no call is or will be queued.
    Never,
}

/// A connection's task, as the queue knows it.
#[derive(Debug, Default)]
struct Task {
    waker: Option<Waker>,
    /// The connection has nothing in flight and waits for a call.
    is_idle: bool,
}

/// Why a queue did not take a call.
#[derive(Debug)]
pub(crate) enum PushError {
    /// The queue is full. There may be space later.
    Full,
    /// The node is unavailable, or there was no space until the call's deadline.
    Failed(Error),
    /// The queue is closed: see [`Availability::Closed`].
    Closed,
}

/// Why no call is accepted again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// The node has left the topology.
    NodeLeft,
    /// The node's tasks were dropped while the node was in the topology, most likely with their runtime.
    TasksDropped,
}

impl Queue {
    /// Creates the queue of a node whose tasks run on the current runtime.
    pub(crate) fn new(node: NodeId, limits: QueueLimits, connections: usize) -> Self {
        let tasks = std::iter::repeat_with(Task::default).take(connections).collect();
        let state = State {
            calls: CallList::new(),
            waiters: 0,
            tasks,
            sweep_at: None,
            sweeper: None,
            availability: Availability::Available,
        };
        Self { node, limits, runtime: current_runtime(), state: Mutex::new(state), space: Notify::new() }
    }

    #[inline]
    pub(super) fn runtime(&self) -> Option<runtime::Id> {
        self.runtime
    }

    /// Queues a call as soon as there is space, at its deadline at the latest. Never returns [`PushError::Full`].
    ///
    /// Cancel safe: the call is queued only if this returns.
    pub(super) async fn push_when_space(&self, call: &Arc<Call>) -> Result<(), PushError> {
        let _waiter = WaiterGuard::new(self);
        loop {
            let mut space = pin!(self.space.notified());
            // From here on no notification is missed, so a push that fails now is followed by one.
            space.as_mut().enable();
            match self.push(call) {
                Err(PushError::Full) => {}
                outcome => return outcome,
            }
            if timeout_away_from(self.runtime, call.deadline(), space).await.is_err() {
                return Err(PushError::Failed(Error::not_sent(ErrorKind::Overloaded).with_node(&self.node)));
            }
        }
    }

    /// Queues a call if there is space.
    #[inline]
    pub(super) fn push(&self, call: &Arc<Call>) -> Result<(), PushError> {
        let waker = {
            let mut state = lock(&self.state);
            match &state.availability {
                Availability::Available => {}
                Availability::Unavailable(error) => return Err(PushError::Failed(error.clone())),
                Availability::Closed(_) => return Err(PushError::Closed),
            }
            // A call heavier than the whole limit is accepted by an empty queue, or it could never be sent.
            let fits = state.calls.bytes() + call.weight() <= self.limits.bytes || state.calls.is_empty();
            if state.calls.len() >= self.limits.calls || !fits {
                return Err(PushError::Full);
            }
            state.calls.push_back(Arc::clone(call));
            if state.sweeps_after(call.deadline()) {
                wake_with_sweeper(state, call.deadline());
                return Ok(());
            }
            state.idle_connection()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Queues a probe of a node that accepts no calls of callers.
    ///
    /// # Errors
    /// The error of a closed queue.
    pub(super) fn push_probe(&self, call: &Arc<Call>) -> Result<(), Error> {
        let mut state = lock(&self.state);
        if let Availability::Closed(error) = &state.availability {
            return Err(error.clone());
        }
        state.calls.push_back(Arc::clone(call));
        wake_with_sweeper(state, call.deadline());
        Ok(())
    }

    /// Moves the next batch into `batch`. If there is none, the task is idle, and the next call wakes it.
    pub(super) fn take_batch(&self, task: usize, waker: &Waker, batch: &mut VecDeque<Arc<Call>>) {
        let (has_waiters, wake) = {
            let mut state = lock(&self.state);
            state.calls.move_to(batch, BATCH_CALLS, BATCH_BYTES);
            let is_idle = batch.is_empty();
            state.note_task(task, waker, is_idle);
            (!is_idle && state.waiters > 0, state.waker_for_remaining())
        };
        if has_waiters {
            self.space.notify_waiters();
        }
        if let Some(waker) = wake {
            waker.wake();
        }
    }

    /// Puts calls back at the front: a connection took them and could not write a byte of them.
    pub(super) fn requeue(&self, calls: impl DoubleEndedIterator<Item = Arc<Call>>) {
        let mut wakes = WakeList::default();
        let mut state = lock(&self.state);
        for call in calls.rev().filter(|call| !call.is_over()) {
            wakes.add(state.plan_sweep(call.deadline()));
            state.calls.push_front(call);
        }
        if let Availability::Closed(error) = &state.availability {
            let error = error.clone();
            state.fail_all(&error, &mut wakes);
        }
        wakes.add(state.waker_for_remaining());
        drop(state);
    }

    /// Takes note that a task's connection takes no more calls. The calls it would have been woken for are another's.
    pub(super) fn leave(&self, task: usize) {
        let wake = {
            let mut state = lock(&self.state);
            if let Some(task) = state.tasks.get_mut(task) {
                task.is_idle = false;
            }
            state.waker_for_remaining()
        };
        if let Some(waker) = wake {
            waker.wake();
        }
    }

    /// Fails the pending calls, and new ones at once until the node is [available](Self::mark_available) again.
    pub(crate) fn mark_unavailable(&self, error: &Error) {
        self.fail_all(Availability::Unavailable(error.clone()), error);
    }

    /// Accepts calls again, unless the queue is closed.
    pub(crate) fn mark_available(&self) {
        let mut state = lock(&self.state);
        if !state.is_closed() {
            state.availability = Availability::Available;
        }
    }

    /// Fails the pending calls, and accepts no call again. The first reason counts.
    pub(crate) fn close(&self, reason: CloseReason) {
        let error = match reason {
            CloseReason::NodeLeft => {
                Error::not_sent(ErrorKind::Unavailable).with_message("the node has left the topology")
            }
            CloseReason::TasksDropped => Error::not_sent(ErrorKind::Closed)
                .with_message("the client's tasks have ended, most likely with the runtime it was connected on"),
        };
        let error = error.with_node(&self.node);
        self.fail_all(Availability::Closed(error.clone()), &error);
    }

    fn fail_all(&self, availability: Availability, error: &Error) {
        // Dropped, and so woken, after the lock is released.
        let mut wakes = WakeList::default();
        let mut state = lock(&self.state);
        if !state.is_closed() {
            state.availability = availability;
        }
        state.fail_all(error, &mut wakes);
        if state.is_closed() {
            // The sweeper ends.
            wakes.add(state.sweeper.take());
        }
        drop(state);
        self.space.notify_waiters();
    }

    #[cfg(test)]
    pub(super) fn availability(&self) -> Availability {
        lock(&self.state).availability.clone()
    }

    /// Returns the error of a call that a closed queue did not take.
    pub(crate) fn closed_error(&self) -> Error {
        match &lock(&self.state).availability {
            Availability::Closed(error) => error.clone(),
            Availability::Available | Availability::Unavailable(_) => {
                Error::not_sent(ErrorKind::Unavailable).with_node(&self.node)
            }
        }
    }

    /// Whether calls wait, and fewer than fill a batch.
    pub(super) fn has_partial_batch(&self) -> bool {
        (1..BATCH_CALLS).contains(&lock(&self.state).calls.len())
    }

    #[cfg(test)]
    pub(super) fn assert_empty(&self) {
        let state = lock(&self.state);
        assert_eq!((state.calls.len(), state.calls.bytes(), state.waiters), (0, 0, 0));
    }

    /// Removes a call, in constant time, unless a connection has taken it. Returns whether it was queued.
    pub(super) fn cancel(&self, call: &Arc<Call>) -> bool {
        let (was_queued, has_waiters) = {
            let mut state = lock(&self.state);
            (state.calls.remove(call), state.waiters > 0)
        };
        if was_queued && has_waiters {
            self.space.notify_waiters();
        }
        was_queued
    }

    /// Fails a call whose deadline has passed, in the caller's place. It may have been completed meanwhile.
    pub(super) fn expire(&self, call: &Arc<Call>) {
        let delivery = if self.cancel(call) { Delivery::NotSent } else { Delivery::Unknown };
        // The caller itself is running, so there is nothing to wake.
        drop(call.fail(&Error::new(ErrorKind::Timeout, delivery).with_node(&self.node)));
    }

    /// Fails the calls whose deadline has passed, and plans the next sweep for the earliest deadline left.
    pub(super) fn sweep(&self, now: Instant) {
        let mut state = lock(&self.state);
        let late = state.calls.remove_late(now);
        state.sweep_at = state.calls.earliest_deadline();
        let has_waiters = state.waiters > 0;
        drop(state);
        if !late.is_empty() {
            let mut wakes = WakeList::default();
            let error = Error::new(ErrorKind::Timeout, Delivery::NotSent).with_node(&self.node);
            late.iter().for_each(|call| wakes.add(call.fail(&error)));
            if has_waiters {
                self.space.notify_waiters();
            }
        }
    }

    /// Returns when the sweeper is to look next. Wakes it once it must look earlier, or the queue is closed.
    pub(super) fn sweep_plan(&self, sweeper: &Waker) -> SweepPlan {
        let mut state = lock(&self.state);
        if state.is_closed() {
            return SweepPlan::Never;
        }
        note_waker(&mut state.sweeper, sweeper);
        state.sweep_at.map_or(SweepPlan::WhenWoken, SweepPlan::At)
    }
}

impl State {
    fn is_closed(&self) -> bool {
        matches!(self.availability, Availability::Closed(_))
    }

    /// Returns the waker of a connection that is idle, which is no longer counted as idle then.
    #[inline]
    fn idle_connection(&mut self) -> Option<Waker> {
        let task = self.tasks.iter_mut().find(|task| task.is_idle)?;
        task.is_idle = false;
        task.waker.clone()
    }

    /// Whether the next sweep would be too late for a call with this deadline, or none is planned.
    #[inline]
    fn sweeps_after(&self, deadline: Instant) -> bool {
        self.sweep_at.is_none_or(|at| deadline < at)
    }

    /// Plans a sweep for a call that was just queued. Returns the sweeper's waker if it would sweep too late.
    ///
    /// This does not depend on any connection: a connection that was woken for the call may end without taking it.
    fn plan_sweep(&mut self, deadline: Instant) -> Option<Waker> {
        if !self.sweeps_after(deadline) {
            return None;
        }
        self.sweep_at = Some(deadline);
        // Before its first poll, the sweeper has no waker and needs none.
        self.sweeper.clone()
    }

    /// Returns the waker of another connection for the calls left after a connection took a batch or ended.
    fn waker_for_remaining(&mut self) -> Option<Waker> {
        if self.calls.is_empty() { None } else { self.idle_connection() }
    }

    fn note_task(&mut self, task: usize, waker: &Waker, is_idle: bool) {
        if let Some(task) = self.tasks.get_mut(task) {
            note_waker(&mut task.waker, waker);
            task.is_idle = is_idle;
        }
    }

    fn fail_all(&mut self, error: &Error, wakes: &mut WakeList) {
        self.sweep_at = None;
        for call in self.calls.drain() {
            wakes.add(call.fail(error));
        }
    }
}

fn note_waker(known: &mut Option<Waker>, waker: &Waker) {
    match known {
        Some(known) if known.will_wake(waker) => {}
        known => *known = Some(waker.clone()),
    }
}

/// Wakes an idle connection, and the sweeper to look at this deadline: the rare part of a push.
#[cold]
fn wake_with_sweeper(mut state: MutexGuard<'_, State>, deadline: Instant) {
    let wakers = [state.idle_connection(), state.plan_sweep(deadline)];
    drop(state);
    wakers.into_iter().flatten().for_each(Waker::wake);
}

/// Counts a caller that waits for space, while it lives.
struct WaiterGuard<'a>(&'a Queue);

impl<'a> WaiterGuard<'a> {
    fn new(queue: &'a Queue) -> Self {
        lock(&queue.state).waiters += 1;
        Self(queue)
    }
}

impl Drop for WaiterGuard<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).waiters -= 1;
    }
}
