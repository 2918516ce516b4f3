//! The raw ceiling: pre-encoded requests, and responses that are counted by their length without parsing. What a client
//! costs beyond this is its own cost.

mod epoll;
mod script;
mod tokio;

use std::time::{Duration, Instant};

pub(crate) use self::epoll::Epoll;
use self::script::{Cursor, Script};
pub(crate) use self::tokio::Tokio;
use crate::workload::{Op, Until, Work};

/// The number of keys in a line of the ceiling's `get_many`.
const LINE_KEYS: usize = 25;

/// How long the ceiling waits for a silent server.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(5);

/// The wire format of the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A meta command for each key, and lines of 25 keys for `get_many`.
    Meta,
    /// Like `Meta`, but a window of single gets is one line `get k1 k2 ..` per connection.
    Lines,
}

/// Returns each connection's requests and its share of the window, in requests.
fn plan(work: &Work, form: Form, connections: usize) -> Vec<(Cursor, usize)> {
    let keys = match (work.op, form) {
        (Op::GetMany, _) => LINE_KEYS,
        (Op::Get, Form::Lines) => (work.window / connections).max(1),
        _ => 1,
    };
    let requests = work.window * work.op.keys() / keys;
    let share = |at| requests / connections + usize::from(at < requests % connections);
    let cursor = |at| Cursor::new(Script::new(&work.data, work.op, keys, (at, connections)));
    (0..connections).map(|at| (cursor(at), share(at))).collect()
}

/// The number of requests that may still be sent.
#[derive(Debug)]
struct Budget {
    end: Option<Instant>,
    left: usize,
}

impl Budget {
    /// Creates a budget of requests with `keys` keys each.
    fn new(work: &Work, keys: usize) -> Self {
        match work.until {
            Until::Elapsed(time) => Self { end: Some(Instant::now() + time), left: usize::MAX },
            Until::Count(count) => Self { end: None, left: (count as usize * work.op.keys()).div_ceil(keys) },
        }
    }

    fn take(&mut self, wanted: usize, now: Instant) -> usize {
        if self.end.is_some_and(|end| now >= end) {
            self.left = 0;
        }
        let taken = wanted.min(self.left);
        self.left -= taken;
        taken
    }
}
