//! The circuit breaker of a node: a pure state machine that is given the time and what was observed.
//!
//! It knows no queue, task or clock. `health.rs` applies it, `prober.rs` sends the probes that it plans.

#[cfg(test)]
mod tests;
mod timeout_window;

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use self::timeout_window::TimeoutWindow;
use super::backoff::Backoff;
use crate::config::BreakerOptions;
use crate::connection::Observation;
use crate::key::Key;

#[derive(Debug)]
pub(super) struct Breaker {
    options: BreakerOptions,
    request_timeout: Duration,
    state: State,
    /// Connections lost since the last reply.
    losses: u32,
    window: TimeoutWindow,
    probe_backoff: Backoff,
    /// When the breaker closed last.
    closed_at: Option<Instant>,
    /// The last key whose reply was pending when the breaker opened.
    key: Option<Key>,
    /// The next probe has this key. Every other probe has a reserved key, because this one may always be slow: its
    /// value is large, or a proxy gets it from a slow server.
    probes_with_key: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        cause: Cause,
        since: Instant,
        probe_at: Instant,
    },
    /// A probe is queued or in flight. Requests still fail.
    HalfOpen {
        cause: Cause,
        since: Instant,
        probed_at: Instant,
    },
}

/// Why a breaker opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Nothing was received for a request timeout while replies were pending.
    Silent,
    /// Connections were lost in a row.
    Lost,
    /// Too many requests have timed out, although the server replies.
    Slow,
}

/// What a transition is, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Opened(Cause),
    /// The breaker stays open for another reason.
    Reclassified(Cause),
    Closed {
        after: Duration,
    },
}

impl Breaker {
    pub(super) fn new(options: BreakerOptions, request_timeout: Duration, now: Instant) -> Self {
        Self {
            request_timeout,
            state: State::Closed,
            losses: 0,
            window: TimeoutWindow::new(options.window, now),
            probe_backoff: Backoff::new(options.probe_min, options.probe_max),
            closed_at: None,
            key: None,
            probes_with_key: true,
            options,
        }
    }

    /// Takes what a connection has noticed.
    pub(super) fn observe(&mut self, seen: Observation, now: Instant) -> Option<Change> {
        if !self.options.is_enabled {
            return None;
        }
        let mut change = None;
        self.window.add(now, seen.sent, seen.timeouts);
        if seen.has_replied {
            self.losses = 0;
            // A server that is slow replies, too: only the time that a probe takes shows whether it still is.
            if self.cause().is_some_and(|cause| cause != Cause::Slow) {
                change = if self.is_slow(now) { self.suspect_slowness(now) } else { self.close(now) };
            }
        }
        // While it is open, the pending key may be that of a probe.
        if !self.is_open() {
            self.key = seen.key.or_else(|| self.key.take());
        }
        self.losses = self.losses.saturating_add(seen.is_lost.into());
        self.cause_to_open(seen.is_silent, seen.timeouts, now).and_then(|cause| self.open(cause, now)).or(change)
    }

    fn cause_to_open(&self, is_silent: bool, timeouts: u64, now: Instant) -> Option<Cause> {
        // A node that fails again soon after it came back opens faster.
        let failures = if self.is_on_trial(now) { 1 } else { self.options.failures };
        if is_silent {
            Some(Cause::Silent)
        } else if timeouts > 0 && self.is_slow(now) {
            Some(Cause::Slow)
        } else {
            (self.losses >= failures).then_some(Cause::Lost)
        }
    }

    fn is_slow(&self, now: Instant) -> bool {
        let min_requests = self.options.min_requests;
        let min_requests = if self.is_on_trial(now) { (min_requests / 4).max(1) } else { min_requests };
        self.window.exceeds(self.options.timeout_share, min_requests)
    }

    /// The server lives, but may be too slow: a probe is due at once, and must be answered in time.
    fn suspect_slowness(&mut self, now: Instant) -> Option<Change> {
        let (State::Open { since, .. } | State::HalfOpen { since, .. }) = self.state else { return None };
        self.state = State::Open { cause: Cause::Slow, since, probe_at: now };
        Some(Change::Reclassified(Cause::Slow))
    }

    fn is_on_trial(&self, now: Instant) -> bool {
        self.closed_at.is_some_and(|at| now.saturating_duration_since(at) < self.options.window)
    }

    fn open(&mut self, cause: Cause, now: Instant) -> Option<Change> {
        if self.is_open() {
            return None;
        }
        // A node that fails again soon after it came back is probed more slowly.
        if !self.is_on_trial(now) {
            self.probe_backoff.reset();
        }
        self.state = State::Open { cause, since: now, probe_at: now + self.probe_backoff.next_delay() };
        self.probes_with_key = true;
        Some(Change::Opened(cause))
    }

    fn close(&mut self, now: Instant) -> Option<Change> {
        let (State::Open { since, .. } | State::HalfOpen { since, .. }) = self.state else { return None };
        (self.state, self.losses, self.closed_at) = (State::Closed, 0, Some(now));
        Some(Change::Closed { after: now.saturating_duration_since(since) })
    }

    /// When to send the next probe, if no probe is in flight.
    pub(super) fn probe_at(&self) -> Option<Instant> {
        match self.state {
            State::Open { probe_at, .. } => Some(probe_at),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    /// A connection to another process may be up: its first probe is due at once.
    pub(super) fn hasten_probe(&mut self, now: Instant) {
        if let State::Open { probe_at, .. } = &mut self.state {
            *probe_at = now;
        }
    }

    /// Returns the key to probe with: one of the node's own, if any is known. `None` is the reserved key.
    pub(super) fn probe_started(&mut self, now: Instant) -> Option<Key> {
        if let State::Open { cause, since, .. } = self.state {
            self.state = State::HalfOpen { cause, since, probed_at: now };
        }
        self.probes_with_key = !self.probes_with_key;
        if self.probes_with_key { None } else { self.key.clone() }
    }

    /// Takes the outcome of a probe: whether the server has replied to it.
    pub(super) fn probe_ended(&mut self, has_replied: bool, now: Instant) -> Option<Change> {
        let State::HalfOpen { cause, since, probed_at } = self.state else { return None };
        let is_late = now.saturating_duration_since(probed_at) > self.request_timeout;
        if has_replied && !(cause == Cause::Slow && is_late) {
            self.window.clear(now);
            return self.close(now);
        }
        self.state = State::Open { cause, since, probe_at: now + self.probe_backoff.next_delay() };
        None
    }

    pub(super) fn is_open(&self) -> bool {
        self.state != State::Closed
    }

    pub(super) fn is_half_open(&self) -> bool {
        matches!(self.state, State::HalfOpen { .. })
    }

    /// Why the breaker is open.
    pub(super) fn cause(&self) -> Option<Cause> {
        match self.state {
            State::Closed => None,
            State::Open { cause, .. } | State::HalfOpen { cause, .. } => Some(cause),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silent => "the server has sent nothing for a request timeout",
            Self::Lost => "connections were lost in a row without a reply",
            Self::Slow => "too many requests have timed out",
        })
    }
}
