//! Commands whose response is many lines, each on a connection of its own. They neither wait for other commands nor
//! delay them, and their outcome does not change the node's state.

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::Node;
use crate::connection::LineReader;
use crate::error::{Delivery, Error, ErrorKind};
use crate::inspect::{Stats, StatsKind};
use crate::protocol::{METADUMP_COMMAND, RESET_STATS_COMMAND, stats_command};
use crate::timer::timeout_at;

impl Node {
    pub(crate) async fn stats(&self, kind: StatsKind, deadline: Instant) -> Result<Stats, Error> {
        let reader = self.send_by(deadline, stats_command(kind)).await?;
        self.read_by(deadline, reader.read_stats()).await
    }

    pub(crate) async fn reset_stats(&self, deadline: Instant) -> Result<(), Error> {
        let reader = self.send_by(deadline, RESET_STATS_COMMAND).await?;
        self.read_by(deadline, reader.read_reset()).await
    }

    /// Requests the list of items. Has no deadline, but each dial and each line has its time limit.
    pub(crate) async fn metadump(&self) -> Result<LineReader<TcpStream>, Error> {
        self.send(METADUMP_COMMAND).await
    }

    async fn send_by(&self, deadline: Instant, command: &str) -> Result<LineReader<TcpStream>, Error> {
        // Not sent, because a line this short is written at once or not at all.
        let late = |_| Error::new(ErrorKind::Timeout, Delivery::NotSent).with_node(self.id());
        timeout_at(deadline, self.send(command)).await.map_err(late)?
    }

    async fn read_by<T>(&self, deadline: Instant, read: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let late = |_| Error::new(ErrorKind::Timeout, Delivery::Unknown).with_node(self.id());
        timeout_at(deadline, read).await.map_err(late)?
    }

    async fn send(&self, command: &str) -> Result<LineReader<TcpStream>, Error> {
        if Handle::try_current().is_err() {
            let error = Error::not_sent(ErrorKind::Config).with_node(self.id());
            return Err(error.with_message("statistics and item lists need a tokio runtime"));
        }
        let (socket, _) = self.shared.dial().await?;
        LineReader::open(socket, self.id().clone(), self.shared.settings.line_timeout(), command).await
    }
}
