//! Matches replies to the calls in flight.

use bytes::{Buf, BytesMut};

use super::in_flight::{Expected, Pending};
use super::{Pipeline, Poison};
use crate::connection::WakeList;
use crate::connection::call::Call;
use crate::connection::error_line::Rejected;
use crate::connection::response::GetResult;
use crate::error::{Delivery, Error, ErrorKind};
use crate::item::{Cas, Item};
use crate::node_id::NodeId;
use crate::protocol::{Body, ErrorLine, MetaCode, MetaReply, ProtocolError, Reply, ReplyKind, Request, Value};

impl Pipeline {
    /// Takes every whole reply off the front of `input` and completes the call it belongs to.
    ///
    /// `written` is how many of the encoded bytes were written: a line that was not begun cannot have been answered.
    pub(in crate::connection) fn receive(
        &mut self,
        input: &mut BytesMut,
        written: u64,
        wakes: &mut WakeList,
    ) -> Result<(), Poison> {
        loop {
            self.receive_fast_path(input, written, wakes);
            if !self.receive_one(input, written, wakes)? {
                return Ok(());
            }
        }
    }

    /// As [`receive`](Self::receive), without the fast path.
    #[cfg(test)]
    pub(in crate::connection) fn receive_slowly(
        &mut self,
        input: &mut BytesMut,
        written: u64,
        wakes: &mut WakeList,
    ) -> Result<(), Poison> {
        while self.receive_one(input, written, wakes)? {}
        Ok(())
    }

    /// Receives any reply. Returns `false` if the reply is not complete.
    #[inline(always)]
    fn receive_one(&mut self, input: &mut BytesMut, written: u64, wakes: &mut WakeList) -> Result<bool, Poison> {
        if input.is_empty() && !self.decoder.has_complete_large_value() {
            return Ok(false);
        }
        let expect = self.expect(written)?;
        let in_flight = &mut self.in_flight;
        let claim = |key: &[u8]| in_flight.advance_to(key, wakes);
        let Some(reply) = self.decoder.decode(expect, input, claim).map_err(Poison::Protocol)? else {
            return Ok(false);
        };
        match reply {
            Reply::ErrorLine(line) if self.received == 0 && line.is_connection_limit() => {
                return Err(Poison::ConnectionLimit(line));
            }
            Reply::ErrorLine(line) if !expect.keeps_connection_after(&line) => {
                // A sign of life, unless the server wants credentials first.
                self.received += u64::from(!line.is_unauthenticated());
                return Err(Poison::ErrorLine(line));
            }
            Reply::ErrorLine(line) => self.receive_error_line(&line, wakes),
            Reply::Value(value) => self.receive_value(value, wakes),
            Reply::End => self.in_flight.end_retrieval(wakes),
            Reply::Meta(reply) => self.receive_meta(*reply, wakes).map_err(Poison::Protocol)?,
            reply => self.complete_oldest(Ok(reply), wakes),
        }
        // Counted last: what is no reply to the oldest request is no sign of life.
        self.received += 1;
        Ok(true)
    }

    /// Which replies may come next.
    fn expect(&self, written: u64) -> Result<ReplyKind, Poison> {
        match self.in_flight.oldest() {
            _ if self.in_flight.expects_end() => Ok(ReplyKind::End),
            Some(pending) if pending.start < written => Ok(match &pending.expected {
                Expected::Keys { .. } => ReplyKind::Values,
                Expected::Reply(expect) => *expect,
                Expected::Meta { .. } | Expected::MetaRun { .. } => pending.call.request().reply_kind(),
            }),
            _ => Err(Poison::Protocol(ProtocolError::Unsolicited)),
        }
    }

    /// Receives nearly all replies with the least work: values in the order requested, ends of retrievals, and
    /// `STORED`. Stops at the first reply that is another, or not whole.
    ///
    /// [`receive_one`](Self::receive_one) would do exactly the same. `tests/fast_path.rs` checks this.
    fn receive_fast_path(&mut self, input: &mut BytesMut, written: u64, wakes: &mut WakeList) {
        let mut taken = 0;
        while let Some(len) = self.receive_one_fast(&input[taken..], written, wakes) {
            taken += len;
            self.received += 1;
        }
        if taken > 0 {
            input.advance(taken);
        }
    }

    /// Receives one such reply, and returns its length.
    fn receive_one_fast(&mut self, rest: &[u8], written: u64, wakes: &mut WakeList) -> Option<usize> {
        if self.in_flight.expects_end() {
            let len = self.decoder.decode_word_fast(rest, "END")?;
            self.in_flight.end_retrieval(wakes);
            return Some(len);
        }
        let pending = self.in_flight.oldest().filter(|pending| pending.start < written)?;
        match &pending.expected {
            Expected::Keys { .. } => {
                if let Some((value, len)) = self.decoder.decode_value_fast(rest, self.in_flight.next_key()?.as_bytes())
                {
                    self.receive_value(value, wakes);
                    return Some(len);
                }
                let len = self.decoder.decode_word_fast(rest, "END")?;
                self.in_flight.end_retrieval(wakes);
                Some(len)
            }
            Expected::Reply(ReplyKind::Stored) => {
                let len = self.decoder.decode_word_fast(rest, "STORED")?;
                self.complete_oldest(Ok(Reply::Stored), wakes);
                Some(len)
            }
            _ => None,
        }
    }

