//! The replies a server owes on one connection, oldest first. No socket, no clock, no task.
//!
//! [`submit`](Pipeline::submit) turns calls into bytes, [`receive`](Pipeline::receive) turns bytes into answers, and
//! [`abandon`](Pipeline::abandon) ends it: everybody whose request was written learns the one cause, and the rest is
//! given back unsent.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::time::Instant;

use super::Wakes;
use super::call::{Call, Lookup};
use crate::error::{Delivery, Error, ErrorKind};
use crate::item::{Cas, Item};
use crate::key::Key;
use crate::node_id::NodeId;
use crate::protocol::{
    Body, Decoder, Expect, LARGEST_LINE_BYTES, LARGEST_LINE_KEYS, LARGEST_TOUCH_LINE_BYTES, MetaCode, MetaReply,
    ProtocolError, Refusal, Reply, Request, Value, encode, encode_get_key, encode_get_start, encode_line_end,
};

#[derive(Debug)]
pub(super) struct Pipeline {
    node: NodeId,
    decoder: Decoder,
    owed: VecDeque<Owed>,
    /// The keys of the retrieval at the head are all answered, its `END` has not come.
    end_due: bool,
    /// Bytes encoded since the connection began.
    encoded: u64,
    /// Replies and values received since the connection began.
    received: u64,
    /// The opaque token of the next meta command.
    serial: u64,
}

/// What one call still waits for from one line on the wire.
#[derive(Debug)]
struct Owed {
    call: Arc<Call>,
    /// Where the line begins in all that was ever encoded.
    start: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    /// Keys `next..end` of the call, in a retrieval line that may hold other calls' keys too.
    Keys {
        next: usize,
        end: usize,
        /// No further keys follow in the line, only `END`.
        last: bool,
    },
    Reply(Expect),
    /// A meta command with this opaque token, unless it has one of its own.
    Meta {
        serial: u64,
    },
    /// The commands of a run from `next` on; the first of all has the token `serial`.
    Run {
        next: usize,
        serial: u64,
        /// An error line has come: it may be the answer to any of them.
        spoilt: bool,
    },
}

/// Why a connection cannot go on.
#[derive(Debug)]
pub(super) enum Poison {
    Protocol(ProtocolError),
    /// An error line that leaves the stream in doubt.
    Refused(Refusal),
}

impl Pipeline {
    pub(super) fn new(node: NodeId, max_value: usize) -> Self {
        Self {
            node,
            decoder: Decoder::new(max_value),
            owed: VecDeque::new(),
            end_due: false,
            encoded: 0,
            received: 0,
            serial: 0,
        }
    }

