//! Calls as their callers see them. No other test names the types of calls and responses.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::time::{Instant, timeout};

use super::super::call::GetResult;
use super::super::{Answer, Call, Queue, ResponseFuture};
use crate::error::Error;
use crate::protocol::{MetaReply, Reply, Request};

/// Longer than any call takes.
const HANG: Duration = Duration::from_secs(10);

/// A call that is queued or in flight. Dropping it cancels the call.
#[derive(Debug)]
pub(super) struct TestCall(ResponseFuture);

/// The response to a call, in the shape of its request.
#[derive(Debug)]
pub(super) enum AnyResponse {
    Get(GetResult),
    GetMany(Vec<GetResult>),
    MetaRun(Vec<Result<MetaReply, Error>>),
    Reply(Result<Reply, Error>),
}

/// A call that is in no queue.
pub(super) fn new_call(request: Request, deadline: Instant) -> Arc<Call> {
    Arc::new(Call::new(request, deadline))
}

impl TestCall {
    pub(super) async fn queue(queue: &Arc<Queue>, request: Request, deadline: Instant) -> Result<Self, Error> {
        queue.enter(&new_call(request, deadline)).await.map(Self)
    }

    /// The response to a get of one key.
    pub(super) async fn result(self) -> GetResult {
        timeout(HANG, self.0.lookup()).await.expect("no response")
    }

    /// The value in the response to a get of one key.
    pub(super) async fn value(self) -> Result<Option<Bytes>, Error> {
        self.result().await.map(|item| item.map(|item| item.value))
    }

    /// The response to a get of many keys.
    pub(super) async fn results(self) -> Vec<GetResult> {
        match timeout(HANG, self.any()).await.expect("no response") {
            AnyResponse::GetMany(results) => results,
            other => panic!("not the response to a get of many keys: {other:?}"),
        }
    }

    /// The response to a run of meta gets.
    pub(super) async fn meta_run(self) -> Vec<Result<MetaReply, Error>> {
        match timeout(HANG, self.any()).await.expect("no response") {
            AnyResponse::MetaRun(replies) => replies,
            other => panic!("not the response to a meta run: {other:?}"),
        }
    }

    /// The response to any other request.
    pub(super) async fn reply(self) -> Result<Reply, Error> {
        timeout(HANG, self.0.reply()).await.expect("no response")
    }

    /// As [`reply`](Self::reply), if the call is complete. Otherwise cancels it.
    pub(super) fn reply_now(self) -> Option<Result<Reply, Error>> {
        self.0.reply().now_or_never()
    }

    /// The response to any request, without a time limit.
    pub(super) async fn any(self) -> AnyResponse {
        match self.0.await {
            Answer::One(result) => AnyResponse::Get(result),
            Answer::Many(results) => AnyResponse::GetMany(results),
            Answer::Run(replies) => AnyResponse::MetaRun(replies),
            Answer::Reply(reply) => AnyResponse::Reply(reply),
        }
    }
}
