//! Encodes requests.

use bytes::BytesMut;

use super::{ArithmeticVerb, Request, StoreVerb, WriteBuffer};
use crate::key::Key;

const CRLF: &[u8] = b"\r\n";

/// Appends a request to `out`. Its meta commands get the opaque tokens `serial`, `serial + 1`, and so on.
///
/// A connection merges gets, so it writes them key by key: see [`encode_get_start`].
pub(crate) fn encode(request: &Request, serial: u64, out: &mut WriteBuffer) {
    let text = out.text();
    match request {
        Request::Get { keys, cas, touch } => {
            encode_get_start(*cas, *touch, text);
            for key in keys.as_slice() {
                encode_get_key(key, text);
            }
            encode_line_end(text);
        }
        Request::Store { verb, key, flags, exptime, value } => {
            let word: &[u8] = match verb {
                StoreVerb::Set => b"set ",
                StoreVerb::Add => b"add ",
                StoreVerb::Replace => b"replace ",
                StoreVerb::Append => b"append ",
                StoreVerb::Prepend => b"prepend ",
                StoreVerb::Cas(_) => b"cas ",
            };
            text.reserve(word.len() + key.as_bytes().len() + 64 + WriteBuffer::copied(value));
            text.extend_from_slice(word);
            text.extend_from_slice(key.as_bytes());
            encode_number(*flags, text);
            encode_number(*exptime, text);
            encode_number(value.len() as u64, text);
            if let StoreVerb::Cas(unique) = verb {
                encode_number(*unique, text);
            }
            text.extend_from_slice(CRLF);
            out.push_block(value);
            out.text().extend_from_slice(CRLF);
        }
        Request::Delete { key } => {
            text.extend_from_slice(b"delete ");
            text.extend_from_slice(key.as_bytes());
            if key.as_bytes() == b"noreply" {
                // 1.6.45 takes `noreply` as the last word for an option, even in the key's place, and sends no reply.
                // The 0 was once a time; servers ignore it.
                text.extend_from_slice(b" 0");
            }
            text.extend_from_slice(CRLF);
        }
        Request::Touch { key, exptime } => {
            text.extend_from_slice(b"touch ");
            text.extend_from_slice(key.as_bytes());
            encode_number(*exptime, text);
            text.extend_from_slice(CRLF);
        }
        Request::Arithmetic { verb, key, delta } => {
            text.extend_from_slice(match verb {
                ArithmeticVerb::Incr => b"incr ",
                ArithmeticVerb::Decr => b"decr ",
            });
            text.extend_from_slice(key.as_bytes());
            encode_number(*delta, text);
            text.extend_from_slice(CRLF);
        }
        Request::Meta(request) => request.encode(serial, false, out),
        Request::MetaRun(run) => {
            for (request, serial) in run.iter().zip(serial..) {
                request.encode(serial, true, out);
            }
            out.text().extend_from_slice(b"mn\r\n");
        }
        Request::MetaNoop => text.extend_from_slice(b"mn\r\n"),
        Request::Version => text.extend_from_slice(b"version\r\n"),
        // No number if the delay is 0, because the oldest servers know only this form.
        Request::FlushAll { delay: 0 } => text.extend_from_slice(b"flush_all\r\n"),
        Request::FlushAll { delay } => encode_setting(b"flush_all", *delay, text),
        Request::Verbosity { level } => encode_setting(b"verbosity", *level, text),
        Request::CacheMemlimit { megabytes } => encode_setting(b"cache_memlimit", *megabytes, text),
    }
}

/// Begins a retrieval line: at least one [`encode_get_key`] and then [`encode_line_end`] must follow.
pub(crate) fn encode_get_start(cas: bool, touch: Option<u32>, out: &mut BytesMut) {
    match touch {
        None => out.extend_from_slice(if cas { b"gets" } else { b"get" }),
        Some(exptime) => {
            out.extend_from_slice(if cas { b"gats" } else { b"gat" });
            encode_number(exptime, out);
        }
    }
}

