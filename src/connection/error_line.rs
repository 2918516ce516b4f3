//! Maps an error line of the server to an [`Error`].

use crate::error::{Delivery, Error, ErrorKind};
use crate::protocol::ErrorLine;

/// What the server rejected with an error line. The same line means different things to each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejected {
    /// A command in a pipeline.
    Command,
    /// A command whose response is many lines, on a connection of its own.
    Listing,
    /// The credentials that open a connection.
    Credentials,
}

impl Rejected {
    /// Returns the error for this error line. Its text holds the line, but no node.
    pub(super) fn error(self, line: &ErrorLine, delivery: Delivery) -> Error {
        Error::new(self.kind(line), delivery).with_message(line.line())
    }

    fn kind(self, line: &ErrorLine) -> ErrorKind {
        match self {
            Self::Credentials if line.is_client_error() => ErrorKind::Auth,
            Self::Credentials => ErrorKind::Unavailable,
            _ if line.is_unauthenticated() => ErrorKind::Auth,
            Self::Command if line.is_too_large() => ErrorKind::TooLarge,
            // The server does not know the command, or an argument of it.
            Self::Listing if line.line() == "ERROR" => ErrorKind::Unsupported,
            Self::Command | Self::Listing => ErrorKind::Server,
        }
    }
}
