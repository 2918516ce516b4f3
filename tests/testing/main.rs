//! The feature `testing`, tested: what everything else is tested with had better be right.
//!
//! Some of these need a real memcached: `MEMCACHED=/path/to/memcached`, or else `memcached` on the `PATH`. They fail
//! without it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on had better say so where it stands")]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

mod differential;
mod dns;
mod pods;

/// Long enough for a loaded machine; nothing waits this long unless it fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long silence has to last to be taken for silence.
const SILENCE: Duration = Duration::from_millis(200);

/// Sends a command on a connection of its own and reads one reply of this length.
async fn ask(addr: SocketAddr, command: &str, reply: usize) -> io::Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    exchange(&mut stream, command, reply).await
}

async fn exchange(stream: &mut TcpStream, command: &str, reply: usize) -> io::Result<String> {
    stream.write_all(command.as_bytes()).await?;
    let mut answer = vec![0; reply];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await??;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
