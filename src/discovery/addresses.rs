//! Where a node is to be dialled: asked for at every dial, answered from the listing, a look-up, or what worked last.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tracing::debug;

#[cfg(test)]
use crate::discovery::DiscoveryStatus;
use crate::discovery::status::{Monitor, Progress};
use crate::discovery::tracker::later;
use crate::discovery::{Discovery, DiscoveryError, Endpoint, Membership};
use crate::node_id::NodeId;

/// How long an address may be dialled after it was last known to be good, if none can be looked up. Within this, a pod's
/// address passing to another pod is unlikely; beyond it, not dialling is better.
const MAX_STALE: Duration = Duration::from_secs(300);

/// With such an address at hand a look-up is waited for this long and no longer: requests are waiting for the dial.
const LOOKUP_IN_A_HURRY: Duration = Duration::from_millis(500);

/// The address book, shared by all nodes of a client.
#[derive(Clone)]
pub(crate) struct Addresses {
    shared: Arc<Shared>,
}

struct Shared {
    source: Arc<dyn Resolve>,
    lookup_timeout: Duration,
    book: Mutex<HashMap<NodeId, Entry>>,
    /// Holds one permit: any number of nudges between two looks are one.
    nudged: Notify,
    progress: watch::Sender<Progress>,
    /// The latest answer, for those who wait to be listed.
    listing: watch::Sender<Membership>,
}

/// What is known of one node. Both are dropped when its host is found not to exist.
#[derive(Debug, Default)]
struct Entry {
    /// Of the latest listing, and until when they may be relied on (`None`: until the next).
    listed: Option<(Vec<IpAddr>, Option<Instant>)>,
    /// Listed, looked up or connected to, and when that was.
    known: Option<(Vec<IpAddr>, Instant)>,
}

/// [`Discovery::resolve`], behind a pointer.
trait Resolve: fmt::Debug + Send + Sync {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, DiscoveryError>>;
}

impl<D: Discovery> Resolve for D {
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Vec<IpAddr>, DiscoveryError>> {
        // Called within the future, so that a panic before its first await is caught as well.
        Box::pin(guarded(async move { Discovery::resolve(self, host).await }))
    }
}

