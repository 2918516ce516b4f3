//! What a connection notices about its server's health, for the node's circuit breaker.
//!
//! A healthy connection pays a counter per batch and a flag per read: there is nothing to report.

use std::time::Duration;

use tokio::time::Instant;

use crate::key::Key;

/// What a connection has noticed since the last observation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Observation {
    /// The server has sent a reply. Reported for the first reply of a connection, and the first after a failure.
    pub(crate) has_replied: bool,
    /// The server has sent nothing for a request timeout while the reply to a call past its deadline is pending.
    pub(crate) is_silent: bool,
    /// The connection was lost while replies were pending.
    pub(crate) is_lost: bool,
    /// How many calls passed their deadline after they were written, while a batch was in flight for about a request
    /// timeout.
    pub(crate) timeouts: u64,
    /// How many calls were sent.
    pub(crate) sent: u64,
    /// A key whose reply was pending at a failure.
    pub(crate) key: Option<Key>,
}

/// Collects the next [`Observation`].
#[derive(Debug)]
pub(super) struct Observer {
    next: Observation,
    has_news: bool,
    /// The next reply is worth a report.
    reports_reply: bool,
    /// A batch that was sent: where it ends in all bytes ever encoded, and when.
    batch: (u64, Instant),
}

impl Observer {
    pub(super) fn new() -> Self {
        Self { next: Observation::default(), has_news: false, reports_reply: true, batch: (0, Instant::now()) }
    }

    #[inline]
    pub(super) fn calls_sent(&mut self, calls: usize) {
        self.next.sent += calls as u64;
    }

    /// Where the batch remembered last ends. The next may be remembered once this one is answered.
    #[inline]
    pub(super) fn batch_end(&self) -> u64 {
        self.batch.0
    }

    /// Remembers a batch that ends here in all bytes ever encoded.
    #[inline]
    pub(super) fn batch_sent(&mut self, encoded: u64, now: Instant) {
        self.batch = (encoded, now);
    }

    /// Whether a batch has been in flight for most of a request timeout. A call that expires sooner had a shorter
    /// timeout, or waited in the queue for long: that says little about the server.
    pub(super) fn has_old_batch(&self, answered: u64, now: Instant, request_timeout: Duration) -> bool {
        let (encoded, sent) = self.batch;
        answered < encoded && now.saturating_duration_since(sent) >= request_timeout / 4 * 3
    }

    #[inline]
    pub(super) fn reply_received(&mut self) {
        if self.reports_reply {
            self.reports_reply = false;
            self.next.has_replied = true;
            self.has_news = true;
        }
    }

    pub(super) fn calls_expired(&mut self, calls: u64) {
        if calls > 0 {
            self.next.timeouts += calls;
            self.failed();
        }
    }

    pub(super) fn server_is_silent(&mut self, key: Option<Key>) {
        self.next.is_silent = true;
        self.next.key = key;
        self.failed();
    }

    pub(super) fn connection_lost(&mut self, key: Option<Key>) {
        self.next.is_lost = true;
        self.next.key = key;
        self.failed();
    }

    fn failed(&mut self) {
        self.reports_reply = true;
        self.has_news = true;
    }

    /// Whether an observation is worth a report.
    #[inline]
    pub(super) fn has_news(&self) -> bool {
        self.has_news
    }

    /// Returns what was noticed since the last call.
    #[cold]
    pub(super) fn take(&mut self) -> Observation {
        self.has_news = false;
        std::mem::take(&mut self.next)
    }
}
