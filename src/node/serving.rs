//! The connection that a reconnector serves on, and its replacement when the node moves to another address.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::backoff::Backoff;
use super::dial::{Dial, Dialed, start_dial};
use super::{Orders, Shared, with_cause};
use crate::connection::{Driver, DriverConfig, End};
use crate::discovery::ListedAddresses;
use crate::error::{Delivery, Error, ErrorKind};

/// The state of a reconnector while it is connected: one method per [`Event`].
pub(super) struct Serving {
    shared: Arc<Shared>,
    index: usize,
    current: Connection,
    /// The connection that `current` has replaced, until its replies have arrived.
    draining: Option<Connection>,
    /// The dial of the node's new address.
    redial: Option<Dial>,
    redial_backoff: Backoff,
    is_retired: bool,
}

/// What can happen while a reconnector is connected.
pub(super) enum Event {
    CurrentEnded(End),
    DrainingEnded(End),
    Redialed(Dialed),
    NewOrders(Orders),
}

/// One open connection.
pub(super) struct Connection {
    pub(super) driver: Driver<TcpStream>,
    pub(super) peer: SocketAddr,
    pub(super) since: Instant,
}

impl Serving {
    pub(super) fn new(shared: Arc<Shared>, index: usize, socket: TcpStream, peer: SocketAddr) -> Self {
        let current = Connection::open(&shared, index, socket, peer);
        let redial_backoff = shared.settings.backoff();
        Self { shared, index, current, draining: None, redial: None, redial_backoff, is_retired: false }
    }

    /// Drives the connections and the redial until something happens. Cancel safe.
    ///
    /// Polls by hand, because every poll of the connection passes through here, and `select!` costs more.
    pub(super) async fn next_event(&mut self, orders: &mut watch::Receiver<Orders>) -> Event {
        let mut new_orders = pin!(new_orders(orders));
        poll_fn(|cx| {
            let current = self.current.driver.poll(cx);
            if self.current.driver.has_observation() {
                self.shared.observe(self.current.driver.take_observation());
            }
            if let Poll::Ready(end) = current {
                return Poll::Ready(Event::CurrentEnded(end));
            }
            if let Some(draining) = &mut self.draining {
                if let Poll::Ready(end) = draining.driver.poll(cx) {
                    return Poll::Ready(Event::DrainingEnded(end));
                }
            } else if let Some(redial) = &mut self.redial
                // At most one connection drains at a time, so a redial waits until none does.
                && let Poll::Ready(dialed) = redial.as_mut().poll(cx)
            {
                return Poll::Ready(Event::Redialed(dialed));
            }
            if self.is_retired { Poll::Pending } else { new_orders.as_mut().poll(cx).map(Event::NewOrders) }
        })
        .await
    }

    pub(super) fn draining_ended(&mut self, end: End) {
        if let Some(Connection { peer, .. }) = self.draining.take() {
            log_end(&self.shared, peer, &end);
        }
    }

    /// Moves to the new connection, or dials once more after a delay.
    pub(super) fn redialed(&mut self, dialed: Dialed) {
        self.redial = match dialed {
            Ok((socket, peer)) => {
                self.redial_backoff.reset();
                // The addresses listed cannot be reached, and a lookup has found the current one.
                if peer != self.current.peer {
                    self.replace_current(Connection::open(&self.shared, self.index, socket, peer));
                }
                None
            }
            Err(error) => {
                let delay = self.redial_backoff.next_delay();
                debug!(
                    target: "memring",
                    node = %self.shared.id,
                    error = with_cause(&error),
                    attempt = self.redial_backoff.attempts(),
                    delay_ms = delay.as_millis(),
                    "new address cannot be reached"
                );
                Some(start_dial(&self.shared, delay))
            }
        };
    }

    fn replace_current(&mut self, next: Connection) {
        let mut replaced = std::mem::replace(&mut self.current, next);
        replaced.driver.replace();
        self.draining = Some(replaced);
    }

    /// Retires the connection if the node has left, or dials again if it was found at other addresses. Ends the
    /// connection if its address may be another server's.
    pub(super) fn apply(&mut self, orders: &Orders) -> Option<End> {
        if orders.retired {
            self.is_retired = true;
            self.current.driver.retire();
        }
        let stays = self.is_retired || !orders.listed.excludes(self.current.peer.ip());
        self.redial = (!stays).then(|| start_dial(&self.shared, Duration::ZERO));
        (orders.listed == ListedAddresses::NoSuchHost).then(|| {
            let text = "its host name does not exist any more, so the address may be another server's";
            let error = Error::new(ErrorKind::Connection, Delivery::Unknown).with_node(&self.shared.id);
            End::Lost(error.with_message(text))
        })
    }

    /// Drives the connection that was replaced until its replies have arrived.
    pub(super) async fn finish_draining(&mut self) {
        if let Some(draining) = &mut self.draining {
            draining.driver.run().await;
        }
    }

    /// Returns the current connection, and closes the one that was replaced.
    pub(super) fn into_current(self) -> Connection {
        self.current
    }
}

impl Connection {
    fn open(shared: &Shared, index: usize, socket: TcpStream, peer: SocketAddr) -> Self {
        info!(target: "memring", node = %shared.id, %peer, "connected");
        let config = DriverConfig {
            node: shared.id.clone(),
            task: index,
            max_value: shared.settings.max_value,
            silence_timeout: shared.settings.silence_timeout(),
            suspicion_after: shared.settings.request_timeout,
        };
        let driver = Driver::new(socket, Arc::clone(&shared.queue), shared.memory.clone(), config);
        shared.connected(index, peer);
        Self { driver, peer, since: Instant::now() }
    }
}

pub(super) fn log_end(shared: &Shared, peer: SocketAddr, end: &End) {
    let node = &shared.id;
    match end {
        End::Drained => debug!(target: "memring", %node, %peer, "connection drained"),
        End::Closed => info!(target: "memring", %node, %peer, "connection closed by the server"),
        End::Rejected(error) => {
            let error = with_cause(error);
            debug!(target: "memring", %node, %peer, error, "connection closed after an error line");
        }
        End::Lost(error) => {
            warn!(target: "memring", %node, %peer, error = with_cause(error), "connection lost");
        }
    }
}

/// Waits for new orders. A node that was dropped is retired.
async fn new_orders(receiver: &mut watch::Receiver<Orders>) -> Orders {
    let changed = receiver.changed().await;
    let mut orders = receiver.borrow_and_update().clone();
    orders.retired |= changed.is_err();
    orders
}
