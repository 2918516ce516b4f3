//! memcached's text protocol, without I/O: requests become bytes, bytes become replies.
//!
//! Nothing here knows a socket, a clock or a task. Adding a command is: a [`Request`] variant, its line in `encode`,
//! the [`Expect`] that says which replies may answer it, and, if it has one, a new reply word in `decode`.

mod decode;
mod dump;
mod encode;
#[cfg(test)]
pub(crate) mod fuzz;
mod large;
mod meta;
mod output;
mod scan;
mod version;

use bytes::Bytes;
use thiserror::Error;

pub(crate) use self::decode::Decoder;
pub(crate) use self::dump::{DumpLine, METADUMP, RESET_STATS, StatLine, dump_line, stat_line, stats_line};
pub(crate) use self::encode::credentials_line;
pub(crate) use self::encode::{encode, encode_get_key, encode_get_start, encode_line_end};
pub(crate) use self::meta::{MetaCode, MetaFlags, MetaReply, MetaRequest, MetaVerb, Token};
pub(crate) use self::output::Output;
pub(crate) use self::version::ServerVersion;

use crate::key::Key;

/// A retrieval line holds at most this many keys, so that one slow line does not hold up everybody's values.
pub(crate) const LARGEST_LINE_KEYS: usize = 100;
/// And is at most this long, unless a single key is longer. Servers read `get` and `gets` lines of any length.
pub(crate) const LARGEST_LINE_BYTES: usize = 8 * 1024;
/// A `gat` or `gats` line, its end not counted, is at most this long: servers up to 1.5 close a connection on which 1,024
/// bytes have come without a line's end, unless they begin with `get ` or `gets `. A single key always fits.
pub(crate) const LARGEST_TOUCH_LINE_BYTES: usize = 990;

/// The largest item any memcached can be told to hold (`-I 1024m`): a longer declared length is not a length.
pub(crate) const LARGEST_ITEM: usize = 1 << 30;

