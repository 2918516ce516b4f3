//! One caller's request, and the slot its answer is put in.

mod spare;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::time::Instant;

use super::{Queue, lock};
use crate::error::{Delivery, Error, ErrorKind};
use crate::item::Item;
use crate::key::Key;
use crate::protocol::{Keys, MetaReply, Reply, Request};

/// What is known of one key: found, not there, or why it cannot be said.
pub(crate) type GetResult = Result<Option<Item>, Error>;

/// The answer to a call, in the shape of its request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// To a get of one key.
    #[cfg_attr(not(test), expect(dead_code, reason = "it is waited for by `ResponseFuture::lookup`"))]
    One(GetResult),
    /// To a get of many keys, in their order.
    Many(Vec<GetResult>),
    /// To a run of meta gets, in their order.
    Run(Vec<Result<MetaReply, Error>>),
    /// To anything else.
    Reply(Result<Reply, Error>),
}

/// One caller's request. Shared by the caller, who waits, and by the queue or pipeline it is in.
#[derive(Debug)]
pub(crate) struct Call {
    request: Request,
    /// What it takes in a queue: asked for again and again there.
    weight: usize,
    deadline: Instant,
    slot: Mutex<Slot>,
}

#[derive(Debug)]
struct Slot {
    answers: ResponseSlot,
    /// How many answers are still to come. Those that come when there are none have come too late.
    pending: usize,
    waker: Option<Waker>,
}

#[derive(Debug)]
enum ResponseSlot {
    One(Option<GetResult>),
    Many(Vec<Option<GetResult>>),
    Run(Vec<Option<Result<MetaReply, Error>>>),
    Reply(Option<Result<Reply, Error>>),
    /// Handed over, or no longer wanted.
    Gone,
}

impl Call {
    #[inline]
    pub(crate) fn new(request: Request, deadline: Instant) -> Self {
        let (answers, pending) = match &request {
            Request::Get { keys: Keys::One(_), .. } => (ResponseSlot::One(None), 1),
            Request::Get { keys: Keys::Many(keys), .. } => (ResponseSlot::Many(vec![None; keys.len()]), keys.len()),
            Request::MetaRun(run) => (ResponseSlot::Run(vec![None; run.len()]), run.len()),
            _ => (ResponseSlot::Reply(None), 1),
        };
        Self { weight: request.weight(), request, deadline, slot: Mutex::new(Slot { answers, pending, waker: None }) }
    }

    /// A get of the one key that `put_key` puts in its place, for a caller who waits from the beginning: a
    /// [`ResponseFuture::begun`].
    ///
    /// Filled in where it lies: what is made elsewhere and moved there costs more than all the rest.
    #[inline]
    pub(crate) fn get<E>(
        (cas, touch): (bool, Option<u32>),
        deadline: Instant,
        waker: &Waker,
        put_key: impl Fn(&mut Key) -> Result<(), E>,
    ) -> Result<Arc<Self>, E> {
        loop {
            let mut spare = spare::take(deadline);
            let Some(call) = Arc::get_mut(&mut spare) else { continue };
            let has_room = matches!(call.slot_mut().answers, ResponseSlot::One(None));
            if let Request::Get { keys: Keys::One(key), cas: asks_cas, touch: touches } = &mut call.request
                && has_room
            {
                put_key(key)?;
                (*asks_cas, *touches) = (cas, touch);
                call.weight = call.request.weight();
                call.deadline = deadline;
                call.slot_mut().pending = 1;
            } else {
                let mut key = Key::blank();
                put_key(&mut key)?;
                *call = Self::new(Request::Get { keys: Keys::One(key), cas, touch }, deadline);
            }
            call.slot_mut().waker = Some(waker.clone());
            return Ok(spare);
        }
    }

    /// As [`new`](Self::new), where it will lie.
    #[inline]
    pub(crate) fn filled(request: Request, deadline: Instant) -> Arc<Self> {
        loop {
            let mut spare = spare::take(deadline);
            let Some(call) = Arc::get_mut(&mut spare) else { continue };
            *call = Self::new(request, deadline);
            return spare;
        }
    }

    /// Whom to wake, said before the call is queued: of a [`ResponseFuture::begun`]. Nobody else may have the call yet.
    #[inline]
    pub(crate) fn note_waker(call: &mut Arc<Self>, waker: &Waker) {
        if let Some(call) = Arc::get_mut(call) {
            call.slot_mut().waker = Some(waker.clone());
        }
    }

