//! The smoke example, memcached processes as pods, and Knot. Pods restart, join, leave and hang, and DNS stops for a
//! while.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::MACHINE;
use crate::pod::Pod;
use crate::process::{PROCESS_LIMIT, StallLog};
use crate::server::{DnsServer, Listed, SERVICE, Software};
use crate::smoke::{Line, Smoke};

const TIMEOUT: Duration = Duration::from_millis(250);
const POLL_MIN: Duration = Duration::from_millis(300);
const POLL_MAX: Duration = Duration::from_millis(600);
const GRACE: Duration = Duration::from_secs(2);
/// The longest a lookup of the client takes, including one that began while DNS was down.
const LOOKUP: Duration = Duration::from_secs(5);
/// The pause between two disruptions, so that no second overlaps both.
const CALM: Duration = Duration::from_millis(1500);
/// The longest time from a DNS change until the client has followed it.
const FOLLOW_LIMIT: Duration = POLL_MAX.saturating_add(Duration::from_secs(1));
/// How late a busy machine may report a second or count an error.
const SLACK: Duration = Duration::from_millis(150);

/// An interval in which a pod, or DNS, did not answer.
#[derive(Debug)]
struct Outage {
    id: String,
    from: Instant,
    to: Instant,
}

#[test]
fn only_keys_of_unavailable_pods_fail_while_pods_and_dns_are_disrupted() {
    let _machine = MACHINE.blocking_write();
    let (stalls, start) = (StallLog::start(), Instant::now());
    let mut pods: Vec<Pod> = (0..3).map(Pod::start).collect();
    let Some(mut dns) = DnsServer::start_or_skip(Software::Knot, &listed(&pods)) else { return };
    let smoke = start_smoke(&dns.addr().to_string());
    smoke.wait_for(PROCESS_LIMIT, "the first second", |line| line.is("second"));
    let nodes: Value = pods.iter().map(|pod| json!({ "id": pod.id(), "addr": pod.addr.to_string() })).collect();
    assert_eq!(smoke.wait_for(PROCESS_LIMIT, "nodes", |line| line.is("nodes")).event["nodes"], nodes);
    let mut outages = vec![restart_elsewhere(&mut pods, &mut dns)];
    let dns_outage = stop_dns(&mut dns);
    add_a_pod(&mut pods, &mut dns, &smoke);
    outages.push(remove_a_pod(&mut pods, &mut dns, &smoke));
    outages.push(hang(&pods[0]));
    outages.push(restart_at_the_same_address(&mut pods));
    sleep(CALM);

    // Interrupted, because a slow machine takes longer for all this: the length of the run is not known beforehand.
    let (status, lines) = smoke.interrupt();
    let seconds: Vec<_> = lines.iter().filter(|line| line.is("second")).collect();
    let changes: Vec<_> = lines.iter().filter(|line| line.is("topology")).collect();
    let summary = lines.last().unwrap();
    eprintln!("{} s; {}", seconds.len(), summary.event);
    assert!(status.success() && summary.event["ok"] == true, "{status}: {}", summary.event);
    for line in seconds.iter().chain([&summary]) {
        // Operations that end in a second begin at most a timeout before it. The summary covers the whole run.
        let from = if line.is("second") { line.at - Duration::from_secs(1) - TIMEOUT - SLACK } else { start };
        assert_counts(line, stalls.longest(from, line.at));
    }
    assert_errors_match_outages(&outages, &seconds);
    assert_topology_changes(&changes, &outages[0].id, &outages[1].id);
    assert!(!changes.iter().any(|line| (dns_outage.from..dns_outage.to + SLACK).contains(&line.at)), "{changes:#?}");
    assert_eq!(seconds.last().unwrap().number("nodes"), 3);
}

fn listed(pods: &[Pod]) -> Vec<Listed> {
    pods.iter().map(|pod| (pod.host(), pod.addr)).collect()
}

fn start_smoke(nameserver: &str) -> Smoke {
    let [timeout, grace, min, max] = [TIMEOUT, GRACE, POLL_MIN, POLL_MAX].map(|time| time.as_millis().to_string());
    #[rustfmt::skip]
    let arguments = [
        "--service", SERVICE, "--nameserver", nameserver, "--json",
        "--watch", "600", "--timeout", &timeout, "--removal-grace", &grace,
        "--poll-min", &min, "--poll-max", &max,
        // Enough to keep every pod busy, and little enough for a debug build to keep its deadlines.
        "--keys", "2000", "--rate", "2000",
    ];
    Smoke::start(&arguments)
}

fn restart_elsewhere(pods: &mut Vec<Pod>, dns: &mut DnsServer) -> Outage {
    sleep(CALM);
    let (id, from) = (pods[1].id(), Instant::now());
    drop(pods.remove(1));
    sleep(Duration::from_secs(1));
    pods.insert(1, Pod::start(1));
    let published = dns.publish(&listed(pods));
    let to = pods[1].wait_until_it_serves(FOLLOW_LIMIT);
    eprintln!("a pod at a new address serves {:?} after the DNS change", to - published);
    assert!(to - published <= FOLLOW_LIMIT);
    Outage { id, from, to }
}

fn stop_dns(dns: &mut DnsServer) -> Outage {
    sleep(CALM);
    let from = Instant::now();
    dns.stop();
    sleep(Duration::from_secs(4));
    dns.run();
    Outage { id: "DNS".to_owned(), from, to: Instant::now() }
}

