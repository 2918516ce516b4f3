//! The other end of a connection, scripted; and requests and answers in short.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::time::timeout;

use super::any_response::{Answer, ResponseFuture};
use crate::error::Error;
use crate::key::Key;
use crate::protocol::{
    ArithmeticVerb, Keys, MetaFlags, MetaReply, MetaRequest, MetaVerb, Reply, Request, ServerVersion, StoreVerb, Token,
};

pub(super) struct Peer {
    io: BufReader<DuplexStream>,
}

impl Peer {
    pub(super) fn new(io: DuplexStream) -> Self {
        Self { io: BufReader::new(io) }
    }

    /// Reads exactly this, or fails the test.
    pub(super) async fn expect(&mut self, wire: &str) {
        let mut read = vec![0; wire.len()];
        timeout(Duration::from_secs(10), self.io.read_exact(&mut read)).await.expect("nothing came").unwrap();
        assert_eq!(String::from_utf8_lossy(&read), wire);
    }

    /// Reads a line, its end with it.
    pub(super) async fn line(&mut self) -> String {
        let mut line = String::new();
        timeout(Duration::from_secs(10), self.io.read_line(&mut line)).await.expect("nothing came").unwrap();
        line
    }

    pub(super) async fn expect_nothing(&mut self) {
        let mut byte = [0];
        let read = timeout(Duration::from_millis(5), self.io.read(&mut byte)).await;
        assert!(read.is_err(), "something came: {byte:?}");
    }

    pub(super) async fn send(&mut self, wire: &str) {
        self.io.get_mut().write_all(wire.as_bytes()).await.unwrap();
    }

    /// ResponseSlot gets and sets one by one, reading no further while it cannot write.
    pub(super) async fn serve_like_memcached(&mut self) {
        let mut items: HashMap<String, Vec<u8>> = HashMap::new();
        loop {
            let mut line = String::new();
            if self.io.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let mut words = line.split_whitespace();
            let mut out = Vec::new();
            match words.next() {
                Some("set") => {
                    let (key, len) =
                        (words.next().unwrap().to_owned(), words.nth(2).unwrap().parse::<usize>().unwrap());
                    let mut body = vec![0; len + 2];
                    self.io.read_exact(&mut body).await.unwrap();
                    body.truncate(len);
                    items.insert(key, body);
                    out.extend_from_slice(b"STORED\r\n");
                }
                _ => {
                    for key in words {
                        if let Some(body) = items.get(key) {
                            out.extend_from_slice(format!("VALUE {key} 0 {}\r\n", body.len()).as_bytes());
                            out.extend_from_slice(body);
                            out.extend_from_slice(b"\r\n");
                        }
                    }
                    out.extend_from_slice(b"END\r\n");
                }
            }
            if self.io.get_mut().write_all(&out).await.is_err() {
                return;
            }
        }
    }
}

pub(super) fn get(key: &str) -> Request {
    Request::Get { keys: Keys::One(Key::new(key).unwrap()), cas: false, touch: None }
}

pub(super) fn get_many(keys: &[&str]) -> Request {
    let keys = keys.iter().map(|key| Key::new(key).unwrap()).collect();
    Request::Get { keys: Keys::Many(keys), cas: false, touch: None }
}

pub(super) fn gets(key: &str) -> Request {
    Request::Get { keys: Keys::One(Key::new(key).unwrap()), cas: true, touch: None }
}

/// A get that touches.
pub(super) fn gat(key: &str, exptime: u32) -> Request {
    Request::Get { keys: Keys::One(Key::new(key).unwrap()), cas: false, touch: Some(exptime) }
}

pub(super) fn cas(key: &str, unique: u64, value: &str) -> Request {
    store(StoreVerb::Cas(unique), key, value)
}

pub(super) fn set(key: &str, value: &str) -> Request {
    store(StoreVerb::Set, key, value)
}

/// Of a value that is any bytes.
pub(super) fn set_bytes(key: &str, value: Bytes) -> Request {
    Request::Store { verb: StoreVerb::Set, key: Key::new(key).unwrap(), flags: 0, exptime: 0, value }
}

pub(super) fn add(key: &str, value: &str) -> Request {
    store(StoreVerb::Add, key, value)
}

fn store(verb: StoreVerb, key: &str, value: &str) -> Request {
    let value = Bytes::copy_from_slice(value.as_bytes());
    Request::Store { verb, key: Key::new(key).unwrap(), flags: 0, exptime: 0, value }
}

pub(super) fn incr(key: &str, delta: u64) -> Request {
    Request::Arithmetic { verb: ArithmeticVerb::Incr, key: Key::new(key).unwrap(), delta }
}

/// A meta command with flags written as on the wire.
pub(super) fn meta(verb: MetaVerb, key: &str, flags: &str, value: &str) -> MetaRequest {
    let mut parsed = MetaFlags::default();
    for flag in flags.split_whitespace() {
        let token = &flag.as_bytes()[1..];
        parsed.put(flag.as_bytes()[0], if token.is_empty() { Token::None } else { Token::Text(token.into()) });
    }
    let value = Bytes::copy_from_slice(value.as_bytes());
    let key = Key::new(key).unwrap().into();
    MetaRequest { verb, key, flags: parsed, value, opaque: None, needs: ServerVersion::META }
}

pub(super) fn meta_get(key: &str, flags: &str) -> Request {
    Request::Meta(Box::new(meta(MetaVerb::Get, key, flags, "")))
}

pub(super) fn meta_set(key: &str, value: &str, flags: &str) -> Request {
    Request::Meta(Box::new(meta(MetaVerb::Set, key, flags, value)))
}

pub(super) fn meta_run(keys: &[&str]) -> Request {
    Request::MetaRun(keys.iter().map(|key| meta(MetaVerb::Get, key, "v", "")).collect())
}

pub(super) async fn run_of(ticket: ResponseFuture) -> Vec<Result<MetaReply, Error>> {
    match answer(ticket).await {
        Answer::Run(replies) => replies,
        other => panic!("not the answer to a run: {other:?}"),
    }
}

pub(super) async fn value_of(ticket: ResponseFuture) -> Result<Option<Bytes>, Error> {
    match answer(ticket).await {
        Answer::One(lookup) => lookup.map(|item| item.map(|item| item.value)),
        other => panic!("not the answer to a get: {other:?}"),
    }
}

pub(super) async fn outcome(ticket: ResponseFuture) -> Result<Reply, Error> {
    match answer(ticket).await {
        Answer::Reply(reply) => reply,
        other => panic!("the answer to a get: {other:?}"),
    }
}

async fn answer(ticket: ResponseFuture) -> Answer {
    timeout(Duration::from_secs(10), ticket).await.expect("a hang")
}