impl Addresses {
    pub(super) fn new(source: Arc<impl Discovery>, lookup_timeout: Duration, progress: Progress) -> Self {
        let shared = Shared {
            source,
            lookup_timeout,
            book: Mutex::default(),
            nudged: Notify::new(),
            progress: watch::Sender::new(progress),
            listing: watch::Sender::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Where to dial a node, in the order to try: its own IP literal; else the addresses it was listed with, while they
    /// may be relied on; else what its host name is found to mean now. If that cannot be found out, the addresses known
    /// to be good within the last five minutes. If the host does not exist, none: where it was, another pod may be now.
    ///
    /// # Errors
    /// Why there is no address to dial.
    pub(crate) async fn lookup(&self, id: &NodeId) -> Result<Vec<SocketAddr>, DiscoveryError> {
        let at_port = |ips: Vec<IpAddr>| ips.into_iter().map(|ip| SocketAddr::new(ip, id.port())).collect();
        if let Some(ip) = id.ip() {
            return Ok(at_port(vec![ip]));
        }
        if let Some(listed) = self.book().get(id).and_then(|entry| entry.listed_at(Instant::now())) {
            return Ok(at_port(listed));
        }

        let has_fallback = self.book().get(id).is_some_and(|entry| entry.known_at(Instant::now()).is_some());
        let limit = self.shared.lookup_timeout.min(if has_fallback { LOOKUP_IN_A_HURRY } else { Duration::MAX });
        let found = match timeout(limit, self.shared.source.resolve(id.host())).await {
            Ok(Ok(ips)) if ips.is_empty() => Err(DiscoveryError::empty(false, None)),
            Ok(outcome) => outcome,
            Err(_) => Err(DiscoveryError::Timeout),
        };
        let now = Instant::now();
        match found {
            Ok(ips) => {
                self.book().entry(id.clone()).or_default().known = Some((ips.clone(), now));
                Ok(at_port(ips))
            }
            Err(error) if error.is_empty() => {
                self.book().remove(id);
                self.nudge();
                Err(error)
            }
            Err(error) => {
                let known = self.book().get(id).and_then(|entry| entry.known_at(now)).ok_or_else(|| error.clone())?;
                debug!(target: "memring", node = %id, %error, "look-up failed, dialling the last known address");
                Ok(at_port(known))
            }
        }
    }

    /// Notes that the node answered at this address until now.
    pub(crate) fn confirm(&self, id: &NodeId, ip: IpAddr) {
        if id.ip().is_some() {
            return;
        }
        let mut book = self.book();
        let entry = book.entry(id.clone()).or_default();
        let mut ips = entry.known.take().map_or_else(Vec::new, |(ips, _)| ips);
        // What answered is tried first; its siblings are only as good as the rest of their answer.
        if ips.contains(&ip) {
            ips.retain(|known| *known != ip);
        } else {
            ips.clear();
        }
        ips.insert(0, ip);
        entry.known = Some((ips, Instant::now()));
    }

    /// Asks for the source to be polled soon: something does not look as it was listed. Any number of calls come to one
    /// poll, polls stay a second apart, and one that brought nothing new is not repeated before the next regular one.
    pub(crate) fn nudge(&self) {
        self.shared.nudged.notify_one();
    }

    /// Resolves at the next answer that says something new to whoever could not reach the node: it is listed again, or
    /// it is listed and where it is has to be looked up. (An address that changed is news to the node by itself.)
    pub(crate) async fn worth_another_dial(&self, id: &NodeId) {
        let mut listing = self.shared.listing.subscribe();
        let find = |listing: &Membership| {
            let at = listing.endpoints().binary_search_by(|endpoint| endpoint.id().cmp(id)).ok()?;
            Some(listing.endpoints()[at].addresses().is_empty())
        };
        let mut was_listed = find(&listing.borrow_and_update()).is_some();
        while listing.changed().await.is_ok() {
            let listed = find(&listing.borrow_and_update());
            if listed == Some(true) || (listed.is_some() && !was_listed) {
                return;
            }
            was_listed = listed.is_some();
        }
        // The sender lives as long as `self`.
        std::future::pending().await
    }

    /// For those who watch over discovery without taking part in it.
    pub(crate) fn monitor(&self) -> Monitor {
        Monitor::new(self.shared.progress.subscribe())
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> DiscoveryStatus {
        self.monitor().status()
    }

    /// Resolves when someone asked for a poll since it last did.
    pub(super) async fn nudged(&self) {
        self.shared.nudged.notified().await;
    }

    pub(super) fn progress(&self) -> &watch::Sender<Progress> {
        &self.shared.progress
    }

    /// Takes the addresses out of a listing. Nodes it does not list lose those of the listing before.
    pub(super) fn learn(&self, now: Instant, listing: &Membership) {
        let until = listing.ttl().map(|ttl| later(now, ttl));
        let mut book = self.book();
        for entry in book.values_mut() {
            entry.listed = None;
        }
        for endpoint in listing.endpoints().iter().filter(|endpoint| !endpoint.addresses().is_empty()) {
            book.entry(endpoint.id().clone()).or_default().list(endpoint, now, until);
        }
        drop(book);
        // After the book, so that whoever is woken finds the new address.
        self.shared.listing.send_replace(listing.clone());
    }

    /// Forgets nodes that left.
    pub(super) fn retain(&self, is_member: impl Fn(&NodeId) -> bool) {
        self.book().retain(|id, _| is_member(id));
    }

    #[cfg(test)]
    pub(super) fn remembers(&self, id: &NodeId) -> bool {
        self.book().contains_key(id)
    }

    fn book(&self) -> MutexGuard<'_, HashMap<NodeId, Entry>> {
        // No step under the lock leaves an entry half-written.
        self.shared.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Addresses").field("source", &self.shared.source).finish_non_exhaustive()
    }
}

impl Entry {
    fn list(&mut self, endpoint: &Endpoint, now: Instant, until: Option<Instant>) {
        let ips = endpoint.addresses().to_vec();
        self.known = Some((ips.clone(), now));
        self.listed = Some((ips, until));
    }

    fn listed_at(&self, now: Instant) -> Option<Vec<IpAddr>> {
        let (ips, until) = self.listed.as_ref()?;
        until.is_none_or(|until| now < until).then(|| ips.clone())
    }

    fn known_at(&self, now: Instant) -> Option<Vec<IpAddr>> {
        let (ips, when) = self.known.as_ref()?;
        (now.saturating_duration_since(*when) <= MAX_STALE).then(|| ips.clone())
    }
}

/// Runs a source's future; if it panics, that is an error like any other. Nothing of it is used after a panic.
pub(super) async fn guarded<T>(
    future: impl Future<Output = Result<T, DiscoveryError>> + Send,
) -> Result<T, DiscoveryError> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)))
            .unwrap_or_else(|_| Poll::Ready(Err(DiscoveryError::Transport("the source panicked".into()))))
    })
    .await
}
