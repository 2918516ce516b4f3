//! Responses to the meta commands.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use crate::error::Error;
use crate::item::Cas;
use crate::protocol::{Body, MetaCode, MetaReply};
use crate::ttl::{InvalidTtl, Ttl};

/// The item that a [`Get`](super::Get) found.
///
/// A field is `None` if its option was not set, or the server does not report it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Item {
    /// The value. Empty if the item is a lease placeholder: see [`is_lease`](Self::is_lease).
    ///
    /// Also `None` if the item has the CAS unique given to [`unless_cas`](super::Get::unless_cas).
    pub value: Option<Bytes>,
    /// The flags stored with the value.
    pub flags: Option<u32>,
    /// The CAS unique.
    pub cas: Option<Cas>,
    /// The TTL left.
    pub ttl_left: Option<TimeLeft>,
    /// The time since the last read before this one.
    pub last_access: Option<Duration>,
    /// Whether the item was read before.
    pub hit_before: Option<bool>,
    /// The value's length in bytes.
    pub size: Option<u64>,
    /// The key, as the server stores it.
    pub key: Option<Bytes>,
    /// The opaque token of the request.
    pub opaque: Option<Bytes>,
    /// Whether this reader, and no other, is asked to renew the item (`W`).
    pub won: bool,
    /// Whether the item was marked as stale (`X`).
    pub stale: bool,
    /// Whether another reader was already asked to renew the item (`Z`).
    pub recaching: bool,
    /// Return flags without a field here, each with its token.
    pub other: Vec<Bytes>,
}

impl Item {
    /// Returns whether this is a lease placeholder: an empty item that a reader was asked to fill.
    ///
    /// An item that was stored with an empty value and is being renewed looks the same.
    #[must_use]
    pub fn is_lease(&self) -> bool {
        (self.won || self.recaching) && (self.size == Some(0) || self.value.as_ref().is_some_and(Bytes::is_empty))
    }

    pub(crate) fn from_reply(reply: MetaReply) -> Result<Option<Self>, Error> {
        let value = match reply.code {
            MetaCode::Miss | MetaCode::NotFound => return Ok(None),
            MetaCode::Done | MetaCode::Value => body(reply.value),
            _ => return Err(Error::unexpected_response()),
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
    /// Prints lengths only, because keys and values do not belong in a log.
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

/// The TTL left of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TimeLeft {
    /// The item expires after this time, in whole seconds.
    Finite(Duration),
    /// The item does not expire: it stays until it is deleted or evicted.
    Unlimited,
}

impl TimeLeft {
    fn from_wire(seconds: i64) -> Self {
        u64::try_from(seconds).map_or(Self::Unlimited, |seconds| Self::Finite(Duration::from_secs(seconds)))
    }

    /// Returns the TTL with which an item has this time left: at least a second.
    pub(crate) fn as_ttl(self) -> Result<Ttl, InvalidTtl> {
        match self {
            Self::Finite(left) => Ttl::new(left.max(Duration::from_secs(1))),
            Self::Unlimited => Ok(Ttl::NEVER),
        }
    }
}

/// The result of a command that changes an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The command was applied (`HD`, `VA`).
    Done,
    /// The mode's condition does not hold: an add found an item, or there is none to replace, append or prepend to
    /// (`NS`).
    NotStored,
    /// The item has another CAS unique than the given one (`EX`).
    Exists,
    /// There is no such item (`NF`).
    NotFound,
}

impl Outcome {
    pub(crate) fn of(code: MetaCode) -> Self {
        match code {
            MetaCode::NotStored => Self::NotStored,
            MetaCode::Exists => Self::Exists,
            MetaCode::NotFound | MetaCode::Miss => Self::NotFound,
            MetaCode::Done | MetaCode::Value | MetaCode::Debug | MetaCode::End => Self::Done,
        }
    }
}

/// The response to a [`Set`](super::Set) or a [`Delete`](super::Delete).
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Changed {
    /// Whether the command was applied, and if not, why.
    pub outcome: Outcome,
    /// The item's new CAS unique, if requested.
    pub cas: Option<Cas>,
    /// The length of the stored value in bytes, if requested and the server reports it (1.6.18 does not).
    pub size: Option<u64>,
    /// The key as the server stores it, if requested.
    pub key: Option<Bytes>,
    /// The opaque token of the request.
    pub opaque: Option<Bytes>,
    /// Return flags without a field here, each with its token.
    pub other: Vec<Bytes>,
}

impl Changed {
    /// Returns whether the command was applied.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.outcome == Outcome::Done
    }

    pub(crate) fn from_reply(reply: MetaReply) -> Self {
        let outcome = Outcome::of(reply.code);
        Self {
            outcome,
            // A server sends a CAS unique of 0 with a failed command, which is not the item's.
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

/// The response to an [`Arithmetic`](super::Arithmetic).
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Number {
    /// Whether the command was applied, and if not, why.
    pub outcome: Outcome,
    /// The new number; `None` if the command was not applied.
    pub value: Option<u64>,
    /// The item's new CAS unique, if requested.
    pub cas: Option<Cas>,
    /// The TTL left, if requested.
    pub ttl_left: Option<TimeLeft>,
    /// The key as the server stores it, if requested.
    pub key: Option<Bytes>,
    /// The opaque token of the request.
    pub opaque: Option<Bytes>,
    /// Return flags without a field here, each with its token.
    pub other: Vec<Bytes>,
}

impl Number {
    pub(crate) fn from_reply(reply: MetaReply) -> Result<Self, Error> {
        let value = match body(reply.value) {
            None => None,
            // Old servers pad a number that got shorter with spaces.
            Some(text) => match std::str::from_utf8(text.trim_ascii_end()).ok().and_then(|text| text.parse().ok()) {
                None => return Err(Error::unexpected_response()),
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
        // The pipeline has already returned an error for it.
        Body::TooLarge { .. } => None,
    }
}
