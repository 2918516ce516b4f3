//! Why nodes could not be listed, or a host could not be found.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

/// Why a source could not list nodes, or not find a host.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// The source answered that there is nothing: NXDOMAIN, or a name without records of the type asked for. For
    /// [`Discovery::discover`] only.
    ///
    /// For a headless service this is also the answer while no pod is ready.
    ///
    /// [`Discovery::discover`]: crate::Discovery::discover
    #[error("{}{}", empty_message(*.nxdomain), Detail(.detail))]
    #[non_exhaustive]
    Empty {
        /// Whether the answer was NXDOMAIN. Otherwise the name exists, without such records.
        nxdomain: bool,
        /// How long the source allows this answer to be cached.
        negative_ttl: Option<Duration>,
        /// What was asked for and what may help, if the source knows.
        detail: Option<Arc<str>>,
    },
    /// The source answered that a host does not exist, or has no address. For [`Discovery::resolve`] only.
    ///
    /// This error makes the client forget the host's addresses. So a lookup that failed must be another one, such as
    /// [`Timeout`](Self::Timeout) or [`Transport`](Self::Transport).
    ///
    /// [`Discovery::resolve`]: crate::Discovery::resolve
    #[error("the host {host} does not exist, or has no address")]
    #[non_exhaustive]
    NoSuchHost {
        /// The name that was looked up, as [`Discovery::resolve`](crate::Discovery::resolve) got it.
        host: Arc<str>,
        /// How long the source allows this answer to be cached.
        negative_ttl: Option<Duration>,
    },
    /// The DNS server answered with an error code.
    #[error("the DNS server answered {0}")]
    ServerFailure(String),
    /// No answer arrived in time.
    #[error("no answer in time")]
    Timeout,
    /// The answer was truncated, and could not be fetched whole.
    #[error("the answer was truncated and could not be fetched over TCP")]
    Truncated,
    /// The answer is longer than a DNS message can be, 64 KiB, so it can never arrive whole.
    #[error(
        "the answer is longer than 64 KiB, and cannot arrive whole: use shorter names, query one port by its name \
         (`_port._proto`), or list the pods' addresses (A or AAAA records) in a source of your own"
    )]
    AnswerTooLong,
    /// The query could not be sent, or the answer could not be read.
    #[error("lookup failed: {0}")]
    Transport(String),
    /// The source's configuration is wrong. Polling again does not help.
    #[error("{0}")]
    Config(String),
}

impl DiscoveryError {
    /// Creates an [`Empty`](Self::Empty) error: an authoritative "there is nothing".
    #[must_use]
    pub fn empty(nxdomain: bool, negative_ttl: Option<Duration>) -> Self {
        Self::Empty { nxdomain, negative_ttl, detail: None }
    }

    /// Creates a [`NoSuchHost`](Self::NoSuchHost) error: an authoritative "no such host, or no address".
    #[must_use]
    pub fn no_such_host(host: impl Into<Arc<str>>, negative_ttl: Option<Duration>) -> Self {
        Self::NoSuchHost { host: host.into(), negative_ttl }
    }

    /// Adds to an [`Empty`](Self::Empty) error what was asked for, or what may help. Leaves other errors unchanged.
    #[must_use]
    pub fn with_detail(mut self, text: impl Into<Arc<str>>) -> Self {
        if let Self::Empty { detail, .. } = &mut self {
            *detail = Some(text.into());
        }
        self
    }

    /// Returns whether this is an answer ("there is nothing") rather than the lack of one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty { .. })
    }

    /// Returns whether this is the answer that a host does not exist or has no address.
    #[must_use]
    pub fn is_no_such_host(&self) -> bool {
        matches!(self, Self::NoSuchHost { .. })
    }
}

fn empty_message(nxdomain: bool) -> &'static str {
    match nxdomain {
        true => "the name does not exist (NXDOMAIN), or no pod behind it is ready",
        false => "the name has no such records",
    }
}

/// Prints `: detail`, if there is any.
struct Detail<'a>(&'a Option<Arc<str>>);

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}
