//! Statistics and item lists of the nodes, each read on a connection of its own.

use std::fmt;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::net::TcpStream;

use super::Client;
use crate::connection::LineReader;
use crate::error::Error;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::inspect::{MetadumpEntry, Stats, StatsKind};
use crate::node::Node;
use crate::node_id::NodeId;

impl Client {
    /// Reads statistics of every node. Returns a result for each node, none while no nodes are known and after
    /// [`shutdown`](Self::shutdown).
    ///
    /// Each node is asked on a connection of its own. All have one deadline, dialing included. The result of a node is
    /// [`ErrorKind::Unsupported`] if its server does not have such statistics.
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
    /// Dropping the future closes its connections.
    pub async fn stats(&self, kind: StatsKind) -> Vec<(NodeId, Result<Stats, Error>)> {
        let deadline = self.deadline();
        self.inspect_every_node(|node| async move { node.stats(kind, deadline).await }).await
    }

    /// Reads statistics of one node, as [`stats`](Self::stats) does of all.
    ///
    /// # Errors
    /// As [`metadump`](Self::metadump). [`ErrorKind::Timeout`] if they are not complete by the deadline.
    pub async fn stats_of(&self, node: &NodeId, kind: StatsKind) -> Result<Stats, Error> {
        let deadline = self.deadline();
        self.node(node)?.stats(kind, deadline).await
    }

    /// Sets the counters of every node's [general](StatsKind::General) statistics to zero. Returns a result for each
    /// node.
    ///
    /// This affects every program that reads these counters.
    pub async fn reset_stats(&self) -> Vec<(NodeId, Result<(), Error>)> {
        let deadline = self.deadline();
        self.inspect_every_node(|node| async move { node.reset_stats(deadline).await }).await
    }

    /// Lists the items of one node without their values (`lru_crawler metadump all`).
    ///
    /// Needs memcached 1.5. The list of some older servers has no end mark, and therefore ends in an error. Items that
    /// are written, moved or evicted meanwhile may be missing or listed twice.
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
    /// Returns when the command was sent on a new connection. If the server refuses the command, the first entry is the
    /// error. There is no deadline, because a long list takes long.
    ///
    /// # Errors
    /// [`ErrorKind::NoNodes`] if the client has no such node, [`ErrorKind::Closed`] after [`shutdown`](Self::shutdown),
    /// and the errors of a failed dial: [`ErrorKind::Unavailable`] and [`ErrorKind::Auth`].
    ///
    /// # Cancel safety
    /// Dropping the future closes its connection.
    pub async fn metadump(&self, node: &NodeId) -> Result<Metadump, Error> {
        let reader = self.node(node)?.metadump().await?;
        Ok(Metadump { node: node.clone(), reader: Some(reader), has_entries: false })
    }

    async fn inspect_every_node<T, F>(&self, inspect: impl Fn(Arc<Node>) -> F) -> Vec<(NodeId, Result<T, Error>)>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let nodes = self.operations().dispatcher().snapshot().nodes().to_vec();
        let results = nodes.into_iter().map(|node| {
            let (id, result) = (node.id().clone(), inspect(node));
            async move { (id, result.await) }
        });
        join_all(results).await
    }

    fn node(&self, id: &NodeId) -> Result<Arc<Node>, Error> {
        self.operations().dispatcher().node(id)
    }
}

/// The items of one node, one after the other. Made by [`Client::metadump`].
///
/// The server sends no faster than entries are taken, and lists for one client at a time: all others get `BUSY`. So
/// take all entries without a pause and process them afterwards. While a list is stuck because its entries are not
/// taken, servers up to 1.6.45 at least let the next client that asks for a list wait, together with all clients of the
/// same server thread.
///
/// Dropping it closes its connection. Shutting down or dropping the client does not.
#[must_use = "nothing is read unless `next` is called"]
pub struct Metadump {
    node: NodeId,
    /// `None` after the last item and after an error.
    reader: Option<LineReader<TcpStream>>,
    has_entries: bool,
}

impl Metadump {
    /// Returns the next item, or `None` after the last item and after an error.
    ///
    /// # Errors
    /// - [`ErrorKind::Server`]: the server refuses, because it lists for another client (`BUSY`) or lists are disabled.
    /// - [`ErrorKind::Unsupported`]: the server is too old.
    /// - [`ErrorKind::Auth`]: the server asks for credentials.
    /// - [`ErrorKind::Connection`]: the server closed the connection before the end of the list.
    /// - [`ErrorKind::Timeout`]: the server sent nothing for ten seconds, or for the
    ///   [silence timeout](crate::ClientBuilder::request_timeout) if that is longer.
    /// - [`ErrorKind::Protocol`]: a line is not an item.
    ///
    /// # Cancel safety
    /// Dropping the future loses no item.
    pub async fn next(&mut self) -> Option<Result<MetadumpEntry, Error>> {
        let outcome = self.reader.as_mut()?.entry(self.has_entries).await;
        if !matches!(outcome, Ok(Some(_))) {
            self.reader = None;
        }
        self.has_entries = true;
        outcome.transpose()
    }

    /// Returns the node that has the items.
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
