//! The shapes a response can have, and the slot that a connection fills in.

use std::task::Waker;

use crate::error::Error;
use crate::item::Item;
use crate::protocol::{Keys, MetaReply, Reply, Request};

/// The result for one key of a get: a hit, a miss, or an error.
pub(crate) type GetResult = Result<Option<Item>, Error>;

/// A response, in the shape of its request. The shape is fixed when a [`NewCall`](super::NewCall) is made.
pub(crate) trait Response: Sized {
    /// Takes the response out of a complete slot. `None` if the slot has another shape, which no constructor of a
    /// call allows.
    fn take(slot: &mut ResponseSlot) -> Option<Result<Self, Error>>;
}

/// A get of one key.
impl Response for Option<Item> {
    /// Leaves room in the slot for the next get that reuses the call.
    #[inline]
    fn take(slot: &mut ResponseSlot) -> Option<Result<Self, Error>> {
        match slot {
            ResponseSlot::Item(result) => result.take(),
            _ => None,
        }
    }
}

/// A get of many keys, in their order.
impl Response for Vec<GetResult> {
    fn take(slot: &mut ResponseSlot) -> Option<Result<Self, Error>> {
        match slot.take() {
            // `map_while` keeps the allocation, which `flatten` does not.
            ResponseSlot::Items(results) => Some(Ok(results.into_iter().map_while(|result| result).collect())),
            _ => None,
        }
    }
}

/// A run of meta gets, in their order.
impl Response for Vec<Result<MetaReply, Error>> {
    fn take(slot: &mut ResponseSlot) -> Option<Result<Self, Error>> {
        match slot.take() {
            ResponseSlot::MetaRun(replies) => Some(Ok(replies.into_iter().flatten().collect())),
            _ => None,
        }
    }
}

/// Any other request.
impl Response for Reply {
    #[inline]
    fn take(slot: &mut ResponseSlot) -> Option<Result<Self, Error>> {
        match slot.take() {
            ResponseSlot::Reply(reply) => reply,
            _ => None,
        }
    }
}

/// The parts of a response that have come so far.
#[derive(Debug)]
pub(crate) enum ResponseSlot {
    Item(Option<GetResult>),
    Items(Vec<Option<GetResult>>),
    MetaRun(Vec<Option<Result<MetaReply, Error>>>),
    Reply(Option<Result<Reply, Error>>),
    /// The response was taken, or its caller dropped the future.
    Taken,
}

impl ResponseSlot {
    fn take(&mut self) -> Self {
        std::mem::replace(self, Self::Taken)
    }
}

/// A response slot, how much of it is missing, and the caller to wake when it is complete.
#[derive(Debug)]
pub(super) struct Slot {
    response: ResponseSlot,
    /// How many parts are missing. Parts that come when none is missing have come too late.
    missing: usize,
    waker: Option<Waker>,
}

impl Slot {
    #[inline]
    pub(super) fn for_request(request: &Request) -> Self {
        let (response, missing) = match request {
            Request::Get { keys: Keys::One(_), .. } => (ResponseSlot::Item(None), 1),
            Request::Get { keys: Keys::Many(keys), .. } => (ResponseSlot::Items(vec![None; keys.len()]), keys.len()),
            Request::MetaRun(run) => (ResponseSlot::MetaRun(vec![None; run.len()]), run.len()),
            _ => (ResponseSlot::Reply(None), 1),
        };
        Self { response, missing, waker: None }
    }

    /// Whether the slot of a call from the pool can be used again for a get of one key: its last item was taken out.
    #[inline]
    pub(super) fn is_empty_item(&self) -> bool {
        matches!(self.response, ResponseSlot::Item(None))
    }

    /// Makes an [empty item slot](Self::is_empty_item) wait for the next get.
    #[inline]
    pub(super) fn reset(&mut self) {
        self.missing = 1;
    }

    #[inline]
    pub(super) fn is_complete(&self) -> bool {
        self.missing == 0
    }

    #[inline]
    pub(super) fn set_waker(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) if known.will_wake(waker) => {}
            known => *known = Some(waker.clone()),
        }
    }

    /// Takes the response out of a complete slot. Parts that come later find the slot complete.
    #[inline]
    pub(super) fn take<R: Response>(&mut self) -> Result<R, Error> {
        R::take(&mut self.response).unwrap_or_else(|| Err(Error::unexpected_response()))
    }

    /// Discards the response: its caller is not there any more.
    pub(super) fn abandon(&mut self) {
        *self = Self { response: ResponseSlot::Taken, missing: 0, waker: None };
    }

    /// Puts in the result for one key of a get. Returns the waker if the slot is complete now.
    #[inline]
    pub(super) fn put_item(&mut self, index: usize, result: GetResult) -> Option<Waker> {
        let place = match &mut self.response {
            // Emptied for the next call, but this call is complete.
            ResponseSlot::Item(place) if index == 0 && self.missing > 0 => Some(place),
            ResponseSlot::Items(results) => results.get_mut(index),
            _ => None,
        };
        match place {
            Some(place @ None) => {
                *place = Some(result);
                self.missing -= 1;
                if self.missing == 0 { self.waker.take() } else { None }
            }
            // Filled before, most likely by the deadline.
            _ => None,
        }
    }

    /// Puts in the reply to one command of a run.
    pub(super) fn put_in_run(&mut self, index: usize, reply: Result<MetaReply, Error>) -> Option<Waker> {
        let ResponseSlot::MetaRun(replies) = &mut self.response else { return None };
        match replies.get_mut(index) {
            Some(place @ None) => *place = Some(reply),
            _ => return None,
        }
        self.filled(1)
    }

    /// Puts in the reply to a request other than a get.
    pub(super) fn put_reply(&mut self, reply: Result<Reply, Error>) -> Option<Waker> {
        let ResponseSlot::Reply(place @ None) = &mut self.response else { return None };
        *place = Some(reply);
        self.filled(1)
    }

    /// Fills everything that is missing with an error.
    pub(super) fn fail(&mut self, error: &Error) -> Option<Waker> {
        fn fill<T>(places: &mut [Option<Result<T, Error>>], error: &Error) -> usize {
            let missing = places.iter_mut().filter(|place| place.is_none());
            missing.map(|place| *place = Some(Err(error.clone()))).count()
        }
        let filled = match &mut self.response {
            ResponseSlot::Item(place) if self.missing > 0 => fill(std::slice::from_mut(place), error),
            ResponseSlot::Items(results) => fill(results, error),
            ResponseSlot::MetaRun(replies) => fill(replies, error),
            ResponseSlot::Reply(place) => fill(std::slice::from_mut(place), error),
            ResponseSlot::Item(_) | ResponseSlot::Taken => 0,
        };
        self.filled(filled)
    }

    /// The reply, if it is there and no future waits for it.
    pub(super) fn take_reply(&mut self) -> Option<Result<Reply, Error>> {
        if matches!(self.response, ResponseSlot::Reply(Some(_))) { Reply::take(&mut self.response) } else { None }
    }

    #[inline]
    fn filled(&mut self, parts: usize) -> Option<Waker> {
        self.missing -= parts;
        if self.missing == 0 && parts > 0 { self.waker.take() } else { None }
    }
}
