//! The other end of a connection, scripted.

use std::collections::HashMap;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::time::timeout;

pub(super) struct Peer {
    io: BufReader<DuplexStream>,
}

impl Peer {
    pub(super) fn new(io: DuplexStream) -> Self {
        Self { io: BufReader::new(io) }
    }

    /// Reads exactly these bytes, or fails the test.
    pub(super) async fn expect(&mut self, wire: &str) {
        let mut read = vec![0; wire.len()];
        timeout(Duration::from_secs(10), self.io.read_exact(&mut read)).await.expect("nothing arrived").unwrap();
        assert_eq!(String::from_utf8_lossy(&read), wire);
    }

    /// Reads a line, including its end.
    pub(super) async fn line(&mut self) -> String {
        let mut line = String::new();
        timeout(Duration::from_secs(10), self.io.read_line(&mut line)).await.expect("nothing arrived").unwrap();
        line
    }

    pub(super) async fn expect_nothing(&mut self) {
        let mut byte = [0];
        let read = timeout(Duration::from_millis(5), self.io.read(&mut byte)).await;
        assert!(read.is_err(), "a byte arrived: {byte:?}");
    }

    pub(super) async fn send(&mut self, wire: &str) {
        self.io.get_mut().write_all(wire.as_bytes()).await.unwrap();
    }

    /// Returns whether the other end was still open.
    pub(super) async fn try_send(&mut self, wire: &str) -> bool {
        self.io.get_mut().write_all(wire.as_bytes()).await.is_ok()
    }

    /// Answers each delete and each get as a miss until the first `version`, and nothing after it.
    pub(super) async fn block_on_version(&mut self) {
        loop {
            let mut line = String::new();
            let reply: &[u8] = match self.io.read_line(&mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) if line.starts_with("version") => b"",
                Ok(_) if line.starts_with("delete") => b"NOT_FOUND\r\n",
                Ok(_) => b"END\r\n",
            };
            if reply.is_empty() {
                break;
            }
            if self.io.get_mut().write_all(reply).await.is_err() {
                return;
            }
        }
        let _ = self.io.read_to_end(&mut Vec::new()).await;
    }

    /// Answers gets and sets one by one, and reads no further while it cannot write.
    pub(super) async fn serve_like_memcached(&mut self) {
        let mut items: HashMap<String, Vec<u8>> = HashMap::new();
        loop {
            let mut line = String::new();
            if self.io.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let mut words = line.split_whitespace();
            let mut out = Vec::new();
            match words.next() {
                Some("set") => {
                    let (key, len) =
                        (words.next().unwrap().to_owned(), words.nth(2).unwrap().parse::<usize>().unwrap());
                    let mut body = vec![0; len + 2];
                    self.io.read_exact(&mut body).await.unwrap();
                    body.truncate(len);
                    items.insert(key, body);
                    out.extend_from_slice(b"STORED\r\n");
                }
                _ => {
                    for key in words {
                        if let Some(body) = items.get(key) {
                            out.extend_from_slice(format!("VALUE {key} 0 {}\r\n", body.len()).as_bytes());
                            out.extend_from_slice(body);
                            out.extend_from_slice(b"\r\n");
                        }
                    }
                    out.extend_from_slice(b"END\r\n");
                }
            }
            if self.io.get_mut().write_all(&out).await.is_err() {
                return;
            }
        }
    }
}
