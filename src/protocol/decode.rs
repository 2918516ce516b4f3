//! Decodes replies from bytes that arrive in pieces of any size.
//!
//! The decoder is called again each time the read buffer has grown. It removes complete replies from the front, and
//! remembers how far it has searched for a line end, so that it searches each byte once: a response in many small
//! segments costs no more than one in a single segment.

use bytes::{Buf, Bytes, BytesMut};

use super::large_value::{BodyProgress, LargeValue};
use super::meta::{self, MetaReply};
use super::{Body, ErrorLine, ProtocolError, Reply, ReplyKind, Value, number};

/// The longest reply line. `VALUE` lines (a key of 250 bytes and three numbers) and all known error lines are shorter.
const MAX_LINE: usize = 2048;

/// Values of this size or larger are received in their own buffer, which the socket is read into.
///
/// Smaller values are copied out of the read buffer, so that a value the caller keeps does not keep the read buffer
/// alive.
const COPY_BELOW: usize = 8 * 1024;

/// The size of an allocation that several values of up to [`LARGEST_SHARED`] bytes share.
///
/// An allocation for each value would be a third of the cost of a small value. A small value that the caller keeps
/// holds at most this much memory.
const SHARED_CHUNK: usize = 1024;
const LARGEST_SHARED: usize = SHARED_CHUNK / 4;

/// Decodes the replies on one connection.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// Longer values are read and dropped.
    max_value: usize,
    state: State,
    /// The current shared allocation for small values.
    chunk: BytesMut,
}

#[derive(Debug)]
enum State {
    /// At the start of a line. Its first `scanned` bytes hold no line end.
    Line { scanned: usize },
    /// After a line that announces a value.
    Body { header: Header, len: usize },
    /// Inside a value with its own buffer. `input` stays empty until the value is complete.
    Large { header: Header, value: LargeValue },
    /// Inside a value over the limit, of which `left` bytes are not yet dropped.
    Skip { header: Header, len: usize, left: usize },
}

/// The parsed line before a value.
#[derive(Debug)]
enum Header {
    Value { flags: u32, cas: Option<u64> },
    Meta(Box<MetaReply>),
}

impl Header {
    fn with_body(self, body: Body) -> Reply {
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
    /// Creates a decoder that drops values over `max_value` bytes.
    pub(crate) fn new(max_value: usize) -> Self {
        Self { max_value, state: State::Line { scanned: 0 }, chunk: BytesMut::new() }
    }

    /// Returns whether a value has begun and is not complete. (The bytes of an incomplete line are still in the input.)
    #[inline]
    pub(crate) fn is_inside_value(&self) -> bool {
        !matches!(self.state, State::Line { .. })
    }

    /// Returns how much has arrived of the value that has begun: of its body and the `\r\n` after it. `input` is what
    /// [`decode`](Self::decode) has left.
    pub(crate) fn progress(&self, input: &BytesMut) -> Option<BodyProgress> {
        match &self.state {
            State::Line { .. } => None,
            State::Body { len, .. } => Some(BodyProgress { arrived: input.len(), len: *len }),
            State::Large { value, .. } => Some(value.progress()),
            State::Skip { len, left, .. } => Some(BodyProgress { arrived: len - left + input.len(), len: *len }),
        }
    }

    /// Returns the buffer of the current large value, to read into instead of the usual input.
    pub(crate) fn large_value_buffer(&mut self) -> Option<&mut Vec<u8>> {
        match &mut self.state {
            State::Large { value, .. } => Some(value.buffer()),
            _ => None,
        }
    }

    /// Returns whether [`decode`](Self::decode) gives a reply even without input.
    pub(crate) fn has_complete_large_value(&self) -> bool {
        matches!(&self.state, State::Large { value, .. } if value.is_complete())
    }

    /// Removes the next reply from the front of `input`. Returns `None` if the reply is not complete.
    ///
    /// `claim` is called with the key of each `VALUE` line, once, before the value has arrived. It returns whether that
    /// key was requested.
    pub(crate) fn decode(
        &mut self,
        reply_kind: ReplyKind,
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
            let (header, len) = if let Some(fields) = line.strip_prefix(b"VALUE ") {
                if reply_kind != ReplyKind::Values {
                    return Err(ProtocolError::UnexpectedReply);
                }
                let ValueLine { key, flags, cas, len } = ValueLine::parse(fields)?;
                if !claim(key) {
                    return Err(ProtocolError::WrongKey);
                }
                (Header::Value { flags, cas }, len)
            } else {
                let (reply, len) = parse_line(line, reply_kind)?;
                if !reply_kind.accepts(&reply) {
                    return Err(ProtocolError::UnexpectedReply);
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

    /// Decodes the common case: a complete small value of the next requested key at the front of `input`.
    ///
    /// Returns the value and how many bytes it takes; the caller removes them. Returns `None` in every other case,
    /// which [`decode`](Self::decode) must handle. `decode` gives the same result, only slower.
    #[inline]
    pub(crate) fn decode_value_fast(&mut self, input: &[u8], key: &[u8]) -> Option<(Value, usize)> {
        let State::Line { .. } = self.state else { return None };
        let rest = input.strip_prefix(b"VALUE ")?.strip_prefix(key)?.strip_prefix(b" ")?;
        let (flags, rest) = number::parse_prefix(rest)?;
        let (len, mut rest) = number::parse_prefix(rest.strip_prefix(b" ")?)?;
        let mut cas = None;
        if let Some(after) = rest.strip_prefix(b" ") {
            let (unique, after) = number::parse_prefix(after)?;
            (cas, rest) = (Some(unique), after);
        }
        let len = usize::try_from(len).ok().filter(|&len| len < COPY_BELOW && len <= self.max_value)?;
        let (body, rest) = rest.strip_prefix(b"\r\n")?.split_at_checked(len)?;
        let rest = rest.strip_prefix(b"\r\n")?;
        let flags = u32::try_from(flags).ok()?;
        self.begin_line();
        let value = Value { flags, cas, body: Body::Whole(self.copy(body)) };
        Some((value, input.len() - rest.len()))
    }

    /// Copies a value, into the shared allocation if it is small.
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

    /// Decodes the one-word reply `word`, such as `END`, if its line is complete at the front of `input`.
    ///
    /// Returns how many bytes the line takes; otherwise works as [`decode_value_fast`](Self::decode_value_fast).
    #[inline]
    pub(crate) fn decode_word_fast(&mut self, input: &[u8], word: &str) -> Option<usize> {
        let rest = input.strip_prefix(word.as_bytes())?;
        if self.is_inside_value() || !rest.starts_with(b"\r\n") {
            return None;
        }
        self.begin_line();
        Some(word.len() + 2)
    }

    /// Records that a line was taken, so the next one is unscanned.
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
                if !value.is_complete() {
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
            State::Large { header, value } => return Ok(Some(header.with_body(Body::Whole(value.finish(input)?)))),
            State::Skip { header, len, .. } => (header, Body::TooLarge { len }),
        };
        if input[..2] != *b"\r\n" {
            return Err(ProtocolError::MissingTerminator);
        }
        input.advance(2);
        Ok(Some(header.with_body(body)))
    }
}

/// The fields after `VALUE `.
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
            let flags = u32::try_from(number::parse(field()?)?).ok()?;
            let len = number::parse_len(field()?)?;
            let cas = match field() {
                Some(digits) => Some(number::parse(digits)?),
                None => None,
            };
            field().is_none().then_some(Self { key, flags, len, cas })
        })();
        parsed.ok_or(ProtocolError::Malformed)
    }
}

