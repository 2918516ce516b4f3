//! From a queued request to its response.
//!
//! A [`Call`](call::Call) is one caller's request and the slot for its response. Calls wait in a node's [`Queue`]. A
//! [`Driver`] owns one socket: it takes the pending calls, writes them as one batch, and matches the replies to the
//! calls in its `Pipeline`, which does no I/O. A call is in the queue (nothing of it was sent) or in one pipeline (it
//! was written, or is about to be). It gets exactly one response: from a reply, its deadline, or the end of the
//! connection.

mod batch_window;
mod call;
mod call_pool;
mod caller;
mod connect;
mod deadlines;
mod driver;
mod error_line;
mod handshake;
#[cfg(memring_internals)]
pub mod internals;
mod line_reader;
mod new_call;
mod observer;
mod pipeline;
mod queue;
mod response;
mod response_future;
mod suspect_keys;
#[cfg(test)]
mod tests;
mod version_probe;

pub(crate) use self::call::GetForm;
pub(crate) use self::connect::dial;
pub(crate) use self::deadlines::DeadlineSweeper;
pub(crate) use self::driver::{Driver, DriverConfig, End, NodeMemory};
pub(crate) use self::handshake::authenticate;
pub(crate) use self::line_reader::LineReader;
pub(crate) use self::new_call::NewCall;
pub(crate) use self::observer::Observation;
pub(crate) use self::queue::{CloseReason, PushError, Queue};
pub(crate) use self::response::{GetResult, Response};
pub(crate) use self::response_future::{RejectedCall, ResponseFuture, TimedResponse};

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// Locks a mutex whose data is consistent between any two statements, so that a panic of another thread does not
/// spread.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakers collected while locks are held, to be woken after all other work and outside every lock.
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
    /// Wakes what is left, so that an early return or a panic loses no wake-up.
    fn drop(&mut self) {
        self.wake_all();
    }
}
