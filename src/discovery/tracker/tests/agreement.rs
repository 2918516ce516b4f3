//! Two clients that saw the same answers agree, whatever else happened to each: errors, timers, and random intervals.

use proptest::prelude::*;

use super::*;

/// One node as an answer lists it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Listed {
    node: u8,
    priority: u16,
    weight: u32,
    addresses: Vec<u8>,
}

#[derive(Debug, Clone)]
enum Answer {
    Listing(Vec<Listed>),
    Empty,
}

/// What happens to one client between two answers.
#[derive(Debug, Clone)]
enum Disturbance {
    /// A poll that fails.
    Error,
    /// A timer that fires, early or late.
    Tick,
    Request,
}

#[derive(Debug, Clone)]
struct Step {
    wait: u64,
    answer: Answer,
    /// What each client does before the answer: the part of the wait at which it happens, in percent.
    disturbances: [Vec<(u64, Disturbance)>; 2],
}

fn listed() -> impl Strategy<Value = Listed> {
    (0_u8..6, prop_oneof![4 => Just(0_u16), 1 => Just(10)], 1_u32..3, proptest::collection::vec(1_u8..4, 0..3))
        .prop_map(|(node, priority, weight, addresses)| Listed { node, priority, weight, addresses })
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        6 => proptest::collection::vec(listed(), 1..7).prop_map(Answer::Listing),
        1 => Just(Answer::Empty),
    ]
}

fn disturbances() -> impl Strategy<Value = Vec<(u64, Disturbance)>> {
    let kind = prop_oneof![Just(Disturbance::Error), Just(Disturbance::Tick), Just(Disturbance::Request)];
    proptest::collection::vec((0_u64..100, kind), 0..4).prop_map(|mut all| {
        all.sort_by_key(|(percent, _)| *percent);
        all
    })
}

fn step() -> impl Strategy<Value = Step> {
    (1_u64..40, answer(), [disturbances(), disturbances()]).prop_map(|(wait, answer, disturbances)| Step {
        wait,
        answer,
        disturbances,
    })
}

fn policy() -> impl Strategy<Value = EmptyPolicy> {
    prop_oneof![
        Just(EmptyPolicy::Keep),
        (0_u64..60).prop_map(|limit| EmptyPolicy::ClearAfter(secs(limit))),
        Just(EmptyPolicy::ClearNow),
    ]
}

fn outcome(answer: &Answer) -> Result<Membership, DiscoveryError> {
    let Answer::Listing(nodes) = answer else { return Err(DiscoveryError::empty(true, None)) };
    Ok(Membership::new(nodes.iter().map(|listed| {
        endpoint(&format!("n{}", listed.node))
            .with_priority(listed.priority)
            .with_weight(listed.weight)
            .with_addresses(listed.addresses.iter().map(|last| IpAddr::from([10, 0, 0, *last])))
    })))
}

/// Lets a client see the disturbances, then the answer. An error must not remove a node.
fn observe(tracker: &mut Tracker, start: Instant, disturbances: &[(u64, Disturbance)], step: &Step) {
    let at = |percent: u64| start + secs(step.wait).mul_f64(percent as f64 / 100.0);
    for (percent, disturbance) in disturbances {
        match disturbance {
            Disturbance::Error => {
                let before = Arc::clone(tracker.roster());
                tracker.tick(at(*percent));
                let in_use = Arc::clone(tracker.roster());
                assert!(tracker.observe(at(*percent), &Err(DiscoveryError::Timeout)).is_none());
                assert_eq!(tracker.roster().endpoints, in_use.endpoints);
                assert!(tracker.roster().version >= before.version);
            }
            Disturbance::Tick => drop(tracker.tick(at(*percent))),
            Disturbance::Request => tracker.request_poll(at(*percent)),
        }
    }
    tracker.observe(at(100), &outcome(&step.answer));
}

/// What decides the ring, and which nodes are connected. All nodes in use have the same priority value.
fn ring_of(tracker: &Tracker) -> Vec<(NodeId, Option<String>, u32)> {
    let properties =
        |endpoint: &Endpoint| (endpoint.id().clone(), endpoint.label().map(str::to_owned), endpoint.weight());
    tracker.roster().endpoints.iter().map(properties).collect()
}

fn address_set(endpoint: &Endpoint) -> Vec<IpAddr> {
    let mut addresses = endpoint.addresses().to_vec();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

proptest! {
    /// docs/discovery.md, row 72.
    #[test]
    fn clients_that_saw_the_same_answers_agree(
        steps in proptest::collection::vec(step(), 1..30),
        grace in 0_u64..60,
        hold in 0_u64..60,
        policy in policy(),
        seeds in any::<[u64; 2]>(),
    ) {
        let options = options().removal_grace(secs(grace)).mass_removal_hold(secs(hold)).empty(policy);
        let mut now = Instant::now();
        let mut clients = seeds.map(|seed| Tracker::new(options.clone().seed(seed), now));
        for step in &steps {
            for (client, disturbances) in clients.iter_mut().zip(&step.disturbances) {
                observe(client, now, disturbances, step);
            }
            now += secs(step.wait);
            let Ok(answer) = outcome(&step.answer) else { continue };
            prop_assert_eq!(ring_of(&clients[0]), ring_of(&clients[1]));
            for client in &clients {
                for used in &client.roster().endpoints {
                    let listed = answer.endpoints().iter().find(|listed| listed.id() == used.id());
                    if let Some(listed) = listed.filter(|listed| !listed.addresses().is_empty()) {
                        prop_assert_eq!(address_set(used), address_set(listed));
                    }
                }
            }
        }
    }
}

/// docs/discovery.md, row 72: one client still keeps the node of the lower priority value when the others vanish.
#[test]
fn an_error_does_not_decide_what_is_a_mass_removal() {
    for has_error in [false, true] {
        let options = options().removal_grace(secs(10)).mass_removal_hold(secs(100));
        let mut sim = Sim::fresh(options, "a b/10 x/10 y/10");
        sim.ok(5, "b/10 x/10 y/10");
        sim.ok(10, "b/10 x/10 y/10");
        if has_error {
            sim.error(12);
        }
        sim.tick(15);
        assert_eq!(sim.nodes(), if has_error { "a" } else { "b x y" });
        for at in [20, 25, 119] {
            sim.ok(at, "b/10");
            assert_eq!(sim.nodes(), "b x y", "held");
        }
        assert!(sim.tick(120));
        assert_eq!(sim.nodes(), "b");
    }
}
