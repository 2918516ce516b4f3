//! The requests in flight on one connection, and how replies are matched to them. No socket, no clock, no task.
//!
//! [`submit`](Pipeline::submit) turns calls into bytes, and [`receive`](Pipeline::receive) turns bytes into responses.
//! [`abandon`](Pipeline::abandon) ends the pipeline: every call that was written fails with the same error, and the
//! others are returned unsent.

mod get_line;
mod in_flight;
mod key_dedup;
mod receive;
mod submit;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::time::Instant;

use self::in_flight::InFlight;
use self::key_dedup::KeyDedup;
use super::WakeList;
use super::call::Call;
use crate::error::{Delivery, Error, ErrorKind};
use crate::key::Key;
use crate::node_id::NodeId;
use crate::protocol::{BodyProgress, Decoder, ErrorLine, ProtocolError, Request};

#[derive(Debug)]
pub(super) struct Pipeline {
    node: NodeId,
    decoder: Decoder,
    in_flight: InFlight,
    /// Bytes encoded since the connection began.
    encoded: u64,
    /// Replies and values received since the connection began, error lines included.
    received: u64,
    /// The opaque token of the next meta command.
    next_opaque: u64,
    // Reused buffers.
    dedup: KeyDedup,
    unsubmitted: VecDeque<Arc<Call>>,
}

/// Why a connection cannot go on.
#[derive(Debug)]
pub(super) enum Poison {
    Protocol(ProtocolError),
    /// An error line after which the next reply cannot be trusted.
    ErrorLine(ErrorLine),
    /// The server is at its limit of connections, and has read nothing of this one.
    ConnectionLimit(ErrorLine),
}

impl Pipeline {
    pub(super) fn new(node: NodeId, max_value: usize) -> Self {
        Self {
            node,
            decoder: Decoder::new(max_value),
            in_flight: InFlight::default(),
            encoded: 0,
            received: 0,
            next_opaque: 0,
            dedup: KeyDedup::default(),
            unsubmitted: VecDeque::new(),
        }
    }

    /// Whether nothing is in flight.
    pub(super) fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether another batch may follow: only stores and retrievals are in flight.
    pub(super) fn can_be_followed(&self) -> bool {
        self.in_flight.can_be_followed()
    }

    /// How many bytes were ever encoded.
    pub(super) fn encoded(&self) -> u64 {
        self.encoded
    }

    /// How many of the encoded bytes belong to lines that were answered.
    pub(super) fn answered(&self) -> u64 {
        self.in_flight.oldest().map_or(self.encoded, |pending| pending.start)
    }

    /// How many replies and values were ever received: grows while the server is alive.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// The keys of the oldest line that are not answered, by the calls that hold them.
    pub(super) fn oldest_line(&self) -> impl Iterator<Item = (&Arc<Call>, Range<usize>)> {
        self.in_flight.oldest_line()
    }

    /// Whether an end of input here would cut a reply short.
    pub(super) fn is_inside_reply(&self, input: &BytesMut) -> bool {
        !input.is_empty() || self.in_flight.expects_end() || self.decoder.is_inside_value()
    }

    /// How much has arrived of the value that has begun.
    pub(super) fn body_progress(&self, input: &BytesMut) -> Option<BodyProgress> {
        self.decoder.progress(input)
    }

    /// The buffer to read into instead of the usual input: while a large value arrives, its bytes must go there.
    /// [`receive`](Self::receive) takes what was read.
    pub(super) fn large_value_buffer(&mut self) -> Option<&mut Vec<u8>> {
        self.decoder.large_value_buffer()
    }

    /// Fails the calls whose deadline has passed. Returns the next deadline, and how many calls failed. Their replies
    /// are still pending, and are dropped when they arrive.
    pub(super) fn fail_expired(&self, now: Instant, wakes: &mut WakeList) -> (Option<Instant>, u64) {
        let mut error = None;
        let mut expired = 0;
        let mut next = None::<Instant>;
        for call in self.in_flight.calls() {
            let deadline = call.deadline();
            if deadline > now {
                next = Some(next.map_or(deadline, |next| next.min(deadline)));
            } else {
                expired += u64::from(!call.is_over());
                let error = error
                    .get_or_insert_with(|| Error::new(ErrorKind::Timeout, Delivery::Unknown).with_node(&self.node));
                wakes.add(call.fail(error));
            }
        }
        (next, expired)
    }

    /// Whether the reply to any command but `version` is pending.
    pub(super) fn awaits_command(&self) -> bool {
        self.in_flight.calls().any(|call| !matches!(call.request(), Request::Version))
    }

    /// Whether the reply to any command but `version` is pending after the deadline of its call.
    pub(super) fn has_overdue_command(&self, now: Instant) -> bool {
        self.in_flight.calls().any(|call| call.deadline() <= now && !matches!(call.request(), Request::Version))
    }

    /// A key, of any pending command, that a classic get can have.
    pub(super) fn pending_key(&self) -> Option<Key> {
        self.in_flight.calls().find_map(|call| Key::new(call.request().routed_by()?).ok())
    }

    /// Ends the pipeline after `written` bytes of all that was encoded. Calls of which any byte was written fail with
    /// `error`; the others are returned.
    pub(super) fn abandon(&mut self, written: u64, error: &Error, wakes: &mut WakeList) -> VecDeque<Arc<Call>> {
        self.in_flight.abandon(written, error, wakes)
    }
}
