//! One caller's request, shared by the caller and by the queue or pipeline it is in.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tokio::runtime;
use tokio::time::Instant;

use super::caller::Caller;
use super::lock;
use super::response::{GetResult, Slot};
use crate::error::Error;
use crate::key::Key;
use crate::protocol::{Keys, MetaReply, Reply, Request};

/// A request, its deadline, and the slot for its response.
#[derive(Debug)]
pub(crate) struct Call {
    request: Request,
    /// The request's weight in a queue, kept because the queue needs it several times.
    weight: u32,
    /// Where the call is in its queue. Read and written under the queue's lock.
    position: AtomicU32,
    deadline: Instant,
    caller: Caller,
    slot: Mutex<Slot>,
}

/// Whether a get brings CAS uniques, and the expiry time it gives the item, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct GetForm {
    pub(crate) cas: bool,
    pub(crate) touch: Option<u32>,
}

impl GetForm {
    pub(crate) fn with_cas(cas: bool) -> Self {
        Self { cas, touch: None }
    }
}

impl Call {
    #[inline]
    pub(super) fn new(request: Request, deadline: Instant) -> Self {
        Self {
            weight: weight_of(&request),
            position: AtomicU32::new(0),
            slot: Mutex::new(Slot::for_request(&request)),
            request,
            deadline,
            caller: Caller::default(),
        }
    }

    /// Makes the call another request's.
    #[inline]
    pub(super) fn replace(&mut self, request: Request, deadline: Instant) {
        let caller = self.caller;
        *self = Self::new(request, deadline);
        self.caller = caller;
    }

    /// Makes the call, whose last response was taken, a get of the key that `write_key` writes into its place.
    ///
    /// The call is filled in where it is: to make one elsewhere and move it costs more than all the rest.
    /// `call_pool.rs` states what holds for a call that is reused.
    #[inline]
    pub(super) fn refill<E>(
        &mut self,
        form: GetForm,
        deadline: Instant,
        write_key: impl Fn(&mut Key) -> Result<(), E>,
    ) -> Result<(), E> {
        let can_reuse = self.slot_mut().is_empty_item();
        if let Request::Get { keys: Keys::One(key), cas, touch } = &mut self.request
            && can_reuse
        {
            write_key(key)?;
            (*cas, *touch) = (form.cas, form.touch);
            self.weight = weight_of(&self.request);
            self.deadline = deadline;
            self.slot_mut().reset();
        } else {
            let mut key = Key::placeholder();
            write_key(&mut key)?;
            self.replace(Request::Get { keys: Keys::One(key), cas: form.cas, touch: form.touch }, deadline);
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn request(&self) -> &Request {
        &self.request
    }

    #[inline]
    pub(super) fn weight(&self) -> usize {
        self.weight as usize
    }

    #[inline]
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    #[inline]
    pub(super) fn position(&self) -> u32 {
        self.position.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn set_position(&self, position: u32) {
        self.position.store(position, Ordering::Relaxed);
    }

    /// Puts in the result for one key of a get. Returns the caller's waker if the response is complete now; as for all
    /// of these methods, it is to be woken outside every lock.
    #[inline]
    pub(super) fn settle(&self, index: usize, result: GetResult) -> Option<Waker> {
        self.slot().put_item(index, result)
    }

    /// Puts in a miss for the keys `from..to` of a get.
    pub(super) fn settle_misses(&self, from: usize, to: usize) -> Option<Waker> {
        let mut slot = self.slot();
        (from..to).fold(None, |waker, index| slot.put_item(index, Ok(None)).or(waker))
    }

    /// Puts in the reply to one command of a run.
    pub(super) fn settle_in_run(&self, index: usize, reply: Result<MetaReply, Error>) -> Option<Waker> {
        self.slot().put_in_run(index, reply)
    }

    /// Puts in the reply to a request other than a get.
    pub(super) fn reply(&self, reply: Result<Reply, Error>) -> Option<Waker> {
        self.slot().put_reply(reply)
    }

    /// Fails every part of the response that is missing.
    pub(super) fn fail(&self, error: &Error) -> Option<Waker> {
        self.slot().fail(error)
    }

    /// Takes the reply to a call that no future waits for.
    pub(super) fn take_reply(&self) -> Option<Result<Reply, Error>> {
        self.slot().take_reply()
    }

    /// Whether the response is complete, or its caller dropped the future.
    pub(super) fn is_over(&self) -> bool {
        self.slot().is_complete()
    }

    /// Discards the response, now and when it comes: the caller dropped the future.
    pub(super) fn abandon(&self) {
        self.slot().abandon();
    }

    #[inline]
    pub(super) fn slot(&self) -> MutexGuard<'_, Slot> {
        lock(&self.slot)
    }

    #[inline]
    pub(super) fn slot_mut(&mut self) -> &mut Slot {
        self.slot.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets who waits for the response: this waker, and the current task. Returns the runtime of the task.
    #[inline]
    pub(super) fn set_caller(&mut self, waker: &Waker) -> Option<runtime::Id> {
        self.slot_mut().set_waker(waker);
        self.caller.note()
    }

    #[inline]
    pub(super) fn request_mut(&mut self) -> &mut Request {
        &mut self.request
    }
}

#[inline]
fn weight_of(request: &Request) -> u32 {
    u32::try_from(request.weight()).unwrap_or(u32::MAX)
}
