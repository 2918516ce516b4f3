//! When to poll the source next. Pure: every method takes the time.

use std::time::Duration;

use tokio::time::Instant;

use crate::discovery::DiscoveryOptions;
use crate::discovery::time::{FOREVER, later_by};

/// The shortest time between two polls, unless `min_interval` is shorter.
pub(super) const SPACING: Duration = Duration::from_secs(1);

/// The time of the next poll, derived from the outcomes of the polls so far. One method per event.
#[derive(Debug)]
pub(super) struct Schedule {
    min_interval: Duration,
    max_interval: Duration,
    spacing: Duration,
    rng: fastrand::Rng,
    /// Whether the first interval was shortened at random, so that clients which start together spread out.
    start_jittered: bool,
    /// Failed polls in a row.
    failures: i32,
    /// Empty answers since the last listing. Failed polls between them do not reset the count.
    empty_answers: u32,
    early_poll: EarlyPoll,
    last_poll: Option<Instant>,
    /// `None` means never.
    next_poll: Option<Instant>,
}

/// Whether nodes may bring the next poll forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EarlyPoll {
    /// Nodes may; none has.
    Allowed,
    /// A node has: the next poll is ahead of its regular time.
    Requested,
    /// Nodes may not, because the last early poll found nothing new, or because the source fails and requests must not
    /// bypass the backoff. Lasts until the next poll.
    Suppressed,
}

impl EarlyPoll {
    fn after_answer(self, has_news: bool) -> Self {
        if self == Self::Requested && !has_news { Self::Suppressed } else { Self::Allowed }
    }
}

impl Schedule {
    /// Schedules the first poll at once.
    pub(super) fn new(options: &DiscoveryOptions, now: Instant) -> Self {
        Self {
            min_interval: options.min_interval,
            max_interval: options.max_interval,
            spacing: SPACING.min(options.min_interval),
            rng: options.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed),
            start_jittered: false,
            failures: 0,
            empty_answers: 0,
            early_poll: EarlyPoll::Allowed,
            last_poll: None,
            next_poll: Some(now),
        }
    }

    pub(super) fn next_poll(&self) -> Option<Instant> {
        self.next_poll
    }

    /// A node may have moved or left: brings the next poll forward, to now or to the end of the spacing after the last
    /// poll.
    pub(super) fn on_request(&mut self, now: Instant) {
        let Some(next_poll) = self.next_poll else { return };
        if self.early_poll == EarlyPoll::Suppressed {
            return;
        }
        let earliest = self.earliest(now);
        if earliest < next_poll {
            self.next_poll = Some(earliest);
            self.early_poll = EarlyPoll::Requested;
        }
    }

    /// The source or the application knows of a change: polls as soon as the spacing allows, whatever the outcomes.
    pub(super) fn on_demand(&mut self, now: Instant) {
        self.poll_by(self.earliest(now));
    }

    /// The source may not report its changes: polls at the longest interval, also if it would never be polled again.
    pub(super) fn on_lost_reports(&mut self, now: Instant) {
        self.poll_by(later_by(now, self.max_interval));
    }

    fn poll_by(&mut self, time: Instant) {
        self.next_poll = Some(self.next_poll.map_or(time, |due| due.min(time)));
    }

    /// An answer listed nodes: follow its TTL, within bounds.
    pub(super) fn on_listing(&mut self, now: Instant, ttl: Option<Duration>, has_news: bool, holds_removal: bool) {
        (self.failures, self.empty_answers) = (0, 0);
        self.early_poll = self.early_poll.after_answer(has_news);

        let ttl = ttl.unwrap_or_default();
        let interval = if holds_removal {
            self.min_interval
        } else if self.early_poll == EarlyPoll::Suppressed && !ttl.is_zero() {
            // The node that requested the poll expects a change. A cache may hide it: look again when that expires.
            ttl.clamp(self.spacing, self.max_interval)
        } else {
            ttl.clamp(self.min_interval, self.max_interval)
        };
        let mut wait = self.with_jitter(interval);
        if !self.start_jittered {
            self.start_jittered = true;
            wait = wait.mul_f64(0.5 + self.rng.f64() / 2.0);
        }
        self.poll_after(now, wait.max(self.spacing));
    }

    /// An answer listed nothing: poll quickly at first, because a cold start looks the same.
    pub(super) fn on_empty(&mut self, now: Instant, has_news: bool) {
        self.failures = 0;
        self.empty_answers = self.empty_answers.saturating_add(1);
        self.early_poll = self.early_poll.after_answer(has_news);
        let interval = match self.empty_answers {
            1 => self.spacing,
            2 => self.spacing * 2,
            _ => self.min_interval,
        };
        let wait = self.with_jitter(interval.min(self.min_interval));
        self.poll_after(now, wait);
    }

    /// A poll failed: back off.
    pub(super) fn on_failure(&mut self, now: Instant) {
        let backoff = self.spacing.as_secs_f64() * 1.6_f64.powi(self.failures) * (0.8 + self.rng.f64() * 0.4);
        self.failures = self.failures.saturating_add(1);
        self.early_poll = EarlyPoll::Suppressed;
        let max = self.max_interval;
        // The backoff grows without bound and may not fit a duration.
        let wait = Duration::try_from_secs_f64(backoff).unwrap_or(max).clamp(self.spacing, max);
        self.poll_after(now, wait);
    }

    /// The answer is valid until the source reports a change: poll no more.
    pub(super) fn on_final_listing(&mut self, now: Instant) {
        (self.failures, self.empty_answers) = (0, 0);
        self.early_poll = EarlyPoll::Allowed;
        self.last_poll = Some(now);
        self.next_poll = None;
    }

    /// Returns the earliest time of another poll.
    fn earliest(&self, now: Instant) -> Instant {
        self.last_poll.map_or(now, |last| later_by(last, self.spacing)).max(now)
    }

    fn poll_after(&mut self, now: Instant, wait: Duration) {
        self.last_poll = Some(now);
        self.next_poll = Some(later_by(now, wait));
    }

    /// Adds up to a tenth, and never subtracts, so that a poll comes just after a cache on the way has expired.
    fn with_jitter(&mut self, interval: Duration) -> Duration {
        let interval = interval.min(FOREVER);
        interval + (interval / 10).min(Duration::from_secs(1)).mul_f64(self.rng.f64())
    }
}
