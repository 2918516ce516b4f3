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

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_socket_is_as_a_cache_wants_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = dial(&[listener.local_addr().unwrap()], LIMIT, Duration::from_secs(30)).await.unwrap();
        assert!(socket.nodelay().unwrap());
        assert!(SockRef::from(&socket).keepalive().unwrap());
        #[cfg(target_os = "linux")]
        assert_eq!(SockRef::from(&socket).tcp_keepalive_time().unwrap(), Duration::from_secs(30));
    }

    /// Row 34 of the failure table: where one of a node's addresses refuses, the next is tried.
    #[tokio::test]
    async fn the_first_address_that_answers_is_taken() {
        let (refusing, listening) =
            (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let (refuses, listens) = (refusing.local_addr().unwrap(), listening.local_addr().unwrap());
        drop(refusing);
        let socket = dial(&[refuses, listens], LIMIT, LIMIT).await.unwrap();
        assert_eq!(socket.peer_addr().unwrap(), listens);
        assert_eq!(dial(&[refuses], LIMIT, LIMIT).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(dial(&[], LIMIT, LIMIT).await.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }
}
