//! The replies a server owes on one connection, oldest first. No socket, no clock, no task.
//!
//! [`submit`](Pipeline::submit) turns calls into bytes, [`receive`](Pipeline::receive) turns bytes into answers, and
//! [`abandon`](Pipeline::abandon) ends it: everybody whose request was written learns the one cause, and the rest is
//! given back unsent.

mod in_flight;
mod key_dedup;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use tokio::time::Instant;

use self::in_flight::{Expected, InFlight, Pending};
use self::key_dedup::{FreeSlot, KeyDedup};
use super::WakeList;
use super::call::Call;
use super::response::GetResult;
use crate::error::{Delivery, Error, ErrorKind};
use crate::item::{Cas, Item};
use crate::key::Key;
use crate::node_id::NodeId;
use crate::protocol::{
    Body, Decoder, ErrorLine, Expect, Keys, LARGEST_LINE_BYTES, LARGEST_LINE_KEYS, LARGEST_TOUCH_LINE_BYTES, MetaCode,
    MetaReply, Output, ProtocolError, Reply, Request, Value, encode, encode_get_key, encode_get_start, encode_line_end,
};

#[derive(Debug)]
pub(super) struct Pipeline {
    node: NodeId,
    decoder: Decoder,
    in_flight: InFlight,
    // Kept for their room only.
    dedup: KeyDedup,
    others: VecDeque<Arc<Call>>,
    /// Bytes encoded since the connection began.
    encoded: u64,
    /// Replies and values received since the connection began.
    received: u64,
    /// The opaque token of the next meta command.
    serial: u64,
}

/// Why a connection cannot go on.
#[derive(Debug)]
pub(super) enum Poison {
    Protocol(ProtocolError),
    /// An error line that leaves the stream in doubt.
    ErrorLine(ErrorLine),
}

impl Pipeline {
    pub(super) fn new(node: NodeId, max_value: usize) -> Self {
        Self {
            node,
            decoder: Decoder::new(max_value),
            in_flight: InFlight::default(),
            dedup: KeyDedup::default(),
            others: VecDeque::new(),
            encoded: 0,
            received: 0,
            serial: 0,
        }
    }

    /// Whether the server owes nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether nothing is under way but stores and retrievals.
    pub(super) fn may_be_followed(&self) -> bool {
        self.in_flight.may_be_followed()
    }

    /// How many bytes were ever encoded, and how many of them are of lines that are answered.
    pub(super) fn encoded(&self) -> u64 {
        self.encoded
    }

    pub(super) fn answered(&self) -> u64 {
        self.in_flight.oldest().map_or(self.encoded, |owed| owed.start)
    }

    /// How many replies and values have come; grows as long as the server answers.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Whether the end of input here would cut a reply short.
    pub(super) fn is_inside_a_reply(&self, input: &BytesMut) -> bool {
        !input.is_empty() || self.in_flight.end_is_due() || self.decoder.is_inside_a_value()
    }

    /// Encodes a batch of calls, empties it, and notes what is owed for them. All gets in it share as few lines as the
    /// limits on a line allow: the cheapest form there is, for client and server. Gets that touch what they find follow;
    /// neighbours share a line if they are alike.
    ///
    /// Stores go first, then gets, then all others. Nobody can tell: none of the batch was answered when the last of it was
    /// asked for. A server writes what it has ready when it comes to a get, so replies ready before travel with the values,
    /// and replies to what comes behind would travel, and wake us, by themselves. But a server that answers a retrieval
    /// with an error may drop the replies it had ready, and the error then stands in their place. In the place of a store's
    /// it ends the connection ([`Expect::survives`]); in that of any other it would pass for the answer.
    pub(super) fn submit(&mut self, batch: &mut VecDeque<Arc<Call>>, out: &mut Output) {
        let (mut plain_keys, mut some_touch, mut some_store, mut wants_cas) = (0, false, false, false);
        for call in &*batch {
            match call.request() {
                Request::Get { keys, cas, touch: None } => {
                    plain_keys += keys.as_slice().len();
                    wants_cas |= *cas;
                }
                Request::Get { .. } => some_touch = true,
                Request::Store { .. } => some_store = true,
                _ => {}
            }
        }
        if some_store {
            self.submit_stores(batch, out);
        }
        if plain_keys > 0 {
            self.submit_plain_gets(batch, plain_keys, wants_cas, out.text());
        }
        if some_touch {
            self.submit_touching_gets(batch, out.text());
        }
        for call in batch.drain(..).filter(|call| !matches!(call.request(), Request::Get { .. })) {
            let serial = self.serial;
            self.serial += match call.request() {
                Request::Meta(_) => 1,
                Request::MetaRun(run) => run.len() as u64,
                _ => 0,
            };
            self.submit_one(call, serial, out);
        }
    }

