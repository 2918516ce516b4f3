//! The way from a command to the node that owns its key, and the only one.
//!
//! A command makes a [`NewCall`] and hands it to [`Dispatcher::send`]. The dispatcher asks the topology snapshot for
//! the owner, pushes the call to the owner's queue and waits for the response. If the queue is full, it waits for space
//! until the call's deadline. If the owner left the topology meanwhile, it routes the call again: nothing of it was
//! sent. Which node gets a call, and what happens when a node does not take it, is decided here and nowhere else.

mod fan_out;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::runtime;
use tokio::task::coop::consume_budget;
use tokio::time::Instant;

pub(crate) use self::fan_out::{FanOut, Limits, Line, Part};

use crate::connection::{NewCall, PushError, RejectedCall, Response, ResponseFuture, TimedResponse};
use crate::error::{Error, ErrorKind};
use crate::node::Node;
use crate::node_id::NodeId;
use crate::protocol::{Keys, Reply, Request};
use crate::timer::current_runtime;
use crate::topology::Snapshot;

/// Sends calls to nodes, by the latest topology snapshot.
#[derive(Debug, Clone)]
pub(crate) struct Dispatcher {
    snapshot: Arc<ArcSwap<Snapshot>>,
    /// The client's: its tasks keep the deadlines of callers on it.
    runtime: Option<runtime::Id>,
}

/// A call that no queue has taken.
enum Undelivered<R> {
    /// There is no node to send it to.
    NoOwner(Error),
    /// Its node did not take it.
    Rejected(Arc<Node>, RejectedCall<R>),
}

impl Dispatcher {
    /// Creates the dispatcher of a client whose tasks run on the current runtime.
    pub(crate) fn new(snapshot: Arc<ArcSwap<Snapshot>>) -> Self {
        Self { snapshot, runtime: current_runtime() }
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Replaces the snapshot by one that has no nodes and never gets any. Returns the one before.
    pub(crate) fn close(&self) -> Arc<Snapshot> {
        self.snapshot.swap(Arc::new(Snapshot::closed()))
    }

    /// Keeps the nodes and takes all keys from them.
    #[cfg(test)]
    pub(crate) fn remove_owners(&self) {
        self.snapshot.store(Arc::new(self.snapshot().without_owners()));
    }

    /// Sends a call to the node that owns its key, and waits for the response.
    #[inline]
    pub(crate) fn send<R: Response>(&self, call: NewCall<R>) -> Dispatch<'_, R> {
        Dispatch { dispatcher: self, state: State::New(Some(call)) }
    }

    /// Queues a call at one node. A call with one key is routed again if the node has left the topology. A call with
    /// several keys fails then, because they may have several owners now.
    ///
    /// Cancel safe: nothing is queued unless the response's future is returned.
    pub(crate) async fn queue_at<R: Response>(
        &self,
        node: &Arc<Node>,
        call: NewCall<R>,
    ) -> Result<TimedResponse<R>, Error> {
        match node.push(call) {
            Ok(response) => Ok(response.timed()),
            Err(rejected) => self.deliver(Undelivered::Rejected(Arc::clone(node), rejected)).await,
        }
    }

    /// Sends the same request to every node, and waits for all responses. Empty if there are no nodes.
    pub(crate) async fn broadcast(
        &self,
        request: impl Fn() -> Request,
        deadline: Instant,
    ) -> Vec<(NodeId, Result<Reply, Error>)> {
        let snapshot = self.snapshot();
        let responses = snapshot.nodes().iter().map(|node| {
            let call = NewCall::command(request(), deadline);
            async move {
                let reply = match self.queue_at(node, call).await {
                    Ok(response) => response.await,
                    Err(error) => Err(error),
                };
                (node.id().clone(), reply)
            }
        });
        join_all(responses).await
    }

