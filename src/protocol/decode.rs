//! Bytes to replies, however they are split on the way.
//!
//! The decoder is handed the read buffer again and again as it grows. It takes whole replies off its front and
//! remembers how far it has looked, so that a byte is looked at once: a long answer that comes in many small pieces costs
//! no more than one that comes at once.

use bytes::{Buf, Bytes, BytesMut};

use super::large::LargeValue;
use super::meta::{self, MetaReply};
use super::{Body, ErrorLine, Expect, ProtocolError, Reply, Value, scan};

/// Longer than any `VALUE` line (a key of 250 bytes and three numbers) and any error line a server is known to send.
const MAX_LINE: usize = 2048;

/// Values from this size on have a buffer of their own, into which the socket is read; smaller ones are copied out of the
/// read buffer, which a value that is kept is not to keep.
const COPY_BELOW: usize = 8 * 1024;

/// Values up to [`LARGEST_SHARED`] share allocations of this size: one for every few values, not for each, which is a
/// third of what a small value costs. So a small value that is kept keeps this much at most.
const SHARED_CHUNK: usize = 1024;
const LARGEST_SHARED: usize = SHARED_CHUNK / 4;

#[derive(Debug)]
pub(crate) struct Decoder {
    /// Values longer than this are read past.
    max_value: usize,
    state: State,
    /// Room for small values.
    chunk: BytesMut,
}

#[derive(Debug)]
enum State {
    /// At the start of a line, of which the first `scanned` bytes hold no line end.
    Line { scanned: usize },
    /// After a line that announces a value.
    Body { header: Header, len: usize },
    /// Inside a value that goes into a buffer of its own. Until it is whole, `input` is left empty.
    Large { header: Header, value: LargeValue },
    /// Inside a value that is too long to be kept.
    Skip { header: Header, len: usize, left: usize },
}

/// What the line before a value said.
#[derive(Debug)]
enum Header {
    Value { flags: u32, cas: Option<u64> },
    Meta(Box<MetaReply>),
}

impl Header {
    fn with(self, body: Body) -> Reply {
        match self {
            Self::Value { flags, cas } => Reply::Value(Value { flags, cas, body }),
            Self::Meta(mut reply) => {
                reply.value = Some(body);
                Reply::Meta(reply)
            }
        }
    }
}

impl Decoder {
    pub(crate) fn new(max_value: usize) -> Self {
        Self { max_value, state: State::Line { scanned: 0 }, chunk: BytesMut::new() }
    }

    /// Whether a reply has begun that is not yet whole. (Bytes of an unfinished line are still in the buffer.)
    #[inline]
    pub(crate) fn is_inside_a_value(&self) -> bool {
        !matches!(self.state, State::Line { .. })
    }

    /// Inside a large value, the room for more of it, to be read into instead of the read buffer.
    pub(crate) fn room_in_large_value(&mut self) -> Option<&mut Vec<u8>> {
        match &mut self.state {
            State::Large { value, .. } => Some(value.room()),
            _ => None,
        }
    }

    /// Whether [`decode`](Self::decode) has something to give even if there is no input.
    pub(crate) fn holds_a_whole_value(&self) -> bool {
        matches!(&self.state, State::Large { value, .. } if value.is_whole())
    }

