//! The fast path of a pipeline receives what the full decoder would: the same responses, from the same bytes, and it
//! fails at the same place.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::WakeList;
use super::super::call::Call;
use super::super::pipeline::{Pipeline, Poison};
use super::super::response_future::poll_call;
use super::requests::meta_get;
use super::test_call::new_call;
use super::*;
use crate::protocol::fuzz::corpus::{Mutation, mutated, mutation};
use crate::protocol::fuzz::grammar::{Command, read_all};
use crate::protocol::{BodyProgress, WriteBuffer};

/// Each begins with the one before it. The last has the longest length.
const KEYS: [&str; 4] = [
    "a",
    "ab",
    "abc",
    "abckkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk\
     kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk\
     kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk",
];

/// At, and beside, the limits on what shares an allocation, on what is copied, and on what is accepted.
const LENGTHS: [usize; 16] = [0, 1, 2, 4, 5, 6, 255, 256, 257, 299, 300, 301, 8190, 8191, 8192, 8193];
const MAX_VALUES: [usize; 7] = [0, 5, 256, 300, 8191, 8192, 20_000];

/// Valid forms and others.
const FLAGS: [&str; 10] = [
    "7",
    "4294967295",
    "4294967296",
    "42949672950",
    "0000000000000000007",
    "00000000000000000007",
    "000000000000000000007",
    "",
    "-1",
    "7x",
];
const UNIQUES: [&str; 9] = [
    "1",
    "9999999999999999999",
    "00000000000000000001",
    "18446744073709551615",
    "18446744073709551616",
    "000000000000000000001",
    "",
    "1 2",
    "1 ",
];
const LINE_ENDS: [&str; 6] = ["", "\n", "\r", "\n\n", "x\r\n", " \r\n"];
const BODIES: [&str; 3] = ["x", "\r\nEND\r\n", "VALUE ab 0 1\r\nx\r\n"];

/// Out of place, most often.
const WORDS: [&str; 10] = [
    "END",
    "STORED",
    "NOT_STORED",
    "EN",
    "END ",
    "STOREDX",
    "ERROR",
    "ERROR Too many open connections",
    "SERVER_ERROR object too large for cache",
    "CLIENT_ERROR bad command line format",
];

/// What the server replies to one command, or for one key of it.
#[derive(Debug, Clone)]
struct Choice {
    is_hit: bool,
    flags: &'static str,
    len: usize,
    /// How many zeros stand before the declared length, and whether that is off by one.
    zeros: usize,
    is_off_by_one: bool,
    unique: Option<&'static str>,
    body: &'static str,
    line_end: &'static str,
    body_end: &'static str,
    /// Comes first, in a line of its own.
    before: Option<&'static str>,
    /// Takes the place of the reply. There is no reply if it is empty.
    instead: Option<&'static str>,
}

impl Choice {
    fn value(&self, key: &[u8], wants_cas: bool) -> Vec<u8> {
        let declared = if self.is_off_by_one { self.len + 1 } else { self.len };
        let unique = self.unique.or(if wants_cas { Some("1") } else { None });
        let unique = unique.map(|unique| format!(" {unique}")).unwrap_or_default();
        let (zeros, body) = ("0".repeat(self.zeros), self.body.repeat(self.len));
        let fields = format!(" {} {zeros}{declared}{unique}{}", self.flags, self.line_end);
        let body = &body.as_bytes()[..self.len];
        [b"VALUE ", key, fields.as_bytes(), body, self.body_end.as_bytes()].concat()
    }

    fn reply(&self, usual: &str) -> Vec<u8> {
        match self.instead {
            Some("") => Vec::new(),
            instead => [instead.unwrap_or(usual), self.line_end].concat().into_bytes(),
        }
    }
}

fn rarely<T: Clone + std::fmt::Debug + 'static>(
    usual: T,
    others: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = T> {
    prop_oneof![19 => Just(usual), 1 => others]
}

