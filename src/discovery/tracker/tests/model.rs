//! The tracker against a stateless model, which derives the nodes in use from the whole history each time.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::discovery::tracker::schedule::SPACING;

#[derive(Debug, Clone)]
enum Event {
    Listed(BTreeSet<u8>),
    Nothing,
    Failed,
}

type History = Vec<(u64, Event)>;

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => proptest::collection::btree_set(0_u8..7, 1..7).prop_map(Event::Listed),
        1 => Just(Event::Nothing),
        2 => Just(Event::Failed),
    ]
}

/// Generates events at growing times.
fn history() -> impl Strategy<Value = History> {
    proptest::collection::vec((1_u64..40, event()), 1..30).prop_map(|steps| {
        let mut now = 0;
        let mut at = |wait| {
            now += wait;
            now
        };
        steps.into_iter().map(|(wait, event)| (at(wait), event)).collect()
    })
}

/// Returns which nodes are in use at `now`, after the history.
fn expected(history: &History, now: u64, grace: u64, hold: u64) -> BTreeSet<u8> {
    let good: Vec<(usize, u64, &BTreeSet<u8>)> = history
        .iter()
        .enumerate()
        .filter_map(|(at, (time, event))| match event {
            Event::Listed(nodes) => Some((at, *time, nodes)),
            _ => None,
        })
        .collect();
    let in_use = |node: u8| {
        let Some(last) = good.iter().rposition(|(_, _, nodes)| nodes.contains(&node)) else { return false };
        let Some(&(_, since, after)) = good.get(last + 1) else { return true };
        let before = good[last].2;
        let gone = before.difference(after).count();
        let held = if gone >= 2 && gone * 2 > before.len() { hold } else { 0 };
        let due = since + grace.max(held);
        let needed = if grace == 0 { 1 } else { 2 };
        // It leaves at `due`, or at the answer that completes the number if that is later, unless an error or an empty
        // answer comes in between.
        !good.iter().skip(last + needed).any(|&(at, time, _)| {
            let fresh_until = history.get(at + 1).map_or(u64::MAX, |(next, _)| *next);
            let leaves = due.max(time);
            leaves <= now && (leaves < fresh_until || leaves == time)
        })
    };
    (0..7).filter(|node| in_use(*node)).collect()
}

fn used(tracker: &Tracker) -> BTreeSet<u8> {
    let number = |endpoint: &Endpoint| endpoint.id().host()[1..].parse().unwrap();
    tracker.roster().endpoints.iter().map(number).collect()
}

proptest! {
    #[test]
    fn the_roster_is_a_function_of_the_answers(history in history(), grace in 0_u64..60, hold in 0_u64..60) {
        let start = Instant::now();
        let at = |seconds: u64| start + secs(seconds);
        let options = DiscoveryOptions::default().removal_grace(secs(grace)).mass_removal_hold(secs(hold)).seed(1);
        let mut tracker = Tracker::new(options, start);
        let mut version = 0;
        for (step, (time, event)) in history.iter().enumerate() {
            // Removals due before the next poll take place between polls.
            while let Some(due) = tracker.next_wake()
                && due < at(*time)
                && tracker.next_poll() != Some(due)
            {
                let before = used(&tracker);
                tracker.tick(due);
                prop_assert!(used(&tracker).is_subset(&before));
                prop_assert_ne!(tracker.next_wake(), Some(due), "what was due has happened");
            }
            // The tracker has scheduled polls in between; the runtime is late and makes none.
            tracker.tick(at(*time) - Duration::from_nanos(1));

            let before = used(&tracker);
            let outcome = match event {
                Event::Listed(nodes) => Ok(Membership::new(nodes.iter().map(|node| endpoint(&format!("n{node}"))))),
                Event::Nothing => Err(DiscoveryError::empty(true, None)),
                Event::Failed => Err(DiscoveryError::Timeout),
            };
            let published = tracker.observe(at(*time), &outcome);
            if outcome.is_err() {
                prop_assert!(published.is_none(), "an error changes nothing");
            }
            if let Event::Listed(nodes) = event {
                prop_assert!(nodes.is_subset(&used(&tracker)));
            }
            prop_assert_eq!(published.is_some(), before != used(&tracker));
            prop_assert!(tracker.roster().version >= version);
            version = tracker.roster().version;
            prop_assert!(tracker.next_poll().unwrap() >= at(*time) + SPACING);

            let so_far = history[..=step].to_vec();
            prop_assert_eq!(used(&tracker), expected(&so_far, *time, grace, hold), "after step {}", step);
        }
    }
}
