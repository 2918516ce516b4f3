//! The error type of the public API.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::key::InvalidKey;
use crate::node_id::{InvalidNodeId, NodeId};
use crate::ttl::InvalidTtl;

/// A failed call: what failed, on which node, and whether the server may have acted on the request.
///
/// Decide by [`kind`](Self::kind) what to do, and by [`delivery`](Self::delivery) whether a retry could apply the
/// request twice. A retry can help if the error [`is_transient`](Self::is_transient).
///
/// An error is one pointer wide and cheap to clone: when a connection is lost, all its requests get clones of one
/// error. The text does not include the [`source`](StdError::source), and never shows a key or a value.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    delivery: Delivery,
    node: Option<NodeId>,
    lacks: Option<Feature>,
    message: Option<Box<str>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What a server may be known to lack, so that an operation takes another way or fails for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Feature {
    /// Meta commands, and with them leases and stale items.
    MetaCommands,
    /// CAS uniques: the server runs with `-C`.
    CasUniques,
}

/// The kind of failure, to decide what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A key is empty, too long, or holds a space or control byte.
    ///
    /// Nothing was sent. Fix the key; the source is an [`InvalidKey`].
    InvalidKey,
    /// A TTL is zero or ends after 2038, or a delay is over 30 days.
    ///
    /// Nothing was sent. Fix the TTL; the source, if there is one, is an [`InvalidTtl`].
    InvalidTtl,
    /// A meta flag or opaque token of the caller is invalid.
    ///
    /// Nothing was sent. Fix the options; the source is an [`InvalidFlag`](crate::meta::InvalidFlag).
    InvalidFlag,
    /// The value is larger than the client's or the server's limit.
    ///
    /// Nothing was sent if the client's limit rejected a value to store; otherwise the server answered. A server that
    /// rejects a `set` deletes the old value. Store a smaller value, or raise the limits
    /// ([`max_value_size`](crate::ClientBuilder::max_value_size), `-I` of memcached).
    TooLarge,
    /// The node's queue stayed full until the deadline.
    ///
    /// Nothing was sent. Retry later, send less, or raise [`queue_limits`](crate::ClientBuilder::queue_limits).
    Overloaded,
    /// The response did not arrive by the deadline.
    ///
    /// [`delivery`](Error::delivery) is [`NotSent`](Delivery::NotSent) if the request was still waiting in the queue.
    /// Retry if the request may be applied twice, or raise [`request_timeout`](crate::ClientBuilder::request_timeout).
    Timeout,
    /// The node cannot be reached now, or has not stated its version, which a meta command needs.
    ///
    /// Nothing was sent. The client redials and asks again in the background, so a retry can succeed later.
    Unavailable,
    /// No nodes are known.
    ///
    /// Nothing was sent. Retry once discovery has found nodes. From [`connect`](crate::ClientBuilder::connect), the
    /// source is the error of discovery.
    NoNodes,
    /// The connection was lost before the response arrived.
    ///
    /// The server may have acted on the request. Retry if the request may be applied twice.
    Connection,
    /// The server sent something that the protocol does not allow, so the connection was closed.
    ///
    /// The server may have acted on the request. Check that the node is a memcached server.
    Protocol,
    /// The server replied with an error line, which is in the text of the error.
    ///
    /// [`delivery`](Error::delivery) is [`Unknown`](Delivery::Unknown) if the error also ended the connection.
    Server,
    /// Other clients changed the item in each of several attempts.
    ///
    /// This call changed nothing. Retry later.
    Contended,
    /// The server requires credentials, or rejected those of the client.
    ///
    /// Set or fix the [`credentials`](crate::ClientBuilder::credentials).
    Auth,
    /// The server is too old for this operation, is no memcached, or runs without CAS uniques (`-C`).
    ///
    /// Nothing was sent, with two exceptions. A server without certain statistics or item lists answers them with an
    /// error line. That a server runs with `-C` is known once it has answered a read. Use another operation, upgrade
    /// the server, or start it without `-C`.
    Unsupported,
    /// The client's configuration is invalid.
    ///
    /// Fix the option that the text or the source names, and connect again.
    Config,
    /// The client was shut down, or the runtime it was connected on is gone.
    ///
    /// Connect a new client to send more requests.
    Closed,
}

/// Whether the server may have acted on a failed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Delivery {
    /// No part of the request reached the server: a retry cannot apply it twice.
    NotSent,
    /// The request was sent and its result is unknown: the server may or may not have applied it.
    Unknown,
    /// The server answered the request with this error.
    Answered,
}

impl Error {
    /// Returns the kind of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns whether the server may have acted on the request.
    #[must_use]
    pub fn delivery(&self) -> Delivery {
        self.0.delivery
    }

