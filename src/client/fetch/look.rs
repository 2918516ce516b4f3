//! A look in the cache: what a fetch finds there, and which lease it wins.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::Task;
use super::options::{Fetched, Origin, Stale};
use crate::error::Error;
use crate::item::Cas;
use crate::meta::{Item, Options};
use crate::operations::{Lease, LeaseKind, MetaAttempt};
use crate::protocol::MetaVerb;

/// What a look in the cache found.
pub(super) enum Look {
    Found(Fetched),
    /// The lease on the item, and the old value if there is one that may be served.
    Won(Lease, Option<Fetched>),
    /// Another client has the lease. The old value, if there is one that may be served, and the item's CAS unique.
    Taken(Option<Fetched>, Option<Cas>),
    /// Nothing is there, and the server has no leases, or none that could be used.
    Absent,
    /// The cache failed.
    Failed(Error),
}

impl Task<'_> {
    pub(super) async fn look(&self) -> Look {
        let (key, options, deadline) = (self.key.clone(), self.look.clone(), self.deadline());
        let has_no_versions = self.has_no_versions.load(Ordering::Relaxed);
        let found = if has_no_versions {
            self.operations.read_by_meta(&key, Options::default(), deadline).await
        } else {
            let reply = self.operations.meta(MetaVerb::Get, key, options, Bytes::new(), deadline).await;
            reply.and_then(Item::from_reply)
        };
        match MetaAttempt::of(found) {
            Ok(MetaAttempt::Answered(Some(item))) if item.cas.is_some_and(Cas::is_switched_off) => {
                self.has_no_versions.store(true, Ordering::Relaxed);
                self.look_at_unversioned(item).await
            }
            Ok(MetaAttempt::Answered(Some(item))) => self.look_at(item),
            Ok(MetaAttempt::Answered(None)) if has_no_versions => Look::Absent,
            // A vivifying get has no miss. A server that answers one has no leases.
            Ok(MetaAttempt::Answered(None) | MetaAttempt::NoMetaCommands) => self.look_by_classic().await,
            Err(error) => Look::Failed(error),
        }
    }

    async fn look_by_classic(&self) -> Look {
        match self.operations.get_checked(&self.key, false, self.deadline()).await {
            Ok(Some(item)) => Look::Found(Fetched { value: item.value, flags: item.flags, origin: Origin::Cached }),
            Ok(None) => Look::Absent,
            Err(error) => Look::Failed(error),
        }
    }

    /// Looks at an item of a server without CAS uniques. Nothing can be stored under a lease there, so a lease is given
    /// back, and so is a stale item that this caller is to renew.
    async fn look_at_unversioned(&self, item: Item) -> Look {
        if item.won && (item.stale || item.is_lease()) {
            let _ = self.operations.delete(self.key.clone(), self.deadline()).await;
            return Look::Absent;
        }
        let (is_lease, flags) = (item.is_lease(), item.flags.unwrap_or(0));
        match item.value.filter(|_| !is_lease) {
            Some(value) if !item.stale => Look::Found(Fetched { value, flags, origin: Origin::Cached }),
            Some(value) if self.options.stale == Stale::Serve => {
                Look::Taken(Some(Fetched { value, flags, origin: Origin::Stale }), None)
            }
            Some(_) => Look::Taken(None, None),
            None => Look::Absent,
        }
    }

    /// Deletes a lease on a server without CAS uniques, where its holder cannot use it. For a caller that is
    /// about to compute.
    pub(super) async fn remove_unusable_lease(&self) {
        if self.has_no_versions.load(Ordering::Relaxed)
            && let Ok(Some(found)) = self.operations.read_by_meta(&self.key, Options::default(), self.deadline()).await
            && found.is_lease()
        {
            let _ = self.operations.delete(self.key.clone(), self.deadline()).await;
        }
    }

    fn look_at(&self, item: Item) -> Look {
        let is_lease = item.is_lease();
        let origin = if item.stale { Origin::Stale } else { Origin::Cached };
        let value = item.value.filter(|_| !is_lease);
        let old = value.map(|value| Fetched { value, flags: item.flags.unwrap_or(0), origin });
        let may_serve = !item.stale || self.options.stale == Stale::Serve;
        match (item.won, item.cas, old) {
            (true, Some(cas), old) => {
                let kind = match (is_lease, item.stale) {
                    (true, _) => LeaseKind::Vivified,
                    (false, true) => LeaseKind::Stale,
                    (false, false) => LeaseKind::Early,
                };
                let lease = Lease::new(self.operations, self.key.clone(), cas, kind);
                Look::Won(lease, old.filter(|_| may_serve))
            }
            (_, _, Some(old)) if !item.stale => Look::Found(old),
            (_, cas, old) => Look::Taken(old.filter(|_| may_serve), cas),
        }
    }
}
