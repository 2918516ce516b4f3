//! Encodes batches of calls.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;

use super::Pipeline;
use super::get_line::{GetForm, GetLine};
use super::in_flight::Expected;
use super::key_dedup::FreeSlot;
use crate::connection::call::Call;
use crate::key::Key;
use crate::protocol::{Keys, Request, WriteBuffer, encode, encode_line_end};

/// What a batch holds, and so which steps encode it.
#[derive(Debug, Default)]
struct BatchContents {
    /// How many keys its gets without a touch ask for.
    plain_keys: usize,
    /// Whether one of these gets asks for the CAS unique.
    wants_cas: bool,
    has_touching_get: bool,
    has_store: bool,
}

impl BatchContents {
    fn of(batch: &VecDeque<Arc<Call>>) -> Self {
        let mut contents = Self::default();
        for call in batch {
            match call.request() {
                Request::Get { keys, cas, touch: None } => {
                    contents.plain_keys += keys.as_slice().len();
                    contents.wants_cas |= *cas;
                }
                Request::Get { .. } => contents.has_touching_get = true,
                Request::Store { .. } => contents.has_store = true,
                _ => {}
            }
        }
        contents
    }
}

impl Pipeline {
    /// Encodes a batch of calls, empties it, and records which replies to expect.
    ///
    /// All gets of a batch share as few lines as the limits on a line allow: the cheapest form for client and server.
    /// Touching gets follow; neighbors share a line if they have the same form.
    ///
    /// Stores go first, then gets, then all other requests. No caller can notice, because no call of the batch was
    /// complete when the last was queued. The order has two reasons. A server writes the replies it has ready when it
    /// reaches a get, so earlier replies travel with the values, while replies to later requests would travel, and wake
    /// this task, separately. And a server that answers a retrieval with an error may drop the replies it had ready;
    /// the error then stands in their place. In the place of a store's reply it ends the connection
    /// ([`ReplyKind::keeps_connection_after`](crate::protocol::ReplyKind::keeps_connection_after)); in the place of any
    /// other it would pass for the reply.
    pub(in crate::connection) fn submit(&mut self, batch: &mut VecDeque<Arc<Call>>, out: &mut WriteBuffer) {
        let contents = BatchContents::of(batch);
        if contents.has_store {
            self.submit_stores(batch, out);
        }
        if contents.plain_keys > 0 {
            self.submit_plain_gets(batch, contents.plain_keys, contents.wants_cas, out.text());
        }
        if contents.has_touching_get {
            self.submit_touching_gets(batch, out.text());
        }
        for call in batch.drain(..).filter(|call| !matches!(call.request(), Request::Get { .. })) {
            let opaque = self.next_opaque;
            self.next_opaque += match call.request() {
                Request::Meta(_) => 1,
                Request::MetaRun(run) => run.len() as u64,
                _ => 0,
            };
            self.submit_one(call, opaque, out);
        }
    }

    /// Encodes the stores of the batch and removes them from it.
    fn submit_stores(&mut self, batch: &mut VecDeque<Arc<Call>>, out: &mut WriteBuffer) {
        for call in batch.drain(..) {
            if let Request::Store { .. } = call.request() {
                self.submit_one(call, 0, out);
            } else {
                self.unsubmitted.push_back(call);
            }
        }
        std::mem::swap(batch, &mut self.unsubmitted);
    }

    /// Encodes a request other than a get. Its meta commands have the opaque tokens from `opaque` on.
    fn submit_one(&mut self, call: Arc<Call>, opaque: u64, out: &mut WriteBuffer) {
        let before = out.len();
        encode(call.request(), opaque, out);
        let expected = match call.request() {
            Request::Meta(_) => Expected::Meta { opaque },
            Request::MetaRun(_) => Expected::MetaRun { next: 0, first_opaque: opaque, has_error: false },
            request => Expected::Reply(request.reply_kind()),
        };
        self.in_flight.push(call, self.encoded, expected);
        self.encoded += (out.len() - before) as u64;
    }

