//! Leases that last too long, because another client has touched them.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::connection::lock;
use crate::item::Cas;

/// The most leases remembered. If more are touched, all are forgotten, and each may last for its time once more.
const MOST: usize = 1024;

/// The leases that this client has found to last too long, by key.
#[derive(Debug, Default)]
pub(super) struct TouchedLeases(Mutex<HashMap<Box<[u8]>, TouchedLease>>);

#[derive(Debug)]
struct TouchedLease {
    cas: Cas,
    first_found: Instant,
}

impl TouchedLeases {
    /// Returns how long a lease may last that was found to last too long: `longest` from the first time. So it ends
    /// even if it is touched again and again.
    pub(super) fn time_left(&self, key: &[u8], cas: Cas, longest: Duration) -> Duration {
        let now = Instant::now();
        let mut found = lock(&self.0);
        let first_found = match found.get(key) {
            Some(known) if known.cas == cas => known.first_found,
            _ => {
                if found.len() >= MOST {
                    found.clear();
                }
                found.insert(key.into(), TouchedLease { cas, first_found: now });
                now
            }
        };
        longest.saturating_sub(now - first_found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn the_time_of_a_touched_lease_runs_from_when_it_was_first_found() {
        let (leases, longest) = (TouchedLeases::default(), Duration::from_secs(30));
        let left_of = |cas| leases.time_left(b"k", Cas(cas), longest);
        assert_eq!(left_of(1), longest);
        advance(Duration::from_secs(20)).await;
        assert_eq!(left_of(1), Duration::from_secs(10));
        advance(Duration::from_secs(20)).await;
        assert_eq!(left_of(1), Duration::ZERO);
        assert_eq!(left_of(2), longest, "another lease of the same item has its own time");
        for n in 0..2 * MOST {
            leases.time_left(&n.to_be_bytes(), Cas(1), longest);
        }
        assert!(lock(&leases.0).len() <= MOST);
    }
}
