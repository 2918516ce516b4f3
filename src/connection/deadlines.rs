//! Timers for deadlines: one per node for the calls in its queue, one per connection for the calls in its pipeline.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

use super::Queue;

/// Keeps the deadlines of what waits in a queue: one timer per node, armed only while something waits. Held by the
/// node's first task, whatever that is doing.
#[derive(Debug)]
pub(crate) struct DeadlineSweeper {
    queue: Arc<Queue>,
    timer: LazyTimer,
}

impl DeadlineSweeper {
    pub(crate) fn new(queue: Arc<Queue>) -> Self {
        Self { queue, timer: LazyTimer::default() }
    }

    /// Never completes. Cancel safe: to be run beside whatever else the task does.
    pub(crate) async fn run(&mut self) {
        std::future::poll_fn(|cx| {
            self.poll(cx);
            Poll::Pending
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        let Some(mut due) = self.queue.sweep_at(cx.waker()) else { return };
        while self.timer.poll(due, cx).is_ready() {
            match self.queue.sweep(Instant::now()) {
                Some(next) => due = next,
                None => return,
            }
        }
    }
}

/// A timer that is touched only when it must fire earlier than it would, so that the busy never touch it at all.
#[derive(Debug, Default)]
pub(super) struct LazyTimer {
    sleep: Option<Pin<Box<Sleep>>>,
    armed: bool,
}

impl LazyTimer {
    /// Ready once `due` has passed. Woken at `due` or before.
    pub(super) fn poll(&mut self, due: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
        loop {
            if !self.armed || due < sleep.deadline() {
                sleep.as_mut().reset(due);
                self.armed = true;
            }
            // Outside the task's budget: a connection that never stops reading uses it up in every poll, and nobody's
            // deadline would be kept.
            if pin!(unconstrained(sleep.as_mut())).poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.armed = false;
            if due <= sleep.deadline() {
                return Poll::Ready(());
            }
        }
    }
}
