//! Owns one socket and moves bytes: the only place where a connection reads and writes.
//!
//! The send rule: one batch under way per connection. What arrives meanwhile waits in the queue and goes out together
//! when the last reply of the batch is in, so that batches grow with the load, without a timer, and a lone request
//! leaves at once. Those who were answered run before the next batch is taken, for they are likely to ask again; with
//! nothing waiting, their first request makes the batch, and the rest joins it until this task's turn comes.
//! Reading goes on while a write is stuck, or two full socket buffers would wait for each other.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::Instant;

use super::WakeList;
use super::batch_window::BatchWindow;
use super::call::Call;
use super::deadlines::LazyTimer;
use super::pipeline::{Pipeline, Poison, refused};
use super::queue::Queue;
use super::version_probe::{Admission, ProbeHistory, VersionProbe};
use crate::error::{Delivery, Error, ErrorKind};
use crate::node_id::NodeId;
use crate::protocol::{Output, ProtocolError, unrequested_error_line};

/// How much is read at a time. Smaller reads cost system calls, larger ones memory per connection.
const READ_CHUNK: usize = 32 * 1024;

/// How many pieces go into one write at the most.
const WRITE_PIECES: usize = 64;

/// One connection at work. Poll [`run`](Self::run) until it ends.
pub(crate) struct Driver<S> {
    socket: S,
    queue: Arc<Queue>,
    node: NodeId,
    /// Which of the node's connections this is.
    task: usize,
    pipeline: Pipeline,
    window: BatchWindow,
    version_probe: VersionProbe,
    // Kept for their room only.
    batch: VecDeque<Arc<Call>>,
    wakes: WakeList,
    input: BytesMut,
    output: Output,
    written: u64,
    /// The server takes no more for the time being.
    write_blocked: bool,
    /// The queue may count on this connection to take the next call at once.
    advertised_idle: bool,
    /// The server owes replies and has been silent since.
    silent_since: Instant,
    /// It may be silent that long.
    silence_timeout: Duration,
    timer: LazyTimer,
    timer_due: Option<Instant>,
    leaving: Leaving,
}

/// Whether a connection is to end once nothing is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// Another connection has taken its place.
    Replaced,
    /// The node has left: what waits in its queue is still served, then the queue is closed.
    Retired,
}

