//! Calls as their callers see them. No other test names the types of calls and responses.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::time::{Instant, timeout};

use super::super::call::Call;
use super::super::new_call::NewCall;
use super::super::response::ResponseSlot;
use super::super::{GetResult, PushError, Queue, RejectedCall, Response, ResponseFuture};
use crate::error::Error;
use crate::item::Item;
use crate::protocol::{MetaReply, Reply, Request};

/// Longer than any call takes.
const HANG: Duration = Duration::from_secs(10);

/// A call that is queued or in flight. Dropping it cancels the call.
#[derive(Debug)]
pub(super) struct TestCall(ResponseFuture<AnyResponse>);

/// The response to a call, in the shape of its request.
#[derive(Debug)]
pub(super) enum AnyResponse {
    Get(GetResult),
    GetMany(Vec<GetResult>),
    MetaRun(Vec<Result<MetaReply, Error>>),
    Reply(Result<Reply, Error>),
}

impl Response for AnyResponse {
    fn take(slot: &mut ResponseSlot) -> Option<Result<Self, Error>> {
        Some(Ok(match slot {
            ResponseSlot::Item(_) => Self::Get(<Option<Item> as Response>::take(slot)?),
            ResponseSlot::Items(_) => Self::GetMany(<Vec<GetResult> as Response>::take(slot)?.ok()?),
            ResponseSlot::MetaRun(_) => Self::MetaRun(<Vec<Result<MetaReply, Error>> as Response>::take(slot)?.ok()?),
            ResponseSlot::Reply(_) => Self::Reply(<Reply as Response>::take(slot)?),
            ResponseSlot::Taken => return None,
        }))
    }
}

/// A call that is in no queue.
pub(super) fn new_call(request: Request, deadline: Instant) -> Arc<Call> {
    Arc::new(Call::new(request, deadline))
}

impl TestCall {
    /// Queues a call as soon as there is space.
    pub(super) async fn queue(queue: &Arc<Queue>, request: Request, deadline: Instant) -> Result<Self, Error> {
        let queued = match ResponseFuture::queue(NewCall::of(new_call(request, deadline)), queue) {
            Err(RejectedCall { call, reason: PushError::Full }) => ResponseFuture::queue_when_space(call, queue).await,
            queued => queued,
        };
        queued.map(Self).map_err(|rejected| match rejected.reason {
            PushError::Failed(error) => error,
            PushError::Closed => queue.closed_error(),
            PushError::Full => panic!("the queue is full before the deadline"),
        })
    }

    /// The response to a get of one key.
    pub(super) async fn result(self) -> GetResult {
        match self.within_time().await {
            AnyResponse::Get(result) => result,
            other => panic!("not the response to a get: {other:?}"),
        }
    }

    /// The value in the response to a get of one key.
    pub(super) async fn value(self) -> Result<Option<Bytes>, Error> {
        self.result().await.map(|item| item.map(|item| item.value))
    }

    /// The response to a get of many keys.
    pub(super) async fn results(self) -> Vec<GetResult> {
        match self.within_time().await {
            AnyResponse::GetMany(results) => results,
            other => panic!("not the response to a get of many keys: {other:?}"),
        }
    }

    /// The response to a run of meta gets.
    pub(super) async fn meta_run(self) -> Vec<Result<MetaReply, Error>> {
        match self.within_time().await {
            AnyResponse::MetaRun(replies) => replies,
            other => panic!("not the response to a meta run: {other:?}"),
        }
    }

    /// The response to any other request.
    pub(super) async fn reply(self) -> Result<Reply, Error> {
        match self.within_time().await {
            AnyResponse::Reply(reply) => reply,
            other => panic!("not the response to a request with one reply: {other:?}"),
        }
    }

    /// As [`reply`](Self::reply), if the call is complete. Otherwise cancels it.
    pub(super) fn reply_now(self) -> Option<Result<Reply, Error>> {
        self.reply().now_or_never()
    }

    /// The response to any request, without a time limit.
    pub(super) async fn any(self) -> AnyResponse {
        self.0.await.expect("every shape fits")
    }

    async fn within_time(self) -> AnyResponse {
        timeout(HANG, self.any()).await.expect("no response")
    }
}
