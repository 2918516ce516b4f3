//! The steps of a run against our own service: changes of pods and DNS, and the expected behavior of the client.

use std::io;
use std::time::{Duration, Instant};

use memring::testing::{Pod, Service};
use memring::{DiscoveryState, NodeId};
use tokio::time::sleep;

use crate::session::Session;
use crate::step::{Step, name_of};
use crate::value::Outcome;

/// Extra time for a loaded machine.
const SLACK: Duration = Duration::from_secs(5);

/// The longest time from a poll that finds a restarted pod until the pod serves again.
const RECONNECT: Duration = Duration::from_secs(1);

/// The number of pods, except between the first step, which adds one, and the last, which removes it.
pub(crate) const PODS: usize = 3;

/// Runs all steps. Each one leaves every key written and readable.
pub(crate) async fn run(session: &mut Session, service: &Service) -> io::Result<()> {
    let first_owners = session.load.owners();
    let steps: [&'static str; 5] = [
        "add a fourth pod",
        "restart a pod at another address",
        "make a pod unready, then ready",
        "stop DNS, then start it",
        "remove the fourth pod",
    ];
    for (number, name) in steps.into_iter().enumerate() {
        session.report.text(&format!("\n{name}"));
        let step = Step::new(name);
        let mut step = match number {
            0 => scale_up(session, service, step).await?,
            1 => restart(session, service, step).await?,
            2 => unready(session, service, step).await?,
            3 => dns_outage(session, service, step).await?,
            _ => scale_down(session, service, step, &first_owners).await?,
        };
        if step.skipped.is_none() {
            session.round_trip(&mut step).await;
        }
        session.finish_step(&step);
    }
    Ok(())
}

async fn scale_up(session: &mut Session, service: &Service, mut step: Step) -> io::Result<Step> {
    let before = session.load.owners();
    service.scale(PODS + 1).await?;
    let joined = id_of(&service.pods()[PODS])?;
    let limit = session.options.longest_poll() + SLACK;
    let spinner = session.report.spinner("until the client finds the pod");
    let change = session.wait_for_change(limit, |change| !change.added.is_empty()).await;
    drop(spinner);

    let (added, moved) = change.map_or_else(Default::default, |change| (change.added, change.moved));
    step.expect_pods("pods added", std::slice::from_ref(&joined), &added);
    let ideal = 1.0 / (PODS + 1) as f64;
    step.expect_share("share of all keys that moved (ideal: 25%)", ideal * 0.8..=ideal * 1.2, moved);
    step.expect_exact_share("share of all keys that the new pod owns", moved, session.share_of(&joined));
    let after = session.load.owners();
    let elsewhere = moves(&before, &after).filter(|owner| *owner != Some(&joined)).count();
    let count = moves(&before, &after).count() as u64;
    step.expect_sample("keys that moved", moved, session.keys(), count);
    step.expect("keys that moved between the old pods", 0, elsewhere);
    session.read_all().await;
    step.expect("hits (keys that stayed)", session.keys() - count, session.count(Outcome::Fresh));
    step.expect("misses (keys of the new, empty pod)", count, session.count(Outcome::Missing));
    Ok(step)
}

async fn restart(session: &mut Session, service: &Service, mut step: Step) -> io::Result<Step> {
    const POD: usize = 1;
    if has_short_grace(session) {
        return Ok(step.skip(SHORT_GRACE));
    }
    let before = session.load.owners();
    let id = id_of(&service.pods()[POD])?;
    let Some(address) = service.restart_at_new_address(POD).await? else {
        return Ok(step.skip("this machine has only one loopback address"));
    };
    let published = Instant::now();
    let limit = session.options.longest_poll() + RECONNECT;
    let spinner = session.report.spinner("until the pod serves again");
    let keys = session.load.entries().map(|entry| entry.key().to_owned());
    let key_of_pod = keys.zip(&before).find(|(_, owner)| owner.as_ref() == Some(&id)).map(|(key, _)| key);
    let recovery = match key_of_pod {
        None => Some(Duration::ZERO),
        Some(key) => loop {
            if session.client.get(&key).await.is_ok() {
                break Some(published.elapsed());
            }
            if published.elapsed() > limit + SLACK {
                break None;
            }
            sleep(Duration::from_millis(10)).await;
        },
    };
    let change = session.wait_for_change(limit + SLACK, |change| !change.readdressed.is_empty()).await;
    drop(spinner);

    step.expect_within("the pod serves again", limit, recovery);
    let readdressed = change.as_ref().map_or(&[][..], |change| &change.readdressed);
    step.expect_pods("pods at a new address", std::slice::from_ref(&id), readdressed);
    let topology = session.client.topology();
    let known = topology.nodes.iter().find(|node| node.id == id).and_then(|node| node.address);
    step.expect(
        "address of the pod",
        address.to_string(),
        known.map_or_else(|| "none".to_owned(), |at| at.to_string()),
    );
    no_key_moved(&mut step, session, &before);
    session.read_all().await;
    let lost = before.iter().flatten().filter(|owner| **owner == id).count() as u64;
    step.expect("hits (keys of the other pods)", session.keys() - lost, session.count(Outcome::Fresh));
    step.expect("misses (keys of the restarted, empty pod)", lost, session.count(Outcome::Missing));
    Ok(step)
}

