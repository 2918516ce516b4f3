//! What servers tell of themselves and of their items, on connections of their own.

use std::fmt;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::net::TcpStream;

use super::Client;
use crate::connection::Stream;
use crate::error::{Error, ErrorKind};
use crate::inspect::{MetadumpEntry, Stats, StatsKind};
use crate::node::Node;
use crate::node_id::NodeId;

impl Client {
    /// Asks every node for statistics; each answers for itself, by the one deadline, which is over dialling too: each is
    /// asked on a connection of its own. A node that cannot be reached has its error. Empty while no nodes are known, and
    /// after [`shutdown`](Self::shutdown).
    ///
    /// A node's error is [`ErrorKind::Unsupported`] if the server does not have such statistics.
    ///
    /// ```no_run
    /// # async fn doc(cache: memring::Client) {
    /// use memring::StatsKind;
    ///
    /// for (node, stats) in cache.stats(StatsKind::General).await {
    ///     match stats {
    ///         Ok(stats) => println!("{node}: {:?} items", stats.number("curr_items")),
    ///         Err(error) => println!("{node}: {error}"),
    ///     }
    /// }
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// Dropping the future closes the connections it made.
    pub async fn stats(&self, kind: StatsKind) -> Vec<(NodeId, Result<Stats, Error>)> {
        let deadline = self.deadline();
        self.inspect_every_node(|node| async move { node.stats(kind, deadline).await }).await
    }

    /// Asks one node for statistics, as [`stats`](Self::stats) does.
    ///
    /// # Errors
    /// As [`metadump`](Self::metadump); [`ErrorKind::Timeout`] if they are not complete by the deadline.
    pub async fn stats_of(&self, node: &NodeId, kind: StatsKind) -> Result<Stats, Error> {
        let deadline = self.deadline();
        self.node(node)?.stats(kind, deadline).await
    }

    /// Sets the counters of every node's [general](StatsKind::General) statistics to zero; each answers for itself, as for
    /// [`stats`](Self::stats). Whoever else watches these counters sees it.
    pub async fn reset_stats(&self) -> Vec<(NodeId, Result<(), Error>)> {
        let deadline = self.deadline();
        self.inspect_every_node(|node| async move { node.reset_stats(deadline).await }).await
    }

    /// Lists the items of one node, without their values (`lru_crawler metadump all`, memcached 1.5 or later: some before it
    /// do not say where the list ends, and so it ends in an error). Items written, moved or evicted meanwhile may be missed,
    /// or listed twice.
    ///
    /// ```no_run
    /// # async fn doc(cache: memring::Client, node: memring::NodeId) -> Result<(), memring::Error> {
    /// let mut items = cache.metadump(&node).await?;
    /// while let Some(item) = items.next().await {
    ///     println!("{} bytes", item?.key.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Resolves when a connection has been made for it and the command was sent; a refusal is the first entry. There is no
    /// deadline: a long list takes its time.
    ///
    /// # Errors
    /// [`ErrorKind::NoNodes`] if the client has no such node, and [`ErrorKind::Closed`] after
    /// [`shutdown`](Self::shutdown); what [dialling](ErrorKind::Unavailable) can end in, [`ErrorKind::Auth`] among it.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection it made.
    pub async fn metadump(&self, node: &NodeId) -> Result<Metadump, Error> {
        let stream = self.node(node)?.metadump().await?;
        Ok(Metadump { node: node.clone(), stream: Some(stream), begun: false })
    }

    async fn inspect_every_node<T, F>(&self, ask: impl Fn(Arc<Node>) -> F) -> Vec<(NodeId, Result<T, Error>)>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let nodes = self.inner.snapshot.load().nodes().to_vec();
        let answers = nodes.into_iter().map(|node| {
            let (id, answer) = (node.id().clone(), ask(node));
            async move { (id, answer.await) }
        });
        join_all(answers).await
    }

    fn node(&self, id: &NodeId) -> Result<Arc<Node>, Error> {
        let snapshot = self.inner.snapshot.load();
        match snapshot.nodes().iter().find(|node| node.id() == id) {
            Some(node) => Ok(Arc::clone(node)),
            // Nodes come and go: one that is not there is no mistake of whoever configured the client.
            None if snapshot.view().is_known() => {
                Err(Error::not_sent(ErrorKind::NoNodes).on(id).saying("the client has no such node"))
            }
            None => Err(snapshot.no_nodes()),
        }
    }
}

/// The items of one node, one after the other. Made by [`Client::metadump`].
///
/// The server sends no faster than entries are taken, and lists for one client at a time: others are told `BUSY`, this
/// program included. Take all entries without a pause and work on them afterwards: while a list is stuck because nobody
/// takes it, servers up to 1.6.45 at least let whoever else asks for one wait, and with them everybody served by the same
/// of the server's threads.
///
/// Dropping it closes its connection; it lives on when the client is shut down or dropped.
#[must_use = "nothing is read unless `next` is called"]
pub struct Metadump {
    node: NodeId,
    /// Until the end.
    stream: Option<Stream<TcpStream>>,
    begun: bool,
}

impl Metadump {
    /// The next item; `None` when the server has said that there are no more, and after an error.
    ///
    /// # Errors
    /// The last thing there is. [`ErrorKind::Server`] if the server refuses, for it lists for somebody else already
    /// (`BUSY`) or has been told never to; [`ErrorKind::Unsupported`] if it is too old; [`ErrorKind::Auth`];
    /// [`ErrorKind::Connection`] if it hangs up before the end; [`ErrorKind::Timeout`] if it says nothing for ten seconds,
    /// or what it takes to be [given up](crate::ClientBuilder::request_timeout) if that is longer;
    /// [`ErrorKind::Protocol`] if a line is no item.
    ///
    /// # Cancel safety
    /// Dropping the future loses no item.
    pub async fn next(&mut self) -> Option<Result<MetadumpEntry, Error>> {
        let outcome = self.stream.as_mut()?.entry(self.begun).await;
        if !matches!(outcome, Ok(Some(_))) {
            self.stream = None;
        }
        self.begun = true;
        outcome.transpose()
    }

    /// The node whose items they are.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.node
    }
}

impl fmt::Debug for Metadump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metadump").field("node", &self.node).finish_non_exhaustive()
    }
}
