//! Everything between "send this to that server" and its answer.
//!
//! A [`Call`] is one caller's request and the slot its answer is put in. Calls wait in a node's [`Queue`]; a
//! [`Driver`] owns one socket, takes whatever waits, writes it as one batch, and matches what comes back to the calls in
//! its `Pipeline`, which does no I/O. A call is in the queue (nothing of it was sent) or in one pipeline (it was
//! written, or soon will be), and is answered exactly once: by a reply, by its deadline, or by the end of the connection.

mod batch_window;
mod call;
mod connect;
mod deadlines;
mod driver;
mod error_line;
mod handshake;
mod line_reader;
mod pipeline;
mod queue;
#[cfg(test)]
mod tests;
mod version_probe;

pub(crate) use self::call::{Answer, Call, GetResult, ResponseFuture, unexpected_response};
pub(crate) use self::connect::dial;
pub(crate) use self::deadlines::DeadlineSweeper;
pub(crate) use self::driver::{Driver, DriverConfig, End};
pub(crate) use self::handshake::authenticate;
pub(crate) use self::line_reader::LineReader;
pub(crate) use self::queue::{Availability, Queue};
pub(crate) use self::version_probe::ProbeHistory;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// Locks a mutex whose data is sound between any two statements, so that a panic elsewhere is no reason to spread.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wake-ups gathered while locks are held and work is left, done last and outside every lock.
#[derive(Debug, Default)]
pub(crate) struct WakeList(Vec<Waker>);

impl WakeList {
    pub(crate) fn add(&mut self, waker: Option<Waker>) {
        self.0.extend(waker);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn wake_all(&mut self) {
        self.0.drain(..).for_each(Waker::wake);
    }
}

impl Drop for WakeList {
    /// Nobody is left asleep, whichever way the gatherer was left.
    fn drop(&mut self) {
        self.wake_all();
    }
}
