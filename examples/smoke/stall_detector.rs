//! How long the machine stood still: a shared one does, for seconds now and then, and no deadline survives that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const STEP: Duration = Duration::from_millis(10);

/// The longest time that a thread which only sleeps was kept from waking up.
#[derive(Debug)]
pub(crate) struct Standstill(Arc<AtomicU64>);

impl Standstill {
    /// Watches until the program ends.
    pub(crate) fn watch() -> Self {
        let longest = Arc::<AtomicU64>::default();
        let seen = Arc::clone(&longest);
        thread::spawn(move || {
            loop {
                let due = Instant::now() + STEP;
                thread::sleep(STEP);
                let late = u64::try_from(due.elapsed().as_millis()).unwrap_or(u64::MAX);
                seen.fetch_max(late, Ordering::Relaxed);
            }
        });
        Self(longest)
    }

    pub(crate) fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    pub(crate) fn longest(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}
