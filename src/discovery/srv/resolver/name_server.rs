//! One DNS server: a query over UDP, resent while it is lost, and over TCP.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use hickory_resolver::proto::op::{DEFAULT_MAX_PAYLOAD_LEN, Edns, Message, MessageType, Query, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::race::Race;
use crate::discovery::DiscoveryError;

/// How long a reply to a datagram may take before the query is resent. Doubled each time.
const RESEND_AFTER: Duration = Duration::from_millis(300);
/// How long UDP may be silent before TCP is tried as well.
const UDP_HEAD_START: Duration = Duration::from_secs(1);
/// How long a TCP connection to a DNS server may take.
const DNS_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// TCP connections open at the same time. DNS servers allow few: unbound ten in all, by default.
const MAX_TCP_CONNECTIONS: usize = 4;
/// Room for a datagram, also from servers that ignore the size a query allows.
const MAX_DATAGRAM: usize = 4_096;

const UDP: usize = 0;

/// A DNS server, and what works to reach it.
///
/// Keeps no task and no socket between queries. Queries have no time limit of their own.
#[derive(Debug)]
pub(super) struct NameServer {
    address: SocketAddr,
    is_tcp_only: bool,
    transports: Race,
    tcp_slots: Semaphore,
}

/// What a server replied: a whole message, or one that cannot be whole.
type Reply = Result<Message, DiscoveryError>;

impl NameServer {
    pub(super) fn new(address: SocketAddr, is_tcp_only: bool) -> Self {
        let tcp_slots = Semaphore::new(MAX_TCP_CONNECTIONS);
        Self { address, is_tcp_only, transports: Race::default(), tcp_slots }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Queries the server. Each lost datagram is resent; TCP is tried beside UDP when several may be lost.
    ///
    /// # Errors
    /// `ServerFailure` if the reply is an error code other than NXDOMAIN. Otherwise why there is no whole reply.
    pub(super) async fn query(&self, query: &Query) -> Result<Message, DiscoveryError> {
        let reply = if self.is_tcp_only {
            self.over_tcp(query).await?
        } else {
            // There are two alternatives, so there is an outcome.
            let outcome = self.transports.run(2, UDP_HEAD_START, |transport| self.over(transport, query)).await;
            outcome.unwrap_or(Err(DiscoveryError::Timeout))?
        }?;
        match failure(reply.response_code) {
            Some(failure) => Err(DiscoveryError::ServerFailure(failure)),
            None => Ok(reply),
        }
    }

    async fn over(&self, transport: usize, query: &Query) -> Result<Reply, DiscoveryError> {
        if transport == UDP { self.over_udp(query).await } else { self.over_tcp(query).await }
    }

    async fn over_udp(&self, query: &Query) -> Result<Reply, DiscoveryError> {
        let mut in_flight = FuturesUnordered::new();
        let mut resend_after = RESEND_AFTER;
        loop {
            // A socket for each datagram: a stale entry in a NAT table may lose all datagrams of one port.
            in_flight.push(exchange_datagrams(self.address, query));
            tokio::select! {
                Some(outcome) = in_flight.next() => {
                    let reply = outcome.map_err(|error| self.transport_error("UDP", &error))?;
                    return Ok(if reply.truncation { self.fetch_truncated(query).await } else { Ok(reply) });
                }
                () = sleep(resend_after) => resend_after = resend_after.saturating_mul(2),
            }
        }
    }

    /// Fetches a reply that was truncated over UDP.
    async fn fetch_truncated(&self, query: &Query) -> Reply {
        match self.over_tcp(query).await {
            // What Knot and unbound reply when the answer does not fit a message.
            Ok(Ok(reply)) if reply.response_code == ResponseCode::ServFail => {
                let advice = DiscoveryError::AnswerTooLong;
                Err(DiscoveryError::ServerFailure(format!(
                    "SERVFAIL over TCP, after a truncated answer over UDP; if so, {advice}"
                )))
            }
            Ok(reply) => reply,
            Err(_) => Err(DiscoveryError::Truncated),
        }
    }

    async fn over_tcp(&self, query: &Query) -> Result<Reply, DiscoveryError> {
        // The semaphore is never closed.
        let _slot = self.tcp_slots.acquire().await;
        let connection = timeout(DNS_CONNECT_TIMEOUT, TcpStream::connect(self.address)).await;
        let stream =
            connection.map_err(|_| DiscoveryError::Timeout)?.map_err(|error| self.transport_error("TCP", &error))?;
        let reply = exchange_over_tcp(stream, query).await.map_err(|error| self.transport_error("TCP", &error))?;
        Ok(if reply.truncation { Err(DiscoveryError::AnswerTooLong) } else { Ok(reply) })
    }

    fn transport_error(&self, transport: &str, error: &io::Error) -> DiscoveryError {
        DiscoveryError::Transport(format!("{} over {transport}: {error}", self.address))
    }
}

/// Returns the error code of a reply that is no answer.
fn failure(code: ResponseCode) -> Option<String> {
    match code {
        ResponseCode::NoError | ResponseCode::NXDomain => None,
        ResponseCode::Refused => Some("REFUSED: it may not serve this name, or not to this client".into()),
        code => Some(format!("{code:?}").to_uppercase()),
    }
}

/// Creates a message with this query, and encodes it.
fn request(query: &Query) -> io::Result<(Message, Vec<u8>)> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(query.clone());
    // Without EDNS answers are truncated at 512 bytes, which is five pods.
    let mut edns = Edns::new();
    edns.set_max_payload(DEFAULT_MAX_PAYLOAD_LEN);
    message.set_edns(edns);
    let bytes = message.to_vec().map_err(io::Error::other)?;
    Ok((message, bytes))
}

/// Returns whether a message is a reply to a request.
fn is_reply(message: &Message, request: &Message) -> bool {
    let is_about_query = message.queries == request.queries
        // Some servers reply no query with an error.
        || (message.queries.is_empty() && failure(message.response_code).is_some());
    message.id == request.id && message.message_type == MessageType::Response && is_about_query
}

/// Sends a query from a new port, and waits for the reply. Ignores datagrams that are no reply to it.
async fn exchange_datagrams(server: SocketAddr, query: &Query) -> io::Result<Message> {
    let (request, bytes) = request(query)?;
    let any_port: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any_port).await?;
    // Only datagrams from the server arrive, and a closed port is an error.
    socket.connect(server).await?;
    socket.send(&bytes).await?;
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let len = socket.recv(&mut buffer).await?;
        match Message::from_vec(&buffer[..len]) {
            Ok(message) if is_reply(&message, &request) => return Ok(message),
            _ => {}
        }
    }
}

async fn exchange_over_tcp(mut stream: TcpStream, query: &Query) -> io::Result<Message> {
    let (request, bytes) = request(query)?;
    // A query is short: one name.
    let len = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    let mut framed = len.to_be_bytes().to_vec();
    framed.extend(bytes);
    stream.write_all(&framed).await?;
    let len = stream.read_u16().await?;
    let mut bytes = vec![0; len.into()];
    stream.read_exact(&mut bytes).await?;
    let message = Message::from_vec(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    if !is_reply(&message, &request) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a reply to another query"));
    }
    Ok(message)
}
