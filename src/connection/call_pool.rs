//! A small pool of completed calls for each thread.
//!
//! A caller that has its response most often makes the next request at once. It then fills in the call it just
//! released, whose memory is still in the processor's cache.
//!
//! # What holds for every call in the pool
//!
//! [`keep`] is the only way into the pool, and checks this:
//!
//! 1. Nothing else refers to the call. No queue, pipeline or future can change it, or find another request in it.
//! 2. Its slot is complete, and the response was taken. So the call holds no value.
//! 3. Of its request, no memory remains but that of one key.
//!
//! Three places rely on it. `NewCall` changes the call without a lock, by 1. `Call::refill` writes the next key over
//! the last one, by 3, and makes the slot wait again only if the last response was one item and was taken
//! (`Slot::is_empty_item`); otherwise, as `Call::replace` does, it makes a new request and a new slot. And a result
//! that comes after a response was taken finds the slot complete (`Slot::put_item`), by 2. `Call::refill` keeps the
//! waker and the `Caller`. Both are set again before the call is queued, or when its future is first polled.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::call::Call;
use crate::protocol::{Keys, Request};

/// The most calls a thread keeps, at less than 300 bytes each. Few are needed: every call taken is one given back.
const CAPACITY: usize = 64;

thread_local! {
    static POOL: RefCell<Vec<Arc<Call>>> = const { RefCell::new(Vec::new()) };
}

/// Returns a call that nothing else refers to, to be filled in.
#[inline]
pub(super) fn take(deadline: Instant) -> Arc<Call> {
    // The pool is not accessible while its thread ends.
    let pooled = POOL.try_with(|pool| pool.borrow_mut().pop()).ok().flatten();
    pooled.unwrap_or_else(|| Arc::new(Call::new(Request::Version, deadline)))
}

/// Keeps a call whose response was taken, if nothing else refers to it and it holds nothing but a key.
#[inline]
pub(super) fn keep(mut call: Arc<Call>) {
    debug_assert!(call.is_over(), "the response was taken, or its caller dropped the future");
    if Arc::strong_count(&call) == 1 && is_reusable(&mut call) {
        // A call that does not fit is dropped after the borrow ends.
        let _full = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < CAPACITY {
                pool.push(call);
                return None;
            }
            Some(call)
        });
    }
}

