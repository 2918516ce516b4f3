//! Requests in short.

use bytes::Bytes;

use crate::key::Key;
use crate::protocol::{
    ArithmeticVerb, Keys, MetaFlags, MetaRequest, MetaVerb, Request, ServerVersion, StoreVerb, Token,
};

pub(super) fn get(key: &str) -> Request {
    Request::Get { keys: Keys::One(Key::new(key).unwrap()), cas: false, touch: None }
}

pub(super) fn get_many(keys: &[impl AsRef<str>]) -> Request {
    let keys = keys.iter().map(|key| Key::new(key.as_ref()).unwrap()).collect();
    Request::Get { keys: Keys::Many(keys), cas: false, touch: None }
}

pub(super) fn gets(key: &str) -> Request {
    Request::Get { keys: Keys::One(Key::new(key).unwrap()), cas: true, touch: None }
}

/// A get with a touch.
pub(super) fn gat(key: &str, exptime: u32) -> Request {
    Request::Get { keys: Keys::One(Key::new(key).unwrap()), cas: false, touch: Some(exptime) }
}

pub(super) fn cas(key: &str, unique: u64, value: &str) -> Request {
    store(StoreVerb::Cas(unique), key, value)
}

pub(super) fn set(key: &str, value: &str) -> Request {
    store(StoreVerb::Set, key, value)
}

/// A set of a value of any bytes.
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

/// A meta command, its flags written as on the wire.
pub(super) fn meta(verb: MetaVerb, key: &str, flags: &str, value: &str) -> MetaRequest {
    let mut parsed = MetaFlags::default();
    for flag in flags.split_whitespace() {
        let token = &flag.as_bytes()[1..];
        parsed.put(flag.as_bytes()[0], if token.is_empty() { Token::None } else { Token::Text(token.into()) });
    }
    let value = Bytes::copy_from_slice(value.as_bytes());
    let key = Key::new(key).unwrap().into();
    MetaRequest { verb, key, flags: parsed, value, opaque: None, min_version: ServerVersion::META }
}

pub(super) fn meta_get(key: &str, flags: &str) -> Request {
    Request::Meta(Box::new(meta(MetaVerb::Get, key, flags, "")))
}

pub(super) fn meta_set(key: &str, value: &str, flags: &str) -> Request {
    Request::Meta(Box::new(meta(MetaVerb::Set, key, flags, value)))
}

pub(super) fn meta_run(keys: &[impl AsRef<str>]) -> Request {
    Request::MetaRun(keys.iter().map(|key| meta(MetaVerb::Get, key.as_ref(), "v", "")).collect())
}
