//! One server: its queue, the connections that drain it, and whether they are up.

mod backoff;
mod breaker;
mod dial;
mod health;
mod inspect;
mod outage;
mod prober;
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
use self::health::Health;
pub use self::health::NodeState;
pub(crate) use self::outage::Outage;
use self::reconnector::Reconnector;
use crate::config::Settings;
use crate::connection::{
    CloseReason, DeadlineSweeper, NewCall, NodeMemory, Queue, RejectedCall, Response, ResponseFuture,
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
    /// The deadline sweeper, the reconnectors and the prober. Aborted when dropped, which closes the connections.
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
    outage: Arc<Outage>,
}

/// What the reconnectors are to do.
#[derive(Debug, Clone, Default)]
struct Orders {
    /// Where discovery lists the node.
    listed: ListedAddresses,
    retired: bool,
}

impl Node {
    /// Begins to connect.
    pub(crate) fn open(
        id: NodeId,
        listed: ListedAddresses,
        locator: NodeLocator,
        settings: Settings,
        outage: Arc<Outage>,
    ) -> Self {
        let connections = settings.connections;
        outage.node_added();
        let health = watch::Sender::new(Health::new(&settings));
        let shared = Arc::new(Shared {
            queue: Arc::new(Queue::new(id.clone(), settings.queue, connections)),
            memory: NodeMemory::default(),
            id,
            locator,
            settings,
            health,
            outage,
        });
        let orders = watch::Sender::new(Orders { listed, retired: false });
        let mut tasks = JoinSet::new();
        tasks.spawn(DeadlineSweeper::new(Arc::clone(&shared.queue)).run());
        for index in 0..connections {
            tasks.spawn(Reconnector::new(Arc::clone(&shared), index, orders.subscribe()).run());
        }
        tasks.spawn(prober::run(Arc::clone(&shared)));
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
        let _ = health.wait_for(Health::is_first_dial_done).await;
    }

    /// Completes the calls that are queued or in flight, for at most `limit`, then closes the queue.
    pub(crate) async fn retire(&self, limit: Duration) {
        self.orders.send_modify(|orders| orders.retired = true);
        let mut health = self.shared.health.subscribe();
        let _ = timeout(limit, health.wait_for(Health::has_ended)).await;
        self.shared.queue.close(CloseReason::NodeLeft);
    }

    pub(crate) fn state(&self) -> NodeState {
        self.shared.health.borrow().state()
    }

    /// The peer of a connection that is up.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.shared.health.borrow().peer()
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
