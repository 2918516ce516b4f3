//! The requests that a connection of the ceiling repeats, and the length of each response.

use std::sync::Arc;

use crate::data::Dataset;
use crate::workload::Op;

/// Enough requests for their keys to be spread over the server's memory.
const REQUESTS: usize = 10_000;

/// The limit on encoded bytes, which large values reach before the number of requests.
const MAX_BYTES: usize = 4 << 20;

/// Encoded requests, sent in a cycle.
#[derive(Debug)]
pub(super) struct Script {
    bytes: Vec<u8>,
    exchanges: Vec<Exchange>,
    pub(super) keys_per_request: usize,
}

/// A request and its response.
#[derive(Debug, Clone, Copy)]
struct Exchange {
    request_len: usize,
    response_len: usize,
}

impl Script {
    /// Encodes requests of `keys` keys each for one of `nodes` nodes, which owns an equal share of the keys.
    pub(super) fn new(data: &Dataset, op: Op, keys: usize, (node, nodes): (usize, usize)) -> Self {
        let own: Vec<usize> = if op.keys() > 1 {
            (node..data.keys.len()).step_by(nodes).collect()
        } else {
            data.picks.iter().map(|pick| pick.item as usize).filter(|item| item % nodes == node).collect()
        };
        let mut rng = fastrand::Rng::with_seed(node as u64);
        let mut script = Self { bytes: Vec::new(), exchanges: Vec::new(), keys_per_request: keys };
        for number in 0..REQUESTS {
            let from = rng.usize(..own.len());
            let items: Vec<usize> = (from..from + keys).map(|at| own[at % own.len()]).collect();
            script.push(data, op, number, &items);
            if script.bytes.len() > MAX_BYTES {
                break;
            }
        }
        // Twice, so that the end and the beginning of the cycle can be sent with one write.
        if script.bytes.len() <= MAX_BYTES / 4 {
            script.bytes.extend_from_within(..);
        }
        script
    }

    fn push(&mut self, data: &Dataset, op: Op, number: usize, items: &[usize]) {
        let (begin, size, first) = (self.bytes.len(), data.size, items[0]);
        let response_len = match op {
            Op::Set | Op::SetMany => self.push_set(data, first),
            Op::Mixed if number.is_multiple_of(10) => self.push_set(data, first),
            Op::Miss => {
                self.bytes.extend_from_slice(format!("mg {} v\r\n", data.missing[first]).as_bytes());
                "EN\r\n".len()
            }
            _ if items.len() == 1 => {
                self.bytes.extend_from_slice(format!("mg {} v\r\n", data.keys[first]).as_bytes());
                format!("VA {size}\r\n").len() + size + "\r\n".len()
            }
            _ => {
                let keys: Vec<&str> = items.iter().map(|&item| data.keys[item].as_str()).collect();
                self.bytes.extend_from_slice(format!("get {}\r\n", keys.join(" ")).as_bytes());
                let head = |key| format!("VALUE {key} 0 {size}\r\n").len();
                keys.iter().map(|key| head(key) + size + "\r\n".len()).sum::<usize>() + "END\r\n".len()
            }
        };
        self.exchanges.push(Exchange { request_len: self.bytes.len() - begin, response_len });
    }

    /// Returns the length of the response.
    fn push_set(&mut self, data: &Dataset, item: usize) -> usize {
        self.bytes.extend_from_slice(format!("ms {} {}\r\n", data.keys[item], data.size).as_bytes());
        self.bytes.extend_from_slice(&data.values[item]);
        self.bytes.extend_from_slice(b"\r\n");
        "HD\r\n".len()
    }
}

/// A connection's position in its script.
#[derive(Debug, Clone)]
pub(super) struct Cursor {
    script: Arc<Script>,
    /// The index of the next request.
    next_request: usize,
    /// The offset of the next byte to write.
    write_offset: usize,
    /// The number of requested bytes that are not yet written.
    unwritten_bytes: usize,
    /// The index of the next response.
    next_response: usize,
    /// The number of bytes received of the next response.
    received: usize,
    /// The number of requests without a response.
    pub(super) in_flight: usize,
}

impl Cursor {
    pub(super) fn new(script: Script) -> Self {
        let script = Arc::new(script);
        Self {
            script,
            next_request: 0,
            write_offset: 0,
            unwritten_bytes: 0,
            next_response: 0,
            received: 0,
            in_flight: 0,
        }
    }

    pub(super) fn keys_per_request(&self) -> usize {
        self.script.keys_per_request
    }

    /// Adds requests to the bytes to write.
    pub(super) fn request(&mut self, requests: usize) {
        for _ in 0..requests {
            self.unwritten_bytes += self.script.exchanges[self.next_request].request_len;
            self.next_request = (self.next_request + 1) % self.script.exchanges.len();
        }
        self.in_flight += requests;
    }

    /// Returns the next bytes to write, or none if all requests are written.
    pub(super) fn unwritten(&self) -> &[u8] {
        let rest = &self.script.bytes[self.write_offset..];
        &rest[..self.unwritten_bytes.min(rest.len())]
    }

    /// Records that bytes were written.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.unwritten_bytes -= bytes;
        self.write_offset = (self.write_offset + bytes) % self.script.bytes.len();
    }

    /// Records that bytes were received. Returns the number of responses that they complete, or `None` if the server
    /// sent more than was requested.
    pub(super) fn receive(&mut self, bytes: usize) -> Option<usize> {
        self.received += bytes;
        let mut completed = 0;
        while self.in_flight > 0 && self.received >= self.script.exchanges[self.next_response].response_len {
            self.received -= self.script.exchanges[self.next_response].response_len;
            self.next_response = (self.next_response + 1) % self.script.exchanges.len();
            self.in_flight -= 1;
            completed += 1;
        }
        (self.in_flight > 0 || self.received == 0).then_some(completed)
    }
}

#[cfg(test)]
mod tests {
    use super::{Cursor, Script};
    use crate::data::Dataset;
    use crate::key_choice::KeyChoice;
    use crate::workload::Op;

    #[test]
    fn the_cycle_writes_whole_requests() {
        let data = Dataset::new(100, KeyChoice::default());
        let mut cursor = Cursor::new(Script::new(&data, Op::Set, 1, (0, 4)));
        let mut written = Vec::new();
        for _ in 0..50 {
            cursor.request(70);
            while !cursor.unwritten().is_empty() {
                let bytes = cursor.unwritten().len().min(1_000);
                written.extend_from_slice(&cursor.unwritten()[..bytes]);
                cursor.advance(bytes);
            }
        }
        assert_eq!(written.len(), 50 * 70 * ("ms 0000100:000000000 100\r\n".len() + 100 + 2));
        assert!(written.chunks(128).all(|request| request.starts_with(b"ms 0000100:") && request.ends_with(b"\r\n")));
    }

    #[test]
    fn responses_are_counted_by_their_length() {
        let data = Dataset::new(100, KeyChoice::default());
        let mut cursor = Cursor::new(Script::new(&data, Op::Get, 1, (0, 4)));
        cursor.request(3);
        let response_len = "VA 100\r\n".len() + 100 + 2;
        assert_eq!(cursor.receive(response_len - 1), Some(0));
        assert_eq!(cursor.receive(response_len + 1), Some(2));
        assert_eq!(cursor.receive(response_len), Some(1));
        assert_eq!(cursor.receive(1), None);
    }
}
