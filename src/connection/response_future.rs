//! The caller's end of a call that was queued.

use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::call::{Call, NewCall};
use super::response::Response;
use super::{Queue, call_pool};
use crate::error::Error;

/// Waits for the response to a call, and cancels the call when dropped.
///
/// Dropping it is always safe. A call that was not written yet leaves the queue and is never sent. The response to one
/// that was written is read in its turn and dropped.
#[derive(Debug)]
pub(crate) struct ResponseFuture<R> {
    /// Until the response is taken.
    open: Option<Open>,
    /// The call's waker was set before the call was queued, in the turn that also polls this future for the first time.
    skips_first_poll: bool,
    response: PhantomData<fn() -> R>,
}

#[derive(Debug)]
struct Open {
    call: Arc<Call>,
    queue: Arc<Queue>,
}

impl<R: Response> ResponseFuture<R> {
    #[inline]
    pub(super) fn new(call: NewCall<R>, queue: Arc<Queue>) -> Self {
        let skips_first_poll = call.has_waker();
        Self { open: Some(Open { call: call.into_call(), queue }), skips_first_poll, response: PhantomData }
    }
}

impl<R: Response> Future for ResponseFuture<R> {
    type Output = Result<R, Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::take(&mut self.skips_first_poll) {
            return Poll::Pending;
        }
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
