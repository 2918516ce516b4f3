//! Opens a TCP connection and sets its socket options.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// How long an address may take to accept before the next one is tried as well (RFC 8305, section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How many addresses are tried. A pod has one or two; a name that stands for a whole cluster may have many.
const MOST_ADDRESSES: usize = 8;

/// Connects to the first of `addresses` that accepts. Tries them in order, each for at most `limit`: the next one when
/// one refuses or is slow.
pub(crate) async fn dial(addresses: &[SocketAddr], limit: Duration, keepalive: Duration) -> io::Result<TcpStream> {
    let mut addresses = addresses.iter().take(MOST_ADDRESSES);
    let mut attempts = FuturesUnordered::new();
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "no address to connect to");
    loop {
        if let Some(&address) = addresses.next() {
            attempts.push(connect(address, limit));
        }
        tokio::select! {
            outcome = attempts.next() => match outcome {
                Some(Ok(socket)) => {
                    set_options(&socket, keepalive)?;
                    return Ok(socket);
                }
                Some(Err(error)) => last = error,
                None => return Err(last),
            },
            () = sleep(ATTEMPT_DELAY), if addresses.len() > 0 => {}
        }
    }
}

async fn connect(address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    match timeout(limit, TcpStream::connect(address)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit:?}"))),
    }
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

    /// The first address does not answer at all, as one behind a broken route (`docs/discovery.md`, row 63).
    #[tokio::test]
    async fn an_address_that_is_slow_does_not_hold_up_the_next() {
        let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        silent.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        silent.listen(0).unwrap();
        let address = silent.local_addr().unwrap().as_socket().unwrap();
        // Fills the queue of connections that nothing accepts. The system ignores further ones.
        let mut queued = Vec::new();
        while let Ok(Ok(socket)) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            queued.push(socket);
        }
        let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let accepting = open.local_addr().unwrap();
        let dialed = timeout(LIMIT / 2, dial(&[address, accepting], LIMIT, LIMIT)).await;
        assert_eq!(dialed.unwrap().unwrap().peer_addr().unwrap(), accepting);
        let many = [address; 9].into_iter().chain([accepting]).collect::<Vec<_>>();
        let limit = Duration::from_millis(100);
        assert_eq!(dial(&many, limit, LIMIT).await.unwrap_err().kind(), io::ErrorKind::TimedOut, "a few are tried");
    }
}
