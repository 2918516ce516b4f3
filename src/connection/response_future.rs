//! The caller's end of a call that was queued.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::Sleep;

use super::call::Call;
use super::call_pool;
use super::new_call::NewCall;
use super::queue::{PushError, Queue};
use super::response::Response;
use crate::error::Error;
use crate::timer::{current_runtime, detached_sleep_until};

/// Waits for the response to a call, and cancels the call when dropped.
///
/// Dropping it is always safe. A call that was not written yet leaves the queue and is never sent. The response to one
/// that was written is read in its turn and dropped.
#[derive(Debug)]
pub(crate) struct ResponseFuture<R> {
    /// Until the response is taken.
    open: Option<Open>,
    response: PhantomData<fn() -> R>,
}

#[derive(Debug)]
struct Open {
    call: Arc<Call>,
    queue: Arc<Queue>,
}

/// A call that a queue did not take, and why.
#[derive(Debug)]
pub(crate) struct RejectedCall<R> {
    pub(crate) call: NewCall<R>,
    pub(crate) reason: PushError,
}

impl<R: Response> ResponseFuture<R> {
    /// Queues a call if there is space. A call that is not taken comes back with the reason.
    #[inline]
    pub(crate) fn queue(call: NewCall<R>, queue: &Arc<Queue>) -> Result<Self, RejectedCall<R>> {
        match queue.push(call.call()) {
            Ok(()) => Ok(Self::of(call, queue)),
            Err(reason) => Err(RejectedCall { call, reason }),
        }
    }

    /// Queues a call as soon as there is space, at its deadline at the latest. The reason of a rejection is never
    /// [`PushError::Full`].
    ///
    /// Cancel safe: the call is queued only if this returns a future for its response.
    pub(crate) async fn queue_when_space(call: NewCall<R>, queue: &Arc<Queue>) -> Result<Self, RejectedCall<R>> {
        match queue.push_when_space(call.call()).await {
            Ok(()) => Ok(Self::of(call, queue)),
            Err(reason) => Err(RejectedCall { call, reason }),
        }
    }

    /// Queues a probe of a node that accepts no calls of callers.
    ///
    /// # Errors
    /// The error of a closed queue.
    pub(crate) fn queue_probe(call: NewCall<R>, queue: &Arc<Queue>) -> Result<Self, Error> {
        queue.push_probe(call.call())?;
        Ok(Self::of(call, queue))
    }

    #[inline]
    fn of(call: NewCall<R>, queue: &Arc<Queue>) -> Self {
        let open = Open { call: call.into_call(), queue: Arc::clone(queue) };
        Self { open: Some(open), response: PhantomData }
    }

    /// Adds a timer if the current runtime is not the client's.
    pub(crate) fn timed(self) -> TimedResponse<R> {
        let outside = self.open.as_ref().filter(|open| current_runtime() != open.queue.runtime());
        let timer = outside.and_then(|open| detached_sleep_until(open.call.deadline())).map(Box::pin);
        TimedResponse { response: self, timer }
    }
}

/// As [`ResponseFuture`], for callers on any runtime: the client's may not run, and then its tasks keep no deadline.
#[derive(Debug)]
pub(crate) struct TimedResponse<R> {
    response: ResponseFuture<R>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<R: Response> Future for TimedResponse<R> {
    type Output = Result<R, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let response = Pin::new(&mut this.response).poll(cx);
        let Some(timer) = &mut this.timer else { return response };
        if response.is_pending() && timer.as_mut().poll(cx).is_ready() {
            if let Some(Open { call, queue }) = &this.response.open {
                queue.expire(call);
            }
            return Pin::new(&mut this.response).poll(cx);
        }
        response
    }
}

impl<R: Response> Future for ResponseFuture<R> {
    type Output = Result<R, Error>;

    // A call from here into the caller's future would copy the response.
    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // A future that is polled again after it was ready may do anything but panic.
        let Some(Open { call, .. }) = &mut self.open else { return Poll::Pending };
        let Poll::Ready(response) = poll_call(call, cx) else { return Poll::Pending };
        if let Some(Open { call, .. }) = self.open.take() {
            call_pool::keep(call);
        }
        Poll::Ready(response)
    }
}

/// Takes the response of a call once it is complete. Most often the connection has released the call by then, and no
/// lock is needed.
#[inline]
pub(super) fn poll_call<R: Response>(call: &mut Arc<Call>, cx: &Context<'_>) -> Poll<Result<R, Error>> {
    if let Some(call) = Arc::get_mut(call) {
        let slot = call.slot_mut();
        if slot.is_complete() {
            return Poll::Ready(slot.take());
        }
    }
    let mut slot = call.slot();
    if slot.is_complete() {
        return Poll::Ready(slot.take());
    }
    slot.set_waker(cx.waker());
    Poll::Pending
}

impl<R> Drop for ResponseFuture<R> {
    fn drop(&mut self) {
        if let Some(Open { call, queue }) = self.open.take() {
            queue.cancel(&call);
            call.abandon();
        }
    }
}
