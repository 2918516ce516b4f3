//! When the source is polled again.

use proptest::prelude::*;

use super::*;
use crate::discovery::tracker::schedule;

/// docs/discovery.md, row 24: without a TTL, or with a TTL of 0, the shortest interval applies.
#[test]
fn intervals_follow_the_ttl_within_bounds() {
    for (ttl, least, most) in [(0, 5.0, 5.5), (3, 5.0, 5.5), (7, 7.0, 7.7), (86_400, 15.0, 16.0)] {
        let mut sim = Sim::fresh(options(), "a");
        for at in 1..50 {
            sim.tracker.observe(sim.at(at), &Ok(listing("a", ttl)));
            let wait = sim.wait(at);
            assert!((least..=most).contains(&wait), "TTL {ttl}: {wait}");
        }
        sim.tracker.observe(sim.at(50), &Ok(Membership::new([endpoint("a")])));
        assert!((5.0..=5.5).contains(&sim.wait(50)), "no TTL");
    }
}

/// docs/discovery.md, row 25.
#[test]
fn the_first_polls_of_a_fleet_spread_out() {
    let start = Instant::now();
    let mut firsts = Vec::new();
    for seed in 0..1000 {
        let mut tracker = Tracker::new(options().seed(seed), start);
        tracker.observe(start, &Ok(listing("a b", 5)));
        firsts.push((tracker.next_poll().unwrap() - start).as_millis());
    }
    assert!(firsts.iter().all(|first| (2_500..=5_500).contains(first)));
    for part in 0..5 {
        let range = 2_500 + part * 500..3_000 + part * 500;
        assert!(firsts.iter().filter(|first| range.contains(*first)).count() > 80, "{range:?}");
    }
}

/// docs/discovery.md, rows 2 and 4: after empty answers, and after errors.
#[test]
fn retries_are_quick_at_first() {
    let mut sim = Sim::new(options());
    let waits: Vec<f64> = (0..5)
        .map(|at| {
            sim.nxdomain(at);
            assert_eq!(sim.tracker.state(), DiscoveryState::Empty);
            sim.wait(at)
        })
        .collect();
    for (wait, least) in waits.iter().zip([1.0, 2.0, 5.0, 5.0, 5.0]) {
        assert!((least..=least * 1.1).contains(wait), "{waits:?}");
    }

    let mut sim = Sim::new(options());
    for (at, usual) in (0..40).zip([1.0, 1.6, 2.56, 4.1, 6.55, 10.5].into_iter().chain(std::iter::repeat(15.0))) {
        sim.error(at);
        assert_eq!(sim.tracker.state(), DiscoveryState::Starting);
        let wait = sim.wait(at);
        assert!((usual * 0.79..=usual * 1.21).contains(&wait) && (1.0..=15.0).contains(&wait), "{at}: {wait}");
    }
    sim.ok(100, "a");
    sim.error(101);
    assert!(sim.wait(101) < 1.21, "a success resets the backoff");
}

/// docs/discovery.md, row 26: any number of requests cause one poll, at least a second after the last.
#[test]
fn poll_requests_bring_one_poll_forward() {
    let mut sim = Sim::fresh(options(), "a b");
    sim.ok(10, "a b");
    for _ in 0..500 {
        sim.tracker.request_poll(sim.at(10));
    }
    assert!((sim.wait(10) - 1.0).abs() < 1e-9, "not within a second");
    sim.tracker.request_poll(sim.at(12));
    assert!(sim.wait(10) < 1.001, "a request never delays a poll");
    sim.ok(12, "a b c");
    sim.tracker.request_poll(sim.at(14));
    assert!(sim.wait(14) < 1e-9, "that poll found news, so the next request counts");
    sim.ok(14, "a@10.0.0.1 b c");
    sim.tracker.request_poll(sim.at(16));
    assert!(sim.wait(16) < 1e-9, "an address is news, too");
}