    /// Whether the server owes nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.owed.is_empty() && !self.end_due
    }

    /// How many replies and values have come; grows as long as the server answers.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// Whether the end of input here would cut a reply short.
    pub(super) fn is_inside_a_reply(&self, input: &BytesMut) -> bool {
        !input.is_empty() || self.end_due || self.decoder.is_inside_a_value()
    }

    /// Encodes a batch of calls, empties it, and notes what is owed for them. All gets in it share as few lines as the
    /// limits on a line allow: the cheapest form there is, for client and server. Gets that touch what they find follow;
    /// neighbours share a line if they are alike.
    ///
    /// Gets go first. Nobody can tell: none of the batch was answered when the last of it was asked for. But a server
    /// that answers a retrieval with an error may drop the replies it had ready for commands before it, and the error
    /// would pass for the answer to one of those.
    pub(super) fn submit(&mut self, batch: &mut VecDeque<Arc<Call>>, out: &mut BytesMut) {
        self.submit_gets(batch, out);
        for call in batch.drain(..).filter(|call| !matches!(call.request(), Request::Get { .. })) {
            let (before, serial) = (out.len(), self.serial);
            encode(call.request(), serial, out);
            let what = match call.request() {
                Request::Meta(_) => {
                    self.serial += 1;
                    What::Meta { serial }
                }
                Request::MetaRun(run) => {
                    self.serial += run.len() as u64;
                    What::Run { next: 0, serial, spoilt: false }
                }
                request => What::Reply(request.expect()),
            };
            self.owed.push_back(Owed { call, start: self.encoded, what });
            self.encoded += (out.len() - before) as u64;
        }
    }

    fn submit_gets(&mut self, batch: &VecDeque<Arc<Call>>, out: &mut BytesMut) {
        let (mut some_are_plain, mut some_touch, mut wants_cas) = (false, false, false);
        for call in batch {
            match call.request() {
                Request::Get { cas, touch: None, .. } => (some_are_plain, wants_cas) = (true, wants_cas || *cas),
                Request::Get { .. } => some_touch = true,
                _ => {}
            }
        }
        if some_are_plain {
            // One `gets` among them makes the line a `gets`: the others do not look at the version it brings.
            self.submit_gets_as(batch, out, |_, touch| touch.is_none().then_some((wants_cas, None)));
        }
        if some_touch {
            self.submit_gets_as(batch, out, |cas, touch| touch.map(|exptime| (cas, Some(exptime))));
        }
    }

    /// Writes those gets for which there is a form (`cas` and `touch` as they go over the wire), a new line for each
    /// other form.
    fn submit_gets_as(
        &mut self,
        batch: &VecDeque<Arc<Call>>,
        out: &mut BytesMut,
        form: impl Fn(bool, Option<u32>) -> Option<Form>,
    ) {
        let mut line: Option<Line> = None;
        for call in batch {
            let Request::Get { keys, cas, touch } = call.request() else { continue };
            let Some(form) = form(*cas, *touch) else { continue };
            let keys = keys.as_slice();
            let mut next = 0;
            for (index, key) in keys.iter().enumerate() {
                let mut current = line.take().unwrap_or_else(|| Line::begin(form, out));
                if current.form != form || !current.has_room_for(key, out) {
                    self.owe_keys(call, next, index);
                    self.end_line(&current, out);
                    current = Line::begin(form, out);
                    next = index;
                }
                encode_get_key(key, out);
                current.keys += 1;
                line = Some(current);
            }
            self.owe_keys(call, next, keys.len());
        }
        if let Some(line) = line {
            self.end_line(&line, out);
        }
    }

    fn owe_keys(&mut self, call: &Arc<Call>, next: usize, end: usize) {
        if next < end {
            let what = What::Keys { next, end, last: false };
            self.owed.push_back(Owed { call: Arc::clone(call), start: self.encoded, what });
        }
    }

    fn end_line(&mut self, line: &Line, out: &mut BytesMut) {
        encode_line_end(out);
        if let Some(Owed { what: What::Keys { last, .. }, .. }) = self.owed.back_mut() {
            *last = true;
        }
        self.encoded += (out.len() - line.start) as u64;
    }

    /// Takes every whole reply off the front of `input` and hands it to whom it belongs. `written` bytes of all that was
    /// encoded have been sent: what was not begun cannot have been answered.
    pub(super) fn receive(&mut self, input: &mut BytesMut, written: u64, wakes: &mut Wakes) -> Result<(), Poison> {
        while !input.is_empty() {
            let expect = match self.owed.front() {
                _ if self.end_due => Expect::End,
                Some(owed) if owed.start >= written => return Err(Poison::Protocol(ProtocolError::Unrequested)),
                Some(Owed { what: What::Keys { .. }, .. }) => Expect::Values,
                Some(Owed { what: What::Reply(expect), .. }) => *expect,
                Some(Owed { call, .. }) => call.request().expect(),
                None => return Err(Poison::Protocol(ProtocolError::Unrequested)),
            };
            let owed = &mut self.owed;
            let claim = |key: &[u8]| claim(owed, key, wakes);
            let Some(reply) = self.decoder.decode(expect, input, claim).map_err(Poison::Protocol)? else {
                return Ok(());
            };
            let reply = match reply {
                Reply::Refused(refusal) if !expect.survives(&refusal) => return Err(Poison::Refused(refusal)),
                reply => reply,
            };
            match reply {
                Reply::Value(value) => self.value(value, wakes),
                Reply::End => self.end(wakes),
                Reply::Meta(reply) => self.meta(*reply, wakes).map_err(Poison::Protocol)?,
                Reply::Refused(refusal) => self.refused(&refusal, wakes),
                reply => self.reply(Ok(reply), wakes),
            }
            // Only what can be trusted is a sign of life.
            self.received += 1;
        }
        Ok(())
    }

    /// A value whose key was claimed, and so belongs to the first key at the head.
    fn value(&mut self, value: Value, wakes: &mut Wakes) {
        let Some(Owed { call, what: What::Keys { next, end, last }, .. }) = self.owed.front_mut() else { return };
        wakes.add(call.settle(*next, lookup(value, call, &self.node)));
        *next += 1;
        if next == end {
            self.end_due = *last;
            self.owed.pop_front();
        }
    }

    /// The end of a retrieval: the keys of its line that are not yet answered are not there.
    fn end(&mut self, wakes: &mut Wakes) {
        if std::mem::take(&mut self.end_due) {
            return;
        }
        while let Some(Owed { call, what: What::Keys { next, end, last }, .. }) = self.owed.pop_front() {
            wakes.add(call.settle_misses(next, end));
            if last {
                return;
            }
        }
    }

    fn reply(&mut self, reply: Result<Reply, Error>, wakes: &mut Wakes) {
        let Some(Owed { call, .. }) = self.owed.pop_front() else { return };
        wakes.add(call.reply(reply));
    }

    fn refused(&mut self, refusal: &Refusal, wakes: &mut Wakes) {
        let error = refused(refusal, Delivery::Answered).on(&self.node);
        match self.owed.front_mut() {
            // The run goes on to its end. Which of its commands was refused is not known.
            Some(Owed { call, what: What::Run { spoilt, .. }, .. }) => {
                *spoilt = true;
                wakes.add(call.fail(&error));
            }
            _ => self.reply(Err(error), wakes),
        }
    }

    /// A meta reply: the one to the command at the head, as its opaque token tells.
    fn meta(&mut self, reply: MetaReply, wakes: &mut Wakes) -> Result<(), ProtocolError> {
        let Some(Owed { call, what, .. }) = self.owed.front_mut() else { return Ok(()) };
        match (what, call.request()) {
            (What::Meta { serial }, Request::Meta(request)) => {
                if !request.is_answered_by(&reply, *serial) {
                    return Err(ProtocolError::WrongOpaque);
                }
                let reply = within_limits(request.translate(reply), &self.node);
                self.reply(reply.map(|reply| Reply::Meta(Box::new(reply))), wakes);
            }
            (What::Run { next, .. }, Request::MetaRun(run)) if reply.code == MetaCode::End => {
                for index in *next..run.len() {
                    wakes.add(call.settle_in_run(index, Ok(MetaReply::miss())));
                }
                self.owed.pop_front();
            }
            (What::Run { next, serial, spoilt }, Request::MetaRun(run)) => {
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
    pub(super) fn sweep(&self, now: Instant, wakes: &mut Wakes) -> Option<Instant> {
        let mut error = None;
        let mut next = None::<Instant>;
        for Owed { call, .. } in &self.owed {
            let deadline = call.deadline();
            if deadline > now {
                next = Some(next.map_or(deadline, |next| next.min(deadline)));
            } else {
                let error =
                    error.get_or_insert_with(|| Error::new(ErrorKind::Timeout, Delivery::Unknown).on(&self.node));
                wakes.add(call.fail(error));
            }
        }
        next
    }

    /// The earliest deadline among the calls owed a reply, over or not.
    pub(super) fn first_deadline(&self) -> Option<Instant> {
        self.owed.iter().map(|owed| owed.call.deadline()).min()
    }

    /// Ends the connection for everybody: calls of which any byte was written fail with `error`, those before which the
    /// writing stopped are given back, unsent.
    pub(super) fn abandon(&mut self, written: u64, error: &Error, wakes: &mut Wakes) -> VecDeque<Arc<Call>> {
        self.end_due = false;
        let first_unsent = self.owed.partition_point(|owed| owed.start < written);
        let mut unsent: VecDeque<Arc<Call>> = VecDeque::new();
        for Owed { call, .. } in self.owed.drain(first_unsent..) {
            // The keys of one call may stand in several lines.
            if !unsent.back().is_some_and(|last| Arc::ptr_eq(last, &call)) {
                unsent.push_back(call);
            }
        }
        for Owed { call, .. } in self.owed.drain(..) {
            wakes.add(call.fail(error));
        }
        unsent
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

    fn has_room_for(&self, key: &Key, out: &BytesMut) -> bool {
        let bytes = out.len() - self.start + 1 + key.as_bytes().len();
        let largest = if self.form.1.is_some() { LARGEST_TOUCH_LINE_BYTES } else { LARGEST_LINE_BYTES };
        self.keys == 0 || (self.keys < LARGEST_LINE_KEYS && bytes <= largest)
    }
}

/// Finds the key among those of the line at the head that are not yet answered, and brings it to the front: values
/// come in the order asked for, so the keys passed over are not there. A key that is not among them changes nothing.
fn claim(owed: &mut VecDeque<Owed>, key: &[u8], wakes: &mut Wakes) -> bool {
    let mut found = None;
    'line: for (at, Owed { call, what, .. }) in owed.iter().enumerate() {
        let (What::Keys { next, end, last }, Request::Get { keys, .. }) = (what, call.request()) else { break };
        for (index, asked) in keys.as_slice()[*next..*end].iter().enumerate() {
            if asked.as_bytes() == key {
                found = Some((at, next + index));
                break 'line;
            }
        }
        if *last {
            break;
        }
    }
    let Some((at, index)) = found else { return false };
    for Owed { call, what, .. } in owed.drain(..at) {
        if let What::Keys { next, end, .. } = what {
            wakes.add(call.settle_misses(next, end));
        }
    }
    if let Some(Owed { call, what: What::Keys { next, .. }, .. }) = owed.front_mut() {
        wakes.add(call.settle_misses(*next, index));
        *next = index;
    }
    true
}

fn too_large(len: usize, node: &NodeId) -> Error {
    let text = format!("the stored value of {len} bytes is over the client's limit");
    Error::new(ErrorKind::TooLarge, Delivery::Answered).on(node).saying(text)
}

/// A meta reply as its caller may have it: with its value whole, if it brought one.
fn within_limits(reply: MetaReply, node: &NodeId) -> Result<MetaReply, Error> {
    match reply.value {
        Some(Body::TooLarge { len }) => Err(too_large(len, node)),
        _ => Ok(reply),
    }
}

fn lookup(value: Value, call: &Call, node: &NodeId) -> Lookup {
    let wants_cas = matches!(call.request(), Request::Get { cas: true, .. });
    match value {
        Value { body: Body::TooLarge { len }, .. } => Err(too_large(len, node)),
        Value { cas: None, .. } if wants_cas => {
            Err(Error::new(ErrorKind::Protocol, Delivery::Answered).on(node).saying("a value without its version"))
        }
        Value { flags, cas, body: Body::Whole(value) } => {
            Ok(Some(Item { value, flags, cas: cas.filter(|_| wants_cas).map(Cas) }))
        }
    }
}

/// The error an error line stands for.
pub(super) fn refused(refusal: &Refusal, delivery: Delivery) -> Error {
    let kind = if refusal.is_too_large() {
        ErrorKind::TooLarge
    } else if refusal.is_unauthenticated() {
        ErrorKind::Auth
    } else {
        ErrorKind::Server
    };
    Error::new(kind, delivery).saying(refusal.line())
}
