//! Opens a TCP connection and sets its socket options.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Connects to the first of `addresses` that accepts, trying them in order, each for at most `limit`.
pub(crate) async fn dial(addresses: &[SocketAddr], limit: Duration, keepalive: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address to connect to");
    for &address in addresses {
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => {
                set_options(&socket, keepalive)?;
                return Ok(socket);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit:?}")),
        }
    }
    Err(last)
}

fn set_options(socket: &TcpStream, keepalive: Duration) -> io::Result<()> {
    // The client batches requests itself, so waiting for more in the kernel only adds delay.
    socket.set_nodelay(true)?;
    // Keepalive notices a vanished machine while the connection is idle, before a request is lost on it.
    SockRef::from(socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(keepalive).with_interval(keepalive / 3))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_connection_has_no_delay_and_keepalive() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = dial(&[listener.local_addr().unwrap()], LIMIT, Duration::from_secs(30)).await.unwrap();
        assert!(socket.nodelay().unwrap());
        assert!(SockRef::from(&socket).keepalive().unwrap());
        #[cfg(target_os = "linux")]
        assert_eq!(SockRef::from(&socket).tcp_keepalive_time().unwrap(), Duration::from_secs(30));
    }

    /// If one address of a node refuses, the next is tried (`docs/discovery.md`, row 34).
    #[tokio::test]
    async fn the_first_address_that_accepts_is_used() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (refusing, accepting) = (closed.local_addr().unwrap(), open.local_addr().unwrap());
        drop(closed);
        let socket = dial(&[refusing, accepting], LIMIT, LIMIT).await.unwrap();
        assert_eq!(socket.peer_addr().unwrap(), accepting);
        assert_eq!(dial(&[refusing], LIMIT, LIMIT).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(dial(&[], LIMIT, LIMIT).await.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }
}
