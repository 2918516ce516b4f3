//! Locks, for servers without leases.

use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::error::Error;
use crate::item::SetOptions;
use crate::key::{KeySpace, MetaKey};
use crate::operations::Operations;
use crate::protocol::StoreVerb;

/// A lock among processes whose server has no leases: a key of its own, which one of them can add.
pub(super) struct Lock {
    operations: Operations,
    timeout: Duration,
    key: MetaKey,
    /// Until when the key is certainly this process's.
    until: Instant,
}

impl Lock {
    /// Takes the lock of an item, unless another process has it.
    pub(super) async fn take(
        operations: &Operations,
        keys: &KeySpace,
        item: &MetaKey,
        lease: Duration,
        timeout: Duration,
    ) -> Result<Option<Self>, Error> {
        // Of one length for items with keys of any length. Its owner may be another node than the item's.
        let name = format!("memring:lock:{:032x}", xxhash_rust::xxh3::xxh3_128(item.as_bytes()));
        let key = keys.any_key(name.as_bytes())?;
        let now = Instant::now();
        let until = certain_end(now, lease);
        let taken = operations.store_if(StoreVerb::Add, key.clone(), Bytes::new(), lease.into(), now + timeout).await?;
        Ok(taken.then(|| Self { operations: operations.clone(), timeout, key, until }))
    }

    /// Sets the TTL of the lock to `lease` again. Returns `false` if it is not certainly this process's any more.
    pub(super) async fn renew(&mut self, lease: Duration, deadline: Instant) -> bool {
        let now = Instant::now();
        let Some(ttl) = SetOptions::from(lease).exptime().ok().filter(|_| now < self.until) else { return false };
        // A reply after the lock's end may be about the lock of another process.
        match self.operations.touch(self.key.clone(), ttl, deadline.min(self.until)).await {
            Ok(true) => {
                self.until = certain_end(now, lease);
                true
            }
            Ok(false) => {
                self.until = now;
                false
            }
            Err(_) => true,
        }
    }
}

/// Returns until when a lock is certainly there that was added or touched at `now`. A server counts whole seconds, and
/// may end the last one at once.
fn certain_end(now: Instant, lease: Duration) -> Instant {
    now + lease.saturating_sub(Duration::from_secs(1))
}

impl Drop for Lock {
    fn drop(&mut self) {
        let now = Instant::now();
        // Another process may have the lock by now.
        if now >= self.until {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        let (operations, key, deadline) = (self.operations.clone(), self.key.clone(), now + self.timeout);
        runtime.spawn(async move { operations.delete(key, deadline).await });
    }
}
