//! The sockets of a DNS server: they read queries, and send the replies when these are due.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::responder::{Reaction, Responder};

/// How long a client's TCP connection may be idle before it is closed.
const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait when the system accepts no connection, as when there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// The tasks that serve each transport, none if it is closed. Dropping them closes the sockets.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    udp: Option<JoinSet<()>>,
    tcp: Option<JoinSet<()>>,
}

impl Sockets {
    /// Opens what is closed at this address, and returns the address with its port.
    pub(super) async fn open(&mut self, mut addr: SocketAddr, responder: &Arc<Responder>) -> io::Result<SocketAddr> {
        if self.udp.is_none() {
            let socket = UdpSocket::bind(addr).await?;
            addr = socket.local_addr()?;
            self.udp = Some(JoinSet::from_iter([serve_udp(Arc::new(socket), Arc::clone(responder))]));
        }
        if self.tcp.is_none() {
            let listener = TcpListener::bind(addr).await?;
            self.tcp = Some(JoinSet::from_iter([serve_tcp(listener, Arc::clone(responder))]));
        }
        Ok(addr)
    }

    pub(super) async fn close_udp(&mut self) {
        if let Some(mut tasks) = self.udp.take() {
            tasks.shutdown().await;
        }
    }

    pub(super) async fn close_tcp(&mut self) {
        if let Some(mut tasks) = self.tcp.take() {
            tasks.shutdown().await;
        }
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, responder: Arc<Responder>) {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    let mut replies = JoinSet::new();
    loop {
        // An error is about an earlier reply, which a client did not wait for.
        let Ok((len, client)) = socket.recv_from(&mut buffer).await else { continue };
        let query = buffer.get(..len).unwrap_or_default();
        if let Reaction::Reply { bytes, delay } = responder.react(query, false) {
            let socket = Arc::clone(&socket);
            replies.spawn(async move {
                wait(delay).await;
                let _ = socket.send_to(&bytes, client).await;
            });
        }
        while replies.try_join_next().is_some() {}
    }
}

async fn serve_tcp(listener: TcpListener, responder: Arc<Responder>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(connections.spawn(serve_connection(stream, Arc::clone(&responder)))),
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Serves one TCP connection. A reply that is late or missing does not hold up the next ones.
async fn serve_connection(stream: TcpStream, responder: Arc<Responder>) {
    let (mut reader, writer) = stream.into_split();
    let writer = Arc::new(AsyncMutex::new(writer));
    let mut replies = JoinSet::new();
    while let Ok(Ok(query)) = timeout(TCP_IDLE_TIMEOUT, read_message(&mut reader)).await {
        match responder.react(&query, true) {
            Reaction::Reply { bytes, delay } => {
                let writer = Arc::clone(&writer);
                replies.spawn(async move {
                    wait(delay).await;
                    // Sending fails only if the client has closed its connection.
                    let _ = writer.lock().await.write_all(&with_length(&bytes)).await;
                });
            }
            Reaction::NoReply => {}
            Reaction::Close => return,
        }
        while replies.try_join_next().is_some() {}
    }
    // The client may have closed only its own direction.
    while replies.join_next().await.is_some() {}
}

async fn read_message(reader: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut message = vec![0; reader.read_u16().await?.into()];
    reader.read_exact(&mut message).await?;
    Ok(message)
}

/// Prefixes a message with its length, as TCP needs it.
fn with_length(message: &[u8]) -> Vec<u8> {
    // A reply is encoded into at most this many bytes.
    let len = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [&len.to_be_bytes(), message].concat()
}

/// Waits, and not even for a tick of the timer if there is no delay.
async fn wait(delay: Duration) {
    if !delay.is_zero() {
        sleep(delay).await;
    }
}
