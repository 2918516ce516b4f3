//! The decoder on whatever a server says.

use bytes::BytesMut;
use proptest::prelude::*;
use proptest::sample::select;

use super::corpus::{EXPECTS, TRANSCRIPTS, recorded, wire};
use crate::protocol::{Body, Decoder, Expect, MetaCode, ProtocolError, Reply};

/// All that can be seen of a decoder.
#[derive(Debug, PartialEq)]
struct KeyDedup {
    /// What each reply was, and how many bytes of the whole were gone after it.
    replies: Vec<(Reply, usize)>,
    error: Option<ProtocolError>,
    claimed: Vec<Vec<u8>>,
    inside_a_value: bool,
}

/// Feeds `wire` in pieces of the given sizes, one of what is expected after the other.
fn decode(expects: &[Expect], wire: &[u8], max_value: usize, sizes: &[usize], refuse: Option<u8>) -> KeyDedup {
    let mut decoder = Decoder::new(max_value);
    let mut input = BytesMut::new();
    let mut seen = KeyDedup { replies: Vec::new(), error: None, claimed: Vec::new(), inside_a_value: false };
    let (mut fed, mut sizes) = (0, sizes.iter());
    loop {
        loop {
            let expect = expects[seen.replies.len() % expects.len()];
            let claimed = &mut seen.claimed;
            let decoded = decoder.decode(expect, &mut input, |key| {
                claimed.push(key.to_vec());
                refuse.is_none_or(|byte| !key.contains(&byte))
            });
            // A buffer may grow to twice what it must hold, and by what is read at once.
            assert!(
                input.capacity() <= 4 * (max_value + wire.len() + 64),
                "{} bytes for {}",
                input.capacity(),
                wire.len()
            );
            match decoded {
                Ok(Some(reply)) => seen.replies.push((reply, fed - input.len())),
                Ok(None) => break,
                Err(error) => {
                    seen.error = Some(error);
                    return seen;
                }
            }
        }
        if fed == wire.len() {
            seen.inside_a_value = decoder.is_inside_a_value();
            return seen;
        }
        let piece = sizes.next().copied().unwrap_or(1).clamp(1, wire.len() - fed);
        input.extend_from_slice(&wire[fed..fed + piece]);
        fed += piece;
    }
}

/// Whether a line may be the answer to what is expected, by the text of the protocol.
fn may_answer(expect: Expect, line: &[u8]) -> bool {
    use Expect::*;
    let word = word_of(line);
    let to: &[Expect] = match word {
        b"ERROR" | b"CLIENT_ERROR" | b"SERVER_ERROR" => &EXPECTS,
        b"VALUE" => &[Values],
        b"END" => &[Values, End],
        b"STORED" => &[Stored, Swapped],
        b"NOT_STORED" => &[Stored],
        b"EXISTS" => &[Swapped],
        b"NOT_FOUND" => &[Swapped, Deleted, Touched, Number],
        b"DELETED" => &[Deleted],
        b"TOUCHED" => &[Touched],
        b"VERSION" => &[Version],
        b"OK" => &[Ok, Memlimit],
        b"HD" => &[Meta, MetaStored, MetaRun],
        b"VA" => &[Meta, MetaRun],
        b"EN" => &[Meta, MetaDebug],
        b"NF" | b"NS" | b"EX" => &[Meta, MetaStored],
        b"ME" => &[MetaDebug],
        b"MN" => &[MetaRun, MetaEnd],
        _ if word.starts_with(b"MEMLIMIT_") => &[Memlimit],
        _ if !word.is_empty() && word.iter().all(u8::is_ascii_digit) => &[Number],
        _ => &[],
    };
    to.contains(&expect)
}

fn word_of(line: &[u8]) -> &[u8] {
    line.split(|&byte| byte == b' ').next().unwrap()
}

fn number(word: &[u8]) -> u64 {
    std::str::from_utf8(word).unwrap().parse().unwrap()
}

