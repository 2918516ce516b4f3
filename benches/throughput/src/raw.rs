//! The ceiling: requests encoded beforehand, replies counted by their length and never looked at. What a client adds to
//! this is the price of the client.

mod epoll;
mod script;
mod tokio;

use std::time::{Duration, Instant};

pub(crate) use self::epoll::Epoll;
use self::script::{Cursor, Script};
pub(crate) use self::tokio::Tokio;
use crate::workload::{Op, Until, Work};

/// How many keys the ceiling of `get_many` asks for in one line.
const LINE: usize = 25;

/// How long a server may say nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// What goes over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A meta command for each key; a `get_many` by lines of 25 keys.
    Meta,
    /// The same, but a window of single gets is one line `get k1 k2 ..` per connection.
    Lines,
}

/// What each connection does, with its share of the window, in requests.
fn plan(work: &Work, form: Form, connections: usize) -> Vec<(Cursor, usize)> {
    let keys = match (work.op, form) {
        (Op::GetMany, _) => LINE,
        (Op::Get, Form::Lines) => (work.window / connections).max(1),
        _ => 1,
    };
    let requests = work.window * work.op.keys() / keys;
    let share = |at| requests / connections + usize::from(at < requests % connections);
    let cursor = |at| Cursor::new(Script::new(&work.data, work.op, keys, (at, connections)));
    (0..connections).map(|at| (cursor(at), share(at))).collect()
}

/// How much more may be asked.
#[derive(Debug)]
struct Budget {
    end: Option<Instant>,
    left: usize,
}

impl Budget {
    /// In requests of so many keys.
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
