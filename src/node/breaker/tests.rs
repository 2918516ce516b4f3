//! Unit tests of the breaker, and a model for any sequence of events.

use proptest::prelude::*;

use super::*;

const TIMEOUT: Duration = Duration::from_millis(250);
const SECOND: Duration = Duration::from_secs(1);

fn breaker() -> (Breaker, Instant) {
    let now = Instant::now();
    (Breaker::new(BreakerOptions::default(), TIMEOUT, now), now)
}

fn silence() -> Observation {
    Observation { is_silent: true, key: Key::new("k").ok(), ..Observation::default() }
}

fn reply() -> Observation {
    Observation { has_replied: true, ..Observation::default() }
}

fn loss() -> Observation {
    Observation { is_lost: true, ..Observation::default() }
}

fn timeouts(sent: u64, timeouts: u64) -> Observation {
    Observation { sent, timeouts, ..Observation::default() }
}

#[test]
fn silence_opens_at_once_and_a_reply_closes() {
    let (mut breaker, now) = breaker();
    assert_eq!(breaker.observe(silence(), now), Some(Change::Opened(Cause::Silent)));
    assert_eq!(breaker.observe(silence(), now), None);
    assert_eq!(breaker.observe(reply(), now + SECOND), Some(Change::Closed { after: SECOND }));
    assert_eq!(breaker.probe_at(), None);
}

#[test]
fn a_reply_clears_a_run_of_lost_connections() {
    let (mut breaker, now) = breaker();
    for _ in 0..5 {
        assert_eq!(breaker.observe(loss(), now), None);
        assert_eq!(breaker.observe(loss(), now), None);
        assert_eq!(breaker.observe(reply(), now), None);
    }
    assert_eq!(breaker.observe(loss(), now), None);
    assert_eq!(breaker.observe(loss(), now), None);
    assert_eq!(breaker.observe(loss(), now), Some(Change::Opened(Cause::Lost)));
}

#[test]
fn a_slow_server_is_closed_only_by_a_probe_in_time() {
    let (mut breaker, now) = breaker();
    assert_eq!(breaker.observe(timeouts(30, 14), now), None);
    assert_eq!(breaker.observe(timeouts(0, 1), now), Some(Change::Opened(Cause::Slow)));
    assert_eq!(breaker.observe(reply(), now), None);
    breaker.probe_started(now);
    assert_eq!(breaker.probe_ended(true, now + TIMEOUT * 2), None);
    assert!(breaker.is_open() && breaker.probe_at().is_some());
    breaker.probe_started(now + SECOND);
    assert_eq!(breaker.probe_ended(true, now + SECOND + TIMEOUT), Some(Change::Closed { after: SECOND + TIMEOUT }));
}

#[test]
fn the_late_reply_of_a_slow_server_does_not_close() {
    let (mut breaker, now) = breaker();
    let seen = Observation { sent: 30, timeouts: 30, ..silence() };
    assert_eq!(breaker.observe(seen, now), Some(Change::Opened(Cause::Silent)));
    assert_eq!(breaker.observe(reply(), now + TIMEOUT), Some(Change::Reclassified(Cause::Slow)));
    // But it brings the probe forward, because the server may have been stopped before.
    assert_eq!(breaker.probe_at(), Some(now + TIMEOUT));
    breaker.probe_started(now + TIMEOUT);
    assert_eq!(breaker.probe_ended(true, now + TIMEOUT), Some(Change::Closed { after: TIMEOUT }));
}

#[test]
fn a_silent_server_is_closed_by_a_late_probe() {
    let (mut breaker, now) = breaker();
    breaker.observe(silence(), now);
    breaker.probe_started(now);
    assert_eq!(breaker.probe_ended(true, now + SECOND), Some(Change::Closed { after: SECOND }));
}

#[test]
fn every_other_probe_has_the_key_of_the_failure() {
    let (mut breaker, now) = breaker();
    breaker.observe(silence(), now);
    for _ in 0..2 {
        assert_eq!(breaker.probe_started(now).as_ref().map(Key::as_bytes), Some(&b"k"[..]));
        breaker.probe_ended(false, now);
        assert_eq!(breaker.probe_started(now), None);
        // Its connection is lost.
        breaker.observe(Observation { key: Key::new("reserved").ok(), ..loss() }, now);
        breaker.probe_ended(false, now);
    }
}

