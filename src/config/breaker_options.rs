//! The options of the circuit breaker that each node has.

use std::time::Duration;

use super::LONGEST_WAIT;

/// The shortest window and probe delay. Shorter ones are raised to it, because a zero delay would be a busy loop.
const SHORTEST: Duration = Duration::from_millis(10);

/// When a node's circuit breaker opens, and how the client then finds out that the node is back.
///
/// Each node has a breaker of its own. While it is *closed*, the node gets its requests. While it is *open*, requests
/// for the node fail at once with [`Unavailable`](crate::ErrorKind::Unavailable) and nothing of them is sent. A
/// background *probe* finds out whether the node replies again: a `get`, in turn of a key that failed and of the key
/// `memring:probe`. No caller waits for it.
///
/// A breaker opens if a request has timed out and the server sends nothing for a whole
/// [request timeout](crate::ClientBuilder::request_timeout) while replies are pending, or by one of the options below.
/// A `version` that is not answered opens none, because some proxies never answer it. A reply closes a breaker that
/// opened because the server was silent or its connections were lost.
///
/// A proxy is one node, whatever is behind it: a key that it does not answer in time makes it a silent server. If
/// requests of a healthy server take longer than the request timeout, raise that, or disable the breaker.
///
/// | option | default | why |
/// |---|---|---|
/// | [failures](Self::failures) | 3 lost connections in a row | a server may close one connection for one request |
/// | [timeout share](Self::timeout_share) | half of at least 20 requests in 10 s | a server may be slow but not silent |
/// | [probe backoff](Self::probe_backoff) | 100 ms to 750 ms | a node that is back serves within a second |
///
/// Within a window after a breaker has closed, it opens after a single lost connection or a quarter of the requests,
/// and its probes keep their backoff.
///
/// ```
/// use std::time::Duration;
/// use memring::{BreakerOptions, Client};
///
/// let options = BreakerOptions::default().timeout_share(0.25, 50, Duration::from_secs(5));
/// let builder = Client::builder().circuit_breaker(options);
/// // Requests wait for their deadline, whatever state the server is in.
/// let without = Client::builder().circuit_breaker(BreakerOptions::disabled());
/// # let _ = (builder, without);
/// ```
#[derive(Debug, Clone)]
pub struct BreakerOptions {
    pub(crate) is_enabled: bool,
    pub(crate) failures: u32,
    pub(crate) timeout_share: f64,
    pub(crate) min_requests: u32,
    pub(crate) window: Duration,
    pub(crate) probe_min: Duration,
    pub(crate) probe_max: Duration,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self {
            is_enabled: true,
            failures: 3,
            timeout_share: 0.5,
            min_requests: 20,
            window: Duration::from_secs(10),
            probe_min: Duration::from_millis(100),
            probe_max: Duration::from_millis(750),
        }
    }
}

impl BreakerOptions {
    /// Returns options with which no breaker ever opens. Nodes that cannot be dialed still fail requests at once.
    #[must_use]
    pub fn disabled() -> Self {
        Self { is_enabled: false, ..Self::default() }
    }

    /// Sets how many connections in a row must be lost with requests in flight, and without any reply in between.
    ///
    /// Raised to 1.
    #[must_use]
    pub fn failures(mut self, failures: u32) -> Self {
        self.failures = failures.max(1);
        self
    }

    /// Sets the share of timeouts that opens the breaker, of at least so many requests sent within a window.
    ///
    /// The share is clamped to 0 to 1. The window is raised to 10 ms. Such a breaker closes only when a probe is
    /// answered within the request timeout.
    #[must_use]
    pub fn timeout_share(mut self, share: f64, min_requests: u32, window: Duration) -> Self {
        self.timeout_share = if share.is_nan() { 1.0 } else { share.clamp(0.0, 1.0) };
        self.min_requests = min_requests.max(1);
        self.window = window.clamp(SHORTEST, LONGEST_WAIT);
        self
    }

    /// Sets the delay before the first probe and the longest delay between probes.
    ///
    /// The delay doubles after each probe that fails, and is shortened by a random jitter of up to half. `min` is
    /// raised to 10 ms, and `max` to `min`.
    #[must_use]
    pub fn probe_backoff(mut self, min: Duration, max: Duration) -> Self {
        self.probe_min = min.clamp(SHORTEST, LONGEST_WAIT);
        self.probe_max = max.clamp(self.probe_min, LONGEST_WAIT);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_brought_into_it() {
        let options = BreakerOptions::default()
            .failures(0)
            .timeout_share(f64::NAN, 0, Duration::ZERO)
            .probe_backoff(Duration::MAX, Duration::ZERO);
        assert_eq!((options.failures, options.min_requests, options.window), (1, 1, SHORTEST));
        assert!((options.timeout_share - 1.0).abs() < f64::EPSILON);
        assert_eq!((options.probe_min, options.probe_max), (LONGEST_WAIT, LONGEST_WAIT));
    }
}
