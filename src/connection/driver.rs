//! Owns one socket and moves bytes: the only place where a connection reads and writes.
//!
//! Reading goes on while a write is blocked, or two full socket buffers would wait for each other.

mod isolation;
mod send;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::Instant;

use self::isolation::Isolation;
use super::WakeList;
use super::batch_window::BatchWindow;
use super::call::Call;
use super::deadlines::{LazyTimer, SilenceDetector};
use super::error_line::{Rejected, foreign_protocol_error};
use super::observer::{Observation, Observer};
use super::pipeline::{Pipeline, Poison};
use super::queue::{CloseReason, Queue};
use super::suspect_keys::SuspectKeys;
use super::version_probe::{ProbeHistory, VersionProbe};
use crate::error::{Delivery, Error, ErrorKind};
use crate::node_id::NodeId;
use crate::protocol::{ProtocolError, WriteBuffer, unsolicited_error_line};

/// How many bytes are read at a time. Smaller reads cost system calls, larger ones memory per connection.
const READ_CHUNK: usize = 32 * 1024;

/// Drives one connection. Poll [`run`](Self::run) until it ends.
pub(crate) struct Driver<S> {
    socket: S,
    queue: Arc<Queue>,
    node: NodeId,
    /// The index of this connection's task in the queue.
    task: usize,
    pipeline: Pipeline,
    window: BatchWindow,
    version_probe: VersionProbe,
    isolation: Isolation,
    silence: SilenceDetector,
    observer: Observer,
    timer: LazyTimer,
    /// When the timer must fire: a deadline of a call in the pipeline, or of the server's silence.
    timer_due: Option<Instant>,
    /// Bytes written since the connection began.
    written: u64,
    /// The socket accepts no more bytes for now.
    write_blocked: bool,
    /// The queue counts on this connection to take the next call at once.
    advertised_idle: bool,
    /// The server replied with an error line after which no other reply can be trusted.
    is_rejected: bool,
    phase: Phase,
    // Reused buffers.
    batch: VecDeque<Arc<Call>>,
    wakes: WakeList,
    input: BytesMut,
    output: WriteBuffer,
}

/// The settings of a connection.
#[derive(Debug, Clone)]
pub(crate) struct DriverConfig {
    pub(crate) node: NodeId,
    /// Which of the node's connections this is: the index of its task in the queue.
    pub(crate) task: usize,
    /// The largest value accepted, in bytes.
    pub(crate) max_value: usize,
    /// How long the server may send no reply, and too little of a value, while replies are pending.
    pub(crate) silence_timeout: Duration,
    /// How long the server may send nothing at all, while the reply to a call past its deadline is pending, before it
    /// is reported as silent.
    pub(crate) suspicion_after: Duration,
}

/// What the connections of a node remember of its server, whichever of them found it out.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeMemory {
    probe_history: Arc<ProbeHistory>,
    suspect_keys: Arc<SuspectKeys>,
}

