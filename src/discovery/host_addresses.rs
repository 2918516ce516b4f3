//! What a lookup of a host name finds.

use std::net::IpAddr;
use std::time::Duration;

/// The addresses of a host, in the order to dial them: what [`Discovery::resolve`](crate::Discovery::resolve) returns.
///
/// ```
/// use std::net::IpAddr;
/// use std::time::Duration;
/// use memring::HostAddresses;
///
/// let found = HostAddresses::new([IpAddr::from([10, 0, 0, 1])]).with_ttl(Duration::from_secs(30));
/// assert_eq!(found.addresses().len(), 1);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostAddresses {
    addresses: Vec<IpAddr>,
    ttl: Option<Duration>,
}

impl HostAddresses {
    /// Creates the result of a lookup. Without any address, the host counts as one that does not exist.
    #[must_use]
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        Self { addresses: addresses.into_iter().collect(), ttl: None }
    }

    /// Sets how long the addresses are valid. Without a TTL they are valid until the source's next answer.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Returns the addresses, in the order to dial them.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Returns how long the addresses are valid, if the source knows.
    #[must_use]
    pub fn ttl(&self) -> Option<Duration> {
        self.ttl
    }
}
