//! Options of the meta commands, with one method per flag of the protocol.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use thiserror::Error;

use crate::error::{Error, ErrorKind};
use crate::item::{Cas, SetOptions};
use crate::key::MetaKey;
use crate::protocol::{MetaFlags, MetaRequest, MetaVerb, ServerVersion, Token};
use crate::ttl::{IntoTtl, InvalidTtl, MAX_RELATIVE, Ttl};

/// The longest opaque token in bytes. Servers document 32 and accept 31.
const MAX_OPAQUE_LEN: usize = 31;
/// The longest token of another flag in bytes. All tokens of the protocol are shorter.
const MAX_TOKEN_LEN: usize = 64;
/// The most flags in one command, the client's own included. Servers up to 1.6.38 at least reject a longer line without
/// reading its data block, and run that block as commands.
const MAX_FLAGS: usize = 17;

/// The flags of one command, for all option types. Keeps an error until [`into_request`](Self::into_request).
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    flags: MetaFlags,
    /// TTLs by flag. They become expiry times when the command is made.
    ttls: Vec<(u8, Result<Ttl, InvalidTtl>)>,
    opaque: Option<Box<[u8]>>,
    min_version: Option<ServerVersion>,
    error: Option<InvalidFlag>,
}

impl Options {
    pub(crate) fn set(&mut self, letter: u8) {
        self.flags.put(letter, Token::None);
    }

    pub(crate) fn number(&mut self, letter: u8, number: u64) {
        self.flags.put(letter, Token::Number(number));
    }

    pub(crate) fn mode(&mut self, mode: &'static [u8]) {
        self.flags.put(b'M', Token::Text(mode.into()));
    }

    pub(crate) fn ttl(&mut self, letter: u8, ttl: Result<Ttl, InvalidTtl>) {
        self.ttls.retain(|(known, _)| *known != letter);
        self.ttls.push((letter, ttl));
    }

    /// Sets an expiry time. The server executes flags in their order: it reports the TTL left before that.
    pub(crate) fn touch(exptime: u32) -> Self {
        let mut options = Self::default();
        options.set(b't');
        options.number(b'T', exptime.into());
        options
    }

    fn require(&mut self, version: ServerVersion) {
        self.min_version = self.min_version.max(Some(version));
    }

    fn opaque(&mut self, token: &[u8]) {
        match token.len() {
            1..=MAX_OPAQUE_LEN if token.iter().all(u8::is_ascii_graphic) => self.opaque = Some(token.into()),
            _ => self.error = Some(InvalidFlag::Token),
        }
    }

    /// Removes the caller's opaque token, for commands that need tokens of the client.
    pub(crate) fn forget_opaque(&mut self) {
        self.opaque = None;
    }

    fn other(&mut self, letter: char, token: &str) {
        let flag = u8::try_from(letter).ok().filter(u8::is_ascii_alphabetic);
        let is_taken = |letter: &u8| b"bOq".contains(letter) || self.flags.has(*letter) || self.has_ttl(*letter);
        self.error = match flag {
            None => Some(InvalidFlag::Letter),
            Some(letter) if is_taken(&letter) => Some(InvalidFlag::Taken),
            Some(_) if token.len() > MAX_TOKEN_LEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Some(InvalidFlag::Token)
            }
            Some(letter) => {
                self.flags.put(letter, Token::Text(token.as_bytes().into()));
                // Older servers may run the data block behind an unknown flag as commands.
                self.require(ServerVersion::META_ECHO_ON_MISS);
                return;
            }
        };
    }

    fn has_ttl(&self, letter: u8) -> bool {
        self.ttls.iter().any(|(known, _)| *known == letter)
    }

    /// Makes the command, with expiry times computed by the current time.
    pub(crate) fn into_request(mut self, verb: MetaVerb, key: MetaKey, value: Bytes) -> Result<MetaRequest, Error> {
        if let Some(error) = self.error {
            return Err(Error::not_sent(ErrorKind::InvalidFlag).with_source(error));
        }
        for (letter, ttl) in self.ttls {
            self.flags.put(letter, Token::Number(ttl?.exptime(SystemTime::now)?.into()));
        }
        // An `O`. Also the length of an `ms`, which counts as a word, or the `q` of an `mg` in a run.
        let client_words = match verb {
            MetaVerb::Get | MetaVerb::Set => 2,
            MetaVerb::Delete | MetaVerb::Arithmetic | MetaVerb::Debug => 1,
        };
        if self.flags.len() + client_words + usize::from(key.is_base64()) > MAX_FLAGS {
            return Err(Error::not_sent(ErrorKind::InvalidFlag).with_source(InvalidFlag::TooMany));
        }
        let min_version = self.min_version.unwrap_or(ServerVersion::META);
        Ok(MetaRequest { verb, key, flags: self.flags, value, opaque: self.opaque, min_version })
    }
}

