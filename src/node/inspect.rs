//! ResponseSlot of many lines, each on a connection of its own: they neither wait for commands nor hold them up, and what
//! becomes of them says nothing about the node's health.

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::Node;
use crate::connection::LineReader;
use crate::error::{Delivery, Error, ErrorKind};
use crate::inspect::{Stats, StatsKind};
use crate::protocol::{METADUMP, RESET_STATS, stats_line};

impl Node {
    pub(crate) async fn stats(&self, kind: StatsKind, deadline: Instant) -> Result<Stats, Error> {
        let stream = self.ask(stats_line(kind), deadline).await?;
        self.answered(stream.read_stats(), deadline).await
    }

    pub(crate) async fn reset_stats(&self, deadline: Instant) -> Result<(), Error> {
        let stream = self.ask(RESET_STATS, deadline).await?;
        self.answered(stream.read_reset(), deadline).await
    }

    /// Asks for the list of items. Bounded by the limits on dialling and on the server's silence.
    pub(crate) async fn metadump(&self) -> Result<LineReader<TcpStream>, Error> {
        self.open_stream(METADUMP).await
    }

    async fn ask(&self, command: &str, deadline: Instant) -> Result<LineReader<TcpStream>, Error> {
        // A line this short is written at once, or not at all.
        let late = |_| Error::new(ErrorKind::Timeout, Delivery::NotSent).with_node(self.id());
        timeout_at(deadline, self.open_stream(command)).await.map_err(late)?
    }

    async fn answered<T>(&self, answer: impl Future<Output = Result<T, Error>>, deadline: Instant) -> Result<T, Error> {
        let late = |_| Error::new(ErrorKind::Timeout, Delivery::Unknown).with_node(self.id());
        timeout_at(deadline, answer).await.map_err(late)?
    }

    async fn open_stream(&self, command: &str) -> Result<LineReader<TcpStream>, Error> {
        let (socket, _) = self.shared.dial().await?;
        LineReader::open(socket, self.id().clone(), self.shared.settings.line_timeout(), command).await
    }
}
