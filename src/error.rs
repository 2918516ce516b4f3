//! The one error type of the public API.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::key::InvalidKey;
use crate::node_id::{InvalidNodeId, NodeId};
use crate::ttl::InvalidTtl;

/// What went wrong, where, and whether the server may have acted on it.
///
/// One pointer wide and cheap to clone: everyone whose request was lost with a connection gets the same error. Its
/// text never repeats its [`source`](StdError::source), and never shows a key or a value.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    delivery: Delivery,
    node: Option<NodeId>,
    message: Option<Box<str>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The kinds of failure, for deciding what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A key is empty, too long, or holds a space or control byte. Nothing was sent.
    InvalidKey,
    /// A time to live is zero or ends after 2038, or a delay is over 30 days. Nothing was sent.
    InvalidTtl,
    /// A meta flag or token of the caller's own cannot be sent: see [`InvalidFlag`](crate::meta::InvalidFlag). Nothing was
    /// sent.
    InvalidFlag,
    /// The value is larger than the client's or the server's limit.
    TooLarge,
    /// The node's queue stayed full until the deadline. Nothing was sent.
    Overloaded,
    /// No answer by the deadline.
    Timeout,
    /// The node cannot be reached right now. Nothing was sent.
    Unavailable,
    /// No nodes are known.
    NoNodes,
    /// The connection was lost while the request was under way.
    Connection,
    /// The server answered what the protocol does not allow; the connection was given up.
    Protocol,
    /// The server answered with an error line.
    Server,
    /// Others changed the item again and again while this caller tried to.
    Contended,
    /// The server asks for authentication, or refused it.
    Auth,
    /// The server is too old for this operation, or does not say what it is. Nothing was sent.
    Unsupported,
    /// Pods could not be discovered. Connecting says [`NoNodes`](Self::NoNodes) instead, with discovery's error as the
    /// source.
    Discovery,
    /// The client is configured wrongly.
    Config,
    /// The client was shut down.
    Closed,
}

/// Whether the server may have acted on a request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Delivery {
    /// Nothing of the request reached the server: trying again cannot apply it twice.
    NotSent,
    /// The request was written and no answer came: it may or may not have been applied.
    Unknown,
    /// The server answered.
    Answered,
}

impl Error {
    /// The kind of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the server may have acted on the request.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        self.0.delivery
    }

    /// The node concerned, if one is.
    #[must_use]
    pub fn node(&self) -> Option<&NodeId> {
        self.0.node.as_ref()
    }

    /// Whether the same call may well succeed a moment later, when load has eased or a pod is back.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::Overloaded
                | ErrorKind::Timeout
                | ErrorKind::Unavailable
                | ErrorKind::NoNodes
                | ErrorKind::Connection
                | ErrorKind::Discovery
                | ErrorKind::Contended
        )
    }

    /// The same number for the very same failure told to several, as long as any of them is alive.
    pub(crate) fn identity(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    pub(crate) fn new(kind: ErrorKind, delivery: Delivery) -> Self {
        Self(Arc::new(Inner { kind, delivery, node: None, message: None, source: None }))
    }

    /// An error found before anything was sent.
    pub(crate) fn not_sent(kind: ErrorKind) -> Self {
        Self::new(kind, Delivery::NotSent)
    }

    pub(crate) fn with_node(self, node: &NodeId) -> Self {
        self.with(|inner| inner.node = Some(node.clone()))
    }

    pub(crate) fn with_source(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.with(|inner| inner.source = Some(source.into()))
    }

    /// What the kind alone does not say. Must not hold a key or a value.
    pub(crate) fn with_message(self, message: impl Into<Box<str>>) -> Self {
        self.with(|inner| inner.message = Some(message.into()))
    }

    /// For the building steps above, all taken before the error is shared.
    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            change(inner);
        } else {
            debug_assert!(false, "an error is complete before it is shared");
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (self.0.kind, self.0.delivery) {
            (ErrorKind::InvalidKey, _) => "invalid key",
            (ErrorKind::InvalidTtl, _) => "invalid time to live",
            (ErrorKind::InvalidFlag, _) => "invalid meta flag",
            (ErrorKind::TooLarge, _) => "value too large",
            (ErrorKind::Overloaded, _) => "queue full until the deadline",
            (ErrorKind::Timeout, Delivery::NotSent) => "not sent by the deadline",
            (ErrorKind::Timeout, _) => "no answer by the deadline",
            (ErrorKind::Unavailable, _) => "node unavailable",
            (ErrorKind::NoNodes, _) => "no nodes known",
            (ErrorKind::Connection, _) => "connection lost",
            (ErrorKind::Protocol, _) => "protocol violated by the server",
            (ErrorKind::Server, _) => "refused by the server",
            (ErrorKind::Contended, _) => "others changed the item each time",
            (ErrorKind::Auth, _) => "authentication required or refused",
            (ErrorKind::Unsupported, _) => "not supported by the server",
            (ErrorKind::Discovery, _) => "discovery failed",
            (ErrorKind::Config, _) => "invalid configuration",
            (ErrorKind::Closed, _) => "client shut down",
        };
        f.write_str(what)?;
        if let Some(node) = &self.0.node {
            write!(f, " on {node}")?;
        }
        if let Some(message) = &self.0.message {
            write!(f, ": {message}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("delivery", &self.0.delivery)
            .field("node", &self.0.node)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<InvalidKey> for Error {
    fn from(reason: InvalidKey) -> Self {
        Self::not_sent(ErrorKind::InvalidKey).with_source(reason)
    }
}

impl From<InvalidTtl> for Error {
    fn from(reason: InvalidTtl) -> Self {
        Self::not_sent(ErrorKind::InvalidTtl).with_source(reason)
    }
}

impl From<InvalidNodeId> for Error {
    fn from(reason: InvalidNodeId) -> Self {
        Self::not_sent(ErrorKind::Config).with_source(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_one_pointer_and_shareable() {
        fn shareable<T: Clone + Send + Sync + 'static>() {}
        shareable::<Error>();
        assert_eq!(size_of::<Result<(), Error>>(), size_of::<usize>());
    }

    #[test]
    fn text_says_what_and_where_but_not_the_cause() {
        let node = "cache-1".parse().unwrap();
        let cause = std::io::Error::other("the very cause");
        let error = Error::new(ErrorKind::Connection, Delivery::Unknown).with_node(&node).with_source(cause);
        assert_eq!(error.to_string(), "connection lost on cache-1:11211");
        assert_eq!(error.source().unwrap().to_string(), "the very cause");
        assert_eq!(error.clone().node(), Some(&node));
        assert!(error.is_transient());
    }
}
