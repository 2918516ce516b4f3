//! Responses recorded from real servers, and mutations of them.

use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use crate::protocol::ReplyKind;

/// One recorded response and what was expected.
pub(super) struct Transcript {
    pub(super) reply_kind: String,
    pub(super) response: Vec<u8>,
}

pub(super) static TRANSCRIPTS: LazyLock<Vec<Transcript>> = LazyLock::new(|| {
    let lines = include_str!("../../../tests/data/transcripts.tsv").lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let [_version, reply_kind, _request, response] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("not a transcript: {line}");
            };
            Transcript { reply_kind: reply_kind.to_owned(), response: unescaped(response) }
        })
        .collect()
});

fn unescaped(text: &str) -> Vec<u8> {
    let mut pieces = text.split("\\x");
    let mut bytes = pieces.next().unwrap().as_bytes().to_vec();
    for piece in pieces {
        bytes.push(u8::from_str_radix(&piece[..2], 16).unwrap());
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    bytes
}

pub(super) const REPLY_KINDS: [ReplyKind; 15] = [
    ReplyKind::Values,
    ReplyKind::End,
    ReplyKind::Stored,
    ReplyKind::Swapped,
    ReplyKind::Deleted,
    ReplyKind::Touched,
    ReplyKind::Number,
    ReplyKind::Meta,
    ReplyKind::MetaStored,
    ReplyKind::MetaDebug,
    ReplyKind::MetaRun,
    ReplyKind::MetaEnd,
    ReplyKind::Version,
    ReplyKind::Ok,
    ReplyKind::Memlimit,
];

/// Returns the recorded responses of the expected kinds that `is_wanted` selects by name.
pub(super) fn recorded(is_wanted: impl Fn(&str) -> bool) -> Vec<Vec<u8>> {
    TRANSCRIPTS
        .iter()
        .filter(|recorded| is_wanted(&recorded.reply_kind))
        .map(|recorded| recorded.response.clone())
        .collect()
}

/// A mutation of a byte string.
#[derive(Debug, Clone)]
pub(crate) enum Mutation {
    Replace(Index, u8),
    Remove(Index, usize),
    Insert(Index, Vec<u8>),
    Repeat(Index, usize),
    /// Replaces the next run of digits.
    Number(Index, &'static str),
    Truncate(Index),
}

/// Pieces of responses.
const WORDS: [&str; 36] = [
    "\r\n",
    "\r",
    "\n",
    " ",
    "  ",
    "VALUE ",
    "VALUE a 0 1\r\nx\r\n",
    "END\r\n",
    "STORED\r\n",
    "NOT_FOUND\r\n",
    "EXISTS",
    "OK\r\n",
    "0",
    "-1",
    "4294967296",
    "18446744073709551616",
    "1073741825",
    "VA ",
    "VA 2 O1\r\nok\r\n",
    "HD",
    "HD O7\r\n",
    "EN\r\n",
    "NF\r\n",
    "MN\r\n",
    "ME a ",
    " O1",
    " f4294967296",
    " c",
    " t-1",
    " W X Z",
    "ERROR",
    "SERVER_ERROR out of memory",
    "CLIENT_ERROR ",
    "VERSION 1.6.45\r\n",
    "%ff",
    "=",
];
const NUMBERS: [&str; 9] =
    ["", "0", "1", "2", "00000000000000000002", "1000", "1073741824", "1073741825", "18446744073709551616"];

pub(crate) fn mutation() -> impl Strategy<Value = Mutation> {
    let any_bytes = prop::collection::vec(any::<u8>(), 1..8);
    let word = prop_oneof![4 => select(&WORDS[..]).prop_map(|word| word.as_bytes().to_vec()), 1 => any_bytes];
    prop_oneof![
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Replace(at, byte)),
        2 => (any::<Index>(), 1usize..6).prop_map(|(at, len)| Mutation::Remove(at, len)),
        4 => (any::<Index>(), word).prop_map(|(at, word)| Mutation::Insert(at, word)),
        1 => (any::<Index>(), 1usize..60).prop_map(|(at, len)| Mutation::Repeat(at, len)),
        3 => (any::<Index>(), select(&NUMBERS[..])).prop_map(|(at, number)| Mutation::Number(at, number)),
        1 => any::<Index>().prop_map(Mutation::Truncate),
    ]
}

pub(crate) fn mutated(mut bytes: Vec<u8>, mutations: Vec<Mutation>) -> Vec<u8> {
    for mutation in mutations {
        let len = bytes.len();
        match mutation {
            Mutation::Replace(at, byte) if len > 0 => bytes[at.index(len)] = byte,
            Mutation::Remove(at, count) if len > 0 => {
                let at = at.index(len);
                bytes.drain(at..(at + count).min(len));
            }
            Mutation::Insert(at, word) => {
                let at = at.index(len + 1);
                bytes.splice(at..at, word);
            }
            Mutation::Repeat(at, count) if len > 0 => {
                let at = at.index(len);
                let piece = bytes[at..(at + count).min(len)].to_vec();
                bytes.splice(at..at, piece);
            }
            Mutation::Number(at, number) if len > 0 => {
                let at = at.index(len);
                let Some(start) = (at..len).find(|&at| bytes[at].is_ascii_digit()) else { continue };
                let end = (start..len).find(|&at| !bytes[at].is_ascii_digit()).unwrap_or(len);
                bytes.splice(start..end, number.bytes());
            }
            Mutation::Truncate(at) if len > 0 => bytes.truncate(at.index(len)),
            _ => {}
        }
    }
    bytes
}

/// Generates a few of these responses, mutated and one after the other; or arbitrary bytes.
pub(super) fn wire(responses: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let responses = prop::collection::vec(select(responses), 0..4).prop_map(|responses| responses.concat());
    let mutations = prop_oneof![1 => Just(Vec::new()), 5 => prop::collection::vec(mutation(), 1..5)];
    prop_oneof![
        12 => (responses, mutations).prop_map(|(bytes, mutations)| mutated(bytes, mutations)),
        1 => prop::collection::vec(any::<u8>(), 0..400),
        1 => prop::collection::vec(select(&WORDS[..]), 0..60).prop_map(|words| words.concat().into_bytes()),
    ]
}
