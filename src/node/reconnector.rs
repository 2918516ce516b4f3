//! Keeps one connection to a node open: dials, hands the socket to a driver, dials again.
//!
//! One task per connection, which is also what keeps deadlines while there is no connection.

use std::future::pending;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::{Orders, Shared};
use crate::connection::{DeadlineSweeper, Driver, DriverConfig, End};
use crate::error::{Error, ErrorKind};

pub(super) struct Reconnector {
    shared: Arc<Shared>,
    index: usize,
    orders: watch::Receiver<Orders>,
    /// The first connection's task keeps the deadlines of what waits in the queue.
    sweeper: Option<DeadlineSweeper>,
    backoff: Backoff,
}

type Dialed = Result<(TcpStream, SocketAddr), Error>;
type Dialing = Pin<Box<dyn Future<Output = Dialed> + Send>>;

impl Reconnector {
    pub(super) fn new(shared: Arc<Shared>, index: usize, orders: watch::Receiver<Orders>) -> Self {
        let sweeper = (index == 0).then(|| DeadlineSweeper::new(Arc::clone(&shared.queue)));
        let backoff = Backoff::new(&shared);
        Self { shared, index, orders, sweeper, backoff }
    }

    pub(super) async fn run(mut self) {
        while !self.orders.borrow_and_update().retired {
            match self.until_orders(dialing(&self.shared)).await {
                None => {}
                Some(Ok((socket, peer))) => self.serve(socket, peer).await,
                Some(Err(error)) => self.failed(&error).await,
            }
        }
    }

    /// Drives a future while nothing else needs doing; `None` if orders came first.
    async fn until_orders<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = sweep(self.sweeper.as_mut()) => None,
            _ = self.orders.changed() => None,
        }
    }

    /// A dial failed: says so, and waits before the next, unless there is a new address to try.
    async fn failed(&mut self, error: &Error) {
        let cause = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
        if self.backoff.is_fresh() {
            warn!(target: "memring", node = %self.shared.id, cause, "node cannot be reached");
        } else {
            debug!(target: "memring", node = %self.shared.id, cause, "node still cannot be reached");
        }
        self.shared.unreachable(error);
        self.pause().await;
    }

    /// Waits before the next dial: for the backoff, or until an answer says that the node may be back, or elsewhere.
    async fn pause(&mut self) {
        let delay = self.backoff.next();
        let shared = Arc::clone(&self.shared);
        let over = async {
            tokio::select! {
                () = sleep(delay) => {}
                () = shared.addresses.worth_another_dial(&shared.id) => {}
            }
        };
        if self.until_orders(over).await.is_none() {
            self.backoff.reset();
            self.shared.moved();
        }
    }

    /// Serves on a connection, and on those that take its place when the node's address changes, until there is none.
    async fn serve(&mut self, socket: TcpStream, peer: SocketAddr) {
        let mut current = Serving::new(&self.shared, self.index, socket, peer);
        // A connection whose place was taken, with replies still owed on it.
        let mut draining: Option<Serving> = None;
        let mut redialing: Option<Dialing> = None;
        let mut redial_backoff = Backoff::new(&self.shared);
        let mut retired = false;
        let end = loop {
            let sweeper = self.sweeper.as_mut();
            tokio::select! {
                biased;
                end = current.driver.run() => break end,
                () = sweep(sweeper) => {}
                end = run_draining(&mut draining) => {
                    log_end(&self.shared, end);
                    draining = None;
                }
                dialed = poll_dialing(&mut redialing), if draining.is_none() => {
                    redialing = match dialed {
                        Ok((socket, peer)) => {
                            redial_backoff.reset();
                            let next = Serving::new(&self.shared, self.index, socket, peer);
                            let mut replaced = std::mem::replace(&mut current, next);
                            replaced.driver.replace();
                            draining = Some(replaced);
                            None
                        }
                        Err(error) => {
                            debug!(target: "memring", node = %self.shared.id, %error, "no connection at the new address yet");
                            Some(dialing_after(redial_backoff.next(), &self.shared))
                        }
                    };
                }
                changed = self.orders.changed(), if !retired => {
                    let orders = self.orders.borrow_and_update().clone();
                    retired = changed.is_err() || orders.retired;
                    if retired {
                        current.driver.retire();
                    }
                    let stays = retired || orders.listed.is_empty() || orders.listed.contains(&current.peer.ip());
                    redialing = (!stays).then(|| dialing(&self.shared));
                }
            }
        };
        if let (End::Drained, Some(serving)) = (&end, &mut draining) {
            // Told to leave once all is answered, which what is owed on the connection before is part of.
            self.until_orders(serving.driver.run()).await;
        }
        // What else was under way is not served any more: nobody may wait for it while this task waits to dial again.
        drop(draining);
        self.ended(current, end).await;
    }

    async fn ended(&mut self, last: Serving, end: End) {
        let Serving { driver, peer, since } = last;
        self.shared.disconnected(self.index);
        let replied = driver.has_replied();
        // It leaves the queue, which would go on to count on it.
        drop(driver);
        if replied {
            self.shared.addresses.confirm(&self.shared.id, peer.ip());
        }
        let drained = matches!(end, End::Drained);
        let unauthenticated = matches!(&end, End::Lost(error) if error.kind() == ErrorKind::Auth);
        log_end(&self.shared, end);
        if drained || self.orders.borrow().retired {
            return;
        }
        self.shared.addresses.nudge();
        if unauthenticated {
            // The next connection will be told the same. Nobody needs to wait for it to learn that.
            let error = Error::not_sent(ErrorKind::Auth)
                .with_node(&self.shared.id)
                .with_message("the server asks for credentials");
            self.failed(&error).await;
        } else if replied {
            self.backoff.reset();
        } else if since.elapsed() < self.shared.settings.silence_timeout() {
            // It took the connection and never said a word: the next one may fare no better.
            self.pause().await;
        }
        // One that was given up for its silence took that long already. A stopped process still takes connections, and
        // whoever waits for it learns at once that it goes on; so the next one is opened without delay.
    }
}

