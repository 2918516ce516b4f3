//! Whether a node takes requests: its connections, its last dial and its circuit breaker, as one state.

use std::net::SocketAddr;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::Shared;
use super::breaker::{Breaker, Cause, Change};
use crate::config::Settings;
use crate::connection::{CloseReason, Observation};
use crate::error::{Error, ErrorKind};
use crate::key::Key;

/// What the reconnectors report, and what follows from it.
///
/// The queue knows whether calls are accepted. That changes only while this is locked, so that no two reports ever
/// disagree about it.
#[derive(Debug)]
pub(super) struct Health {
    /// The peer of each connection that is up.
    connected: Vec<Option<SocketAddr>>,
    /// The first dial has succeeded or failed.
    first_dial_done: bool,
    /// How many reconnectors have not ended.
    running: usize,
    /// The last dial failed, and no connection is up.
    is_unreachable: bool,
    breaker: Breaker,
}

/// Whether a node can be reached right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NodeState {
    /// A connection is being opened; requests wait for it.
    Connecting,
    /// At least one connection is up.
    Connected,
    /// The last dial failed; requests fail at once while the client dials again in the background.
    Unreachable,
    /// The node's [circuit breaker](crate::BreakerOptions) is open, because its server does not reply although it can
    /// be dialed. Requests fail at once while the client probes the server in the background.
    CircuitOpen,
}

impl Health {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            connected: vec![None; settings.connections],
            first_dial_done: false,
            running: settings.connections,
            is_unreachable: false,
            breaker: Breaker::new(settings.breaker.clone(), settings.request_timeout, Instant::now()),
        }
    }

    pub(super) fn state(&self) -> NodeState {
        if self.is_unreachable || self.has_ended() {
            NodeState::Unreachable
        } else if self.breaker.is_open() {
            NodeState::CircuitOpen
        } else if self.is_connected() {
            NodeState::Connected
        } else {
            NodeState::Connecting
        }
    }

    pub(super) fn peer(&self) -> Option<SocketAddr> {
        self.connected.iter().copied().flatten().next()
    }

    pub(super) fn is_first_dial_done(&self) -> bool {
        self.first_dial_done
    }

    pub(super) fn has_ended(&self) -> bool {
        self.running == 0
    }

    /// When to send the next probe. Without a connection none could be sent.
    pub(super) fn probe_at(&self) -> Option<Instant> {
        if self.is_connected() { self.breaker.probe_at() } else { None }
    }

    pub(super) fn is_half_open(&self) -> bool {
        self.breaker.is_half_open()
    }

    fn is_connected(&self) -> bool {
        self.connected.iter().any(Option::is_some)
    }

    fn set_peer(&mut self, index: usize, peer: Option<SocketAddr>) -> Option<SocketAddr> {
        self.connected.get_mut(index).and_then(|slot| std::mem::replace(slot, peer))
    }
}

impl Shared {
    /// A connection is up: calls are accepted, unless the breaker is open. That a server accepts a connection proves
    /// nothing, because a stopped process does.
    pub(super) fn connected(&self, index: usize, peer: SocketAddr) {
        self.health.send_modify(|health| {
            let replaced = health.set_peer(index, Some(peer));
            health.first_dial_done = true;
            // After a failed dial, and at another address, this is most likely another process.
            if health.is_unreachable || replaced.is_some_and(|replaced| replaced != peer) {
                health.breaker.hasten_probe(Instant::now());
            }
            self.reachable(health);
        });
    }

    /// A connection has ended. Calls wait, because the next dial comes at once.
    pub(super) fn disconnected(&self, index: usize) {
        self.health.send_modify(|health| {
            health.set_peer(index, None);
        });
    }

    /// A dial failed: calls fail at once, unless another connection is up.
    pub(super) fn dial_failed(&self, error: &Error) {
        self.health.send_modify(|health| {
            health.first_dial_done = true;
            if !health.is_connected() {
                health.is_unreachable = true;
                self.queue.mark_unavailable(error);
            }
        });
    }

    /// Another dial comes at once, perhaps to a new address: calls wait for it, unless the breaker is open.
    pub(super) fn redialing(&self) {
        self.health.send_modify(|health| self.reachable(health));
    }

    /// The last dial does not count any more. If the breaker is open, its error takes the place of the dial's.
    fn reachable(&self, health: &mut Health) {
        let was_unreachable = std::mem::take(&mut health.is_unreachable);
        match health.breaker.cause() {
            None => self.queue.mark_available(),
            // A queued probe would fail with the other calls, so this is done only if it changes anything.
            Some(cause) if was_unreachable => self.queue.mark_unavailable(&self.open_error(cause)),
            Some(_) => {}
        }
    }

    /// A reconnector has ended. After the last, no call would ever complete, so the queue is closed.
    pub(super) fn task_ended(&self, index: usize, reason: CloseReason) {
        self.health.send_modify(|health| {
            health.set_peer(index, None);
            health.first_dial_done = true;
            health.running -= 1;
            if health.running == 0 {
                self.queue.close(reason);
            }
        });
    }

    /// Takes what a connection has noticed of the server.
    #[cold]
    pub(super) fn observe(&self, seen: Observation) {
        self.change_breaker(|breaker| breaker.observe(seen, Instant::now()));
    }

    /// The node's breaker is half-open now. Returns the key to probe with, if it is not the reserved one.
    pub(super) fn probe_started(&self) -> Option<Key> {
        let mut key = None;
        self.health.send_modify(|health| key = health.breaker.probe_started(Instant::now()));
        key
    }

    pub(super) fn probe_ended(&self, has_replied: bool) {
        self.change_breaker(|breaker| breaker.probe_ended(has_replied, Instant::now()));
    }

    fn change_breaker(&self, change: impl FnOnce(&mut Breaker) -> Option<Change>) {
        self.health.send_modify(|health| {
            let was_open = health.breaker.is_open();
            let Some(change) = change(&mut health.breaker) else { return };
            match change {
                Change::Opened(cause) | Change::Reclassified(cause) if !health.is_unreachable => {
                    self.queue.mark_unavailable(&self.open_error(cause));
                }
                Change::Closed { .. } if !health.is_unreachable => self.queue.mark_available(),
                // The dial's error stays until a dial succeeds.
                Change::Opened(_) | Change::Reclassified(_) | Change::Closed { .. } => {}
            }
            self.log(change);
            if health.breaker.is_open() != was_open {
                self.outage.breaker_changed(!was_open);
            }
        });
    }

    fn log(&self, change: Change) {
        let node = &self.id;
        match change {
            Change::Opened(cause) => warn!(target: "memring", %node, %cause, "circuit breaker opened"),
            Change::Reclassified(cause) => debug!(target: "memring", %node, %cause, "circuit breaker stays open"),
            Change::Closed { after } => {
                info!(target: "memring", %node, open_ms = after.as_millis(), "circuit breaker closed");
            }
        }
    }

    fn open_error(&self, cause: Cause) -> Error {
        let text = format!("circuit breaker open: {cause}; it is probed in the background");
        Error::not_sent(ErrorKind::Unavailable).with_node(&self.id).with_message(text)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.outage.node_removed(self.health.borrow().breaker.is_open());
    }
}