    /// Encodes the gets without a touch and removes them from the batch. If one of them asks for the CAS unique, all
    /// lines are `gets`, and the other calls ignore it. Equal keys are encoded once.
    fn submit_plain_gets(&mut self, batch: &mut VecDeque<Arc<Call>>, key_count: usize, cas: bool, out: &mut BytesMut) {
        self.dedup.begin(key_count);
        let mut line = GetLine::begin(GetForm { cas, touch: None }, out);
        for call in batch.drain(..) {
            match call.request() {
                Request::Get { keys: Keys::One(key), touch: None, .. } => match self.encode_once(key, &mut line, out) {
                    Ok(free_slot) => {
                        let number = self.in_flight.push_only_key(call, self.encoded);
                        self.dedup.insert(free_slot, self.in_flight.last_key_place(0), number);
                    }
                    Err(number) => self.in_flight.push_repeat(number, call, 0),
                },
                Request::Get { keys: Keys::Many(keys), touch: None, .. } => {
                    for (index, key) in (0..).zip(keys) {
                        match self.encode_once(key, &mut line, out) {
                            Ok(free_slot) => {
                                let number = self.in_flight.push_key(&call, index, self.encoded);
                                self.dedup.insert(free_slot, self.in_flight.last_key_place(index), number);
                            }
                            Err(number) => self.in_flight.push_repeat(number, Arc::clone(&call), index),
                        }
                    }
                }
                _ => self.unsubmitted.push_back(call),
            }
        }
        std::mem::swap(batch, &mut self.unsubmitted);
        self.in_flight.sort_repeats();
        self.end_line(&line, out);
    }

    /// Encodes a key, or returns the number of an equal key that this batch has encoded already.
    fn encode_once(&mut self, key: &Key, line: &mut GetLine, out: &mut BytesMut) -> Result<Option<FreeSlot>, u64> {
        let free_slot = self.dedup.find(key.as_bytes(), |place| self.in_flight.key_at(place) == Some(key))?;
        if !line.has_room_for(key, out) {
            self.end_line(line, out);
            *line = GetLine::begin(line.form, out);
        }
        line.push(key, out);
        Ok(free_slot)
    }

    /// Encodes the gets with a touch. Neighbors share a line if they have the same form.
    fn submit_touching_gets(&mut self, batch: &VecDeque<Arc<Call>>, out: &mut BytesMut) {
        let mut line: Option<GetLine> = None;
        for call in batch {
            let Request::Get { keys, cas, touch: touch @ Some(_) } = call.request() else { continue };
            let form = GetForm { cas: *cas, touch: *touch };
            for (index, key) in (0..).zip(keys.as_slice()) {
                self.push_to_line(&mut line, form, call, (index, key), out);
            }
        }
        self.end_last_line(line, out);
    }

    /// Encodes a get of many keys. The keys with the indices `apart` get a line each, after the lines of the others. So
    /// the others are answered before an error line ends the connection.
    pub(in crate::connection) fn submit_apart(&mut self, call: &Arc<Call>, apart: &[usize], out: &mut WriteBuffer) {
        let Request::Get { keys, cas, touch } = call.request() else { return };
        let (form, out) = (GetForm { cas: *cas, touch: *touch }, out.text());
        let mut line = None;
        for (index, key) in (0..).zip(keys.as_slice()) {
            if !apart.contains(&(index as usize)) {
                self.push_to_line(&mut line, form, call, (index, key), out);
            }
        }
        self.end_last_line(line, out);
        for (index, key) in (0..).zip(keys.as_slice()) {
            if apart.contains(&(index as usize)) {
                let mut line = None;
                self.push_to_line(&mut line, form, call, (index, key), out);
                self.end_last_line(line, out);
            }
        }
    }

    /// Encodes a key of a call, with its index there, in this line if it has the same form and room, or else in a new
    /// one.
    fn push_to_line(
        &mut self,
        line: &mut Option<GetLine>,
        form: GetForm,
        call: &Arc<Call>,
        (index, key): (u32, &Key),
        out: &mut BytesMut,
    ) {
        let mut current = line.take().unwrap_or_else(|| GetLine::begin(form, out));
        if current.form != form || !current.has_room_for(key, out) {
            self.end_line(&current, out);
            current = GetLine::begin(form, out);
        }
        current.push(key, out);
        self.in_flight.push_key(call, index, self.encoded);
        *line = Some(current);
    }

    fn end_last_line(&mut self, line: Option<GetLine>, out: &mut BytesMut) {
        if let Some(line) = line {
            self.end_line(&line, out);
        }
    }

    fn end_line(&mut self, line: &GetLine, out: &mut BytesMut) {
        encode_line_end(out);
        self.in_flight.end_line();
        self.encoded += (out.len() - line.start) as u64;
    }
}