/// Adds a pod after DNS was down, which also shows that the client polls again.
fn add_a_pod(pods: &mut Vec<Pod>, dns: &mut DnsServer, smoke: &Smoke) {
    sleep(CALM);
    pods.push(Pod::start(3));
    let published = dns.publish(&listed(pods));
    let added = smoke.wait_for(LOOKUP + FOLLOW_LIMIT, "a node added", |line| !line.changed("added").is_empty());
    let serves = pods[3].wait_until_it_serves(FOLLOW_LIMIT);
    eprintln!(
        "a pod is added {:?} after the DNS change, and serves {:?} later",
        added.at - published,
        serves - added.at
    );
}

/// Removes the last pod, as a StatefulSet does.
fn remove_a_pod(pods: &mut Vec<Pod>, dns: &mut DnsServer, smoke: &Smoke) -> Outage {
    sleep(CALM);
    let pod = pods.pop().unwrap();
    let unlisted = dns.publish(&listed(pods));
    let (id, from) = (pod.id(), Instant::now());
    drop(pod);
    let removed = smoke.wait_for(GRACE + FOLLOW_LIMIT, "a node removed", |line| !line.changed("removed").is_empty());
    eprintln!("a pod is removed {:?} after the DNS change", removed.at - unlisted);
    assert!(removed.at - unlisted >= GRACE);
    Outage { id, from, to: removed.at }
}

fn hang(pod: &Pod) -> Outage {
    sleep(CALM);
    let from = Instant::now();
    pod.process.signal("-STOP");
    sleep(Duration::from_secs(2));
    pod.process.signal("-CONT");
    Outage { id: pod.id(), from, to: Instant::now() }
}

fn restart_at_the_same_address(pods: &mut Vec<Pod>) -> Outage {
    sleep(CALM);
    let pod = pods.pop().unwrap();
    let (id, ordinal, addr, from) = (pod.id(), pod.ordinal, pod.addr, Instant::now());
    drop(pod);
    sleep(Duration::from_secs(2));
    pods.push(Pod::start_at(ordinal, addr));
    let restarted = Instant::now();
    // No DNS change notifies the client. The reconnect backoff doubles, so no delay is much longer than
    // twice all delays before it.
    let to = pods[ordinal].wait_until_it_serves(2 * (restarted - from) + Duration::from_millis(200));
    eprintln!("a pod at the same address serves {:?} after its restart", to - restarted);
    Outage { id, from, to }
}

/// Asserts what holds during any disruption.
fn assert_counts(line: &Line, stall: Duration) {
    assert_eq!(["wrong", "unexplained"].map(|field| line.number(field)), [0; 2], "{}", line.event);
    assert!(line.number("ops") > 0 && line.number("hits") > 0, "{}", line.event);
    // Latencies have two significant digits. An operation ends within 50 ms of its deadline, unless the machine stalls.
    let (longest, limit) = (Duration::from_micros(line.number("max_us")), TIMEOUT + Duration::from_millis(50));
    assert!(longest <= (limit + stall).mul_f64(1.01), "the machine stalled for {stall:?}: {}", line.event);
    for (kind, _) in line.counts("errors") {
        assert!(["Timeout", "Unavailable", "Connection"].contains(&kind), "{}", line.event);
    }
}

/// Asserts that keys fail only while their pod does not answer, and that every such outage fails some.
fn assert_errors_match_outages(outages: &[Outage], seconds: &[&Line]) {
    // A second is reported at its end or later, so the earliest estimate of the start is right.
    let start = seconds.iter().map(|line| line.at - Duration::from_secs(line.number("t"))).min().unwrap();
    let mut causes = BTreeSet::new();
    for line in seconds {
        let to = start + Duration::from_secs(line.number("t"));
        let from = to - Duration::from_secs(1);
        for (id, _) in line.counts("errors_by_node") {
            // Operations sent during the outage fail within the timeout.
            let is_cause = |outage: &Outage| id == outage.id && outage.from < to && from < outage.to + TIMEOUT + SLACK;
            let cause = outages.iter().position(is_cause);
            causes.insert(cause.unwrap_or_else(|| panic!("errors of {id} without an outage: {}", line.event)));
        }
        let [errors, by_node] = ["errors", "errors_by_node"].map(|field| line.counts(field));
        let sum = |counts: Vec<(&str, u64)>| counts.into_iter().map(|(_, count)| count).sum::<u64>();
        assert_eq!(sum(errors), sum(by_node), "{}", line.event);
    }
    assert_eq!(causes.len(), outages.len(), "an outage without errors");
}

/// Asserts that about a quarter of the keys move when a pod is added or removed, and none otherwise.
fn assert_topology_changes(changes: &[&Line], restarted: &str, scaled: &str) {
    let mut actual = Vec::new();
    for line in changes {
        let change = ["added", "removed", "readdressed"].map(|how| line.changed(how));
        let ideal = if change[0].is_empty() && change[1].is_empty() { 0.0 } else { 0.25 };
        let moved = line.event["moved"].as_f64().unwrap();
        assert!((moved - ideal).abs() <= 0.05 * f64::from(ideal > 0.0), "{}", line.event);
        actual.push(change);
    }
    let expected = [[vec![], vec![], vec![restarted]], [vec![scaled], vec![], vec![]], [vec![], vec![scaled], vec![]]];
    assert_eq!(actual, expected);
}
