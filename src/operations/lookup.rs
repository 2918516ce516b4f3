//! Reading one item: by a classic get wherever that can tell what is there.
//!
//! A lease, taken by [`Client::fetch`](crate::Client::fetch) or another client, is stored as an empty item with flags
//! 0. A classic get cannot tell it from an empty value. So such an item is read once more, by a meta get, before it is
//! returned.

use bytes::Bytes;
use tokio::time::Instant;

use super::{MetaAttempt, Operations};
use crate::config::LEASE;
use crate::connection::{GetForm, GetResult, NewCall};
use crate::error::Error;
use crate::item::Item;
use crate::key::{Key, KeySpace, MetaKey};
use crate::meta::{self, Get, Options, TimeLeft};
use crate::protocol::MetaVerb;

/// What a lease gets that a classic get has touched, because what it had left before is not known.
const USUAL_LEASE: TimeLeft = TimeLeft::Finite(LEASE);

impl Operations {
    /// Reads the item of a caller's key.
    #[inline]
    #[expect(clippy::manual_async_fn, reason = "the future of an `async fn` would hold each argument twice")]
    pub(crate) fn get<'a>(
        &'a self,
        keys: &'a KeySpace,
        key: &'a [u8],
        form: GetForm,
        deadline: Instant,
    ) -> impl Future<Output = GetResult> + Send + Sync + 'a {
        async move {
            let doubtful = match NewCall::get(form, deadline, |place| keys.write_key(key, place)) {
                Ok(call) => match self.dispatcher.send(call).await {
                    Ok(Some(item)) if may_be_lease(&item) => Some(item),
                    found => return found,
                },
                // A binary key, or an invalid one.
                Err(_) => None,
            };
            // Boxed, so that the rare case does not enlarge every get's future.
            Box::pin(self.look_closer(keys, key, doubtful, form, deadline)).await
        }
    }

    /// Reads an item that may be a lease, or has a binary key.
    async fn look_closer(
        &self,
        keys: &KeySpace,
        key: &[u8],
        doubtful: Option<Item>,
        form: GetForm,
        deadline: Instant,
    ) -> GetResult {
        let key = keys.any_key(key)?;
        match doubtful {
            Some(item) => self.unless_lease(&key, item, form, deadline).await,
            None => self.get_by_meta(&key, form, deadline).await,
        }
    }

    /// Reads the item of a checked key.
    pub(crate) async fn get_checked(&self, key: &MetaKey, cas: bool, deadline: Instant) -> GetResult {
        let MetaKey::Text(text) = key else { return self.get_by_meta(key, GetForm::with_cas(cas), deadline).await };
        let write_key = |place: &mut Key| {
            *place = text.clone();
            Ok::<(), Error>(())
        };
        match self.dispatcher.send(NewCall::get(GetForm::with_cas(cas), deadline, write_key)?).await? {
            Some(item) if may_be_lease(&item) => self.unless_lease(key, item, GetForm::with_cas(cas), deadline).await,
            found => Ok(found),
        }
    }

    /// Reads an item that [may be a lease](may_be_lease) once more, and returns it unless it is. Fails if it is not
    /// known whether the server has leases.
    pub(crate) async fn unless_lease(&self, key: &MetaKey, found: Item, form: GetForm, deadline: Instant) -> GetResult {
        Ok(match MetaAttempt::of(self.get_by_meta(key, form, deadline).await)? {
            MetaAttempt::Answered(found) => found,
            MetaAttempt::NoMetaCommands => Some(found),
        })
    }

    /// Reads by a meta get. The server may choose this reader to renew the item ([`meta::Item::won`]): it must then do
    /// so, or give that back ([`Lease`](super::Lease)).
    pub(crate) async fn read_by_meta(
        &self,
        key: &MetaKey,
        mut options: Options,
        deadline: Instant,
    ) -> Result<Option<meta::Item>, Error> {
        b"vfc".iter().for_each(|letter| options.set(*letter));
        let reply = self.meta(MetaVerb::Get, key.clone(), options, Bytes::new(), deadline).await?;
        meta::Item::from_reply(reply)
    }

    /// Reads by a meta get, and leaves the renewal to other readers. Touches the item of a binary key only, because the
    /// classic get before this has touched that of a text key.
    async fn get_by_meta(&self, key: &MetaKey, form: GetForm, deadline: Instant) -> GetResult {
        let options = match (form.touch, key) {
            (None, _) => Options::default(),
            (Some(_), MetaKey::Text(_)) => Get::new().ttl_left().into(),
            (Some(exptime), MetaKey::Binary(_)) => Options::touch(exptime),
        };
        let Some(found) = self.read_by_meta(key, options, deadline).await? else { return Ok(None) };
        let lease_left = match key {
            MetaKey::Text(_) => found.ttl_left.filter(|left| *left > USUAL_LEASE).map(|_| USUAL_LEASE),
            MetaKey::Binary(_) => found.ttl_left,
        };
        self.leave_renewal(key, &found, lease_left, deadline).await;
        Ok(found.into_item(form.cas))
    }
}

/// Returns whether an item that a classic get found may be a lease: leases are empty and have flags 0.
#[inline]
pub(crate) fn may_be_lease(item: &Item) -> bool {
    item.value.is_empty() && item.flags == 0
}

impl meta::Item {
    /// Returns the item as a classic get would. `None` for a lease.
    pub(crate) fn into_item(self, cas: bool) -> Option<Item> {
        if self.is_lease() {
            return None;
        }
        Some(Item { value: self.value?, flags: self.flags?, cas: self.cas.filter(|_| cas) })
    }
}