    /// Takes the stores out of the batch.
    fn submit_stores(&mut self, batch: &mut VecDeque<Arc<Call>>, out: &mut Output) {
        for call in batch.drain(..) {
            if let Request::Store { .. } = call.request() {
                self.submit_one(call, 0, out);
            } else {
                self.others.push_back(call);
            }
        }
        std::mem::swap(batch, &mut self.others);
    }

    /// Writes a request that is a line of its own; the meta commands in it have tokens from `serial` on.
    fn submit_one(&mut self, call: Arc<Call>, serial: u64, out: &mut Output) {
        let before = out.len();
        encode(call.request(), serial, out);
        let what = match call.request() {
            Request::Meta(_) => Expected::Meta { serial },
            Request::MetaRun(_) => Expected::Run { next: 0, serial, spoilt: false },
            request => Expected::Reply(request.expect()),
        };
        self.in_flight.owe(call, self.encoded, what);
        self.encoded += (out.len() - before) as u64;
    }

    /// Takes the gets that do not touch out of the batch. One `gets` among them makes the line a `gets`: the others do not
    /// look at the version it brings. A key that stands there already is not asked for again.
    fn submit_plain_gets(
        &mut self,
        batch: &mut VecDeque<Arc<Call>>,
        keys_in_all: usize,
        cas: bool,
        out: &mut BytesMut,
    ) {
        self.dedup.begin(keys_in_all);
        let mut line = Line::begin((cas, None), out);
        for call in batch.drain(..) {
            match call.request() {
                Request::Get { keys: Keys::One(key), touch: None, .. } => match self.ask_once(key, &mut line, out) {
                    Ok(vacancy) => {
                        let number = self.in_flight.owe_only_key(call, self.encoded);
                        self.dedup.note(vacancy, self.in_flight.last_place(0), number);
                    }
                    Err(number) => self.in_flight.owe_repeat(number, call, 0),
                },
                Request::Get { keys: Keys::Many(keys), touch: None, .. } => {
                    for (index, key) in (0..).zip(keys) {
                        match self.ask_once(key, &mut line, out) {
                            Ok(vacancy) => {
                                let number = self.in_flight.owe_key(&call, index, self.encoded);
                                self.dedup.note(vacancy, self.in_flight.last_place(index), number);
                            }
                            Err(number) => self.in_flight.owe_repeat(number, Arc::clone(&call), index),
                        }
                    }
                }
                _ => self.others.push_back(call),
            }
        }
        std::mem::swap(batch, &mut self.others);
        self.in_flight.order_repeats();
        self.end_line(&line, out);
    }

    /// Writes a key, unless it stands there already and has this number.
    fn ask_once(&mut self, key: &Key, line: &mut Line, out: &mut BytesMut) -> Result<Option<FreeSlot>, u64> {
        let vacancy = self.dedup.find(key.as_bytes(), |place| self.in_flight.key_at(place) == Some(key))?;
        if !line.has_room_for(key, out) {
            self.end_line(line, out);
            *line = Line::begin(line.form, out);
        }
        line.add(key, out);
        Ok(vacancy)
    }

    /// Neighbours share a line if they bring versions alike and give the same expiry time.
    fn submit_touching_gets(&mut self, batch: &VecDeque<Arc<Call>>, out: &mut BytesMut) {
        let mut line: Option<Line> = None;
        for call in batch {
            let Request::Get { keys, cas, touch: touch @ Some(_) } = call.request() else { continue };
            let form = (*cas, *touch);
            for (index, key) in (0..).zip(keys.as_slice()) {
                let mut current = line.take().unwrap_or_else(|| Line::begin(form, out));
                if current.form != form || !current.has_room_for(key, out) {
                    self.end_line(&current, out);
                    current = Line::begin(form, out);
                }
                current.add(key, out);
                self.in_flight.owe_key(call, index, self.encoded);
                line = Some(current);
            }
        }
        if let Some(line) = line {
            self.end_line(&line, out);
        }
    }

    fn end_line(&mut self, line: &Line, out: &mut BytesMut) {
        encode_line_end(out);
        self.in_flight.end_line();
        self.encoded += (out.len() - line.start) as u64;
    }

