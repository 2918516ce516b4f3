//! Drivers against a scripted peer over an in-memory pipe, with paused time: what a healthy server never does.

mod batch_encoding;
mod batching;
mod churn;
mod deadline_model;
mod deadlines;
mod equal_keys;
mod fast_path;
mod get_and_touch;
mod interleaving;
mod large_values;
mod line_reader;
mod meta;
mod multi_batch_model;
mod peer;
mod queue_limits;
mod requests;
mod requeue;
mod several_batches;
mod silence;
mod suspect_keys;
mod syscalls;
mod test_call;
mod version_probe;
mod violations;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use self::peer::Peer;
use self::requests::{add, cas, gat, get, get_many, gets, incr, set};
use self::test_call::{AnyResponse, TestCall};
use super::{CloseReason, DeadlineSweeper, Driver, DriverConfig, End, NodeMemory, Queue};
use crate::config::QueueLimits;
use crate::error::{Delivery, Error, ErrorKind};
use crate::node_id::NodeId;
use crate::protocol::{Reply, Request};

const SILENCE_TIMEOUT: Duration = Duration::from_secs(1);
/// Of calls, unless a test sets another.
const DEADLINE: Duration = Duration::from_millis(250);
const MAX_VALUE: usize = 1 << 20;

/// The queue of a node, and the connections that a test opens.
struct Rig {
    queue: Arc<Queue>,
    memory: NodeMemory,
}

impl Rig {
    fn new() -> Self {
        Self::with_limits(4096, 8 << 20)
    }

    fn with_limits(calls: usize, bytes: usize) -> Self {
        // As in a node with two connections: the first one never connects, and the second is under test.
        Self { queue: swept_queue(QueueLimits { calls, bytes }, 2), memory: NodeMemory::default() }
    }

    /// Opens a connection, and returns its driver's task and its other end.
    fn connect(&self) -> (JoinHandle<End>, Peer) {
        self.connect_over(1 << 20)
    }

    /// As [`connect`](Self::connect), over a pipe that holds so many bytes.
    fn connect_over(&self, pipe_bytes: usize) -> (JoinHandle<End>, Peer) {
        let (ours, theirs) = tokio::io::duplex(pipe_bytes);
        (spawn(self.driver(ours)), Peer::new(theirs))
    }

    fn driver<S: AsyncRead + AsyncWrite + Unpin>(&self, socket: S) -> Driver<S> {
        Driver::new(socket, Arc::clone(&self.queue), self.memory.clone(), driver_config(1))
    }

    async fn call(&self, request: Request) -> TestCall {
        self.call_within(request, DEADLINE).await
    }

    async fn call_within(&self, request: Request, limit: Duration) -> TestCall {
        TestCall::queue(&self.queue, request, Instant::now() + limit).await.unwrap()
    }

    async fn calls(&self, requests: impl IntoIterator<Item = Request>) -> Vec<TestCall> {
        let mut calls = Vec::new();
        for request in requests {
            calls.push(self.call(request).await);
        }
        calls
    }

    async fn try_call(&self, request: Request) -> Result<TestCall, Error> {
        TestCall::queue(&self.queue, request, Instant::now() + DEADLINE).await
    }

    /// Asserts that a get of a missing key is served over this connection.
    async fn assert_serves(&self, peer: &mut Peer) {
        let call = self.call(get("missing")).await;
        peer.expect("get missing\r\n").await;
        peer.send("END\r\n").await;
        assert_eq!(call.value().await.unwrap(), None);
    }
}

/// A queue for so many connections, whose deadlines are kept.
fn swept_queue(limits: QueueLimits, connections: usize) -> Arc<Queue> {
    let queue = Arc::new(Queue::new(node(), limits, connections));
    tokio::spawn(DeadlineSweeper::new(Arc::clone(&queue)).run());
    queue
}

fn node() -> NodeId {
    "mc-0".parse().unwrap()
}

fn driver_config(task: usize) -> DriverConfig {
    DriverConfig {
        node: node(),
        task,
        max_value: MAX_VALUE,
        silence_timeout: SILENCE_TIMEOUT,
        suspicion_after: SILENCE_TIMEOUT,
    }
}

/// A driver with a memory of its own.
fn new_driver<S: AsyncRead + AsyncWrite + Unpin>(socket: S, queue: &Arc<Queue>, task: usize) -> Driver<S> {
    Driver::new(socket, Arc::clone(queue), NodeMemory::default(), driver_config(task))
}

fn spawn(mut driver: Driver<impl AsyncRead + AsyncWrite + Send + Unpin + 'static>) -> JoinHandle<End> {
    tokio::spawn(async move { driver.run().await })
}

/// Waits until a connection ends. Returns its error, if it was lost.
async fn lost(driver: JoinHandle<End>) -> Option<Error> {
    match driver.await.unwrap() {
        End::Lost(error) | End::Rejected(error) => Some(error),
        End::Closed | End::Drained => None,
    }
}

fn assert_failed<T: std::fmt::Debug>(result: Result<T, Error>, kind: ErrorKind, delivery: Delivery) -> Error {
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (kind, delivery), "{error:?}");
    error
}

/// Runs a future with paused time, as `#[tokio::test(start_paused = true)]` does.
fn run_paused(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(future);
}

async fn join_all(mut tasks: JoinSet<()>) {
    while let Some(outcome) = tasks.join_next().await {
        outcome.unwrap();
    }
}
