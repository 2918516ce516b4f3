//! Operations on one item, each by a checked key and with a deadline: what the client's commands are made of.
//!
//! An operation works the same for every kind of key. Text keys take the classic commands, binary keys the meta
//! commands.

mod classic;
mod lease;
mod lookup;
mod value_limit;

use bytes::Bytes;
use futures_util::future::Either;
use tokio::time::Instant;

use crate::connection::NewCall;
use crate::dispatch::Dispatcher;
use crate::error::{Delivery, Error, ErrorKind, Feature};
use crate::item::{Cas, CasOutcome, SetOptions};
use crate::key::MetaKey;
use crate::meta::Options;
use crate::protocol::{ArithmeticVerb, MetaReply, MetaVerb, Reply, Request, StoreVerb};

pub(crate) use self::classic::ClassicCommand;
pub(crate) use self::lease::{Lease, LeaseKind};
pub(crate) use self::lookup::may_be_lease;
pub(crate) use self::value_limit::{TooLarge, ValueLimit};

/// Sends operations by a dispatcher. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Operations {
    dispatcher: Dispatcher,
    value_limit: ValueLimit,
}

/// What came of a meta command, for operations that do without it on servers that have none.
#[derive(Debug)]
pub(crate) enum MetaAttempt<T> {
    Answered(T),
    /// The server is known to have no meta commands, and so no leases and no stale items.
    NoMetaCommands,
}

impl<T> MetaAttempt<T> {
    /// Returns the outcome, or the error if it does not say whether the server has meta commands.
    pub(crate) fn of(outcome: Result<T, Error>) -> Result<Self, Error> {
        match outcome {
            Ok(answer) => Ok(Self::Answered(answer)),
            Err(error) if error.is_lack_of(Feature::MetaCommands) => Ok(Self::NoMetaCommands),
            Err(error) => Err(error),
        }
    }
}

impl Operations {
    pub(crate) fn new(dispatcher: Dispatcher, value_limit: ValueLimit) -> Self {
        Self { dispatcher, value_limit }
    }

    #[inline]
    pub(crate) fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }

    pub(crate) fn value_limit(&self) -> ValueLimit {
        self.value_limit
    }

    /// Stores an item. A value over the client's limit is not sent; its key is deleted if the client is set to.
    ///
    /// Not an `async fn`, whose future would hold key and value beside the call that is made of them.
    pub(crate) fn set(
        &self,
        key: MetaKey,
        value: Bytes,
        options: SetOptions,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), Error>> + Send + Sync {
        let stored = match (options.exptime(), self.value_limit.check(&value)) {
            (Ok(exptime), Ok(())) => {
                let flags = options.wire_flags();
                let command = ClassicCommand::Store { verb: StoreVerb::Set, flags, exptime, value };
                Ok(Either::Left(self.run(key, command, deadline)))
            }
            (Ok(_), Err(too_large)) => Ok(Either::Right(Box::pin(self.refuse_set(key, too_large, deadline)))),
            (Err(invalid), _) => Err(Error::from(invalid)),
        };
        async move {
            match stored?.await? {
                Reply::Stored => Ok(()),
                _ => Err(not_stored()),
            }
        }
    }

    /// Returns the error of a set whose value is too large, after a delete if the client is set to.
    async fn refuse_set(&self, key: MetaKey, too_large: TooLarge, deadline: Instant) -> Result<Reply, Error> {
        Err(if self.value_limit.deletes_old_value() {
            too_large.after_delete(self.run(key, ClassicCommand::Delete, deadline).await)
        } else {
            too_large.into()
        })
    }

    async fn store(
        &self,
        verb: StoreVerb,
        key: MetaKey,
        value: Bytes,
        (flags, exptime): (u32, u32),
        deadline: Instant,
    ) -> Result<Reply, Error> {
        self.value_limit.check(&value)?;
        self.run(key, ClassicCommand::Store { verb, flags, exptime, value }, deadline).await
    }

    /// Stores an item if the condition of the verb (`Add`, `Replace`) holds. Returns whether it was stored.
    pub(crate) async fn store_if(
        &self,
        verb: StoreVerb,
        key: MetaKey,
        value: Bytes,
        options: SetOptions,
        deadline: Instant,
    ) -> Result<bool, Error> {
        let form = (options.wire_flags(), options.exptime()?);
        Ok(self.store(verb, key, value, form, deadline).await? == Reply::Stored)
    }

    /// Appends or prepends to an item, which keeps its flags and TTL. Returns whether it did.
    pub(crate) async fn extend(
        &self,
        verb: StoreVerb,
        key: MetaKey,
        value: Bytes,
        deadline: Instant,
    ) -> Result<bool, Error> {
        Ok(self.store(verb, key, value, (0, 0), deadline).await? == Reply::Stored)
    }

    /// Stores an item over one version only.
    pub(crate) async fn compare_and_swap(
        &self,
        key: MetaKey,
        version: Cas,
        value: Bytes,
        options: SetOptions,
        deadline: Instant,
    ) -> Result<CasOutcome, Error> {
        let form = (options.wire_flags(), options.exptime()?);
        if version.is_switched_off() {
            return Err(Error::without_cas_uniques(Delivery::NotSent));
        }
        match self.store(StoreVerb::Cas(version.0), key, value, form, deadline).await? {
            Reply::Stored => Ok(CasOutcome::Stored),
            Reply::Exists => Ok(CasOutcome::Changed),
            _ => Ok(CasOutcome::Missing),
        }
    }

    /// Deletes an item. Returns whether it was there.
    pub(crate) async fn delete(&self, key: MetaKey, deadline: Instant) -> Result<bool, Error> {
        Ok(self.run(key, ClassicCommand::Delete, deadline).await? == Reply::Deleted)
    }

    /// Gives an item a new expiry time. Returns whether it was there.
    pub(crate) async fn touch(&self, key: MetaKey, exptime: u32, deadline: Instant) -> Result<bool, Error> {
        Ok(self.run(key, ClassicCommand::Touch { exptime }, deadline).await? == Reply::Touched)
    }

    /// Adds to or subtracts from a number. `None` if the item is not there.
    pub(crate) async fn arithmetic(
        &self,
        verb: ArithmeticVerb,
        key: MetaKey,
        delta: u64,
        deadline: Instant,
    ) -> Result<Option<u64>, Error> {
        match self.run(key, ClassicCommand::Arithmetic { verb, delta }, deadline).await? {
            Reply::Number(number) => Ok(Some(number)),
            _ => Ok(None),
        }
    }

    /// Sends a meta command.
    pub(crate) async fn meta(
        &self,
        verb: MetaVerb,
        key: MetaKey,
        options: impl Into<Options>,
        value: Bytes,
        deadline: Instant,
    ) -> Result<MetaReply, Error> {
        let request = Request::Meta(Box::new(options.into().into_request(verb, key, value)?));
        match self.dispatcher.send(NewCall::command(request, deadline)).await? {
            Reply::Meta(reply) => Ok(*reply),
            _ => Err(Error::unexpected_response()),
        }
    }
}

/// The error of a set that was answered by `NOT_STORED`. memcached does not answer so, but a proxy may.
pub(crate) fn not_stored() -> Error {
    Error::new(ErrorKind::Server, Delivery::Answered).with_message("NOT_STORED")
}
