//! What the benchmarks of this package need and no public item reaches: encoding, the pipeline, and one connection over
//! any stream.
//!
//! No part of the public API: any version may change or remove it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::call::Call;
use super::pipeline::Pipeline;
use super::response_future::poll_call;
use super::{
    DeadlineSweeper, Driver, DriverConfig, GetForm, GetResult, NewCall, NodeMemory, PushError, Queue, Response,
    ResponseFuture, WakeList,
};
use crate::config::Settings;
use crate::error::Error;
use crate::item::Item;
use crate::key::{InvalidKey, Key};
use crate::node_id::NodeId;
use crate::protocol::{Keys, Reply, Request, StoreVerb, WriteBuffer, encode};

/// Longer than any run of a benchmark takes.
const DEADLINE: Duration = Duration::from_secs(10);

/// A command, ready to be encoded.
#[derive(Debug)]
pub struct Command(Request);

impl Command {
    /// A get of these keys in one line. More keys than a line may have are not refused.
    ///
    /// # Errors
    /// The first invalid key.
    pub fn get(keys: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Result<Self, InvalidKey> {
        let keys = keys.into_iter().map(Key::new).collect::<Result<_, _>>()?;
        Ok(Self(Request::Get { keys: Keys::Many(keys), cas: false, touch: None }))
    }

    /// A set.
    ///
    /// # Errors
    /// The key is invalid.
    pub fn set(key: impl AsRef<[u8]>, value: Bytes) -> Result<Self, InvalidKey> {
        Ok(Self(Request::Store { verb: StoreVerb::Set, key: Key::new(key)?, flags: 0, exptime: 300, value }))
    }

    fn call(&self, deadline: Instant) -> Arc<Call> {
        let request = match &self.0 {
            Request::Store { key, value, .. } => {
                let (key, value) = (key.clone(), value.clone());
                Request::Store { verb: StoreVerb::Set, key, flags: 0, exptime: 300, value }
            }
            Request::Get { keys, .. } => {
                Request::Get { keys: Keys::Many(keys.as_slice().to_vec()), cas: false, touch: None }
            }
            _ => Request::Version,
        };
        Arc::new(Call::new(request, deadline))
    }
}

/// A connection's pipeline without its socket.
#[derive(Debug)]
pub struct Exchange {
    pipeline: Pipeline,
    output: WriteBuffer,
    input: BytesMut,
    batch: VecDeque<Arc<Call>>,
    wakes: WakeList,
    deadline: Instant,
}

impl Exchange {
    /// Takes values up to `max_value` bytes.
    #[must_use]
    pub fn new(node: NodeId, max_value: usize) -> Self {
        Self {
            pipeline: Pipeline::new(node, max_value),
            output: WriteBuffer::default(),
            input: BytesMut::new(),
            batch: VecDeque::new(),
            wakes: WakeList::default(),
            deadline: Instant::now() + DEADLINE,
        }
    }

    /// Encodes a command, drops the bytes as if they were written, and returns how many there were.
    pub fn encode(&mut self, command: &Command) -> usize {
        encode(&command.0, 0, &mut self.output);
        let len = self.output.len();
        self.output.advance(len);
        len
    }

    /// Sends commands in one batch, and takes `replies` for the replies to them: all that a connection does for them
    /// but its system calls. The bytes are copied into the read buffer first, as the kernel does it.
    ///
    /// Returns how many keys were found and values stored, or `None` if the replies are not those to the commands.
    pub fn exchange(&mut self, commands: &[Command], replies: &[u8]) -> Option<usize> {
        let calls: Vec<_> = commands.iter().map(|command| command.call(self.deadline)).collect();
        self.batch.extend(calls.iter().map(Arc::clone));
        self.pipeline.submit(&mut self.batch, &mut self.output);
        self.output.advance(self.output.len());
        self.input.extend_from_slice(replies);
        self.pipeline.receive(&mut self.input, self.pipeline.encoded(), &mut self.wakes).ok()?;
        self.wakes.wake_all();
        (self.input.is_empty() && self.pipeline.is_empty()).then(|| calls.into_iter().map(successes).sum())
    }
}

/// Returns how many keys of a complete call were found, or whether its value was stored.
fn successes(mut call: Arc<Call>) -> usize {
    let cx = Context::from_waker(Waker::noop());
    if let Request::Get { .. } = call.request() {
        let Poll::Ready(Ok(results)) = poll_call::<Vec<GetResult>>(&mut call, &cx) else { return 0 };
        return results.iter().filter(|result| matches!(result, Ok(Some(_)))).count();
    }
    usize::from(matches!(poll_call(&mut call, &cx), Poll::Ready(Ok(Reply::Stored))))
}

/// A node's queue, and one connection over a stream that serves it. The connection ends when this is dropped.
#[derive(Debug)]
pub struct Connection {
    queue: Arc<Queue>,
    driver: AbortHandle,
}

impl Connection {
    /// Starts the connection on this runtime, which must have its timers enabled.
    pub fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, node: NodeId) -> Self {
        let settings = Settings { request_timeout: DEADLINE, ..Settings::default() };
        let queue = Arc::new(Queue::new(node.clone(), settings.queue, 1));
        let config = DriverConfig {
            node,
            task: 0,
            max_value: settings.max_value,
            silence_timeout: settings.silence_timeout(),
            suspicion_after: settings.request_timeout,
        };
        let mut driver = Driver::new(stream, Arc::clone(&queue), NodeMemory::default(), config);
        let sweeper = DeadlineSweeper::new(Arc::clone(&queue));
        let task = tokio::spawn(async move {
            // Dropping the sweeper closes the queue: there is no other connection.
            tokio::select! {
                biased;
                _ = driver.run() => {}
                () = sweeper.run() => {}
            }
        });
        Self { queue, driver: task.abort_handle() }
    }

    /// Gets one key.
    ///
    /// # Errors
    /// As [`Client::get`](crate::Client::get).
    pub async fn get(&self, key: &str) -> Result<Option<Item>, Error> {
        let deadline = Instant::now() + DEADLINE;
        self.send(NewCall::get(GetForm::default(), deadline, |place| place.assign(&[], key.as_bytes()))?).await
    }

    /// Gets many keys by one call, as [`Client::get_many`](crate::Client::get_many) makes one of up to 100 keys.
    /// Returns the results in the order of the keys.
    ///
    /// # Errors
    /// The first error of any key.
    pub async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Item>>, Error> {
        let keys = keys.iter().map(Key::new).collect::<Result<_, _>>()?;
        let call = NewCall::get_many(keys, GetForm::default(), Instant::now() + DEADLINE);
        self.send(call).await?.into_iter().collect()
    }

    /// Sets one key.
    ///
    /// # Errors
    /// As [`Client::set`](crate::Client::set).
    pub async fn set(&self, key: &str, value: Bytes) -> Result<(), Error> {
        let request = Command::set(key, value)?.0;
        match self.send(NewCall::command(request, Instant::now() + DEADLINE)).await? {
            Reply::Stored => Ok(()),
            _ => Err(Error::unexpected_response()),
        }
    }

    async fn send<R: Response>(&self, call: NewCall<R>) -> Result<R, Error> {
        match ResponseFuture::queue_when_space(call, &self.queue).await {
            Ok(response) => response.await,
            Err(rejected) => match rejected.reason {
                PushError::Failed(error) => Err(error),
                PushError::Full | PushError::Closed => Err(self.queue.closed_error()),
            },
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
