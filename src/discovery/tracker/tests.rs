//! The rows of the failure table that are about what answers mean. No clock runs here: time is a number.

mod model;

use super::*;

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn id(host: &str) -> NodeId {
    NodeId::new(host, 11211).unwrap()
}

/// A node `host`, or `host@ip`, or `host/priority`.
fn endpoint(text: &str) -> Endpoint {
    let (text, priority) = text.split_once('/').unwrap_or((text, "0"));
    let (host, ips) = text.split_once('@').unwrap_or((text, ""));
    Endpoint::new(id(host))
        .with_priority(priority.parse().unwrap())
        .with_addresses(ips.split(',').filter(|ip| !ip.is_empty()).map(|ip| ip.parse().unwrap()))
}

pub(super) fn listing(nodes: &str, ttl: u64) -> Membership {
    Membership::new(nodes.split_whitespace().map(endpoint)).with_ttl(secs(ttl))
}

/// A tracker, and the time since it began.
struct Sim {
    tracker: Tracker,
    start: Instant,
}

impl Sim {
    fn new(options: DiscoveryOptions) -> Self {
        let start = Instant::now();
        Self { tracker: Tracker::new(options.seed(7), start), start }
    }

    /// One that has seen these nodes at 0 s.
    fn fresh(options: DiscoveryOptions, nodes: &str) -> Self {
        let mut sim = Self::new(options);
        assert!(sim.ok(0, nodes));
        sim
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + secs(seconds)
    }

    /// An answer; whether the roster changed.
    fn ok(&mut self, at: u64, nodes: &str) -> bool {
        self.tracker.observe(self.at(at), &Ok(listing(nodes, 5))).is_some()
    }

    fn nxdomain(&mut self, at: u64) -> bool {
        self.tracker.observe(self.at(at), &Err(DiscoveryError::empty(true, Some(secs(5))))).is_some()
    }

    fn error(&mut self, at: u64) -> bool {
        self.tracker.observe(self.at(at), &Err(DiscoveryError::Timeout)).is_some()
    }

    fn tick(&mut self, at: u64) -> bool {
        self.tracker.tick(self.at(at)).is_some()
    }

    fn nodes(&self) -> String {
        let hosts: Vec<_> = self.tracker.roster().endpoints.iter().map(|endpoint| endpoint.id().host()).collect();
        hosts.join(" ")
    }

    fn version(&self) -> u64 {
        self.tracker.roster().version
    }

    fn addr_epoch(&self) -> u64 {
        self.tracker.roster().addr_epoch
    }

    /// How long from then until the next poll, in seconds.
    fn wait(&self, from: u64) -> f64 {
        (self.tracker.next_poll().unwrap() - self.at(from)).as_secs_f64()
    }

    /// When something is due next, in whole seconds from the start.
    fn wake(&self) -> u64 {
        (self.tracker.next_wake().unwrap() - self.start).as_secs()
    }
}

fn options() -> DiscoveryOptions {
    DiscoveryOptions::default()
}

/// Row 6: neither the order of the answer, nor of the addresses in it, nor its TTL is a change.
#[test]
fn order_and_ttl_are_no_change() {
    let mut sim = Sim::fresh(options(), "a@10.0.0.1,10.0.0.2 b c");
    assert!(!sim.ok(5, "c a@10.0.0.2,10.0.0.1 b"));
    assert!(sim.tracker.observe(sim.at(10), &Ok(listing("b c a", 30))).is_none());
    assert_eq!((sim.version(), sim.addr_epoch()), (1, 0));
}

/// Row 7: a pod added is in use at once.
#[test]
fn a_new_node_is_used_at_once() {
    let mut sim = Sim::fresh(options(), "a b");
    assert!(sim.ok(5, "a b c"));
    assert_eq!((sim.nodes().as_str(), sim.version()), ("a b c", 2));
}

/// Row 8: a pod removed for good leaves after its grace, between two polls if need be.
#[test]
fn a_vanished_node_leaves_after_its_grace() {
    let mut sim = Sim::fresh(options(), "a b c");
    assert!(!sim.ok(10, "a b"));
    assert_eq!(sim.tracker.vanished().collect::<Vec<_>>(), [&id("c")]);
    for at in (20..130).step_by(10) {
        assert!(!sim.ok(at, "a b"), "{at}");
    }
    assert!(!sim.ok(128, "a b"));
    assert_eq!(sim.wake(), 130);
    assert!(!sim.tick(129));
    assert!(sim.tick(130));
    assert_eq!((sim.nodes().as_str(), sim.version()), ("a b", 2));
}