fn choice() -> impl Strategy<Value = Choice> {
    let number = (
        prop_oneof![4 => Just("0"), 1 => select(&FLAGS[..])],
        prop_oneof![2 => 0usize..20, 1 => select(&LENGTHS[..])],
        rarely(0, 0usize..21),
        prop_oneof![4 => Just(None), 1 => select(&UNIQUES[..]).prop_map(Some)],
    );
    let text = (
        rarely(false, Just(true)),
        select(&BODIES[..]),
        rarely("\r\n", select(&LINE_ENDS[..])),
        rarely("\r\n", select(&LINE_ENDS[..])),
        rarely(None, select(&WORDS[..]).prop_map(Some)),
        rarely(None, prop_oneof![Just(Some("")), select(&WORDS[..]).prop_map(Some)]),
    );
    (prop::bool::weighted(0.8), number, text).prop_map(
        |(is_hit, (flags, len, zeros, unique), (is_off_by_one, body, line_end, body_end, before, instead))| Choice {
            is_hit,
            flags,
            len,
            zeros,
            is_off_by_one,
            unique,
            body,
            line_end,
            body_end,
            before,
            instead,
        },
    )
}

/// The replies to these commands.
fn replies(commands: &[Command], choices: &[Choice]) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut choices = choices.iter().cycle();
    let mut next = |wire: &mut Vec<u8>| {
        let choice = choices.next().unwrap();
        wire.extend(choice.before.into_iter().flat_map(|line| [line.as_bytes(), b"\r\n"].concat()));
        choice
    };
    for command in commands {
        let (keys, usual) = match command.verb() {
            "get" | "gets" => (&command.words[1..], "END"),
            "gat" | "gats" => (&command.words[2..], "END"),
            "set" | "cas" => (&[][..], "STORED"),
            "incr" => (&[][..], "5"),
            "mg" => (&[][..], "EN"),
            verb => panic!("no test sends {verb}"),
        };
        for key in keys {
            let choice = next(&mut wire);
            if choice.is_hit {
                wire.extend(choice.value(key, command.verb().ends_with('s')));
            }
        }
        let reply = next(&mut wire).reply(usual);
        wire.extend(reply);
    }
    wire
}

#[derive(Debug, Clone)]
enum Ask {
    Get(usize),
    Gets(usize),
    GetMany(Vec<usize>),
    Gat(usize),
    Set(usize),
    Cas(usize),
    Incr(usize),
    MetaGet(usize),
}

impl Ask {
    fn request(&self) -> Request {
        match self {
            Self::Get(key) => get(KEYS[*key]),
            Self::Gets(key) => gets(KEYS[*key]),
            Self::GetMany(keys) => get_many(&keys.iter().map(|&key| KEYS[key]).collect::<Vec<_>>()),
            Self::Gat(key) => gat(KEYS[*key], 60),
            Self::Set(key) => set(KEYS[*key], "value"),
            Self::Cas(key) => cas(KEYS[*key], 1, "value"),
            Self::Incr(key) => incr(KEYS[*key], 1),
            Self::MetaGet(key) => meta_get(KEYS[*key], "v"),
        }
    }
}

fn ask() -> impl Strategy<Value = Ask> {
    let key = || 0..KEYS.len();
    prop_oneof![
        6 => key().prop_map(Ask::Get),
        2 => key().prop_map(Ask::Gets),
        2 => prop::collection::vec(key(), 1..6).prop_map(Ask::GetMany),
        1 => key().prop_map(Ask::Gat),
        4 => key().prop_map(Ask::Set),
        1 => key().prop_map(Ask::Cas),
        1 => key().prop_map(Ask::Incr),
        1 => key().prop_map(Ask::MetaGet),
    ]
}

#[derive(Debug, Clone)]
struct Case {
    batches: Vec<Vec<Ask>>,
    choices: Vec<Choice>,
    mutations: Vec<Mutation>,
    max_value: usize,
    /// The sizes of the pieces in which the replies arrive. The rest arrives in one piece.
    pieces: Vec<usize>,
    /// How many of the requests' bytes are written when the first pieces arrive, and how many pieces that are.
    written_late: Option<(Index, usize)>,
}

fn case() -> impl Strategy<Value = Case> {
    let batches = prop::collection::vec(prop::collection::vec(ask(), 1..8), 1..3);
    let mutations = prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(mutation(), 1..3)];
    let pieces = prop::collection::vec(prop_oneof![2 => 1usize..20, 2 => 1usize..400, 1 => 1usize..12_000], 0..30);
    let written_late = prop_oneof![4 => Just(None), 1 => (any::<Index>(), 1usize..5).prop_map(Some)];
    (batches, prop::collection::vec(choice(), 1..20), mutations, select(&MAX_VALUES[..]), pieces, written_late)
        .prop_map(|(batches, choices, mutations, max_value, pieces, written_late)| Case {
            batches,
            choices,
            mutations,
            max_value,
            pieces,
            written_late,
        })
}

