//! Which nodes are in use after which answers. No clock runs: tests pass the time.

mod agreement;
mod model;
mod schedule;

use std::net::IpAddr;
use std::time::Duration;

use super::*;

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn id(host: &str) -> NodeId {
    NodeId::new(host, 11211).unwrap()
}

/// Parses a node: `host`, `host@ip,ip` or `host/priority`.
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

/// A tracker, and when it started.
struct Sim {
    tracker: Tracker,
    start: Instant,
}

impl Sim {
    fn new(options: DiscoveryOptions) -> Self {
        let start = Instant::now();
        Self { tracker: Tracker::new(options.seed(7), start), start }
    }

    /// Creates one that saw these nodes listed at 0 s.
    fn fresh(options: DiscoveryOptions, nodes: &str) -> Self {
        let mut sim = Self::new(options);
        assert!(sim.ok(0, nodes));
        sim
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + secs(seconds)
    }

    /// Observes an answer. Returns whether the roster changed.
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

    /// Returns the time from `from` to the next poll, in seconds.
    fn wait(&self, from: u64) -> f64 {
        (self.tracker.next_poll().unwrap() - self.at(from)).as_secs_f64()
    }

    /// Returns when something is due next, in whole seconds from the start.
    fn wake(&self) -> u64 {
        (self.tracker.next_wake().unwrap() - self.start).as_secs()
    }
}

fn options() -> DiscoveryOptions {
    DiscoveryOptions::default()
}

/// docs/discovery.md, row 6.
#[test]
fn the_order_and_the_ttl_are_no_change() {
    let mut sim = Sim::fresh(options(), "a@10.0.0.1,10.0.0.2 b c");
    assert!(!sim.ok(5, "c a@10.0.0.2,10.0.0.1 b"));
    assert!(sim.tracker.observe(sim.at(10), &Ok(listing("b c a", 30))).is_none());
    assert_eq!((sim.version(), sim.addr_epoch()), (1, 0));
}

/// docs/discovery.md, row 7.
#[test]
fn a_new_node_is_used_at_once() {
    let mut sim = Sim::fresh(options(), "a b");
    assert!(sim.ok(5, "a b c"));
    assert_eq!((sim.nodes().as_str(), sim.version()), ("a b c", 2));
}

/// docs/discovery.md, row 8: it leaves between two polls if its grace ends there.
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

/// docs/discovery.md, row 8: two answers must lack the node, however short its grace.
#[test]
fn one_answer_alone_does_not_remove_a_node() {
    let mut sim = Sim::fresh(options().removal_grace(secs(2)), "a b c");
    assert!(!sim.ok(10, "a b"));
    assert!(!sim.tick(14));
    assert!(sim.ok(15, "a b"));
    assert_eq!(sim.nodes(), "a b");
}

/// docs/discovery.md, row 8: the first answer decides, as in plain ketama clients.
#[test]
fn without_a_grace_a_node_leaves_at_once() {
    let mut sim = Sim::fresh(options().removal_grace(Duration::ZERO), "a b c");
    assert!(sim.ok(10, "a b"));
    assert_eq!(sim.nodes(), "a b");
}

/// docs/discovery.md, row 9.
#[test]
fn a_restart_within_the_grace_changes_the_address_only() {
    let mut sim = Sim::fresh(options(), "a@10.0.0.1 b@10.0.0.2");
    assert!(!sim.ok(5, "a@10.0.0.1"));
    assert_eq!(
        sim.tracker.roster().endpoints[1].addresses().len(),
        1,
        "it keeps its last address while it is not listed"
    );
    assert!(sim.ok(13, "a@10.0.0.1 b@10.0.0.9"));
    assert_eq!((sim.version(), sim.addr_epoch()), (1, 1));
    assert_eq!(sim.tracker.roster().endpoints[1].addresses(), ["10.0.0.9".parse::<IpAddr>().unwrap()]);
}

