//! The right to fill an item, which one process has at a time.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::error::Error;
use crate::item::{Cas, SetOptions};
use crate::key::{KeySpace, MetaKey};
use crate::meta::{Delete, Outcome, Set};
use crate::operations::Operations;
use crate::protocol::{MetaVerb, StoreVerb};

/// A lease on an item. One that is dropped unused is given back, if the server can be reached. If not, the lease ends
/// with its TTL at the server.
pub(super) struct Lease {
    operations: Operations,
    timeout: Duration,
    key: MetaKey,
    cas: Cas,
    kind: LeaseKind,
    is_used: bool,
}

/// How a lease was won, which decides how it is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeaseKind {
    /// The item was missing. An empty one is in its place.
    Vivified,
    /// The item is stale.
    Stale,
    /// The item expires soon.
    Early,
}

impl Lease {
    pub(super) fn new(operations: &Operations, timeout: Duration, key: MetaKey, cas: Cas, kind: LeaseKind) -> Self {
        Self { operations: operations.clone(), timeout, key, cas, kind, is_used: false }
    }

    /// Stores the value if the item has not changed since, and returns whether it was stored. If the lease could not be
    /// used, it is given back.
    pub(super) async fn fill(mut self, value: Bytes, store: &SetOptions) -> Result<Outcome, Error> {
        let options = Set::from_store(store).compare(self.cas);
        self.operations.value_limit().check(&value)?;
        // If this fails, the item may be filled all the same. It has another version then, and giving back spares it.
        let (key, deadline) = (self.key.clone(), Instant::now() + self.timeout);
        let reply = self.operations.meta(MetaVerb::Set, key, options, value, deadline).await?;
        self.is_used = true;
        Ok(Outcome::of(reply.code))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_used {
            return;
        }
        let give_back = match self.kind {
            LeaseKind::Vivified => Delete::new().compare(self.cas),
            // The item stays stale, and the server chooses another reader.
            LeaseKind::Stale => Delete::new().compare(self.cas).mark_stale(),
            // It cannot be given back, and the item expires soon.
            LeaseKind::Early => return,
        };
        // Nothing can be sent outside a runtime.
        let Ok(runtime) = Handle::try_current() else { return };
        let (operations, key, deadline) = (self.operations.clone(), self.key.clone(), Instant::now() + self.timeout);
        runtime.spawn(async move { operations.meta(MetaVerb::Delete, key, give_back, Bytes::new(), deadline).await });
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("kind", &self.kind).field("is_used", &self.is_used).finish_non_exhaustive()
    }
}

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
        // A server counts whole seconds, and may end the last one at once.
        let until = now + lease.saturating_sub(Duration::from_secs(1));
        let taken = operations.store_if(StoreVerb::Add, key.clone(), Bytes::new(), lease.into(), now + timeout).await?;
        Ok(taken.then(|| Self { operations: operations.clone(), timeout, key, until }))
    }
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
