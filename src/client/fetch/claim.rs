//! What keeps other processes from computing the same value, renewed while this one computes.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::task::unconstrained;
use tokio::time::Instant;

use super::lock::Lock;
use crate::config::LEASE;
use crate::operations::Lease;
use crate::timer::timeout;

/// The shortest time between two renewals.
const RENEW_AT_MOST_EVERY: Duration = Duration::from_millis(500);

/// A lease or a lock: it ends by its TTL, unless it is renewed.
pub(super) trait Claim {
    /// Sets the TTL to `lease` again. Returns whether to renew once more later: `false` if the claim is lost.
    fn renew(&mut self, lease: Duration, deadline: Instant) -> impl Future<Output = bool> + Send;
}

impl Claim for Lease {
    async fn renew(&mut self, lease: Duration, deadline: Instant) -> bool {
        Self::renew(self, lease, deadline).await
    }
}

impl Claim for Option<Lock> {
    async fn renew(&mut self, lease: Duration, deadline: Instant) -> bool {
        match self {
            Some(lock) => lock.renew(lease, deadline).await,
            None => false,
        }
    }
}

/// Runs `work` to its end, and renews the claim meanwhile. Each renewal may take `request_timeout`.
pub(super) async fn renew_during<T>(
    claim: &mut impl Claim,
    lease: Duration,
    request_timeout: Duration,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    loop {
        if let Ok(output) = timeout(renewal_interval(lease), &mut work).await {
            return output;
        }
        // Unconstrained, because work that uses up the task's budget in every poll would have no renewals.
        let renewal = pin!(unconstrained(claim.renew(lease, Instant::now() + request_timeout)));
        match select(&mut work, renewal).await {
            Either::Left((output, renewal)) => {
                // A touch that is still on its way must not reach the value that is stored next.
                renewal.await;
                return output;
            }
            Either::Right((true, _)) => {}
            Either::Right((false, _)) => return work.await,
        }
    }
}

/// Returns the time between two renewals, so that one may fail. It is not longer for leases over the default length,
/// because a client that has touched a lease sets it back to that length.
pub(super) fn renewal_interval(lease: Duration) -> Duration {
    (lease.min(LEASE) / 3).max(RENEW_AT_MOST_EVERY)
}
