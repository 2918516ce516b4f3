//! The right to fill or renew an item, which the server gives to one reader.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::Operations;
use crate::error::Error;
use crate::item::{Cas, SetOptions};
use crate::key::MetaKey;
use crate::meta::{self, Delete, Get, Outcome, Set, TimeLeft};
use crate::protocol::MetaVerb;
use crate::ttl::Ttl;

/// How long the command that gives back a dropped lease may take. No caller waits for it.
const GIVE_BACK_TIMEOUT: Duration = Duration::from_secs(1);

/// A lease on an item, or a part in that of another process. One that is dropped unused is given back, if the server
/// can be reached. If not, the lease ends with the item's TTL at the server.
pub(crate) struct Lease {
    operations: Operations,
    key: MetaKey,
    cas: Cas,
    kind: LeaseKind,
    won_at: Instant,
    is_over: bool,
}

/// How a lease was won, which decides how it is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseKind {
    /// The item was missing. An empty one is in its place.
    Vivified,
    /// The item is stale.
    Stale,
    /// The item expires soon.
    Early,
    /// Another process has won the lease, and gives it back. The first of both to finish fills the item.
    Joined,
}

impl Lease {
    pub(crate) fn new(operations: &Operations, key: MetaKey, cas: Cas, kind: LeaseKind) -> Self {
        Self { operations: operations.clone(), key, cas, kind, won_at: Instant::now(), is_over: false }
    }

    /// Returns how long ago the server's reply with the lease was read.
    pub(crate) fn age(&self) -> Duration {
        self.won_at.elapsed()
    }

    /// Stores the value if the item has not changed since, and returns whether it was stored. If the lease could not be
    /// used, it is given back.
    pub(crate) async fn fill(mut self, value: Bytes, store: &SetOptions, deadline: Instant) -> Result<Outcome, Error> {
        let options = Set::from_store(store).compare(self.cas);
        self.operations.value_limit().check(&value)?;
        // If this fails, the item may be filled all the same. It has another version then, and giving back spares it.
        let reply = self.operations.meta(MetaVerb::Set, self.key.clone(), options, value, deadline).await?;
        self.is_over = true;
        Ok(Outcome::of(reply.code))
    }

    /// Returns whether the item has not changed since the lease was won. `false` if that is not known.
    pub(crate) async fn is_current(&self, deadline: Instant) -> bool {
        let found = self.operations.read_without_value(&self.key, Get::new(), deadline).await;
        matches!(found, Ok(Some(item)) if item.cas == Some(self.cas))
    }

    /// Sets the TTL of a lease placeholder to `lease` again. Returns `false` if there is nothing to renew: the item has
    /// changed, or is a real one. A renewal that fails is no reason to stop.
    pub(crate) async fn renew(&self, lease: Duration, deadline: Instant) -> bool {
        if !matches!(self.kind, LeaseKind::Vivified | LeaseKind::Joined) {
            return false;
        }
        let Ok(ttl) = Ttl::new(lease) else { return false };
        // A look before the touch, so that an item that is known to be another one is not touched at all. Otherwise two
        // processes that restore its TTL could restore what the other one has set.
        match self.operations.read_without_value(&self.key, Get::new(), deadline).await {
            Ok(Some(found)) if found.cas == Some(self.cas) && found.is_lease() && !found.stale => {
                self.operations.touch_lease(&self.key, self.cas, ttl, deadline).await.unwrap_or(true)
            }
            Ok(_) => false,
            Err(_) => true,
        }
    }

    /// Gives the lease back: the server chooses another reader. Returns whether the item has not changed since the
    /// lease was won, or `false` if that is not known. A failed attempt is repeated once, in the background.
    pub(crate) async fn give_back(mut self, deadline: Instant) -> bool {
        let Some(options) = self.giving_back() else { return self.is_current(deadline).await };
        let reply = self.operations.meta(MetaVerb::Delete, self.key.clone(), options, Bytes::new(), deadline).await;
        self.is_over = reply.is_ok();
        reply.is_ok_and(|reply| Outcome::of(reply.code) == Outcome::Done)
    }

    /// Ends the lease without giving it back, because the item has changed.
    pub(crate) fn end(mut self) {
        self.is_over = true;
    }

    /// Returns the options of the delete that gives the lease back. It spares an item that has changed.
    fn giving_back(&self) -> Option<Delete> {
        match self.kind {
            LeaseKind::Vivified => Some(Delete::new().compare(self.cas)),
            // The item stays stale, and the server chooses another reader.
            LeaseKind::Stale => Some(Delete::new().compare(self.cas).mark_stale()),
            // It cannot be given back, and the item expires soon.
            LeaseKind::Early => None,
            // The other process may still compute.
            LeaseKind::Joined => None,
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let Some(options) = self.giving_back() else { return };
        // Nothing can be sent outside a runtime.
        let Ok(runtime) = Handle::try_current() else { return };
        let (operations, key) = (self.operations.clone(), self.key.clone());
        let deadline = Instant::now() + GIVE_BACK_TIMEOUT;
        runtime.spawn(async move { operations.meta(MetaVerb::Delete, key, options, Bytes::new(), deadline).await });
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("kind", &self.kind).field("is_over", &self.is_over).finish_non_exhaustive()
    }
}

impl Operations {
    /// Reads everything but the value, and leaves the renewal to other readers.
    pub(crate) async fn read_without_value(
        &self,
        key: &MetaKey,
        options: Get,
        deadline: Instant,
    ) -> Result<Option<meta::Item>, Error> {
        let options = options.cas().size().ttl_left();
        let reply = self.meta(MetaVerb::Get, key.clone(), options, Bytes::new(), deadline).await?;
        let found = meta::Item::from_reply(reply)?;
        if let Some(meta::Item { won: true, cas: Some(cas), .. }) = found {
            // Given back in the background.
            drop(Lease::new(self, key.clone(), cas, LeaseKind::Stale));
        }
        Ok(found)
    }

    /// Leaves an item to the client that fills or renews it: gives back a renewal that this reader won, and sets the
    /// TTL of a lease back to `lease_left`, if this reader has touched it.
    pub(super) async fn leave_renewal(
        &self,
        key: &MetaKey,
        found: &meta::Item,
        lease_left: Option<TimeLeft>,
        deadline: Instant,
    ) {
        let Some(cas) = found.cas else { return };
        if found.won {
            Lease::new(self, key.clone(), cas, LeaseKind::Stale).give_back(deadline).await;
        } else if let (true, Some(Ok(ttl))) = (found.is_lease(), lease_left.map(TimeLeft::as_ttl)) {
            // If this fails, the lease lasts longer.
            let _ = self.touch_lease(key, cas, ttl, deadline).await;
        }
    }

    /// Sets the TTL of a lease. Returns whether the item is still that lease. If it was changed meanwhile, its own TTL
    /// is restored.
    pub(crate) async fn touch_lease(
        &self,
        key: &MetaKey,
        lease: Cas,
        ttl: Ttl,
        deadline: Instant,
    ) -> Result<bool, Error> {
        // The server executes flags in their order: it reports the TTL left (`t`) before it sets the new one (`T`).
        let found = self.read_without_value(key, Get::new().touch(ttl), deadline).await?;
        let Some(meta::Item { cas, ttl_left, .. }) = found else { return Ok(false) };
        if cas == Some(lease) {
            return Ok(true);
        }
        if let Some(Ok(ttl)) = ttl_left.map(TimeLeft::as_ttl) {
            // If this fails, the item has the TTL of the lease.
            let _ = self.read_without_value(key, Get::new().touch(ttl), deadline).await;
        }
        Ok(false)
    }
}