type Receive = fn(&mut Pipeline, &mut BytesMut, u64, &mut WakeList) -> Result<(), Poison>;

/// What can be observed of a pipeline after it has received a piece.
#[derive(Debug, PartialEq)]
struct Observed {
    end: Option<String>,
    left_in_input: BytesMut,
    received: u64,
    is_inside_reply: bool,
    body: Option<BodyProgress>,
    woken: usize,
    complete: Vec<bool>,
}

#[derive(Debug, PartialEq)]
struct Outcome {
    observed: Vec<Observed>,
    /// The values and errors of each call, after the connection has ended.
    responses: Vec<String>,
    unsent: usize,
}

impl Case {
    fn run(&self, receive: Receive) -> Outcome {
        let mut pipeline = Pipeline::new(node(), self.max_value);
        let mut output = WriteBuffer::default();
        let mut calls: Vec<Arc<Call>> = Vec::new();
        for batch in &self.batches {
            let batch = batch.iter().map(|ask| new_call(ask.request(), Instant::now() + DEADLINE));
            let mut batch: VecDeque<_> = batch.collect();
            batch.iter().for_each(|call| call.slot().set_waker(Waker::noop()));
            calls.extend(batch.iter().map(Arc::clone));
            pipeline.submit(&mut batch, &mut output);
        }
        let wire = mutated(replies(&read_all(&output.to_vec()), &self.choices), self.mutations.clone());
        let mut observed = Vec::new();
        let (mut input, mut rest, mut sizes) = (BytesMut::new(), &wire[..], self.pieces.iter());
        let mut written = pipeline.encoded();
        while !rest.is_empty() {
            written = match &self.written_late {
                Some((bytes, pieces)) if observed.len() < *pieces => bytes.index(output.len() + 1) as u64,
                _ => pipeline.encoded(),
            };
            let mut piece = sizes.next().copied().unwrap_or(rest.len()).min(rest.len());
            if let Some(buffer) = pipeline.large_value_buffer() {
                piece = piece.min(buffer.capacity() - buffer.len());
                buffer.extend_from_slice(&rest[..piece]);
            } else {
                input.extend_from_slice(&rest[..piece]);
            }
            rest = &rest[piece..];
            let mut wakes = WakeList::default();
            let end = receive(&mut pipeline, &mut input, written, &mut wakes).err();
            observed.push(Observed {
                end: end.as_ref().map(|poison| format!("{poison:?}")),
                left_in_input: input.clone(),
                received: pipeline.received(),
                is_inside_reply: pipeline.is_inside_reply(&input),
                body: pipeline.body_progress(&input),
                woken: wakes.0.len(),
                complete: calls.iter().map(|call| call.is_over()).collect(),
            });
            if end.is_some() {
                break;
            }
        }
        let error = Error::new(ErrorKind::Connection, Delivery::Unknown);
        let unsent = pipeline.abandon(written, &error, &mut WakeList::default()).len();
        Outcome { observed, responses: calls.into_iter().map(response).collect(), unsent }
    }
}

/// The response of a call, whole values included.
fn response(mut call: Arc<Call>) -> String {
    let result = |result: super::super::GetResult| match result {
        Ok(item) => format!("{:?}", item.map(|item| (item.value, item.flags, item.cas))),
        Err(error) => format!("{error:?}"),
    };
    call.fail(&Error::new(ErrorKind::Timeout, Delivery::NotSent));
    match poll_call::<AnyResponse>(&mut call, &Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(AnyResponse::Get(got))) => result(got),
        Poll::Ready(Ok(AnyResponse::GetMany(got))) => got.into_iter().map(result).collect::<Vec<_>>().join(", "),
        other => format!("{other:?}"),
    }
}

proptest! {
    // More than usual, because most cases end at their first invalid reply.
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(1024)))]

    #[test]
    fn the_fast_path_receives_what_the_full_decoder_does(case in case()) {
        let fast = case.run(|pipeline, input, written, wakes| pipeline.receive(input, written, wakes));
        let full = case.run(|pipeline, input, written, wakes| pipeline.receive_slowly(input, written, wakes));
        prop_assert_eq!(fast, full);
    }
}
