//! Requests to store a value, and what becomes of one over the client's limit.

use bytes::Bytes;

use super::Client;
use super::binary::Command;
use crate::error::{Delivery, Error, ErrorKind};
use crate::key::Key;
use crate::protocol::{Reply, Request, StoreVerb};

/// A write on its way to a node.
pub(super) struct Write {
    pub(super) request: Request,
    /// The request deletes the old value of one that this is why it is not stored.
    pub(super) too_large: Option<TooLarge>,
}

impl From<Request> for Write {
    fn from(request: Request) -> Self {
        Self { request, too_large: None }
    }
}

/// A value over the client's limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct TooLarge {
    len: usize,
    limit: usize,
}

impl TooLarge {
    fn unsent(self) -> Error {
        Error::not_sent(ErrorKind::TooLarge).with_message(self.to_string())
    }

    /// The delivery is that of the delete, so that it says the same of the old value as the server's own refusal would.
    pub(super) fn after_delete(self, reply: Result<Reply, Error>) -> Error {
        let Err(failed) = reply else {
            return Error::new(ErrorKind::TooLarge, Delivery::Answered).with_message(self.to_string());
        };
        let error = Error::new(ErrorKind::TooLarge, failed.delivery());
        let error = match failed.node() {
            Some(node) => error.with_node(node),
            None => error,
        };
        error.with_message(format!("{self}; deleting the old value failed")).with_source(failed)
    }
}

impl std::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, {} are allowed", self.len, self.limit)
    }
}

impl Client {
    /// A set, or the delete that takes the place of one that is too large, if that is wanted. Only a set's: an `add` or a
    /// `replace` that is refused has a condition, of which nobody knows whether it holds.
    pub(super) fn set_command(
        &self,
        value: Bytes,
        flags: u32,
        exptime: u32,
    ) -> Result<(Command, Option<TooLarge>), Error> {
        match self.too_large(&value) {
            Some(too_large) if self.inner.settings.delete_when_too_large => Ok((Command::Delete, Some(too_large))),
            Some(too_large) => Err(too_large.unsent()),
            None => Ok((Command::Store { verb: StoreVerb::Set, flags, exptime, value }, None)),
        }
    }

    pub(super) fn set_request(&self, key: Key, value: Bytes, flags: u32, exptime: u32) -> Result<Write, Error> {
        let (command, too_large) = self.set_command(value, flags, exptime)?;
        Ok(Write { request: command.on(key), too_large })
    }

    /// A value over the client's limit is not sent.
    pub(super) fn check_size(&self, value: &Bytes) -> Result<(), Error> {
        self.too_large(value).map_or(Ok(()), |too_large| Err(too_large.unsent()))
    }

    fn too_large(&self, value: &Bytes) -> Option<TooLarge> {
        let (len, limit) = (value.len(), self.inner.settings.max_value);
        (len > limit).then_some(TooLarge { len, limit })
    }
}