/// The error for an invalid meta flag or token of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidFlag {
    /// The flag is not an ASCII letter.
    #[error("the flag is not an ASCII letter")]
    Letter,
    /// The client sets this flag itself, or the flag is already set.
    #[error("the flag is reserved for the client or already set")]
    Taken,
    /// The token is not visible ASCII without spaces of at most 64 bytes, or 1 to 31 bytes for an opaque token.
    #[error("the token is empty, too long, or not visible ASCII without spaces")]
    Token,
    /// There are more flags than a server reads in one command. The options of this crate always fit.
    #[error("there are more flags than a server reads in one command")]
    TooMany,
}

/// Implements the methods that all option types share.
macro_rules! shared_options {
    ($name:ident) => {
        impl $name {
            /// Requests the key in the reply (`k`).
            pub fn key(mut self) -> Self {
                self.0.set(b'k');
                self
            }

            /// Sends an opaque token, which the reply returns (`O`): 1 to 31 bytes of visible ASCII. Without one the
            /// client sends its own token. It checks the token of the reply in both cases.
            pub fn opaque(mut self, token: impl AsRef<[u8]>) -> Self {
                self.0.opaque(token.as_ref());
                self
            }

            /// Sets the item's new CAS unique, instead of the server's next one (`E`). Needs memcached 1.6.27.
            pub fn new_cas(mut self, cas: Cas) -> Self {
                self.0.number(b'E', cas.0);
                self.0.require(ServerVersion::META_EXPLICIT_CAS);
                self
            }

            /// Sends a flag that has no method here, such as `P` and `L`, which servers ignore and proxies read. The
            /// flag is an ASCII letter; its token has at most 64 bytes of visible ASCII. Needs memcached 1.6.18.
            pub fn flag(mut self, letter: char, token: &str) -> Self {
                self.0.other(letter, token);
                self
            }
        }

        impl From<$name> for Options {
            fn from(options: $name) -> Self {
                options.0
            }
        }
    };
}

/// Options of [`Client::meta_get`](crate::Client::meta_get).
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Get(Options);
shared_options!(Get);

impl Get {
    /// Creates options that request only whether the item exists.
    pub fn new() -> Self {
        Self::default()
    }

    /// Requests the value (`v`).
    pub fn value(mut self) -> Self {
        self.0.set(b'v');
        self
    }

    /// Requests the flags (`f`).
    pub fn flags(mut self) -> Self {
        self.0.set(b'f');
        self
    }

    /// Requests the CAS unique (`c`).
    pub fn cas(mut self) -> Self {
        self.0.set(b'c');
        self
    }

    /// Requests the TTL left (`t`).
    pub fn ttl_left(mut self) -> Self {
        self.0.set(b't');
        self
    }

    /// Requests the value's length (`s`).
    pub fn size(mut self) -> Self {
        self.0.set(b's');
        self
    }

    /// Requests whether the item was read before (`h`).
    pub fn hit_before(mut self) -> Self {
        self.0.set(b'h');
        self
    }

    /// Requests the time since the item was last read (`l`).
    pub fn last_access(mut self) -> Self {
        self.0.set(b'l');
        self
    }

    /// Leaves the item's LRU position and its read marks unchanged (`u`).
    pub fn no_bump(mut self) -> Self {
        self.0.set(b'u');
        self
    }

    /// Sets a new TTL (`T`).
    pub fn touch(mut self, ttl: impl IntoTtl) -> Self {
        self.0.ttl(b'T', ttl.into_ttl());
        self
    }

    /// Creates an empty item with this TTL on a miss, and asks this reader to fill it (`N`).
    ///
    /// See [`Item::won`](super::Item::won). [`Client::fetch`](crate::Client::fetch) does this and all that follows from
    /// it.
    pub fn vivify(mut self, ttl: impl IntoTtl) -> Self {
        self.0.ttl(b'N', ttl.into_ttl());
        self
    }

    /// Asks one reader to renew the item if its TTL left is below `time` (`R`).
    ///
    /// See [`Item::won`](super::Item::won). `time` is in whole seconds, at most 30 days.
    pub fn recache_within(mut self, time: Duration) -> Self {
        self.0.number(b'R', time.as_secs().min(MAX_RELATIVE));
        self
    }

    /// Leaves out the value if the item has this CAS unique (`C`). Needs memcached 1.6.40.
    pub fn unless_cas(mut self, cas: Cas) -> Self {
        self.0.number(b'C', cas.0);
        self.0.require(ServerVersion::META_CONDITIONAL_GET);
        self
    }
}

/// The condition under which a [`Set`] stores, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// Stores always.
    Set,
    /// Stores only if there is no item.
    Add,
    /// Stores only if there is an item.
    Replace,
    /// Appends to the value, if there is an item.
    Append,
    /// Prepends to the value, if there is an item.
    Prepend,
}

/// Options of [`Client::meta_set`](crate::Client::meta_set).
#[derive(Debug, Clone)]
#[must_use]
pub struct Set(Options);
shared_options!(Set);

