//! The replies that are pending, oldest first, and the calls they complete.
//!
//! # Keys of retrieval lines
//! Each key encoded in a retrieval line has a *number*, counted since the connection began. Values and ends of lines
//! complete the keys in the order of their numbers.
//!
//! A *repeat* is a get of a key that an unwritten line of the same batch holds already. It is not encoded again: it has
//! the number of that key, and is completed with it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::task::Waker;

use super::key_dedup::KeyPlace;
use crate::connection::WakeList;
use crate::connection::call::Call;
use crate::connection::response::GetResult;
use crate::error::Error;
use crate::key::Key;
use crate::protocol::{ReplyKind, Request, Value};

#[derive(Debug, Default)]
pub(super) struct InFlight {
    pending: VecDeque<Pending>,
    /// By number, once [`sort_repeats`](Self::sort_repeats) has run.
    repeats: VecDeque<Repeat>,
    repeats_are_unsorted: bool,
    /// All keys of the oldest retrieval are complete, but its `END` has not arrived.
    expects_end: bool,
    /// How many keys were encoded: the number of the next one.
    encoded_keys: u64,
    /// How many keys are complete: the number of the oldest that is not.
    completed_keys: u64,
}

/// What one call expects in response to one line on the wire.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) call: Arc<Call>,
    /// Where the line begins in all bytes ever encoded.
    pub(super) start: u64,
    pub(super) expected: Expected,
}

#[derive(Debug)]
pub(super) enum Expected {
    /// Values of the keys `next..end` of the call, in a retrieval line that may hold keys of other calls too.
    Keys {
        next: u32,
        end: u32,
        /// The line holds no keys after these, so `END` follows.
        is_last: bool,
    },
    Reply(ReplyKind),
    /// The reply to a meta command with this opaque token, unless its caller has set another.
    Meta {
        opaque: u64,
    },
    /// Replies to the commands of a run from index `next` on.
    MetaRun {
        next: usize,
        /// The opaque token of the command at index 0.
        first_opaque: u64,
        /// An error line has arrived, and may belong to any command of the run.
        has_error: bool,
    },
}

/// A get of a key that was encoded for another call, or for an earlier key of the same call.
#[derive(Debug)]
struct Repeat {
    number: u64,
    call: Arc<Call>,
    /// Which of the call's keys it is.
    index: u32,
}