/// docs/discovery.md, row 10.
#[test]
fn a_restart_beyond_the_grace_is_a_removal_and_an_addition() {
    let mut sim = Sim::fresh(options(), "a b c");
    for at in (5..200).step_by(5) {
        sim.ok(at, "a b");
    }
    sim.ok(200, "a b c");
    assert_eq!((sim.version(), sim.addr_epoch()), (3, 0));
}

/// docs/discovery.md, row 11: an answer without addresses is no change.
#[test]
fn a_changed_address_advances_the_epoch_only() {
    let mut sim = Sim::fresh(options(), "a@10.0.0.1 b");
    assert!(sim.ok(5, "a@10.0.0.7 b"));
    assert!(!sim.ok(10, "a b"));
    assert!(!sim.ok(15, "a@10.0.0.7 b"));
    assert!(sim.ok(20, "a@10.0.0.8 b@10.0.0.2"));
    assert_eq!((sim.version(), sim.addr_epoch()), (1, 2));
}

/// docs/discovery.md, rows 12 and 61: the first addresses are where the node was dialed, so they are no move.
#[test]
fn a_lookup_that_finds_a_node_elsewhere_advances_the_epoch() {
    let mut sim = Sim::fresh(options(), "a b");
    let at = |ip: &str| [ip.parse().unwrap()].into_iter().collect();
    assert!(sim.tracker.observe_lookup(&id("a"), &at("10.0.0.1")).is_none());
    assert!(!sim.ok(5, "a b"), "answers without addresses change nothing");
    let roster = sim.tracker.observe_lookup(&id("a"), &at("10.0.0.2")).unwrap();
    assert_eq!((roster.addr_epoch, roster.endpoints[0].addresses().len()), (1, 1));
    assert!(sim.tracker.observe_lookup(&id("a"), &at("10.0.0.2")).is_none());
    assert!(!sim.ok(10, "a@10.0.0.2 b"), "listed where it was found");
    let gone = sim.tracker.observe_lookup(&id("a"), &ListedAddresses::NoSuchHost).unwrap();
    assert_eq!(*gone.endpoints[0].listed_addresses(), ListedAddresses::NoSuchHost);
    assert!(sim.tracker.observe_lookup(&id("a"), &ListedAddresses::NoSuchHost).is_none());
    assert!(sim.ok(15, "a@10.0.0.2 b"));
    assert!(sim.tracker.observe_lookup(&id("no-member"), &at("10.0.0.1")).is_none());
}

/// A change of either moves keys.
#[test]
fn weights_and_labels_advance_the_version() {
    let mut sim = Sim::fresh(options(), "a b");
    let heavier = Membership::new([endpoint("a").with_weight(2), endpoint("b")]);
    let renamed = Membership::new([endpoint("a").with_weight(2), endpoint("b").with_label("old-b")]);
    assert!(sim.tracker.observe(sim.at(5), &Ok(heavier)).is_some());
    assert!(sim.tracker.observe(sim.at(10), &Ok(renamed.clone())).is_some());
    assert!(sim.tracker.observe(sim.at(15), &Ok(renamed)).is_none());
    assert_eq!((sim.version(), sim.addr_epoch()), (3, 0));
}

/// docs/discovery.md, rows 13 and 15: NXDOMAIN, NODATA and an empty list are the same.
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

/// docs/discovery.md, rows 8 and 13: an empty answer is no evidence about a single node.
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

/// docs/discovery.md, row 14: once, when the time is over. Errors in between do not reset the time.
#[test]
fn a_clearing_policy_drops_the_nodes_after_empty_answers() {
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
    assert!(!sim.tick(80), "an error is no empty answer");

    let mut sim = Sim::fresh(options().empty(EmptyPolicy::ClearNow), "a b c");
    assert!(sim.nxdomain(10));
    assert_eq!(sim.nodes(), "");
}

/// docs/discovery.md, rows 16, 17 and 18: not even a node within its grace leaves.
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
    assert!(sim.ok(10_000, "a b"), "the next answer removes it");
    assert_eq!(sim.tracker.state(), DiscoveryState::Fresh);
}

