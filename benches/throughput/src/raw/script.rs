//! What one connection of the ceiling sends, over and over, and how long each reply is.

use std::sync::Arc;

use crate::data::Dataset;
use crate::workload::Op;

/// Enough of them that their keys are all over the server's memory.
const REQUESTS: usize = 10_000;

/// Of large values so many bytes will do.
const LONGEST: usize = 4 << 20;

/// Requests, encoded; after the last comes the first again.
#[derive(Debug)]
pub(super) struct Script {
    bytes: Vec<u8>,
    requests: Vec<Exchange>,
    pub(super) keys_per_request: usize,
}

#[derive(Debug, Clone, Copy)]
struct Exchange {
    request: usize,
    reply: usize,
}

impl Script {
    /// For one of so many nodes, which has its share of the keys, as it would with any client; so many keys to a request.
    pub(super) fn new(data: &Dataset, op: Op, keys: usize, (node, nodes): (usize, usize)) -> Self {
        let own: Vec<usize> = if op.keys() > 1 {
            (node..data.keys.len()).step_by(nodes).collect()
        } else {
            data.picks.iter().map(|pick| pick.item as usize).filter(|item| item % nodes == node).collect()
        };
        let mut rng = fastrand::Rng::with_seed(node as u64);
        let mut script = Self { bytes: Vec::new(), requests: Vec::new(), keys_per_request: keys };
        for number in 0..REQUESTS {
            let from = rng.usize(..own.len());
            let asked: Vec<usize> = (from..from + keys).map(|at| own[at % own.len()]).collect();
            script.push(data, op, number, &asked);
            if script.bytes.len() > LONGEST {
                break;
            }
        }
        // Twice, so that what is sent at once is in one piece, though it be the last and the first.
        if script.bytes.len() <= LONGEST / 4 {
            script.bytes.extend_from_within(..);
        }
        script
    }

    fn push(&mut self, data: &Dataset, op: Op, number: usize, asked: &[usize]) {
        let (begin, size, at) = (self.bytes.len(), data.size, asked[0]);
        let reply = match op {
            Op::Set | Op::SetMany => self.set(data, at),
            Op::Mixed if number.is_multiple_of(10) => self.set(data, at),
            Op::Miss => {
                self.bytes.extend_from_slice(format!("mg {} v\r\n", data.missing[at]).as_bytes());
                "EN\r\n".len()
            }
            _ if asked.len() == 1 => {
                self.bytes.extend_from_slice(format!("mg {} v\r\n", data.keys[at]).as_bytes());
                format!("VA {size}\r\n").len() + size + "\r\n".len()
            }
            _ => {
                let keys: Vec<&str> = asked.iter().map(|&at| data.keys[at].as_str()).collect();
                self.bytes.extend_from_slice(format!("get {}\r\n", keys.join(" ")).as_bytes());
                let head = |key| format!("VALUE {key} 0 {size}\r\n").len();
                keys.iter().map(|key| head(key) + size + "\r\n".len()).sum::<usize>() + "END\r\n".len()
            }
        };
        self.requests.push(Exchange { request: self.bytes.len() - begin, reply });
    }

    fn set(&mut self, data: &Dataset, at: usize) -> usize {
        self.bytes.extend_from_slice(format!("ms {} {}\r\n", data.keys[at], data.size).as_bytes());
        self.bytes.extend_from_slice(&data.values[at]);
        self.bytes.extend_from_slice(b"\r\n");
        "HD\r\n".len()
    }
}

/// How far one connection has got.
#[derive(Debug, Clone)]
pub(super) struct Cursor {
    script: Arc<Script>,
    /// The next request to be asked, and where in the bytes the next byte to be written is.
    asking: usize,
    writing: usize,
    /// Bytes of what was asked that are not yet written.
    backlog: usize,
    /// The next reply expected, how much of it is there, and how many replies are owed.
    answering: usize,
    received: usize,
    pub(super) owed: usize,
}

impl Cursor {
    pub(super) fn new(script: Script) -> Self {
        let script = Arc::new(script);
        Self { script, asking: 0, writing: 0, backlog: 0, answering: 0, received: 0, owed: 0 }
    }

    pub(super) fn keys_per_request(&self) -> usize {
        self.script.keys_per_request
    }

    /// Puts so many more requests up for writing.
    pub(super) fn ask(&mut self, requests: usize) {
        for _ in 0..requests {
            self.backlog += self.script.requests[self.asking].request;
            self.asking = (self.asking + 1) % self.script.requests.len();
        }
        self.owed += requests;
    }

    /// What is to be written next; empty if nothing is.
    pub(super) fn unwritten(&self) -> &[u8] {
        let rest = &self.script.bytes[self.writing..];
        &rest[..self.backlog.min(rest.len())]
    }

    pub(super) fn wrote(&mut self, bytes: usize) {
        self.backlog -= bytes;
        self.writing = (self.writing + bytes) % self.script.bytes.len();
    }

    /// How many requests these bytes have answered; `None` if there are more than were asked for.
    pub(super) fn read(&mut self, bytes: usize) -> Option<usize> {
        self.received += bytes;
        let mut answered = 0;
        while self.owed > 0 && self.received >= self.script.requests[self.answering].reply {
            self.received -= self.script.requests[self.answering].reply;
            self.answering = (self.answering + 1) % self.script.requests.len();
            self.owed -= 1;
            answered += 1;
        }
        (self.owed > 0 || self.received == 0).then_some(answered)
    }
}

#[cfg(test)]
mod tests {
    use super::{Cursor, Script};
    use crate::data::Dataset;
    use crate::key_choice::KeyChoice;
    use crate::workload::Op;

    #[test]
    fn what_is_written_is_what_was_asked() {
        let data = Dataset::new(100, KeyChoice::default());
        let mut cursor = Cursor::new(Script::new(&data, Op::Set, 1, (0, 4)));
        let mut written = Vec::new();
        for _ in 0..50 {
            cursor.ask(70);
            while !cursor.unwritten().is_empty() {
                let some = cursor.unwritten().len().min(1_000);
                written.extend_from_slice(&cursor.unwritten()[..some]);
                cursor.wrote(some);
            }
        }
        assert_eq!(written.len(), 50 * 70 * ("ms 0000100:000000000 100\r\n".len() + 100 + 2));
        assert!(written.chunks(128).all(|request| request.starts_with(b"ms 0000100:") && request.ends_with(b"\r\n")));
    }

    #[test]
    fn replies_are_counted_by_their_length() {
        let data = Dataset::new(100, KeyChoice::default());
        let mut cursor = Cursor::new(Script::new(&data, Op::Get, 1, (0, 4)));
        cursor.ask(3);
        let reply = "VA 100\r\n".len() + 100 + 2;
        assert_eq!(cursor.read(reply - 1), Some(0));
        assert_eq!(cursor.read(reply + 1), Some(2));
        assert_eq!(cursor.read(reply), Some(1));
        assert_eq!(cursor.read(1), None);
    }
}