    /// Takes the next reply off the front of `input`, or says `None` until more of it has come.
    ///
    /// `claim` is given the key of each `VALUE` line, once and before its body is waited for, and says whether it was
    /// asked for.
    pub(crate) fn decode(
        &mut self,
        expect: Expect,
        input: &mut BytesMut,
        claim: impl FnOnce(&[u8]) -> bool,
    ) -> Result<Option<Reply>, ProtocolError> {
        if let State::Line { scanned } = self.state {
            let Some(end) = memchr::memchr(b'\n', &input[scanned..]).map(|at| scanned + at) else {
                if input.len() > MAX_LINE {
                    return Err(ProtocolError::LineTooLong);
                }
                self.state = State::Line { scanned: input.len() };
                return Ok(None);
            };
            if end > MAX_LINE {
                return Err(ProtocolError::LineTooLong);
            }
            let line = input[..end].strip_suffix(b"\r").ok_or(ProtocolError::Malformed)?;
            let (header, len) = if let Some(value_line) = line.strip_prefix(b"VALUE ") {
                if expect != Expect::Values {
                    return Err(ProtocolError::OutOfStep);
                }
                let ValueLine { key, flags, cas, len } = ValueLine::parse(value_line)?;
                if !claim(key) {
                    return Err(ProtocolError::WrongKey);
                }
                (Header::Value { flags, cas }, len)
            } else {
                let (reply, len) = reply_line(line, expect)?;
                if !expect.admits(&reply) {
                    return Err(ProtocolError::OutOfStep);
                }
                match (reply, len) {
                    (Reply::Meta(reply), Some(len)) => (Header::Meta(reply), len),
                    (reply, _) => {
                        input.advance(end + 1);
                        self.state = State::Line { scanned: 0 };
                        return Ok(Some(reply));
                    }
                }
            };
            input.advance(end + 1);
            self.state = if len > self.max_value {
                State::Skip { header, len, left: len }
            } else if len < COPY_BELOW {
                State::Body { header, len }
            } else {
                State::Large { header, value: LargeValue::new(len) }
            };
        }
        self.decode_body(input)
    }

    /// What nearly every value is: whole, small, and of the key that is next in turn. Says how many bytes at the front of
    /// `input` it takes, which the caller takes off. Anything else is left to [`decode`](Self::decode), which would
    /// have said the same.
    #[inline]
    pub(crate) fn next_value(&mut self, input: &[u8], key: &[u8]) -> Option<(Value, usize)> {
        let State::Line { .. } = self.state else { return None };
        let rest = input.strip_prefix(b"VALUE ")?.strip_prefix(key)?.strip_prefix(b" ")?;
        let (flags, rest) = scan::leading_number(rest)?;
        let (len, mut rest) = scan::leading_number(rest.strip_prefix(b" ")?)?;
        let mut cas = None;
        if let Some(after) = rest.strip_prefix(b" ") {
            let (version, after) = scan::leading_number(after)?;
            (cas, rest) = (Some(version), after);
        }
        let len = usize::try_from(len).ok().filter(|&len| len < COPY_BELOW && len <= self.max_value)?;
        let (body, rest) = rest.strip_prefix(b"\r\n")?.split_at_checked(len)?;
        let rest = rest.strip_prefix(b"\r\n")?;
        let flags = u32::try_from(flags).ok()?;
        self.begin_line();
        let value = Value { flags, cas, body: Body::Whole(self.copy(body)) };
        Some((value, input.len() - rest.len()))
    }

    #[inline]
    fn copy(&mut self, body: &[u8]) -> Bytes {
        if body.is_empty() || body.len() > LARGEST_SHARED {
            return Bytes::copy_from_slice(body);
        }
        if self.chunk.capacity() < body.len() {
            self.chunk = BytesMut::with_capacity(SHARED_CHUNK);
        }
        self.chunk.extend_from_slice(body);
        self.chunk.split().freeze()
    }

    /// A reply of one word, such as `END`, if it stands whole at the front of `input`, and the bytes it takes. As
    /// [`next_value`](Self::next_value) in all else.
    #[inline]
    pub(crate) fn next_word(&mut self, input: &[u8], word: &str) -> Option<usize> {
        let rest = input.strip_prefix(word.as_bytes())?;
        if self.is_inside_a_value() || !rest.starts_with(b"\r\n") {
            return None;
        }
        self.begin_line();
        Some(word.len() + 2)
    }

    /// A line has been taken, and another begins.
    #[inline]
    fn begin_line(&mut self) {
        if let State::Line { scanned } = &mut self.state {
            *scanned = 0;
        }
    }

