//! The calls of a queue in their order, each of which can be removed in constant time.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use crate::connection::call::Call;
use crate::protocol::Request;

/// Vacant places are removed when there are more of them than calls, and more than this.
const VACANT_PLACES: usize = 64;

/// An ordered list of calls, with its weight.
///
/// Each call knows its position. A call that is removed leaves a vacant place, so that the positions behind it stay
/// valid. Vacant places at either end go at once, all others when they outnumber the calls: a removal costs constant
/// time on average, and the list takes memory in proportion to its calls.
#[derive(Debug)]
pub(super) struct CallList {
    places: VecDeque<Arc<Call>>,
    /// Stands in every vacant place.
    vacant: Arc<Call>,
    /// The position of the first place. Positions wrap.
    first: u32,
    len: usize,
    bytes: usize,
}

impl CallList {
    pub(super) fn new() -> Self {
        let vacant = Arc::new(Call::new(Request::Version, Instant::now()));
        Self { places: VecDeque::new(), vacant, first: 0, len: 0, bytes: 0 }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The weight of all calls.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    #[inline]
    pub(super) fn push_back(&mut self, call: Arc<Call>) {
        call.set_position(self.first.wrapping_add(self.places.len() as u32));
        self.bytes += call.weight();
        self.len += 1;
        self.places.push_back(call);
    }

    pub(super) fn push_front(&mut self, call: Arc<Call>) {
        self.first = self.first.wrapping_sub(1);
        call.set_position(self.first);
        self.bytes += call.weight();
        self.len += 1;
        self.places.push_front(call);
    }

    /// Removes a call and returns whether it was in the list.
    pub(super) fn remove(&mut self, call: &Arc<Call>) -> bool {
        let index = call.position().wrapping_sub(self.first) as usize;
        match self.places.get_mut(index) {
            Some(place) if Arc::ptr_eq(place, call) => *place = Arc::clone(&self.vacant),
            _ => return false,
        }
        self.len -= 1;
        self.bytes -= call.weight();
        while self.places.front().is_some_and(|place| Arc::ptr_eq(place, &self.vacant)) {
            self.places.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        while self.places.back().is_some_and(|place| Arc::ptr_eq(place, &self.vacant)) {
            self.places.pop_back();
        }
        self.compact();
        true
    }

    /// Removes the vacant places if there are too many.
    fn compact(&mut self) {
        let vacant = self.places.len() - self.len;
        if vacant > self.len.max(VACANT_PLACES) {
            self.retain(|_| true);
        }
    }

    /// Moves calls from the front to the end of `batch`, until that has `max_calls`, or the calls moved reach
    /// `max_bytes`.
    #[inline]
    pub(super) fn move_to(&mut self, batch: &mut VecDeque<Arc<Call>>, max_calls: usize, max_bytes: usize) {
        if self.is_empty() {
            return;
        }
        let has_vacant = self.places.len() > self.len;
        if batch.is_empty() && !has_vacant && self.len <= max_calls && self.bytes <= max_bytes {
            // Moves all of them without a look at each: callers on other threads wait for the lock.
            self.first = self.first.wrapping_add(self.places.len() as u32);
            std::mem::swap(&mut self.places, batch);
            (self.len, self.bytes) = (0, 0);
        } else {
            self.move_some_to(batch, max_calls, max_bytes);
        }
    }

    fn move_some_to(&mut self, batch: &mut VecDeque<Arc<Call>>, max_calls: usize, max_bytes: usize) {
        let mut moved = 0;
        while batch.len() < max_calls && moved < max_bytes {
            let Some(call) = self.places.pop_front() else { break };
            self.first = self.first.wrapping_add(1);
            if Arc::ptr_eq(&call, &self.vacant) {
                continue;
            }
            moved += call.weight();
            self.bytes -= call.weight();
            self.len -= 1;
            batch.push_back(call);
        }
        self.compact();
    }

    /// Removes the calls whose deadline has passed, in their order.
    pub(super) fn remove_late(&mut self, now: Instant) -> Vec<Arc<Call>> {
        let mut late = Vec::new();
        self.retain(|call| {
            let is_late = call.deadline() <= now;
            if is_late {
                late.push(Arc::clone(call));
            }
            !is_late
        });
        late
    }

    /// Removes all calls, in their order.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Arc<Call>> {
        (self.len, self.bytes) = (0, 0);
        self.places.drain(..).filter(|place| !Arc::ptr_eq(place, &self.vacant))
    }

    #[inline]
    pub(super) fn earliest_deadline(&self) -> Option<Instant> {
        if self.is_empty() { None } else { self.min_deadline() }
    }

    fn min_deadline(&self) -> Option<Instant> {
        let calls = self.places.iter().filter(|place| !Arc::ptr_eq(place, &self.vacant));
        calls.map(|call| call.deadline()).min()
    }

    /// Keeps some of the calls, and no vacant place.
    fn retain(&mut self, mut keeps: impl FnMut(&Arc<Call>) -> bool) {
        (self.len, self.bytes) = (0, 0);
        self.places.retain(|place| {
            if Arc::ptr_eq(place, &self.vacant) || !keeps(place) {
                return false;
            }
            place.set_position(self.first.wrapping_add(self.len as u32));
            self.len += 1;
            self.bytes += place.weight();
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn call(deadline: Instant) -> Arc<Call> {
        Arc::new(Call::new(Request::Version, deadline))
    }

    #[derive(Debug, Clone)]
    enum Step {
        PushBack,
        PushFront,
        Remove(usize),
        Take(usize),
        RemoveLate(u64),
        Drain,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => Just(Step::PushBack),
            2 => Just(Step::PushFront),
            8 => any::<prop::sample::Index>().prop_map(|index| Step::Remove(index.index(400))),
            1 => (0_usize..40).prop_map(Step::Take),
            1 => (0_u64..400).prop_map(Step::RemoveLate),
            1 => Just(Step::Drain),
        ]
    }

    proptest! {
        /// Compares the list with a plain one, from a position shortly before the numbers wrap.
        #[test]
        fn any_sequence_of_steps_leaves_the_calls_of_a_plain_list(
            first in prop_oneof![Just(0), Just(u32::MAX - 20)],
            steps in prop::collection::vec(step(), 0..300),
        ) {
            let now = Instant::now();
            let (mut list, mut plain) = (CallList { first, ..CallList::new() }, VecDeque::<Arc<Call>>::new());
            let mut all: Vec<Arc<Call>> = Vec::new();
            for (number, step) in (0..).zip(steps) {
                match step {
                    Step::PushBack | Step::PushFront => {
                        let call = call(now + Duration::from_millis(number));
                        all.push(Arc::clone(&call));
                        if let Step::PushBack = step {
                            list.push_back(Arc::clone(&call));
                            plain.push_back(call);
                        } else {
                            list.push_front(Arc::clone(&call));
                            plain.push_front(call);
                        }
                    }
                    Step::Remove(index) => {
                        let Some(call) = all.get(index) else { continue };
                        let at = plain.iter().position(|other| Arc::ptr_eq(other, call));
                        prop_assert_eq!(list.remove(call), at.is_some());
                        at.map(|at| plain.remove(at));
                    }
                    Step::Take(calls) => {
                        let (mut taken, max_bytes) = (VecDeque::new(), calls * 40);
                        list.move_to(&mut taken, calls, max_bytes);
                        let mut moved = 0;
                        for call in &taken {
                            prop_assert!(moved < max_bytes);
                            moved += call.weight();
                            prop_assert!(plain.pop_front().is_some_and(|front| Arc::ptr_eq(&front, call)));
                        }
                        prop_assert!(taken.len() == calls || plain.is_empty() || moved >= max_bytes);
                    }
                    Step::RemoveLate(millis) => {
                        let due = now + Duration::from_millis(millis);
                        let late = list.remove_late(due);
                        prop_assert!(late.iter().all(|call| call.deadline() <= due));
                        let before = plain.len();
                        plain.retain(|call| call.deadline() > due);
                        prop_assert_eq!(before - plain.len(), late.len());
                    }
                    Step::Drain => {
                        prop_assert!(list.drain().zip(&plain).all(|(a, b)| Arc::ptr_eq(&a, b)));
                        plain.clear();
                    }
                }
                prop_assert_eq!(list.len(), plain.len());
                prop_assert_eq!(list.bytes(), plain.iter().map(|call| call.weight()).sum::<usize>());
                prop_assert_eq!(list.earliest_deadline(), plain.iter().map(|call| call.deadline()).min());
                prop_assert!(list.places.len() <= list.len() + list.len().max(VACANT_PLACES));
            }
        }
    }

    #[test]
    fn a_removed_call_is_released() {
        let mut list = CallList::new();
        let calls: Vec<_> = (0..3).map(|_| call(Instant::now())).collect();
        calls.iter().for_each(|call| list.push_back(Arc::clone(call)));
        assert!(list.remove(&calls[1]));
        assert_eq!(Arc::strong_count(&calls[1]), 1);
        assert!(!list.remove(&calls[1]));
    }

    #[test]
    fn vacant_places_are_removed_when_they_outnumber_the_calls() {
        for first in [0, u32::MAX - 20] {
            let mut list = CallList { first, ..CallList::new() };
            let calls: Vec<_> = (0..300).map(|_| call(Instant::now())).collect();
            calls.iter().for_each(|call| list.push_back(Arc::clone(call)));
            for call in &calls[1..299] {
                assert!(list.remove(call));
                assert!(list.places.len() - list.len() <= list.len().max(VACANT_PLACES));
            }
            // The calls left know their new positions.
            list.push_front(call(Instant::now()));
            assert!(list.remove(&calls[299]) && list.remove(&calls[0]));
            assert_eq!((list.len(), list.places.len()), (1, 1));
        }
    }

    #[test]
    fn vacant_places_are_removed_when_a_batch_leaves_more_of_them_than_calls() {
        let mut list = CallList::new();
        let calls: Vec<_> = (0..400).map(|_| call(Instant::now())).collect();
        calls.iter().for_each(|call| list.push_back(Arc::clone(call)));
        // Of the last 200 calls every tenth stays.
        for (index, call) in calls.iter().enumerate().skip(200).filter(|(index, _)| index % 10 != 9) {
            assert!(list.remove(call), "{index}");
        }
        assert_eq!((list.len(), list.places.len()), (220, 400));
        let mut batch = VecDeque::new();
        list.move_to(&mut batch, 200, usize::MAX);
        assert_eq!((batch.len(), list.len(), list.places.len()), (200, 20, 20));
        assert!(list.remove(&calls[209]) && !list.remove(&calls[210]));
    }
}
