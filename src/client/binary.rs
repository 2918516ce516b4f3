//! The classic commands on any key: as they are where the key is text, as meta commands where it is not.

use bytes::Bytes;
use futures_util::future::Either;

use super::Client;
use super::meta::{Number, Options};
use crate::connection::unexpected_response;
use crate::error::Error;
use crate::item::Cas;
use crate::key::{Key, MetaKey};
use crate::protocol::{ArithmeticVerb, MetaCode, MetaReply, MetaVerb, Reply, Request, StoreVerb};

/// A classic command, without its key.
#[derive(Debug)]
pub(super) enum Command {
    Store { verb: StoreVerb, flags: u32, exptime: u32, value: Bytes },
    Delete,
    Touch { exptime: u32 },
    Arithmetic { verb: ArithmeticVerb, delta: u64 },
}

impl Client {
    /// Gives the command to the key's owner. The reply is the classic one, whichever way it went.
    pub(super) fn run(&self, key: MetaKey, command: Command) -> impl Future<Output = Result<Reply, Error>> {
        match key {
            MetaKey::Text(key) => Either::Left(self.reply_to(command.on(key))),
            // The rarer way must not make every command's future larger.
            key @ MetaKey::Binary(_) => Either::Right(Box::pin(self.run_on_binary(key, command))),
        }
    }

    async fn run_on_binary(&self, key: MetaKey, command: Command) -> Result<Reply, Error> {
        let mut options = Options::default();
        let (verb, done, value) = match command {
            Command::Store { verb, flags, exptime, value } => {
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
            Command::Delete => (MetaVerb::Delete, Reply::Deleted, Bytes::new()),
            Command::Touch { exptime } => {
                options.number(b'T', exptime.into());
                options.set(b'c');
                (MetaVerb::Get, Reply::Touched, Bytes::new())
            }
            Command::Arithmetic { verb, delta } => {
                options.set(b'v');
                options.number(b'D', delta);
                options.mode(if verb == ArithmeticVerb::Incr { b"I" } else { b"D" });
                let reply = self.meta(MetaVerb::Arithmetic, key, options, Bytes::new()).await?;
                return Ok(Number::from_reply(reply)?.value.map_or(Reply::NotFound, Reply::Number));
            }
        };
        let reply = self.meta(verb, key.clone(), options, value).await?;
        if let (true, Some(cas)) = (reply.won, reply.cas) {
            // To touch an item is no promise to renew it.
            self.decline(&key, Cas(cas)).await;
        }
        classic(&reply, done)
    }
}

fn classic(reply: &MetaReply, done: Reply) -> Result<Reply, Error> {
    match reply.code {
        MetaCode::Done | MetaCode::Value => Ok(done),
        MetaCode::NotFound | MetaCode::Miss => Ok(Reply::NotFound),
        MetaCode::NotStored => Ok(Reply::NotStored),
        MetaCode::Exists => Ok(Reply::Exists),
        MetaCode::Debug | MetaCode::End => Err(unexpected_response()),
    }
}

impl Command {
    pub(super) fn on(self, key: Key) -> Request {
        match self {
            Self::Store { verb, flags, exptime, value } => Request::Store { verb, key, flags, exptime, value },
            Self::Delete => Request::Delete { key },
            Self::Touch { exptime } => Request::Touch { key, exptime },
            Self::Arithmetic { verb, delta } => Request::Arithmetic { verb, key, delta },
        }
    }
}
