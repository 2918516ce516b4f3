//! Responses of any shape, for tests that queue requests of several kinds.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::super::call::Call;
use super::super::new_call::NewCall;
use super::super::response::ResponseSlot;
use super::super::{GetResult, PushError, Queue, Rejected, Response};
use crate::error::{Error, ErrorKind};
use crate::item::Item;
use crate::protocol::{MetaReply, Reply};

/// Waits for a response of any shape.
#[derive(Debug)]
pub(super) struct ResponseFuture(super::super::ResponseFuture<Answer>);

impl Future for ResponseFuture {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        Pin::new(&mut self.0).poll(cx).map(|response| response.expect("every shape fits"))
    }
}

#[derive(Debug)]
pub(super) enum Answer {
    One(GetResult),
    Many(Vec<GetResult>),
    Run(Vec<Result<MetaReply, Error>>),
    Reply(Result<Reply, Error>),
}

impl Response for Answer {
    fn take(slot: &mut ResponseSlot) -> Option<Result<Self, Error>> {
        Some(Ok(match slot {
            ResponseSlot::Item(_) => Self::One(<Option<Item> as Response>::take(slot)?),
            ResponseSlot::Items(_) => Self::Many(<Vec<GetResult> as Response>::take(slot)?.ok()?),
            ResponseSlot::MetaRun(_) => Self::Run(<Vec<Result<MetaReply, Error>> as Response>::take(slot)?.ok()?),
            ResponseSlot::Reply(_) => Self::Reply(Reply::take(slot)?),
            ResponseSlot::Taken => return None,
        }))
    }
}

impl ResponseFuture {
    /// Waits for the result of a get of one key.
    pub(super) async fn lookup(self) -> GetResult {
        match self.await {
            Answer::One(result) => result,
            other => panic!("not a get: {other:?}"),
        }
    }

    /// Waits for the reply to a request other than a get.
    pub(super) async fn reply(self) -> Result<Reply, Error> {
        match self.await {
            Answer::Reply(reply) => reply,
            other => panic!("a get: {other:?}"),
        }
    }
}

impl Queue {
    /// Queues a call that the test made, as soon as there is space.
    pub(super) async fn enter(self: &Arc<Self>, call: &Arc<Call>) -> Result<ResponseFuture, Error> {
        let queued = match super::super::ResponseFuture::queue(NewCall::of(Arc::clone(call)), self) {
            Err(Rejected { call, reason: PushError::Full }) => {
                super::super::ResponseFuture::queue_when_space(call, self).await
            }
            queued => queued,
        };
        queued.map(ResponseFuture).map_err(|Rejected { reason, .. }| match reason {
            PushError::Failed(error) => error,
            PushError::Closed => self.closed_error(),
            PushError::Full => Error::not_sent(ErrorKind::Overloaded).with_message("push_when_space never says so"),
        })
    }
}