/// What a caller asks of one server.
#[derive(Debug)]
pub(crate) enum Request {
    /// One or many keys; merged on the wire with whatever other gets are waiting.
    Get {
        keys: Keys,
        cas: bool,
        /// The expiry time each item found is given, if any is.
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
    /// Boxed, so that the rarer command does not make every request larger.
    Meta(Box<MetaRequest>),
    /// Many meta gets that go out quietly, misses unanswered, closed by an `mn`.
    MetaRun(Vec<MetaRequest>),
    MetaNoop,
    Version,
    /// After so many seconds; 0 is at once.
    FlushAll {
        delay: u32,
    },
    Verbosity {
        level: u32,
    },
    CacheMemlimit {
        megabytes: u32,
    },
}

/// The keys of a get. One is by far the most common, and costs no allocation.
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
    /// The server heeds neither flags nor expiry time of these two: the item keeps its own.
    Append,
    Prepend,
    /// Only over this version.
    Cas(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArithmeticVerb {
    Incr,
    Decr,
}

/// About what a command is but for its key and value.
const LINE_WEIGHT: usize = 64;

impl Request {
    /// Which replies may answer this request.
    pub(crate) fn expect(&self) -> Expect {
        match self {
            Self::Get { .. } => Expect::Values,
            Self::Store { verb: StoreVerb::Cas(_), .. } => Expect::Swapped,
            Self::Store { .. } => Expect::Stored,
            Self::Delete { .. } => Expect::Deleted,
            Self::Touch { .. } => Expect::Touched,
            Self::Arithmetic { .. } => Expect::Number,
            Self::Meta(request) => match request.verb {
                MetaVerb::Set => Expect::MetaStored,
                MetaVerb::Debug => Expect::MetaDebug,
                MetaVerb::Get | MetaVerb::Delete | MetaVerb::Arithmetic => Expect::Meta,
            },
            Self::MetaRun(_) => Expect::MetaRun,
            Self::MetaNoop => Expect::MetaEnd,
            Self::Version => Expect::Version,
            Self::FlushAll { .. } | Self::Verbosity { .. } => Expect::Ok,
            Self::CacheMemlimit { .. } => Expect::Memlimit,
        }
    }

    /// The bytes that say where the request belongs: its key, or the first of several. None if it belongs to every node.
    ///
    /// Like [`weight`](Self::weight) split in two, so that the way of a get is inlined.
    #[inline]
    pub(crate) fn routed_by(&self) -> Option<&[u8]> {
        match self {
            Self::Get { keys: Keys::One(key), .. } => Some(key.as_bytes()),
            other => other.any_routed_by(),
        }
    }

    fn any_routed_by(&self) -> Option<&[u8]> {
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

    /// The oldest server that can answer it, where that must be known before a byte of it is sent.
    #[inline]
    pub(crate) fn needs(&self) -> Option<ServerVersion> {
        match self {
            Self::Meta(request) => Some(request.needs),
            Self::MetaRun(run) => Some(run.iter().map(|request| request.needs).fold(ServerVersion::META, Ord::max)),
            Self::MetaNoop => Some(ServerVersion::META),
            _ => None,
        }
    }

    /// About how many bytes the request takes in a queue and on the wire.
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

/// How the reply at the head of the stream may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// Any number of `VALUE` blocks, then `END`.
    Values,
    /// The `END` of a retrieval all of whose keys are answered.
    End,
    Stored,
    /// What becomes of a `cas`.
    Swapped,
    Deleted,
    Touched,
    Number,
    /// One meta reply.
    Meta,
    /// One meta reply, to a command with a data block.
    MetaStored,
    MetaDebug,
    /// Any number of meta replies, then `MN`.
    MetaRun,
    /// `MN` alone.
    MetaEnd,
    Version,
    Ok,
    /// As `Ok`, or that the limit on memory cannot be had, for which servers have words of their own.
    Memlimit,
}

impl Expect {
    fn is_meta(self) -> bool {
        matches!(self, Self::Meta | Self::MetaStored | Self::MetaDebug | Self::MetaRun | Self::MetaEnd)
    }

    /// Whether a reply other than an error line can answer such a request. One that cannot belongs to another
    /// request: the stream is out of step.
    fn admits(self, reply: &Reply) -> bool {
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

    /// What an error line in answer to such a request leaves of the connection.
    ///
    /// A retrieval: servers of the 1.6 series drop replies already stacked for earlier commands, so nothing owed can be
    /// trusted any more. A data block: unless the server is known to have swallowed it, it may have been run as
    /// commands. A single line leaves nothing behind.
    pub(crate) fn survives(self, refusal: &ErrorLine) -> bool {
        if refusal.is_unauthenticated() {
            return false;
        }
        match self {
            Self::Values | Self::End => false,
            Self::Stored | Self::Swapped | Self::MetaStored => refusal.swallowed_the_body(),
            Self::Deleted | Self::Touched | Self::Number | Self::Version | Self::Ok | Self::Memlimit => true,
            // Checked for by hand on 1.6.18 and later: nothing that was ready before is dropped. Should it be, the
            // opaque token of the next reply tells.
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
    /// It is there, and not the version that was named.
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

/// A value as it came; its key has been checked against those asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) flags: u32,
    pub(crate) cas: Option<u64>,
    pub(crate) body: Body,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    Whole(Bytes),
    /// Longer than the client takes; read past and dropped.
    TooLarge {
        len: usize,
    },
}

/// An error line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ErrorLine(Box<str>);

impl ErrorLine {
    fn new(line: &[u8]) -> Self {
        Self(decode::printable(line))
    }

    /// The whole line, such as `SERVER_ERROR out of memory storing object`.
    pub(crate) fn line(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_too_large(&self) -> bool {
        &*self.0 == "SERVER_ERROR object too large for cache"
    }

    /// Whether the server asks for credentials. It takes the data block of any `set` for them, and may find fault with
    /// those.
    pub(crate) fn is_unauthenticated(&self) -> bool {
        ["CLIENT_ERROR unauthenticated", "CLIENT_ERROR authentication failure", "CLIENT_ERROR bad authentication token"]
            .iter()
            .any(|line| self.0.starts_with(line))
    }

    /// Whether it is what was sent that the server minds.
    pub(crate) fn is_clients_fault(&self) -> bool {
        self.0.starts_with("CLIENT_ERROR")
    }

    fn swallowed_the_body(&self) -> bool {
        // The last is what servers from 1.6.18 on say to a flag they do not know, which no older one is sent.
        let swallowed = ["SERVER_ERROR out of memory storing object", "CLIENT_ERROR invalid flag"];
        self.is_too_large() || swallowed.contains(&&*self.0)
    }
}

/// Why a server's bytes are not an answer. The connection they came on is lost: where the next reply starts is unknown.
///
/// The text shows nothing of what came, for that may be part of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum ProtocolError {
    #[error("a reply line is longer than any the protocol has")]
    LineTooLong,
    #[error("a reply line is not one the protocol has")]
    Malformed,
    #[error("a reply to another kind of request than the one it should answer")]
    OutOfStep,
    #[error("a value for a key that was not asked for, or out of order")]
    WrongKey,
    #[error("a reply with another opaque token than the one it should answer")]
    WrongOpaque,
    #[error("a value does not end where its length says")]
    MissingTerminator,
    #[error("a reply that nothing was asked for")]
    Unrequested,
    #[error("an answer without an end")]
    Endless,
}

/// What a server said unasked, as far as it can be shown: only a line that is plainly an error is.
pub(crate) fn unrequested_error_line(input: &[u8]) -> Option<String> {
    let end = memchr::memchr(b'\n', input)?;
    decode::error_line(input[..end].strip_suffix(b"\r")?).map(|refusal| refusal.0.into())
}