/// Parses any line but a `VALUE`; also returns the length of the data block, if the line announces one.
fn parse_line(line: &[u8], reply_kind: ReplyKind) -> Result<(Reply, Option<usize>), ProtocolError> {
    if reply_kind.is_meta() && meta::is_meta_line(line) {
        let (reply, len) = meta::parse(line)?;
        return Ok((Reply::Meta(Box::new(reply)), len));
    }
    Ok((parse_classic_line(line, reply_kind)?, None))
}

fn parse_classic_line(line: &[u8], reply_kind: ReplyKind) -> Result<Reply, ProtocolError> {
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
            if let Some(error_line) = error_line(line) {
                return Ok(Reply::ErrorLine(error_line));
            }
            if reply_kind == ReplyKind::Memlimit && line.starts_with(b"MEMLIMIT_") {
                return Ok(Reply::ErrorLine(ErrorLine(printable(line))));
            }
            if let Some(version) = line.strip_prefix(b"VERSION ") {
                return Ok(Reply::Version(printable(version)));
            }
            // Only if a number is expected: no other request has a reply of digits.
            if reply_kind == ReplyKind::Number {
                // Old servers pad a number that got shorter with spaces.
                let digits = line.iter().rposition(|&byte| byte != b' ').map_or(line, |last| &line[..=last]);
                return number::parse(digits).map(Reply::Number).ok_or(ProtocolError::Malformed);
            }
            return Err(ProtocolError::Malformed);
        }
    })
}

/// Parses a line that begins with `ERROR`, `CLIENT_ERROR` or `SERVER_ERROR`.
pub(super) fn error_line(line: &[u8]) -> Option<ErrorLine> {
    let starts_with = |word: &[u8]| line.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest[0] == b' ');
    (starts_with(b"ERROR") || starts_with(b"CLIENT_ERROR") || starts_with(b"SERVER_ERROR"))
        .then(|| ErrorLine::new(line))
}

/// Makes a server's text safe for a log: at most 160 characters, all printable ASCII.
pub(super) fn printable(text: &[u8]) -> Box<str> {
    text.iter().take(160).map(|&byte| if (b' '..=b'~').contains(&byte) { char::from(byte) } else { '?' }).collect()
}

#[cfg(test)]
mod tests;
