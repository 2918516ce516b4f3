//! A connection that is used for one answer of many lines, and then closed.
//!
//! Such answers never share a connection with commands: 1.6 servers refuse to list their items behind other commands,
//! and let commands behind the list wait for ever. Nothing is read ahead of whoever asks for the lines, so that the
//! server is slowed down instead of this process filling up.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::error::{Delivery, Error, ErrorKind};
use crate::inspect::{MetadumpEntry, Stats};
use crate::node_id::NodeId;
use crate::protocol::{DumpLine, ErrorLine, ProtocolError, StatLine, dump_line, stat_line};

/// Longer than any item's line (a key of 250 bytes, each written as three) and any setting, paths included.
const MAX_LINE: usize = 16 * 1024;

/// Statistics are gathered, so there must be an end to them. The longest by far are of connections, about 200 bytes
/// each.
const MAX_STATS: usize = 32 * 1024 * 1024;

/// How much is read at a time.
const READ_CHUNK: usize = 16 * 1024;

pub(crate) struct LineReader<S> {
    socket: S,
    node: NodeId,
    /// How long the server may take for a line.
    silence_timeout: Duration,
    input: BytesMut,
    /// Of which so many bytes hold no line end.
    scanned: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> LineReader<S> {
    /// Sends the one command.
    pub(crate) async fn open(socket: S, node: NodeId, silence_timeout: Duration, command: &str) -> Result<Self, Error> {
        let mut stream = Self { socket, node, silence_timeout, input: BytesMut::new(), scanned: 0 };
        match timeout(silence_timeout, stream.socket.write_all(command.as_bytes())).await {
            Ok(Ok(())) => Ok(stream),
            Ok(Err(error)) => Err(stream.lost().with_source(error)),
            Err(_) => Err(stream.silent()),
        }
    }

    /// The rest of the answer, as statistics.
    pub(crate) async fn stats(mut self) -> Result<Stats, Error> {
        let mut stats = Stats::default();
        let mut size = 0;
        loop {
            let line = self.line().await?;
            size += line.len() + 1;
            if size > MAX_STATS {
                return Err(self.violated(ProtocolError::Endless));
            }
            match stat_line(&line) {
                StatLine::Stat { name, value } => stats.push(name, value),
                StatLine::End => return Ok(stats),
                StatLine::ErrorLine(refusal) => return Err(self.refused(&refusal)),
                StatLine::Reset => return Err(self.violated(ProtocolError::OutOfStep)),
                // Tolerated: it tells nothing that could be mistaken for something else.
                StatLine::Other => {}
            }
        }
    }

    /// Waits until statistics are said to be reset.
    pub(crate) async fn reset(mut self) -> Result<(), Error> {
        match stat_line(&self.line().await?) {
            StatLine::Reset => Ok(()),
            StatLine::ErrorLine(refusal) => Err(self.refused(&refusal)),
            StatLine::Stat { .. } | StatLine::End => Err(self.violated(ProtocolError::OutOfStep)),
            StatLine::Other => Err(self.violated(ProtocolError::Malformed)),
        }
    }

    /// The next item of a list; `None` at its end. `begun` is whether there was one before. Nothing is to be asked for
    /// after the end or an error. Cancel safe.
    pub(crate) async fn entry(&mut self, begun: bool) -> Result<Option<MetadumpEntry>, Error> {
        let mut begun = begun;
        loop {
            match dump_line(&self.line().await?).map_err(|error| self.violated(error))? {
                DumpLine::Entry(entry) => return Ok(Some(entry)),
                DumpLine::End => return Ok(None),
                DumpLine::ErrorLine(refusal) => return Err(self.refused(&refusal)),
                DumpLine::Ok if !begun => begun = true,
                DumpLine::Ok => return Err(self.violated(ProtocolError::OutOfStep)),
            }
        }
    }

    /// The next line, without its end, whether that is `\r\n` or `\n`. Cancel safe.
    async fn line(&mut self) -> Result<Bytes, Error> {
        match timeout(self.silence_timeout, self.read_line()).await {
            Ok(line) => line,
            Err(_) => Err(self.silent()),
        }
    }

    async fn read_line(&mut self) -> Result<Bytes, Error> {
        loop {
            let end = memchr::memchr(b'\n', &self.input[self.scanned..]).map(|at| self.scanned + at);
            if end.unwrap_or(self.input.len()) > MAX_LINE {
                return Err(self.violated(ProtocolError::LineTooLong));
            }
            if let Some(end) = end {
                self.scanned = 0;
                let mut line = self.input.split_to(end + 1).freeze();
                line.truncate(if line[..end].ends_with(b"\r") { end - 1 } else { end });
                return Ok(line);
            }
            self.scanned = self.input.len();
            self.input.reserve(READ_CHUNK);
            match self.socket.read_buf(&mut self.input).await {
                Ok(0) => {
                    let early = io::Error::new(io::ErrorKind::UnexpectedEof, "closed by the server before the end");
                    return Err(self.lost().with_source(early));
                }
                Ok(_) => {}
                Err(error) => return Err(self.lost().with_source(error)),
            }
        }
    }
}

impl<S> LineReader<S> {
    fn lost(&self) -> Error {
        Error::new(ErrorKind::Connection, Delivery::Unknown).with_node(&self.node)
    }

    fn silent(&self) -> Error {
        Error::new(ErrorKind::Timeout, Delivery::Unknown)
            .with_node(&self.node)
            .with_message("the server has gone silent")
    }

    fn violated(&self, reason: ProtocolError) -> Error {
        Error::new(ErrorKind::Protocol, Delivery::Unknown).with_node(&self.node).with_source(reason)
    }

    fn refused(&self, refusal: &ErrorLine) -> Error {
        let kind = if refusal.is_unauthenticated() {
            ErrorKind::Auth
        } else if refusal.line() == "ERROR" {
            // A command, or an argument of it, that the server has never heard of.
            ErrorKind::Unsupported
        } else {
            ErrorKind::Server
        };
        Error::new(kind, Delivery::Answered).with_node(&self.node).with_message(refusal.line())
    }
}

impl<S> fmt::Debug for LineReader<S> {
    /// Shows nothing of what was read: there are keys in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineReader").field("node", &self.node).finish_non_exhaustive()
    }
}
