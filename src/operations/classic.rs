//! The classic commands on any key: as they are on text keys, as meta commands on binary keys.

use bytes::Bytes;
use futures_util::future::Either;
use tokio::time::Instant;

use super::Operations;
use crate::connection::NewCall;
use crate::error::Error;
use crate::key::{Key, MetaKey};
use crate::meta::{self, Number, Options};
use crate::protocol::{ArithmeticVerb, MetaCode, MetaReply, MetaVerb, Reply, Request, StoreVerb};

/// A classic command without its key.
#[derive(Debug)]
pub(crate) enum ClassicCommand {
    Store { verb: StoreVerb, flags: u32, exptime: u32, value: Bytes },
    Delete,
    Touch { exptime: u32 },
    Arithmetic { verb: ArithmeticVerb, delta: u64 },
}

impl Operations {
    /// Runs a command on an item. The reply is the classic one for both kinds of keys.
    pub(super) fn run(
        &self,
        key: MetaKey,
        command: ClassicCommand,
        deadline: Instant,
    ) -> impl Future<Output = Result<Reply, Error>> {
        match key {
            MetaKey::Text(key) => Either::Left(self.dispatcher.send(NewCall::command(command.on(key), deadline))),
            // Boxed, so that the rare case does not enlarge every command's future.
            key @ MetaKey::Binary(_) => Either::Right(Box::pin(self.run_by_meta(key, command, deadline))),
        }
    }

    async fn run_by_meta(&self, key: MetaKey, command: ClassicCommand, deadline: Instant) -> Result<Reply, Error> {
        let mut options = Options::default();
        let (verb, done, value) = match command {
            ClassicCommand::Store { verb, flags, exptime, value } => {
                options.number(b'F', flags.into());
                options.number(b'T', exptime.into());
                match verb {
                    StoreVerb::Set => {}
                    StoreVerb::Add => options.mode(b"E"),
                    StoreVerb::Replace => options.mode(b"R"),
                    StoreVerb::Append => options.mode(b"A"),
                    StoreVerb::Prepend => options.mode(b"P"),
                    StoreVerb::Cas(version) => options.number(b'C', version),
                }
                (MetaVerb::Set, Reply::Stored, value)
            }
            ClassicCommand::Delete => (MetaVerb::Delete, Reply::Deleted, Bytes::new()),
            ClassicCommand::Touch { exptime } => {
                return self.touch_by_meta(key, exptime, deadline).await;
            }
            ClassicCommand::Arithmetic { verb, delta } => {
                options.set(b'v');
                options.number(b'D', delta);
                options.mode(if verb == ArithmeticVerb::Incr { b"I" } else { b"D" });
                let reply = self.meta(MetaVerb::Arithmetic, key, options, Bytes::new(), deadline).await?;
                return Ok(Number::from_reply(reply)?.value.map_or(Reply::NotFound, Reply::Number));
            }
        };
        classic_reply(&self.meta(verb, key, options, value, deadline).await?, done)
    }

    /// Touches an item. It does not renew one, and leaves a lease as it was.
    async fn touch_by_meta(&self, key: MetaKey, exptime: u32, deadline: Instant) -> Result<Reply, Error> {
        let mut options = Options::touch(exptime);
        options.set(b's');
        options.set(b'c');
        let reply = self.meta(MetaVerb::Get, key.clone(), options, Bytes::new(), deadline).await?;
        let Some(found) = meta::Item::from_reply(reply)? else { return Ok(Reply::NotFound) };
        self.leave_renewal(&key, &found, found.ttl_left, deadline).await;
        Ok(Reply::Touched)
    }
}

fn classic_reply(reply: &MetaReply, done: Reply) -> Result<Reply, Error> {
    match reply.code {
        MetaCode::Done | MetaCode::Value => Ok(done),
        MetaCode::NotFound | MetaCode::Miss => Ok(Reply::NotFound),
        MetaCode::NotStored => Ok(Reply::NotStored),
        MetaCode::Exists => Ok(Reply::Exists),
        MetaCode::Debug | MetaCode::End => Err(Error::unexpected_response()),
    }
}

impl ClassicCommand {
    pub(crate) fn on(self, key: Key) -> Request {
        match self {
            Self::Store { verb, flags, exptime, value } => Request::Store { verb, key, flags, exptime, value },
            Self::Delete => Request::Delete { key },
            Self::Touch { exptime } => Request::Touch { key, exptime },
            Self::Arithmetic { verb, delta } => Request::Arithmetic { verb, key, delta },
        }
    }
}
