//! What a source lists: one node, and the set of all of them.

use std::net::IpAddr;
use std::time::Duration;

use crate::discovery::ListedAddresses;
use crate::node_id::NodeId;

/// One node as a [`Discovery`](crate::Discovery) source lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    id: NodeId,
    label: Option<String>,
    weight: u32,
    priority: u16,
    addresses: ListedAddresses,
}

impl Endpoint {
    /// Creates an endpoint with weight 1, priority 0 and no addresses: the client looks its host name up at every dial.
    #[must_use]
    pub fn new(id: NodeId) -> Self {
        Self { id, label: None, weight: 1, priority: 0, addresses: ListedAddresses::WithoutAddresses }
    }

    /// Sets the text the ring hashes instead of the identity.
    ///
    /// A label must not be empty, nor shared by two nodes. Otherwise the client logs a warning and places keys by the
    /// identities of all nodes, without weights.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Sets the node's share of the ring relative to the other nodes, from 1 to 100.
    ///
    /// 0 counts as 1, and anything above 100 as 100. If the weights of all nodes add up to more than 10,000
    /// ([`Ring::MAX_TOTAL_WEIGHT`](crate::Ring::MAX_TOTAL_WEIGHT)), the client ignores all of them.
    #[must_use]
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight.max(1);
        self
    }

    /// Sets the priority. The client uses only the nodes of the lowest value listed.
    #[must_use]
    pub fn with_priority(mut self, priority: u16) -> Self {
        self.priority = priority;
        self
    }

    /// Sets the addresses that came with the listing (DNS "glue"), in the order to dial them.
    #[must_use]
    pub fn with_addresses(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.addresses = addresses.into_iter().collect();
        self
    }

    /// Sets where the node was found.
    pub(crate) fn at(mut self, found: ListedAddresses) -> Self {
        self.addresses = found;
        self
    }

    /// Returns the node's identity.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// Returns the text the ring hashes, if it is not the identity.
    #[must_use]
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// Returns the node's share of the ring, at least 1.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// Returns the priority. Lower values are used first.
    #[must_use]
    pub fn priority(&self) -> u16 {
        self.priority
    }

    /// Returns the addresses that came with the listing; empty if none did.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        match &self.addresses {
            ListedAddresses::At(ips) => ips,
            ListedAddresses::WithoutAddresses | ListedAddresses::NotListed | ListedAddresses::NoSuchHost => &[],
        }
    }

    /// Returns where the node is listed, or was found. Never `NotListed`.
    pub(crate) fn listed_addresses(&self) -> &ListedAddresses {
        &self.addresses
    }
}

impl From<NodeId> for Endpoint {
    fn from(id: NodeId) -> Self {
        Self::new(id)
    }
}

/// One complete answer of a source: a set of nodes, sorted by identity, each listed once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Membership {
    endpoints: Vec<Endpoint>,
    ttl: Option<Duration>,
}

impl Membership {
    /// Creates an answer. Sorts the nodes, and keeps the first of those listed twice.
    ///
    /// A ring has room for 10,000 nodes.
    #[must_use]
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let mut endpoints: Vec<_> = endpoints.into_iter().collect();
        endpoints.sort_by(|a, b| a.id.cmp(&b.id));
        endpoints.dedup_by(|later, first| later.id == first.id);
        Self { endpoints, ttl: None }
    }

    /// Sets how long the answer and the addresses in it are valid.
    ///
    /// [`Duration::MAX`] means forever: the client polls again only if the source reports a
    /// [change](crate::Discovery::changed), or for [`Client::rediscover`](crate::Client::rediscover). Without a TTL the
    /// client polls at its shortest interval, and the addresses are valid until the next answer.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Returns the nodes, sorted by identity.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Returns how long the answer is valid, if the source knows.
    #[must_use]
    pub fn ttl(&self) -> Option<Duration> {
        self.ttl
    }

    /// Returns whether the answer lists no node.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Changes endpoints, but not their identities.
    pub(crate) fn map(self, change: impl FnMut(Endpoint) -> Endpoint) -> Self {
        Self { endpoints: self.endpoints.into_iter().map(change).collect(), ..self }
    }

    /// Returns whether the answer is valid forever.
    pub(crate) fn is_final(&self) -> bool {
        self.ttl == Some(Duration::MAX)
    }

    /// Returns whether the answer lists the node.
    pub(crate) fn lists(&self, id: &NodeId) -> bool {
        self.find(id).is_some()
    }

    fn find(&self, id: &NodeId) -> Option<&Endpoint> {
        let at = self.endpoints.binary_search_by(|endpoint| endpoint.id.cmp(id)).ok()?;
        Some(&self.endpoints[at])
    }
}
