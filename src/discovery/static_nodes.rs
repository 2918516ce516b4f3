//! A source that is a fixed list of nodes.

use std::time::Duration;

use crate::discovery::{Discovery, DiscoveryError, Endpoint, Membership};

/// A fixed list of nodes. The client reads it once.
///
/// Host names are still looked up at every dial, by the system's resolver, unless an endpoint comes with addresses. In
/// a pod, end full names with a dot: otherwise each lookup tries the search list first, which takes several queries.
///
/// ```
/// use memring::{Discovery, NodeId, StaticNodes};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let nodes = StaticNodes::new(["cache-1:11211".parse::<NodeId>()?, "cache-2:11211".parse()?]);
/// assert_eq!(nodes.discover().await?.endpoints().len(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct StaticNodes {
    membership: Membership,
}

impl StaticNodes {
    /// Creates a list of [`NodeId`](crate::NodeId)s, or of [`Endpoint`]s with labels, weights or addresses.
    #[must_use]
    pub fn new(nodes: impl IntoIterator<Item = impl Into<Endpoint>>) -> Self {
        // An endless TTL keeps the client from polling again.
        let membership = Membership::new(nodes.into_iter().map(Into::into)).with_ttl(Duration::MAX);
        Self { membership }
    }
}

impl Discovery for StaticNodes {
    async fn discover(&self) -> Result<Membership, DiscoveryError> {
        if self.membership.is_empty() {
            return Err(DiscoveryError::Config("the list of nodes is empty".into()));
        }
        Ok(self.membership.clone())
    }
}
