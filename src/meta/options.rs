//! What the meta commands can be asked to do: one method per flag of the protocol.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use thiserror::Error;

use crate::error::{Error, ErrorKind};
use crate::item::{Cas, SetOptions};
use crate::key::MetaKey;
use crate::protocol::{MetaFlags, MetaRequest, MetaVerb, ServerVersion, Token};
use crate::ttl::{IntoTtl, InvalidTtl, Ttl};

/// Servers say 32, and take 31.
const LONGEST_OPAQUE: usize = 31;
/// Long enough for any token there is.
const LONGEST_TOKEN: usize = 64;
/// As many flags, the client's own with them, as servers up to 1.6.38 at least read in one line. They refuse a longer one
/// without swallowing its data block, and run that as commands.
const MOST_FLAGS: usize = 17;

/// What all four have in common. A mistake is kept until the command is given, which it then fails.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    flags: MetaFlags,
    /// Times to live, which become numbers when the command is made.
    ttls: Vec<(u8, Result<Ttl, InvalidTtl>)>,
    opaque: Option<Box<[u8]>>,
    needs: Option<ServerVersion>,
    mistake: Option<InvalidFlag>,
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

    fn needs(&mut self, version: ServerVersion) {
        self.needs = self.needs.max(Some(version));
    }

    fn opaque(&mut self, token: &[u8]) {
        match token.len() {
            1..=LONGEST_OPAQUE if token.iter().all(u8::is_ascii_graphic) => self.opaque = Some(token.into()),
            _ => self.mistake = Some(InvalidFlag::Token),
        }
    }

    /// Where the client needs all tokens for its own.
    pub(crate) fn forget_opaque(&mut self) {
        self.opaque = None;
    }

    fn other(&mut self, letter: char, token: &str) {
        let known = u8::try_from(letter).ok().filter(u8::is_ascii_alphabetic);
        let taken = |letter: &u8| b"bOq".contains(letter) || self.flags.has(*letter) || self.has_ttl(*letter);
        self.mistake = match known {
            None => Some(InvalidFlag::Letter),
            Some(letter) if taken(&letter) => Some(InvalidFlag::Taken),
            Some(_) if token.len() > LONGEST_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Some(InvalidFlag::Token)
            }
            Some(letter) => {
                self.flags.put(letter, Token::Text(token.as_bytes().into()));
                // Older ones may run a data block as commands when a flag before it is not one they know.
                self.needs(ServerVersion::META_ECHO_ON_MISS);
                return;
            }
        };
    }

    fn has_ttl(&self, letter: u8) -> bool {
        self.ttls.iter().any(|(known, _)| *known == letter)
    }

    /// The command as it goes over the wire now.
    pub(crate) fn into_request(mut self, verb: MetaVerb, key: MetaKey, value: Bytes) -> Result<MetaRequest, Error> {
        if let Some(mistake) = self.mistake {
            return Err(Error::not_sent(ErrorKind::InvalidFlag).with_source(mistake));
        }
        for (letter, ttl) in self.ttls {
            self.flags.put(letter, Token::Number(ttl?.exptime(SystemTime::now)?.into()));
        }
        // An `ms` has its length for another word, every line `O`, and a line of a run `q`.
        let own = match verb {
            MetaVerb::Get | MetaVerb::Set => 2,
            MetaVerb::Delete | MetaVerb::Arithmetic | MetaVerb::Debug => 1,
        };
        if self.flags.len() + own + usize::from(key.is_base64()) > MOST_FLAGS {
            return Err(Error::not_sent(ErrorKind::InvalidFlag).with_source(InvalidFlag::TooMany));
        }
        let needs = self.needs.unwrap_or(ServerVersion::META);
        Ok(MetaRequest { verb, key, flags: self.flags, value, opaque: self.opaque, needs })
    }
}