async fn unready(session: &mut Session, service: &Service, mut step: Step) -> io::Result<Step> {
    const POD: usize = 2;
    let limit = session.options.longest_poll() + SLACK;
    if has_short_grace(session) {
        return Ok(step.skip(SHORT_GRACE));
    }
    let (before, version) = (session.load.owners(), session.client.topology().version);
    service.unready(POD).await?;
    let spinner = session.report.spinner("until the client notices the change");
    let vanished = session.wait_for_status(limit, |status| status.vanished == 1).await;
    step.expect_within("discovery notices the unready pod", limit, vanished);
    session.read_all().await;
    step.expect("hits meanwhile (the pod still answers)", session.keys(), session.count(Outcome::Fresh));
    service.ready(POD).await?;
    let returned = session.wait_for_status(limit, |status| status.vanished == 0).await;
    drop(spinner);
    step.expect_within("discovery notices the ready pod", limit, returned);
    no_key_moved(&mut step, session, &before);
    step.expect("topology", version, session.client.topology().version);
    Ok(step)
}

async fn dns_outage(session: &mut Session, service: &Service, mut step: Step) -> io::Result<Step> {
    /// The timeout of a DNS lookup, by the library's default.
    const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
    let limit = (session.options.longest_poll() + LOOKUP_TIMEOUT) * 2 + SLACK;
    let (before, version) = (session.load.owners(), session.client.topology().version);
    let errors_before = session.client.discovery_status().errors;
    service.dns().stop().await;
    let spinner = session.report.spinner("while DNS is down");
    let (mut hits, mut reads) = (0, 0);
    let start = Instant::now();
    // Read values until two polls have failed.
    while session.client.discovery_status().errors < errors_before + 2 && start.elapsed() < limit {
        session.read_all().await;
        hits += session.count(Outcome::Fresh);
        reads += session.keys();
        sleep(Duration::from_millis(500)).await;
    }
    let status = session.client.discovery_status();
    step.expect_at_least("failed polls", 2, status.errors - errors_before);
    step.expect("discovery state", name_of(&DiscoveryState::Stale), name_of(&status.state));
    step.expect("hits meanwhile", reads, hits);
    service.dns().start().await?;
    let fresh = session.wait_for_status(limit, |status| status.state == DiscoveryState::Fresh).await;
    drop(spinner);
    step.expect_within("discovery is fresh again", limit, fresh);
    no_key_moved(&mut step, session, &before);
    step.expect("topology", version, session.client.topology().version);
    Ok(step)
}

async fn scale_down(
    session: &mut Session,
    service: &Service,
    mut step: Step,
    first_owners: &[Option<NodeId>],
) -> io::Result<Step> {
    let before = session.load.owners();
    let id = id_of(&service.pods()[PODS])?;
    let share = session.share_of(&id);
    service.scale(PODS).await?;
    let grace = session.options.removal_grace;
    if grace >= Duration::from_secs(1) {
        session.read_all().await;
        let keys_of_pod = before.iter().flatten().filter(|owner| **owner == id).count() as u64;
        step.expect("errors during the removal grace (keys of the pod)", keys_of_pod, session.count(Outcome::Failed));
        step.expect("hits meanwhile", session.keys() - keys_of_pod, session.count(Outcome::Fresh));
    }
    let spinner = session.report.spinner("until the removal grace ends");
    let limit = grace + session.options.longest_poll() * 3 + SLACK;
    let change = session.wait_for_change(limit, |change| !change.removed.is_empty()).await;
    drop(spinner);

    let (removed, moved) = change.map_or_else(Default::default, |change| (change.removed, change.moved));
    step.expect_pods("pods removed", std::slice::from_ref(&id), &removed);
    step.expect_exact_share("share of all keys that moved (the pod's share)", share, moved);
    let after = session.load.owners();
    let unchanged = after.iter().zip(first_owners).filter(|(now, first)| now == first).count() as u64;
    step.expect("keys with the same owner as at the start", session.keys(), unchanged);
    let tally = session.read_all().await;
    step.expect("errors afterwards", 0, tally.failed());
    // The other pods kept the values that they had before the fourth pod came. Those were overwritten on it since.
    step.expect_at_most("stale values of keys that moved", moves(&before, &after).count() as u64, tally.stale);
    step.expect("stale values of keys that stayed", 0, tally.unexplained);
    Ok(step)
}

const SHORT_GRACE: &str = "the removal grace is shorter than three polls, so a brief absence may move keys";

fn has_short_grace(session: &Session) -> bool {
    session.options.removal_grace < session.options.longest_poll() * 3
}

fn no_key_moved(step: &mut Step, session: &Session, before: &[Option<NodeId>]) {
    step.expect("keys that moved", 0, moves(before, &session.load.owners()).count());
}

/// Returns the new owner of each key whose owner changed.
fn moves<'a>(before: &'a [Option<NodeId>], after: &'a [Option<NodeId>]) -> impl Iterator<Item = Option<&'a NodeId>> {
    before.iter().zip(after).filter(|(before, after)| before != after).map(|(_, after)| after.as_ref())
}

fn id_of(pod: &Pod) -> io::Result<NodeId> {
    NodeId::new(&pod.fqdn, pod.addr.port()).map_err(io::Error::other)
}