impl Drop for Reconnector {
    /// Also when the task is aborted or panics: nobody may wait for a connection that will not come.
    fn drop(&mut self) {
        self.shared.ended(self.index);
    }
}

/// A connection in use.
struct Serving {
    driver: Driver<TcpStream>,
    peer: SocketAddr,
    since: Instant,
}

impl Serving {
    fn new(shared: &Shared, index: usize, socket: TcpStream, peer: SocketAddr) -> Self {
        info!(target: "memring", node = %shared.id, %peer, "connected");
        let config = DriverConfig {
            node: shared.id.clone(),
            task: index,
            max_value: shared.settings.max_value,
            silence_timeout: shared.settings.silence_timeout(),
        };
        let driver = Driver::new(socket, Arc::clone(&shared.queue), Arc::clone(&shared.probe_history), config);
        shared.connected(index, peer);
        Self { driver, peer, since: Instant::now() }
    }
}

/// Owns what it needs, so that it can go on beside a connection that still serves.
fn dialing(shared: &Arc<Shared>) -> Dialing {
    let shared = Arc::clone(shared);
    Box::pin(async move { shared.dial().await })
}

fn dialing_after(delay: Duration, shared: &Arc<Shared>) -> Dialing {
    let dialing = dialing(shared);
    Box::pin(async move {
        sleep(delay).await;
        dialing.await
    })
}

async fn sweep(sweeper: Option<&mut DeadlineSweeper>) {
    match sweeper {
        Some(sweeper) => sweeper.run().await,
        None => pending().await,
    }
}

async fn run_draining(draining: &mut Option<Serving>) -> End {
    match draining {
        Some(serving) => serving.driver.run().await,
        None => pending().await,
    }
}

async fn poll_dialing(dialing: &mut Option<Dialing>) -> Dialed {
    match dialing {
        Some(dialing) => dialing.await,
        None => pending().await,
    }
}

fn log_end(shared: &Shared, end: End) {
    match end {
        End::Drained => debug!(target: "memring", node = %shared.id, "connection drained"),
        End::Closed => info!(target: "memring", node = %shared.id, "connection closed by the server"),
        End::Lost(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            warn!(target: "memring", node = %shared.id, %error, cause, "connection given up");
        }
    }
}

/// Delays between dials: doubled each time, with jitter so that a fleet does not come back in step.
#[derive(Debug)]
struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    fn new(shared: &Shared) -> Self {
        let (min, max) = (shared.settings.backoff_min, shared.settings.backoff_max);
        Self { min, max, next: min }
    }

    fn is_fresh(&self) -> bool {
        self.next == self.min
    }

    fn reset(&mut self) {
        self.next = self.min;
    }

    /// Between half and all of the current delay.
    fn next(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(self.max);
        delay.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}
