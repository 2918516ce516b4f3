//! What the meta commands answer.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::error::{Delivery, Error, ErrorKind};
use crate::item::Cas;
use crate::protocol::{Body, MetaCode, MetaReply};

/// What a [`Get`](super::Get) found. A field is `None` unless its option asked for it, and the server knows it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Item {
    /// The value. `None` also if [`unless`](super::Get::unless) named the version that is there. Empty if the item is
    /// only a lease: see [`won`](Self::won) and [`recaching`](Self::recaching).
    pub value: Option<Bytes>,
    /// The 32 bits stored beside it.
    pub flags: Option<u32>,
    /// Its version.
    pub cas: Option<Cas>,
    /// How long it lives yet.
    pub ttl_left: Option<TimeLeft>,
    /// The time since it was last read, before now.
    pub last_access: Option<Duration>,
    /// Whether it was ever read, before now.
    pub hit_before: Option<bool>,
    /// Its value's length in bytes.
    pub size: Option<u64>,
    /// Its key, as the server has it.
    pub key: Option<Bytes>,
    /// The token that was sent along.
    pub opaque: Option<Bytes>,
    /// This reader, and no other, is asked to store the item anew (`W`).
    pub won: bool,
    /// The item was marked as stale (`X`).
    pub stale: bool,
    /// Another reader was already asked to store the item anew (`Z`).
    pub recaching: bool,
    /// Return flags this client has no name for, letter and token.
    pub other: Vec<Bytes>,
}

impl Item {
    /// Whether this is not an item yet but a promise: empty, and someone was asked to fill it. (One who stored an empty
    /// value and reads it while it is being renewed cannot be told from that.)
    #[must_use]
    pub fn is_lease(&self) -> bool {
        (self.won || self.recaching) && (self.size == Some(0) || self.value.as_ref().is_some_and(Bytes::is_empty))
    }

    pub(in crate::client) fn from_reply(reply: MetaReply) -> Result<Option<Self>, Error> {
        let value = match reply.code {
            MetaCode::Miss | MetaCode::NotFound => return Ok(None),
            MetaCode::Done | MetaCode::Value => body(reply.value),
            _ => return Err(unexpected()),
        };
        Ok(Some(Self {
            value,
            flags: reply.flags,
            cas: reply.cas.map(Cas),
            ttl_left: reply.ttl.map(TimeLeft::from_wire),
            last_access: reply.last_access.map(Duration::from_secs),
            hit_before: reply.hit_before,
            size: reply.size,
            key: reply.key,
            opaque: reply.opaque,
            won: reply.won,
            stale: reply.stale,
            recaching: reply.recaching,
            other: reply.other,
        }))
    }
}

impl fmt::Debug for Item {
    /// Prints lengths only: keys and values do not belong in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item")
            .field("value", &self.value.as_ref().map(Bytes::len))
            .field("flags", &self.flags)
            .field("cas", &self.cas)
            .field("ttl_left", &self.ttl_left)
            .field("won", &self.won)
            .field("stale", &self.stale)
            .field("recaching", &self.recaching)
            .finish_non_exhaustive()
    }
}

/// How long an item lives yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TimeLeft {
    /// In whole seconds.
    For(Duration),
    /// Until it is deleted or evicted.
    Ever,
}

impl TimeLeft {
    fn from_wire(seconds: i64) -> Self {
        u64::try_from(seconds).map_or(Self::Ever, |seconds| Self::For(Duration::from_secs(seconds)))
    }
}

/// What became of a command that changes an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It was applied (`HD`, `VA`).
    Done,
    /// The mode's condition does not hold: added where something is, replaced or appended to where nothing is (`NS`).
    NotStored,
    /// The item is of another version than the one named (`EX`).
    Exists,
    /// There is no such item (`NF`).
    NotFound,
}

impl Outcome {
    pub(in crate::client) fn of(code: MetaCode) -> Self {
        match code {
            MetaCode::NotStored => Self::NotStored,
            MetaCode::Exists => Self::Exists,
            MetaCode::NotFound | MetaCode::Miss => Self::NotFound,
            MetaCode::Done | MetaCode::Value | MetaCode::Debug | MetaCode::End => Self::Done,
        }
    }
}

/// The answer to a [`Set`](super::Set) or a [`Delete`](super::Delete).
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changed {
    /// Whether it was applied.
    pub outcome: Outcome,
    /// The item's new version, if asked for.
    pub cas: Option<Cas>,
    /// The length of the stored value in bytes, if asked for and the server knows how to say it (1.6.18 does not).
    pub size: Option<u64>,
    /// The key, as the server has it, if asked for.
    pub key: Option<Bytes>,
    /// The token that was sent along.
    pub opaque: Option<Bytes>,
    /// Return flags this client has no name for, letter and token.
    pub other: Vec<Bytes>,
}

impl Changed {
    /// Whether it was applied.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.outcome == Outcome::Done
    }

    pub(super) fn from_reply(reply: MetaReply) -> Self {
        let outcome = Outcome::of(reply.code);
        Self {
            outcome,
            // A server says 0 beside a refusal, which is no version.
            cas: reply.cas.filter(|_| outcome == Outcome::Done).map(Cas),
            size: reply.size,
            key: reply.key,
            opaque: reply.opaque,
            other: reply.other,
        }
    }
}

impl fmt::Debug for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changed").field("outcome", &self.outcome).field("cas", &self.cas).finish_non_exhaustive()
    }
}

/// The answer to an [`Arithmetic`](super::Arithmetic).
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Number {
    /// Whether it was applied.
    pub outcome: Outcome,
    /// The new number; `None` unless it was applied.
    pub value: Option<u64>,
    /// The item's new version, if asked for.
    pub cas: Option<Cas>,
    /// How long it lives yet, if asked for.
    pub ttl_left: Option<TimeLeft>,
    /// The key, as the server has it, if asked for.
    pub key: Option<Bytes>,
    /// The token that was sent along.
    pub opaque: Option<Bytes>,
    /// Return flags this client has no name for, letter and token.
    pub other: Vec<Bytes>,
}

impl Number {
    pub(in crate::client) fn from_reply(reply: MetaReply) -> Result<Self, Error> {
        let value = match body(reply.value) {
            None => None,
            // Old servers pad a shrunken number to its former length.
            Some(text) => match std::str::from_utf8(text.trim_ascii_end()).ok().and_then(|text| text.parse().ok()) {
                None => return Err(unexpected()),
                number => number,
            },
        };
        Ok(Self {
            outcome: Outcome::of(reply.code),
            value,
            cas: reply.cas.map(Cas),
            ttl_left: reply.ttl.map(TimeLeft::from_wire),
            key: reply.key,
            opaque: reply.opaque,
            other: reply.other,
        })
    }
}

impl fmt::Debug for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Number").field("outcome", &self.outcome).field("cas", &self.cas).finish_non_exhaustive()
    }
}

fn body(body: Option<Body>) -> Option<Bytes> {
    match body? {
        Body::Whole(value) => Some(value),
        // The pipeline makes an error of it.
        Body::TooLarge { .. } => None,
    }
}

fn unexpected() -> Error {
    Error::new(ErrorKind::Protocol, Delivery::Answered).with_message("an answer of another kind than the command's")
}
