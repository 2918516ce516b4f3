//! Tests of the feature `testing`, on which the other tests rely.
//!
//! Some of them need a real memcached and fail without it. The environment variable `MEMCACHED` names the program;
//! otherwise it is `memcached` on the `PATH`.

#![expect(clippy::unwrap_used, reason = "a test fails with a panic")]

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

mod differential;
mod dns;
mod pods;
mod random_commands;

/// The longest a test waits for a reply or a condition: enough for a loaded machine.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a test waits for a reply that must not arrive.
const NO_REPLY_WAIT: Duration = Duration::from_millis(200);

/// Sends a command on a new connection and reads a reply of the given length.
async fn request(addr: SocketAddr, command: &str, reply_len: usize) -> io::Result<String> {
    let mut stream = TcpStream::connect(addr).await?;
    exchange(&mut stream, command, reply_len).await
}

/// Sends a command on an open connection and reads a reply of the given length.
async fn exchange(stream: &mut TcpStream, command: &str, reply_len: usize) -> io::Result<String> {
    stream.write_all(command.as_bytes()).await?;
    let mut reply = vec![0; reply_len];
    timeout(TEST_TIMEOUT, stream.read_exact(&mut reply)).await??;
    Ok(String::from_utf8_lossy(&reply).into_owned())
}
