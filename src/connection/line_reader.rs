//! Reads one response of many lines on a connection of its own, which is then closed.
//!
//! Such a response never shares a connection with other commands: 1.6 servers refuse to list their items after other
//! commands, and never reply to commands after the list. Nothing is read before the caller asks for the next line, so
//! that a slow caller slows the server down instead of filling this process's memory.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::error_line::{Rejected, foreign_protocol_error};
use crate::error::{Delivery, Error, ErrorKind};
use crate::inspect::{MetadumpEntry, Stats};
use crate::node_id::NodeId;
use crate::protocol::{DumpLine, ErrorLine, ProtocolError, StatLine, parse_dump_line, parse_stat_line};
use crate::timer::timeout;

/// The longest line accepted: longer than the line of any item (a key of 250 bytes, each written as three) and of any
/// setting, paths included.
const MAX_LINE: usize = 16 * 1024;

/// The most bytes of statistics, which are collected in memory. The longest by far are of connections, about 200 bytes
/// each.
const MAX_STATS: usize = 32 * 1024 * 1024;

/// How many bytes are read at a time.
const READ_CHUNK: usize = 16 * 1024;

pub(crate) struct LineReader<S> {
    socket: S,
    node: NodeId,
    /// How long the server may take to send a line.
    silence_timeout: Duration,
    input: BytesMut,
    /// How many bytes of the input were searched and hold no end of a line.
    scanned: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> LineReader<S> {
    /// Sends the command.
    pub(crate) async fn open(socket: S, node: NodeId, silence_timeout: Duration, command: &str) -> Result<Self, Error> {
        let mut reader = Self { socket, node, silence_timeout, input: BytesMut::new(), scanned: 0 };
        match timeout(silence_timeout, reader.socket.write_all(command.as_bytes())).await {
            Ok(Ok(())) => Ok(reader),
            Ok(Err(error)) => Err(reader.lost().with_source(error)),
            Err(_) => Err(reader.silent()),
        }
    }

    /// Reads the response to the end, as statistics.
    pub(crate) async fn read_stats(mut self) -> Result<Stats, Error> {
        let mut stats = Stats::default();
        let mut size = 0;
        loop {
            let line = self.line().await?;
            size += line.len() + 1;
            if size > MAX_STATS {
                return Err(self.violated(ProtocolError::ResponseTooLong));
            }
            match parse_stat_line(&line) {
                StatLine::Stat { name, value } => stats.push(name, value),
                StatLine::End => return Ok(stats),
                StatLine::ErrorLine(line) => return Err(self.rejected(&line)),
                StatLine::Reset => return Err(self.violated(ProtocolError::UnexpectedReply)),
                // Ignored, because it cannot be mistaken for anything else.
                StatLine::Other => {}
            }
        }
    }

    /// Waits until the server confirms that its statistics are reset.
    pub(crate) async fn read_reset(mut self) -> Result<(), Error> {
        match parse_stat_line(&self.line().await?) {
            StatLine::Reset => Ok(()),
            StatLine::ErrorLine(line) => Err(self.rejected(&line)),
            StatLine::Stat { .. } | StatLine::End => Err(self.violated(ProtocolError::UnexpectedReply)),
            StatLine::Other => Err(self.violated(ProtocolError::Malformed)),
        }
    }

    /// Reads the next item of a list; `None` at its end. `has_begun` is whether an item was read before. Must not be
    /// called after the end or an error. Cancel safe.
    pub(crate) async fn entry(&mut self, has_begun: bool) -> Result<Option<MetadumpEntry>, Error> {
        let mut has_begun = has_begun;
        loop {
            match parse_dump_line(&self.line().await?).map_err(|error| self.violated(error))? {
                DumpLine::Entry(entry) => return Ok(Some(entry)),
                DumpLine::End => return Ok(None),
                DumpLine::ErrorLine(line) => return Err(self.rejected(&line)),
                DumpLine::Ok if !has_begun => has_begun = true,
                DumpLine::Ok => return Err(self.violated(ProtocolError::UnexpectedReply)),
            }
        }
    }

    /// Returns the next line without its end, whether that is `\r\n` or `\n`. Cancel safe.
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
                    let text = "closed by the server before the end of the response";
                    return Err(self.lost().with_source(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
                }
                Ok(_) => {
                    // No line of a response begins like this.
                    if let Some(error) = foreign_protocol_error(&self.input, Delivery::Unknown) {
                        return Err(error.with_node(&self.node));
                    }
                }
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
            .with_message(format!("no line within {:?}", self.silence_timeout))
    }

    fn violated(&self, reason: ProtocolError) -> Error {
        Error::new(ErrorKind::Protocol, Delivery::Unknown).with_node(&self.node).with_source(reason)
    }

    fn rejected(&self, line: &ErrorLine) -> Error {
        let delivery = if line.is_connection_limit() { Delivery::NotSent } else { Delivery::Answered };
        Rejected::Listing.error(line, delivery).with_node(&self.node)
    }
}

impl<S> fmt::Debug for LineReader<S> {
    /// Shows nothing of the input, which holds keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineReader").field("node", &self.node).finish_non_exhaustive()
    }
}