/// Holds one reply against the bytes it was made of: all of them and no others.
fn assert_is(reply: &Reply, expect: Expect, bytes: &[u8], max_value: usize) {
    let line_end = bytes.windows(2).position(|two| two == b"\r\n").unwrap();
    let (line, rest) = (&bytes[..line_end], &bytes[line_end + 2..]);
    assert!(may_answer(expect, line), "{reply:?} for {expect:?}");
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let body = match reply {
        Reply::Value(value) => {
            assert_eq!(u64::from(value.flags), number(words[2]));
            assert_eq!(value.cas, words.get(4).map(|word| number(word)));
            Some((&value.body, number(words[3])))
        }
        Reply::Meta(reply) if reply.code == MetaCode::Value => Some((reply.value.as_ref().unwrap(), number(words[1]))),
        Reply::Meta(reply) => {
            assert_eq!(reply.value, None);
            None
        }
        Reply::Number(found) => {
            assert_eq!(*found, number(word_of(line)));
            None
        }
        _ => None,
    };
    if let Reply::Meta(reply) = reply
        && reply.code != MetaCode::Debug
    {
        let last = |letter| words[1..].iter().rev().find(|word| word.first() == Some(&letter)).map(|word| &word[1..]);
        assert_eq!(reply.opaque.as_deref(), last(b'O'));
        assert_eq!(reply.key.as_deref(), last(b'k'));
        assert_eq!(reply.cas, last(b'c').map(number));
        assert_eq!(
            (reply.won, reply.stale, reply.sent),
            (last(b'W').is_some(), last(b'X').is_some(), last(b'Z').is_some())
        );
    }
    match body {
        None => assert!(rest.is_empty(), "{} bytes too many", rest.len()),
        Some((body, declared)) => {
            let (value, end) = rest.split_at(usize::try_from(declared).unwrap());
            assert_eq!(end, b"\r\n");
            match body {
                Body::Whole(bytes) => assert!(bytes == value && value.len() <= max_value),
                Body::TooLarge { len } => assert!(*len == value.len() && *len > max_value),
            }
        }
    }
}

fn check(expects: &[Expect], wire: &[u8], max_value: usize, sizes: &[usize], refuse: Option<u8>) {
    let whole = decode(expects, wire, max_value, &[wire.len()], refuse);
    assert_eq!(decode(expects, wire, max_value, sizes, refuse), whole, "in pieces");
    assert_eq!(decode(expects, wire, max_value, &[], refuse), whole, "byte by byte");
    let (mut start, mut values) = (0, 0);
    for (index, (reply, end)) in whole.replies.iter().enumerate() {
        assert_is(reply, expects[index % expects.len()], &wire[start..*end], max_value);
        if let Reply::Value(_) = reply {
            let key = wire[start..].split(|&byte| byte == b' ').nth(1).unwrap();
            assert_eq!(whole.claimed[values], key);
            assert!(refuse.is_none_or(|byte| !key.contains(&byte)), "a value that was refused");
            values += 1;
        }
        start = *end;
    }
    // One more at most: of a value that has not come, or was refused.
    assert!(whole.claimed.len() - values <= 1);
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(1usize..200, 0..40)
}

fn max_value() -> impl Strategy<Value = usize> {
    select(vec![0, 3, 4, 100, 1000])
}

fn refuse() -> impl Strategy<Value = Option<u8>> {
    prop::option::weighted(0.2, select(b"akf0".to_vec()))
}

#[test]
fn every_recorded_answer_is_understood() {
    let mut answers = 0;
    for known in TRANSCRIPTS.iter() {
        let Some(expect) = EXPECTS.into_iter().find(|expect| format!("{expect:?}") == known.expect) else { continue };
        // After an error where values should be, nothing is believed: some servers say more than one line then.
        let spoilt = expect == Expect::Values && known.answer.starts_with(b"CLIENT_ERROR");
        let answer =
            if spoilt { known.answer.strip_suffix(b"\r\n\r\n").map(|line| [line, b"\r\n"].concat()) } else { None };
        let answer = answer.as_ref().unwrap_or(&known.answer);
        let seen = decode(&[expect], answer, 1 << 20, &[answer.len()], None);
        assert_eq!((seen.error, seen.inside_a_value), (None, false), "{expect:?}: {}", answer.escape_ascii());
        let (last, end) = seen.replies.last().unwrap();
        assert_eq!(*end, answer.len());
        let is_last = match last {
            Reply::Value(_) => false,
            Reply::Meta(reply) if expect == Expect::MetaRun => reply.code == MetaCode::End,
            _ => true,
        };
        assert!(is_last, "{expect:?} ends with {last:?}");
        check(&[expect], answer, 100, &[7, 1, 30], None);
        answers += 1;
    }
    assert!(answers > 150, "{answers} answers");
}

proptest! {
    #[test]
    fn classic(
        wire in wire(recorded(|expect| !["Stats", "Dump"].contains(&expect) && !expect.starts_with("Meta"))),
        expects in prop_oneof![
            3 => Just(vec![Expect::Values]),
            2 => prop::collection::vec(select(&EXPECTS[..]), 1..5),
        ],
        (sizes, max_value, refuse) in (sizes(), max_value(), refuse()),
    ) {
        check(&expects, &wire, max_value, &sizes, refuse);
    }

    #[test]
    fn meta(
        wire in wire(recorded(|expect| expect.starts_with("Meta"))),
        expects in prop_oneof![
            2 => Just(vec![Expect::Meta]),
            3 => Just(vec![Expect::MetaRun]),
            2 => prop::collection::vec(select(&EXPECTS[..]), 1..5),
        ],
        (sizes, max_value, refuse) in (sizes(), max_value(), refuse()),
    ) {
        check(&expects, &wire, max_value, &sizes, refuse);
    }
}
