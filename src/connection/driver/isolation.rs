//! Sends calls with suspect keys apart, so that an error line in reply to one fails no other caller's call.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use tokio::time::Instant;

use crate::connection::call::Call;
use crate::connection::pipeline::Pipeline;
use crate::connection::suspect_keys::SuspectKeys;
use crate::protocol::{Keys, Request, WriteBuffer};

/// The calls with suspect keys of one connection.
#[derive(Debug)]
pub(super) struct Isolation {
    suspect_keys: Arc<SuspectKeys>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// No suspect call is known to wait.
    Inactive,
    /// A suspect call waits in the queue until nothing is in flight. It then goes before other calls.
    Waiting,
    /// A suspect call is in flight, with others of the same single key at most.
    InFlight(Arc<Call>),
}

impl Isolation {
    pub(super) fn new(suspect_keys: Arc<SuspectKeys>) -> Self {
        Self { suspect_keys, state: State::Inactive }
    }

    /// Whether no other batch may follow what is in flight.
    #[inline]
    pub(super) fn is_active(&self) -> bool {
        !matches!(self.state, State::Inactive)
    }

    /// Whether a batch may hold a suspect call, or one waits.
    #[inline]
    pub(super) fn is_needed(&self) -> bool {
        self.suspect_keys.is_in_use() || self.is_active()
    }

    /// Takes note that nothing is in flight any more: a suspect call that was has its proper reply.
    #[inline]
    pub(super) fn pipeline_is_empty(&mut self) {
        if let State::InFlight(call) = &self.state {
            self.suspect_keys.answered(call.request(), Instant::now());
            self.state = State::Inactive;
        }
    }

    /// Takes note of an error line in reply to a line with these keys.
    pub(super) fn line_rejected<'a>(&self, line: impl Iterator<Item = (&'a Arc<Call>, Range<usize>)>) {
        self.suspect_keys.line_rejected(line, Instant::now());
    }

    /// Leaves either a suspect call in the batch, or the calls that are not suspect, and returns the others, which wait
    /// in the queue. A suspect call needs that nothing is in flight (`is_alone`). Then the two kinds take turns.
    pub(super) fn filter(&mut self, batch: &mut VecDeque<Arc<Call>>, is_alone: bool) -> VecDeque<Arc<Call>> {
        let mut suspects = self.suspect_keys.remove_suspects(batch, Instant::now());
        let is_their_turn = is_alone && (batch.is_empty() || matches!(self.state, State::Waiting));
        self.state = if suspects.is_empty() { State::Inactive } else { State::Waiting };
        if is_their_turn && let Some(first) = suspects.pop_front() {
            let (with_first, mut waiting): (VecDeque<_>, VecDeque<_>) =
                suspects.into_iter().partition(|call| is_get_of_same_key(call, &first));
            waiting.append(batch);
            *batch = with_first;
            batch.push_front(Arc::clone(&first));
            self.state = State::InFlight(first);
            return waiting;
        }
        suspects
    }

    /// Encodes the batch, if it is a suspect get of many keys. `false` if it can be encoded as any other.
    #[inline]
    pub(super) fn submit(
        &self,
        batch: &mut VecDeque<Arc<Call>>,
        pipeline: &mut Pipeline,
        output: &mut WriteBuffer,
    ) -> bool {
        let State::InFlight(call) = &self.state else { return false };
        let Request::Get { keys: Keys::Many(_), .. } = call.request() else { return false };
        pipeline.submit_apart(call, &self.suspect_keys.suspect_indices(call.request()), output);
        batch.clear();
        true
    }
}

/// Whether both are gets of one key without a touch, and of the same: they share a line and its outcome.
fn is_get_of_same_key(call: &Call, other: &Call) -> bool {
    match (call.request(), other.request()) {
        (
            Request::Get { keys: Keys::One(key), touch: None, .. },
            Request::Get { keys: Keys::One(other), touch: None, .. },
        ) => key == other,
        _ => false,
    }
}