/// Row 8: however short the grace, two answers must agree.
#[test]
fn one_answer_is_not_enough_to_leave() {
    let mut sim = Sim::fresh(options().removal_grace(secs(2)), "a b c");
    assert!(!sim.ok(10, "a b"));
    assert!(!sim.tick(14));
    assert!(sim.ok(15, "a b"));
    assert_eq!(sim.nodes(), "a b");
}

/// Row 8: without a grace the first answer decides, as in plain ketama clients.
#[test]
fn without_a_grace_a_node_leaves_at_once() {
    let mut sim = Sim::fresh(options().removal_grace(Duration::ZERO), "a b c");
    assert!(sim.ok(10, "a b"));
    assert_eq!(sim.nodes(), "a b");
}

/// Row 9: a pod that restarts with another address is the same node.
#[test]
fn a_restart_within_the_grace_changes_the_address_only() {
    let mut sim = Sim::fresh(options(), "a@10.0.0.1 b@10.0.0.2");
    assert!(!sim.ok(5, "a@10.0.0.1"));
    assert_eq!(sim.tracker.roster().endpoints[1].addresses().len(), 1, "its last address stays while it is away");
    assert!(sim.ok(13, "a@10.0.0.1 b@10.0.0.9"));
    assert_eq!((sim.version(), sim.addr_epoch()), (1, 1));
    assert_eq!(sim.tracker.roster().endpoints[1].addresses(), ["10.0.0.9".parse::<IpAddr>().unwrap()]);
}

/// Row 10: a restart longer than the grace is a removal and an addition.
#[test]
fn a_restart_beyond_the_grace_is_two_changes() {
    let mut sim = Sim::fresh(options(), "a b c");
    for at in (5..200).step_by(5) {
        sim.ok(at, "a b");
    }
    sim.ok(200, "a b c");
    assert_eq!((sim.version(), sim.addr_epoch()), (3, 0));
}

/// Row 11: the same set at other addresses. Addresses that are merely left out are no change.
#[test]
fn a_changed_address_moves_the_epoch_only() {
    let mut sim = Sim::fresh(options(), "a@10.0.0.1 b");
    assert!(sim.ok(5, "a@10.0.0.7 b"));
    assert!(!sim.ok(10, "a b"));
    assert!(!sim.ok(15, "a@10.0.0.7 b"));
    assert!(sim.ok(20, "a@10.0.0.8 b@10.0.0.2"));
    assert_eq!((sim.version(), sim.addr_epoch()), (1, 2));
}

/// Weights and labels are a change of membership: they move keys.
#[test]
fn weights_and_labels_move_the_version() {
    let mut sim = Sim::fresh(options(), "a b");
    let heavier = Membership::new([endpoint("a").with_weight(2), endpoint("b")]);
    let renamed = Membership::new([endpoint("a").with_weight(2), endpoint("b").with_label("old-b")]);
    assert!(sim.tracker.observe(sim.at(5), &Ok(heavier)).is_some());
    assert!(sim.tracker.observe(sim.at(10), &Ok(renamed.clone())).is_some());
    assert!(sim.tracker.observe(sim.at(15), &Ok(renamed)).is_none());
    assert_eq!((sim.version(), sim.addr_epoch()), (3, 0));
}

/// Rows 13 and 15: NXDOMAIN, NODATA and an empty list alike keep the nodes.
#[test]
fn empty_answers_keep_the_nodes() {
    let nodata = Err(DiscoveryError::empty(false, None));
    for empty in [Err(DiscoveryError::empty(true, None)), nodata, Ok(Membership::default())] {
        let mut sim = Sim::fresh(options(), "a b c");
        for at in (10..1000).step_by(5) {
            assert!(sim.tracker.observe(sim.at(at), &empty).is_none());
            assert_eq!(sim.tracker.state(), DiscoveryState::EmptyHeld);
        }
        assert!(!sim.tick(100_000));
        assert!(!sim.ok(100_001, "a b c"));
        assert_eq!((sim.version(), sim.tracker.state()), (1, DiscoveryState::Fresh));
    }
}

/// Rows 13 and 8: a pod within its grace does not leave while answers are empty: they say nothing about it.
#[test]
fn empty_answers_do_not_end_a_grace() {
    let mut sim = Sim::fresh(options(), "a b c");
    sim.ok(5, "a b");
    sim.ok(10, "a b");
    sim.nxdomain(120);
    assert!(!sim.tick(300));
    assert!(!sim.ok(301, "a b c"));
    assert_eq!(sim.version(), 1);
}

