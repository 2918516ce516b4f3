//! Fuzz test of the encoder: each request is exactly the one command it stands for.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::select;

use super::grammar::{Command, read_all};
use crate::key::Key;
use crate::protocol::{ArithmeticVerb, Keys, Request, StoreVerb, WriteBuffer, encode};

/// Generates any valid key, protocol words included.
pub(crate) fn key() -> impl Strategy<Value = Key> {
    let byte = (b'!'..=b'~').chain(0x80..=0xff).collect::<Vec<u8>>();
    let any = prop::collection::vec(select(byte), 1..=250);
    let words = ["noreply", "get", "mn", "k", "0", "END", "VALUE", "b", "O1", "q"];
    let word = select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec());
    prop_oneof![2 => any, 1 => word].prop_map(|key| Key::new(key).unwrap())
}

/// Generates any value, some of which look like commands.
pub(crate) fn value() -> impl Strategy<Value = Bytes> {
    let pieces = ["\r\n", "flush_all\r\n", "set a 0 0 1\r\nx\r\n", "END\r\n", "mn\r\n", "\n", "\r", "x"];
    let text = prop::collection::vec(select(pieces.to_vec()), 0..20).prop_map(|pieces| pieces.concat().into_bytes());
    prop_oneof![2 => text, 1 => prop::collection::vec(any::<u8>(), 0..300)].prop_map(Bytes::from)
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![any::<u64>(), select(vec![0, 1, u64::MAX])]
}

/// Generates a classic request and the command a server must read for it.
pub(crate) fn classic() -> impl Strategy<Value = (Request, Command)> {
    let command = |words: &[&[u8]], body: Option<&Bytes>| Command {
        words: words.iter().map(|word| word.to_vec()).collect(),
        body: body.map(|body| body.to_vec()),
    };
    let store = (0..6usize, key(), any::<u32>(), any::<u32>(), value(), number());
    let store = store.prop_map(move |(verb, key, flags, exptime, value, unique)| {
        let verbs = [
            (StoreVerb::Set, "set"),
            (StoreVerb::Add, "add"),
            (StoreVerb::Replace, "replace"),
            (StoreVerb::Append, "append"),
            (StoreVerb::Prepend, "prepend"),
            (StoreVerb::Cas(unique), "cas"),
        ];
        let (verb, word) = verbs[verb];
        let numbers = [flags.to_string(), exptime.to_string(), value.len().to_string(), unique.to_string()];
        let mut words = vec![word.as_bytes(), key.as_bytes()];
        words.extend(numbers.iter().take(if word == "cas" { 4 } else { 3 }).map(String::as_bytes));
        let expected = command(&words, Some(&value));
        (Request::Store { verb, key, flags, exptime, value }, expected)
    });
    let keys = prop_oneof![
        key().prop_map(Keys::One),
        // So few that they fit in one line.
        prop::collection::vec(key(), 1..4).prop_map(Keys::Many)
    ];
    let get = (keys, any::<bool>(), prop::option::of(any::<u32>())).prop_map(move |(keys, cas, touch)| {
        let verb = match (cas, touch) {
            (false, None) => "get",
            (true, None) => "gets",
            (false, Some(_)) => "gat",
            (true, Some(_)) => "gats",
        };
        let touch_word = touch.map(|exptime| exptime.to_string());
        let mut words = vec![verb.as_bytes()];
        words.extend(touch_word.as_deref().map(str::as_bytes));
        words.extend(keys.as_slice().iter().map(Key::as_bytes));
        let expected = command(&words, None);
        (Request::Get { keys, cas, touch }, expected)
    });
    let with_key = (0..4usize, key(), any::<u32>(), number()).prop_map(move |(command_index, key, exptime, delta)| {
        let (exptime_word, delta_word) = (exptime.to_string(), delta.to_string());
        let key_word = key.as_bytes().to_vec();
        let (request, words): (_, Vec<&[u8]>) = match command_index {
            0 if key_word == b"noreply" => (Request::Delete { key }, vec![b"delete", &key_word, b"0"]),
            0 => (Request::Delete { key }, vec![b"delete", &key_word]),
            1 => (Request::Touch { key, exptime }, vec![b"touch", &key_word, exptime_word.as_bytes()]),
            2 => {
                let request = Request::Arithmetic { verb: ArithmeticVerb::Incr, key, delta };
                (request, vec![b"incr", &key_word, delta_word.as_bytes()])
            }
            _ => {
                let request = Request::Arithmetic { verb: ArithmeticVerb::Decr, key, delta };
                (request, vec![b"decr", &key_word, delta_word.as_bytes()])
            }
        };
        (request, command(&words, None))
    });
    let without_key = (0..6usize, any::<u32>()).prop_map(move |(command_index, number)| {
        let word = number.to_string();
        let (request, words): (_, Vec<&[u8]>) = match command_index {
            0 => (Request::Version, vec![b"version"]),
            1 => (Request::FlushAll { delay: 0 }, vec![b"flush_all"]),
            2 => (Request::FlushAll { delay: number.max(1) }, vec![b"flush_all", b""]),
            3 => (Request::Verbosity { level: number }, vec![b"verbosity", word.as_bytes()]),
            4 => (Request::CacheMemlimit { megabytes: number }, vec![b"cache_memlimit", word.as_bytes()]),
            _ => (Request::MetaNoop, vec![b"mn"]),
        };
        let mut expected = command(&words, None);
        if command_index == 2 {
            expected.words[1] = number.max(1).to_string().into_bytes();
        }
        (request, expected)
    });
    prop_oneof![4 => store, 4 => get, 3 => with_key, 1 => without_key]
}

/// Encodes a request, and parses the bytes as a server does.
pub(crate) fn read_back(request: &Request, serial: u64) -> Vec<Command> {
    let mut out = WriteBuffer::default();
    encode(request, serial, &mut out);
    assert!(request.weight() >= out.len(), "{} bytes for a weight of {}", out.len(), request.weight());
    read_all(&out.to_vec())
}

#[test]
#[should_panic(expected = "does not end at its length")]
fn the_parser_detects_a_wrong_length() {
    read_all(b"set k 0 0 2\r\nx\r\n\r\nx\r\n");
}

proptest! {
    #[test]
    fn each_request_encodes_to_exactly_one_command((request, expected) in classic(), serial in any::<u64>()) {
        prop_assert_eq!(read_back(&request, serial), [expected]);
    }
}
