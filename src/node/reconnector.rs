//! Keeps one connection to a node open: dials, serves on the connection until it ends, and dials again.
//!
//! One task per connection.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::backoff::Backoff;
use super::dial::start_dial;
use super::serving::{Connection, Event, Serving, log_end};
use super::{Orders, Shared, with_cause};
use crate::connection::{CloseReason, End};
use crate::discovery::{DiscoveryError, ListedAddresses};
use crate::error::{Error, ErrorKind};

/// The pause after a connection on which the server sent nothing but an error line: short enough that no call misses
/// its deadline for it, and a bound on the dials of a server that rejects everything.
const REJECTED_PAUSE: Duration = Duration::from_millis(10);

pub(super) struct Reconnector {
    shared: Arc<Shared>,
    /// Which of the node's connections this task keeps open.
    index: usize,
    orders: watch::Receiver<Orders>,
    backoff: Backoff,
}

impl Reconnector {
    pub(super) fn new(shared: Arc<Shared>, index: usize, orders: watch::Receiver<Orders>) -> Self {
        let backoff = shared.settings.backoff();
        Self { shared, index, orders, backoff }
    }

    pub(super) async fn run(mut self) {
        while !self.orders.borrow_and_update().retired {
            match self.until_orders(start_dial(&self.shared, Duration::ZERO)).await {
                None => {}
                Some(Ok((socket, peer))) => self.serve(socket, peer).await,
                Some(Err(error)) => self.dial_failed(&error).await,
            }
        }
    }

