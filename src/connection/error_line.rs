//! Maps what a server sends instead of a reply to an [`Error`].

use crate::error::{Delivery, Error, ErrorKind};
use crate::protocol::{ErrorLine, foreign_protocol};

/// What the server rejected with an error line. The same line means different things to each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejected {
    /// A command in a pipeline.
    Command,
    /// A command whose response is many lines, on a connection of its own.
    Listing,
    /// The credentials that open a connection.
    Credentials,
    /// The connection itself, of which the server reads nothing.
    Connection,
}

impl Rejected {
    /// Returns the error for this error line. Its text holds the line, but no node.
    pub(super) fn error(self, line: &ErrorLine, delivery: Delivery) -> Error {
        Error::new(self.kind(line), delivery).with_message(line.line())
    }

    fn kind(self, line: &ErrorLine) -> ErrorKind {
        match self {
            Self::Credentials if line.is_client_error() => ErrorKind::Auth,
            Self::Credentials | Self::Connection => ErrorKind::Unavailable,
            Self::Listing if line.is_connection_limit() => ErrorKind::Unavailable,
            _ if line.is_unauthenticated() => ErrorKind::Auth,
            Self::Command if line.is_too_large() => ErrorKind::TooLarge,
            // The server does not know the command, or an argument of it.
            Self::Listing if line.line() == "ERROR" => ErrorKind::Unsupported,
            Self::Command | Self::Listing => ErrorKind::Server,
        }
    }
}

/// Returns the error for a server whose first bytes on a connection belong to another protocol. It names no node.
pub(super) fn foreign_protocol_error(first_bytes: &[u8], delivery: Delivery) -> Option<Error> {
    let protocol = foreign_protocol(first_bytes)?;
    let text = format!("the server speaks {protocol}, not memcached's protocol; check its address and port");
    Some(Error::new(ErrorKind::Protocol, delivery).with_message(text))
}
