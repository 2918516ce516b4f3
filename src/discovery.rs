//! Which servers there are, and where: the public vocabulary, and the trait for a source of your own.

mod addresses;
mod fixed;
mod options;
mod refresh;
#[cfg(feature = "dns")]
mod srv;
mod status;
mod tracker;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::node_id::NodeId;

pub(crate) use addresses::Addresses;
pub use fixed::StaticNodes;
pub use options::{DiscoveryOptions, EmptyPolicy, Startup};
pub(crate) use refresh::{Follow, follow};
#[cfg(feature = "dns")]
pub use srv::{SrvDiscovery, WeightPolicy};
pub(crate) use status::Monitor;
pub use status::{DiscoveryState, DiscoveryStatus};
pub(crate) use tracker::Roster;

/// One server as a [`Discovery`] lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    id: NodeId,
    label: Option<String>,
    weight: u32,
    priority: u16,
    addresses: Vec<IpAddr>,
}

impl Endpoint {
    /// A server with weight 1, priority 0, and no address known yet: its host name is looked up at every dial.
    #[must_use]
    pub fn new(id: NodeId) -> Self {
        Self { id, label: None, weight: 1, priority: 0, addresses: Vec::new() }
    }

    /// What the ring hashes instead of the identity's text. No label may be empty or given to two servers: the client
    /// would then warn, and place keys by the identities of all of them, without weights.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// The server's share of the ring relative to the others, from 1 to 100: 0 counts as 1, more as 100. If all weights
    /// together are over 10,000 ([`Ring::MAX_TOTAL_WEIGHT`](crate::Ring::MAX_TOTAL_WEIGHT)), none counts.
    #[must_use]
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight.max(1);
        self
    }

    /// The tier the server belongs to: only servers of the lowest value listed are used.
    #[must_use]
    pub fn with_priority(mut self, priority: u16) -> Self {
        self.priority = priority;
        self
    }

    /// Addresses learnt along with the listing (DNS "glue"), in the order they are to be tried.
    #[must_use]
    pub fn with_addresses(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.addresses = addresses.into_iter().collect();
        self
    }

    /// Who the server is.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// What the ring hashes, if not the identity's text.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// The server's share of the ring, at least 1.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// The tier the server belongs to.
    #[must_use]
    pub fn priority(&self) -> u16 {
        self.priority
    }

    /// The addresses learnt along with the listing; empty if none were.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }
}

impl From<NodeId> for Endpoint {
    fn from(id: NodeId) -> Self {
        Self::new(id)
    }
}

/// One complete answer to "which servers are there?": a set, sorted by identity, each server once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Membership {
    endpoints: Vec<Endpoint>,
    ttl: Option<Duration>,
}

impl Membership {
    /// Sorts the servers and keeps the first of those listed twice. A ring has room for 10,000 of them.
    #[must_use]
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let mut endpoints: Vec<_> = endpoints.into_iter().collect();
        endpoints.sort_by(|a, b| a.id.cmp(&b.id));
        endpoints.dedup_by(|later, first| later.id == first.id);
        Self { endpoints, ttl: None }
    }

    /// How long the answer, and the addresses in it, may be relied on. [`Duration::MAX`] is for ever: the source is
    /// not asked again. Without a TTL the client polls at its shortest interval, and an address is good until the
    /// next answer.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// The servers, sorted by identity.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// How long the answer may be relied on, if its source says so.
    #[must_use]
    pub fn ttl(&self) -> Option<Duration> {
        self.ttl
    }

    /// Whether no server is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Whether the answer will never change.
    pub(crate) fn is_final(&self) -> bool {
        self.ttl == Some(Duration::MAX)
    }
}

