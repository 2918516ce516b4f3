//! Servers and discovery sources that behave as a test scripts them.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use memring::{Client, ClientBuilder, Discovery, DiscoveryError, Endpoint, Membership, NodeId};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::{LONG_TIMEOUT, eventually, fast_polling, node_id};

/// Starts a server that runs `serve` for each connection.
pub(crate) async fn scripted_server<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    serve_connections(listener, serve);
    addr
}

/// Runs `serve` for each connection of a listener, in a task of its own.
pub(crate) fn serve_connections<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) {
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket));
        }
    });
}

/// Starts a server that counts its connections, and passes each to `serve` with the number of connections before it.
pub(crate) async fn counting_server<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream, usize) -> F + Send + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let addr = scripted_server(move |socket| serve(socket, counted.fetch_add(1, Ordering::Relaxed))).await;
    (addr, connections)
}

/// Checks the number of dials in 1.5 seconds: more than one, and no more than a backoff allows.
pub(crate) fn assert_dials_backed_off(dials: &AtomicUsize) {
    let dials = dials.load(Ordering::Relaxed);
    assert!((2..=12).contains(&dials), "{dials} dials in 1.5 s");
}

/// Reads everything and never replies.
pub(crate) async fn never_reply(mut socket: TcpStream) {
    let mut input = vec![0; 4096];
    while socket.read(&mut input).await.is_ok_and(|count| count > 0) {}
}

/// Sends the same reply after each read.
pub(crate) async fn always_reply(mut socket: TcpStream, reply: &'static [u8]) {
    let mut input = vec![0; 4096];
    while socket.read(&mut input).await.is_ok_and(|count| count > 0) {
        let _ = socket.write_all(reply).await;
    }
}

/// Answers every get with a miss.
pub(crate) async fn always_miss(socket: TcpStream) {
    always_reply(socket, b"END\r\n").await;
}

/// Starts a server that reads whole requests and replies to each with `reply` of its first line.
pub(crate) async fn request_server(reply: impl Fn(&str) -> &'static str + Clone + Send + Sync + 'static) -> SocketAddr {
    scripted_server(move |socket| {
        let reply = reply.clone();
        async move {
            let mut socket = BufReader::new(socket);
            let mut line = String::new();
            while let Ok(1..) = socket.read_line(&mut line).await {
                if line.starts_with("set ") {
                    let len: usize = line.split_whitespace().nth(4).unwrap().parse().unwrap();
                    socket.read_exact(&mut vec![0; len + 2]).await.unwrap();
                }
                if socket.write_all(reply(&line).as_bytes()).await.is_err() {
                    return;
                }
                line.clear();
            }
        }
    })
    .await
}

/// A discovery source with a list of nodes that the test can change.
#[derive(Debug, Clone)]
pub(crate) struct NodeList(Arc<Mutex<Vec<NodeId>>>);

impl NodeList {
    pub(crate) fn new(nodes: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self(Arc::new(Mutex::new(nodes.into_iter().map(node_id).collect())))
    }

    pub(crate) fn remove(&self, node: SocketAddr) {
        self.0.lock().unwrap().retain(|id| *id != node_id(node));
    }
}

impl Discovery for NodeList {
    async fn discover(&self) -> Result<Membership, DiscoveryError> {
        Ok(Membership::new(self.0.lock().unwrap().iter().cloned().map(Endpoint::new)))
    }
}

/// A client of two nodes, one of which leaves while it holds back its replies.
pub(crate) struct LeavingNode {
    pub(crate) cache: Client,
    /// The node that leaves. It reads one request on each connection.
    pub(crate) addr: SocketAddr,
    nodes: NodeList,
    is_requested: watch::Receiver<bool>,
    release: watch::Sender<bool>,
}

impl LeavingNode {
    /// Connects the client. `reply` is what the leaving node finally sends, and `other` is the node that stays.
    pub(crate) async fn start(
        reply: &'static [u8],
        other: SocketAddr,
        configure: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Self {
        let (requested, is_requested) = watch::channel(false);
        let (release, released) = watch::channel(false);
        let addr = scripted_server(move |mut socket| {
            let (requested, mut released) = (requested.clone(), released.clone());
            async move {
                if socket.read(&mut [0; 4096]).await.is_ok_and(|count| count > 0) {
                    requested.send_replace(true);
                    let _ = released.wait_for(|released| *released).await;
                    let _ = socket.write_all(reply).await;
                }
            }
        })
        .await;
        let nodes = NodeList::new([addr, other]);
        let options = fast_polling().removal_grace(Duration::ZERO);
        let builder = Client::builder().discovery(nodes.clone()).discovery_options(options);
        let cache = configure(builder.request_timeout(LONG_TIMEOUT)).connect().await.unwrap();
        Self { cache, addr, nodes, is_requested, release }
    }

    pub(crate) async fn wait_for_request(&self) {
        self.is_requested.clone().wait_for(|is_requested| *is_requested).await.unwrap();
    }

    /// Removes the node from the topology, then lets it send its replies and close its connections.
    pub(crate) async fn leave(&self) {
        self.nodes.remove(self.addr);
        eventually("the node has left", async || self.cache.topology().nodes.len() == 1).await;
        self.release.send_replace(true);
    }
}

/// A discovery source with one node that moves from one address to another.
#[derive(Debug, Clone)]
pub(crate) struct MovingNode {
    id: NodeId,
    ip: Arc<Mutex<IpAddr>>,
    new_ip: IpAddr,
}

impl MovingNode {
    /// Listens on the same port of two addresses. `None`, with a message, if there is no second loopback address.
    pub(crate) async fn bind() -> Option<(Self, TcpListener, TcpListener)> {
        let old = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let old_addr = old.local_addr().unwrap();
        let new_ip: IpAddr = [127, 0, 0, 2].into();
        let Ok(new) = TcpListener::bind((new_ip, old_addr.port())).await else {
            eprintln!("skipped: this machine has no second loopback address");
            return None;
        };
        let id = NodeId::new("pod-0", old_addr.port()).unwrap();
        Some((Self { id, ip: Arc::new(Mutex::new(old_addr.ip())), new_ip }, old, new))
    }

    pub(crate) fn client_builder(&self) -> ClientBuilder {
        Client::builder().discovery(self.clone()).discovery_options(fast_polling())
    }

    pub(crate) fn move_to_new_address(&self) {
        *self.ip.lock().unwrap() = self.new_ip;
    }

    /// Whether the client uses the new address.
    pub(crate) fn is_followed_by(&self, cache: &Client) -> bool {
        cache.topology().nodes[0].address.is_some_and(|address| address.ip() == self.new_ip)
    }
}

impl Discovery for MovingNode {
    async fn discover(&self) -> Result<Membership, DiscoveryError> {
        let ip = *self.ip.lock().unwrap();
        Ok(Membership::new([Endpoint::new(self.id.clone()).with_addresses([ip])]))
    }
}