impl Set {
    /// Creates options that store an item with this TTL (`T`). An item that does not expire needs [`Ttl::NEVER`].
    pub fn new(ttl: impl IntoTtl) -> Self {
        let mut options = Options::default();
        options.ttl(b'T', ttl.into_ttl());
        Self(options)
    }

    /// Creates options with the TTL and the flags of a classic set.
    pub(crate) fn from_store(store: &SetOptions) -> Self {
        let mut options = Options::default();
        options.ttl(b'T', store.ttl());
        options.number(b'F', store.wire_flags().into());
        Self(options)
    }

    /// Sets the flags stored with the value (`F`). The default is 0.
    pub fn flags(mut self, flags: u32) -> Self {
        self.0.number(b'F', flags.into());
        self
    }

    /// Sets the mode (`M`). The default is [`Mode::Set`].
    pub fn mode(mut self, mode: Mode) -> Self {
        self.0.mode(match mode {
            Mode::Set => b"S",
            Mode::Add => b"E",
            Mode::Replace => b"R",
            Mode::Append => b"A",
            Mode::Prepend => b"P",
        });
        self
    }

    /// Stores only if the item has this CAS unique (`C`).
    pub fn compare(mut self, cas: Cas) -> Self {
        self.0.number(b'C', cas.0);
        self
    }

    /// With [`compare`](Self::compare), also stores if the CAS unique is older, and marks the item as stale (`I`).
    pub fn invalidate(mut self) -> Self {
        self.0.set(b'I');
        self
    }

    /// Creates a missing item with this TTL in the modes `Append` and `Prepend` (`N`). Needs memcached 1.6.20.
    pub fn vivify(mut self, ttl: impl IntoTtl) -> Self {
        self.0.ttl(b'N', ttl.into_ttl());
        self.0.require(ServerVersion::META_APPEND_VIVIFY);
        self
    }

    /// Requests the item's new CAS unique (`c`).
    pub fn return_cas(mut self) -> Self {
        self.0.set(b'c');
        self
    }

    /// Requests the length of the stored value (`s`).
    pub fn return_size(mut self) -> Self {
        self.0.set(b's');
        self
    }
}

/// Options of [`Client::meta_delete`](crate::Client::meta_delete).
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Delete(Options);
shared_options!(Delete);

impl Delete {
    /// Creates options that delete the item.
    pub fn new() -> Self {
        Self::default()
    }

    /// Deletes only if the item has this CAS unique (`C`).
    pub fn compare(mut self, cas: Cas) -> Self {
        self.0.number(b'C', cas.0);
        self
    }

    /// Keeps the item, marks it as stale and gives it a new CAS unique (`I`).
    ///
    /// One reader is then asked to renew it: see [`Item::won`](super::Item::won).
    pub fn mark_stale(mut self) -> Self {
        self.0.set(b'I');
        self
    }

    /// Sets the TTL of the stale item, with [`mark_stale`](Self::mark_stale) (`T`).
    pub fn ttl(mut self, ttl: impl IntoTtl) -> Self {
        self.0.ttl(b'T', ttl.into_ttl());
        self
    }

    /// Keeps the item, but removes its value and its flags (`x`). Needs memcached 1.6.27.
    pub fn drop_value(mut self) -> Self {
        self.0.set(b'x');
        self.0.require(ServerVersion::META_EXPLICIT_CAS);
        self
    }
}

/// Options of [`Client::meta_arithmetic`](crate::Client::meta_arithmetic).
#[derive(Debug, Clone)]
#[must_use]
pub struct Arithmetic(Options);
shared_options!(Arithmetic);

impl Arithmetic {
    /// Creates options that add `delta`, wrapping at 2^64.
    pub fn incr(delta: u64) -> Self {
        Self::by(b"I", delta)
    }

    /// Creates options that subtract `delta`, stopping at 0.
    pub fn decr(delta: u64) -> Self {
        Self::by(b"D", delta)
    }

    fn by(mode: &'static [u8], delta: u64) -> Self {
        let mut options = Options::default();
        options.set(b'v');
        options.mode(mode);
        options.number(b'D', delta);
        Self(options)
    }

    /// Creates a missing number with this value and this TTL (`N`, `J`). The delta is then not applied.
    pub fn create(mut self, initial: u64, ttl: impl IntoTtl) -> Self {
        self.0.ttl(b'N', ttl.into_ttl());
        self.0.number(b'J', initial);
        self
    }

    /// Sets a new TTL (`T`).
    pub fn touch(mut self, ttl: impl IntoTtl) -> Self {
        self.0.ttl(b'T', ttl.into_ttl());
        self
    }

    /// Changes the number only if the item has this CAS unique (`C`).
    pub fn compare(mut self, cas: Cas) -> Self {
        self.0.number(b'C', cas.0);
        self
    }

    /// Requests the item's new CAS unique (`c`).
    pub fn return_cas(mut self) -> Self {
        self.0.set(b'c');
        self
    }

    /// Requests the TTL left (`t`).
    pub fn ttl_left(mut self) -> Self {
        self.0.set(b't');
        self
    }
}
