//! One server: its queue, the connections that drain it, and whether they are up.

mod backoff;
mod dial;
mod inspect;
mod reconnector;
mod serving;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use self::backoff::Backoff;
use self::reconnector::Reconnector;
use crate::config::Settings;
use crate::connection::{
    Availability, CloseReason, DeadlineSweeper, NewCall, NodeMemory, Queue, RejectedCall, Response, ResponseFuture,
};
use crate::discovery::{ListedAddresses, NodeLocator};
use crate::error::Error;
use crate::node_id::NodeId;
use crate::timer::timeout;

/// One server. Dropping it ends its tasks and closes its connections.
#[derive(Debug)]
pub(crate) struct Node {
    shared: Arc<Shared>,
    orders: watch::Sender<Orders>,
    /// The deadline sweeper and the reconnectors. Aborted when dropped, which closes the connections.
    _tasks: JoinSet<()>,
}

/// What a node and its reconnectors share.
#[derive(Debug)]
struct Shared {
    id: NodeId,
    queue: Arc<Queue>,
    memory: NodeMemory,
    locator: NodeLocator,
    settings: Settings,
    health: watch::Sender<Health>,
}

/// What the reconnectors are to do.
#[derive(Debug, Clone, Default)]
struct Orders {
    /// Where discovery lists the node.
    listed: ListedAddresses,
    retired: bool,
}

/// What the reconnectors report.
///
/// Whether calls are accepted is the queue's [`Availability`]. It changes only while this is locked, so that two
/// reconnectors never disagree about it.
#[derive(Debug, Clone)]
struct Health {
    /// The peer of each connection that is up.
    connected: Vec<Option<SocketAddr>>,
    /// The first dial has succeeded or failed.
    first_dial_done: bool,
    /// How many reconnectors have not ended.
    running: usize,
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
}

impl Node {
    /// Begins to connect.
    pub(crate) fn open(id: NodeId, listed: ListedAddresses, locator: NodeLocator, settings: Settings) -> Self {
        let connections = settings.connections;
        let health = Health { connected: vec![None; connections], first_dial_done: false, running: connections };
        let shared = Arc::new(Shared {
            queue: Arc::new(Queue::new(id.clone(), settings.queue, connections)),
            memory: NodeMemory::default(),
            id,
            locator,
            settings,
            health: watch::Sender::new(health),
        });
        let orders = watch::Sender::new(Orders { listed, retired: false });
        let mut tasks = JoinSet::new();
        tasks.spawn(DeadlineSweeper::new(Arc::clone(&shared.queue)).run());
        for index in 0..connections {
            tasks.spawn(Reconnector::new(Arc::clone(&shared), index, orders.subscribe()).run());
        }
        Self { shared, orders, _tasks: tasks }
    }

    pub(crate) fn id(&self) -> &NodeId {
        &self.shared.id
    }

    /// Queues a call if there is space. A call that is not taken comes back with the reason.
    #[inline]
    pub(crate) fn push<R: Response>(&self, call: NewCall<R>) -> Result<ResponseFuture<R>, RejectedCall<R>> {
        ResponseFuture::queue(call, &self.shared.queue)
    }

    /// Queues a call as soon as there is space, at its deadline at the latest.
    pub(crate) async fn push_when_space<R: Response>(
        &self,
        call: NewCall<R>,
    ) -> Result<ResponseFuture<R>, RejectedCall<R>> {
        ResponseFuture::queue_when_space(call, &self.shared.queue).await
    }

    /// The error of a call that the node did not take because its queue is closed.
    pub(crate) fn closed_error(&self) -> Error {
        self.shared.queue.closed_error()
    }

    /// Sets where discovery lists the node. A connection to an address that is no longer listed is replaced.
    pub(crate) fn set_addresses(&self, listed: &ListedAddresses) {
        self.orders.send_if_modified(|orders| {
            let differs = orders.listed != *listed;
            if differs {
                orders.listed = listed.clone();
            }
            differs
        });
    }

    /// Waits until the first dial has succeeded or failed.
    pub(crate) async fn first_dial_done(&self) {
        let mut health = self.shared.health.subscribe();
        // Never fails, because `self` holds the sender.
        let _ = health.wait_for(|health| health.first_dial_done).await;
    }

    /// Completes the calls that are queued or in flight, for at most `limit`, then closes the queue.
    pub(crate) async fn retire(&self, limit: Duration) {
        self.orders.send_modify(|orders| orders.retired = true);
        let mut health = self.shared.health.subscribe();
        let _ = timeout(limit, health.wait_for(|health| health.running == 0)).await;
        self.shared.queue.close(CloseReason::NodeLeft);
    }

    pub(crate) fn state(&self) -> NodeState {
        let health = self.shared.health.borrow();
        if health.is_connected() {
            NodeState::Connected
        } else if !matches!(self.shared.queue.availability(), Availability::Available) {
            NodeState::Unreachable
        } else {
            NodeState::Connecting
        }
    }

    /// The peer of a connection that is up.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.shared.health.borrow().connected.iter().copied().flatten().next()
    }
}

impl Health {
    fn is_connected(&self) -> bool {
        self.connected.iter().any(Option::is_some)
    }

    fn set_peer(&mut self, index: usize, peer: Option<SocketAddr>) {
        if let Some(slot) = self.connected.get_mut(index) {
            *slot = peer;
        }
    }
}

impl Shared {
    /// A connection is up: calls are accepted.
    fn connected(&self, index: usize, peer: SocketAddr) {
        self.health.send_modify(|health| {
            health.set_peer(index, Some(peer));
            health.first_dial_done = true;
            self.queue.mark_available();
        });
    }

    /// A connection has ended. Calls wait, because the next dial comes at once.
    fn disconnected(&self, index: usize) {
        self.health.send_modify(|health| health.set_peer(index, None));
    }

    /// A dial failed: calls fail at once, unless another connection is up.
    fn dial_failed(&self, error: &Error) {
        self.health.send_modify(|health| {
            health.first_dial_done = true;
            if !health.is_connected() {
                self.queue.mark_unavailable(error);
            }
        });
    }

    /// Another dial comes at once, perhaps to a new address: calls wait for it.
    fn redialing(&self) {
        self.health.send_modify(|_| self.queue.mark_available());
    }

    /// A reconnector has ended. After the last, no call would ever complete, so the queue is closed.
    fn task_ended(&self, index: usize, reason: CloseReason) {
        self.health.send_modify(|health| {
            health.set_peer(index, None);
            health.first_dial_done = true;
            health.running -= 1;
            if health.running == 0 {
                self.queue.close(reason);
            }
        });
    }
}

impl Settings {
    fn backoff(&self) -> Backoff {
        Backoff::new(self.backoff_min, self.backoff_max)
    }
}

/// The text of an error and of its cause, for logs.
fn with_cause(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
