//! The client's limit on values, and the errors of values over it.

use std::fmt;

use bytes::Bytes;

use crate::config::Settings;
use crate::error::{Delivery, Error, ErrorKind};

/// The largest value the client sends, and what a set of a larger one does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ValueLimit {
    max: usize,
    deletes_old_value: bool,
}

/// A value over the client's limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TooLarge {
    len: usize,
    max: usize,
}

impl ValueLimit {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self { max: settings.max_value, deletes_old_value: settings.delete_when_too_large }
    }

    #[inline]
    pub(crate) fn check(self, value: &Bytes) -> Result<(), TooLarge> {
        if value.len() > self.max { Err(TooLarge { len: value.len(), max: self.max }) } else { Ok(()) }
    }

    /// Whether a set that is refused for its size deletes the item. Only a set does: an `add` or a `replace` has a
    /// condition, and the client does not know whether it holds.
    pub(crate) fn deletes_old_value(self) -> bool {
        self.deletes_old_value
    }
}

impl TooLarge {
    /// Returns the error of a set that deleted the old value instead. It has the delivery of the delete, so that it
    /// says the same of the old value as the server's own refusal would.
    pub(crate) fn after_delete<T>(self, deleted: Result<T, Error>) -> Error {
        let Err(failed) = deleted else {
            return Error::new(ErrorKind::TooLarge, Delivery::Answered).with_message(self.to_string());
        };
        let mut error = Error::new(ErrorKind::TooLarge, failed.delivery());
        if let Some(node) = failed.node() {
            error = error.with_node(node);
        }
        error.with_message(format!("{self}; deleting the old value failed")).with_source(failed)
    }
}

impl From<TooLarge> for Error {
    fn from(too_large: TooLarge) -> Self {
        Self::not_sent(ErrorKind::TooLarge).with_message(too_large.to_string())
    }
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, {} are allowed", self.len, self.max)
    }
}
