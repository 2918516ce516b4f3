//! Encodes requests and decodes replies of memcached's text protocol.
//!
//! A request is one command, or several that are sent together. A reply is one line, with its data block if it
//! announces one. The response to a request is one reply or several.
//!
//! This module does no I/O and uses no clock and no task. To add a command, add a [`Request`] variant, its line in
//! `encode`, a [`ReplyKind`] that lists the replies it may get, and any new reply word in `decode`.

mod decode;
mod encode;
#[cfg(test)]
pub(crate) mod fuzz;
mod inspect;
mod large_value;
mod meta;
mod number;
mod version;
mod write_buffer;

use bytes::Bytes;
use thiserror::Error;

pub(crate) use self::decode::Decoder;
pub(crate) use self::encode::{credentials_command, encode, encode_get_key, encode_get_start, encode_line_end};
pub(crate) use self::inspect::{
    DumpLine, METADUMP_COMMAND, RESET_STATS_COMMAND, StatLine, parse_dump_line, parse_stat_line, stats_command,
};
pub(crate) use self::large_value::BodyProgress;
pub(crate) use self::meta::{MetaCode, MetaFlags, MetaReply, MetaRequest, MetaVerb, Token};
pub(crate) use self::version::ServerVersion;
pub(crate) use self::write_buffer::WriteBuffer;

use crate::key::Key;

/// The most keys in one retrieval line, so that one slow line does not delay the values of other callers.
pub(crate) const LARGEST_LINE_KEYS: usize = 100;
/// The most bytes in one `get` or `gets` line, unless a single key is longer. Servers read such lines of any length.
pub(crate) const LARGEST_LINE_BYTES: usize = 8 * 1024;
/// The most bytes in one `gat` or `gats` line, without its `\r\n`. A single key always fits.
///
/// Servers up to 1.5 close a connection after 1,024 bytes without a line end, unless the line begins with `get ` or
/// `gets `.
pub(crate) const LARGEST_TOUCH_LINE_BYTES: usize = 990;

/// The largest item size that memcached can be configured for (`-I 1024m`). A longer declared length is malformed.
pub(crate) const LARGEST_ITEM: usize = 1 << 30;

/// A request to one server.
#[derive(Debug)]
pub(crate) enum Request {
    /// A get of one or many keys. It shares lines on the wire with other gets of the same batch.
    Get {
        keys: Keys,
        /// Whether the reply carries the CAS unique.
        cas: bool,
        /// The new expiry time of the items found, for `gat` and `gats`.
        touch: Option<u32>,
    },
    Store {
        verb: StoreVerb,
        key: Key,
        flags: u32,
        exptime: u32,
        value: Bytes,
    },
    Delete {
        key: Key,
    },
    Touch {
        key: Key,
        exptime: u32,
    },
    Arithmetic {
        verb: ArithmeticVerb,
        key: Key,
        delta: u64,
    },
    /// Boxed because meta commands are rare, and would make every request larger.
    Meta(Box<MetaRequest>),
    /// Quiet meta gets, which get no reply on a miss, followed by an `mn`.
    MetaRun(Vec<MetaRequest>),
    MetaNoop,
    Version,
    FlushAll {
        /// In seconds; 0 flushes at once.
        delay: u32,
    },
    Verbosity {
        level: u32,
    },
    CacheMemlimit {
        megabytes: u32,
    },
}

/// The keys of a get. A single key is the most common case and needs no allocation.
#[derive(Debug)]
pub(crate) enum Keys {
    One(Key),
    Many(Vec<Key>),
}

