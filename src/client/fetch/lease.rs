//! The right to fill an item, as one process has it at a time.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::client::Client;
use crate::client::meta::{Delete, Outcome, Set};
use crate::error::Error;
use crate::item::{Cas, SetOptions};
use crate::key::MetaKey;
use crate::protocol::MetaVerb;

/// The right to fill an item. Given back when dropped without having been used, as far as the server can be reached;
/// the life time of what was promised is what others can rely on.
pub(super) struct Lease {
    client: Client,
    key: MetaKey,
    cas: Cas,
    kind: Kind,
    over: bool,
}

/// How a lease was come by, which says how it is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An empty item was made to stand for the value.
    Vivified,
    /// The item is stale.
    Stale,
    /// The item is about to expire.
    Early,
}

impl Lease {
    pub(super) fn new(client: &Client, key: MetaKey, cas: Cas, kind: Kind) -> Self {
        Self { client: client.clone(), key, cas, kind, over: false }
    }

    /// Stores the value if nothing has happened to the item since; says whether it did, and otherwise gives the lease
    /// back.
    pub(super) async fn fill(mut self, value: Bytes, store: &SetOptions) -> Result<Outcome, Error> {
        let options = Set::from_store(store).compare(self.cas);
        self.client.check_size(&value)?;
        // From here on the item may be filled. Taking the promise back goes by the version, and spares it then.
        let reply = self.client.meta(MetaVerb::Set, self.key.clone(), options.into(), value).await?;
        let outcome = Outcome::of(reply.code);
        self.over = true;
        Ok(outcome)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let give_back = match self.kind {
            Kind::Vivified => Delete::new().compare(self.cas),
            // Another reader is asked then. The item stays, and stays stale.
            Kind::Stale => Delete::new().compare(self.cas).mark_stale(),
            // There is no way to. It has not long to live.
            Kind::Early => return,
        };
        // Outside a runtime nothing can be sent.
        let Ok(runtime) = Handle::try_current() else { return };
        let (client, key) = (self.client.clone(), self.key.clone());
        runtime.spawn(async move { client.meta(MetaVerb::Delete, key, give_back.into(), Bytes::new()).await });
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("kind", &self.kind).field("over", &self.over).finish_non_exhaustive()
    }
}

/// Among processes whose server has no leases: a key of its own that only one of them can add.
#[derive(Debug)]
pub(super) struct Lock {
    client: Client,
    key: String,
    until: Instant,
}

impl Lock {
    /// Takes the lock, if nobody has it.
    pub(super) async fn take(client: &Client, key: &[u8], lease: Duration) -> Result<Option<Self>, Error> {
        // Of one length, for keys of any; and on whatever node that falls to.
        let name = format!("memring:lock:{:032x}", xxhash_rust::xxh3::xxh3_128(key));
        // A server's clock goes by seconds, and may be through with the last of them at once.
        let until = Instant::now() + lease.saturating_sub(Duration::from_secs(1));
        let taken = client.add(&name, "", lease).await?;
        Ok(taken.then(|| Self { client: client.clone(), key: name, until }))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // After that it may be another's.
        if Instant::now() >= self.until {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        let (client, key) = (self.client.clone(), std::mem::take(&mut self.key));
        runtime.spawn(async move { client.delete(key).await });
    }
}