    /// Returns the node that the error is about; `None` if it is about no single node.
    #[must_use]
    pub fn node(&self) -> Option<&NodeId> {
        self.0.node.as_ref()
    }

    /// Returns whether the same call may succeed later, when the load is lower or a pod has restarted.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::Overloaded
                | ErrorKind::Timeout
                | ErrorKind::Unavailable
                | ErrorKind::NoNodes
                | ErrorKind::Connection
                | ErrorKind::Contended
        )
    }

    /// Returns the details that the kind does not cover.
    pub(crate) fn message(&self) -> Option<&str> {
        self.0.message.as_deref()
    }

    /// Returns a number that clones of one error share. It is unique among the errors alive.
    pub(crate) fn identity(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    pub(crate) fn new(kind: ErrorKind, delivery: Delivery) -> Self {
        Self(Arc::new(Inner { kind, delivery, node: None, lacks: None, message: None, source: None }))
    }

    /// Creates an error for an operation that the server is known not to support.
    pub(crate) fn unsupported(lacks: Feature, delivery: Delivery) -> Self {
        Self::new(ErrorKind::Unsupported, delivery).with(|inner| inner.lacks = Some(lacks))
    }

    /// Creates an error for an operation on an item whose version is 0: the server has no versions.
    pub(crate) fn without_cas_uniques(delivery: Delivery) -> Self {
        let text = "the server runs without CAS uniques (option `-C` of memcached)";
        Self::unsupported(Feature::CasUniques, delivery).with_message(text)
    }

    /// Returns whether the call failed because the server is known to lack this.
    pub(crate) fn is_lack_of(&self, feature: Feature) -> bool {
        self.0.lacks == Some(feature)
    }

    /// Creates an error for a request of which nothing was sent.
    pub(crate) fn not_sent(kind: ErrorKind) -> Self {
        Self::new(kind, Delivery::NotSent)
    }

    /// Creates an error for a response that does not fit its request.
    pub(crate) fn unexpected_response() -> Self {
        Self::new(ErrorKind::Protocol, Delivery::Answered).with_message("the reply does not fit the command")
    }

    pub(crate) fn with_node(self, node: &NodeId) -> Self {
        self.with(|inner| inner.node = Some(node.clone()))
    }

    pub(crate) fn with_source(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.with(|inner| inner.source = Some(source.into()))
    }

    /// Adds details that the kind does not cover. The message must not contain a key or a value.
    pub(crate) fn with_message(self, message: impl Into<Box<str>>) -> Self {
        self.with(|inner| inner.message = Some(message.into()))
    }

    /// Changes an error that is not yet cloned.
    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            change(inner);
        } else {
            debug_assert!(false, "an error must be complete before it is cloned");
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failure = match (self.0.kind, self.0.delivery) {
            (ErrorKind::InvalidKey, _) => "invalid key",
            (ErrorKind::InvalidTtl, _) => "invalid TTL",
            (ErrorKind::InvalidFlag, _) => "invalid meta flag",
            (ErrorKind::TooLarge, _) => "value too large",
            (ErrorKind::Overloaded, _) => "queue full until the deadline",
            (ErrorKind::Timeout, Delivery::NotSent) => "request not sent by the deadline",
            (ErrorKind::Timeout, _) => "no response by the deadline",
            (ErrorKind::Unavailable, _) => "node unavailable",
            (ErrorKind::NoNodes, _) => "no nodes known",
            (ErrorKind::Connection, _) => "connection lost",
            (ErrorKind::Protocol, _) => "protocol error",
            (ErrorKind::Server, _) => "error reply",
            (ErrorKind::Contended, _) => "item changed by other clients in every attempt",
            (ErrorKind::Auth, _) => "authentication required or failed",
            (ErrorKind::Unsupported, _) => "not supported by the server",
            (ErrorKind::Config, _) => "invalid configuration",
            (ErrorKind::Closed, _) => "client closed",
        };
        f.write_str(failure)?;
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
    fn an_error_is_one_pointer_wide_and_shareable() {
        fn shareable<T: Clone + Send + Sync + 'static>() {}
        shareable::<Error>();
        assert_eq!(size_of::<Result<(), Error>>(), size_of::<usize>());
    }

    #[test]
    fn the_text_names_failure_and_node_but_not_the_source() {
        let node = "cache-1".parse().unwrap();
        let source = std::io::Error::other("the source");
        let error = Error::new(ErrorKind::Connection, Delivery::Unknown).with_node(&node).with_source(source);
        assert_eq!(error.to_string(), "connection lost on cache-1:11211");
        assert_eq!(error.source().unwrap().to_string(), "the source");
        assert_eq!(error.clone().node(), Some(&node));
        assert!(error.is_transient());
    }
}
