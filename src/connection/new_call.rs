//! A call before it is queued, typed by the shape of its response.

use std::marker::PhantomData;
use std::sync::Arc;
use std::task::Waker;

use tokio::time::Instant;

use super::call::{Call, GetForm};
use super::call_pool;
use super::response::{GetResult, Response};
use crate::error::Error;
use crate::item::Item;
use crate::key::Key;
use crate::protocol::{Keys, MetaReply, MetaRequest, Reply, Request};

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
    /// A get of the key that `write_key` writes into its place, in a call from the thread's pool.
    #[inline]
    pub(crate) fn get<E>(
        form: GetForm,
        deadline: Instant,
        write_key: impl Fn(&mut Key) -> Result<(), E>,
    ) -> Result<Self, E> {
        loop {
            let mut pooled = call_pool::take(deadline);
            let Some(call) = Arc::get_mut(&mut pooled) else { continue };
            call.refill(form, deadline, &write_key)?;
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