/// Returns whether the call holds nothing but a key. Releases the value of a store, whose memory belongs to the caller.
#[inline]
fn is_reusable(call: &mut Arc<Call>) -> bool {
    match call.request() {
        Request::Get { keys: Keys::One(_), .. }
        | Request::Delete { .. }
        | Request::Touch { .. }
        | Request::Arithmetic { .. } => true,
        Request::Store { .. } => match Arc::get_mut(call).map(Call::request_mut) {
            Some(Request::Store { value, .. }) => {
                // An empty value can keep memory alive, too.
                *value = Bytes::new();
                true
            }
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::super::call::GetForm;
    use super::super::new_call::NewCall;
    use super::super::response_future::poll_call;
    use super::*;
    use crate::error::Error;
    use crate::item::Item;
    use crate::key::{InvalidKey, Key};
    use crate::protocol::{Reply, StoreVerb};

    fn new_get(form: GetForm, deadline: Instant, key: &[u8]) -> Result<Arc<Call>, InvalidKey> {
        NewCall::get(form, deadline, |place| place.assign(b"p:", key)).map(NewCall::into_call)
    }

    fn get(key: &str) -> Arc<Call> {
        let mut call = new_get(GetForm::default(), Instant::now(), key.as_bytes()).unwrap();
        Arc::get_mut(&mut call).unwrap().slot_mut().set_waker(Waker::noop());
        call
    }

    fn poll<R: super::super::Response>(call: &mut Arc<Call>) -> Poll<Result<R, Error>> {
        poll_call(call, &Context::from_waker(Waker::noop()))
    }

    /// Completes a get with a miss and takes that out.
    fn finish(call: &mut Arc<Call>) {
        assert!(call.settle(0, Ok(None)).is_some());
        assert!(matches!(poll::<Option<Item>>(call), Poll::Ready(Ok(None))));
    }

    #[test]
    fn a_kept_call_is_reused_by_the_next_get() {
        let mut first = get("first");
        finish(&mut first);
        let place = Arc::as_ptr(&first);
        keep(first);
        let next = get("next");
        assert_eq!(Arc::as_ptr(&next), place);
        assert_eq!(next.request().routed_by(), Some(&b"p:next"[..]));
        assert!(!next.is_over());
        assert!(next.settle(0, Ok(None)).is_some());
        assert!(next.settle(0, Ok(None)).is_none(), "a key has one result");
    }

    #[test]
    fn a_result_that_comes_after_the_response_was_taken_is_ignored() {
        let mut call = get("key");
        finish(&mut call);
        assert!(call.settle(0, Ok(None)).is_none());
        keep(call);
        let next = get("next");
        assert!(!next.is_over());
    }

    #[test]
    fn an_abandoned_call_can_be_reused() {
        let call = get("key");
        call.abandon();
        keep(call);
        let next = get("next");
        assert!(next.settle(0, Ok(None)).is_some(), "or its caller would wait until the deadline");
    }

    #[test]
    fn a_call_that_a_pipeline_still_holds_is_not_kept() {
        let mut call = get("key");
        finish(&mut call);
        // As when the response comes after the deadline.
        let held = Arc::clone(&call);
        keep(call);
        assert_ne!(Arc::as_ptr(&get("next")), Arc::as_ptr(&held));
    }

    #[test]
    fn a_reused_call_equals_a_new_one() {
        let now = Instant::now();
        let filled_in = |form, deadline, key: &[u8]| {
            let call = new_get(form, deadline, key).unwrap();
            let Request::Get { keys: Keys::One(key), cas, touch } = call.request() else { panic!("not a get") };
            assert_eq!(call.weight(), call.request().weight());
            let known = (GetForm { cas: *cas, touch: *touch }, call.deadline(), key.as_bytes().to_vec());
            (call, known)
        };
        let form = GetForm { cas: true, touch: Some(9) };
        let (mut first, known) = filled_in(form, now + Duration::from_secs(9), b"first");
        assert_eq!(known, (form, now + Duration::from_secs(9), b"p:first".to_vec()));
        assert!(first.settle(0, Ok(None)).is_none(), "no waker was set");
        assert!(poll::<Option<Item>>(&mut first).is_ready());
        let place = Arc::as_ptr(&first);
        keep(first);
        let (next, known) = filled_in(GetForm::default(), now, &[b'k'; 100]);
        assert_eq!(known, (GetForm::default(), now, [&b"p:"[..], &[b'k'; 100]].concat()));
        assert_eq!(Arc::as_ptr(&next), place);
    }

    /// A connection may release the call only after its response was taken, but before the call is kept.
    #[test]
    fn a_kept_call_releases_its_value() {
        struct Owner {
            bytes: &'static [u8],
            _held: Arc<()>,
        }
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                self.bytes
            }
        }
        // An empty value can own memory, too.
        for bytes in [&b"value"[..], b""] {
            for is_shared in [true, false] {
                let held = Arc::new(());
                let value = Bytes::from_owner(Owner { bytes, _held: Arc::clone(&held) });
                let key = Key::new("key").unwrap();
                let store = Request::Store { verb: StoreVerb::Set, key, flags: 0, exptime: 0, value };
                let mut call = NewCall::command(store, Instant::now()).into_call();
                let other = is_shared.then(|| Arc::clone(&call));
                assert!(call.reply(Ok(Reply::Stored)).is_none());
                assert!(poll::<Reply>(&mut call).is_ready());
                drop(other);
                keep(call);
                assert_eq!(Arc::strong_count(&held), 1, "{bytes:?}");
            }
        }
    }

    #[test]
    fn the_pool_has_a_limit() {
        let mut calls: Vec<_> = (0..2 * CAPACITY).map(|_| get("key")).collect();
        calls.iter_mut().for_each(finish);
        calls.into_iter().for_each(keep);
        POOL.with(|pool| assert_eq!(pool.borrow().len(), CAPACITY));
        assert!(size_of::<Call>() + 2 * size_of::<usize>() < 300, "as the constant's comment says");
    }

    #[test]
    fn an_invalid_key_leaves_the_pool_usable() {
        let mut call = get("key");
        finish(&mut call);
        keep(call);
        assert!(new_get(GetForm::default(), Instant::now(), b"a b").is_err());
        assert_eq!(get("next").request().routed_by(), Some(&b"p:next"[..]));
    }
}