/// docs/discovery.md, row 19: a DNS server that just started may know only a few pods.
#[test]
fn a_mass_removal_is_held() {
    let mut sim = Sim::fresh(options().removal_grace(Duration::ZERO), "a b c d e f g");
    assert!(!sim.ok(10, "a"));
    assert!((5.0..5.6).contains(&sim.wait(10)), "the next poll is soon, whatever the TTL");
    assert!(!sim.ok(15, "a"));
    assert!(!sim.ok(25, "a b c d e f g"));
    assert!(!sim.tick(60));
    assert_eq!((sim.version(), sim.tracker.vanished().count()), (1, 0));
}

/// docs/discovery.md, row 20: after the hold or the grace, whichever is longer.
#[test]
fn a_mass_removal_that_lasts_is_applied() {
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

/// docs/discovery.md, row 20: half of the nodes, or a single one, is no mass removal.
#[test]
fn ordinary_removals_are_not_held() {
    for (before, after) in [("a b c d", "a b"), ("a b c", "a b"), ("a", "b")] {
        let mut sim = Sim::fresh(options().removal_grace(Duration::ZERO), before);
        assert!(sim.ok(10, after));
        assert_eq!(sim.nodes(), after);
    }
}

/// docs/discovery.md, row 21: its grace restarts each time it is listed.
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

/// docs/discovery.md, row 71: no second answer comes. An answer may also be the source's first that is fixed.
#[test]
fn a_node_that_a_fixed_list_lacks_leaves_after_its_grace() {
    let fixed = |nodes: &str| Ok(listing(nodes, 0).with_ttl(Duration::MAX));
    for first in [fixed("a b c"), Ok(listing("a b c", 5))] {
        let mut sim = Sim::new(options());
        sim.tracker.observe(sim.at(0), &first);
        assert!(sim.tracker.observe(sim.at(10), &fixed("a b")).is_none());
        assert_eq!((sim.wake(), sim.tracker.vanished().count()), (130, 1));
        assert!(!sim.tick(129));
        assert!(sim.tick(130));
        assert_eq!((sim.nodes().as_str(), sim.tracker.next_wake()), ("a b", None));
    }
}

/// docs/discovery.md, row 5: until then the list is in use, also after errors.
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

/// The list that the answer replaces is forgotten, but not where its nodes were.
#[test]
fn a_node_that_moved_before_an_overdue_clearing_is_followed() {
    let mut sim = Sim::fresh(options().empty(EmptyPolicy::ClearAfter(secs(60))), "a@10.0.0.1 b");
    assert!(!sim.nxdomain(5) && !sim.error(10));
    assert!(sim.ok(80, "a@10.0.0.2 b"));
    assert_eq!((sim.version(), sim.addr_epoch()), (1, 1));
}

/// docs/discovery.md, row 31: the next value takes over when those nodes have left, after their grace.
#[test]
fn only_the_lowest_priority_value_is_in_use() {
    let mut sim = Sim::fresh(options().removal_grace(secs(20)), "a b y/10 z/10");
    assert_eq!(sim.nodes(), "a b");
    assert!(!sim.ok(5, "a b y/10"), "a node of a higher value may come and go");
    assert!(!sim.ok(10, "y/10 z/10"));
    assert!(!sim.ok(20, "y/10 z/10"));
    assert!(!sim.ok(39, "y/10 z/10"), "all nodes in use vanished at once, so they are held");
    assert!(sim.tick(40));
    assert_eq!((sim.nodes().as_str(), sim.version()), ("y z", 2));
    assert!(sim.ok(45, "a b y/10 z/10"));
    assert_eq!((sim.nodes().as_str(), sim.version()), ("a b", 3));
}

/// docs/discovery.md, row 45.
#[test]
fn a_fixed_list_is_polled_once() {
    let mut sim = Sim::new(options());
    sim.tracker.observe(sim.at(0), &Ok(Membership::new([endpoint("a")]).with_ttl(Duration::MAX)));
    assert_eq!((sim.tracker.next_wake(), sim.tracker.state()), (None, DiscoveryState::Static));
    sim.tracker.request_poll(sim.at(10));
    assert_eq!(sim.tracker.next_wake(), None);
}
