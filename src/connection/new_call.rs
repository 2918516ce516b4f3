//! A call before it is queued, typed by the shape of its response.

use std::marker::PhantomData;
use std::sync::Arc;
use std::task::Waker;

use tokio::runtime;
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
            call.replace(request, deadline);
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
        Self { call, response: PhantomData }
    }

    pub(super) fn fresh(request: Request, deadline: Instant) -> Self {
        Self::of(Arc::new(Call::new(request, deadline)))
    }

    #[inline]
    pub(crate) fn request(&self) -> &Request {
        self.call.request()
    }

    /// Sets the waker of the call before it is queued, without a lock. Returns whether it is set and the current task
    /// is on this runtime: the caller can then wait at once, without a first poll of the
    /// [`ResponseFuture`](super::ResponseFuture), and without a timer.
    #[inline]
    pub(crate) fn set_caller(&mut self, waker: &Waker, runtime: Option<runtime::Id>) -> bool {
        Arc::get_mut(&mut self.call).is_some_and(|call| call.set_caller(waker) == runtime)
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
