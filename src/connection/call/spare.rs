//! Calls that are over, kept for the next ones of their thread: whoever is answered most often asks again at once, and the
//! memory is still at hand.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::Call;
use crate::protocol::{Keys, Request};

/// How many a thread keeps, at less than 300 bytes each. Few are needed: one is taken for each that is given back.
const KEPT: usize = 64;

thread_local! {
    static SPARE: RefCell<Vec<Arc<Call>>> = const { RefCell::new(Vec::new()) };
}

/// A call that nobody else has, to be filled in.
#[inline]
pub(super) fn take(deadline: Instant) -> Arc<Call> {
    // While its thread ends there are none.
    let spare = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten();
    spare.unwrap_or_else(|| Arc::new(Call::new(Request::Version, deadline)))
}

/// Keeps a call that is answered, if nobody else has it, and nothing is in it but a key.
#[inline]
pub(super) fn keep(mut call: Arc<Call>) {
    if Arc::strong_count(&call) == 1 && is_light(&mut call) {
        // Where there is no room it is dropped after the borrow is over.
        let _full = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < KEPT {
                spare.push(call);
                return None;
            }
            Some(call)
        });
    }
}

/// Whether nothing is in it but a key. A value is taken out, for its caller may want to be free of it.
#[inline]
fn is_light(call: &mut Arc<Call>) -> bool {
    match &call.request {
        Request::Get { keys: Keys::One(_), .. }
        | Request::Delete { .. }
        | Request::Touch { .. }
        | Request::Arithmetic { .. } => true,
        Request::Store { .. } => match Arc::get_mut(call) {
            Some(Call { request: Request::Store { value, .. }, .. }) => {
                // Whether it is empty does not tell what memory it keeps.
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
    use std::task::{Context, Waker};
    use std::time::Duration;

    use super::super::{Slot, call_settled};
    use super::*;
    use crate::key::Key;
    use crate::protocol::{Reply, StoreVerb};

    fn get(key: &str) -> Arc<Call> {
        let put = |place: &mut Key| place.become_key(b"", key.as_bytes());
        Call::get((false, None), Instant::now(), Waker::noop(), put).unwrap()
    }

    /// ResponseSlot a call that it is not there, and takes that out.
    fn finish(call: &mut Arc<Call>) {
        assert!(call.settle(0, Ok(None)).is_some());
        let _ = call_settled(call, &Context::from_waker(Waker::noop()), Slot::take_lookup);
    }

    #[test]
    fn one_that_is_over_becomes_the_next() {
        let mut first = get("first");
        finish(&mut first);
        let place = Arc::as_ptr(&first);
        keep(first);
        let next = get("next");
        assert_eq!(Arc::as_ptr(&next), place);
        assert_eq!(next.request().routed_by(), Some(&b"next"[..]));
        assert!(!next.is_over());
        assert!(next.settle(0, Ok(None)).is_some());
        assert!(next.settle(0, Ok(None)).is_none(), "once");
    }

    #[test]
    fn nothing_comes_in_after_the_answer_was_taken() {
        let mut call = get("key");
        finish(&mut call);
        assert!(call.settle(0, Ok(None)).is_none());
        keep(call);
        let next = get("next");
        assert!(!next.is_over());
    }

    #[test]
    fn whatever_became_of_its_answer_the_next_can_be_answered() {
        let call = get("key");
        call.abandon();
        keep(call);
        let next = get("next");
        assert!(next.settle(0, Ok(None)).is_some(), "or its caller would wait for ever");
    }

    #[test]
    fn one_that_somebody_still_has_is_not_kept() {
        let mut call = get("key");
        finish(&mut call);
        // Such as the pipeline, to which the server still owes the answer after the deadline.
        let owed = Arc::clone(&call);
        keep(call);
        assert_ne!(Arc::as_ptr(&get("next")), Arc::as_ptr(&owed));
    }

    #[test]
    fn one_filled_in_again_is_as_a_new_one() {
        let now = Instant::now();
        let asked = |form, deadline, key: &[u8]| {
            let call = Call::get(form, deadline, Waker::noop(), |place| place.become_key(b"p:", key)).unwrap();
            let Request::Get { keys: Keys::One(key), cas, touch } = call.request() else { panic!("not a get") };
            assert_eq!(call.weight(), call.request().weight());
            let known = ((*cas, *touch), call.deadline(), key.as_bytes().to_vec());
            (call, known)
        };
        let (mut first, known) = asked((true, Some(9)), now + Duration::from_secs(9), b"first");
        assert_eq!(known, ((true, Some(9)), now + Duration::from_secs(9), b"p:first".to_vec()));
        finish(&mut first);
        let place = Arc::as_ptr(&first);
        keep(first);
        let (next, known) = asked((false, None), now, &[b'k'; 100]);
        assert_eq!(known, ((false, None), now, [&b"p:"[..], &[b'k'; 100]].concat()));
        assert_eq!(Arc::as_ptr(&next), place);
    }

    /// Whoever answered has not let go of it when the answer is taken, and has when the call is to be kept.
    #[test]
    fn nothing_of_a_value_is_kept() {
        struct Owner {
            bytes: &'static [u8],
            _held: Arc<()>,
        }
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                self.bytes
            }
        }
        // What is empty may have memory all the same.
        for bytes in [&b"value"[..], b""] {
            for is_shared in [true, false] {
                let held = Arc::new(());
                let value = Bytes::from_owner(Owner { bytes, _held: Arc::clone(&held) });
                let key = Key::new("key").unwrap();
                let store = Request::Store { verb: StoreVerb::Set, key, flags: 0, exptime: 0, value };
                let mut call = Call::filled(store, Instant::now());
                let owed = is_shared.then(|| Arc::clone(&call));
                assert!(call.reply(Ok(Reply::Stored)).is_none());
                assert!(call_settled(&mut call, &Context::from_waker(Waker::noop()), Slot::take_reply).is_ready());
                drop(owed);
                keep(call);
                assert_eq!(Arc::strong_count(&held), 1, "{bytes:?}");
            }
        }
    }

    #[test]
    fn no_more_are_kept_than_that() {
        let mut calls: Vec<_> = (0..2 * KEPT).map(|_| get("key")).collect();
        calls.iter_mut().for_each(finish);
        calls.into_iter().for_each(keep);
        SPARE.with(|spare| assert_eq!(spare.borrow().len(), KEPT));
        assert!(size_of::<Call>() + 2 * size_of::<usize>() < 300, "as it says above");
    }

    #[test]
    fn a_bad_key_leaves_the_others_alone() {
        let mut call = get("key");
        finish(&mut call);
        keep(call);
        let bad = Call::get((false, None), Instant::now(), Waker::noop(), |place| place.become_key(b"", b"a b"));
        assert!(bad.is_err());
        assert_eq!(get("next").request().routed_by(), Some(&b"next"[..]));
    }
}
