//! The task that polls the source and looks host names up: it publishes the nodes that the tracker derives from what
//! they find.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use crate::discovery::address_book::SharedAddressBook;
use crate::discovery::latest_answer::LatestAnswer;
use crate::discovery::lookups::{LookupRequests, Lookups};
use crate::discovery::panic_guard::catch_panics;
use crate::discovery::poll_requests::PollRequests;
use crate::discovery::source_changes::SourceChanges;
use crate::discovery::status::{StatusReader, StatusRecord};
use crate::discovery::time::sleep_until_some;
use crate::discovery::tracker::{Roster, Tracker};
use crate::discovery::{
    Discovery, DiscoveryError, DiscoveryHandle, DiscoveryOptions, DiscoveryState, ListedAddresses, Membership,
    NodeLocator, Startup,
};
use crate::node_id::NodeId;

/// Creates the refresh task of a source, and the handle to it. The task runs until it is dropped.
pub(crate) fn start_refresh<D: Discovery>(
    source: Arc<D>,
    options: DiscoveryOptions,
) -> (DiscoveryHandle, impl Future<Output = ()> + Send + 'static) {
    let now = Instant::now();
    let tracker = Tracker::new(options.clone(), now);
    let book = SharedAddressBook::default();
    let (lookups, lookup_requests) = Lookups::new(Arc::<D>::clone(&source), options.lookup_timeout, book.clone());
    let refresh = Refresh {
        changes: SourceChanges::new(Arc::clone(&source)),
        source,
        lookup_timeout: options.lookup_timeout,
        polling: None,
        lookups,
        book,
        poll_requests: PollRequests::default(),
        answers: watch::Sender::default(),
        roster: watch::Sender::new(Arc::clone(tracker.roster())),
        status: watch::Sender::new(StatusRecord::new(tracker.state())),
        tracker,
    };
    if let Startup::Bootstrap(endpoints) = options.startup {
        refresh.record_addresses(&Membership::new(endpoints), now);
    }
    refresh.report(|_| ());
    (refresh.handle(lookup_requests), refresh.run())
}

struct Refresh<D> {
    source: Arc<D>,
    changes: SourceChanges<D>,
    lookup_timeout: Duration,
    polling: Option<Poll>,
    lookups: Lookups,
    tracker: Tracker,
    book: SharedAddressBook,
    answers: watch::Sender<Membership>,
    poll_requests: PollRequests,
    roster: watch::Sender<Arc<Roster>>,
    status: watch::Sender<StatusRecord>,
}

/// The poll in progress.
struct Poll {
    outcome: BoxFuture<'static, Result<Membership, DiscoveryError>>,
    /// The last demand of the application that this poll answers.
    demand: u64,
    /// A change that the source has reported since the poll began.
    change: Option<Result<(), DiscoveryError>>,
}

impl<D: Discovery> Refresh<D> {
    fn handle(&self, lookups: LookupRequests) -> DiscoveryHandle {
        let locator = NodeLocator {
            book: self.book.clone(),
            lookups,
            latest_answer: LatestAnswer::new(&self.answers),
            poll_requests: self.poll_requests.clone(),
        };
        DiscoveryHandle { roster: self.roster.subscribe(), locator, status: StatusReader::new(&self.status) }
    }

    async fn run(mut self) {
        loop {
            let now = Instant::now();
            // After the runtime stalled, one wake-up is late. The next one is scheduled from now: missed polls are not
            // made up for.
            if self.polling.is_none() {
                if self.tracker.next_poll().is_some_and(|due| due <= now) {
                    self.start_poll();
                } else if let Some(roster) = self.tracker.tick(now) {
                    self.publish(roster);
                    self.report(|_| ());
                }
            }
            let wake_at = self.tracker.next_wake();
            let is_idle = self.polling.is_none();
            tokio::select! {
                // The source is asked after it has begun to watch, so that the answer or a report has each change.
                biased;
                change = self.changes.next() => self.on_change(change),
                outcome = poll_some(&mut self.polling) => self.on_outcome(outcome),
                (id, found) = self.lookups.next() => self.on_lookup(id, found),
                () = sleep_until_some(wake_at), if is_idle => {}
                // A request during a poll waits for its end, because that poll may have missed the change.
                () = self.poll_requests.received(), if is_idle => self.on_poll_request(),
            }
        }
    }

    fn on_poll_request(&mut self) {
        let now = Instant::now();
        if self.poll_requests.last_demand() > self.status.borrow().answered_demand {
            self.tracker.demand_poll(now);
        } else {
            self.tracker.request_poll(now);
        }
        self.report(|_| ());
    }

    /// Takes a change that the source reports, or the panic in its place.
    fn on_change(&mut self, change: Result<(), DiscoveryError>) {
        if let Some(poll) = &mut self.polling {
            // That poll may have missed it.
            poll.change = Some(change);
            return;
        }
        let now = Instant::now();
        match change {
            Ok(()) => self.tracker.demand_poll(now),
            Err(error) => {
                warn!(target: "memring", %error, "discovery cannot watch for changes until the next poll");
                self.tracker.expect_poll(now);
            }
        }
        self.report(|_| ());
    }

