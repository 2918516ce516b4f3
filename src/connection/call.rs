//! One caller's request, and the slot its answer is put in.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};

use tokio::time::Instant;

use super::{Queue, lock};
use crate::error::{Delivery, Error, ErrorKind};
use crate::item::Item;
use crate::protocol::{Keys, MetaReply, Reply, Request};

/// What is known of one key: found, not there, or why it cannot be said.
pub(crate) type Lookup = Result<Option<Item>, Error>;

/// The answer to a call, in the shape of its request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// To a get of one key.
    #[cfg_attr(not(test), expect(dead_code, reason = "it is waited for by `Ticket::lookup`"))]
    One(Lookup),
    /// To a get of many keys, in their order.
    Many(Vec<Lookup>),
    /// To a run of meta gets, in their order.
    Run(Vec<Result<MetaReply, Error>>),
    /// To anything else.
    Reply(Result<Reply, Error>),
}

/// One caller's request. Shared by the caller, who waits, and by the queue or pipeline it is in.
///
/// The one allocation a get makes before its value.
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
    answers: Answers,
    /// How many answers are still to come.
    pending: usize,
    waker: Option<Waker>,
}

#[derive(Debug)]
enum Answers {
    One(Option<Lookup>),
    Many(Vec<Option<Lookup>>),
    Run(Vec<Option<Result<MetaReply, Error>>>),
    Reply(Option<Result<Reply, Error>>),
    /// Handed over, or no longer wanted.
    Gone,
}

impl Call {
    #[inline]
    pub(crate) fn new(request: Request, deadline: Instant) -> Self {
        let (answers, pending) = match &request {
            Request::Get { keys: Keys::One(_), .. } => (Answers::One(None), 1),
            Request::Get { keys: Keys::Many(keys), .. } => (Answers::Many(vec![None; keys.len()]), keys.len()),
            Request::MetaRun(run) => (Answers::Run(vec![None; run.len()]), run.len()),
            _ => (Answers::Reply(None), 1),
        };
        Self { weight: request.weight(), request, deadline, slot: Mutex::new(Slot { answers, pending, waker: None }) }
    }

    pub(crate) fn request(&self) -> &Request {
        &self.request
    }

    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Answers one key of a get. Whoever must be woken for it is given back, to be woken outside every lock.
    pub(crate) fn settle(&self, index: usize, lookup: Lookup) -> Option<Waker> {
        lock(&self.slot).settle(index, lookup)
    }

    /// Answers keys `from..to` of a get: they are not there.
    pub(crate) fn settle_misses(&self, from: usize, to: usize) -> Option<Waker> {
        let mut slot = lock(&self.slot);
        (from..to).fold(None, |waker, index| slot.settle(index, Ok(None)).or(waker))
    }

    /// Answers one command of a run.
    pub(crate) fn settle_in_run(&self, index: usize, reply: Result<MetaReply, Error>) -> Option<Waker> {
        let mut slot = lock(&self.slot);
        match &mut slot.answers {
            Answers::Run(replies) => match replies.get_mut(index) {
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
        let Answers::Reply(reply) = &mut slot.answers else { return None };
        let reply = reply.take()?;
        slot.answers = Answers::Gone;
        Some(reply)
    }

    /// Answers a request other than a get.
    pub(crate) fn reply(&self, reply: Result<Reply, Error>) -> Option<Waker> {
        let mut slot = lock(&self.slot);
        if let Answers::Reply(place @ None) = &mut slot.answers {
            *place = Some(reply);
            return slot.settled();
        }
        None
    }

    /// Answers whatever is not yet answered with an error.
    pub(crate) fn fail(&self, error: &Error) -> Option<Waker> {
        let mut slot = lock(&self.slot);
        let mut waker = None;
        match &mut slot.answers {
            Answers::One(None) => waker = slot.settle(0, Err(error.clone())),
            Answers::Many(lookups) => {
                for index in 0..lookups.len() {
                    waker = slot.settle(index, Err(error.clone())).or(waker);
                }
            }
            Answers::Run(replies) => {
                let unanswered = replies.iter_mut().filter(|place| place.is_none());
                let count = unanswered.map(|place| *place = Some(Err(error.clone()))).count();
                for _ in 0..count {
                    waker = slot.settled().or(waker);
                }
            }
            Answers::Reply(place @ None) => {
                *place = Some(Err(error.clone()));
                waker = slot.settled();
            }
            Answers::One(Some(_)) | Answers::Reply(Some(_)) | Answers::Gone => {}
        }
        waker
    }

    /// Whether nothing is left to be answered.
    pub(crate) fn is_over(&self) -> bool {
        lock(&self.slot).pending == 0
    }

    /// The slot, once nothing is left to be answered.
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
        (slot.answers, slot.pending, slot.waker) = (Answers::Gone, 0, None);
    }
}

impl Slot {
    fn settle(&mut self, index: usize, lookup: Lookup) -> Option<Waker> {
        let place = match &mut self.answers {
            Answers::One(place) if index == 0 => Some(place),
            Answers::Many(lookups) => lookups.get_mut(index),
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
}

/// A caller's end of a call: waits for the answer, and takes the call back when dropped.
///
/// Dropping it is always safe. A call that was not written yet leaves the queue and is never sent; the answer to one
/// that was is read in its turn and dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    call: Arc<Call>,
    queue: Arc<Queue>,
    answered: bool,
}

impl Ticket {
    pub(super) fn new(call: Arc<Call>, queue: Arc<Queue>) -> Self {
        Self { call, queue, answered: false }
    }
}

impl Ticket {
    /// Waits for what is known of the one key of a get.
    pub(crate) async fn lookup(mut self) -> Lookup {
        self.take(|answers| match answers {
            Answers::One(lookup) => lookup,
            _ => None,
        })
        .await
    }

    /// Waits for the reply to a request other than a get.
    pub(crate) async fn reply(mut self) -> Result<Reply, Error> {
        self.take(|answers| match answers {
            Answers::Reply(reply) => reply,
            _ => None,
        })
        .await
    }

    fn take<T>(
        &mut self,
        pick: impl Fn(Answers) -> Option<Result<T, Error>>,
    ) -> impl Future<Output = Result<T, Error>> {
        poll_fn(move |cx| {
            // What comes later, such as the reply to one whose deadline has passed, must find the call over.
            let answers = std::mem::replace(&mut ready!(self.call.poll_settled(cx)).answers, Answers::Gone);
            self.answered = true;
            Poll::Ready(pick(answers).unwrap_or_else(|| Err(misfit())))
        })
    }
}

/// An answer of another shape than its request: the pipeline makes none.
pub(crate) fn misfit() -> Error {
    Error::new(ErrorKind::Protocol, Delivery::Answered).saying("an answer of the wrong shape")
}

impl Future for Ticket {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let answers = std::mem::replace(&mut ready!(self.call.poll_settled(cx)).answers, Answers::Gone);
        self.answered = true;
        match answers {
            Answers::One(Some(lookup)) => Poll::Ready(Answer::One(lookup)),
            Answers::Many(lookups) => Poll::Ready(Answer::Many(lookups.into_iter().flatten().collect())),
            Answers::Run(replies) => Poll::Ready(Answer::Run(replies.into_iter().flatten().collect())),
            Answers::Reply(Some(reply)) => Poll::Ready(Answer::Reply(reply)),
            // Polled again after it was ready, which a future may answer as it likes, but not with a panic.
            Answers::One(None) | Answers::Reply(None) | Answers::Gone => Poll::Pending,
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.answered {
            self.queue.take_back(&self.call);
            self.call.abandon();
        }
    }
}