/// Row 14: cleared once, when the time is up, by a clock that errors in between do not set back.
#[test]
fn empty_answers_clear_when_told_to() {
    let mut sim = Sim::fresh(options().empty(EmptyPolicy::ClearAfter(secs(60))), "a b c");
    sim.nxdomain(10);
    sim.error(30);
    assert!(!sim.nxdomain(60) && !sim.nxdomain(66) && !sim.tick(69));
    assert_eq!(sim.wake(), 70);
    assert!(sim.tick(70));
    assert_eq!((sim.nodes().as_str(), sim.version(), sim.tracker.state()), ("", 2, DiscoveryState::Empty));
    assert!(!sim.nxdomain(75));
    assert!(!sim.tick(200));

    let mut sim = Sim::fresh(options().empty(EmptyPolicy::ClearAfter(secs(60))), "a b c");
    sim.nxdomain(10);
    sim.error(30);
    assert!(!sim.tick(80), "an error is no sign of emptiness");

    let mut sim = Sim::fresh(options().empty(EmptyPolicy::ClearNow), "a b c");
    assert!(sim.nxdomain(10));
    assert_eq!(sim.nodes(), "");
}

/// Rows 16 to 18: errors remove nothing, not even a node within its grace, and come at growing intervals.
#[test]
fn errors_remove_nothing() {
    let mut sim = Sim::fresh(options(), "a b c");
    sim.ok(5, "a b");
    sim.ok(10, "a b");
    for at in (20..10_000).step_by(10) {
        assert!(!sim.error(at));
        assert!(!sim.tick(at + 5));
    }
    assert_eq!((sim.nodes().as_str(), sim.tracker.state()), ("a b c", DiscoveryState::Stale));
    assert!(sim.ok(10_000, "a b"), "and the next answer is evidence enough");
    assert_eq!(sim.tracker.state(), DiscoveryState::Fresh);
}

/// Row 19: most nodes missing from one answer is a DNS server that just started, until proven otherwise.
#[test]
fn a_mass_removal_is_held() {
    let mut sim = Sim::fresh(options().removal_grace(Duration::ZERO), "a b c d e f g");
    assert!(!sim.ok(10, "a"));
    assert!((5.0..5.6).contains(&sim.wait(10)), "asked again soon, whatever the TTL");
    assert!(!sim.ok(15, "a"));
    assert!(!sim.ok(25, "a b c d e f g"));
    assert!(!sim.tick(60));
    assert_eq!((sim.version(), sim.tracker.vanished().count()), (1, 0));
}

/// Row 20: when it stays so, it is believed; the longer of hold and grace counts.
#[test]
fn a_mass_removal_that_lasts_is_believed() {
    for (grace, gone_at) in [(0, 40), (10, 40), (60, 70)] {
        let mut sim = Sim::fresh(options().removal_grace(secs(grace)), "a b c d e f g");
        for at in (10..gone_at).step_by(5) {
            assert!(!sim.ok(at, "a"), "grace {grace}, at {at}");
        }
        assert_eq!(sim.wake(), gone_at);
        assert!(sim.tick(gone_at));
        assert_eq!((sim.nodes().as_str(), sim.version()), ("a", 2));
    }
}

/// Row 20: half of the nodes, or a single one, is no mass removal.
#[test]
fn ordinary_removals_are_not_held() {
    for (before, after) in [("a b c d", "a b"), ("a b c", "a b"), ("a", "b")] {
        let mut sim = Sim::fresh(options().removal_grace(Duration::ZERO), before);
        assert!(sim.ok(10, after));
        assert_eq!(sim.nodes(), after);
    }
}

/// Row 21: a member that comes and goes starts its grace anew each time.
#[test]
fn a_flapping_node_stays() {
    let mut sim = Sim::fresh(options().removal_grace(secs(12)), "a b c");
    for at in (5..1000).step_by(15) {
        assert!(!sim.ok(at, "a b"));
        assert!(!sim.ok(at + 5, "a b"));
        assert!(!sim.ok(at + 10, "a b c"));
    }
    assert_eq!(sim.version(), 1);
}

/// Row 24: the TTL decides, within bounds; unknown is short.
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

/// Row 25: clients that start together spread out, and none polls twice within a second.
#[test]
fn a_fleet_drifts_apart() {
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

/// Rows 2 and 4: how soon the source is asked again when it has nothing, or fails.
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
    assert!(sim.wait(101) < 1.21, "a success starts the backoff anew");
}

/// Row 5: the bootstrap list is in use from the start, survives errors, and is replaced whole by the first answer.
#[test]
fn the_first_answer_replaces_the_bootstrap_list() {
    let bootstrap = Startup::Bootstrap(vec![endpoint("x"), endpoint("y"), endpoint("b")]);
    let mut sim = Sim::new(options().startup(bootstrap));
    assert_eq!((sim.nodes().as_str(), sim.version()), ("b x y", 1));
    assert!(!sim.error(1) && !sim.nxdomain(2));
    assert_eq!(sim.nodes(), "b x y");
    assert!(sim.ok(3, "a b c"));
    assert_eq!((sim.nodes().as_str(), sim.version(), sim.tracker.vanished().count()), ("a b c", 2, 0));
}

