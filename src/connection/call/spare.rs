//! Calls that are over, kept for the next ones of their thread: whoever is answered most often asks again at once, and the
//! memory is still at hand.

use std::cell::RefCell;
use std::sync::Arc;

use tokio::time::Instant;

use super::Call;
use crate::protocol::{Keys, Request};

/// How many a thread keeps, at 270 bytes each. Few are needed: one is taken for each that is given back.
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
pub(super) fn keep(call: Arc<Call>) {
    if Arc::strong_count(&call) == 1 && is_light(&call.request) {
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

#[inline]
fn is_light(request: &Request) -> bool {
    match request {
        Request::Get { keys: Keys::One(_), .. } | Request::Delete { .. } => true,
        // Its caller may want to be free of the value.
        Request::Store { value, .. } => value.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::super::{Slot, call_settled};
    use super::*;
    use crate::key::Key;

    fn get(key: &str) -> Arc<Call> {
        let put = |place: &mut Key| place.become_key(b"", key.as_bytes());
        Call::get((false, None), Instant::now(), Waker::noop(), put).unwrap()
    }

    /// Answers a call that it is not there, and takes that out.
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
    fn one_that_somebody_still_has_is_not_kept() {
        let mut call = get("key");
        finish(&mut call);
        // Such as the pipeline, to which the server still owes the answer after the deadline.
        let owed = Arc::clone(&call);
        keep(call);
        assert_ne!(Arc::as_ptr(&get("next")), Arc::as_ptr(&owed));
    }

    #[test]
    fn no_more_are_kept_than_that() {
        let mut calls: Vec<_> = (0..2 * KEPT).map(|_| get("key")).collect();
        calls.iter_mut().for_each(finish);
        calls.into_iter().for_each(keep);
        SPARE.with(|spare| assert_eq!(spare.borrow().len(), KEPT));
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