    #[inline]
    fn slot_mut(&mut self) -> &mut Slot {
        self.slot.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    pub(crate) fn request(&self) -> &Request {
        &self.request
    }

    #[inline]
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    #[inline]
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// ResponseSlot one key of a get. Whoever must be woken for it is given back, to be woken outside every lock.
    #[inline]
    pub(crate) fn settle(&self, index: usize, lookup: GetResult) -> Option<Waker> {
        lock(&self.slot).settle(index, lookup)
    }

    /// ResponseSlot keys `from..to` of a get: they are not there.
    pub(crate) fn settle_misses(&self, from: usize, to: usize) -> Option<Waker> {
        let mut slot = lock(&self.slot);
        (from..to).fold(None, |waker, index| slot.settle(index, Ok(None)).or(waker))
    }

    /// ResponseSlot one command of a run.
    pub(crate) fn settle_in_run(&self, index: usize, reply: Result<MetaReply, Error>) -> Option<Waker> {
        let mut slot = lock(&self.slot);
        match &mut slot.answers {
            ResponseSlot::Run(replies) => match replies.get_mut(index) {
                Some(place @ None) => *place = Some(reply),
                _ => return None,
            },
            _ => return None,
        }
        slot.settled()
    }

    /// What was answered to a call that nobody waits for.
    pub(super) fn take_reply(&self) -> Option<Result<Reply, Error>> {
        let mut slot = lock(&self.slot);
        if matches!(slot.answers, ResponseSlot::Reply(Some(_))) { slot.take_reply() } else { None }
    }

    /// ResponseSlot a request other than a get.
    pub(crate) fn reply(&self, reply: Result<Reply, Error>) -> Option<Waker> {
        let mut slot = lock(&self.slot);
        match &mut slot.answers {
            ResponseSlot::Reply(place @ None) => *place = Some(reply),
            _ => return None,
        }
        slot.settled()
    }

    /// ResponseSlot whatever is not yet answered with an error.
    pub(crate) fn fail(&self, error: &Error) -> Option<Waker> {
        let mut slot = lock(&self.slot);
        let mut waker = None;
        match &mut slot.answers {
            ResponseSlot::One(None) => waker = slot.settle(0, Err(error.clone())),
            ResponseSlot::Many(lookups) => {
                for index in 0..lookups.len() {
                    waker = slot.settle(index, Err(error.clone())).or(waker);
                }
            }
            ResponseSlot::Run(replies) => {
                let unanswered = replies.iter_mut().filter(|place| place.is_none());
                let count = unanswered.map(|place| *place = Some(Err(error.clone()))).count();
                for _ in 0..count {
                    waker = slot.settled().or(waker);
                }
            }
            ResponseSlot::Reply(place @ None) => {
                *place = Some(Err(error.clone()));
                waker = slot.settled();
            }
            ResponseSlot::One(Some(_)) | ResponseSlot::Reply(Some(_)) | ResponseSlot::Gone => {}
        }
        waker
    }

    /// Whether nothing is left to be answered.
    pub(crate) fn is_over(&self) -> bool {
        lock(&self.slot).pending == 0
    }

    /// The slot, once nothing is left to be answered.
    #[inline]
    fn poll_settled(&self, cx: &Context<'_>) -> Poll<MutexGuard<'_, Slot>> {
        let mut slot = lock(&self.slot);
        if slot.pending == 0 {
            return Poll::Ready(slot);
        }
        match &mut slot.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            waker => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// The caller has gone: later answers are dropped as they come.
    fn abandon(&self) {
        let mut slot = lock(&self.slot);
        (slot.answers, slot.pending, slot.waker) = (ResponseSlot::Gone, 0, None);
    }
}

impl Slot {
    fn settle(&mut self, index: usize, lookup: GetResult) -> Option<Waker> {
        let place = match &mut self.answers {
            // Taken out, there is room for the next call's, but this one is over.
            ResponseSlot::One(place) if index == 0 && self.pending > 0 => Some(place),
            ResponseSlot::Many(lookups) => lookups.get_mut(index),
            _ => None,
        };
        match place {
            Some(place @ None) => {
                *place = Some(lookup);
                self.settled()
            }
            // Answered before: by its deadline, most likely.
            _ => None,
        }
    }

    fn settled(&mut self) -> Option<Waker> {
        self.pending -= 1;
        if self.pending == 0 { self.waker.take() } else { None }
    }

    /// Takes out the one lookup there is, and makes room for that of the next call.
    fn take_lookup(&mut self) -> Option<GetResult> {
        match &mut self.answers {
            ResponseSlot::One(lookup) => lookup.take(),
            _ => None,
        }
    }

    /// Takes out the one reply there is.
    fn take_reply(&mut self) -> Option<Result<Reply, Error>> {
        match self.take() {
            ResponseSlot::Reply(reply) => reply,
            _ => None,
        }
    }

    /// Takes out everything. What comes later must find the call over.
    fn take(&mut self) -> ResponseSlot {
        std::mem::replace(&mut self.answers, ResponseSlot::Gone)
    }
}

/// A caller's end of a call: waits for the answer, and takes the call back when dropped.
///
/// Dropping it is always safe. A call that was not written yet leaves the queue and is never sent; the answer to one
/// that was is read in its turn and dropped.
#[derive(Debug)]
pub(crate) struct ResponseFuture {
    /// Until it is answered.
    open: Option<Open>,
    /// The call has known from the beginning whom to wake.
    has_begun: bool,
}

#[derive(Debug)]
struct Open {
    call: Arc<Call>,
    queue: Arc<Queue>,
}

impl ResponseFuture {
    pub(super) fn new(call: Arc<Call>, queue: Arc<Queue>) -> Self {
        Self { open: Some(Open { call, queue }), has_begun: false }
    }

    /// Of a call that had its caller's waker before it was queued, so that there is nothing to be done when the ticket is
    /// polled for the first time, in the same turn.
    pub(crate) fn begun(mut self) -> Self {
        self.has_begun = true;
        self
    }

    /// Waits for what is known of the one key of a get.
    pub(crate) async fn lookup(mut self) -> GetResult {
        poll_fn(|cx| self.poll_lookup(cx)).await
    }

    #[inline]
    pub(crate) fn poll_lookup(&mut self, cx: &Context<'_>) -> Poll<GetResult> {
        self.poll_one(cx, Slot::take_lookup)
    }

    /// Waits for the reply to a request other than a get.
    pub(crate) async fn reply(mut self) -> Result<Reply, Error> {
        poll_fn(|cx| self.poll_reply(cx)).await
    }

    #[inline]
    pub(crate) fn poll_reply(&mut self, cx: &Context<'_>) -> Poll<Result<Reply, Error>> {
        self.poll_one(cx, Slot::take_reply)
    }

    /// Takes the one answer there is, and lets the call be the next's.
    #[inline]
    fn poll_one<T>(
        &mut self,
        cx: &Context<'_>,
        take: impl FnOnce(&mut Slot) -> Option<Result<T, Error>>,
    ) -> Poll<Result<T, Error>> {
        if std::mem::take(&mut self.has_begun) {
            return Poll::Pending;
        }
        // Polled again after it was ready, which a future may answer as it likes, but not with a panic.
        let Some(Open { call, .. }) = &mut self.open else { return Poll::Pending };
        let answer = ready!(call_settled(call, cx, take));
        if let Some(Open { call, .. }) = self.open.take() {
            spare::keep(call);
        }
        Poll::Ready(answer.unwrap_or_else(|| Err(unexpected_response())))
    }

    fn poll_answers(&mut self, cx: &Context<'_>) -> Poll<ResponseSlot> {
        // Polled again after it was ready, which a future may answer as it likes, but not with a panic.
        let Some(Open { call, .. }) = &mut self.open else { return Poll::Pending };
        let answers = ready!(call_settled(call, cx, Slot::take));
        self.open = None;
        Poll::Ready(answers)
    }
}

/// Takes the answers of a call once all are there. Most often whoever gave them has let go of it already.
#[inline]
fn call_settled<T>(call: &mut Arc<Call>, cx: &Context<'_>, take: impl FnOnce(&mut Slot) -> T) -> Poll<T> {
    if let Some(call) = Arc::get_mut(call) {
        let slot = call.slot_mut();
        if slot.pending == 0 {
            return Poll::Ready(take(slot));
        }
    }
    let mut slot = ready!(call.poll_settled(cx));
    Poll::Ready(take(&mut slot))
}

/// An answer of another shape than its request: the pipeline makes none.
pub(crate) fn unexpected_response() -> Error {
    Error::new(ErrorKind::Protocol, Delivery::Answered).with_message("an answer of the wrong shape")
}

impl Future for ResponseFuture {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        Poll::Ready(match ready!(self.poll_answers(cx)) {
            ResponseSlot::One(lookup) => Answer::One(lookup.unwrap_or_else(|| Err(unexpected_response()))),
            // In the same memory, which `flatten` would not manage.
            ResponseSlot::Many(lookups) => Answer::Many(lookups.into_iter().map_while(|lookup| lookup).collect()),
            ResponseSlot::Run(replies) => Answer::Run(replies.into_iter().flatten().collect()),
            ResponseSlot::Reply(reply) => Answer::Reply(reply.unwrap_or_else(|| Err(unexpected_response()))),
            ResponseSlot::Gone => Answer::Reply(Err(unexpected_response())),
        })
    }
}

impl Drop for ResponseFuture {
    fn drop(&mut self) {
        if let Some(Open { call, queue }) = self.open.take() {
            queue.cancel(&call);
            call.abandon();
        }
    }
}
