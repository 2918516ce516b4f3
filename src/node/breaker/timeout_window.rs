//! The share of timeouts in a sliding window.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How many parts a window has: what leaves the window, leaves it in parts.
const PARTS: u32 = 8;

/// Counts of the last while. They arrive only with timeouts, so a window is idle while all is well.
#[derive(Debug)]
pub(super) struct TimeoutWindow {
    span: Duration,
    parts: VecDeque<Part>,
    last: Instant,
}

#[derive(Debug)]
struct Part {
    begin: Instant,
    sent: u64,
    timeouts: u64,
}

impl TimeoutWindow {
    pub(super) fn new(span: Duration, now: Instant) -> Self {
        Self { span, parts: VecDeque::new(), last: now }
    }

    pub(super) fn clear(&mut self, now: Instant) {
        self.parts.clear();
        self.last = now;
    }

    /// Adds how many requests were sent, and how many timed out, since the last call.
    pub(super) fn add(&mut self, now: Instant, sent: u64, timeouts: u64) {
        let elapsed = now.saturating_duration_since(self.last);
        // Of the requests that were sent since long ago, the share that was sent within the window.
        let sent = if elapsed > self.span { scale(sent, self.span, elapsed) } else { sent };
        self.last = now;
        while self.parts.front().is_some_and(|part| now.saturating_duration_since(part.begin) >= self.span) {
            self.parts.pop_front();
        }
        match self.parts.back_mut() {
            Some(part) if now.saturating_duration_since(part.begin) < self.span / PARTS => {
                part.sent += sent;
                part.timeouts += timeouts;
            }
            _ => self.parts.push_back(Part { begin: now, sent, timeouts }),
        }
    }

    /// Whether at least this share of at least so many requests has timed out.
    pub(super) fn exceeds(&self, share: f64, min_requests: u32) -> bool {
        let sent: u64 = self.parts.iter().map(|part| part.sent).sum();
        let timeouts: u64 = self.parts.iter().map(|part| part.timeouts).sum();
        // What timed out was sent, too, but perhaps before the window.
        let sent = sent.max(timeouts);
        sent >= u64::from(min_requests) && timeouts as f64 >= sent as f64 * share
    }
}

fn scale(count: u64, part: Duration, whole: Duration) -> u64 {
    (count as f64 * part.as_secs_f64() / whole.as_secs_f64()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Duration = Duration::from_secs(8);

    #[test]
    fn timeouts_leave_the_window() {
        let start = Instant::now();
        let mut window = TimeoutWindow::new(SPAN, start);
        window.add(start, 10, 10);
        assert!(window.exceeds(0.5, 10) && !window.exceeds(0.5, 11));
        window.add(start + SPAN / 2, 9, 0);
        assert!(window.exceeds(0.5, 10));
        window.add(start + SPAN, 10, 1);
        assert!(!window.exceeds(0.5, 10) && window.exceeds(0.05, 19) && !window.exceeds(0.05, 20));
    }

    #[test]
    fn requests_sent_before_the_window_do_not_count() {
        let start = Instant::now();
        let mut window = TimeoutWindow::new(SPAN, start);
        window.add(start + SPAN * 1_000, 20_000, 10);
        assert!(window.exceeds(0.5, 20) && !window.exceeds(0.6, 20));
    }
}