    /// Takes every whole reply off the front of `input` and hands it to whom it belongs. `written` bytes of all that was
    /// encoded have been sent: what was not begun cannot have been answered.
    pub(super) fn receive(&mut self, input: &mut BytesMut, written: u64, wakes: &mut WakeList) -> Result<(), Poison> {
        loop {
            self.receive_fast_path(input, written, wakes);
            if input.is_empty() && !self.decoder.holds_a_whole_value() {
                return Ok(());
            }
            let expect = match self.in_flight.oldest() {
                _ if self.in_flight.end_is_due() => Expect::End,
                Some(owed) if owed.start >= written => return Err(Poison::Protocol(ProtocolError::Unrequested)),
                Some(Pending { what: Expected::Keys { .. }, .. }) => Expect::Values,
                Some(Pending { what: Expected::Reply(expect), .. }) => *expect,
                Some(Pending { call, .. }) => call.request().expect(),
                None => return Err(Poison::Protocol(ProtocolError::Unrequested)),
            };
            let in_flight = &mut self.in_flight;
            let claim = |key: &[u8]| in_flight.claim(key, wakes);
            let Some(reply) = self.decoder.decode(expect, input, claim).map_err(Poison::Protocol)? else {
                return Ok(());
            };
            let reply = match reply {
                Reply::ErrorLine(refusal) if !expect.survives(&refusal) => return Err(Poison::ErrorLine(refusal)),
                reply => reply,
            };
            match reply {
                Reply::Value(value) => self.value(value, wakes),
                Reply::End => self.in_flight.end(wakes),
                Reply::Meta(reply) => self.meta(*reply, wakes).map_err(Poison::Protocol)?,
                Reply::ErrorLine(refusal) => self.refused(&refusal, wakes),
                reply => self.reply(Ok(reply), wakes),
            }
            // Only what can be trusted is a sign of life.
            self.received += 1;
        }
    }

    /// Where to read from the socket instead of the usual input: inside a large value, there is no other way to it. What
    /// was read there is taken by [`receive`](Self::receive).
    pub(super) fn room_in_large_value(&mut self) -> Option<&mut Vec<u8>> {
        self.decoder.room_in_large_value()
    }

    /// The way of nearly all replies, and so without detours: values of keys whose turn it is, the ends of lines, and that
    /// something was stored, as far as they are whole.
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

    /// Takes one such reply and says how long it was.
    fn receive_one_fast(&mut self, rest: &[u8], written: u64, wakes: &mut WakeList) -> Option<usize> {
        if self.in_flight.end_is_due() {
            let len = self.decoder.next_word(rest, "END")?;
            self.in_flight.end(wakes);
            return Some(len);
        }
        let owed = self.in_flight.oldest().filter(|owed| owed.start < written)?;
        match &owed.what {
            Expected::Keys { .. } => {
                if let Some((value, len)) = self.decoder.next_value(rest, self.in_flight.next_key()?.as_bytes()) {
                    self.value(value, wakes);
                    return Some(len);
                }
                let len = self.decoder.next_word(rest, "END")?;
                self.in_flight.end(wakes);
                Some(len)
            }
            Expected::Reply(Expect::Stored) => {
                let len = self.decoder.next_word(rest, "STORED")?;
                self.reply(Ok(Reply::Stored), wakes);
                Some(len)
            }
            _ => None,
        }
    }

    /// A value whose key was claimed, and so belongs to the first key at the head.
    fn value(&mut self, value: Value, wakes: &mut WakeList) {
        self.in_flight.settle_next(value, |value, call| lookup(value, call, &self.node), wakes);
    }

    fn reply(&mut self, reply: Result<Reply, Error>, wakes: &mut WakeList) {
        let Some(Pending { call, .. }) = self.in_flight.pop() else { return };
        wakes.add(call.reply(reply));
    }

    fn refused(&mut self, refusal: &ErrorLine, wakes: &mut WakeList) {
        let error = refused(refusal, Delivery::Answered).with_node(&self.node);
        match self.in_flight.oldest_mut() {
            // The run goes on to its end. Which of its commands was refused is not known.
            Some(Pending { call, what: Expected::Run { spoilt, .. }, .. }) => {
                *spoilt = true;
                wakes.add(call.fail(&error));
            }
            _ => self.reply(Err(error), wakes),
        }
    }