#[test]
fn a_node_that_fails_again_soon_opens_faster_and_is_probed_more_slowly() {
    let (mut breaker, mut now) = breaker();
    breaker.observe(silence(), now);
    for _ in 0..3 {
        breaker.probe_started(now);
        breaker.probe_ended(false, now);
    }
    breaker.observe(reply(), now);
    now += SECOND;
    assert_eq!(breaker.observe(loss(), now), Some(Change::Opened(Cause::Lost)));
    assert!(breaker.probe_at().unwrap() >= now + BreakerOptions::default().probe_max / 2);
    breaker.observe(reply(), now);
    now += BreakerOptions::default().window;
    assert_eq!(breaker.observe(loss(), now), None);
    breaker.observe(silence(), now);
    assert!(breaker.probe_at().unwrap() <= now + BreakerOptions::default().probe_min);
}

#[test]
fn a_disabled_breaker_never_opens() {
    let now = Instant::now();
    let mut breaker = Breaker::new(BreakerOptions::disabled(), TIMEOUT, now);
    for seen in [silence(), loss(), loss(), loss(), timeouts(100, 100)] {
        assert_eq!(breaker.observe(seen, now), None);
    }
    assert!(!breaker.is_open());
}

#[derive(Debug, Clone)]
enum Event {
    Wait(u64),
    Observe(Observation),
    ProbeStarted,
    ProbeEnded(bool),
    Hasten,
}

fn event() -> impl Strategy<Value = Event> {
    let observation = (any::<bool>(), any::<bool>(), any::<bool>(), 0..30_u64, 0..100_u64).prop_map(
        |(has_replied, is_silent, is_lost, timeouts, sent)| Observation {
            has_replied,
            is_silent,
            is_lost,
            timeouts,
            sent,
            key: None,
        },
    );
    prop_oneof![
        (0..20_000_u64).prop_map(Event::Wait),
        observation.prop_map(Event::Observe),
        Just(Event::Observe(reply())),
        Just(Event::Observe(loss())),
        Just(Event::ProbeStarted),
        any::<bool>().prop_map(Event::ProbeEnded),
        Just(Event::Hasten),
    ]
}

proptest! {
    /// After any event: an open breaker has a probe planned within the longest delay, or one in flight; a closed one
    /// has none. Changes are reported once each, opening has evidence, and closing has a reply.
    #[test]
    fn any_sequence_of_events_keeps_the_rules(events in proptest::collection::vec(event(), 1..80)) {
        let (mut breaker, mut now) = breaker();
        let mut losses = 0_u32;
        for event in events {
            let was_open = breaker.is_open();
            let cause = breaker.cause();
            let mut has_evidence = false;
            let mut has_reply = false;
            let change = match event {
                Event::Wait(ms) => {
                    now += Duration::from_millis(ms);
                    None
                }
                Event::Observe(seen) => {
                    losses = if seen.has_replied { 0 } else { losses } + u32::from(seen.is_lost);
                    has_reply = seen.has_replied && cause != Some(Cause::Slow);
                    has_evidence = seen.is_silent || losses > 0 || seen.timeouts > 0;
                    let is_silent = seen.is_silent;
                    let change = breaker.observe(seen, now);
                    prop_assert!(!is_silent || breaker.is_open());
                    change
                }
                Event::ProbeStarted => {
                    breaker.probe_started(now);
                    None
                }
                Event::ProbeEnded(has_replied) => {
                    has_reply = has_replied && breaker.is_half_open();
                    breaker.probe_ended(has_replied, now)
                }
                Event::Hasten => {
                    breaker.hasten_probe(now);
                    None
                }
            };
            match change {
                Some(Change::Opened(_)) => prop_assert!(breaker.is_open() && has_evidence && (!was_open || has_reply)),
                Some(Change::Reclassified(cause)) => prop_assert!(was_open && breaker.cause() == Some(cause)),
                Some(Change::Closed { .. }) => prop_assert!(!breaker.is_open() && was_open && has_reply),
                None => prop_assert_eq!(breaker.is_open(), was_open),
            }
            if was_open && !breaker.is_open() {
                losses = 0;
            }
            match breaker.probe_at() {
                Some(at) => prop_assert!(breaker.is_open() && at <= now + BreakerOptions::default().probe_max),
                None => prop_assert_eq!(breaker.is_open(), breaker.is_half_open()),
            }
        }
    }
}
