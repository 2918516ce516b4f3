//! Sums of times and durations that cannot overflow, and waits that may have no end.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The longest wait, in place of "forever".
pub(super) const FOREVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// Returns the time `wait` after `time`, or [`FOREVER`] after it if that is earlier.
pub(super) fn later_by(time: Instant, wait: Duration) -> Instant {
    time + wait.min(FOREVER)
}

/// Sleeps until the time, or forever if there is none.
pub(super) async fn sleep_until_some(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
