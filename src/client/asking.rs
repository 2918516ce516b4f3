//! Giving a call to the node that owns its key, and waiting for the reply.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::Client;
use crate::connection::{Call, ResponseFuture};
use crate::error::Error;
use crate::protocol::Reply;

/// Waits for the reply to a request other than a get. By hand, as [`Find`](super::lookup::Find) is.
pub(super) struct Asking<'a> {
    client: &'a Client,
    step: Step<'a>,
}

enum Step<'a> {
    /// Taken out to be asked.
    Unasked(Option<Arc<Call>>),
    Asked(ResponseFuture),
    /// It cannot be queued at once. Boxed, so that what is rare does not make every command's future larger.
    Patient(Pin<Box<dyn Future<Output = Result<Reply, Error>> + Send + Sync + 'a>>),
}

impl<'a> Asking<'a> {
    pub(super) fn new(client: &'a Client, call: Arc<Call>) -> Self {
        Self { client, step: Step::Unasked(Some(call)) }
    }
}

impl Future for Asking<'_> {
    type Output = Result<Reply, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let client = self.client;
        loop {
            self.step = match &mut self.step {
                Step::Unasked(call) => {
                    let Some(mut call) = call.take() else { return Poll::Pending };
                    Call::note_waker(&mut call, cx.waker());
                    match client.enter_at_once(call) {
                        Ok(ticket) => Step::Asked(ticket.begun()),
                        Err(call) => {
                            Step::Patient(Box::pin(async move { client.enter_patiently(&call).await?.reply().await }))
                        }
                    }
                }
                Step::Asked(ticket) => return ticket.poll_reply(cx),
                Step::Patient(rest) => return rest.as_mut().poll(cx),
            }
        }
    }
}
