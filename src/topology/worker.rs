//! The task that turns each new roster into the next snapshot.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::info;

use super::{PlacementRule, Snapshot, TopologyView};
use crate::config::Settings;
use crate::discovery::{Endpoint, NodeLocator, Roster};
use crate::node::{Node, Outage};
use crate::node_id::NodeId;

/// How long a snapshot with new nodes waits for their first dials. Longer than a dial that succeeds takes; a node that
/// does not answer must not hold up the others.
const FIRST_DIAL_WAIT: Duration = Duration::from_secs(1);

/// The task that owns changes of the topology. It ends when discovery ends or when it is dropped.
pub(crate) struct Worker {
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) published: watch::Sender<Arc<TopologyView>>,
    pub(crate) roster: watch::Receiver<Arc<Roster>>,
    pub(crate) locator: NodeLocator,
    pub(crate) rule: PlacementRule,
    pub(crate) settings: Settings,
    pub(crate) outage: Arc<Outage>,
}

impl Worker {
    pub(crate) async fn run(mut self) {
        // Nodes that have left and drain. Dropping the worker closes them.
        let mut draining = JoinSet::new();
        // The first roster, such as a bootstrap list, counts as a change.
        self.roster.mark_changed();
        loop {
            tokio::select! {
                changed = self.roster.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let roster = Arc::clone(&self.roster.borrow_and_update());
                    self.apply(&roster, &mut draining).await;
                }
                Some(_) = draining.join_next() => {}
            }
        }
    }

    async fn apply(&self, roster: &Roster, draining: &mut JoinSet<()>) {
        let current = self.snapshot.load_full();
        let (next, added) = self.build_next(&current, roster);
        for (node, endpoint) in next.nodes.iter().zip(&roster.endpoints) {
            node.set_addresses(endpoint.listed_addresses());
        }
        wait_for_first_dials(&next, &added).await;

        let removed = removed_nodes(&current, &next);
        log_change(&current.view, &next.view, &added, &removed);
        let view = next.view();
        let before = self.snapshot.compare_and_swap(&current, Arc::new(next));
        if !Arc::ptr_eq(&before, &current) {
            // The client was shut down meanwhile, and stays so. Dropping `next` closes the nodes just opened.
            return;
        }
        self.published.send_replace(view);
        self.retire(removed, draining);
    }

    /// Builds the next snapshot. Returns it with the identities of the nodes it opened.
    fn build_next(&self, current: &Snapshot, roster: &Roster) -> (Snapshot, Vec<NodeId>) {
        let mut added = Vec::new();
        let next = current.rebuild(roster, &self.rule, |endpoint: &Endpoint| {
            added.push(endpoint.id().clone());
            let listed = endpoint.listed_addresses().clone();
            let (id, locator, settings) = (endpoint.id().clone(), self.locator.clone(), self.settings.clone());
            Node::open(id, listed, locator, settings, Arc::clone(&self.outage))
        });
        (next, added)
    }

    /// Lets nodes that left answer what is in flight, then closes them.
    fn retire(&self, nodes: Vec<Arc<Node>>, draining: &mut JoinSet<()>) {
        let limit = self.settings.silence_timeout();
        for node in nodes {
            draining.spawn(async move { node.retire(limit).await });
        }
    }
}

async fn wait_for_first_dials(next: &Snapshot, added: &[NodeId]) {
    let first_dials = next.nodes.iter().filter(|node| added.contains(node.id())).map(|node| node.first_dial_done());
    let _ = timeout(FIRST_DIAL_WAIT, join_all(first_dials)).await;
}

fn removed_nodes(current: &Snapshot, next: &Snapshot) -> Vec<Arc<Node>> {
    let stays = |node: &Arc<Node>| next.nodes.iter().any(|other| Arc::ptr_eq(other, node));
    current.nodes.iter().filter(|node| !stays(node)).cloned().collect()
}

fn log_change(old: &TopologyView, new: &TopologyView, added: &[NodeId], removed: &[Arc<Node>]) {
    if new.version == old.version {
        return;
    }
    let added: Vec<_> = added.iter().map(ToString::to_string).collect();
    let removed: Vec<_> = removed.iter().map(|node| node.id().to_string()).collect();
    let moved = old.ring.moved(&new.ring);
    let nodes = new.endpoints.len();
    info!(target: "memring", version = new.version, nodes, ?added, ?removed, moved, "topology changed");
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::discovery::{
        Discovery, DiscoveryError, DiscoveryOptions, HostAddresses, Membership, StaticNodes, start_refresh,
    };

    /// A source whose node is not found.
    #[derive(Debug)]
    struct Lost;

    impl Discovery for Lost {
        async fn discover(&self) -> Result<Membership, DiscoveryError> {
            std::future::pending().await
        }

        async fn resolve(&self, _host: &str) -> Result<HostAddresses, DiscoveryError> {
            std::future::pending().await
        }
    }

    fn worker(source: impl Discovery) -> (Worker, impl Future<Output = ()>) {
        let (discovery, task) = start_refresh(Arc::new(source), DiscoveryOptions::default());
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::empty()));
        let worker = Worker {
            snapshot: Arc::clone(&snapshot),
            published: watch::Sender::new(snapshot.load().view()),
            roster: discovery.roster,
            locator: discovery.locator,
            rule: PlacementRule::default(),
            settings: Settings::default(),
            outage: Arc::default(),
        };
        (worker, task)
    }

    /// A node that does not answer must not hold up the others.
    #[tokio::test(start_paused = true)]
    async fn a_change_waits_a_second_for_the_first_dials() {
        let (worker, _task) = worker(Lost);
        let lost = NodeId::new("lost", 1).unwrap();
        let roster = Roster { version: 1, addr_epoch: 0, endpoints: vec![Endpoint::new(lost)] };
        let start = Instant::now();
        worker.apply(&roster, &mut JoinSet::new()).await;
        assert_eq!((start.elapsed(), worker.snapshot.load().nodes.len()), (FIRST_DIAL_WAIT, 1));
        assert_eq!(FIRST_DIAL_WAIT, Duration::from_secs(1));
    }

    #[tokio::test]
    async fn a_change_does_not_reopen_a_client_that_is_shut_down() {
        // Nothing listens there.
        let id: NodeId = "127.0.0.1:1".parse().unwrap();
        let (worker, _task) = worker(StaticNodes::new([id.clone()]));
        let snapshot = Arc::clone(&worker.snapshot);
        let roster = Roster { version: 1, addr_epoch: 0, endpoints: vec![Endpoint::new(id)] };
        let mut draining = JoinSet::new();
        tokio::join!(worker.apply(&roster, &mut draining), async {
            // While the worker waits for the first dial.
            snapshot.store(Arc::new(Snapshot::closed()));
        });
        assert!(snapshot.load().closed && snapshot.load().nodes.is_empty());
        assert!(!worker.published.borrow().is_known());
    }
}
