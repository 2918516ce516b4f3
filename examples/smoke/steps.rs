//! What happens to a service in its life, and what a client is expected to make of it.

use std::io;
use std::time::{Duration, Instant};

use memring::testing::{Pod, Service};
use memring::{DiscoveryState, NodeId};
use tokio::time::sleep;

use crate::stage::Stage;
use crate::step::{Step, name_of};
use crate::value::Outcome;

/// What a loaded machine may take for what takes next to no time.
const SLACK: Duration = Duration::from_secs(5);

/// A restarted pod has to serve again so soon after a poll has found it.
const RECONNECT: Duration = Duration::from_secs(1);

/// Pods at the start and, for a while, more of them.
pub(crate) const PODS: usize = 3;

/// Goes through all steps, each of which leaves every key written, and readable.
pub(crate) async fn run(stage: &mut Stage, service: &Service) -> io::Result<()> {
    let first_owners = stage.load.owners();
    let steps: [&'static str; 5] = [
        "a fourth pod is added",
        "a pod restarts at another address",
        "a pod is not ready for a while",
        "DNS does not answer for a while",
        "the fourth pod is removed",
    ];
    for (number, name) in steps.into_iter().enumerate() {
        stage.report.say(&format!("\n{name}"));
        let step = Step::new(name);
        let mut step = match number {
            0 => scale_up(stage, service, step).await?,
            1 => restart(stage, service, step).await?,
            2 => unready(stage, service, step).await?,
            3 => dns_outage(stage, service, step).await?,
            _ => scale_down(stage, service, step, &first_owners).await?,
        };
        if step.skipped.is_none() {
            stage.round_trip(&mut step).await;
        }
        stage.done(&step);
    }
    Ok(())
}

async fn scale_up(stage: &mut Stage, service: &Service, mut step: Step) -> io::Result<Step> {
    let before = stage.load.owners();
    service.scale(PODS + 1).await?;
    let joined = id_of(&service.pods()[PODS])?;
    let limit = stage.options.longest_poll() + SLACK;
    let waiting = stage.report.waiting("until the pod is found");
    let change = stage.change(limit, |change| !change.added.is_empty()).await;
    drop(waiting);

    let (added, moved) = change.map_or_else(Default::default, |change| (change.added, change.moved));
    step.pods("pods that joined", std::slice::from_ref(&joined), &added);
    let ideal = 1.0 / (PODS + 1) as f64;
    step.share("share of all keys that moved, 25% being ideal", ideal * 0.8..=ideal * 1.2, moved);
    step.exact_share("of which the new pod has", moved, stage.share_of(&joined));
    let after = stage.load.owners();
    let elsewhere = moves(&before, &after).filter(|owner| *owner != Some(&joined)).count();
    let count = moves(&before, &after).count() as u64;
    step.sample("keys that moved", moved, stage.keys(), count);
    step.is("keys that moved to an older pod", 0, elsewhere);
    stage.read_all().await;
    step.is("keys found, which are those that stayed", stage.keys() - count, stage.count(Outcome::Fresh));
    step.is("keys not found, the new pod being empty", count, stage.count(Outcome::Missing));
    Ok(step)
}

async fn restart(stage: &mut Stage, service: &Service, mut step: Step) -> io::Result<Step> {
    const POD: usize = 1;
    if has_short_grace(stage) {
        return Ok(step.skip(SHORT_GRACE));
    }
    let before = stage.load.owners();
    let id = id_of(&service.pods()[POD])?;
    let Some(address) = service.restart_at_new_address(POD).await? else {
        return Ok(step.skip("this machine has no second loopback address to offer"));
    };
    let published = Instant::now();
    let limit = stage.options.longest_poll() + RECONNECT;
    let waiting = stage.report.waiting("until the pod is found again");
    let its_key = stage.load.entries().map(|entry| entry.key().to_owned());
    let its_key = its_key.zip(&before).find(|(_, owner)| owner.as_ref() == Some(&id)).map(|(key, _)| key);
    let serves = match its_key {
        None => Some(Duration::ZERO),
        Some(key) => loop {
            if stage.client.get(&key).await.is_ok() {
                break Some(published.elapsed());
            }
            if published.elapsed() > limit + SLACK {
                break None;
            }
            sleep(Duration::from_millis(10)).await;
        },
    };
    let change = stage.change(limit + SLACK, |change| !change.readdressed.is_empty()).await;
    drop(waiting);

    step.within("the pod serves again", limit, serves);
    let readdressed = change.as_ref().map_or(&[][..], |change| &change.readdressed);
    step.pods("pods at another address", std::slice::from_ref(&id), readdressed);
    let topology = stage.client.topology();
    let connected = topology.nodes.iter().find(|node| node.id == id).and_then(|node| node.address);
    step.is("its address", address.to_string(), connected.map_or_else(|| "none".to_owned(), |at| at.to_string()));
    no_key_moved(&mut step, stage, &before);
    stage.read_all().await;
    let lost = before.iter().flatten().filter(|owner| **owner == id).count() as u64;
    step.is("keys found, which are the other pods'", stage.keys() - lost, stage.count(Outcome::Fresh));
    step.is("keys not found, the pod being empty", lost, stage.count(Outcome::Missing));
    Ok(step)
}

