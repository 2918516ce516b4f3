//! Reading one item: by a classic get wherever that can tell what is there.
//!
//! A lease, taken by [`Client::fetch`](crate::Client::fetch) or another client, is stored as an empty item with flags
//! 0. A classic get cannot tell it from an empty value. So such an item is read once more, by a meta get, before it is
//! returned.

use bytes::Bytes;
use tokio::time::Instant;

use super::{MetaAttempt, Operations};
use crate::connection::{GetForm, GetResult, NewCall};
use crate::error::Error;
use crate::item::{Cas, Item};
use crate::key::{Key, KeySpace, MetaKey};
use crate::meta::{self, Delete, Get, Options};
use crate::protocol::MetaVerb;

impl Operations {
    /// Reads the item of a caller's key.
    #[inline]
    pub(crate) async fn get(&self, keys: &KeySpace, key: &[u8], form: GetForm, deadline: Instant) -> GetResult {
        let Ok(call) = NewCall::get(form, deadline, |place| keys.write_key(key, place)) else {
            // A binary key, or an invalid one.
            let key = keys.any_key(key)?;
            return Box::pin(self.get_by_meta(&key, form, deadline)).await;
        };
        match self.dispatcher.send(call).await {
            Ok(Some(item)) if may_be_lease(&item) => {
                let key = keys.any_key(key)?;
                Box::pin(self.unless_lease(&key, item, form.cas, deadline)).await
            }
            found => found,
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
            Some(item) if may_be_lease(&item) => self.unless_lease(key, item, cas, deadline).await,
            found => Ok(found),
        }
    }

    /// Reads an item that [may be a lease](may_be_lease) once more, and returns it unless it is. Fails if it is not
    /// known whether the server has leases.
    pub(crate) async fn unless_lease(&self, key: &MetaKey, found: Item, cas: bool, deadline: Instant) -> GetResult {
        Ok(match MetaAttempt::of(self.get_by_meta(key, GetForm::with_cas(cas), deadline).await)? {
            MetaAttempt::Answered(found) => found,
            MetaAttempt::NoMetaCommands => Some(found),
        })
    }

    /// Reads by a meta get. The server may choose this reader to renew the item ([`meta::Item::won`]): it must then do
    /// so, or [pass that on](Self::pass_on_renewal).
    pub(crate) async fn read_by_meta(
        &self,
        key: &MetaKey,
        touch: Option<u32>,
        deadline: Instant,
    ) -> Result<Option<meta::Item>, Error> {
        let mut options: Options = Get::new().value().flags().cas().into();
        if let Some(exptime) = touch {
            options.number(b'T', exptime.into());
        }
        let reply = self.meta(MetaVerb::Get, key.clone(), options, Bytes::new(), deadline).await?;
        meta::Item::from_reply(reply)
    }

    /// Lets the server choose another reader to renew an item. The item's version changes.
    pub(crate) async fn pass_on_renewal(&self, key: &MetaKey, cas: Cas, deadline: Instant) {
        let options = Delete::new().compare(cas).mark_stale();
        // If this fails, no reader renews the item until it expires.
        let _ = self.meta(MetaVerb::Delete, key.clone(), options, Bytes::new(), deadline).await;
    }

    /// Reads by a meta get, and leaves the renewal to other readers.
    async fn get_by_meta(&self, key: &MetaKey, form: GetForm, deadline: Instant) -> GetResult {
        let Some(found) = self.read_by_meta(key, form.touch, deadline).await? else { return Ok(None) };
        if let (true, Some(cas)) = (found.won, found.cas) {
            self.pass_on_renewal(key, cas, deadline).await;
        }
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