impl InFlight {
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && !self.expects_end
    }

    /// Whether another batch may follow: only values and the outcomes of stores are pending. An error line in their
    /// place is known to be out of place.
    ///
    /// Other replies come last in a batch, so the newest pending one decides. (While only an `END` is pending, no batch
    /// is in flight that the window could count.)
    pub(super) fn can_be_followed(&self) -> bool {
        self.pending.back().map_or(!self.expects_end, |newest| {
            matches!(newest.expected, Expected::Keys { .. } | Expected::Reply(ReplyKind::Stored | ReplyKind::Swapped))
        })
    }

    #[inline]
    pub(super) fn expects_end(&self) -> bool {
        self.expects_end
    }

    #[inline]
    pub(super) fn oldest(&self) -> Option<&Pending> {
        self.pending.front()
    }

    pub(super) fn oldest_mut(&mut self) -> Option<&mut Pending> {
        self.pending.front_mut()
    }

    /// The oldest incomplete key.
    #[inline]
    pub(super) fn next_key(&self) -> Option<&Key> {
        let Pending { call, expected: Expected::Keys { next, .. }, .. } = self.pending.front()? else { return None };
        match call.request() {
            Request::Get { keys, .. } => keys.as_slice().get(*next as usize),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn push(&mut self, call: Arc<Call>, start: u64, expected: Expected) {
        self.pending.push_back(Pending { call, start, expected });
    }

    /// Adds the only key of a call, in the line that begins at `start`. Returns the key's number.
    #[inline]
    pub(super) fn push_only_key(&mut self, call: Arc<Call>, start: u64) -> u64 {
        self.push(call, start, Expected::Keys { next: 0, end: 1, is_last: false });
        self.encoded_keys += 1;
        self.encoded_keys - 1
    }

    /// Adds one key of a call, as [`push_only_key`](Self::push_only_key) does.
    pub(super) fn push_key(&mut self, call: &Arc<Call>, index: u32, start: u64) -> u64 {
        match self.pending.back_mut() {
            Some(Pending { call: last_call, expected: Expected::Keys { end, is_last: false, .. }, .. })
                if *end == index && Arc::ptr_eq(last_call, call) =>
            {
                *end += 1;
            }
            _ => self.push(Arc::clone(call), start, Expected::Keys { next: index, end: index + 1, is_last: false }),
        }
        self.encoded_keys += 1;
        self.encoded_keys - 1
    }

    /// Adds a repeat of the key with this number. Call [`sort_repeats`](Self::sort_repeats) after the last one.
    pub(super) fn push_repeat(&mut self, number: u64, call: Arc<Call>, index: u32) {
        self.repeats_are_unsorted |= self.repeats.back().is_some_and(|last| last.number > number);
        self.repeats.push_back(Repeat { number, call, index });
    }

    /// Sorts all repeats at once: a batch may hold ten thousand, and inserting each in its place would take 100 ms.
    pub(super) fn sort_repeats(&mut self) {
        if std::mem::take(&mut self.repeats_are_unsorted) {
            self.repeats.make_contiguous().sort_by_key(|repeat| repeat.number);
        }
    }

    /// The place of the key added last, which has this index in its call.
    #[inline]
    pub(super) fn last_key_place(&self, index: u32) -> KeyPlace {
        KeyPlace { pending: (self.pending.len().saturating_sub(1)) as u32, index }
    }

    pub(super) fn key_at(&self, place: KeyPlace) -> Option<&Key> {
        match self.pending.get(place.pending as usize)?.call.request() {
            Request::Get { keys, .. } => keys.as_slice().get(place.index as usize),
            _ => None,
        }
    }

    /// Ends the line: the keys added last are its last keys.
    pub(super) fn end_line(&mut self) {
        if let Some(Pending { expected: Expected::Keys { is_last, .. }, .. }) = self.pending.back_mut() {
            *is_last = true;
        }
    }

    pub(super) fn pop(&mut self) -> Option<Pending> {
        self.pending.pop_front()
    }

    /// Completes the oldest key, and its repeats, with its value. `to_result` is what a call makes of the value.
    #[inline]
    pub(super) fn complete_next_key(
        &mut self,
        value: Value,
        to_result: impl Fn(Value, &Call) -> GetResult,
        wakes: &mut WakeList,
    ) {
        let Some(Pending { call, expected: Expected::Keys { next, end, is_last }, .. }) = self.pending.front_mut()
        else {
            return;
        };
        self.completed_keys += 1;
        while let Some(repeat) = pop_below(self.completed_keys, &mut self.repeats) {
            wakes.add(repeat.complete(&value, &to_result));
        }
        wakes.add(call.settle(*next as usize, to_result(value, call)));
        *next += 1;
        if next == end {
            self.expects_end = *is_last;
            self.pending.pop_front();
        }
    }

    /// Makes this key the oldest, if the oldest line holds it among its incomplete keys. Values arrive in the order of
    /// the keys, so the keys before it are misses. Otherwise changes nothing and returns `false`.
    pub(super) fn advance_to(&mut self, key: &[u8], wakes: &mut WakeList) -> bool {
        let Some((at, index)) = self.find_in_oldest_line(key) else { return false };
        let mut misses = 0;
        for Pending { call, expected, .. } in self.pending.drain(..at) {
            if let Expected::Keys { next, end, .. } = expected {
                misses += end - next;
                wakes.add(call.settle_misses(next as usize, end as usize));
            }
        }
        if let Some(Pending { call, expected: Expected::Keys { next, .. }, .. }) = self.pending.front_mut()
            && *next < index
        {
            misses += index - *next;
            wakes.add(call.settle_misses(*next as usize, index as usize));
            *next = index;
        }
        self.complete_misses(misses, wakes);
        true
    }

    /// Finds a key among the incomplete keys of the oldest line: which pending element holds it, and its index there.
    fn find_in_oldest_line(&self, key: &[u8]) -> Option<(usize, u32)> {
        for (at, Pending { call, expected, .. }) in self.pending.iter().enumerate() {
            let (Expected::Keys { next, end, is_last }, Request::Get { keys, .. }) = (expected, call.request()) else {
                return None;
            };
            let mut incomplete = keys.as_slice()[*next as usize..*end as usize].iter().zip(*next..);
            if let Some((_, index)) = incomplete.find(|(pending, _)| pending.as_bytes() == key) {
                return Some((at, index));
            }
            if *is_last {
                return None;
            }
        }
        None
    }

    /// The incomplete keys of the oldest line, by the calls that hold them: none of a retrieval of which only the `END`
    /// is pending. For any other command, one key.
    pub(super) fn oldest_line(&self) -> impl Iterator<Item = (&Arc<Call>, Range<usize>)> {
        let mut is_over = self.expects_end;
        self.pending.iter().map_while(move |Pending { call, expected, .. }| {
            let indices = match expected {
                _ if is_over => return None,
                Expected::Keys { next, end, is_last } => {
                    is_over = *is_last;
                    *next as usize..*end as usize
                }
                _ => {
                    is_over = true;
                    0..1
                }
            };
            Some((call, indices))
        })
    }

    /// Ends the oldest retrieval: the keys of its line that are incomplete are misses.
    pub(super) fn end_retrieval(&mut self, wakes: &mut WakeList) {
        if std::mem::take(&mut self.expects_end) {
            return;
        }
        let mut misses = 0;
        while let Some(Pending { call, expected: Expected::Keys { next, end, is_last }, .. }) = self.pending.pop_front()
        {
            misses += end - next;
            wakes.add(call.settle_misses(next as usize, end as usize));
            if is_last {
                break;
            }
        }
        self.complete_misses(misses, wakes);
    }

    /// Counts the next `keys` keys as complete, and completes their repeats as misses.
    fn complete_misses(&mut self, keys: u32, wakes: &mut WakeList) {
        self.completed_keys += u64::from(keys);
        while let Some(repeat) = pop_below(self.completed_keys, &mut self.repeats) {
            wakes.add(repeat.call.settle(repeat.index as usize, Ok(None)));
        }
    }

    /// Every call in flight, some of them more than once.
    pub(super) fn calls(&self) -> impl Iterator<Item = &Arc<Call>> {
        self.pending.iter().map(|pending| &pending.call).chain(self.repeats.iter().map(|repeat| &repeat.call))
    }

    /// Forgets all calls after `written` bytes of all that was encoded. Calls of which any byte was written fail with
    /// `error`; the others are returned.
    pub(super) fn abandon(&mut self, written: u64, error: &Error, wakes: &mut WakeList) -> VecDeque<Arc<Call>> {
        let first_unsent = self.pending.partition_point(|pending| pending.start < written);
        let mut unsent: VecDeque<Arc<Call>> = VecDeque::new();
        let mut unsent_keys = 0;
        for Pending { call, expected, .. } in self.pending.drain(first_unsent..) {
            if let Expected::Keys { next, end, .. } = expected {
                unsent_keys += u64::from(end - next);
            }
            // The keys of one call may stand in several lines.
            if !unsent.back().is_some_and(|last| Arc::ptr_eq(last, &call)) {
                unsent.push_back(call);
            }
        }
        let first_unsent_key = self.encoded_keys - unsent_keys;
        let sent_repeats = self.repeats.partition_point(|repeat| repeat.number < first_unsent_key);
        for Repeat { call, .. } in self.repeats.drain(sent_repeats..) {
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
    // Rare, so never inlined: inlined, it would keep `to_result` from being inlined for ordinary values.
    #[inline(never)]
    fn complete(self, value: &Value, to_result: &impl Fn(Value, &Call) -> GetResult) -> Option<Waker> {
        self.call.settle(self.index as usize, to_result(value.clone(), &self.call))
    }
}

/// Removes the oldest repeat, if its number is below this.
fn pop_below(number: u64, repeats: &mut VecDeque<Repeat>) -> Option<Repeat> {
    if repeats.front()?.number < number { repeats.pop_front() } else { None }
}
