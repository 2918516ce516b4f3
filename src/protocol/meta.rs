//! Meta commands: requests to bytes, and reply lines to what they say.
//!
//! Every command carries an opaque token, the caller's own or one of the connection's, and the reply must bring it
//! back: the order of replies is checked, not believed.

use bytes::{Bytes, BytesMut};

use super::version::ServerVersion;
use super::{Output, ProtocolError, scan};
use crate::key::MetaKey;

/// A meta command, checked and ready to be written.
#[derive(Debug)]
pub(crate) struct MetaRequest {
    pub(crate) verb: MetaVerb,
    pub(crate) key: MetaKey,
    pub(crate) flags: MetaFlags,
    /// The data block of an `ms`; empty otherwise.
    pub(crate) value: Bytes,
    /// The caller's own token; none leaves it to the connection.
    pub(crate) opaque: Option<Box<[u8]>>,
    /// The oldest server that can do this.
    pub(crate) needs: ServerVersion,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetaVerb {
    Get,
    Set,
    Delete,
    Arithmetic,
    /// `me`, which has no flags and a reply of its own kind.
    Debug,
}

/// Flags as they go over the wire, each at most once: a server refuses a command that has one twice.
#[derive(Debug, Clone, Default)]
pub(crate) struct MetaFlags(Vec<(u8, Token)>);

#[derive(Debug, Clone)]
pub(crate) enum Token {
    None,
    Number(u64),
    Text(Box<[u8]>),
}

impl MetaFlags {
    /// Sets a flag, replacing one of the same letter.
    pub(crate) fn put(&mut self, letter: u8, token: Token) {
        match self.0.iter_mut().find(|(known, _)| *known == letter) {
            Some((_, place)) => *place = token,
            None => self.0.push((letter, token)),
        }
    }

    pub(crate) fn has(&self, letter: u8) -> bool {
        self.0.iter().any(|(known, _)| *known == letter)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn encode(&self, without: Option<u8>, out: &mut BytesMut) {
        for (letter, token) in self.0.iter().filter(|(letter, _)| Some(*letter) != without) {
            out.extend_from_slice(&[b' ', *letter]);
            match token {
                Token::None => {}
                Token::Number(number) => out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes()),
                Token::Text(text) => out.extend_from_slice(text),
            }
        }
    }

    fn weight(&self) -> usize {
        let token = |token: &Token| if let Token::Text(text) = token { text.len() } else { 20 };
        self.0.iter().map(|(_, flag)| 2 + token(flag)).sum()
    }
}

impl MetaRequest {
    /// About how many bytes it takes in a queue and on the wire.
    pub(super) fn weight(&self) -> usize {
        let opaque = self.opaque.as_ref().map_or(0, |opaque| opaque.len());
        64 + self.key.wire_len() + self.flags.weight() + opaque + self.value.len()
    }

    /// Appends the command. `serial` is its opaque token unless it has one of its own; `quiet` leaves out the reply to a
    /// miss.
    pub(crate) fn encode(&self, serial: u64, quiet: bool, out: &mut Output) {
        let text = out.text();
        text.reserve(self.weight() - self.value.len() + Output::copied(&self.value));
        text.extend_from_slice(match self.verb {
            MetaVerb::Get => b"mg ",
            MetaVerb::Set => b"ms ",
            MetaVerb::Delete => b"md ",
            MetaVerb::Arithmetic => b"ma ",
            MetaVerb::Debug => b"me ",
        });
        self.key.encode(text);
        if self.verb == MetaVerb::Set {
            text.extend_from_slice(b" ");
            text.extend_from_slice(itoa::Buffer::new().format(self.value.len()).as_bytes());
        }
        if self.key.is_base64() {
            text.extend_from_slice(b" b");
        }
        if self.verb != MetaVerb::Debug {
            // A server forgets that a key was base64 when the item is appended to, and then says it as it is, line ends
            // and all. Nobody needs to be told a key they know.
            self.flags.encode(self.key.is_base64().then_some(b'k'), text);
            text.extend_from_slice(b" O");
            match &self.opaque {
                Some(own) => text.extend_from_slice(own),
                None => text.extend_from_slice(itoa::Buffer::new().format(serial).as_bytes()),
            }
            if quiet {
                text.extend_from_slice(b" q");
            }
        }
        text.extend_from_slice(b"\r\n");
        if self.verb == MetaVerb::Set {
            out.push_block(&self.value);
            out.text().extend_from_slice(b"\r\n");
        }
    }

    /// Whether a reply can be the one to this command.
    pub(crate) fn is_answered_by(&self, reply: &MetaReply, serial: u64) -> bool {
        if self.verb == MetaVerb::Debug {
            // A miss says nothing to check.
            return reply.code == MetaCode::Miss || reply.key.as_deref().is_some_and(|key| self.key.is_wire(key));
        }
        match &reply.opaque {
            Some(token) => match &self.opaque {
                Some(own) => token == own.as_ref(),
                None => token == itoa::Buffer::new().format(serial).as_bytes(),
            },
            // Servers before 1.6.18 do not bring it back unless the item is there.
            None => !matches!(reply.code, MetaCode::Done | MetaCode::Value),
        }
    }

