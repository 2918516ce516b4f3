//! The way to a socket of a node's that is ready for use: where it is, a connection, the credentials.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Shared;
use crate::connection::{authenticate, dial};
use crate::error::{Error, ErrorKind};

impl Shared {
    /// Looks the node up, connects, and shows the credentials if there are any. Each step has its limit.
    ///
    /// # Errors
    /// `Unavailable`; `Auth` if the credentials are refused; `Protocol` if they are answered with anything else.
    pub(super) async fn dial(&self) -> Result<(TcpStream, SocketAddr), Error> {
        let unavailable = || Error::not_sent(ErrorKind::Unavailable).with_node(&self.id);
        let addresses = self.locator.lookup(&self.id).await.map_err(|error| unavailable().with_source(error))?;
        let dialed = dial(&addresses, self.settings.connect_timeout, self.settings.keepalive).await;
        let connected = dialed.and_then(|socket| {
            let peer = socket.peer_addr()?;
            Ok((socket, peer))
        });
        let connected = match connected {
            Ok((mut socket, peer)) => self.authenticated(&mut socket).await.map(|()| (socket, peer)),
            Err(error) => Err(unavailable().with_source(error)),
        };
        // Perhaps the pod is elsewhere by now.
        connected.inspect_err(|_| self.locator.request_poll())
    }

    async fn authenticated(&self, socket: &mut TcpStream) -> Result<(), Error> {
        let Some(credentials) = &self.settings.credentials else { return Ok(()) };
        let limit = self.settings.connect_timeout;
        match timeout(limit, authenticate(socket, credentials)).await {
            Ok(outcome) => outcome.map_err(|error| error.with_node(&self.id)),
            Err(_) => {
                let reason = format!("no answer to the credentials within {limit:?}");
                let silence = io::Error::new(io::ErrorKind::TimedOut, reason);
                Err(Error::not_sent(ErrorKind::Unavailable).with_node(&self.id).with_source(silence))
            }
        }
    }
}