    fn decode_body(&mut self, input: &mut BytesMut) -> Result<Option<Reply>, ProtocolError> {
        match &mut self.state {
            State::Line { .. } => return Ok(None),
            State::Body { len, .. } => {
                if input.len() < *len + 2 {
                    input.reserve(*len + 2 - input.len());
                    return Ok(None);
                }
            }
            State::Large { value, .. } => {
                value.take_from(input);
                if !value.is_whole() {
                    return Ok(None);
                }
            }
            State::Skip { left, .. } => {
                let skipped = (*left).min(input.len());
                input.advance(skipped);
                *left -= skipped;
                if input.len() < 2 {
                    return Ok(None);
                }
            }
        }
        let (header, body) = match std::mem::replace(&mut self.state, State::Line { scanned: 0 }) {
            State::Line { .. } => return Ok(None),
            State::Body { header, len } => {
                let body = Bytes::copy_from_slice(&input[..len]);
                input.advance(len);
                (header, Body::Whole(body))
            }
            State::Large { header, value } => return Ok(Some(header.with(Body::Whole(value.finish(input)?)))),
            State::Skip { header, len, .. } => (header, Body::TooLarge { len }),
        };
        if input[..2] != *b"\r\n" {
            return Err(ProtocolError::MissingTerminator);
        }
        input.advance(2);
        Ok(Some(header.with(body)))
    }
}

/// What follows `VALUE `.
struct ValueLine<'a> {
    key: &'a [u8],
    flags: u32,
    len: usize,
    cas: Option<u64>,
}

impl<'a> ValueLine<'a> {
    fn parse(line: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut fields = line.split(|&byte| byte == b' ');
        let mut field = || fields.next();
        let parsed = (|| {
            let key = field()?;
            let flags = u32::try_from(scan::number(field()?)?).ok()?;
            let len = scan::length(field()?)?;
            let cas = match field() {
                Some(digits) => Some(scan::number(digits)?),
                None => None,
            };
            field().is_none().then_some(Self { key, flags, len, cas })
        })();
        parsed.ok_or(ProtocolError::Malformed)
    }
}

/// Any line but a `VALUE`, and the length of the data block it announces, if it does.
fn reply_line(line: &[u8], expect: Expect) -> Result<(Reply, Option<usize>), ProtocolError> {
    if expect.is_meta() && meta::is_meta_line(line) {
        let (reply, len) = meta::parse(line)?;
        return Ok((Reply::Meta(Box::new(reply)), len));
    }
    Ok((simple_reply(line, expect)?, None))
}

fn simple_reply(line: &[u8], expect: Expect) -> Result<Reply, ProtocolError> {
    Ok(match line {
        b"END" => Reply::End,
        b"STORED" => Reply::Stored,
        b"NOT_STORED" => Reply::NotStored,
        b"EXISTS" => Reply::Exists,
        b"DELETED" => Reply::Deleted,
        b"TOUCHED" => Reply::Touched,
        b"NOT_FOUND" => Reply::NotFound,
        b"OK" => Reply::Ok,
        _ => {
            if let Some(refusal) = error_line(line) {
                return Ok(Reply::ErrorLine(refusal));
            }
            if expect == Expect::Memlimit && line.starts_with(b"MEMLIMIT_") {
                return Ok(Reply::ErrorLine(ErrorLine(printable(line))));
            }
            if let Some(version) = line.strip_prefix(b"VERSION ") {
                return Ok(Reply::Version(printable(version)));
            }
            // Only where a number is due: elsewhere a line of digits is no reply at all.
            if expect == Expect::Number {
                // Old servers pad a shrunken number to its former length.
                let digits = line.iter().rposition(|&byte| byte != b' ').map_or(line, |last| &line[..=last]);
                return scan::number(digits).map(Reply::Number).ok_or(ProtocolError::Malformed);
            }
            return Err(ProtocolError::Malformed);
        }
    })
}

pub(super) fn error_line(line: &[u8]) -> Option<ErrorLine> {
    let starts = |word: &[u8]| line.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest[0] == b' ');
    (starts(b"ERROR") || starts(b"CLIENT_ERROR") || starts(b"SERVER_ERROR")).then(|| ErrorLine::new(line))
}

