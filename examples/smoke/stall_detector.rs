//! Detects stalls of the machine. A shared machine stalls for seconds now and then, and no deadline holds meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_millis(10);

/// The longest delay, in milliseconds, with which a thread that only sleeps woke up.
#[derive(Debug)]
pub(crate) struct StallDetector(Arc<AtomicU64>);

impl StallDetector {
    /// Starts a thread that runs until the program ends.
    pub(crate) fn start() -> Self {
        let longest = Arc::<AtomicU64>::default();
        let shared = Arc::clone(&longest);
        thread::spawn(move || {
            loop {
                let due = Instant::now() + INTERVAL;
                thread::sleep(INTERVAL);
                let delay_ms = u64::try_from(due.elapsed().as_millis()).unwrap_or(u64::MAX);
                shared.fetch_max(delay_ms, Ordering::Relaxed);
            }
        });
        Self(longest)
    }

    pub(crate) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Returns the longest stall since the last [`reset`](Self::reset).
    pub(crate) fn longest(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}