/// Row 31: only the lowest priority value is in use; the next takes over when its nodes are gone, after their grace.
#[test]
fn the_lowest_tier_is_in_use() {
    let mut sim = Sim::fresh(options().removal_grace(secs(20)), "a b y/10 z/10");
    assert_eq!(sim.nodes(), "a b");
    assert!(!sim.ok(5, "a b y/10"), "a spare may come and go");
    assert!(!sim.ok(10, "y/10 z/10"));
    assert!(!sim.ok(20, "y/10 z/10"));
    assert!(!sim.ok(39, "y/10 z/10"), "held, as all that were in use went at once");
    assert!(sim.tick(40));
    assert_eq!((sim.nodes().as_str(), sim.version()), ("y z", 2));
    assert!(sim.ok(45, "a b y/10 z/10"));
    assert_eq!((sim.nodes().as_str(), sim.version()), ("a b", 3));
}

/// Row 26: any number of nudges is one poll, a second after the last at the earliest.
#[test]
fn nudges_bring_one_poll_forward() {
    let mut sim = Sim::fresh(options(), "a b");
    sim.ok(10, "a b");
    for _ in 0..500 {
        sim.tracker.nudge(sim.at(10));
    }
    assert!((sim.wait(10) - 1.0).abs() < 1e-9, "not within a second");
    sim.tracker.nudge(sim.at(12));
    assert!(sim.wait(10) < 1.001, "a nudge never puts a poll off");
    sim.ok(12, "a b c");
    sim.tracker.nudge(sim.at(14));
    assert!(sim.wait(14) < 1e-9, "that one brought something: the next is heard as well");
    sim.ok(14, "a@10.0.0.1 b c");
    sim.tracker.nudge(sim.at(16));
    assert!(sim.wait(16) < 1e-9, "an address is something too");
}

/// Row 27: a nudged poll that brings nothing new is repeated when the answer's TTL ends, and not before.
#[test]
fn a_nudge_to_no_avail_is_not_repeated() {
    let mut sim = Sim::fresh(options(), "a b");
    sim.ok(10, "a b");
    sim.tracker.nudge(sim.at(12));
    sim.tracker.observe(sim.at(12), &Ok(listing("a b", 3)));
    assert!((3.0..=3.3).contains(&sim.wait(12)));
    let due = sim.tracker.next_poll();
    for _ in 0..500 {
        sim.tracker.nudge(sim.at(14));
    }
    assert_eq!(sim.tracker.next_poll(), due);
    sim.tracker.observe(sim.at(15), &Ok(listing("a b", 5)));
    assert!(sim.wait(15) >= 5.0);
    sim.tracker.nudge(sim.at(17));
    assert!(sim.wait(17) < 1e-9, "after the regular poll nudges are heard again");
}

/// Rows 26 and 16: nudges do not turn the backoff of a failing source into a stampede.
#[test]
fn nudges_do_not_bypass_the_backoff() {
    let mut sim = Sim::fresh(options(), "a b");
    for at in 1..10 {
        sim.error(at);
    }
    let due = sim.tracker.next_poll();
    sim.tracker.nudge(sim.at(12));
    assert_eq!(sim.tracker.next_poll(), due);
}

/// Row 45: a fixed list is final.
#[test]
fn a_fixed_list_is_asked_for_once() {
    let mut sim = Sim::new(options());
    sim.tracker.observe(sim.at(0), &Ok(Membership::new([endpoint("a")]).with_ttl(Duration::MAX)));
    assert_eq!((sim.tracker.next_wake(), sim.tracker.state()), (None, DiscoveryState::Static));
    sim.tracker.nudge(sim.at(10));
    assert_eq!(sim.tracker.next_wake(), None);
}

/// Options that mean "never" overflow nothing.
#[test]
fn for_ever_is_a_duration() {
    let forever = options()
        .poll_interval(Duration::MAX, Duration::MAX)
        .removal_grace(Duration::MAX)
        .mass_removal_hold(Duration::MAX)
        .empty(EmptyPolicy::ClearAfter(Duration::MAX));
    let mut sim = Sim::fresh(forever, "a b c");
    assert!(!sim.ok(5, "a") && !sim.ok(10, "a") && !sim.nxdomain(15) && !sim.error(20) && !sim.tick(1_000_000));
    assert!(sim.tracker.next_wake().is_some());
}
