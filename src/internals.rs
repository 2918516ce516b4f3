//! What the benchmarks of this package need and no public item reaches: the codec alone, and one connection over any
//! stream.
//!
//! With the feature `internals` only, which is no part of the interface: any version may change this, or drop it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::config::Settings;
use crate::connection::{
    Answer, Call, DeadlineSweeper, Driver, DriverConfig, ProbeHistory, Queue, ResponseFuture, unexpected_response,
};
use crate::error::Error;
use crate::item::Item;
use crate::key::{InvalidKey, Key};
use crate::node_id::NodeId;
use crate::protocol::{Decoder, Expect, Keys, Output, Reply, Request, StoreVerb, encode};

/// A command, ready to be encoded.
#[derive(Debug)]
pub struct Command(Request);

impl Command {
    /// A retrieval line of these keys, as merged gets make one. No more than a line holds, which is not checked.
    ///
    /// # Errors
    /// The first key that is none.
    pub fn get(keys: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Result<Self, InvalidKey> {
        let keys = keys.into_iter().map(Key::new).collect::<Result<_, _>>()?;
        Ok(Self(Request::Get { keys: Keys::Many(keys), cas: false, touch: None }))
    }

    /// A set.
    ///
    /// # Errors
    /// If the key is none.
    pub fn set(key: impl AsRef<[u8]>, value: Bytes) -> Result<Self, InvalidKey> {
        Ok(Self(Request::Store { verb: StoreVerb::Set, key: Key::new(key)?, flags: 0, exptime: 300, value }))
    }
}

/// What a connection has to encode and to decode, without what it notes of those who asked.
#[derive(Debug)]
pub struct Codec {
    output: Output,
    input: BytesMut,
    decoder: Decoder,
}

impl Codec {
    /// For values up to so many bytes.
    #[must_use]
    pub fn new(max_value: usize) -> Self {
        Self { output: Output::default(), input: BytesMut::new(), decoder: Decoder::new(max_value) }
    }

    /// Encodes a command, drops what came of it as if it were written, and says how many bytes that was.
    pub fn encode(&mut self, command: &Command) -> usize {
        encode(&command.0, 0, &mut self.output);
        let len = self.output.len();
        self.output.advance(len);
        len
    }

    /// What of a [`get`](Command::get) was found, by this answer to it, which is whole. The bytes are copied into the read
    /// buffer first, as the kernel does it.
    ///
    /// `None` if it is no answer, or more than one.
    pub fn found(&mut self, command: &Command, answer: &[u8]) -> Option<usize> {
        let Request::Get { keys, .. } = &command.0 else { return None };
        self.input.extend_from_slice(answer);
        let mut keys = keys.as_slice();
        let mut found = 0;
        // The two ways a pipeline goes: the short one as far as it leads, and the other for one reply.
        loop {
            let mut taken = 0;
            while let Some((key, rest)) = keys.split_first()
                && let Some((_, len)) = self.decoder.next_value(&self.input[taken..], key.as_bytes())
            {
                taken += len;
                found += 1;
                keys = rest;
            }
            let end = self.decoder.next_word(&self.input[taken..], "END");
            self.input.advance(taken + end.unwrap_or(0));
            if end.is_some() {
                return self.input.is_empty().then_some(found);
            }
            let claim = |claimed: &[u8]| {
                let at = keys.iter().position(|key| key.as_bytes() == claimed);
                keys = at.map_or(&[], |at| &keys[at + 1..]);
                at.is_some()
            };
            match self.decoder.decode(Expect::Values, &mut self.input, claim) {
                Ok(Some(Reply::Value(_))) => found += 1,
                Ok(Some(Reply::End)) => return self.input.is_empty().then_some(found),
                _ => return None,
            }
        }
    }

    /// How many sets were stored, by these answers to them, all of which say so. As [`found`](Self::found) in all else.
    pub fn stored(&mut self, answers: &[u8]) -> Option<usize> {
        self.input.extend_from_slice(answers);
        let (mut taken, mut stored) = (0, 0);
        while let Some(len) = self.decoder.next_word(&self.input[taken..], "STORED") {
            taken += len;
            stored += 1;
        }
        self.input.advance(taken);
        self.input.is_empty().then_some(stored)
    }
}

/// One connection of one node, at work over a stream, and what its callers wait in. Ends when dropped.
#[derive(Debug)]
pub struct Connection {
    queue: Arc<Queue>,
    driver: AbortHandle,
}

/// Longer than any run of a benchmark that goes well.
const DEADLINE: Duration = Duration::from_secs(10);

impl Connection {
    /// On this runtime, which must have its timers enabled.
    pub fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, node: NodeId) -> Self {
        let settings = Settings { request_timeout: DEADLINE, ..Settings::default() };
        let queue = Arc::new(Queue::new(node.clone(), settings.queue, 1));
        let config =
            DriverConfig { node, task: 0, max_value: settings.max_value, silence_timeout: settings.silence_timeout() };
        let mut driver = Driver::new(stream, Arc::clone(&queue), ProbeHistory::default().into(), config);
        let mut sweeper = DeadlineSweeper::new(Arc::clone(&queue));
        let serving = Arc::clone(&queue);
        let task = tokio::spawn(async move {
            // As a node's first task does it.
            tokio::select! {
                biased;
                _ = driver.run() => {}
                () = sweeper.run() => {}
            }
            // Nobody connects it again.
            serving.close();
        });
        Self { queue, driver: task.abort_handle() }
    }

    /// A get of one key.
    ///
    /// # Errors
    /// As those of [`Client::get`](crate::Client::get).
    pub async fn get(&self, key: &str) -> Result<Option<Item>, Error> {
        self.ask(Request::Get { keys: Keys::One(Key::new(key)?), cas: false, touch: None }).await?.lookup().await
    }

    /// What is known of each of these keys, in their order, by one call, as [`Client::get_many`](crate::Client::get_many)
    /// makes one of up to 100 keys.
    ///
    /// # Errors
    /// The first there was with any key.
    pub async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Item>>, Error> {
        let keys = keys.iter().map(Key::new).collect::<Result<_, _>>()?;
        match self.ask(Request::Get { keys: Keys::Many(keys), cas: false, touch: None }).await?.await {
            Answer::Many(lookups) => lookups.into_iter().collect(),
            _ => Err(unexpected_response()),
        }
    }

    /// A set of one key, which must be stored.
    ///
    /// # Errors
    /// As those of [`Client::set`](crate::Client::set).
    pub async fn set(&self, key: &str, value: Bytes) -> Result<(), Error> {
        let key = Key::new(key)?;
        match self
            .ask(Request::Store { verb: StoreVerb::Set, key, flags: 0, exptime: 300, value })
            .await?
            .reply()
            .await?
        {
            Reply::Stored => Ok(()),
            _ => Err(unexpected_response()),
        }
    }

    async fn ask(&self, request: Request) -> Result<ResponseFuture, Error> {
        self.queue.enter(&Arc::new(Call::new(request, Instant::now() + DEADLINE))).await
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