    /// Returns the node with this identity.
    pub(crate) fn node(&self, id: &NodeId) -> Result<Arc<Node>, Error> {
        let snapshot = self.snapshot.load();
        match snapshot.nodes().iter().find(|node| node.id() == id) {
            Some(node) => Ok(Arc::clone(node)),
            // Nodes come and go, so this is no mistake in the configuration.
            None if snapshot.view().is_known() => {
                Err(Error::not_sent(ErrorKind::NoNodes).with_node(id).with_message("the client has no such node"))
            }
            None => Err(snapshot.no_nodes()),
        }
    }

    /// Pushes a call to the queue of the node that owns its key.
    #[inline]
    fn push<R: Response>(&self, call: NewCall<R>) -> Result<ResponseFuture<R>, Undelivered<R>> {
        let snapshot = self.snapshot.load();
        match snapshot.route(call.request().routed_by().unwrap_or_default()) {
            Ok(node) => node.push(call).map_err(|rejected| Undelivered::Rejected(Arc::clone(node), rejected)),
            Err(error) => Err(Undelivered::NoOwner(error)),
        }
    }

    /// Takes over when a push failed: waits, routes again, or returns the error.
    async fn deliver<R: Response>(&self, undelivered: Undelivered<R>) -> Result<TimedResponse<R>, Error> {
        let delivered = self.retry_push(undelivered).await;
        if delivered.is_err() {
            // A caller that retries at once in a loop must not block its thread.
            consume_budget().await;
        }
        delivered.map(ResponseFuture::timed)
    }

    async fn retry_push<R: Response>(&self, mut undelivered: Undelivered<R>) -> Result<ResponseFuture<R>, Error> {
        loop {
            let (node, RejectedCall { call, reason }) = match undelivered {
                Undelivered::NoOwner(error) => return Err(error),
                Undelivered::Rejected(node, rejected) => (node, rejected),
            };
            let pushed = match reason {
                PushError::Full => {
                    node.push_when_space(call).await.map_err(|rejected| Undelivered::Rejected(node, rejected))
                }
                PushError::Closed if has_one_key(call.request()) && !self.is_current(&node) => self.push(call),
                PushError::Closed => return Err(node.closed_error()),
                PushError::Failed(error) => return Err(error),
            };
            match pushed {
                Ok(response) => return Ok(response),
                Err(again) => undelivered = again,
            }
        }
    }

    /// Returns whether the latest snapshot has this node.
    fn is_current(&self, node: &Arc<Node>) -> bool {
        self.snapshot.load().nodes().iter().any(|known| Arc::ptr_eq(known, node))
    }
}

/// Returns whether the request belongs to the owner of one key.
fn has_one_key(request: &Request) -> bool {
    let has_many = matches!(request, Request::Get { keys: Keys::Many(_), .. } | Request::MetaRun(_));
    !has_many && request.routed_by().is_some()
}

/// Sends a call when first polled, and waits for the response.
///
/// Hand-written because every command with one key takes this path: an `async fn` has a larger future and copies more.
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Dispatch<'a, R> {
    dispatcher: &'a Dispatcher,
    state: State<'a, R>,
}

enum State<'a, R> {
    /// Not sent. The call is taken out to be sent.
    New(Option<NewCall<R>>),
    /// Queued or written.
    Pending(ResponseFuture<R>),
    /// Not queued at once. Boxed, so that the rare case does not enlarge every command's future.
    Slow(Pin<Box<dyn Future<Output = Result<R, Error>> + Send + Sync + 'a>>),
}

