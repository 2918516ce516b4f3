//! One computing per key in this process: the first caller leads, the others wait for what it gets.
//!
//! A leader that fails or goes away is followed by another who waits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, OnceCell};

use super::Fetched;
use super::lease::Lease;
use crate::connection::lock;

/// The flights under way, by key.
#[derive(Debug, Default)]
pub(in crate::client) struct Flights(Mutex<HashMap<Box<[u8]>, Arc<Flight>>>);

/// What the callers who wait for one value share.
#[derive(Debug, Default)]
pub(super) struct Flight {
    pub(super) landed: OnceCell<FlightResult>,
    /// How many have a seat. Changed under the list's lock only: the references to a flight are given up outside of it,
    /// so that two who leave at once would each take the other for one who stays.
    seats: AtomicUsize,
    /// Nobody may join any more.
    closed: AtomicBool,
    /// The value is being computed without a lease: nothing tells whether it is outdated when it is done.
    leaseless: AtomicBool,
    /// The right to fill the item, won by any of them.
    lease: Mutex<Option<Lease>>,
    lease_won: Notify,
}

/// What a leader has for those who wait.
#[derive(Debug)]
pub(super) enum FlightResult {
    Value(Fetched),
    /// There is something in the cache again. What the leader saw of it may be older than what a follower has seen.
    LookAgain,
}

impl Flights {
    /// For a caller who has just seen that there is no value to be had, or, if not `has_seen`, that nothing can be seen.
    /// One who has seen may have come after an invalidation, and gets nothing whose computing began before that.
    pub(super) fn join(&self, key: &[u8], has_seen: bool) -> FlightGuard<'_> {
        let mut flights = lock(&self.0);
        let flight = match flights.get(key) {
            Some(flight) if flight.may_be_joined(has_seen) => Arc::clone(flight),
            _ => {
                let flight: Arc<Flight> = Arc::default();
                flights.insert(key.into(), Arc::clone(&flight));
                flight
            }
        };
        flight.seats.fetch_add(1, Ordering::Relaxed);
        FlightGuard { flights: self, key: key.into(), flight }
    }

    /// Whoever comes from now on does not join those under way: what they will get was computed before a change.
    pub(in crate::client) fn forget(&self, key: &[u8]) {
        lock(&self.0).remove(key);
    }
}

impl Flight {
    /// Before a value goes to the cache: whoever looks there after that must not be given it from here, for it may have
    /// been invalidated in between.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Before a value is computed without a lease.
    pub(super) fn mark_leaseless(&self) {
        self.leaseless.store(true, Ordering::Release);
    }

    fn may_be_joined(&self, has_seen: bool) -> bool {
        let is_no_use = self.closed.load(Ordering::Acquire) || has_seen && self.leaseless.load(Ordering::Acquire);
        !is_no_use
    }

    pub(super) fn deposit(&self, lease: Lease) {
        *lock(&self.lease) = Some(lease);
        self.lease_won.notify_one();
    }

    pub(super) fn take_lease(&self) -> Option<Lease> {
        lock(&self.lease).take()
    }

    /// Waits until somebody has brought a lease. May end early.
    pub(super) async fn lease_won(&self) {
        self.lease_won.notified().await;
    }
}

/// A caller's place in a flight. The last to leave takes the flight off the list.
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
        let mut flights = lock(&self.flights.0);
        let is_last = self.flight.seats.fetch_sub(1, Ordering::Relaxed) == 1;
        let over = is_last || self.flight.closed.load(Ordering::Acquire);
        if over && flights.get(&self.key).is_some_and(|known| Arc::ptr_eq(known, &self.flight)) {
            flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn whoever_leaves_last_takes_the_flight_off_the_list() {
        let (flights, barrier) = (Flights::default(), Barrier::new(2));
        let come_and_go = || {
            for round in 0..20_000_u32 {
                let seat = flights.join(&round.to_be_bytes(), true);
                // On the flight together, and off it at once.
                barrier.wait();
                drop(seat);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(come_and_go);
            scope.spawn(come_and_go);
        });
        assert_eq!(lock(&flights.0).len(), 0);
    }
}
