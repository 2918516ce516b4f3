//! Sums of times and durations that cannot overflow.

use std::time::Duration;

use tokio::time::Instant;

/// The longest wait, in place of "forever".
pub(super) const FOREVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// Returns the time `wait` after `time`, or [`FOREVER`] after it if that is earlier.
pub(super) fn later_by(time: Instant, wait: Duration) -> Instant {
    time + wait.min(FOREVER)
}
