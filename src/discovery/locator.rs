//! Where to dial a node: the one handle of discovery that nodes hold.

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::discovery::DiscoveryError;
use crate::discovery::address_book::SharedAddressBook;
use crate::discovery::latest_answer::LatestAnswer;
use crate::discovery::lookups::LookupRequests;
use crate::discovery::poll_requests::PollRequests;
use crate::node_id::NodeId;

/// How long a dial waits for a lookup if there is an address to fall back on: requests are waiting for the dial. The
/// lookup goes on, and the node is dialed again if it finds another address.
const LOOKUP_TIMEOUT_WITH_FALLBACK: Duration = Duration::from_millis(500);

/// Finds the addresses of nodes, and passes on to discovery what dials and connections learn.
#[derive(Debug, Clone)]
pub(crate) struct NodeLocator {
    pub(super) book: SharedAddressBook,
    pub(super) lookups: LookupRequests,
    pub(super) latest_answer: LatestAnswer,
    pub(super) poll_requests: PollRequests,
}

impl NodeLocator {
    /// Returns where to dial a node, in the order to try.
    ///
    /// That is the first of these that exists:
    /// 1. the IP literal in the node's identity;
    /// 2. the addresses the latest answer lists, within its TTL, unless a dial has failed there;
    /// 3. the addresses the last lookup of its host name found, within their TTL, unless they are in doubt;
    /// 4. the addresses its host name resolves to now;
    /// 5. if that lookup fails or is slow, the addresses listed, or else those known to be good within the last five
    ///    minutes.
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
        let now = Instant::now();
        let (needs_lookup, has_fallback) = {
            let book = self.book.lock();
            (book.needs_lookup(id, now), book.best_known(id, now).is_ok())
        };
        if needs_lookup {
            self.wait_for_lookup(id, has_fallback).await;
        }
        // What is known now: an answer may have come during the wait.
        let candidates = self.book.lock().start_dial(id, Instant::now()).inspect_err(|error| {
            // The node may have left.
            if error.is_no_such_host() {
                self.request_poll();
            }
        })?;
        Ok(candidates.ips)
    }

    /// Waits for a lookup; not long if there is something to fall back on.
    async fn wait_for_lookup(&self, id: &NodeId, has_fallback: bool) {
        let lookup = self.lookups.look_up(id);
        if !has_fallback {
            lookup.await;
        } else if timeout(LOOKUP_TIMEOUT_WITH_FALLBACK, lookup).await.is_err() {
            debug!(target: "memring", node = %id, "the lookup is slow, dialing a known address meanwhile");
        }
    }

    /// Records that the node answered at this address until now.
    pub(crate) fn confirm(&self, id: &NodeId, ip: IpAddr) {
        self.book.lock().confirm(id, ip, Instant::now());
    }

    /// Records that a connection to the node was lost, and requests a poll, because the node may have moved.
    pub(crate) fn report_loss(&self, id: &NodeId) {
        self.book.lock().record_loss(id);
        self.request_poll();
    }

    /// Records that a dial failed at all these addresses, and requests a poll, because the node may have moved.
    pub(crate) fn report_failed_dial(&self, id: &NodeId, addresses: &[SocketAddr]) {
        let tried: Vec<_> = addresses.iter().map(SocketAddr::ip).collect();
        self.book.lock().record_failed_dial(id, &tried);
        self.request_poll();
    }

    /// Returns whether only an answer that lists the node again makes another dial worthwhile.
    pub(crate) fn waits_for_listing(&self, id: &NodeId) -> bool {
        self.book.lock().waits_for_listing(id)
    }

    /// Requests an early poll, because a node may have moved or left.
    ///
    /// Any number of requests cause one poll, at least a second after the last one. If that poll finds nothing new,
    /// requests are ignored until the next regular one.
    pub(super) fn request_poll(&self) {
        self.poll_requests.send();
    }

    /// Waits until the latest answer lists the node. Resolves at once if it does already.
    pub(crate) async fn until_listed(&self, id: &NodeId) {
        self.latest_answer.until_listed(id).await;
    }

    /// Waits for an answer that lists the node again, which makes another dial of it worthwhile.
    ///
    /// A node that stays listed and is found at another address is notified through the topology instead.
    pub(crate) async fn until_listed_again(&self, id: &NodeId) {
        self.latest_answer.until_listed_again(id).await;
    }

    #[cfg(test)]
    pub(crate) async fn poll_requested(&self) {
        self.poll_requests.received().await;
    }

    #[cfg(test)]
    pub(super) fn knows(&self, id: &NodeId) -> bool {
        self.book.lock().contains(id)
    }
}