/// The question for the server's version is given this part of the silence_timeout with the server: what waits behind it is to
/// be sent elsewhere in time.
const PROBE_SHARE: u32 = 8;

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// As told, with nothing owed.
    Drained,
    /// The server closed it while nothing was under way.
    Closed,
    /// It broke, or had to be given up. Those whose requests were written have been told.
    Lost(Error),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    pub(crate) fn new(
        socket: S,
        queue: Arc<Queue>,
        node: NodeId,
        task: usize,
        max_value: usize,
        silence_timeout: Duration,
        probe_history: Arc<ProbeHistory>,
    ) -> Self {
        Self {
            socket,
            queue,
            pipeline: Pipeline::new(node.clone(), max_value),
            window: BatchWindow::default(),
            version_probe: VersionProbe::new(probe_history),
            node,
            task,
            batch: VecDeque::new(),
            wakes: WakeList::default(),
            input: BytesMut::new(),
            output: Output::default(),
            written: 0,
            write_blocked: false,
            advertised_idle: false,
            silent_since: Instant::now(),
            silence_timeout,
            timer: LazyTimer::default(),
            timer_due: None,
            leaving: Leaving::No,
        }
    }

    /// Takes no more calls; [`run`](Self::run) ends when those under way are answered.
    pub(crate) fn replace(&mut self) {
        self.leaving = Leaving::Replaced;
        self.advertised_idle = false;
        self.queue.leave(self.task);
    }

    /// Serves what waits in the queue, then closes it and ends.
    pub(crate) fn retire(&mut self) {
        self.leaving = Leaving::Retired;
    }

    /// Whether the server ever answered on this connection. Accepting it proves nothing: a stopped process still does.
    pub(crate) fn has_replied(&self) -> bool {
        self.pipeline.received() > 0
    }

    /// Moves bytes until the connection ends. Cancel safe: it may be dropped and called again.
    pub(crate) async fn run(&mut self) -> End {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let mut wakes = std::mem::take(&mut self.wakes);
        let end = self.advance(cx, &mut wakes);
        if let Poll::Ready(End::Lost(error)) = &end {
            self.version_probe.lost();
            self.abandon(error, &mut wakes);
        }
        // Callers are woken last: after the next batch is on its way, and outside every lock.
        wakes.wake_all();
        self.wakes = wakes;
        end
    }

    fn advance(&mut self, cx: &mut Context<'_>, wakes: &mut WakeList) -> Poll<End> {
        // Always read before the next batch is written: bytes that nobody asked for must not be taken for an answer to what
        // is only now being sent. Reading ends when there is nothing more, and leaves word to be woken by what comes.
        let open = match self.read(cx, wakes) {
            Ok(open) => open,
            Err(error) => return Poll::Ready(End::Lost(error)),
        };
        if !open {
            return Poll::Ready(self.closed());
        }
        // Those who were just answered get a turn before what waits is sent: what they ask next goes along. Once only: the
        // next time round there is nobody to be woken.
        if !wakes.is_empty() && self.may_send() && self.queue.has_partial_batch() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // Until nothing waits, which leaves word to be woken, or no more may be under way.
        while self.take_batch(cx, wakes) {}
        if self.leaving != Leaving::No && self.pipeline.is_empty() {
            if self.leaving == Leaving::Retired {
                self.queue.close();
            }
            return Poll::Ready(End::Drained);
        }
        let was_blocked = self.write_blocked;
        if let Err(error) = self.write(cx) {
            return Poll::Ready(End::Lost(self.broken(error)));
        }
        if was_blocked && !self.write_blocked {
            // What was held back meanwhile may go now.
            cx.waker().wake_by_ref();
        }
        if let Some(error) = self.poll_deadlines(cx, wakes) {
            return Poll::Ready(End::Lost(error));
        }
        Poll::Pending
    }

    /// Reads and hands out whatever there is. `false` once the server has closed its end.
    fn read(&mut self, cx: &mut Context<'_>, wakes: &mut WakeList) -> Result<bool, Error> {
        loop {
            // The futures keep nothing between polls.
            let read = if let Some(room) = self.pipeline.room_in_large_value() {
                pin!(self.socket.read_buf(room)).poll(cx)
            } else {
                if self.input.capacity() - self.input.len() < READ_CHUNK / 4 {
                    self.input.reserve(READ_CHUNK);
                }
                pin!(self.socket.read_buf(&mut self.input)).poll(cx)
            };
            match read {
                Poll::Pending => return Ok(true),
                Poll::Ready(Ok(0)) => return Ok(false),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Err(self.broken(error)),
            }
            let before = self.pipeline.received();
            let outcome = self.pipeline.receive(&mut self.input, self.written, wakes);
            if self.pipeline.received() != before {
                self.silent_since = Instant::now();
                self.window.received(self.silent_since);
            }
            outcome.map_err(|poison| self.poisoned(&poison))?;
        }
    }

    /// Whether the rule allows one more batch. Nothing follows replies that a get's error could take the place of, nor
    /// what the server does not even read: in the queue it can still be taken back, or by another connection.
    fn may_send(&mut self) -> bool {
        let has_room = self.window.has_room(self.pipeline.answered()) && !self.write_blocked;
        self.leaving != Leaving::Replaced && (self.pipeline.is_empty() || (has_room && self.pipeline.may_be_followed()))
    }

    /// Puts the next batch into the write buffer, if the rule allows one and something waits.
    fn take_batch(&mut self, cx: &Context<'_>, wakes: &mut WakeList) -> bool {
        if !self.may_send() {
            // Whoever comes is to be told to another connection, or at least timed.
            if std::mem::take(&mut self.advertised_idle) {
                self.queue.leave(self.task);
            }
            return false;
        }
        let is_alone = self.pipeline.is_empty();
        self.version_probe.check();
        while self.batch.is_empty() {
            if is_alone && let Some(question) = self.version_probe.ask(self.silence_timeout / PROBE_SHARE) {
                self.batch.push_back(question);
                break;
            }
            self.queue.take_batch(self.task, cx.waker(), &mut self.batch);
            self.advertised_idle = self.batch.is_empty();
            if self.advertised_idle {
                return false;
            }
            let some_wait = self.filter_by_version(wakes);
            if self.batch.is_empty() && some_wait && !is_alone {
                // What waits for the server's version waits until that can be asked for, alone.
                return false;
            }
        }
        let first_deadline = self.batch.iter().map(|call| call.deadline()).min();
        self.pipeline.submit(&mut self.batch, &mut self.output);
        let now = Instant::now();
        self.window.sent(self.pipeline.encoded(), now);
        if is_alone {
            self.silent_since = now;
        }
        let due = self.silent_since + self.silence_timeout;
        let due = first_deadline.map_or(due, |deadline| deadline.min(due));
        self.timer_due = Some(self.timer_due.map_or(due, |earlier| earlier.min(due)));
        true
    }

    /// Takes out of the batch what the server cannot answer, and puts back what must wait until that is known. Says
    /// whether anything must.
    fn filter_by_version(&mut self, wakes: &mut WakeList) -> bool {
        if self.batch.iter().all(|call| call.request().needs().is_none()) {
            return false;
        }
        let mut waiting = Vec::new();
        self.batch.retain(|call| {
            let Some(needs) = call.request().needs() else { return true };
            match self.version_probe.judge(needs, &self.node) {
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

    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.output.len() > 0 {
            match self.poll_write(cx) {
                Poll::Pending => {
                    self.write_blocked = true;
                    return Ok(());
                }
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    self.output.advance(count);
                    self.written += count as u64;
                    // It takes again what it is sent, so it is there. (One that is not soon stops taking.)
                    if std::mem::take(&mut self.write_blocked) {
                        self.silent_since = Instant::now();
                    }
                }
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
        self.output.shrink();
        Ok(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let socket = Pin::new(&mut self.socket);
        if self.output.is_one_piece() || !socket.is_write_vectored() {
            return socket.poll_write(cx, self.output.first_piece());
        }
        let mut pieces = [IoSlice::new(&[]); WRITE_PIECES];
        let count = self.output.pieces(&mut pieces);
        socket.poll_write_vectored(cx, &pieces[..count])
    }

    /// Fails what is past its deadline, and gives up on a server that owes replies and says nothing.
    fn poll_deadlines(&mut self, cx: &mut Context<'_>, wakes: &mut WakeList) -> Option<Error> {
        while let Some(due) = self.timer_due {
            if self.timer.poll(due, cx).is_pending() {
                return None;
            }
            let now = Instant::now();
            // A timer that fires late tells that this process stood still (throttled, or its machine paused): the
            // server's silence meanwhile says nothing about the server.
            self.silent_since += now.saturating_duration_since(due);
            let next_deadline = self.pipeline.sweep(now, wakes);
            if !self.version_probe.check() {
                return Some(self.lost().with_message("the server does not answer `version`"));
            }
            self.timer_due = None;
            if !self.pipeline.is_empty() {
                let out_of_patience = self.silent_since + self.silence_timeout;
                if out_of_patience <= now {
                    return Some(self.lost().with_message("the server owes replies and has gone silent"));
                }
                self.timer_due = Some(next_deadline.map_or(out_of_patience, |next| next.min(out_of_patience)));
            }
        }
        None
    }

    fn closed(&self) -> End {
        if self.pipeline.is_inside_a_reply(&self.input) {
            End::Lost(self.lost().with_message("closed by the server inside a reply"))
        } else if !self.pipeline.is_empty() {
            End::Lost(self.lost().with_message("closed by the server with replies owed"))
        } else {
            End::Closed
        }
    }

    fn broken(&self, error: io::Error) -> Error {
        self.lost().with_source(error)
    }

    fn poisoned(&self, poison: &Poison) -> Error {
        match poison {
            Poison::ErrorLine(refusal) => refused(refusal, Delivery::Unknown).with_node(&self.node),
            Poison::Protocol(reason) => {
                let error = Error::new(ErrorKind::Protocol, Delivery::Unknown).with_node(&self.node);
                match unrequested_error_line(&self.input) {
                    // Such as `ERROR Too many open connections`, said to whoever connects.
                    Some(line) if *reason == ProtocolError::Unrequested => {
                        error.with_message(line).with_source(*reason)
                    }
                    _ => error.with_source(*reason),
                }
            }
        }
    }
}

impl<S> Driver<S> {
    /// Tells everybody whose request was written; the rest goes back to the queue.
    fn abandon(&mut self, error: &Error, wakes: &mut WakeList) {
        let unsent = self.pipeline.abandon(self.written, error, wakes);
        self.queue.requeue(unsent.into_iter());
    }

    fn lost(&self) -> Error {
        Error::new(ErrorKind::Connection, Delivery::Unknown).with_node(&self.node)
    }
}

#[cfg(test)]
impl<S> Driver<S> {
    /// How much room the connection keeps for reading and for writing.
    pub(super) fn room_kept(&self) -> (usize, usize) {
        (self.input.capacity(), self.output.capacity())
    }
}

impl<S> Drop for Driver<S> {
    /// Whatever ends the task, a shutdown of the runtime included, nobody waits for ever.
    fn drop(&mut self) {
        if !self.pipeline.is_empty() {
            self.abandon(&self.lost().with_message("given up"), &mut WakeList::default());
        }
        // One that was replaced has left already, and its place is another's now.
        if self.leaving != Leaving::Replaced {
            self.queue.leave(self.task);
        }
    }
}

impl<S> fmt::Debug for Driver<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("node", &self.node).field("task", &self.task).finish_non_exhaustive()
    }
}