    /// A meta reply: the one to the command at the head, as its opaque token tells.
    fn meta(&mut self, reply: MetaReply, wakes: &mut WakeList) -> Result<(), ProtocolError> {
        let Some(Pending { call, what, .. }) = self.in_flight.oldest_mut() else { return Ok(()) };
        match (what, call.request()) {
            (Expected::Meta { serial }, Request::Meta(request)) => {
                if !request.is_answered_by(&reply, *serial) {
                    return Err(ProtocolError::WrongOpaque);
                }
                let reply = within_limits(request.translate(reply), &self.node);
                self.reply(reply.map(|reply| Reply::Meta(Box::new(reply))), wakes);
            }
            (Expected::Run { next, .. }, Request::MetaRun(run)) if reply.code == MetaCode::End => {
                for index in *next..run.len() {
                    wakes.add(call.settle_in_run(index, Ok(MetaReply::miss())));
                }
                self.in_flight.pop();
            }
            (Expected::Run { next, serial, spoilt }, Request::MetaRun(run)) => {
                let mut rest = run.iter().zip(*serial..).enumerate().skip(*next);
                let found = rest.find(|(_, (request, serial))| request.is_answered_by(&reply, *serial));
                let Some((index, (request, _))) = found else { return Err(ProtocolError::WrongOpaque) };
                if !*spoilt {
                    for passed in *next..index {
                        wakes.add(call.settle_in_run(passed, Ok(MetaReply::miss())));
                    }
                    wakes.add(call.settle_in_run(index, within_limits(request.translate(reply), &self.node)));
                }
                *next = index + 1;
            }
            // The `MN` of a command that is nothing else.
            _ => self.reply(Ok(Reply::Meta(Box::new(reply))), wakes),
        }
        Ok(())
    }

    /// Fails the calls whose deadline has passed; their replies are still owed, and are dropped when they come. Says
    /// when the next deadline is.
    pub(super) fn sweep(&self, now: Instant, wakes: &mut WakeList) -> Option<Instant> {
        let mut error = None;
        let mut next = None::<Instant>;
        for call in self.in_flight.calls() {
            let deadline = call.deadline();
            if deadline > now {
                next = Some(next.map_or(deadline, |next| next.min(deadline)));
            } else {
                let error = error
                    .get_or_insert_with(|| Error::new(ErrorKind::Timeout, Delivery::Unknown).with_node(&self.node));
                wakes.add(call.fail(error));
            }
        }
        next
    }

    /// Ends the connection for everybody: calls of which any byte was written fail with `error`, those before which the
    /// writing stopped are given back, unsent.
    pub(super) fn abandon(&mut self, written: u64, error: &Error, wakes: &mut WakeList) -> VecDeque<Arc<Call>> {
        self.in_flight.abandon(written, error, wakes)
    }
}

/// Whether a retrieval line brings versions, and the expiry time it gives, if any.
type Form = (bool, Option<u32>);

/// A retrieval line being written.
struct Line {
    form: Form,
    start: usize,
    keys: usize,
}

impl Line {
    fn begin(form @ (cas, touch): Form, out: &mut BytesMut) -> Self {
        let start = out.len();
        encode_get_start(cas, touch, out);
        Self { form, start, keys: 0 }
    }

    fn add(&mut self, key: &Key, out: &mut BytesMut) {
        encode_get_key(key, out);
        self.keys += 1;
    }

    fn has_room_for(&self, key: &Key, out: &BytesMut) -> bool {
        let bytes = out.len() - self.start + 1 + key.as_bytes().len();
        let largest = if self.form.1.is_some() { LARGEST_TOUCH_LINE_BYTES } else { LARGEST_LINE_BYTES };
        self.keys == 0 || (self.keys < LARGEST_LINE_KEYS && bytes <= largest)
    }
}

#[cold]
fn too_large(len: usize, node: &NodeId) -> Error {
    let text = format!("the stored value of {len} bytes is over the client's limit");
    Error::new(ErrorKind::TooLarge, Delivery::Answered).with_node(node).with_message(text)
}

/// A meta reply as its caller may have it: with its value whole, if it brought one.
fn within_limits(reply: MetaReply, node: &NodeId) -> Result<MetaReply, Error> {
    match reply.value {
        Some(Body::TooLarge { len }) => Err(too_large(len, node)),
        _ => Ok(reply),
    }
}

#[inline]
fn lookup(value: Value, call: &Call, node: &NodeId) -> GetResult {
    let wants_cas = matches!(call.request(), Request::Get { cas: true, .. });
    match value {
        Value { body: Body::TooLarge { len }, .. } => Err(too_large(len, node)),
        Value { cas: None, .. } if wants_cas => Err(without_version(node)),
        Value { flags, cas, body: Body::Whole(value) } => {
            Ok(Some(Item { value, flags, cas: cas.filter(|_| wants_cas).map(Cas) }))
        }
    }
}

#[cold]
fn without_version(node: &NodeId) -> Error {
    Error::new(ErrorKind::Protocol, Delivery::Answered).with_node(node).with_message("a value without its version")
}

/// The error an error line stands for.
pub(super) fn refused(refusal: &ErrorLine, delivery: Delivery) -> Error {
    let kind = if refusal.is_too_large() {
        ErrorKind::TooLarge
    } else if refusal.is_unauthenticated() {
        ErrorKind::Auth
    } else {
        ErrorKind::Server
    };
    Error::new(kind, delivery).with_message(refusal.line())
}
