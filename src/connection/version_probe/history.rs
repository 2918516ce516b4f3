//! What the probes of a node have shown, over all of its connections.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::connection::lock;

/// How long a node that is shown to be no memcached is not probed again, and the longest time that one is not probed
/// whose probes were without result.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The longest time without a probe of a node that has stated its version before.
const LONGEST_PAUSE_OF_MEMCACHED: Duration = Duration::from_secs(1);

/// How many probes in a row may be without result before the node is left alone for a second. Each further one doubles
/// that time.
const FAILURES_BEFORE_PAUSE: u32 = 5;

/// How many probes in a row must be refused. One or two may be a restart of the server.
const REFUSALS_AS_PROOF: u32 = 3;

/// The first probe of a node may take this part of the silence timeout. Each failure doubles it. Calls that are queued
/// behind the first probe can so be sent on another connection in time, if the node is a proxy that never replies.
const FIRST_PROBE_SHARE: u32 = 8;

/// What became of a node's probes; shared by its connections.
#[derive(Debug, Default)]
pub(crate) struct ProbeHistory(Mutex<Outcomes>);

#[derive(Debug, Default)]
struct Outcomes {
    /// Probes in a row without a result.
    failures: u32,
    last_failure: Option<Instant>,
    /// How many of these the server has refused.
    refusals: u32,
    /// When the node was last shown to be no memcached, by something else than its reply.
    shown_to_be_other: Option<Instant>,
    /// The node has stated its version once, as memcached does.
    is_memcached: bool,
}

/// What a new connection is to do about the version.
pub(super) enum Prospect {
    Probe,
    /// The last probes had no result: no probe for now.
    Unknown,
    /// The node was shown to be no memcached.
    Other,
}

impl ProbeHistory {
    /// Counts a probe without a result. Connections that had sent a probe before another one failed were lost to
    /// the same cause, and all of them count as one failure. Returns whether it counts.
    pub(super) fn record_failure(&self, sent: Instant) -> bool {
        let mut outcomes = lock(&self.0);
        let counts = outcomes.last_failure.is_none_or(|last| last <= sent);
        if counts {
            outcomes.failures = outcomes.failures.saturating_add(1);
            outcomes.last_failure = Some(Instant::now());
        }
        counts
    }

    /// Counts a probe that the server has refused.
    pub(super) fn record_refusal(&self, sent: Instant) {
        if !self.record_failure(sent) {
            return;
        }
        let mut outcomes = lock(&self.0);
        outcomes.refusals = outcomes.refusals.saturating_add(1);
        if outcomes.refusals >= REFUSALS_AS_PROOF {
            outcomes.shown_to_be_other = Some(Instant::now());
        }
    }

    pub(super) fn record_other(&self) {
        lock(&self.0).shown_to_be_other = Some(Instant::now());
    }

    pub(super) fn record_reply(&self, is_memcached: bool) {
        let mut outcomes = lock(&self.0);
        *outcomes = Outcomes { is_memcached: outcomes.is_memcached || is_memcached, ..Outcomes::default() };
    }

    pub(super) fn prospect(&self) -> Prospect {
        let outcomes = lock(&self.0);
        let is_recent = |at: Option<Instant>, pause| at.is_some_and(|at| at.elapsed() < pause);
        if !outcomes.is_memcached && is_recent(outcomes.shown_to_be_other, LONGEST_PAUSE) {
            return Prospect::Other;
        }
        let longest = if outcomes.is_memcached { LONGEST_PAUSE_OF_MEMCACHED } else { LONGEST_PAUSE };
        match outcomes.failures.checked_sub(FAILURES_BEFORE_PAUSE) {
            Some(more) if is_recent(outcomes.last_failure, Duration::from_secs(1 << more.min(10)).min(longest)) => {
                Prospect::Unknown
            }
            _ => Prospect::Probe,
        }
    }

    /// Whether the node may be a proxy that does not reply to `version`.
    pub(super) fn is_doubtful(&self) -> bool {
        let outcomes = lock(&self.0);
        outcomes.failures > 0 && !outcomes.is_memcached
    }

    /// How long the next probe may take.
    pub(super) fn timeout(&self, silence_timeout: Duration) -> Duration {
        let outcomes = lock(&self.0);
        let first = silence_timeout / FIRST_PROBE_SHARE;
        if outcomes.is_memcached {
            silence_timeout
        } else {
            silence_timeout.min(first * (1 << outcomes.failures.min(8)))
        }
    }
}
