//! Everything between "send this to that server" and its answer.
//!
//! A [`Call`] is one caller's request and the slot its answer is put in. Calls wait in a node's [`Queue`]; a
//! [`Driver`] owns one socket, takes whatever waits, writes it as one batch, and matches what comes back to the calls in
//! its `Pipeline`, which does no I/O. A call is in the queue (nothing of it was sent) or in one pipeline (it was
//! written, or soon will be), and is answered exactly once: by a reply, by its deadline, or by the end of the connection.

mod call;
mod connect;
mod driver;
mod handshake;
mod inquiry;
mod link;
mod pipeline;
mod queue;
mod stream;
#[cfg(test)]
mod tests;

pub(crate) use self::call::{Answer, Call, Lookup, Ticket, misfit};
pub(crate) use self::connect::dial;
pub(crate) use self::driver::{Driver, End};
pub(crate) use self::handshake::authenticate;
pub(crate) use self::inquiry::Inquiries;
pub(crate) use self::queue::{Queue, Sweeper};
pub(crate) use self::stream::Stream;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// Locks a mutex whose data is sound between any two statements, so that a panic elsewhere is no reason to spread.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wake-ups gathered while locks are held and work is left, done last and outside every lock.
#[derive(Debug, Default)]
pub(crate) struct Wakes(Vec<Waker>);

impl Wakes {
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

impl Drop for Wakes {
    /// Nobody is left asleep, whichever way the gatherer was left.
    fn drop(&mut self) {
        self.wake_all();
    }
}
