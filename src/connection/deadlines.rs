//! Timers: one per node for the calls in its queue, one per connection for the calls in its pipeline.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

use super::queue::{CloseReason, Queue, SweepPlan};
use crate::protocol::BodyProgress;

/// Fails queued calls whose deadline has passed: one per node, in a task of its own, because connections come and go.
///
/// A queue that is not closed has a sweeper: the node that makes the queue starts it, it ends only when the queue is
/// closed, and dropping it closes the queue. So each queued call fails in time, whatever the connections do.
/// `tests/deadline_model.rs` checks this.
#[derive(Debug)]
pub(crate) struct DeadlineSweeper {
    queue: Arc<Queue>,
    timer: LazyTimer,
}

impl DeadlineSweeper {
    pub(crate) fn new(queue: Arc<Queue>) -> Self {
        Self { queue, timer: LazyTimer::default() }
    }

    /// Sweeps until the queue is closed.
    pub(crate) async fn run(mut self) {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// Fails the calls whose deadline has passed, and wakes the task for the next deadline.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.queue.sweep_plan(cx.waker()) {
                SweepPlan::Never => return Poll::Ready(()),
                SweepPlan::WhenWoken => return Poll::Pending,
                SweepPlan::At(due) if self.timer.poll(due, cx).is_pending() => return Poll::Pending,
                SweepPlan::At(_) => self.queue.sweep(Instant::now()),
            }
        }
    }
}

impl Drop for DeadlineSweeper {
    /// Nothing would keep the deadlines of calls in the queue. Without effect if the queue is closed already.
    fn drop(&mut self) {
        self.queue.close(CloseReason::TasksDropped);
    }
}

/// A timer that is reset only to fire earlier, so that a busy connection never touches the timer wheel.
#[derive(Debug, Default)]
pub(super) struct LazyTimer {
    sleep: Option<Pin<Box<Sleep>>>,
    is_armed: bool,
}

impl LazyTimer {
    /// Is ready once `due` has passed. Wakes the task at `due` or before.
    pub(super) fn poll(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
        loop {
            if !self.is_armed || due < sleep.deadline() {
                sleep.as_mut().reset(due);
                self.is_armed = true;
            }
            // Unconstrained, because a connection that never stops reading uses up the task's budget in every poll,
            // and no deadline would be kept.
            if pin!(unconstrained(sleep.as_mut())).poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.is_armed = false;
            if due <= sleep.deadline() {
                return Poll::Ready(());
            }
        }
    }
}

/// A value that arrives is a sign of life if this part of it arrives within the silence timeout, so that no value takes
/// longer than as many timeouts.
const LEAST_SHARE: usize = 32;

/// The least bytes of a value that are a sign of life: a smaller value must arrive within one silence timeout.
const LEAST_BYTES: usize = 16 * 1024;

/// A timer that fires so much late shows that the process has stalled.
///
/// Every timer fires a little late, and the same timer keeps the deadlines of calls. If each of them put off the end of
/// the silence, a server would be given up the later, the more different deadlines its calls have.
const LEAST_STALL: Duration = Duration::from_millis(100);

/// Detects a server that sends no reply while replies are pending.
///
/// Only a whole reply is a sign of life, or enough of a value that was requested. Garbage and parts of lines are not.
#[derive(Debug)]
pub(super) struct SilenceDetector {
    /// The last sign of life, or when the first pending request was encoded.
    since: Instant,
    /// How much of the current value had arrived then.
    arrived_then: usize,
    timeout: Duration,
    /// The last part of a value, or the last stall of this process. Either says that it is too soon for a suspicion.
    suspicion_from: Instant,
    /// How long the server may send nothing at all before it is suspected.
    suspicion_after: Duration,
}

impl SilenceDetector {
    pub(super) fn new(timeout: Duration, suspicion_after: Duration) -> Self {
        let now = Instant::now();
        let suspicion_after = suspicion_after.min(timeout);
        Self { since: now, arrived_then: 0, timeout, suspicion_from: now, suspicion_after }
    }

    /// Measures the silence from now on.
    pub(super) fn restart(&mut self, now: Instant) {
        self.since = now;
        self.arrived_then = 0;
    }

    /// Measures the silence from now on if enough of a value has arrived since the last sign of life.
    pub(super) fn body_arrives(&mut self, body: BodyProgress) {
        self.suspicion_from = Instant::now();
        if body.arrived.saturating_sub(self.arrived_then) >= LEAST_BYTES.max(body.len / LEAST_SHARE) {
            self.since = self.suspicion_from;
            self.arrived_then = body.arrived;
        }
    }

    /// Leaves out the time for which a timer fired late, if the process has stalled (throttled, or its machine paused):
    /// it could not have noticed a reply then.
    ///
    /// A suspicion starts over then, because the process may have stalled since just after it sent the requests.
    pub(super) fn timer_fired_late(&mut self, lateness: Duration, now: Instant) {
        if lateness >= LEAST_STALL {
            self.since += lateness;
        }
        if lateness >= LEAST_STALL.min(self.suspicion_after / 2) {
            self.suspicion_from = now;
        }
    }

    /// When the server is suspected to be stopped or unreachable: it has sent nothing at all since.
    pub(super) fn suspicion_at(&self) -> Instant {
        self.since.max(self.suspicion_from) + self.suspicion_after
    }

    /// When to look at the silence next.
    pub(super) fn next_check(&self, now: Instant) -> Instant {
        let suspicion_at = self.suspicion_at();
        if suspicion_at > now { suspicion_at.min(self.deadline()) } else { self.deadline() }
    }

    /// When the server has been silent for too long.
    pub(super) fn deadline(&self) -> Instant {
        self.since + self.timeout
    }

    pub(super) fn suspicion_after(&self) -> Duration {
        self.suspicion_after
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }
}