impl Keys {
    #[inline]
    pub(crate) fn as_slice(&self) -> &[Key] {
        match self {
            Self::One(key) => std::slice::from_ref(key),
            Self::Many(keys) => keys,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreVerb {
    Set,
    Add,
    Replace,
    /// The server ignores the flags and the expiry time: the item keeps its own.
    Append,
    /// The server ignores the flags and the expiry time, as for `Append`.
    Prepend,
    /// Stores only if the item has this CAS unique.
    Cas(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArithmeticVerb {
    Incr,
    Decr,
}

/// The estimated size of a command without its key and value, in bytes.
const LINE_WEIGHT: usize = 64;

impl Request {
    /// Returns which replies may answer this request.
    pub(crate) fn reply_kind(&self) -> ReplyKind {
        match self {
            Self::Get { .. } => ReplyKind::Values,
            Self::Store { verb: StoreVerb::Cas(_), .. } => ReplyKind::Swapped,
            Self::Store { .. } => ReplyKind::Stored,
            Self::Delete { .. } => ReplyKind::Deleted,
            Self::Touch { .. } => ReplyKind::Touched,
            Self::Arithmetic { .. } => ReplyKind::Number,
            Self::Meta(request) => match request.verb {
                MetaVerb::Set => ReplyKind::MetaStored,
                MetaVerb::Debug => ReplyKind::MetaDebug,
                MetaVerb::Get | MetaVerb::Delete | MetaVerb::Arithmetic => ReplyKind::Meta,
            },
            Self::MetaRun(_) => ReplyKind::MetaRun,
            Self::MetaNoop => ReplyKind::MetaEnd,
            Self::Version => ReplyKind::Version,
            Self::FlushAll { .. } | Self::Verbosity { .. } => ReplyKind::Ok,
            Self::CacheMemlimit { .. } => ReplyKind::Memlimit,
        }
    }

    /// Returns the key that selects the node, the first of several; `None` if the request is for every node.
    ///
    /// Split in two, as [`weight`](Self::weight) is, so that the path of a single get is inlined.
    #[inline]
    pub(crate) fn routed_by(&self) -> Option<&[u8]> {
        match self {
            Self::Get { keys: Keys::One(key), .. } => Some(key.as_bytes()),
            other => other.any_routing_key(),
        }
    }

    fn any_routing_key(&self) -> Option<&[u8]> {
        match self {
            Self::Get { keys, .. } => keys.as_slice().first().map(Key::as_bytes),
            Self::Store { key, .. } | Self::Delete { key } | Self::Touch { key, .. } | Self::Arithmetic { key, .. } => {
                Some(key.as_bytes())
            }
            Self::Meta(request) => Some(request.key.as_bytes()),
            Self::MetaRun(run) => run.first().map(|request| request.key.as_bytes()),
            Self::MetaNoop
            | Self::Version
            | Self::FlushAll { .. }
            | Self::Verbosity { .. }
            | Self::CacheMemlimit { .. } => None,
        }
    }

    /// Returns the oldest server version that can take this request; `None` if every server can.
    ///
    /// The server's version must be known before a request with a minimum is sent.
    #[inline]
    pub(crate) fn min_version(&self) -> Option<ServerVersion> {
        match self {
            Self::Meta(request) => Some(request.min_version),
            Self::MetaRun(run) => {
                Some(run.iter().map(|request| request.min_version).fold(ServerVersion::META, Ord::max))
            }
            Self::MetaNoop => Some(ServerVersion::META),
            _ => None,
        }
    }

    /// Returns about how many bytes the request takes in a queue and on the wire. Never less than on the wire.
    #[inline]
    pub(crate) fn weight(&self) -> usize {
        match self {
            Self::Get { keys: Keys::One(key), .. } => LINE_WEIGHT + key.as_bytes().len() + 1,
            other => other.any_weight(),
        }
    }

    fn any_weight(&self) -> usize {
        match self {
            Self::Get { keys, .. } => {
                LINE_WEIGHT + keys.as_slice().iter().map(|key| key.as_bytes().len() + 1).sum::<usize>()
            }
            Self::Store { key, value, .. } => LINE_WEIGHT + key.as_bytes().len() + value.len(),
            Self::Delete { key } | Self::Touch { key, .. } | Self::Arithmetic { key, .. } => {
                LINE_WEIGHT + key.as_bytes().len()
            }
            Self::Meta(request) => request.weight(),
            Self::MetaRun(run) => LINE_WEIGHT + run.iter().map(MetaRequest::weight).sum::<usize>(),
            Self::MetaNoop
            | Self::Version
            | Self::FlushAll { .. }
            | Self::Verbosity { .. }
            | Self::CacheMemlimit { .. } => LINE_WEIGHT,
        }
    }
}

/// Which replies a request may get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplyKind {
    /// Any number of `VALUE` blocks, then `END`.
    Values,
    /// The `END` of a retrieval whose last key already has its value.
    End,
    Stored,
    /// The replies to a `cas`.
    Swapped,
    Deleted,
    Touched,
    Number,
    /// One meta reply.
    Meta,
    /// One meta reply to a command with a data block.
    MetaStored,
    MetaDebug,
    /// Any number of meta replies, then `MN`.
    MetaRun,
    /// `MN` alone.
    MetaEnd,
    Version,
    Ok,
    /// `OK`, or a `MEMLIMIT_` line if the server cannot apply the memory limit.
    Memlimit,
}

impl ReplyKind {
    fn is_meta(self) -> bool {
        matches!(self, Self::Meta | Self::MetaStored | Self::MetaDebug | Self::MetaRun | Self::MetaEnd)
    }

    /// Returns whether a reply can answer such a request.
    ///
    /// A reply that cannot belongs to another request: replies and requests are no longer in step. An error line can
    /// answer any request.
    fn accepts(self, reply: &Reply) -> bool {
        match reply {
            Reply::Value(_) => self == Self::Values,
            Reply::End => matches!(self, Self::Values | Self::End),
            Reply::Stored => matches!(self, Self::Stored | Self::Swapped),
            Reply::NotStored => self == Self::Stored,
            Reply::Exists => self == Self::Swapped,
            Reply::Deleted => self == Self::Deleted,
            Reply::Touched => self == Self::Touched,
            Reply::NotFound => matches!(self, Self::Swapped | Self::Deleted | Self::Touched | Self::Number),
            Reply::Number(_) => self == Self::Number,
            Reply::Meta(reply) => match reply.code {
                MetaCode::Done => matches!(self, Self::Meta | Self::MetaStored | Self::MetaRun),
                MetaCode::Value => matches!(self, Self::Meta | Self::MetaRun),
                MetaCode::Miss => matches!(self, Self::Meta | Self::MetaDebug),
                MetaCode::NotFound | MetaCode::NotStored | MetaCode::Exists => {
                    matches!(self, Self::Meta | Self::MetaStored)
                }
                MetaCode::Debug => self == Self::MetaDebug,
                MetaCode::End => matches!(self, Self::MetaRun | Self::MetaEnd),
            },
            Reply::Version(_) => self == Self::Version,
            Reply::Ok => matches!(self, Self::Ok | Self::Memlimit),
            Reply::ErrorLine(_) => true,
        }
    }

    /// Returns whether the connection can go on after an error line in reply to such a request.
    ///
    /// - A retrieval: no. Servers of the 1.6 series drop replies that were ready for earlier commands, so no pending
    ///   reply can be matched any more.
    /// - A command with a data block: only if the server is known to have read the block. Otherwise it may have run the
    ///   block as commands.
    /// - Any other command is a single line: yes.
    pub(crate) fn keeps_connection_after(self, error_line: &ErrorLine) -> bool {
        if error_line.is_unauthenticated() {
            return false;
        }
        match self {
            Self::Values | Self::End => false,
            Self::Stored | Self::Swapped | Self::MetaStored => error_line.consumed_data_block(),
            Self::Deleted | Self::Touched | Self::Number | Self::Version | Self::Ok | Self::Memlimit => true,
            // Tried by hand on 1.6.18 and later: the server drops no replies that were ready before. If one did, the
            // opaque token of the next reply would not match.
            Self::Meta | Self::MetaDebug | Self::MetaRun | Self::MetaEnd => true,
        }
    }
}

/// One reply, or one value of a retrieval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Value(Value),
    End,
    Stored,
    NotStored,
    /// The item exists with another CAS unique.
    Exists,
    Deleted,
    Touched,
    NotFound,
    Number(u64),
    Meta(Box<MetaReply>),
    Version(Box<str>),
    Ok,
    ErrorLine(ErrorLine),
}

/// A value of a retrieval. Its key has been checked against the requested keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) flags: u32,
    pub(crate) cas: Option<u64>,
    pub(crate) body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    Whole(Bytes),
    /// Longer than the client's limit: the bytes were read and dropped.
    TooLarge {
        len: usize,
    },
}

/// An error line of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ErrorLine(Box<str>);

impl ErrorLine {
    fn new(line: &[u8]) -> Self {
        Self(decode::printable(line))
    }

    /// Returns the whole line, such as `SERVER_ERROR out of memory storing object`.
    pub(crate) fn line(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_too_large(&self) -> bool {
        &*self.0 == "SERVER_ERROR object too large for cache"
    }

    /// Returns whether the server requires credentials.
    ///
    /// Such a server reads the data block of any `set` as credentials, so it may also report those as invalid.
    pub(crate) fn is_unauthenticated(&self) -> bool {
        ["CLIENT_ERROR unauthenticated", "CLIENT_ERROR authentication failure", "CLIENT_ERROR bad authentication token"]
            .iter()
            .any(|line| self.0.starts_with(line))
    }

    /// Returns whether the server is at its limit of connections. It sends this line to a new connection, of which it
    /// reads nothing, and closes it.
    pub(crate) fn is_connection_limit(&self) -> bool {
        &*self.0 == "ERROR Too many open connections"
    }

    /// Returns whether it is a `CLIENT_ERROR`.
    pub(crate) fn is_client_error(&self) -> bool {
        self.0.starts_with("CLIENT_ERROR")
    }

    /// Returns whether the server has read and dropped the data block of the failed command.
    fn consumed_data_block(&self) -> bool {
        // Servers from 1.6.18 on reply `invalid flag` to a flag they do not know. The client sends unknown flags to no
        // older server.
        let consumed = ["SERVER_ERROR out of memory storing object", "CLIENT_ERROR invalid flag"];
        self.is_too_large() || consumed.contains(&&*self.0)
    }
}

/// The error for received bytes that are not the reply to the pending request.
///
/// The connection must be closed, because it is unknown where the next reply starts. The messages show no received
/// bytes, because these may be part of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum ProtocolError {
    #[error("a reply line is longer than any of the protocol")]
    LineTooLong,
    #[error("a reply line is malformed")]
    Malformed,
    #[error("a reply does not fit the pending request")]
    UnexpectedReply,
    #[error("a value has a key that was not requested, or is out of order")]
    WrongKey,
    #[error("a reply has the opaque token of another request")]
    WrongOpaque,
    #[error("a value does not end at its declared length")]
    MissingTerminator,
    #[error("a reply came without a pending request")]
    Unsolicited,
    #[error("the response exceeds the client's limit")]
    ResponseTooLong,
}

/// Returns the error line at the front of bytes that came without a pending request.
///
/// Anything but a complete error line gives `None`, because it must not be shown.
pub(crate) fn unsolicited_error_line(input: &[u8]) -> Option<ErrorLine> {
    let end = memchr::memchr(b'\n', input)?;
    decode::error_line(input[..end].strip_suffix(b"\r")?)
}

/// Returns the protocol that a server speaks instead of memcached's, by the first bytes that it sends.
pub(crate) fn foreign_protocol(input: &[u8]) -> Option<&'static str> {
    // A record of TLS is an alert or part of a handshake, and then has the version 3.
    if input.starts_with(&[0x15, 3]) || input.starts_with(&[0x16, 3]) {
        Some("TLS")
    } else if input.starts_with(b"HTTP/") {
        Some("HTTP")
    } else {
        None
    }
}
