//! Where to dial a node: the one handle of discovery that nodes hold.

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::discovery::address_book::SharedAddressBook;
use crate::discovery::latest_answer::LatestAnswer;
use crate::discovery::panic_guard::catch_panics;
use crate::discovery::poll_requests::PollRequests;
use crate::discovery::{Discovery, DiscoveryError, HostAddresses};
use crate::node_id::NodeId;

/// How long a lookup may take if there is an address to fall back on: requests are waiting for the dial.
const LOOKUP_TIMEOUT_WITH_FALLBACK: Duration = Duration::from_millis(500);

/// Finds the addresses of nodes, and passes on to discovery what dials and connections learn.
#[derive(Clone)]
pub(crate) struct NodeLocator {
    pub(super) resolver: Arc<dyn HostResolver>,
    pub(super) lookup_timeout: Duration,
    pub(super) book: SharedAddressBook,
    pub(super) latest_answer: LatestAnswer,
    pub(super) poll_requests: PollRequests,
}

/// An object-safe form of [`Discovery::resolve`], whose panics are errors.
pub(super) trait HostResolver: fmt::Debug + Send + Sync {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<HostAddresses, DiscoveryError>>;
}

impl<D: Discovery> HostResolver for D {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<HostAddresses, DiscoveryError>> {
        // Called inside the future, so that a panic before its first await is caught as well.
        Box::pin(catch_panics(async move { Discovery::resolve(self, host).await }))
    }
}

impl NodeLocator {
    /// Returns where to dial a node, in the order to try.
    ///
    /// That is the first of these that exists:
    /// 1. the IP literal in the node's identity;
    /// 2. the addresses the latest answer lists, within its TTL;
    /// 3. the addresses its host name resolves to now;
    /// 4. if that lookup fails, the addresses known to be good within the last five minutes.
    ///
    /// A host name that does not exist has no address: its old one may belong to another pod by now. Its addresses are
    /// forgotten, and a poll is requested.
    ///
    /// # Errors
    /// Why there is no address to dial.
    pub(crate) async fn lookup(&self, id: &NodeId) -> Result<Vec<SocketAddr>, DiscoveryError> {
        let ips = match id.ip() {
            Some(ip) => vec![ip],
            None => self.host_addresses(id).await?,
        };
        Ok(ips.into_iter().map(|ip| SocketAddr::new(ip, id.port())).collect())
    }

    async fn host_addresses(&self, id: &NodeId) -> Result<Vec<IpAddr>, DiscoveryError> {
        let listed = self.book.lock().listed(id, Instant::now());
        if let Some(listed) = listed {
            return Ok(listed);
        }
        let outcome = self.resolve(id).await;
        let now = Instant::now();
        match outcome {
            Ok(ips) => {
                self.book.lock().record_lookup(id, ips.clone(), now);
                Ok(ips)
            }
            Err(error) if error.is_no_such_host() => {
                self.book.lock().remove(id);
                self.request_poll();
                Err(error)
            }
            Err(error) => {
                let known = self.book.lock().last_known(id, now).ok_or_else(|| error.clone())?;
                debug!(target: "memring", node = %id, %error, "lookup failed, dialing the last known address");
                Ok(known)
            }
        }
    }

    /// Looks the node's host name up, within the time limit.
    async fn resolve(&self, id: &NodeId) -> Result<Vec<IpAddr>, DiscoveryError> {
        let has_fallback = self.book.lock().last_known(id, Instant::now()).is_some();
        let limit = if has_fallback { LOOKUP_TIMEOUT_WITH_FALLBACK } else { Duration::MAX };
        match timeout(limit.min(self.lookup_timeout), self.resolver.resolve(id.host())).await {
            Ok(Ok(found)) if found.addresses().is_empty() => Err(DiscoveryError::no_such_host(id.host(), None)),
            Ok(outcome) => outcome.map(|found| found.addresses().to_vec()),
            Err(_) => Err(DiscoveryError::Timeout),
        }
    }

    /// Records that the node answered at this address until now.
    pub(crate) fn confirm(&self, id: &NodeId, ip: IpAddr) {
        if id.ip().is_none() {
            self.book.lock().confirm(id, ip, Instant::now());
        }
    }

    /// Requests an early poll, because a node may have moved or left.
    ///
    /// Any number of requests cause one poll, at least a second after the last one. If that poll finds nothing new,
    /// requests are ignored until the next regular one.
    pub(crate) fn request_poll(&self) {
        self.poll_requests.send();
    }

    /// Waits for an answer that makes another dial of an unreachable node worthwhile: one that lists the node again, or
    /// lists it without addresses.
    pub(crate) async fn until_worth_redialing(&self, id: &NodeId) {
        self.latest_answer.until_worth_redialing(id).await;
    }

    #[cfg(test)]
    pub(super) fn knows(&self, id: &NodeId) -> bool {
        self.book.lock().contains(id)
    }
}

impl fmt::Debug for NodeLocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeLocator").field("source", &self.resolver).finish_non_exhaustive()
    }
}