    /// A reply in the caller's terms: the client's own token is nobody's business, a key is as the caller wrote it.
    pub(crate) fn translate(&self, mut reply: MetaReply) -> MetaReply {
        if self.opaque.is_none() {
            reply.opaque = None;
        }
        if self.key.is_base64() && self.flags.has(b'k') {
            reply.key = Some(Bytes::copy_from_slice(self.key.as_bytes()));
        }
        reply
    }
}

/// How a meta command went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetaCode {
    /// `HD`
    Done,
    /// `VA`, with a data block.
    Value,
    /// `EN`: nothing there to get.
    Miss,
    /// `NF`: nothing there to change.
    NotFound,
    /// `NS`
    NotStored,
    /// `EX`: another version than the one named.
    Exists,
    /// `ME`
    Debug,
    /// `MN`: all replies before it have come.
    End,
}

/// A meta reply line, and the data block that may follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MetaReply {
    pub(crate) code: MetaCode,
    pub(crate) value: Option<super::Body>,
    pub(crate) cas: Option<u64>,
    pub(crate) flags: Option<u32>,
    /// Seconds left to live; negative for ever.
    pub(crate) ttl: Option<i64>,
    pub(crate) last_access: Option<u64>,
    pub(crate) hit_before: Option<bool>,
    pub(crate) size: Option<u64>,
    pub(crate) key: Option<Bytes>,
    pub(crate) opaque: Option<Bytes>,
    pub(crate) won: bool,
    pub(crate) stale: bool,
    pub(crate) sent: bool,
    /// What this version of the client has no name for; of a debug reply, everything.
    pub(crate) other: Vec<Bytes>,
}

/// Whether a line can be a meta reply: two capitals, then nothing or a space.
pub(super) fn is_meta_line(line: &[u8]) -> bool {
    matches!(line, [a, b] | [a, b, b' ', ..] if a.is_ascii_uppercase() && b.is_ascii_uppercase())
}

/// Reads a meta reply line; for a `VA`, the length of the data block that follows.
pub(super) fn parse(line: &[u8]) -> Result<(MetaReply, Option<usize>), ProtocolError> {
    parse_line(line).ok_or(ProtocolError::Malformed)
}

fn parse_line(line: &[u8]) -> Option<(MetaReply, Option<usize>)> {
    let mut words = line.split(|&byte| byte == b' ');
    let code = match words.next()? {
        b"HD" => MetaCode::Done,
        b"VA" => MetaCode::Value,
        b"EN" => MetaCode::Miss,
        b"NF" => MetaCode::NotFound,
        b"NS" => MetaCode::NotStored,
        b"EX" => MetaCode::Exists,
        b"ME" => MetaCode::Debug,
        b"MN" => MetaCode::End,
        _ => return None,
    };
    let mut reply = MetaReply::new(code);
    let len = match code {
        MetaCode::Value => Some(scan::length(words.next()?)?),
        MetaCode::Debug => {
            reply.key = Some(Bytes::copy_from_slice(words.next()?));
            reply.other = words.filter(|word| !word.is_empty()).map(Bytes::copy_from_slice).collect();
            return Some((reply, None));
        }
        _ => None,
    };
    for word in words {
        // Some servers leave a space at the end of a line.
        let Some((&letter, token)) = word.split_first() else { continue };
        let text = || Some(Bytes::copy_from_slice(token));
        match letter {
            b'c' => reply.cas = Some(scan::number(token)?),
            b'f' => reply.flags = Some(u32::try_from(scan::number(token)?).ok()?),
            b't' => reply.ttl = Some(if token == b"-1" { -1 } else { i64::try_from(scan::number(token)?).ok()? }),
            b'l' => reply.last_access = Some(scan::number(token)?),
            b'h' => reply.hit_before = Some(scan::number(token)? != 0),
            b's' => reply.size = Some(scan::number(token)?),
            b'k' => reply.key = text(),
            b'O' => reply.opaque = text(),
            b'W' => reply.won = true,
            b'X' => reply.stale = true,
            b'Z' => reply.sent = true,
            // Says of the key, if there is one, what was said when it was sent.
            b'b' => {}
            _ => reply.other.push(Bytes::copy_from_slice(word)),
        }
    }
    Some((reply, len))
}

impl MetaReply {
    fn new(code: MetaCode) -> Self {
        Self {
            code,
            value: None,
            cas: None,
            flags: None,
            ttl: None,
            last_access: None,
            hit_before: None,
            size: None,
            key: None,
            opaque: None,
            won: false,
            stale: false,
            sent: false,
            other: Vec::new(),
        }
    }

    /// What a quiet get that was passed over means.
    pub(crate) fn miss() -> Self {
        Self::new(MetaCode::Miss)
    }
}
