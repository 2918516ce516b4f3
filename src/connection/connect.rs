//! Opening a socket the way a cache wants it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Connects to the first of `addresses` that answers, giving each of them `limit`.
pub(crate) async fn dial(addresses: &[SocketAddr], limit: Duration, keepalive: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address to connect to");
    for &address in addresses {
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => {
                prepare(&socket, keepalive)?;
                return Ok(socket);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit:?}")),
        }
    }
    Err(last)
}

fn prepare(socket: &TcpStream, keepalive: Duration) -> io::Result<()> {
    // Requests are gathered into batches here; waiting for more in the kernel only adds delay.
    socket.set_nodelay(true)?;
    // An idle connection to a machine that vanished is noticed before a request finds out.
    SockRef::from(socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(keepalive).with_interval(keepalive / 3))
}