/// A server's own words, made safe for a log and no longer than a line of one.
pub(super) fn printable(text: &[u8]) -> Box<str> {
    text.iter().take(160).map(|&byte| if (b' '..=b'~').contains(&byte) { char::from(byte) } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode_all(expect: Expect, wire: &[u8]) -> Result<Vec<Reply>, ProtocolError> {
        decode_split(expect, wire, std::iter::repeat(wire.len()))
    }

    /// Feeds `wire` in pieces of the given sizes and takes whatever comes; twice, for what is inside a large value may come
    /// by either way.
    fn decode_split(
        expect: Expect,
        wire: &[u8],
        sizes: impl IntoIterator<Item = usize> + Clone,
    ) -> Result<Vec<Reply>, ProtocolError> {
        let by_input = decode_fed(expect, wire, sizes.clone(), false);
        assert_eq!(by_input, decode_fed(expect, wire, sizes, true));
        by_input
    }

    fn decode_fed(
        expect: Expect,
        wire: &[u8],
        sizes: impl IntoIterator<Item = usize>,
        into_values: bool,
    ) -> Result<Vec<Reply>, ProtocolError> {
        let (mut decoder, mut input, mut replies) = (Decoder::new(1 << 20), BytesMut::new(), Vec::new());
        let (mut rest, mut sizes) = (wire, sizes.into_iter());
        loop {
            while let Some(reply) = decoder.decode(expect, &mut input, |_| true)? {
                replies.push(reply);
            }
            assert!(!decoder.holds_a_whole_value());
            if rest.is_empty() {
                return Ok(replies);
            }
            let size = sizes.next().unwrap_or(1).clamp(1, rest.len());
            let (piece, after) = match decoder.room_in_large_value().filter(|_| into_values) {
                Some(room) => {
                    let (piece, after) = rest.split_at(size.min(room.capacity() - room.len()));
                    room.extend_from_slice(piece);
                    assert!(input.is_empty());
                    (piece, after)
                }
                None => {
                    let (piece, after) = rest.split_at(size);
                    input.extend_from_slice(piece);
                    (piece, after)
                }
            };
            assert!(!piece.is_empty());
            rest = after;
        }
    }

    fn whole(text: &str) -> Body {
        Body::Whole(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn values_are_byte_exact() {
        let wire = b"VALUE k 7 16\r\nEND\r\nflush_all\r\n\r\nVALUE l 4294967295 0 9\r\n\r\nEND\r\n";
        let replies = decode_all(Expect::Values, wire).unwrap();
        let first = Value { flags: 7, cas: None, body: whole("END\r\nflush_all\r\n") };
        let second = Value { flags: u32::MAX, cas: Some(9), body: whole("") };
        assert_eq!(replies, [Reply::Value(first), Reply::Value(second), Reply::End]);
    }

    #[test]
    fn the_next_value_is_what_the_whole_decoder_makes_of_it() {
        let long = format!("VALUE k 1 {COPY_BELOW}\r\n{}\r\n", "x".repeat(COPY_BELOW));
        let taken = ["VALUE k 7 3\r\nabc\r\n", "VALUE k 0 0 12\r\n\r\nEND\r\n", "VALUE k 4294967295 2\r\n\r\n\r\nx"];
        let left = [
            "",
            "END\r\n",
            "VALUE l 7 3\r\nabc\r\n",
            "VALUE kk 7 3\r\nabc\r\n",
            "VALUE k 7 3\r\nabcd\r\n",
            "VALUE k 7 3\r\nabc\r",
            "VALUE k 7 3 \r\nabc\r\n",
            "VALUE k 7 3 1 \r\nabc\r\n",
            "VALUE k 7 3 1 2\r\nabc\r\n",
            "VALUE k 7 3\nabc\r\n",
            "VALUE k  3\r\nabc\r\n",
            "VALUE k 7 \r\n\r\n",
            "VALUE k 4294967296 3\r\nabc\r\n",
            "VALUE k 7 18446744073709551616\r\nabc\r\n",
            "VALUE k 7 11\r\n01234567890\r\n",
            &long,
        ];
        for (wire, is_taken) in taken.into_iter().map(|wire| (wire, true)).chain(left.map(|wire| (wire, false))) {
            let mut decoder = Decoder::new(if wire.len() > 100 { 1 << 20 } else { 10 });
            let next = decoder.next_value(wire.as_bytes(), b"k");
            assert_eq!(next.is_some(), is_taken, "{wire}");
            if let Some((value, len)) = next {
                let mut input = BytesMut::from(wire);
                let decoded = decoder.decode(Expect::Values, &mut input, |key| key == b"k");
                assert_eq!(decoded, Ok(Some(Reply::Value(value))));
                assert_eq!(input.len(), wire.len() - len);
            }
        }
    }

    #[test]
    fn small_values_share_allocations_and_are_their_own_all_the_same() {
        let mut decoder = Decoder::new(1 << 20);
        let values: Vec<Bytes> = (0..100u8).map(|n| decoder.copy(&vec![n; usize::from(n) * 3])).collect();
        for (n, value) in (0..).zip(&values) {
            assert_eq!(*value, vec![n; usize::from(n) * 3]);
        }
        let adjoin = values.windows(2).filter(|two| two[0].as_ptr_range().end == two[1].as_ptr()).count();
        assert!(adjoin > 50, "{adjoin}");
    }

    #[test]
    fn the_next_word_is_a_whole_line() {
        let mut decoder = Decoder::new(1 << 20);
        assert_eq!(decoder.next_word(b"END\r\nEND\r\n", "END"), Some(5));
        for other in ["", "END", "END\r", "END\n", "ENDS\r\n", "STORED\r\n"] {
            assert_eq!(decoder.next_word(other.as_bytes(), "END"), None, "{other:?}");
        }
    }

    #[test]
    fn small_values_share_room_and_nothing_else() {
        let mut decoder = Decoder::new(1 << 20);
        let bodies: Vec<Vec<u8>> = (0..200_u8).map(|n| vec![n; usize::from(n) % 60 + 1]).collect();
        let values: Vec<Bytes> = bodies.iter().map(|body| decoder.copy(body)).collect();
        assert!(decoder.chunk.capacity() <= SHARED_CHUNK);
        assert!(values.iter().zip(&bodies).all(|(value, body)| value == body));
        let alone = [decoder.copy(&[1; LARGEST_SHARED + 1]), decoder.copy(b"")];
        assert!(alone.iter().all(|value| value.is_unique() || value.is_empty()));
        // Whoever changes one, as only its sole owner can, changes no other.
        drop(decoder);
        let mut values = values.into_iter();
        let (first, second) = (values.next().unwrap(), values.next().unwrap());
        let mut first = BytesMut::from(first);
        first.fill(0xff);
        assert_eq!((second, values.next().unwrap()), (bodies[1].clone().into(), bodies[2].clone().into()));
    }

    #[test]
    fn inside_a_value_nothing_is_next() {
        let mut decoder = Decoder::new(1 << 20);
        let mut input = BytesMut::from("VALUE k 0 26\r\n");
        assert_eq!(decoder.decode(Expect::Values, &mut input, |_| true), Ok(None));
        input.extend_from_slice(b"VALUE k 0 5\r\nVALUE\r\n");
        assert_eq!(decoder.next_value(&input, b"k"), None);
        assert_eq!(decoder.next_word(b"END\r\n", "END"), None);
    }

    #[test]
    fn each_line_answers_only_what_it_can_answer() {
        use Expect::*;
        let cases = [
            ("STORED", Reply::Stored, vec![Stored, Swapped]),
            ("EXISTS", Reply::Exists, vec![Swapped]),
            ("NOT_STORED", Reply::NotStored, vec![Stored]),
            ("DELETED", Reply::Deleted, vec![Deleted]),
            ("TOUCHED", Reply::Touched, vec![Touched]),
            ("NOT_FOUND", Reply::NotFound, vec![Swapped, Deleted, Touched, Number]),
            ("18446744073709551615", Reply::Number(u64::MAX), vec![Number]),
            ("5  ", Reply::Number(5), vec![Number]),
            ("VERSION 1.6.18", Reply::Version("1.6.18".into()), vec![Version]),
            ("OK", Reply::Ok, vec![Ok, Memlimit]),
            (
                "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m",
                Reply::ErrorLine(ErrorLine("MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m".into())),
                vec![Memlimit],
            ),
            ("END", Reply::End, vec![Values, End]),
        ];
        for (line, reply, fits) in cases {
            for expect in [Values, End, Stored, Swapped, Deleted, Touched, Number, Version, Ok, Memlimit] {
                let decoded = decode_all(expect, format!("{line}\r\n").as_bytes());
                if fits.contains(&expect) {
                    assert_eq!(decoded.as_deref(), Result::Ok(&[reply.clone()][..]), "{line} for {expect:?}");
                } else {
                    assert!(decoded.is_err(), "{line} for {expect:?}");
                }
            }
        }
    }

    #[test]
    fn garbage_is_an_error_and_never_a_reply() {
        let long = format!("VALUE {}", "x".repeat(MAX_LINE));
        for line in [
            "",
            "STORED ",
            " STORED",
            "STORE",
            "END\rx",
            "VALUE",
            "VALUE k",
            "VALUE k 0",
            "VALUE k 0 x",
            "VALUE k 0 -1",
            "VALUE k 0 +1",
            "VALUE k 4294967296 1",
            "VALUE k 0 1 2 3",
            "VALUE k 0 1 ",
            "VALUE k  0 1",
            "VALUE k 0 1073741825",
            "VALUE k 0 18446744073709551616",
            "VALUE k 0 1 x",
            "value k 0 1",
            "ERRORS",
            "12x",
            "12\r",
            "12 \t",
            "-1",
            &long,
        ] {
            for expect in [Expect::Values, Expect::Stored, Expect::Swapped, Expect::Number, Expect::Memlimit] {
                let decoded = decode_all(expect, format!("{line}\r\n").as_bytes());
                assert!(decoded.is_err(), "{line:?} for {expect:?}: {decoded:?}");
            }
        }
        assert_eq!(decode_all(Expect::Stored, b"STORED\n"), Err(ProtocolError::Malformed));
        assert_eq!(decode_all(Expect::Values, b"VALUE k 0 1\r\nab\r\n"), Err(ProtocolError::MissingTerminator));
        assert_eq!(decode_all(Expect::Values, &[b'x'; MAX_LINE + 1]), Err(ProtocolError::LineTooLong));
    }

    #[test]
    fn a_key_not_asked_for_is_refused_before_its_body() {
        let mut input = BytesMut::from("VALUE other 0 1000\r\n");
        let decoded = Decoder::new(1 << 20).decode(Expect::Values, &mut input, |key| key == b"mine");
        assert_eq!(decoded, Err(ProtocolError::WrongKey));
    }

    #[test]
    fn no_byte_of_a_line_is_looked_at_twice() {
        let mut decoder = Decoder::new(1000);
        let mut input = BytesMut::new();
        for (at, byte) in b"VALUE k 0 1".iter().enumerate() {
            input.extend_from_slice(&[*byte]);
            assert_eq!(decoder.decode(Expect::Values, &mut input, |_| true), Ok(None));
            assert!(matches!(decoder.state, State::Line { scanned } if scanned == at + 1));
        }
    }

    #[test]
    fn a_declared_length_is_no_reason_to_allocate() {
        let mut decoder = Decoder::new(1000);
        let mut input = BytesMut::from("VALUE k 0 1001\r\n");
        assert_eq!(decoder.decode(Expect::Values, &mut input, |_| true), Ok(None));
        assert!(input.capacity() < 1000);
        for _ in 0..1001 {
            input.extend_from_slice(b"v");
            assert_eq!(decoder.decode(Expect::Values, &mut input, |_| true), Ok(None));
        }
        assert!(input.capacity() < 1000, "the body is not gathered");
        input.extend_from_slice(b"\r\nEND\r\n");
        let skipped = Value { flags: 0, cas: None, body: Body::TooLarge { len: 1001 } };
        assert_eq!(decoder.decode(Expect::Values, &mut input, |_| true), Ok(Some(Reply::Value(skipped))));
        assert_eq!(decoder.decode(Expect::Values, &mut input, |_| true), Ok(Some(Reply::End)));
    }

    #[test]
    fn which_error_lines_a_connection_survives() {
        let survives = |expect: Expect, line: &str| {
            let replies = decode_all(expect, format!("{line}\r\n").as_bytes()).unwrap();
            let [Reply::ErrorLine(refusal)] = &replies[..] else { panic!("{line}: {replies:?}") };
            expect.survives(refusal)
        };
        for line in ["ERROR", "CLIENT_ERROR line too long", "SERVER_ERROR out of memory writing get response"] {
            assert!(!survives(Expect::Values, line));
            assert!(survives(Expect::Number, line) && survives(Expect::Ok, line) && survives(Expect::Memlimit, line));
            assert!(!survives(Expect::Stored, line) && !survives(Expect::Swapped, line));
        }
        for expect in [Expect::Stored, Expect::Swapped] {
            assert!(survives(expect, "SERVER_ERROR object too large for cache"));
            assert!(survives(expect, "SERVER_ERROR out of memory storing object"));
            assert!(!survives(expect, "CLIENT_ERROR bad data chunk"));
        }
        for line in ["unauthenticated", "authentication failure", "bad authentication token format"] {
            for expect in [Expect::Number, Expect::Stored, Expect::Ok, Expect::Values] {
                assert!(!survives(expect, &format!("CLIENT_ERROR {line}")), "{line}");
            }
        }
    }

    fn any_wire() -> impl Strategy<Value = Vec<u8>> {
        let large = prop_oneof![COPY_BELOW - 2..COPY_BELOW + 3, 0..4 * COPY_BELOW];
        let large =
            (large, any::<u8>()).prop_map(|(len, first)| (first..=255).chain(0..250).cycle().take(len).collect());
        let body = prop_oneof![2 => prop::collection::vec(any::<u8>(), 0..600), 1 => large];
        let value = (body, any::<u32>(), prop::option::of(any::<u64>()));
        prop::collection::vec(value, 0..8).prop_map(|values| {
            let mut wire = Vec::new();
            for (body, flags, cas) in values {
                let cas = cas.map(|cas| format!(" {cas}")).unwrap_or_default();
                wire.extend_from_slice(format!("VALUE k {flags} {}{cas}\r\n", body.len()).as_bytes());
                wire.extend_from_slice(&body);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"END\r\n");
            wire
        })
    }

    fn pieces() -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(prop_oneof![1usize..300, 1..3 * COPY_BELOW], 0..50)
    }

    proptest! {
        #[test]
        fn any_split_decodes_as_the_whole(wire in any_wire(), sizes in pieces()) {
            let whole = decode_all(Expect::Values, &wire);
            prop_assert!(whole.is_ok());
            prop_assert_eq!(&decode_split(Expect::Values, &wire, sizes), &whole);
            prop_assert_eq!(&decode_split(Expect::Values, &wire, []), &whole);
        }

        #[test]
        fn any_bytes_are_survived(wire in prop::collection::vec(any::<u8>(), 0..400), cut in 0usize..400) {
            for expect in [Expect::Values, Expect::Swapped, Expect::Number, Expect::Version, Expect::Memlimit] {
                let whole = decode_all(expect, &wire);
                let split = decode_split(expect, &wire, [cut.max(1)]);
                prop_assert_eq!(whole.is_ok(), split.is_ok());
            }
        }
    }
}
