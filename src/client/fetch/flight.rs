//! Single-flight: one computation per key in this process. The first caller leads, the others follow and get its
//! result.
//!
//! If a leader fails or is dropped, one of its followers leads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, OnceCell};

use super::Fetched;
use crate::connection::lock;
use crate::operations::Lease;

/// The flights in progress, by key.
#[derive(Debug, Default)]
pub(in crate::client) struct Flights {
    by_key: Mutex<HashMap<Box<[u8]>, Arc<Flight>>>,
}

/// What the callers that wait for one value share.
#[derive(Debug, Default)]
pub(super) struct Flight {
    pub(super) result: OnceCell<FlightResult>,
    /// How many callers hold a guard. Changed only under the lock of the list: the reference count is no substitute,
    /// because two callers that leave at once would each see the other's reference.
    callers: AtomicUsize,
    /// No caller may join any more.
    is_closed: AtomicBool,
    /// The value is computed without a lease, and may be outdated when it is done.
    is_leaseless: AtomicBool,
    /// The lease, won by any of the callers.
    lease: Mutex<Option<Lease>>,
    lease_won: Notify,
}

/// What a leader has for its followers.
#[derive(Debug)]
pub(super) enum FlightResult {
    Value(Fetched),
    /// The cache has a value again. Followers read it themselves: they may have seen a newer one than the leader.
    LookAgain,
}

impl Flights {
    /// Joins the flight of a key, or opens one. For a caller that has just seen that the cache has no value, or, if not
    /// `has_seen`, that the cache cannot be read. One that has seen may come after an invalidation, and must not get a
    /// value whose computation started before that.
    pub(super) fn join(&self, key: &[u8], has_seen: bool) -> FlightGuard<'_> {
        let mut flights = lock(&self.by_key);
        let flight = match flights.get(key) {
            Some(flight) if flight.can_be_joined(has_seen) => Arc::clone(flight),
            _ => {
                let flight: Arc<Flight> = Arc::default();
                flights.insert(key.into(), Arc::clone(&flight));
                flight
            }
        };
        flight.callers.fetch_add(1, Ordering::Relaxed);
        FlightGuard { flights: self, key: key.into(), flight }
    }

    /// Has later callers not join the flight of a key: its value is computed from before a change.
    pub(in crate::client) fn forget(&self, key: &[u8]) {
        lock(&self.by_key).remove(key);
    }
}

impl Flight {
    /// Closes the flight. Called before a value is stored: a caller that looks after that must not get the value from
    /// here, because it may have been invalidated in between.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Called before a value is computed without a lease.
    pub(super) fn mark_leaseless(&self) {
        self.is_leaseless.store(true, Ordering::Release);
    }

    fn can_be_joined(&self, has_seen: bool) -> bool {
        let is_outdated = has_seen && self.is_leaseless.load(Ordering::Acquire);
        !is_outdated && !self.is_closed.load(Ordering::Acquire)
    }

    pub(super) fn deposit(&self, lease: Lease) {
        *lock(&self.lease) = Some(lease);
        self.lease_won.notify_one();
    }

    pub(super) fn take_lease(&self) -> Option<Lease> {
        lock(&self.lease).take()
    }

    /// Waits until a caller has deposited a lease. May return early.
    pub(super) async fn lease_won(&self) {
        self.lease_won.notified().await;
    }
}

/// Keeps a caller in a flight. The last guard dropped removes the flight from the list.
#[derive(Debug)]
pub(super) struct FlightGuard<'a> {
    flights: &'a Flights,
    key: Box<[u8]>,
    flight: Arc<Flight>,
}

impl FlightGuard<'_> {
    pub(super) fn flight(&self) -> &Flight {
        &self.flight
    }
}

impl Drop for FlightGuard<'_> {
    fn drop(&mut self) {
        let mut flights = lock(&self.flights.by_key);
        let is_last = self.flight.callers.fetch_sub(1, Ordering::Relaxed) == 1;
        let is_over = is_last || self.flight.is_closed.load(Ordering::Acquire);
        if is_over && flights.get(&self.key).is_some_and(|known| Arc::ptr_eq(known, &self.flight)) {
            flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn the_last_caller_to_leave_removes_the_flight() {
        let (flights, barrier) = (Flights::default(), Barrier::new(2));
        let join_and_leave = || {
            for round in 0..20_000_u32 {
                let guard = flights.join(&round.to_be_bytes(), true);
                // Both are in the flight, and leave it at the same time.
                barrier.wait();
                drop(guard);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(join_and_leave);
            scope.spawn(join_and_leave);
        });
        assert_eq!(lock(&flights.by_key).len(), 0);
    }
}
