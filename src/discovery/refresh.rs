//! The one task that asks the source: it sleeps, polls, and publishes what the tracker makes of the answers.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use crate::discovery::addresses::{Addresses, guarded};
use crate::discovery::status::Progress;
use crate::discovery::tracker::{Roster, Tracker};
use crate::discovery::{Discovery, DiscoveryError, DiscoveryOptions, DiscoveryState, Membership, Startup};

/// What the rest of the client holds of its discovery.
#[derive(Debug, Clone)]
pub(crate) struct Follow {
    /// Closes when the task is dropped.
    pub(crate) roster: watch::Receiver<Arc<Roster>>,
    pub(crate) addresses: Addresses,
}

impl Follow {
    /// Waits, as told, until nodes are known.
    ///
    /// # Errors
    /// Why no node was found: what the last poll said. At once if the source is configured wrongly, for that will not pass.
    pub(crate) async fn first(&self, startup: &Startup) -> Result<(), DiscoveryError> {
        let Startup::Wait(patience) = startup else { return Ok(()) };
        match timeout(*patience, self.found()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.last_error()),
        }
    }

    async fn found(&self) -> Result<(), DiscoveryError> {
        let mut progress = self.addresses.progress().subscribe();
        let mut roster = self.roster.clone();
        loop {
            if !roster.borrow_and_update().endpoints.is_empty() {
                return Ok(());
            }
            if let Some(error @ DiscoveryError::Config(_)) = &progress.borrow_and_update().last_error {
                return Err(error.clone());
            }
            let closed = tokio::select! {
                changed = roster.changed() => changed.is_err(),
                changed = progress.changed() => changed.is_err(),
            };
            if closed {
                return Err(self.last_error());
            }
        }
    }

    fn last_error(&self) -> DiscoveryError {
        self.addresses.progress().borrow().last_error.clone().unwrap_or(DiscoveryError::Timeout)
    }
}

/// Follows a source: what to hold, and the task's body. The task runs until it is dropped.
pub(crate) fn follow<D: Discovery>(
    source: Arc<D>,
    options: DiscoveryOptions,
) -> (Follow, impl Future<Output = ()> + Send + 'static) {
    let now = Instant::now();
    let lookup_timeout = options.lookup_timeout;
    let tracker = Tracker::new(options.clone(), now);
    let progress = Progress {
        state: tracker.state(),
        nodes: tracker.roster().endpoints.len(),
        vanished: 0,
        last_ok: None,
        last_error: None,
        polls: 0,
        errors: 0,
        next_poll: tracker.next_poll(),
    };
    let addresses = Addresses::new(Arc::clone(&source), lookup_timeout, progress);
    if let Startup::Bootstrap(endpoints) = options.startup {
        addresses.learn(now, &Membership::new(endpoints));
    }
    let (sender, roster) = watch::channel(Arc::clone(tracker.roster()));
    let refresh = Refresh { source, lookup_timeout, tracker, addresses: addresses.clone(), roster: sender };
    (Follow { roster, addresses }, refresh.run())
}

struct Refresh<D> {
    source: Arc<D>,
    lookup_timeout: Duration,
    tracker: Tracker,
    addresses: Addresses,
    roster: watch::Sender<Arc<Roster>>,
}

impl<D: Discovery> Refresh<D> {
    async fn run(mut self) {
        loop {
            let now = Instant::now();
            // A wake-up that comes late, after the runtime stalled, is one wake-up: the next is reckoned from here.
            if self.tracker.next_poll().is_some_and(|due| due <= now) {
                self.poll().await;
            } else if let Some(roster) = self.tracker.tick(now) {
                self.publish(roster);
                self.report(|_| ());
            }
            let wake = self.tracker.next_wake();
            tokio::select! {
                () = async {
                    match wake {
                        Some(due) => sleep_until(due).await,
                        None => std::future::pending().await,
                    }
                } => {}
                () = self.addresses.nudged() => {
                    self.tracker.nudge(Instant::now());
                    self.report(|_| ());
                }
            }
        }
    }

    async fn poll(&mut self) {
        let asked = guarded(async { self.source.discover().await });
        let outcome = timeout(self.lookup_timeout, asked).await.unwrap_or(Err(DiscoveryError::Timeout));
        let now = Instant::now();
        let before = self.tracker.state();
        // Before the roster is published: whoever dials a new node finds its address.
        match &outcome {
            Ok(listing) => self.addresses.learn(now, listing),
            Err(error) if error.is_empty() => self.addresses.learn(now, &Membership::default()),
            Err(_) => {}
        }
        let roster = self.tracker.observe(now, &outcome);
        let error = match &outcome {
            Ok(listing) if listing.is_empty() => Some(DiscoveryError::empty(false, None)),
            Ok(_) => None,
            Err(error) => Some(error.clone()),
        };
        self.tell(before, error.as_ref());
        if let Some(roster) = roster {
            self.publish(roster);
        }
        self.report(|progress| {
            progress.polls += 1;
            match error {
                None => progress.last_ok = Some(now),
                Some(error) => {
                    progress.errors += 1;
                    progress.last_error = Some(error);
                }
            }
        });
    }

    fn publish(&self, roster: Arc<Roster>) {
        let before = self.roster.send_replace(Arc::clone(&roster));
        self.addresses.retain(|id| self.tracker.knows(id));
        if roster.endpoints.is_empty() {
            warn!(target: "memring", before = before.endpoints.len(), "no nodes left");
        } else if before.version != roster.version {
            // The topology that is made of it is what is told of: once, and when it holds.
            debug!(
                target: "memring",
                version = roster.version, nodes = roster.endpoints.len(), before = before.endpoints.len(),
                "membership changed",
            );
        } else {
            info!(target: "memring", addr_epoch = roster.addr_epoch, "addresses changed");
        }
    }

    /// Brings the status up to date; waiters are woken after the roster is out.
    fn report(&self, also: impl FnOnce(&mut Progress)) {
        self.addresses.progress().send_modify(|progress| {
            also(progress);
            progress.state = self.tracker.state();
            progress.nodes = self.tracker.roster().endpoints.len();
            progress.vanished = self.tracker.vanished().count();
            progress.next_poll = self.tracker.next_poll();
        });
    }

    /// Logs a change of state, once.
    fn tell(&self, before: DiscoveryState, error: Option<&DiscoveryError>) {
        let state = self.tracker.state();
        let nodes = self.tracker.roster().endpoints.len();
        match error {
            Some(error) if before != state || self.is_first_poll() => {
                warn!(target: "memring", ?state, nodes, %error, "discovery brought no nodes");
            }
            Some(error) => debug!(target: "memring", ?state, %error, "discovery brought no nodes"),
            None if before != state => info!(target: "memring", ?state, nodes, "discovery answers"),
            None => {}
        }
    }

    fn is_first_poll(&self) -> bool {
        self.addresses.progress().borrow().polls == 0
    }
}
