//! One server: its queue, the few connections that drain it, and what is known of their health.

mod dial;
mod inspect;
mod reconnector;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::reconnector::Reconnector;
use crate::config::Settings;
use crate::connection::{Availability, NewCall, ProbeHistory, Queue, Rejected, Response, ResponseFuture};
use crate::discovery::{ListedAddresses, NodeLocator};
use crate::error::Error;
use crate::node_id::NodeId;

/// One server. Dropping it ends its tasks and closes its connections.
#[derive(Debug)]
pub(crate) struct Node {
    shared: Arc<Shared>,
    orders: watch::Sender<Orders>,
    /// Aborted when dropped, and with them everything they own.
    _reconnectors: JoinSet<()>,
}

/// What a node and its connections' tasks share.
#[derive(Debug)]
struct Shared {
    id: NodeId,
    queue: Arc<Queue>,
    probe_history: Arc<ProbeHistory>,
    locator: NodeLocator,
    settings: Settings,
    health: watch::Sender<Health>,
}

/// What the connections are told from above.
#[derive(Debug, Clone, Default)]
struct Orders {
    /// Where discovery lists the node.
    listed: ListedAddresses,
    retired: bool,
}

#[derive(Debug, Clone)]
struct Health {
    /// The peer of each connection that is up.
    connected: Vec<Option<SocketAddr>>,
    /// The first dial has ended, one way or the other.
    first_dial_done: bool,
    /// Connection tasks that have not ended.
    running: usize,
}

/// Whether a node can be talked to right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NodeState {
    /// A connection is being opened; requests wait for it.
    Connecting,
    /// At least one connection is up.
    Connected,
    /// The last dial failed; requests fail at once while dialling goes on in the background.
    Unreachable,
}

impl Node {
    /// Begins to connect.
    pub(crate) fn open(id: NodeId, listed: ListedAddresses, locator: NodeLocator, settings: Settings) -> Self {
        let connections = settings.connections;
        let health = Health { connected: vec![None; connections], first_dial_done: false, running: connections };
        let shared = Arc::new(Shared {
            queue: Arc::new(Queue::new(id.clone(), settings.queue, connections)),
            probe_history: Arc::default(),
            id,
            locator,
            settings,
            health: watch::Sender::new(health),
        });
        let orders = watch::Sender::new(Orders { listed, retired: false });
        let mut reconnectors = JoinSet::new();
        for index in 0..connections {
            reconnectors.spawn(Reconnector::new(Arc::clone(&shared), index, orders.subscribe()).run());
        }
        Self { shared, orders, _reconnectors: reconnectors }
    }

    pub(crate) fn id(&self) -> &NodeId {
        &self.shared.id
    }

    /// Queues a call if there is space. A call that is not taken comes back with the reason.
    #[inline]
    pub(crate) fn push<R: Response>(&self, call: NewCall<R>) -> Result<ResponseFuture<R>, Rejected<R>> {
        ResponseFuture::queue(call, &self.shared.queue)
    }

    /// Queues a call as soon as there is space, at its deadline at the latest.
    pub(crate) async fn push_when_space<R: Response>(
        &self,
        call: NewCall<R>,
    ) -> Result<ResponseFuture<R>, Rejected<R>> {
        ResponseFuture::queue_when_space(call, &self.shared.queue).await
    }

    /// The error of a call that the node did not take because it has left the topology.
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

    /// Waits until the first dial has ended, one way or the other.
    pub(crate) async fn first_dial_done(&self) {
        let mut health = self.shared.health.subscribe();
        // The sender lives in `self`.
        let _ = health.wait_for(|health| health.first_dial_done).await;
    }

    /// Lets what is queued and under way be answered, for at most `limit`, then closes.
    pub(crate) async fn retire(&self, limit: Duration) {
        self.orders.send_modify(|orders| orders.retired = true);
        let mut health = self.shared.health.subscribe();
        let _ = timeout(limit, health.wait_for(|health| health.running == 0)).await;
        self.shared.queue.close();
    }

    pub(crate) fn state(&self) -> NodeState {
        let health = self.shared.health.borrow();
        if health.connected.iter().any(Option::is_some) {
            NodeState::Connected
        } else if let Availability::Unavailable(_) = self.shared.queue.availability() {
            NodeState::Unreachable
        } else {
            NodeState::Connecting
        }
    }

    /// The address of the connection in use, if one is up.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.shared.health.borrow().connected.iter().copied().flatten().next()
    }
}

impl Shared {
    /// A connection is up: requests are admitted.
    fn connected(&self, index: usize, peer: SocketAddr) {
        self.health.send_modify(|health| {
            health.connected[index] = Some(peer);
            health.first_dial_done = true;
            // Within the closure, so that no two connections can disagree about what holds.
            self.queue.mark_available();
        });
    }

    /// A connection is gone. Requests wait: the next dial comes at once.
    fn disconnected(&self, index: usize) {
        self.health.send_modify(|health| health.connected[index] = None);
    }

    /// A dial failed: requests fail at once, unless another connection serves them.
    fn unreachable(&self, error: &Error) {
        self.health.send_modify(|health| {
            health.first_dial_done = true;
            if health.connected.iter().all(Option::is_none) {
                self.queue.mark_unavailable(error);
            }
        });
    }

    /// The node is to be found elsewhere: requests wait for the dial that is about to be made.
    fn moved(&self) {
        self.health.send_modify(|_| self.queue.mark_available());
    }

    /// A connection's task has ended. Without any, nobody would ever answer.
    fn ended(&self, index: usize) {
        self.health.send_modify(|health| {
            health.connected[index] = None;
            health.first_dial_done = true;
            health.running -= 1;
            if health.running == 0 {
                self.queue.close();
            }
        });
    }
}
