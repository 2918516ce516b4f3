//! Which servers there are, and where: the public vocabulary, and the trait for a source of your own.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use thiserror::Error;

use crate::node_id::NodeId;

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

    /// What the ring hashes instead of the identity's text.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// The server's share of the ring relative to the others; 0 counts as 1.
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

/// One complete answer to "which servers are there?": a set, sorted by identity, each server once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Membership {
    endpoints: Vec<Endpoint>,
    ttl: Option<Duration>,
}

impl Membership {
    /// Sorts the servers and keeps the first of those listed twice.
    #[must_use]
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let mut endpoints: Vec<_> = endpoints.into_iter().collect();
        endpoints.sort_by(|a, b| a.id.cmp(&b.id));
        endpoints.dedup_by(|later, first| later.id == first.id);
        Self { endpoints, ttl: None }
    }

    /// How long the answer, and the addresses in it, may be relied on.
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
}

/// A source of servers: DNS SRV records, a fixed list, or your own.
///
/// The client asks again and again, at the pace its discovery options set, and does the rest: an error keeps the last
/// good set, an empty answer too unless told otherwise, and a server that vanishes is given its removal grace. A source
/// reports what it sees and remembers nothing.
///
/// # Cancel safety
/// Both futures may be dropped at any await, when a time limit passes or the client is dropped.
pub trait Discovery: fmt::Debug + Send + Sync + 'static {
    /// Lists the servers there are now.
    ///
    /// # Errors
    /// [`DiscoveryError::Empty`] if the source says there are none; any other error if it could not be asked.
    fn discover(&self) -> impl Future<Output = Result<Membership, DiscoveryError>> + Send;

    /// Finds the addresses of one server's host, in the order to try them. Asked at every dial for which the listing
    /// brought no fresh address; IP literals are not asked for. By default the system's resolver is used.
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
        return Err(DiscoveryError::Empty { nxdomain: false, negative_ttl: None });
    }
    Ok(addresses)
}

/// Why servers could not be listed, or a host not be found.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// The source answered that there is nothing: NXDOMAIN, or a name without records of the kind asked for. For a
    /// headless service this is also what "no pod is ready" looks like.
    #[error("{}", if *.nxdomain { "the name does not exist (NXDOMAIN), or no pod behind it is ready" } else { "the name has no such records" })]
    #[non_exhaustive]
    Empty {
        /// Whether the answer was NXDOMAIN, as opposed to a name without such records.
        nxdomain: bool,
        /// How long the source says this may be relied on.
        negative_ttl: Option<Duration>,
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
        Self::Empty { nxdomain, negative_ttl }
    }

    /// Whether this is an answer ("nothing is there") rather than the lack of one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty { .. })
    }
}
