//! Load from many callers while pods pause and restart. Every value is checked, and no operation may hang.
//!
//! The tests take some seconds. `MEMRING_STRESS_SECONDS` makes them longer: `scripts/test stress` runs them for a
//! minute. Each prints its figures, which `--nocapture` shows.

mod coherence;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use memring::testing::Service;
use memring::{Delivery, Error};
use tokio::time::{Instant, sleep, timeout};

use crate::support::TEST_TIMEOUT;

const WORKERS: usize = 8;
const PODS: usize = 3;

/// Returns how long the load lasts.
fn load_time() -> Duration {
    let seconds = std::env::var("MEMRING_STRESS_SECONDS").ok().map(|text| text.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(4))
}

/// Returns a request timeout of 1 to 50 ms.
fn random_timeout() -> Duration {
    Duration::from_millis(fastrand::u64(1..=50))
}

/// Pauses and resumes pods in random order for the time of the load, and kills and restarts them if that is asked for.
/// A pause lasts at most `longest_pause` milliseconds.
async fn disrupt(service: &Service, longest_pause: u64, restarts: bool) {
    let end = Instant::now() + load_time();
    while Instant::now() < end {
        let pod = fastrand::usize(..PODS);
        if restarts && fastrand::u8(..4) == 0 {
            service.crash(pod).await.unwrap();
            sleep(Duration::from_millis(fastrand::u64(..200))).await;
            service.restart(pod).await.unwrap();
        } else {
            service.pause(pod).await.unwrap();
            sleep(Duration::from_millis(fastrand::u64(..longest_pause))).await;
            service.resume(pod).await.unwrap();
        }
        sleep(Duration::from_millis(fastrand::u64(..100))).await;
    }
}

/// What a worker has done. A wrong value or an operation that hangs is a panic.
#[derive(Debug, Default)]
struct Figures {
    operations: u64,
    verified_values: u64,
    cancelled: u64,
    errors: BTreeMap<String, u64>,
}

impl Figures {
    /// Runs an operation. Panics if it hangs.
    async fn run<T>(&mut self, operation: impl Future<Output = T>) -> T {
        self.operations += 1;
        timeout(TEST_TIMEOUT, operation).await.expect("an operation hangs")
    }

    /// Runs an operation, and in a quarter of the cases drops it early.
    async fn run_or_drop<T>(&mut self, operation: impl Future<Output = T>) -> Option<T> {
        if fastrand::u8(..4) > 0 {
            return Some(self.run(operation).await);
        }
        let limit = Duration::from_micros(fastrand::u64(..5_000));
        let outcome = self.run(timeout(limit, operation)).await.ok();
        self.cancelled += u64::from(outcome.is_none());
        outcome
    }

    fn count_error(&mut self, error: &Error) {
        let sent = if error.delivery() == Delivery::NotSent { " (not sent)" } else { "" };
        *self.errors.entry(format!("{:?}{sent}", error.kind())).or_default() += 1;
    }

    fn add(&mut self, other: Self) {
        self.operations += other.operations;
        self.verified_values += other.verified_values;
        self.cancelled += other.cancelled;
        for (kind, count) in other.errors {
            *self.errors.entry(kind).or_default() += count;
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operations, verified_values, cancelled, errors } = self;
        let time = load_time();
        write!(f, "{WORKERS} workers, {time:?}: {operations} operations, {verified_values} values verified, ")?;
        write!(f, "{cancelled} cancelled, 0 wrong, 0 hung; errors: {errors:?}")
    }
}