    /// Runs a future. Returns `None` if new orders arrive first.
    async fn until_orders<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            output = future => Some(output),
            _ = self.orders.changed() => None,
        }
    }

    /// Serves on a connection, and on the connections that replace it when the node's address changes, until the last
    /// one ends.
    async fn serve(&mut self, socket: TcpStream, peer: SocketAddr) {
        let mut serving = Serving::new(Arc::clone(&self.shared), self.index, socket, peer);
        let end = loop {
            match serving.next_event(&mut self.orders).await {
                Event::CurrentEnded(end) => break end,
                Event::DrainingEnded(end) => serving.draining_ended(end),
                Event::Redialed(dialed) => serving.redialed(dialed),
                Event::NewOrders(orders) => {
                    if let Some(end) = serving.apply(&orders) {
                        break end;
                    }
                }
            }
        };
        if let End::Drained = end {
            // The node has left once every response is complete, those of the connection that was replaced included.
            self.until_orders(serving.finish_draining()).await;
        }
        // Closes the connection that was replaced: no call may wait for it while this task waits to dial again.
        self.connection_ended(serving.into_current(), end).await;
    }

    /// Reports the end of a connection, and waits if the next dial must not come at once.
    async fn connection_ended(&mut self, connection: Connection, end: End) {
        let Connection { driver, peer, since } = connection;
        self.shared.disconnected(self.index);
        let replies = driver.replies();
        // Before any wait, because a driver that is not dropped is still advertised in the queue.
        drop(driver);
        if replies > 0 {
            self.shared.locator.confirm(&self.shared.id, peer.ip());
        }
        let is_drained = matches!(end, End::Drained);
        let wants_credentials = matches!(&end, End::Lost(error) if error.kind() == ErrorKind::Auth);
        log_end(&self.shared, peer, &end);
        if is_drained || self.orders.borrow().retired {
            return;
        }
        if let End::Rejected(_) = end {
            // An error line is a sign of life: the next connection serves the calls that wait.
            self.backoff.reset();
            if replies == 1 {
                self.pause(REJECTED_PAUSE).await;
            }
            return;
        }
        self.shared.locator.report_loss(&self.shared.id);
        if wants_credentials {
            // The next connection would fare the same, so calls fail now instead of waiting for it.
            let error = Error::not_sent(ErrorKind::Auth)
                .with_node(&self.shared.id)
                .with_message("the server asks for credentials");
            self.dial_failed(&error).await;
        } else if replies > 0 {
            self.backoff.reset();
        } else if since.elapsed() < self.shared.settings.silence_timeout() {
            self.ended_without_reply(&end).await;
        }
        // After a silence timeout the next dial comes at once, because that took long enough. A stopped process still
        // accepts connections, and calls that wait on one complete as soon as the process continues.
    }

    /// Treats a connection that ended before the server's first reply as a failed dial, because the next may fare no
    /// better. But a proxy may have closed it for one request that it does not support. So if that is possible, and the
    /// next dial comes soon enough for the calls of this time, they wait for it.
    async fn ended_without_reply(&mut self, end: &End) {
        let error = Error::not_sent(ErrorKind::Unavailable).with_node(&self.shared.id);
        let text = "the server closed the connection before its first reply; it may be overloaded, or expect TLS";
        let (error, is_refused) = match end {
            // The server is at its limit of connections.
            End::Lost(cause) if cause.kind() == ErrorKind::Unavailable => (cause.clone(), true),
            // It speaks another protocol, or it reported why before it was asked anything.
            End::Lost(cause) if cause.kind() == ErrorKind::Protocol && cause.message().is_some() => {
                (error.with_message(cause.message().unwrap_or(text)).with_source(cause.clone()), true)
            }
            End::Lost(cause) => (error.with_message(text).with_source(cause.clone()), false),
            // Nothing was in flight.
            End::Closed | End::Drained | End::Rejected(_) => (error.with_message(text), true),
        };
        if is_refused || self.backoff.longest_next_delay() > self.shared.settings.request_timeout / 2 {
            self.dial_failed(&error).await;
        } else {
            let delay = self.backoff.next_delay();
            self.pause(delay).await;
        }
    }

    /// Reports a failed dial, and waits before the next: for an answer that lists the node, if it has no address.
    async fn dial_failed(&mut self, error: &Error) {
        let delay = self.backoff.next_delay();
        let (node, attempt, delay_ms) = (&self.shared.id, self.backoff.attempts(), delay.as_millis());
        let error_text = with_cause(error);
        // Hosts that do not exist are counted in one warning of discovery's, because they may be many.
        if attempt == 1 && !is_no_such_host(error) {
            warn!(target: "memring", %node, error = error_text, attempt, delay_ms, "node cannot be reached");
        } else {
            debug!(target: "memring", %node, error = error_text, attempt, delay_ms, "node still cannot be reached");
        }
        self.shared.dial_failed(error);
        if self.shared.locator.waits_for_listing(&self.shared.id) {
            let shared = Arc::clone(&self.shared);
            self.pause_until(shared.locator.until_listed(&shared.id)).await;
        } else {
            self.pause(delay).await;
        }
    }

    /// Waits this long before the next dial, or until discovery shows that the node may be back.
    async fn pause(&mut self, delay: Duration) {
        let shared = Arc::clone(&self.shared);
        let over = async {
            tokio::select! {
                () = sleep(delay) => {}
                () = shared.locator.until_listed_again(&shared.id) => {}
            }
        };
        self.pause_until(over).await;
    }

    /// Waits before the next dial. New orders end the wait too, and start the backoff over, because they may name a new
    /// address.
    async fn pause_until(&mut self, over: impl Future<Output = ()>) {
        let mut over = pin!(over);
        while self.until_orders(over.as_mut()).await.is_none() {
            let orders = self.orders.borrow();
            // Without an address there is nothing to dial.
            if orders.retired || orders.listed != ListedAddresses::NoSuchHost {
                drop(orders);
                self.backoff.reset();
                self.shared.redialing();
                return;
            }
        }
    }
}

fn is_no_such_host(error: &Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<DiscoveryError>());
    cause.is_some_and(DiscoveryError::is_no_such_host)
}

impl Drop for Reconnector {
    /// Also runs when the task is aborted or panics: no call may wait for a connection that will never be opened.
    fn drop(&mut self) {
        let is_retired = self.orders.borrow().retired;
        let reason = if is_retired { CloseReason::NodeLeft } else { CloseReason::TasksDropped };
        self.shared.task_ended(self.index, reason);
    }
}
