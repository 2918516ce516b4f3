//! Who is owed which reply, oldest first.
//!
//! Each key of a retrieval line has a number, counted since the connection began. Values and the ends of lines settle
//! the numbers in order, and with each the calls that asked for the same key again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use super::key_dedup::Place;
use crate::connection::WakeList;
use crate::connection::call::Call;
use crate::connection::response::GetResult;
use crate::error::Error;
use crate::key::Key;
use crate::protocol::{Expect, Request, Value};

#[derive(Debug, Default)]
pub(super) struct InFlight {
    owed: VecDeque<Pending>,
    /// In the order of the keys they repeat, once [`order_repeats`](Self::order_repeats) has seen to it.
    repeats: VecDeque<Repeat>,
    are_repeats_out_of_order: bool,
    /// The keys of the retrieval at the head are all answered, its `END` has not come.
    end_due: bool,
    keys_asked: u64,
    keys_settled: u64,
}

/// What one call still waits for from one line on the wire.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) call: Arc<Call>,
    /// Where the line begins in all that was ever encoded.
    pub(super) start: u64,
    pub(super) what: Expected,
}

#[derive(Debug)]
pub(super) enum Expected {
    /// Keys `next..end` of the call, in a retrieval line that may hold other calls' keys too.
    Keys {
        next: u32,
        end: u32,
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

/// A key asked for while the same key waits to be written: it is asked once, and answers both.
#[derive(Debug)]
struct Repeat {
    /// The number of the key on the wire.
    number: u64,
    call: Arc<Call>,
    index: u32,
}

impl InFlight {
    pub(super) fn is_empty(&self) -> bool {
        self.owed.is_empty() && !self.end_due
    }

    /// Whether nothing is owed but values and the outcomes of stores: an error that stands in their place is seen to be out
    /// of place. All others come last in a batch, so the newest debt tells. (Where only an `END` is owed, no batch is under
    /// way that could be counted.)
    pub(super) fn may_be_followed(&self) -> bool {
        self.owed.back().map_or(!self.end_due, |owed| {
            matches!(owed.what, Expected::Keys { .. } | Expected::Reply(Expect::Stored | Expect::Swapped))
        })
    }

    #[inline]
    pub(super) fn end_is_due(&self) -> bool {
        self.end_due
    }

    #[inline]
    pub(super) fn oldest(&self) -> Option<&Pending> {
        self.owed.front()
    }

    pub(super) fn oldest_mut(&mut self) -> Option<&mut Pending> {
        self.owed.front_mut()
    }

    /// The key that is the next to be answered.
    #[inline]
    pub(super) fn next_key(&self) -> Option<&Key> {
        let Pending { call, what: Expected::Keys { next, .. }, .. } = self.owed.front()? else { return None };
        match call.request() {
            Request::Get { keys, .. } => keys.as_slice().get(*next as usize),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn owe(&mut self, call: Arc<Call>, start: u64, what: Expected) {
        self.owed.push_back(Pending { call, start, what });
    }

    /// The only key of a call, in the line that begins at `start`; gives the key's number.
    #[inline]
    pub(super) fn owe_only_key(&mut self, call: Arc<Call>, start: u64) -> u64 {
        self.owe(call, start, Expected::Keys { next: 0, end: 1, last: false });
        self.keys_asked += 1;
        self.keys_asked - 1
    }

    /// As [`owe_only_key`](Self::owe_only_key), for one of several.
    pub(super) fn owe_key(&mut self, call: &Arc<Call>, index: u32, start: u64) -> u64 {
        match self.owed.back_mut() {
            Some(Pending { call: last_call, what: Expected::Keys { end, last: false, .. }, .. })
                if *end == index && Arc::ptr_eq(last_call, call) =>
            {
                *end += 1;
            }
            _ => self.owe(Arc::clone(call), start, Expected::Keys { next: index, end: index + 1, last: false }),
        }
        self.keys_asked += 1;
        self.keys_asked - 1
    }

    /// The key of this number, not written yet, answers this one too. To be followed by
    /// [`order_repeats`](Self::order_repeats).
    pub(super) fn owe_repeat(&mut self, number: u64, call: Arc<Call>, index: u32) {
        self.are_repeats_out_of_order |= self.repeats.back().is_some_and(|last| last.number > number);
        self.repeats.push_back(Repeat { number, call, index });
    }

    /// All at once: there may be some ten thousand in a batch, and putting each into its place would take a tenth of a second.
    pub(super) fn order_repeats(&mut self) {
        if std::mem::take(&mut self.are_repeats_out_of_order) {
            self.repeats.make_contiguous().sort_by_key(|repeat| repeat.number);
        }
    }

    /// Where the key owed last stands, and which key stands somewhere.
    #[inline]
    pub(super) fn last_place(&self, index: u32) -> Place {
        Place { owed: (self.owed.len().saturating_sub(1)) as u32, index }
    }

    pub(super) fn key_at(&self, place: Place) -> Option<&Key> {
        match self.owed.get(place.owed as usize)?.call.request() {
            Request::Get { keys, .. } => keys.as_slice().get(place.index as usize),
            _ => None,
        }
    }

    /// The keys owed last were the last of their line.
    pub(super) fn end_line(&mut self) {
        if let Some(Pending { what: Expected::Keys { last, .. }, .. }) = self.owed.back_mut() {
            *last = true;
        }
    }

    pub(super) fn pop(&mut self) -> Option<Pending> {
        self.owed.pop_front()
    }

    /// Settles the key that is next with its value; `lookup` says what a call makes of that.
    #[inline]
    pub(super) fn settle_next(
        &mut self,
        value: Value,
        lookup: impl Fn(Value, &Call) -> GetResult,
        wakes: &mut WakeList,
    ) {
        let Some(Pending { call, what: Expected::Keys { next, end, last }, .. }) = self.owed.front_mut() else {
            return;
        };
        self.keys_settled += 1;
        while let Some(repeat) = next_before(self.keys_settled, &mut self.repeats) {
            wakes.add(repeat.settle_with(&value, &lookup));
        }
        wakes.add(call.settle(*next as usize, lookup(value, call)));
        *next += 1;
        if next == end {
            self.end_due = *last;
            self.owed.pop_front();
        }
    }

    /// Finds the key among those of the line at the head that are not yet answered, and brings it to the front: values
    /// come in the order asked for, so the keys passed over are not there. A key that is not among them changes nothing.
    pub(super) fn claim(&mut self, key: &[u8], wakes: &mut WakeList) -> bool {
        let mut found = None;
        'line: for (at, Pending { call, what, .. }) in self.owed.iter().enumerate() {
            let (Expected::Keys { next, end, last }, Request::Get { keys, .. }) = (what, call.request()) else { break };
            for (asked, index) in keys.as_slice()[*next as usize..*end as usize].iter().zip(*next..) {
                if asked.as_bytes() == key {
                    found = Some((at, index));
                    break 'line;
                }
            }
            if *last {
                break;
            }
        }
        let Some((at, index)) = found else { return false };
        let mut passed = 0;
        for Pending { call, what, .. } in self.owed.drain(..at) {
            if let Expected::Keys { next, end, .. } = what {
                passed += end - next;
                wakes.add(call.settle_misses(next as usize, end as usize));
            }
        }
        if let Some(Pending { call, what: Expected::Keys { next, .. }, .. }) = self.owed.front_mut()
            && *next < index
        {
            passed += index - *next;
            wakes.add(call.settle_misses(*next as usize, index as usize));
            *next = index;
        }
        self.pass(passed, wakes);
        true
    }

    /// The end of a retrieval: the keys of its line that are not yet answered are not there.
    pub(super) fn end(&mut self, wakes: &mut WakeList) {
        if std::mem::take(&mut self.end_due) {
            return;
        }
        let mut passed = 0;
        while let Some(Pending { call, what: Expected::Keys { next, end, last }, .. }) = self.owed.pop_front() {
            passed += end - next;
            wakes.add(call.settle_misses(next as usize, end as usize));
            if last {
                break;
            }
        }
        self.pass(passed, wakes);
    }

    /// So many keys turned out not to be there.
    fn pass(&mut self, keys: u32, wakes: &mut WakeList) {
        self.keys_settled += u64::from(keys);
        while let Some(repeat) = next_before(self.keys_settled, &mut self.repeats) {
            wakes.add(repeat.call.settle(repeat.index as usize, Ok(None)));
        }
    }

    /// Every call owed anything, some of them more than once.
    pub(super) fn calls(&self) -> impl Iterator<Item = &Arc<Call>> {
        self.owed.iter().map(|owed| &owed.call).chain(self.repeats.iter().map(|repeat| &repeat.call))
    }

    /// Ends it for everybody: calls of which any byte was written fail with `error`, those before which the writing
    /// stopped are given back.
    pub(super) fn abandon(&mut self, written: u64, error: &Error, wakes: &mut WakeList) -> VecDeque<Arc<Call>> {
        let first_unsent = self.owed.partition_point(|owed| owed.start < written);
        let mut unsent: VecDeque<Arc<Call>> = VecDeque::new();
        let mut unsent_keys = 0;
        for Pending { call, what, .. } in self.owed.drain(first_unsent..) {
            if let Expected::Keys { next, end, .. } = what {
                unsent_keys += u64::from(end - next);
            }
            // The keys of one call may stand in several lines.
            if !unsent.back().is_some_and(|last| Arc::ptr_eq(last, &call)) {
                unsent.push_back(call);
            }
        }
        let first_unsent = self.keys_asked - unsent_keys;
        let sent = self.repeats.partition_point(|repeat| repeat.number < first_unsent);
        for Repeat { call, .. } in self.repeats.drain(sent..) {
            if !unsent.iter().any(|known| Arc::ptr_eq(known, &call)) {
                unsent.push_back(call);
            }
        }
        for call in self.calls() {
            wakes.add(call.fail(error));
        }
        *self = Self::default();
        unsent
    }
}

impl Repeat {
    // Rare. Inlined, it would keep what is not from being inlined: `lookup`, for every value.
    #[inline(never)]
    fn settle_with(self, value: &Value, lookup: &impl Fn(Value, &Call) -> GetResult) -> Option<Waker> {
        self.call.settle(self.index as usize, lookup(value.clone(), &self.call))
    }
}

/// Takes the next repeat of a key whose number is smaller.
fn next_before(number: u64, repeats: &mut VecDeque<Repeat>) -> Option<Repeat> {
    if repeats.front()?.number < number { repeats.pop_front() } else { None }
}