    /// Takes the outcome of the poll in progress.
    fn on_outcome(&mut self, outcome: Result<Membership, DiscoveryError>) {
        let Some(Poll { demand, change, .. }) = self.polling.take() else { return };
        let now = Instant::now();
        // Before the roster is published, so that a dial of a new node finds its address.
        match &outcome {
            Ok(answer) => self.record_addresses(answer, now),
            Err(error) if error.is_empty() => self.record_addresses(&Membership::default(), now),
            Err(_) => {}
        }
        let outcome = outcome.map(|answer| self.book.lock().without_failed(answer));
        let state_before = self.tracker.state();
        let roster = self.tracker.observe(now, &outcome);
        // Also of nodes that were not in use.
        self.book.lock().retain(|id| self.tracker.is_member(id));
        let is_good = matches!(&outcome, Ok(answer) if !answer.is_empty());
        let error = match outcome {
            Ok(answer) if answer.is_empty() => Some(DiscoveryError::empty(false, None)),
            Ok(_) => None,
            Err(error) => Some(error),
        };
        self.log_outcome(state_before, error.as_ref());
        if let Some(roster) = roster {
            self.publish(roster);
        }
        self.report(|status| {
            status.count_poll(now, error);
            status.answered_demand = demand;
        });
        if is_good {
            // After the roster is published, which drops the nodes that have left from the address book.
            self.lookups.check_nodes();
        }
        if let Some(change) = change {
            self.on_change(change);
        }
    }

    /// Takes what a lookup says about where a node is, if that is new. Lookups that end together are published at once.
    fn on_lookup(&mut self, id: NodeId, found: Option<ListedAddresses>) {
        let (mut ended, mut roster) = (Some((id, found)), None);
        while let Some((id, found)) = ended {
            let change = found.and_then(|found| self.tracker.observe_lookup(&id, &found));
            roster = change.or(roster);
            ended = self.lookups.next().now_or_never();
        }
        if let Some(roster) = roster {
            self.publish(roster);
        }
    }

    fn start_poll(&mut self) {
        self.changes.watch();
        let (source, limit) = (Arc::clone(&self.source), self.lookup_timeout);
        // Called inside the future, so that a panic before its first await is caught as well.
        let answer = catch_panics(async move { source.discover().await });
        let outcome = Box::pin(async move { timeout(limit, answer).await.unwrap_or(Err(DiscoveryError::Timeout)) });
        self.polling = Some(Poll { outcome, demand: self.poll_requests.last_demand(), change: None });
    }

    fn record_addresses(&self, answer: &Membership, now: Instant) {
        self.book.lock().record_answer(answer, now);
        // After the address book, so that the nodes this wakes find the new address.
        self.answers.send_replace(answer.clone());
    }

    fn publish(&self, roster: Arc<Roster>) {
        let before = self.roster.send_replace(Arc::clone(&roster));
        self.book.lock().retain(|id| self.tracker.is_member(id));
        if roster.endpoints.is_empty() {
            warn!(target: "memring", before = before.endpoints.len(), "no nodes left");
        } else if before.version != roster.version {
            // The topology logs the change at `info`, when it takes effect.
            debug!(
                target: "memring",
                version = roster.version, nodes = roster.endpoints.len(), before = before.endpoints.len(),
                "membership changed",
            );
        } else {
            info!(target: "memring", addr_epoch = roster.addr_epoch, "addresses changed");
        }
    }

    /// Updates the status. Called after the roster is published, because this wakes tasks that wait for nodes.
    fn report(&self, change: impl FnOnce(&mut StatusRecord)) {
        self.status.send_modify(|status| {
            change(status);
            status.state = self.tracker.state();
            status.nodes = self.tracker.roster().endpoints.len();
            status.vanished = self.tracker.vanished().count();
            status.next_poll = self.tracker.next_poll();
        });
    }

    /// Logs a change of state, once.
    fn log_outcome(&self, state_before: DiscoveryState, error: Option<&DiscoveryError>) {
        let state = self.tracker.state();
        let nodes = self.tracker.roster().endpoints.len();
        let is_change = state != state_before;
        match error {
            Some(error) if is_change || self.status.borrow().polls == 0 => {
                warn!(target: "memring", ?state, nodes, %error, "discovery found no nodes");
            }
            Some(error) => debug!(target: "memring", ?state, %error, "discovery found no nodes"),
            None if is_change => info!(target: "memring", ?state, nodes, "discovery found nodes"),
            None => {}
        }
    }
}

/// Waits for the outcome of the poll in progress, or forever if there is none. Cancel safe.
async fn poll_some(polling: &mut Option<Poll>) -> Result<Membership, DiscoveryError> {
    match polling {
        Some(poll) => (&mut poll.outcome).await,
        None => std::future::pending().await,
    }
}
