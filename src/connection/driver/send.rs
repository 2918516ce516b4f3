//! The send rule: when a connection takes a batch from the queue, and how it writes it.
//!
//! At most as many batches are in flight as the [`BatchWindow`](super::BatchWindow) allows: on a short link, one. Calls
//! that arrive meanwhile stay in the queue and form the next batch, which leaves when the last reply of the batch
//! before is in. So batches grow with the load, without a timer, and a lone request leaves at once.
//!
//! Callers whose responses are complete run before the next batch is taken, because they are likely to send their next
//! request. If nothing is queued, the first of these requests wakes this task, and the others join its batch until the
//! task runs.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::{Driver, Phase};
use crate::connection::WakeList;
use crate::connection::version_probe::Admission;
use crate::error::Error;

/// The most slices passed to one vectored write.
const WRITE_SLICES: usize = 64;

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    /// Whether the callers that are about to be woken run before the next batch is taken, so that their next requests
    /// join it. Once only: in the next poll no caller is left to wake.
    pub(super) fn yields_to_callers(&mut self, wakes: &WakeList) -> bool {
        !wakes.is_empty() && self.may_send() && self.queue.has_partial_batch()
    }

    /// Encodes batches until the queue is empty or the send rule allows no more. Either way the queue wakes the right
    /// task for the next call.
    pub(super) fn poll_queue(&mut self, cx: &Context<'_>, wakes: &mut WakeList) {
        while self.may_send() {
            let is_alone = self.pipeline.is_empty();
            if !self.fill_batch(is_alone, cx, wakes) {
                return;
            }
            self.submit_batch(is_alone);
        }
        // Stop advertising this connection as idle, so that new calls wake another one.
        if std::mem::take(&mut self.advertised_idle) {
            self.queue.leave(self.task);
        }
    }

    /// Whether the send rule allows one more batch.
    ///
    /// No batch follows pending replies whose place an error to one of its gets could take, nor a call that is sent
    /// apart. While such a call waits, none follows until nothing is in flight. Nor does a batch follow
    /// bytes that the socket does not accept, because a queued call can still be cancelled, or taken by another
    /// connection.
    fn may_send(&mut self) -> bool {
        let has_room =
            self.window.has_room(self.pipeline.answered()) && !self.write_blocked && !self.isolation.is_active();
        self.phase != Phase::Replaced && (self.pipeline.is_empty() || (has_room && self.pipeline.can_be_followed()))
    }

    /// Takes calls from the queue that can be sent now. `false` if there are none.
    fn fill_batch(&mut self, is_alone: bool, cx: &Context<'_>, wakes: &mut WakeList) -> bool {
        self.version_probe.poll();
        if is_alone {
            self.isolation.pipeline_is_empty();
        }
        while self.batch.is_empty() {
            if is_alone {
                self.version_probe.start(&mut self.batch, self.silence.timeout());
                if !self.batch.is_empty() {
                    break;
                }
            }
            self.queue.take_batch(self.task, cx.waker(), &mut self.batch);
            self.advertised_idle = self.batch.is_empty();
            if self.advertised_idle {
                return false;
            }
            let mut some_wait = self.filter_by_version(wakes);
            if self.isolation.is_needed() {
                let waiting = self.isolation.filter(&mut self.batch, is_alone);
                some_wait |= !waiting.is_empty();
                self.queue.requeue(waiting.into_iter());
            }
            if self.batch.is_empty() && some_wait && !is_alone {
                // The version probe and suspect calls are sent alone, so these calls wait until the pipeline is empty.
                return false;
            }
        }
        true
    }

    /// Removes from the batch the calls that the server does not support, and requeues the calls that wait for its
    /// version. Returns whether any wait.
    fn filter_by_version(&mut self, wakes: &mut WakeList) -> bool {
        if self.batch.iter().all(|call| call.request().min_version().is_none()) {
            return false;
        }
        let mut waiting = Vec::new();
        self.batch.retain(|call| {
            let Some(needs) = call.request().min_version() else { return true };
            match self.version_probe.admission(needs, &self.node) {
                Admission::Send => return true,
                Admission::Wait => waiting.push(Arc::clone(call)),
                Admission::Refuse(error) => wakes.add(call.fail(&error)),
            }
            false
        });
        let some_wait = !waiting.is_empty();
        if some_wait {
            self.queue.requeue(waiting.into_iter());
        }
        some_wait
    }

    /// Encodes the batch, and arms the timer for its deadlines.
    fn submit_batch(&mut self, is_alone: bool) {
        self.observer.calls_sent(self.batch.len());
        let first_deadline = self.batch.iter().map(|call| call.deadline()).min();
        if !self.isolation.submit(&mut self.batch, &mut self.pipeline, &mut self.output) {
            self.pipeline.submit(&mut self.batch, &mut self.output);
        }
        let now = Instant::now();
        let encoded = self.pipeline.encoded();
        self.window.sent(encoded, now);
        if is_alone || self.observer.batch_end() <= self.pipeline.answered() {
            self.observer.batch_sent(encoded, now);
        }
        let mut due = first_deadline;
        if is_alone {
            self.silence.restart(now);
            let suspicion_at = now + self.silence.suspicion_after();
            due = due.map_or(Some(suspicion_at), |deadline| Some(deadline.min(suspicion_at)));
        }
        // A batch that follows another has its silence watched already.
        self.timer_due = match (self.timer_due, due) {
            (Some(earlier), Some(due)) => Some(earlier.min(due)),
            (earlier, due) => earlier.or(due),
        };
    }

    /// Writes until the output is empty or the socket accepts no more.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        let was_blocked = self.write_blocked;
        while self.output.len() > 0 {
            match self.write_once(cx) {
                Poll::Pending => {
                    self.write_blocked = true;
                    return Ok(());
                }
                Poll::Ready(Ok(0)) => return Err(self.io_error(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => {
                    self.output.advance(count);
                    self.written += count as u64;
                    // A server that accepts bytes again is alive. (A stopped one soon accepts no more.)
                    if std::mem::take(&mut self.write_blocked) {
                        self.silence.restart(Instant::now());
                    }
                }
                Poll::Ready(Err(error)) => return Err(self.io_error(error)),
            }
        }
        self.output.shrink();
        if was_blocked {
            // Poll again: calls that were held back while the write was blocked may be sent now.
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    fn write_once(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let socket = Pin::new(&mut self.socket);
        if self.output.is_one_piece() || !socket.is_write_vectored() {
            return socket.poll_write(cx, self.output.first_piece());
        }
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
        let count = self.output.pieces(&mut slices);
        socket.poll_write_vectored(cx, &slices[..count])
    }
}
