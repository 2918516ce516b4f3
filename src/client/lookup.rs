//! Reading one item: by a classic get wherever that can tell what is there.
//!
//! A lease that [`Client::fetch`] or another client took stands in the cache as an empty item, and a classic get cannot
//! tell it from an empty value. So an empty value is looked at once more, by a meta get, before it is believed.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::Client;
use super::meta::{self, Delete, Get, Options};
use crate::connection::Call;
use crate::error::{Error, ErrorKind};
use crate::item::{Cas, Item};
use crate::key::{Key, MetaKey};
use crate::protocol::{Keys, MetaVerb, Request};

impl Client {
    /// What every reader of one key goes through.
    pub(super) async fn find(&self, key: &[u8], cas: bool, touch: Option<u32>) -> Result<Option<Item>, Error> {
        let deadline = self.deadline();
        let Ok(text) = self.text_key(key) else {
            // Binary, or none. The rarer ways must not make every get's future larger.
            let key = self.any_key(key)?;
            return Box::pin(async move { self.find_closely(&key, cas, touch).await }).await;
        };
        match self.get_plainly(text, cas, touch, deadline).await? {
            Some(item) if may_be_lease(&item) => {
                let key = self.any_key(key)?;
                Box::pin(async move { self.until(deadline).unless_lease(key, item, cas).await }).await
            }
            found => Ok(found),
        }
    }

    /// As [`find`](Self::find), for who has the key already.
    pub(super) async fn find_at(&self, key: &MetaKey, cas: bool) -> Result<Option<Item>, Error> {
        let deadline = self.deadline();
        match key {
            MetaKey::Text(text) => match self.get_plainly(text.clone(), cas, None, deadline).await? {
                Some(item) if may_be_lease(&item) => self.until(deadline).unless_lease(key.clone(), item, cas).await,
                found => Ok(found),
            },
            MetaKey::Binary(_) => self.find_closely(key, cas, None).await,
        }
    }

    /// The item, unless it is a lease.
    pub(super) async fn unless_lease(&self, key: MetaKey, found: Item, cas: bool) -> Result<Option<Item>, Error> {
        match self.find_closely(&key, cas, None).await {
            // No server without leases has any.
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(Some(found)),
            found => found,
        }
    }

    /// Reads by a meta get. The reader may be the one who is asked to renew the item, and must then do so, or
    /// [decline](Self::decline).
    pub(super) async fn read(&self, key: &MetaKey, touch: Option<u32>) -> Result<Option<meta::Item>, Error> {
        let mut options: Options = Get::new().value().flags().cas().into();
        if let Some(exptime) = touch {
            options.number(b'T', exptime.into());
        }
        let reply = self.meta(MetaVerb::Get, key.clone(), options, Bytes::new()).await?;
        meta::Item::from_reply(reply)
    }

    /// Has another reader be asked to renew an item of this version, as this one was. It is of another version then.
    pub(super) async fn decline(&self, key: &MetaKey, cas: Cas) {
        let options = Delete::new().compare(cas).mark_stale();
        // Should that fail, nobody renews the item until it expires.
        let _ = self.meta(MetaVerb::Delete, key.clone(), options.into(), Bytes::new()).await;
    }

    /// Reads by a meta get, and leaves it to others to renew the item.
    async fn find_closely(&self, key: &MetaKey, cas: bool, touch: Option<u32>) -> Result<Option<Item>, Error> {
        let deadline = self.deadline();
        let Some(found) = self.read(key, touch).await? else { return Ok(None) };
        if let (true, Some(cas)) = (found.won, found.cas) {
            self.until(deadline).decline(key, cas).await;
        }
        Ok(found.into_item(cas))
    }

    /// Becomes a call at once: the future holds that, and not the key beside it.
    fn get_plainly(
        &self,
        key: Key,
        cas: bool,
        touch: Option<u32>,
        deadline: Instant,
    ) -> impl Future<Output = Result<Option<Item>, Error>> {
        let call = Arc::new(Call::new(Request::Get { keys: Keys::One(key), cas, touch }, deadline));
        async move { self.enter(call).await?.lookup().await }
    }
}

/// Nothing is stored beside the promise of a value.
pub(super) fn may_be_lease(item: &Item) -> bool {
    item.value.is_empty() && item.flags == 0
}

impl meta::Item {
    /// As a classic get would bring it. `None` for a lease.
    pub(super) fn into_item(self, cas: bool) -> Option<Item> {
        if self.is_lease() {
            return None;
        }
        Some(Item { value: self.value?, flags: self.flags?, cas: self.cas.filter(|_| cas) })
    }
}
