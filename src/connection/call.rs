//! One caller's request, shared by the caller and by the queue or pipeline it is in.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use tokio::time::Instant;

use super::response::{GetResult, Response, Slot};
use super::{call_pool, lock};
use crate::error::Error;
use crate::item::Item;
use crate::key::Key;
use crate::protocol::{Keys, MetaReply, MetaRequest, Reply, Request};

/// A request, its deadline, and the slot for its response.
#[derive(Debug)]
pub(crate) struct Call {
    request: Request,
    /// The request's weight in a queue, kept because the queue needs it several times.
    weight: u32,
    /// Where the call is in its queue. Read and written under the queue's lock.
    position: AtomicU32,
    deadline: Instant,
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
        }
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

    #[inline]
    pub(super) fn request_mut(&mut self) -> &mut Request {
        &mut self.request
    }
}

#[inline]
fn weight_of(request: &Request) -> u32 {
    u32::try_from(request.weight()).unwrap_or(u32::MAX)
}

/// A call that no queue has yet, and so nothing but its maker: its slot can be changed without a lock.
///
/// `R` is the shape of its response. Only the constructors choose it, each by the request it makes.
#[derive(Debug)]
pub(crate) struct NewCall<R> {
    call: Arc<Call>,
    has_waker: bool,
    response: PhantomData<fn() -> R>,
}

impl NewCall<Option<Item>> {
    /// A get of the one key that `write_key` writes into its place, in a call from the thread's pool.
    ///
    /// The call is filled in where it is: to make one elsewhere and move it costs more than all the rest.
    #[inline]
    pub(crate) fn get<E>(
        form: GetForm,
        deadline: Instant,
        write_key: impl Fn(&mut Key) -> Result<(), E>,
    ) -> Result<Self, E> {
        loop {
            let mut pooled = call_pool::take(deadline);
            let Some(call) = Arc::get_mut(&mut pooled) else { continue };
            let can_reuse = call.slot_mut().is_empty_item();
            if let Request::Get { keys: Keys::One(key), cas, touch } = &mut call.request
                && can_reuse
            {
                write_key(key)?;
                (*cas, *touch) = (form.cas, form.touch);
                call.weight = weight_of(&call.request);
                call.deadline = deadline;
                call.slot_mut().reset();
            } else {
                let mut key = Key::blank();
                write_key(&mut key)?;
                *call = Call::new(Request::Get { keys: Keys::One(key), cas: form.cas, touch: form.touch }, deadline);
            }
            return Ok(Self::of(pooled));
        }
    }
}

impl NewCall<Reply> {
    /// A request that one reply answers, in a call from the thread's pool.
    #[inline]
    pub(crate) fn command(request: Request, deadline: Instant) -> Self {
        debug_assert!(!matches!(request, Request::Get { .. } | Request::MetaRun(_)), "it has another response");
        loop {
            let mut pooled = call_pool::take(deadline);
            let Some(call) = Arc::get_mut(&mut pooled) else { continue };
            *call = Call::new(request, deadline);
            return Self::of(pooled);
        }
    }
}

impl NewCall<Vec<GetResult>> {
    /// A get of many keys, in one line at most.
    pub(crate) fn get_many(keys: Vec<Key>, form: GetForm, deadline: Instant) -> Self {
        Self::fresh(Request::Get { keys: Keys::Many(keys), cas: form.cas, touch: form.touch }, deadline)
    }
}

impl NewCall<Vec<Result<MetaReply, Error>>> {
    /// A run of meta gets.
    pub(crate) fn meta_run(run: Vec<MetaRequest>, deadline: Instant) -> Self {
        Self::fresh(Request::MetaRun(run), deadline)
    }
}

impl<R: Response> NewCall<R> {
    #[inline]
    pub(super) fn of(call: Arc<Call>) -> Self {
        Self { call, has_waker: false, response: PhantomData }
    }

    pub(super) fn fresh(request: Request, deadline: Instant) -> Self {
        Self::of(Arc::new(Call::new(request, deadline)))
    }

    #[inline]
    pub(crate) fn request(&self) -> &Request {
        self.call.request()
    }

    /// Sets whom to wake before the call is queued, so that the first poll of its
    /// [`ResponseFuture`](super::ResponseFuture), if it is in the same turn, has nothing to do.
    #[inline]
    pub(crate) fn set_waker(&mut self, waker: &Waker) {
        if let Some(call) = Arc::get_mut(&mut self.call) {
            call.slot_mut().set_waker(waker);
            self.has_waker = true;
        }
    }

    /// Has the first poll set the waker: the call is queued in a later turn than the one its waker was set in.
    pub(crate) fn forget_waker(&mut self) {
        self.has_waker = false;
    }

    #[inline]
    pub(super) fn has_waker(&self) -> bool {
        self.has_waker
    }

    #[inline]
    pub(super) fn call(&self) -> &Arc<Call> {
        &self.call
    }

    #[inline]
    pub(super) fn into_call(self) -> Arc<Call> {
        self.call
    }
}