/// docs/discovery.md, row 27: the poll is repeated when the answer's TTL ends, and not before.
#[test]
fn an_early_poll_without_news_suppresses_further_requests() {
    let mut sim = Sim::fresh(options(), "a b");
    sim.ok(10, "a b");
    sim.tracker.request_poll(sim.at(12));
    sim.tracker.observe(sim.at(12), &Ok(listing("a b", 3)));
    assert!((3.0..=3.3).contains(&sim.wait(12)));
    let due = sim.tracker.next_poll();
    for _ in 0..500 {
        sim.tracker.request_poll(sim.at(14));
    }
    assert_eq!(sim.tracker.next_poll(), due);
    sim.tracker.observe(sim.at(15), &Ok(listing("a b", 5)));
    assert!(sim.wait(15) >= 5.0);
    sim.tracker.request_poll(sim.at(17));
    assert!(sim.wait(17) < 1e-9, "after the regular poll requests count again");
}

/// docs/discovery.md, rows 16 and 26.
#[test]
fn poll_requests_do_not_bypass_the_backoff() {
    let mut sim = Sim::fresh(options(), "a b");
    for at in 1..10 {
        sim.error(at);
    }
    let due = sim.tracker.next_poll();
    sim.tracker.request_poll(sim.at(12));
    assert_eq!(sim.tracker.next_poll(), due);
}

#[test]
fn maximal_durations_do_not_overflow() {
    let forever = options()
        .poll_interval(Duration::MAX, Duration::MAX)
        .removal_grace(Duration::MAX)
        .mass_removal_hold(Duration::MAX)
        .empty(EmptyPolicy::ClearAfter(Duration::MAX));
    let mut sim = Sim::fresh(forever, "a b c");
    assert!(!sim.ok(5, "a") && !sim.ok(10, "a") && !sim.nxdomain(15) && !sim.error(20) && !sim.tick(1_000_000));
    assert!(sim.tracker.next_wake().is_some());
}

/// What happens to a schedule, and after which part of the time to the next poll.
#[derive(Debug, Clone)]
enum Event {
    Listing(u64),
    Empty,
    Failure,
    Request,
    Demand,
    LostReports,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_u64..40).prop_map(Event::Listing),
        Just(Event::Empty),
        Just(Event::Failure),
        Just(Event::Request),
        Just(Event::Demand),
        Just(Event::LostReports),
    ]
}

proptest! {
    /// docs/discovery.md, rows 25 and 26: whatever happens, and whatever requests a poll.
    #[test]
    fn polls_are_spaced(
        events in proptest::collection::vec((event(), 0_u64..20_000), 1..60),
        min_interval in 10_u64..8_000,
        seed: u64,
    ) {
        let min_interval = Duration::from_millis(min_interval);
        let options = options().poll_interval(min_interval, secs(15)).seed(seed);
        let mut now = Instant::now();
        let mut tracker = Tracker::new(options, now);
        let (mut due, mut last_poll) = (tracker.next_poll(), None);
        for (event, after) in events {
            now += Duration::from_millis(after);
            let outcome = match event {
                Event::Listing(ttl) => Some(Ok(listing("a b", ttl))),
                Event::Empty => Some(Err(DiscoveryError::empty(true, None))),
                Event::Failure => Some(Err(DiscoveryError::Timeout)),
                Event::Request => { tracker.request_poll(now); None }
                Event::Demand => { tracker.demand_poll(now); None }
                Event::LostReports => { tracker.expect_poll(now); None }
            };
            // A poll comes when it is due.
            if let (Some(outcome), Some(at)) = (outcome, due) {
                now = now.max(at);
                if let Some(last) = last_poll {
                    prop_assert!(at - last >= min_interval.min(schedule::SPACING), "{:?} after the last", at - last);
                }
                tracker.observe(now, &outcome);
                last_poll = Some(now);
            }
            due = tracker.next_poll();
            prop_assert!(due.is_some_and(|due| due <= now + secs(17)), "the next poll comes in time");
        }
    }
}
