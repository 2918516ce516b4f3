//! Delays between dials.

use std::time::Duration;

/// Doubles the delay after each failure, up to a limit, with jitter so that many clients do not dial at once.
#[derive(Debug)]
pub(super) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
    attempts: u32,
}

impl Backoff {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min, attempts: 0 }
    }

    /// Starts over: the next delay is the shortest.
    pub(super) fn reset(&mut self) {
        (self.next, self.attempts) = (self.min, 0);
    }

    /// Returns the delay before the next dial: between half and all of the current one.
    pub(super) fn next_delay(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(self.max);
        self.attempts = self.attempts.saturating_add(1);
        delay.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// The longest that the next delay may be.
    pub(super) fn longest_next_delay(&self) -> Duration {
        self.next
    }

    /// How many delays were returned since the last [`reset`](Self::reset).
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit_until_a_reset() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(300));
        for (attempt, full_ms) in [(1, 50), (2, 100), (3, 200), (4, 300), (5, 300)] {
            let full = Duration::from_millis(full_ms);
            let delay = backoff.next_delay();
            assert!(full / 2 <= delay && delay <= full, "{delay:?} at attempt {attempt}");
            assert_eq!(backoff.attempts(), attempt);
        }
        backoff.reset();
        assert_eq!(backoff.attempts(), 0);
        assert!(backoff.next_delay() <= Duration::from_millis(50));
    }
}
