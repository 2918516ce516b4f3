//! Opens a connection that is ready for use: looks the node up, connects, and authenticates.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::Shared;
use crate::connection::{authenticate, dial};
use crate::error::{Error, ErrorKind};

/// The outcome of a dial: a connected socket and its peer.
pub(super) type Dialed = Result<(TcpStream, SocketAddr), Error>;

/// A dial that owns all it needs, so that it can run beside a connection that still serves.
pub(super) type Dial = Pin<Box<dyn Future<Output = Dialed> + Send>>;

/// Dials the node after this delay.
pub(super) fn start_dial(shared: &Arc<Shared>, delay: Duration) -> Dial {
    let shared = Arc::clone(shared);
    Box::pin(async move {
        if !delay.is_zero() {
            sleep(delay).await;
        }
        shared.dial().await
    })
}

impl Shared {
    /// Looks the node up, connects, and sends the credentials if there are any. Each step has its own time limit.
    ///
    /// # Errors
    /// - `Unavailable` if the node cannot be looked up or reached.
    /// - `Auth` if the server rejects the credentials.
    /// - `Protocol` if it replies to them with anything else.
    pub(super) async fn dial(&self) -> Dialed {
        let unavailable = || Error::not_sent(ErrorKind::Unavailable).with_node(&self.id);
        let addresses = self.locator.lookup(&self.id).await.map_err(|error| unavailable().with_source(error))?;
        // The pod may have another address by now.
        let report_failure = |_: &Error| self.locator.report_failed_dial(&self.id, &addresses);
        let dialed = dial(&addresses, self.settings.connect_timeout, self.settings.keepalive).await;
        let connected = dialed.and_then(|socket| {
            let peer = socket.peer_addr()?;
            Ok((socket, peer))
        });
        let ready = match connected {
            Ok((mut socket, peer)) => self.authenticate(&mut socket).await.map(|()| (socket, peer)),
            Err(error) => Err(unavailable().with_source(error)),
        };
        ready.inspect_err(report_failure)
    }

    async fn authenticate(&self, socket: &mut TcpStream) -> Result<(), Error> {
        let Some(credentials) = &self.settings.credentials else { return Ok(()) };
        let limit = self.settings.connect_timeout;
        match timeout(limit, authenticate(socket, credentials)).await {
            Ok(outcome) => outcome.map_err(|error| error.with_node(&self.id)),
            Err(_) => {
                let text = format!("no reply to the credentials within {limit:?}");
                let timed_out = io::Error::new(io::ErrorKind::TimedOut, text);
                Err(Error::not_sent(ErrorKind::Unavailable).with_node(&self.id).with_source(timed_out))
            }
        }
    }
}