pub(crate) fn encode_get_key(key: &Key, out: &mut BytesMut) {
    let key = key.as_bytes();
    out.reserve(1 + key.len());
    out.extend_from_slice(b" ");
    out.extend_from_slice(key);
}

pub(crate) fn encode_line_end(out: &mut BytesMut) {
    out.extend_from_slice(CRLF);
}

fn encode_setting(command: &[u8], number: u32, out: &mut BytesMut) {
    out.extend_from_slice(command);
    encode_number(number, out);
    out.extend_from_slice(CRLF);
}

/// Returns the command that presents credentials.
///
/// It is harmless on a server that needs none: the server stores it under a reserved key, already expired, so that no
/// client can read it.
pub(crate) fn credentials_command(token: &str) -> String {
    format!("set memring:auth 0 -1 {}\r\n{token}\r\n", token.len())
}

fn encode_number(number: impl itoa::Integer, out: &mut BytesMut) {
    out.extend_from_slice(b" ");
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Keys;
    use bytes::Bytes;

    #[test]
    fn every_request_matches_the_protocol_text() {
        let key = |text: &str| Key::new(text).unwrap();
        let store = |verb, value: &'static str| Request::Store {
            verb,
            key: key("k"),
            flags: u32::MAX,
            exptime: 60,
            value: Bytes::from_static(value.as_bytes()),
        };
        let cases = [
            (Request::Get { keys: Keys::One(key("k")), cas: false, touch: None }, "get k\r\n"),
            (Request::Get { keys: Keys::Many(vec![key("a"), key("b")]), cas: true, touch: None }, "gets a b\r\n"),
            (Request::Get { keys: Keys::One(key("k")), cas: false, touch: Some(0) }, "gat 0 k\r\n"),
            (
                Request::Get { keys: Keys::Many(vec![key("a"), key("b")]), cas: true, touch: Some(2_147_483_647) },
                "gats 2147483647 a b\r\n",
            ),
            (store(StoreVerb::Set, "flush_all\r\n"), "set k 4294967295 60 11\r\nflush_all\r\n\r\n"),
            (store(StoreVerb::Add, ""), "add k 4294967295 60 0\r\n\r\n"),
            (store(StoreVerb::Replace, "x"), "replace k 4294967295 60 1\r\nx\r\n"),
            (store(StoreVerb::Append, "\r\n"), "append k 4294967295 60 2\r\n\r\n\r\n"),
            (store(StoreVerb::Prepend, "x"), "prepend k 4294967295 60 1\r\nx\r\n"),
            (store(StoreVerb::Cas(u64::MAX), "x"), "cas k 4294967295 60 1 18446744073709551615\r\nx\r\n"),
            (Request::Delete { key: key("k") }, "delete k\r\n"),
            (Request::Delete { key: key("noreply") }, "delete noreply 0\r\n"),
            (Request::Touch { key: key("k"), exptime: 0 }, "touch k 0\r\n"),
            (
                Request::Arithmetic { verb: ArithmeticVerb::Incr, key: key("k"), delta: u64::MAX },
                "incr k 18446744073709551615\r\n",
            ),
            (Request::Arithmetic { verb: ArithmeticVerb::Decr, key: key("k"), delta: 1 }, "decr k 1\r\n"),
            (Request::Version, "version\r\n"),
            (Request::FlushAll { delay: 0 }, "flush_all\r\n"),
            (Request::FlushAll { delay: 2_592_000 }, "flush_all 2592000\r\n"),
            (Request::Verbosity { level: 0 }, "verbosity 0\r\n"),
            (Request::CacheMemlimit { megabytes: u32::MAX }, "cache_memlimit 4294967295\r\n"),
        ];
        for (request, wire) in cases {
            let mut out = WriteBuffer::default();
            encode(&request, 7, &mut out);
            assert_eq!(out.to_vec(), wire.as_bytes(), "{request:?}");
            assert!(request.weight() >= out.len(), "{request:?} is longer than its weight");
        }
    }
}