/// A source of servers: DNS SRV records, a fixed list, or your own.
///
/// The client asks again and again, at the pace its discovery options set, and does the rest: an error keeps the last
/// good set, an empty answer too unless told otherwise, and a server that vanishes is given its removal grace. A source
/// reports what it sees and remembers nothing. Should it panic, that counts as an error too.
///
/// # Cancel safety
/// Both futures may be dropped at any await, when a time limit passes or the client is dropped.
///
/// # Examples
/// Servers listed in a file, one to a line:
/// ```
/// use std::path::PathBuf;
/// use memring::{Discovery, DiscoveryError, Endpoint, Membership};
///
/// #[derive(Debug)]
/// struct NodesFile(PathBuf);
///
/// impl Discovery for NodesFile {
///     async fn discover(&self) -> Result<Membership, DiscoveryError> {
///         let text = tokio::fs::read_to_string(&self.0)
///             .await
///             .map_err(|error| DiscoveryError::Transport(error.to_string()))?;
///         let mut endpoints = Vec::new();
///         for line in text.lines() {
///             let id = line.parse().map_err(|error| DiscoveryError::Config(format!("{line}: {error}")))?;
///             endpoints.push(Endpoint::new(id));
///         }
///         Ok(Membership::new(endpoints))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let path = std::env::temp_dir().join(format!("memring-nodes-{}", std::process::id()));
/// # std::fs::write(&path, "cache-2\ncache-1:11212\n")?;
/// let found = NodesFile(path.clone()).discover().await?;
/// assert_eq!(found.endpoints()[0].id().to_string(), "cache-1:11212");
/// # std::fs::remove_file(path)?;
/// # Ok(())
/// # }
/// ```
pub trait Discovery: fmt::Debug + Send + Sync + 'static {
    /// Lists the servers there are now.
    ///
    /// # Errors
    /// [`DiscoveryError::Empty`] if the source says there are none; any other error if it could not be asked.
    fn discover(&self) -> impl Future<Output = Result<Membership, DiscoveryError>> + Send;

    /// Finds the addresses of one server's host, in the order to try them. Asked at every dial for which the listing
    /// brought no fresh address; IP literals are not asked for. By default the system's resolver is used: it cannot tell
    /// a host that does not exist from a look-up that failed, so that either is an error, and no answer.
    ///
    /// # Errors
    /// [`DiscoveryError::Empty`] if the host does not exist or has no address: the client then does not dial where it
    /// was before, for that address may belong to another server now. Any other error if it could not be asked.
    fn resolve(&self, host: &str) -> impl Future<Output = Result<Vec<IpAddr>, DiscoveryError>> + Send {
        resolve_by_system(host)
    }
}

async fn resolve_by_system(host: &str) -> Result<Vec<IpAddr>, DiscoveryError> {
    // The port plays no part in the look-up.
    let found =
        tokio::net::lookup_host((host, 0)).await.map_err(|error| DiscoveryError::Transport(error.to_string()))?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    if addresses.is_empty() {
        return Err(DiscoveryError::empty(false, None));
    }
    Ok(addresses)
}

/// Why servers could not be listed, or a host not be found.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// The source answered that there is nothing: NXDOMAIN, or a name without records of the kind asked for. For a
    /// headless service this is also what "no pod is ready" looks like.
    #[error("{}{}", if *.nxdomain { "the name does not exist (NXDOMAIN), or no pod behind it is ready" } else { "the name has no such records" }, Detail(.detail))]
    #[non_exhaustive]
    Empty {
        /// Whether the answer was NXDOMAIN, as opposed to a name without such records.
        nxdomain: bool,
        /// How long the source says this may be relied on.
        negative_ttl: Option<Duration>,
        /// What was asked for and what may help, if the source says so.
        detail: Option<Arc<str>>,
    },
    /// The DNS server answered with an error code.
    #[error("the DNS server answered {0}")]
    ServerFailure(String),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The answer was cut short and could not be had whole.
    #[error("the answer was truncated and could not be had over TCP")]
    Truncated,
    /// The question could not be asked, or the answer not be read.
    #[error("look-up failed: {0}")]
    Transport(String),
    /// The source is configured wrongly.
    #[error("{0}")]
    Config(String),
}

impl DiscoveryError {
    /// An authoritative "there is nothing".
    #[must_use]
    pub fn empty(nxdomain: bool, negative_ttl: Option<Duration>) -> Self {
        Self::Empty { nxdomain, negative_ttl, detail: None }
    }

    /// Adds to an authoritative "there is nothing" what was asked for, or what may help. Other errors stay as they are.
    #[must_use]
    pub fn with_detail(mut self, text: impl Into<Arc<str>>) -> Self {
        if let Self::Empty { detail, .. } = &mut self {
            *detail = Some(text.into());
        }
        self
    }

    /// Whether this is an answer ("nothing is there") rather than the lack of one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty { .. })
    }
}

/// `: detail`, if there is any.
struct Detail<'a>(&'a Option<Arc<str>>);

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}