    /// Receives the value of the oldest pending key.
    fn receive_value(&mut self, value: Value, wakes: &mut WakeList) {
        self.in_flight.complete_next_key(value, |value, call| get_result(value, call, &self.node), wakes);
    }

    fn complete_oldest(&mut self, reply: Result<Reply, Error>, wakes: &mut WakeList) {
        let Some(Pending { call, .. }) = self.in_flight.pop() else { return };
        wakes.add(call.reply(reply));
    }

    fn receive_error_line(&mut self, line: &ErrorLine, wakes: &mut WakeList) {
        let error = Rejected::Command.error(line, Delivery::Answered).with_node(&self.node);
        match self.in_flight.oldest_mut() {
            // The run goes on to its end. Which of its commands failed is unknown, so all that are incomplete fail.
            Some(Pending { call, expected: Expected::MetaRun { has_error, .. }, .. }) => {
                *has_error = true;
                wakes.add(call.fail(&error));
            }
            _ => self.complete_oldest(Err(error), wakes),
        }
    }

    /// Receives a meta reply, which must carry the opaque token of the oldest command, or of a command in the oldest
    /// run.
    fn receive_meta(&mut self, reply: MetaReply, wakes: &mut WakeList) -> Result<(), ProtocolError> {
        let Some(Pending { call, expected, .. }) = self.in_flight.oldest_mut() else { return Ok(()) };
        match (expected, call.request()) {
            (Expected::Meta { opaque }, Request::Meta(request)) => {
                if !request.is_answered_by(&reply, *opaque) {
                    return Err(ProtocolError::WrongOpaque);
                }
                let reply = within_limits(request.translate(reply), &self.node);
                self.complete_oldest(reply.map(|reply| Reply::Meta(Box::new(reply))), wakes);
            }
            // The end of a run: misses are not answered.
            (Expected::MetaRun { next, .. }, Request::MetaRun(run)) if reply.code == MetaCode::End => {
                for index in *next..run.len() {
                    wakes.add(call.settle_in_run(index, Ok(MetaReply::miss())));
                }
                self.in_flight.pop();
            }
            (Expected::MetaRun { next, first_opaque, has_error }, Request::MetaRun(run)) => {
                let mut rest = run.iter().zip(*first_opaque..).enumerate().skip(*next);
                let answered = rest.find(|(_, (request, opaque))| request.is_answered_by(&reply, *opaque));
                let Some((index, (request, _))) = answered else { return Err(ProtocolError::WrongOpaque) };
                if !*has_error {
                    for missed in *next..index {
                        wakes.add(call.settle_in_run(missed, Ok(MetaReply::miss())));
                    }
                    wakes.add(call.settle_in_run(index, within_limits(request.translate(reply), &self.node)));
                }
                *next = index + 1;
            }
            // `MN`, the reply to a `mn` of its own.
            _ => self.complete_oldest(Ok(Reply::Meta(Box::new(reply))), wakes),
        }
        Ok(())
    }
}

/// What a call makes of a value.
#[inline]
fn get_result(value: Value, call: &Call, node: &NodeId) -> GetResult {
    let wants_cas = matches!(call.request(), Request::Get { cas: true, .. });
    match value {
        Value { body: Body::TooLarge { len }, .. } => Err(too_large(len, node)),
        Value { cas: None, .. } if wants_cas => Err(without_cas(node)),
        Value { flags, cas, body: Body::Whole(value) } => {
            Ok(Some(Item { value, flags, cas: cas.filter(|_| wants_cas).map(Cas) }))
        }
    }
}

/// Returns the reply, or an error if its value is over the client's limit.
fn within_limits(reply: MetaReply, node: &NodeId) -> Result<MetaReply, Error> {
    match reply.value {
        Some(Body::TooLarge { len }) => Err(too_large(len, node)),
        _ => Ok(reply),
    }
}

#[cold]
fn too_large(len: usize, node: &NodeId) -> Error {
    let text = format!("the stored value of {len} bytes is over the client's `max_value_size`");
    Error::new(ErrorKind::TooLarge, Delivery::Answered).with_node(node).with_message(text)
}

#[cold]
fn without_cas(node: &NodeId) -> Error {
    Error::new(ErrorKind::Protocol, Delivery::Answered).with_node(node).with_message("a value without its CAS unique")
}