async fn unready(stage: &mut Stage, service: &Service, mut step: Step) -> io::Result<Step> {
    const POD: usize = 2;
    let limit = stage.options.longest_poll() + SLACK;
    if has_short_grace(stage) {
        return Ok(step.skip(SHORT_GRACE));
    }
    let (before, version) = (stage.load.owners(), stage.client.topology().version);
    service.unready(POD).await?;
    let waiting = stage.report.waiting("until the pod is missed");
    let missed = stage.until(limit, |status| status.vanished == 1).await;
    step.within("the pod is missed", limit, missed);
    stage.read_all().await;
    step.is("keys found meanwhile, for the pod still answers", stage.keys(), stage.count(Outcome::Fresh));
    service.ready(POD).await?;
    let found = stage.until(limit, |status| status.vanished == 0).await;
    drop(waiting);
    step.within("the pod is found again", limit, found);
    no_key_moved(&mut step, stage, &before);
    step.is("topology", version, stage.client.topology().version);
    Ok(step)
}

async fn dns_outage(stage: &mut Stage, service: &Service, mut step: Step) -> io::Result<Step> {
    /// The longest a failing look-up takes, by the library's default.
    const LOOKUP: Duration = Duration::from_secs(5);
    let limit = (stage.options.longest_poll() + LOOKUP) * 2 + SLACK;
    let (before, version) = (stage.load.owners(), stage.client.topology().version);
    let errors_before = stage.client.discovery_status().errors;
    service.dns().stop().await;
    let waiting = stage.report.waiting("while DNS does not answer");
    let (mut found, mut read) = (0, 0);
    let began = Instant::now();
    // Two polls have to fail; values are read all the while.
    while stage.client.discovery_status().errors < errors_before + 2 && began.elapsed() < limit {
        stage.read_all().await;
        (found, read) = (found + stage.count(Outcome::Fresh), read + stage.keys());
        sleep(Duration::from_millis(500)).await;
    }
    let status = stage.client.discovery_status();
    step.at_least("polls that failed", 2, status.errors - errors_before);
    step.is("discovery", name_of(&DiscoveryState::Stale), name_of(&status.state));
    step.is("reads that found their key meanwhile", read, found);
    service.dns().start().await?;
    let fresh = stage.until(limit, |status| status.state == DiscoveryState::Fresh).await;
    drop(waiting);
    step.within("discovery works again", limit, fresh);
    no_key_moved(&mut step, stage, &before);
    step.is("topology", version, stage.client.topology().version);
    Ok(step)
}

async fn scale_down(
    stage: &mut Stage,
    service: &Service,
    mut step: Step,
    first_owners: &[Option<NodeId>],
) -> io::Result<Step> {
    let before = stage.load.owners();
    let id = id_of(&service.pods()[PODS])?;
    let share = stage.share_of(&id);
    service.scale(PODS).await?;
    let grace = stage.options.removal_grace;
    if grace >= Duration::from_secs(1) {
        stage.read_all().await;
        let its = before.iter().flatten().filter(|owner| **owner == id).count() as u64;
        step.is("keys that fail during the grace, which are the pod's", its, stage.count(Outcome::Failed));
        step.is("keys found meanwhile", stage.keys() - its, stage.count(Outcome::Fresh));
    }
    let waiting = stage.report.waiting("until the grace is over");
    let limit = grace + stage.options.longest_poll() * 3 + SLACK;
    let change = stage.change(limit, |change| !change.removed.is_empty()).await;
    drop(waiting);

    let (removed, moved) = change.map_or_else(Default::default, |change| (change.removed, change.moved));
    step.pods("pods that left", std::slice::from_ref(&id), &removed);
    step.exact_share("share of all keys that moved, which is what it had", share, moved);
    let after = stage.load.owners();
    let back = after.iter().zip(first_owners).filter(|(now, first)| now == first).count() as u64;
    step.is("keys with the owner they had at first", stage.keys(), back);
    let tally = stage.read_all().await;
    step.is("reads that failed afterwards", 0, tally.failed());
    // The older pods have kept what they had before the fourth came, which has been written anew since.
    step.at_most("older values found, of keys that moved", moves(&before, &after).count() as u64, tally.stale);
    step.is("older values found, of keys that stayed", 0, tally.unexplained);
    Ok(step)
}

const SHORT_GRACE: &str = "the removal grace is shorter than three polls: a pod away for a moment may lose its keys";

fn has_short_grace(stage: &Stage) -> bool {
    stage.options.removal_grace < stage.options.longest_poll() * 3
}

fn no_key_moved(step: &mut Step, stage: &Stage, before: &[Option<NodeId>]) {
    step.is("keys that moved", 0, moves(before, &stage.load.owners()).count());
}

/// The new owners of keys that have another one now.
fn moves<'a>(before: &'a [Option<NodeId>], after: &'a [Option<NodeId>]) -> impl Iterator<Item = Option<&'a NodeId>> {
    before.iter().zip(after).filter(|(before, after)| before != after).map(|(_, after)| after.as_ref())
}

fn id_of(pod: &Pod) -> io::Result<NodeId> {
    NodeId::new(&pod.fqdn, pod.addr.port()).map_err(io::Error::other)
}
