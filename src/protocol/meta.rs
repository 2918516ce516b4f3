//! Encodes meta commands and parses their reply lines.
//!
//! Every command but `me` carries an opaque token, the caller's or the connection's, and the reply must carry the same
//! token. This checks the order of replies.

use bytes::{Bytes, BytesMut};

use super::version::ServerVersion;
use super::{ProtocolError, WriteBuffer, number};
use crate::key::MetaKey;

/// A meta command, validated and ready to be encoded.
#[derive(Debug)]
pub(crate) struct MetaRequest {
    pub(crate) verb: MetaVerb,
    pub(crate) key: MetaKey,
    pub(crate) flags: MetaFlags,
    /// The data block of an `ms`; empty otherwise.
    pub(crate) value: Bytes,
    /// The caller's opaque token. `None` leaves the token to the connection.
    pub(crate) opaque: Option<Box<[u8]>>,
    /// The oldest server version that knows the command and its flags.
    pub(crate) min_version: ServerVersion,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetaVerb {
    Get,
    Set,
    Delete,
    Arithmetic,
    /// `me`, which has no flags and its own kind of reply.
    Debug,
}

/// The flags of a meta command, each at most once, because servers reject a duplicate flag.
#[derive(Debug, Clone, Default)]
pub(crate) struct MetaFlags(Vec<(u8, Token)>);

/// The token that follows a flag's letter.
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
            Some((_, known_token)) => *known_token = token,
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
        let token_len = |token: &Token| if let Token::Text(text) = token { text.len() } else { 20 };
        self.0.iter().map(|(_, token)| 2 + token_len(token)).sum()
    }
}

impl MetaRequest {
    /// Returns about how many bytes the command takes in a queue and on the wire. Never less than on the wire.
    pub(super) fn weight(&self) -> usize {
        let opaque = self.opaque.as_ref().map_or(0, |opaque| opaque.len());
        64 + self.key.wire_len() + self.flags.weight() + opaque + self.value.len()
    }

    /// Appends the command to `out`.
    ///
    /// `serial` is its opaque token unless the caller gave one. `quiet` makes the server send no reply on a miss.
    pub(crate) fn encode(&self, serial: u64, quiet: bool, out: &mut WriteBuffer) {
        let text = out.text();
        text.reserve(self.weight() - self.value.len() + WriteBuffer::copied(&self.value));
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
            // After an append, a server forgets that the key was base64, and returns it raw, line ends included. So do
            // not ask for it: `translate` fills in the key.
            self.flags.encode(self.key.is_base64().then_some(b'k'), text);
            text.extend_from_slice(b" O");
            match &self.opaque {
                Some(token) => text.extend_from_slice(token),
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

    /// Returns whether a reply can be the reply to this command, sent with this `serial`.
    pub(crate) fn is_answered_by(&self, reply: &MetaReply, serial: u64) -> bool {
        if self.verb == MetaVerb::Debug {
            // A miss has nothing to check.
            return reply.code == MetaCode::Miss || reply.key.as_deref().is_some_and(|key| self.key.matches_wire(key));
        }
        match &reply.opaque {
            Some(token) => match &self.opaque {
                Some(sent) => token == sent.as_ref(),
                None => token == itoa::Buffer::new().format(serial).as_bytes(),
            },
            // Servers before 1.6.18 return the token only if the item exists.
            None => !matches!(reply.code, MetaCode::Done | MetaCode::Value),
        }
    }

    /// Returns the reply with the caller's key and token: a key is not base64, and the client's own token is removed.
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

/// The two-letter code of a meta reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetaCode {
    /// `HD`
    Done,
    /// `VA`, with a data block.
    Value,
    /// `EN`: there is no item to get.
    Miss,
    /// `NF`: there is no item to change.
    NotFound,
    /// `NS`
    NotStored,
    /// `EX`: the item has another CAS unique.
    Exists,
    /// `ME`
    Debug,
    /// `MN`: the end of a run of quiet commands.
    End,
}

/// A meta reply: its line, and the data block that may follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MetaReply {
    pub(crate) code: MetaCode,
    pub(crate) value: Option<super::Body>,
    pub(crate) cas: Option<u64>,
    pub(crate) flags: Option<u32>,
    /// The TTL left in seconds; negative if the item does not expire.
    pub(crate) ttl: Option<i64>,
    pub(crate) last_access: Option<u64>,
    pub(crate) hit_before: Option<bool>,
    pub(crate) size: Option<u64>,
    pub(crate) key: Option<Bytes>,
    pub(crate) opaque: Option<Bytes>,
    /// `W`: this reader is asked to renew the item.
    pub(crate) won: bool,
    /// `X`: the item is stale.
    pub(crate) stale: bool,
    /// `Z`: another reader was already asked to renew the item.
    pub(crate) recaching: bool,
    /// Return flags without a field here. For a debug reply, all words after the key.
    pub(crate) other: Vec<Bytes>,
}

/// Returns whether a line looks like a meta reply: two capital letters, then nothing or a space.
pub(super) fn is_meta_line(line: &[u8]) -> bool {
    matches!(line, [a, b] | [a, b, b' ', ..] if a.is_ascii_uppercase() && b.is_ascii_uppercase())
}

/// Parses a meta reply line. For `VA`, also returns the length of the data block that follows.
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
        MetaCode::Value => Some(number::parse_len(words.next()?)?),
        MetaCode::Debug => {
            reply.key = Some(Bytes::copy_from_slice(words.next()?));
            reply.other = words.filter(|word| !word.is_empty()).map(Bytes::copy_from_slice).collect();
            return Some((reply, None));
        }
        _ => None,
    };
    for word in words {
        // Some servers end a line with a space.
        let Some((&letter, token)) = word.split_first() else { continue };
        let text = || Some(Bytes::copy_from_slice(token));
        match letter {
            b'c' => reply.cas = Some(number::parse(token)?),
            b'f' => reply.flags = Some(u32::try_from(number::parse(token)?).ok()?),
            b't' => reply.ttl = Some(if token == b"-1" { -1 } else { i64::try_from(number::parse(token)?).ok()? }),
            b'l' => reply.last_access = Some(number::parse(token)?),
            b'h' => reply.hit_before = Some(number::parse(token)? != 0),
            b's' => reply.size = Some(number::parse(token)?),
            b'k' => reply.key = text(),
            b'O' => reply.opaque = text(),
            b'W' => reply.won = true,
            b'X' => reply.stale = true,
            b'Z' => reply.recaching = true,
            // Repeats that the key is base64, which the request knows.
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
            recaching: false,
            other: Vec::new(),
        }
    }

    /// Returns the reply that a quiet get without a reply stands for.
    pub(crate) fn miss() -> Self {
        Self::new(MetaCode::Miss)
    }
}