/// Whether a connection takes calls, and whether it ends once its pipeline is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Takes calls.
    Serving,
    /// Another connection has taken its place: it takes no calls, and ends when its pipeline is empty.
    Replaced,
    /// The node has left: it takes calls until the queue is empty, then closes the queue and ends.
    Retiring,
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) enum End {
    /// It was replaced or retired, and every response is complete.
    Drained,
    /// The server closed it while nothing was in flight.
    Closed,
    /// The client closed it, because the server replied with an error line after which no other reply can be trusted.
    /// The calls that were written have failed with this error.
    Rejected(Error),
    /// It broke, or the client closed it after an error. The calls that were written have failed with this error.
    Lost(Error),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    pub(crate) fn new(socket: S, queue: Arc<Queue>, memory: NodeMemory, config: DriverConfig) -> Self {
        let DriverConfig { node, task, max_value, silence_timeout, suspicion_after } = config;
        Self {
            socket,
            queue,
            pipeline: Pipeline::new(node.clone(), max_value),
            window: BatchWindow::default(),
            version_probe: VersionProbe::new(memory.probe_history),
            isolation: Isolation::new(memory.suspect_keys),
            node,
            task,
            silence: SilenceDetector::new(silence_timeout, suspicion_after),
            observer: Observer::new(),
            timer: LazyTimer::default(),
            timer_due: None,
            written: 0,
            write_blocked: false,
            advertised_idle: false,
            is_rejected: false,
            phase: Phase::Serving,
            batch: VecDeque::new(),
            wakes: WakeList::default(),
            input: BytesMut::new(),
            output: WriteBuffer::default(),
        }
    }

    /// Takes no more calls; [`run`](Self::run) ends when the calls in flight are complete.
    pub(crate) fn replace(&mut self) {
        self.phase = Phase::Replaced;
        self.advertised_idle = false;
        self.queue.leave(self.task);
    }

    /// Serves the calls in the queue, then closes the queue and ends.
    pub(crate) fn retire(&mut self) {
        self.phase = Phase::Retiring;
    }

    /// How many replies the server has sent on this connection, error lines included. That it accepted the connection
    /// proves nothing: a stopped process does.
    pub(crate) fn replies(&self) -> u64 {
        self.pipeline.received()
    }

    /// Whether an observation of the server's health is worth a report.
    #[inline]
    pub(crate) fn has_observation(&self) -> bool {
        self.observer.has_news()
    }

    /// Returns what was noticed of the server's health since the last call.
    pub(crate) fn take_observation(&mut self) -> Observation {
        self.observer.take()
    }

    /// Moves bytes until the connection ends. Cancel safe: it may be dropped and called again.
    pub(crate) async fn run(&mut self) -> End {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// Moves all bytes that can be moved now. Is ready when the connection has ended.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let mut wakes = std::mem::take(&mut self.wakes);
        let end = self.poll_steps(cx, &mut wakes).map(|end| {
            end.unwrap_or_else(|error| {
                self.version_probe.connection_lost();
                self.observe_loss(&error);
                self.abandon(&error, &mut wakes);
                if self.is_rejected { End::Rejected(error) } else { End::Lost(error) }
            })
        });
        // Callers are woken last: after the next batch is on its way, and outside every lock.
        wakes.wake_all();
        self.wakes = wakes;
        end
    }

    fn poll_steps(&mut self, cx: &mut Context<'_>, wakes: &mut WakeList) -> Poll<Result<End, Error>> {
        // Read before the next batch is written: bytes that arrive unrequested must not pass for the reply to a request
        // that is sent only now.
        if self.poll_read(cx, wakes)?.is_ready() {
            return Poll::Ready(self.closed_by_server());
        }
        if self.yields_to_callers(wakes) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.poll_queue(cx, wakes);
        if self.has_drained() {
            return Poll::Ready(Ok(self.drained()));
        }
        self.poll_write(cx)?;
        self.poll_deadlines(cx, wakes)?;
        Poll::Pending
    }

    /// Reads until the socket has no more bytes, and completes the calls whose replies arrived. Is ready when the
    /// server has closed its end.
    fn poll_read(&mut self, cx: &mut Context<'_>, wakes: &mut WakeList) -> Poll<Result<(), Error>> {
        loop {
            // A read future keeps no state, so a new one may be made for each poll.
            let read = if let Some(buffer) = self.pipeline.large_value_buffer() {
                pin!(self.socket.read_buf(buffer)).poll(cx)
            } else {
                if self.input.capacity() - self.input.len() < READ_CHUNK / 4 {
                    self.input.reserve(READ_CHUNK);
                }
                pin!(self.socket.read_buf(&mut self.input)).poll(cx)
            };
            match read {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) => self.receive(wakes)?,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(self.io_error(error))),
            }
        }
    }

    /// Passes what was read to the pipeline.
    fn receive(&mut self, wakes: &mut WakeList) -> Result<(), Error> {
        let before = self.pipeline.received();
        let outcome = self.pipeline.receive(&mut self.input, self.written, wakes);
        if self.pipeline.received() != before {
            let now = Instant::now();
            self.silence.restart(now);
            self.window.received(now);
            self.observer.reply_received();
        } else if before == 0
            && let Some(error) = foreign_protocol_error(&self.input, Delivery::Unknown)
        {
            return Err(error.with_node(&self.node));
        } else if let Some(body) = self.pipeline.body_progress(&self.input) {
            self.silence.body_arrives(body);
        }
        outcome.map_err(|poison| {
            if let Poison::Protocol(reason) = poison {
                self.version_probe.invalid_reply(reason, &self.input);
            }
            self.poisoned(&poison)
        })
    }

    /// Whether the connection is to end, and nothing is in flight.
    fn has_drained(&self) -> bool {
        self.phase != Phase::Serving && self.pipeline.is_empty()
    }

    /// Closes the queue if the node has left: it is empty now.
    fn drained(&self) -> End {
        if self.phase == Phase::Retiring {
            self.queue.close(CloseReason::NodeLeft);
        }
        End::Drained
    }

    /// Fails the calls past their deadline. Returns an error if replies are pending and the server has been
    /// silent for too long.
    fn poll_deadlines(&mut self, cx: &mut Context<'_>, wakes: &mut WakeList) -> Result<(), Error> {
        while let Some(due) = self.timer_due {
            if self.timer.poll(due, cx).is_pending() {
                break;
            }
            let now = Instant::now();
            self.silence.timer_fired_late(now.saturating_duration_since(due), now);
            let (next_deadline, expired) = self.pipeline.fail_expired(now, wakes);
            let is_old = self.observer.has_old_batch(self.pipeline.answered(), now, self.silence.suspicion_after());
            self.observer.calls_expired(if is_old { expired } else { 0 });
            if !self.version_probe.poll() {
                return Err(self.lost().with_message("no reply to `version`"));
            }
            self.timer_due = None;
            if !self.pipeline.is_empty() {
                let silent_at = self.silence.deadline();
                self.observe_silence(silent_at, now);
                if silent_at <= now {
                    let text = format!("no reply within {:?}, and requests are in flight", self.silence.timeout());
                    return Err(self.lost().with_message(text));
                }
                let next_check = self.silence.next_check(now);
                self.timer_due = Some(next_deadline.map_or(next_check, |next| next.min(next_check)));
            }
        }
        Ok(())
    }

    /// A call with a longer timeout may wait for longer than a request timeout, but not for a silence timeout.
    fn observe_silence(&mut self, silent_at: Instant, now: Instant) {
        if self.silence.suspicion_at() <= now
            && (self.pipeline.has_overdue_command(now) || silent_at <= now && self.pipeline.awaits_command())
        {
            self.observer.server_is_silent(self.pipeline.pending_key());
        }
    }

    /// An error line is a reply, credentials are part of a dial, and a connection may be lost for `version` alone.
    fn observe_loss(&mut self, error: &Error) {
        let is_failure = matches!(error.kind(), ErrorKind::Connection | ErrorKind::Protocol);
        if is_failure && !self.is_rejected && self.pipeline.awaits_command() {
            self.observer.connection_lost(self.pipeline.pending_key());
        }
    }

    fn closed_by_server(&mut self) -> Result<End, Error> {
        if self.pipeline.is_inside_reply(&self.input) {
            Err(self.lost().with_message("closed by the server inside a reply"))
        } else if !self.pipeline.is_empty() {
            if self.output.len() == 0 {
                self.version_probe.refused();
            }
            Err(self.lost().with_message("closed by the server while requests were in flight"))
        } else {
            Ok(End::Closed)
        }
    }

    fn io_error(&self, error: io::Error) -> Error {
        self.lost().with_source(error)
    }

    fn poisoned(&mut self, poison: &Poison) -> Error {
        match poison {
            Poison::ErrorLine(line) => {
                if !line.is_unauthenticated() {
                    self.is_rejected = true;
                    self.isolation.line_rejected(self.pipeline.oldest_line());
                }
                Rejected::Command.error(line, Delivery::Unknown).with_node(&self.node)
            }
            Poison::ConnectionLimit(line) => Rejected::Connection.error(line, Delivery::NotSent).with_node(&self.node),
            Poison::Protocol(reason) => {
                let error = Error::new(ErrorKind::Protocol, Delivery::Unknown).with_node(&self.node);
                match unsolicited_error_line(&self.input) {
                    Some(line) if *reason == ProtocolError::Unsolicited => {
                        if line.is_connection_limit() && self.replies() == 0 {
                            return self.poisoned(&Poison::ConnectionLimit(line));
                        }
                        error.with_message(line.line()).with_source(*reason)
                    }
                    _ => error.with_source(*reason),
                }
            }
        }
    }
}

impl<S> Driver<S> {
    /// Fails the calls of which any byte was written, and requeues the others.
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
    /// The capacities of the read buffer and of the write buffer.
    pub(super) fn buffer_capacities(&self) -> (usize, usize) {
        (self.input.capacity(), self.output.capacity())
    }
}

impl<S> Drop for Driver<S> {
    /// Fails or requeues its calls, whatever ends the task, a shutdown of the runtime included.
    fn drop(&mut self) {
        if !self.pipeline.is_empty() {
            self.abandon(&self.lost().with_message("closed by the client"), &mut WakeList::default());
        }
        // A replaced connection has left the queue already, and its task index is another connection's now.
        if self.phase != Phase::Replaced {
            self.queue.leave(self.task);
        }
    }
}

impl<S> fmt::Debug for Driver<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("node", &self.node).field("task", &self.task).finish_non_exhaustive()
    }
}
