//! Reading one item: by a classic get wherever that can tell what is there.
//!
//! A lease that [`Client::fetch`] or another client took stands in the cache as an empty item, and a classic get cannot
//! tell it from an empty value. So an empty value is looked at once more, by a meta get, before it is believed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::time::Instant;

use super::Client;
use super::meta::{self, Delete, Get, Options};
use crate::connection::{Call, GetResult, ResponseFuture};
use crate::error::{Error, ErrorKind};
use crate::item::{Cas, Item};
use crate::key::MetaKey;
use crate::protocol::{Keys, MetaVerb, Request};

impl Client {
    /// What every reader of one key goes through.
    pub(super) fn find<'a>(&'a self, key: &'a [u8], cas: bool, touch: Option<u32>) -> Find<'a> {
        Find { client: self, key, cas, touch, step: Step::Unbegun }
    }

    /// As [`find`](Self::find), for who has the key already.
    pub(super) async fn find_at(&self, key: &MetaKey, cas: bool) -> Result<Option<Item>, Error> {
        let deadline = self.deadline();
        match key {
            MetaKey::Text(text) => {
                let request = Request::Get { keys: Keys::One(text.clone()), cas, touch: None };
                match self.enter(Call::filled(request, deadline)).await?.lookup().await? {
                    Some(item) if may_be_lease(&item) => {
                        self.until(deadline).unless_lease(key.clone(), item, cas).await
                    }
                    found => Ok(found),
                }
            }
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

    /// Looks once more at what may be a lease, with what is left until the deadline.
    async fn look_again(&self, key: &[u8], item: Item, cas: bool, deadline: Instant) -> GetResult {
        self.until(deadline).unless_lease(self.any_key(key)?, item, cas).await
    }
}

/// Reading one item. By hand what an `async fn` would do with more moving about: there is no other way as many commands go.
pub(super) struct Find<'a> {
    client: &'a Client,
    key: &'a [u8],
    cas: bool,
    touch: Option<u32>,
    step: Step<'a>,
}

enum Step<'a> {
    Unbegun,
    Asked {
        ticket: ResponseFuture,
        deadline: Instant,
    },
    /// All that is rare, so that it does not make every get's future larger.
    Rare(Pin<Box<dyn Future<Output = GetResult> + Send + Sync + 'a>>),
}

impl<'a> Find<'a> {
    /// The next step, if the first is to be waited for.
    fn begin(&self, cx: &Context<'_>) -> Step<'a> {
        let &Self { client, key, cas, touch, .. } = self;
        let deadline = client.deadline();
        let Ok(call) = Call::get((cas, touch), deadline, cx.waker(), |place| client.put_key(key, place)) else {
            // Binary, or none.
            return Step::Rare(Box::pin(async move { client.find_closely(&client.any_key(key)?, cas, touch).await }));
        };
        match client.enter_at_once(call) {
            Ok(ticket) => Step::Asked { ticket: ticket.begun(), deadline },
            Err(call) => Step::Rare(Box::pin(async move {
                match client.enter_patiently(&call).await?.lookup().await? {
                    Some(item) if may_be_lease(&item) => client.look_again(key, item, cas, deadline).await,
                    found => Ok(found),
                }
            })),
        }
    }
}

impl Future for Find<'_> {
    type Output = GetResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<GetResult> {
        let Self { client, key, cas, .. } = *self;
        loop {
            match &mut self.step {
                Step::Unbegun => self.step = self.begin(cx),
                Step::Asked { ticket, deadline } => {
                    let (found, deadline) = (ready!(ticket.poll_lookup(cx)), *deadline);
                    match found {
                        Ok(Some(item)) if may_be_lease(&item) => {
                            self.step = Step::Rare(Box::pin(client.look_again(key, item, cas, deadline)));
                        }
                        found => return Poll::Ready(found),
                    }
                }
                Step::Rare(rest) => return rest.as_mut().poll(cx),
            }
        }
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