impl<'a, R: Response + 'a> Future for Dispatch<'a, R> {
    type Output = Result<R, Error>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let dispatcher = self.dispatcher;
        loop {
            self.state = match &mut self.state {
                State::New(call) => {
                    let Some(mut call) = call.take() else { return Poll::Pending };
                    let can_wait = call.set_caller(cx.waker(), dispatcher.runtime);
                    match dispatcher.push(call) {
                        Ok(response) if can_wait => {
                            self.state = State::Pending(response);
                            return Poll::Pending;
                        }
                        Ok(response) => State::Slow(Box::pin(response.timed())),
                        Err(undelivered) => {
                            State::Slow(Box::pin(async move { dispatcher.deliver(undelivered).await?.await }))
                        }
                    }
                }
                State::Pending(response) => return Pin::new(response).poll(cx),
                State::Slow(response) => return response.as_mut().poll(cx),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::watch;
    use tokio::task::JoinSet;

    use super::*;
    use crate::config::Settings;
    use crate::connection::GetForm;
    use crate::discovery::{DiscoveryOptions, StaticNodes, start_refresh};
    use crate::error::Delivery;
    use crate::key::{Key, MetaKey};
    use crate::meta::{Get, Options};
    use crate::protocol::MetaVerb;
    use crate::topology::{PlacementRule, Worker};

    /// A dispatcher with one node, where no server listens, and the tasks that keep the topology.
    async fn dispatcher_with_a_node() -> (Dispatcher, Arc<Node>, JoinSet<()>) {
        let id: NodeId = "127.0.0.1:1".parse().unwrap();
        let source = Arc::new(StaticNodes::new([id.clone()]));
        let (discovery, refresh) = start_refresh(source, DiscoveryOptions::default());
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::empty()));
        let (published, mut watched) = watch::channel(snapshot.load().view());
        let worker = Worker {
            snapshot: Arc::clone(&snapshot),
            published,
            roster: discovery.roster,
            locator: discovery.locator,
            rule: PlacementRule::default(),
            settings: Settings::default(),
            outage: Arc::default(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(refresh);
        tasks.spawn(worker.run());
        watched.wait_for(|view| view.is_known()).await.unwrap();
        let dispatcher = Dispatcher::new(snapshot);
        let node = dispatcher.node(&id).unwrap();
        (dispatcher, node, tasks)
    }

    fn deadline() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    fn delete() -> NewCall<Reply> {
        NewCall::command(Request::Delete { key: Key::new("k").unwrap() }, deadline())
    }

    fn assert_not_sent<T>(outcome: Result<T, Error>, kind: ErrorKind) {
        let error = outcome.map(drop).unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (kind, Delivery::NotSent), "{error}");
    }

    /// This does not happen, because the snapshot changes before the nodes that left close. If it did, the dispatcher
    /// must not route the call again without an end.
    #[tokio::test]
    async fn a_call_to_a_closed_node_that_has_not_left_fails() {
        let (dispatcher, node, _tasks) = dispatcher_with_a_node().await;
        node.retire(Duration::ZERO).await;
        assert_not_sent(dispatcher.send(delete()).await, ErrorKind::Unavailable);
    }

    #[tokio::test]
    async fn a_call_to_a_node_that_left_is_routed_again_if_it_has_one_key() {
        let (dispatcher, node, _tasks) = dispatcher_with_a_node().await;
        dispatcher.close();
        node.retire(Duration::ZERO).await;
        // The error of a snapshot without nodes: the call was routed by it.
        assert_not_sent(dispatcher.queue_at(&node, delete()).await, ErrorKind::Closed);
        let key = Key::new("k").unwrap();
        let get = NewCall::get(GetForm::default(), deadline(), |place| {
            *place = key.clone();
            Ok::<_, Error>(())
        });
        assert_not_sent(dispatcher.queue_at(&node, get.unwrap()).await, ErrorKind::Closed);

        let get_many = NewCall::get_many(vec![key.clone(), key.clone()], GetForm::default(), deadline());
        assert_not_sent(dispatcher.queue_at(&node, get_many).await, ErrorKind::Unavailable);
        let request = Options::from(Get::new()).into_request(MetaVerb::Get, MetaKey::Text(key), bytes::Bytes::new());
        let run = NewCall::meta_run(vec![request.unwrap()], deadline());
        assert_not_sent(dispatcher.queue_at(&node, run).await, ErrorKind::Unavailable);
        let version = NewCall::command(Request::Version, deadline());
        assert_not_sent(dispatcher.queue_at(&node, version).await, ErrorKind::Unavailable);
    }
}