/// Why a meta flag or token of the caller's own cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidFlag {
    /// A flag is one ASCII letter.
    #[error("a flag is one ASCII letter")]
    Letter,
    /// The client sets this flag itself, or it is set already.
    #[error("the flag is the client's own, or is set already")]
    Taken,
    /// A token is visible ASCII without spaces: at most 31 bytes, and not empty, for an opaque token; at most 64 for
    /// others.
    #[error("a token is too long, or not visible ASCII without spaces")]
    Token,
    /// More flags than a server reads in one command. The options of this client all fit together; what is too much are
    /// flags of the caller's own.
    #[error("more flags than a server reads in one command")]
    TooMany,
}

/// The methods that every command has.
macro_rules! shared_options {
    ($name:ident) => {
        impl $name {
            /// Has the server send the key back (`k`).
            pub fn key(mut self) -> Self {
                self.0.set(b'k');
                self
            }

            /// Sends a token of the caller's own along, which comes back with the answer (`O`): 1 to 31 bytes of visible
            /// ASCII. Without one the client sends one of its own, and checks it.
            pub fn opaque(mut self, token: impl AsRef<[u8]>) -> Self {
                self.0.opaque(token.as_ref());
                self
            }

            /// Makes this the item's version, rather than the server's next (`E`). Needs memcached 1.6.27.
            pub fn new_cas(mut self, cas: Cas) -> Self {
                self.0.number(b'E', cas.0);
                self.0.needs(ServerVersion::META_EXPLICIT_CAS);
                self
            }

            /// Sends a flag this client has no name for, such as the `P` and `L` that servers ignore and proxies read:
            /// an ASCII letter, and a token of at most 64 bytes of visible ASCII, or none. Needs memcached 1.6.18.
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
    /// Asks for nothing yet but whether the item is there.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the value (`v`).
    pub fn value(mut self) -> Self {
        self.0.set(b'v');
        self
    }

    /// Asks for the 32 bits stored beside the value (`f`).
    pub fn flags(mut self) -> Self {
        self.0.set(b'f');
        self
    }

    /// Asks for the item's version (`c`).
    pub fn cas(mut self) -> Self {
        self.0.set(b'c');
        self
    }

    /// Asks how long the item lives yet (`t`).
    pub fn ttl_left(mut self) -> Self {
        self.0.set(b't');
        self
    }

    /// Asks for the value's length (`s`).
    pub fn size(mut self) -> Self {
        self.0.set(b's');
        self
    }

    /// Asks whether the item was read before (`h`).
    pub fn hit_before(mut self) -> Self {
        self.0.set(b'h');
        self
    }

    /// Asks for the time since the item was last read (`l`).
    pub fn last_access(mut self) -> Self {
        self.0.set(b'l');
        self
    }

    /// Leaves no trace: the item is not moved in the server's order of use, nor counted as read (`u`).
    pub fn no_bump(mut self) -> Self {
        self.0.set(b'u');
        self
    }

    /// Gives the item a new time to live (`T`).
    pub fn touch(mut self, ttl: impl IntoTtl) -> Self {
        self.0.ttl(b'T', ttl.into_ttl());
        self
    }

    /// On a miss, creates an empty item that lives so long, and asks this reader to fill it: see [`Item::won`] (`N`).
    /// [`Client::fetch`](crate::Client::fetch) does all that follows from it.
    ///
    /// [`Item::won`]: super::Item::won
    pub fn vivify(mut self, ttl: impl IntoTtl) -> Self {
        self.0.ttl(b'N', ttl.into_ttl());
        self
    }

    /// If the item lives less long than this, asks one reader to store it anew (`R`). At most 30 days, in whole seconds.
    pub fn recache_within(mut self, time: Duration) -> Self {
        const LONGEST: u64 = 30 * 24 * 60 * 60;
        self.0.number(b'R', time.as_secs().min(LONGEST));
        self
    }

    /// Leaves the value out if the item is of this version (`C`). Needs memcached 1.6.40.
    pub fn unless(mut self, cas: Cas) -> Self {
        self.0.number(b'C', cas.0);
        self.0.needs(ServerVersion::META_CONDITIONAL_GET);
        self
    }
}

/// When a [`Set`] stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// Always.
    Set,
    /// If nothing is there.
    Add,
    /// If something is there.
    Replace,
    /// Behind the value that is there.
    Append,
    /// Before the value that is there.
    Prepend,
}

/// Options of [`Client::meta_set`](crate::Client::meta_set).
#[derive(Debug, Clone)]
#[must_use]
pub struct Set(Options);

shared_options!(Set);

impl Set {
    /// Stores an item that lives so long (`T`). There is no default: an item for ever must be asked for.
    pub fn new(ttl: impl IntoTtl) -> Self {
        let mut options = Options::default();
        options.ttl(b'T', ttl.into_ttl());
        Self(options)
    }

    pub(crate) fn from_store(store: &SetOptions) -> Self {
        let mut options = Options::default();
        options.ttl(b'T', store.ttl());
        options.number(b'F', store.wire_flags().into());
        Self(options)
    }

    /// The 32 bits kept beside the value (`F`); 0 unless set.
    pub fn flags(mut self, flags: u32) -> Self {
        self.0.number(b'F', flags.into());
        self
    }

    /// When to store (`M`); always, unless set.
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

    /// Stores only if the item is of this version (`C`).
    pub fn compare(mut self, cas: Cas) -> Self {
        self.0.number(b'C', cas.0);
        self
    }

    /// With [`compare`](Self::compare): stores also over a later version, but marks the item as stale (`I`).
    pub fn invalidate(mut self) -> Self {
        self.0.set(b'I');
        self
    }

    /// In the modes that append and prepend: creates a missing item, which lives so long (`N`). Needs memcached 1.6.20.
    pub fn vivify(mut self, ttl: impl IntoTtl) -> Self {
        self.0.ttl(b'N', ttl.into_ttl());
        self.0.needs(ServerVersion::META_APPEND_VIVIFY);
        self
    }

    /// Asks for the item's new version (`c`).
    pub fn return_cas(mut self) -> Self {
        self.0.set(b'c');
        self
    }

    /// Asks for the length of the stored value (`s`).
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
    /// Deletes the item.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only if the item is of this version (`C`).
    pub fn compare(mut self, cas: Cas) -> Self {
        self.0.number(b'C', cas.0);
        self
    }

    /// Leaves the item, but marks it as stale, under a new version (`I`): one reader is then asked to store it anew.
    pub fn mark_stale(mut self) -> Self {
        self.0.set(b'I');
        self
    }

    /// With [`mark_stale`](Self::mark_stale): how long the stale item lives (`T`).
    pub fn ttl(mut self, ttl: impl IntoTtl) -> Self {
        self.0.ttl(b'T', ttl.into_ttl());
        self
    }

    /// Takes the value off, flags too, and leaves the item (`x`). Needs memcached 1.6.27.
    pub fn drop_value(mut self) -> Self {
        self.0.set(b'x');
        self.0.needs(ServerVersion::META_EXPLICIT_CAS);
        self
    }
}

/// Options of [`Client::meta_arithmetic`](crate::Client::meta_arithmetic).
#[derive(Debug, Clone)]
#[must_use]
pub struct Arithmetic(Options);

shared_options!(Arithmetic);

impl Arithmetic {
    /// Adds, wrapping at 2^64.
    pub fn incr(delta: u64) -> Self {
        Self::by(b"I", delta)
    }

    /// Subtracts, stopping at 0.
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

    /// On a miss, creates the number with this value, to which nothing is added then, and this time to live (`N`, `J`).
    pub fn create(mut self, initial: u64, ttl: impl IntoTtl) -> Self {
        self.0.ttl(b'N', ttl.into_ttl());
        self.0.number(b'J', initial);
        self
    }

    /// Gives the number a new time to live (`T`).
    pub fn touch(mut self, ttl: impl IntoTtl) -> Self {
        self.0.ttl(b'T', ttl.into_ttl());
        self
    }

    /// Only if the item is of this version (`C`).
    pub fn compare(mut self, cas: Cas) -> Self {
        self.0.number(b'C', cas.0);
        self
    }

    /// Asks for the item's new version (`c`).
    pub fn return_cas(mut self) -> Self {
        self.0.set(b'c');
        self
    }

    /// Asks how long the number lives yet (`t`).
    pub fn ttl_left(mut self) -> Self {
        self.0.set(b't');
        self
    }
}
