//! The lookups of host names, at most one of a host at a time. All that wait for a host share its lookup, and it goes
//! on when they no longer wait.

#[cfg(test)]
pub(super) mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use crate::discovery::address_book::{AddressBook, SharedAddressBook};
use crate::discovery::panic_guard::catch_panics;
use crate::discovery::time::sleep_until_some;
use crate::discovery::{DiscoveryError, DynDiscovery, HostAddresses, ListedAddresses};
use crate::node_id::NodeId;

/// How many hosts are looked up at a time. Each lookup may need a few sockets.
const MOST_IN_FLIGHT: usize = 64;

/// How many requests may wait to be received. Further dials wait to send theirs.
const REQUESTS: usize = 64;

/// The time between two rounds of lookups of nodes that were dialed where they were before, while no answer comes.
const RECHECK_INTERVAL: Duration = Duration::from_secs(5);

/// How many of them a round looks up.
const RECHECKS: usize = 10;

/// How long to count the hosts that do not exist before a warning.
const WARNING_DELAY: Duration = Duration::from_secs(1);

/// The lookups in progress. Records what they find in the address book.
pub(super) struct Lookups {
    source: Arc<dyn DynDiscovery>,
    /// The time limit of one lookup.
    limit: Duration,
    book: SharedAddressBook,
    requests: mpsc::Receiver<Request>,
    in_flight: FuturesUnordered<BoxFuture<'static, (NodeId, Result<HostAddresses, DiscoveryError>)>>,
    /// The hosts whose turn has not come yet.
    queued: VecDeque<NodeId>,
    /// Who waits for each host that is in flight or queued.
    waiting: HashMap<NodeId, Vec<oneshot::Sender<()>>>,
    recheck_at: Instant,
    missing_hosts: MissingHosts,
}

/// A request for a lookup. The sender is dropped when it has ended.
struct Request {
    id: NodeId,
    done: oneshot::Sender<()>,
}

/// Requests lookups.
#[derive(Debug, Clone)]
pub(super) struct LookupRequests(mpsc::Sender<Request>);

impl LookupRequests {
    /// Waits until a lookup of the node's host has ended. What it found is in the address book then.
    ///
    /// The lookup goes on if this is dropped. Returns at once if discovery has ended.
    pub(super) async fn look_up(&self, id: &NodeId) {
        let (done, ended) = oneshot::channel();
        if self.0.send(Request { id: id.clone(), done }).await.is_ok() {
            // The sender is dropped without a message.
            let _ = ended.await;
        }
    }
}

impl Lookups {
    pub(super) fn new(
        source: Arc<dyn DynDiscovery>,
        limit: Duration,
        book: SharedAddressBook,
    ) -> (Self, LookupRequests) {
        let (sender, requests) = mpsc::channel(REQUESTS);
        let lookups = Self {
            source,
            limit,
            book,
            requests,
            in_flight: FuturesUnordered::new(),
            queued: VecDeque::new(),
            waiting: HashMap::new(),
            recheck_at: Instant::now() + RECHECK_INTERVAL,
            missing_hosts: MissingHosts::default(),
        };
        (lookups, LookupRequests(sender))
    }

    /// Looks up the nodes that the latest answer leaves open.
    pub(super) fn check_nodes(&mut self) {
        let now = Instant::now();
        self.recheck_at = now + RECHECK_INTERVAL;
        let due = self.book.lock().checks_due(now);
        due.into_iter().for_each(|id| self.start(id));
    }

    /// Runs the lookups until one has ended. Returns its node, and what it says about where the node is, if that is
    /// new. Cancel safe.
    pub(super) async fn next(&mut self) -> (NodeId, Option<ListedAddresses>) {
        loop {
            tokio::select! {
                Some(request) = self.requests.recv() => self.on_request(request),
                Some((id, outcome)) = self.in_flight.next() => return self.on_end(id, &outcome),
                () = sleep_until(self.recheck_at) => self.recheck(),
                () = sleep_until_some(self.missing_hosts.warn_at) => self.missing_hosts.warn(&self.book.lock()),
            }
        }
    }

    fn on_request(&mut self, Request { id, done }: Request) {
        // A lookup may have ended since the request.
        if self.waiting.contains_key(&id) || self.book.lock().needs_lookup(&id, Instant::now()) {
            self.start(id.clone());
            self.waiting.entry(id).or_default().push(done);
        }
    }

    /// Looks up nodes that were dialed where they were before. An answer that makes it unnecessary may never come.
    fn recheck(&mut self) {
        let now = Instant::now();
        self.recheck_at = now + RECHECK_INTERVAL;
        let due = self.book.lock().unverified(now);
        due.into_iter().take(RECHECKS).for_each(|id| self.start(id));
    }

    /// Starts a lookup, unless there is one.
    fn start(&mut self, id: NodeId) {
        if self.waiting.contains_key(&id) {
            return;
        }
        self.waiting.insert(id.clone(), Vec::new());
        self.queued.push_back(id);
        self.start_queued();
    }

    fn start_queued(&mut self) {
        while self.in_flight.len() < MOST_IN_FLIGHT
            && let Some(id) = self.queued.pop_front()
        {
            let (source, limit) = (Arc::clone(&self.source), self.limit);
            self.in_flight.push(Box::pin(async move {
                // Called inside the future, so that a panic before its first await is caught as well.
                let lookup = catch_panics(async { source.dyn_resolve(id.lookup_name()).await });
                let outcome = match timeout(limit, lookup).await {
                    Ok(Ok(found)) if found.addresses().is_empty() => Err(DiscoveryError::no_such_host(id.host(), None)),
                    Ok(outcome) => outcome,
                    Err(_) => Err(DiscoveryError::Timeout),
                };
                (id, outcome)
            }));
        }
    }

    fn on_end(
        &mut self,
        id: NodeId,
        outcome: &Result<HostAddresses, DiscoveryError>,
    ) -> (NodeId, Option<ListedAddresses>) {
        if let Err(error) = outcome {
            debug!(target: "memring", node = %id, %error, "host lookup failed");
        }
        let found = self.book.lock().record_lookup(&id, outcome, Instant::now());
        // After the record, because this wakes the dials that wait for it.
        self.waiting.remove(&id);
        self.start_queued();
        if outcome.as_ref().is_err_and(DiscoveryError::is_no_such_host) {
            self.missing_hosts.warn_soon();
        }
        (id, found)
    }
}

/// Logs how many hosts do not exist: one warning for many that are lost together.
#[derive(Debug, Default)]
struct MissingHosts {
    /// How many there were at the last warning.
    count: usize,
    warn_at: Option<Instant>,
}

impl MissingHosts {
    fn warn_soon(&mut self) {
        self.warn_at.get_or_insert_with(|| Instant::now() + WARNING_DELAY);
    }

    /// Logs a warning if there are more than before.
    fn warn(&mut self, book: &AddressBook) {
        self.warn_at = None;
        let count = book.without_host().count();
        if let Some(example) = book.without_host().next().filter(|_| count > self.count) {
            warn!(target: "memring", nodes = count, %example, "host names do not exist, nodes cannot be dialed");
        }
        self.count = count;
    }
}
