//! Follows discovery: each new roster becomes the next snapshot.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::info;

use super::{Map, Rule, Snapshot};
use crate::config::Settings;
use crate::discovery::{Addresses, Endpoint, Roster};
use crate::node::Node;

/// How long the snapshot that routes to a new node waits for the node's first dial. Longer than a dial that works
/// takes; a node that does not answer must not hold up the others.
const JOIN_WAIT: Duration = Duration::from_secs(1);

/// The task that owns change. It ends when discovery does, or when it is dropped.
pub(crate) struct Worker {
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) published: watch::Sender<Arc<Map>>,
    pub(crate) roster: watch::Receiver<Arc<Roster>>,
    pub(crate) addresses: Addresses,
    pub(crate) rule: Rule,
    pub(crate) settings: Settings,
}

impl Worker {
    pub(crate) async fn run(mut self) {
        // Nodes that have left, being drained. Dropped, and so closed, with the worker.
        let mut leaving = JoinSet::new();
        // A roster that was there from the start, such as a bootstrap list, is news too.
        self.roster.mark_changed();
        loop {
            tokio::select! {
                changed = self.roster.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let roster = Arc::clone(&self.roster.borrow_and_update());
                    self.apply(&roster, &mut leaving).await;
                }
                Some(_) = leaving.join_next() => {}
            }
        }
    }

    async fn apply(&self, roster: &Roster, leaving: &mut JoinSet<()>) {
        let current = self.snapshot.load_full();
        let mut joining = Vec::new();
        let next = current.rebuild(roster, &self.rule, |endpoint: &Endpoint| {
            joining.push(endpoint.id().clone());
            let listed = endpoint.addresses().to_vec();
            Node::open(endpoint.id().clone(), listed, self.addresses.clone(), self.settings.clone())
        });
        for (node, endpoint) in next.nodes.iter().zip(&roster.endpoints) {
            node.follow(endpoint.addresses());
        }
        let first_dials =
            next.nodes.iter().filter(|node| joining.contains(node.id())).map(|node| node.first_dial_done());
        let _ = timeout(JOIN_WAIT, join_all(first_dials)).await;

        let stays = |node: &Arc<Node>| next.nodes.iter().any(|other| Arc::ptr_eq(other, node));
        let gone: Vec<_> = current.nodes.iter().filter(|node| !stays(node)).cloned().collect();
        let map = Arc::clone(&next.map);
        if map.version != current.map.version {
            let moved = current.map.ring.moved(&map.ring);
            let removed: Vec<_> = gone.iter().map(|node| node.id().to_string()).collect();
            let added: Vec<_> = joining.iter().map(ToString::to_string).collect();
            info!(target: "memring", version = map.version, nodes = map.endpoints.len(), ?added, ?removed, moved, "topology changed");
        }
        let before = self.snapshot.compare_and_swap(&current, Arc::new(next));
        if !Arc::ptr_eq(&before, &current) {
            // The client was shut down meanwhile, and stays so; the nodes just opened end with `next`.
            return;
        }
        self.published.send_replace(map);
        let limit = self.settings.silence_timeout();
        for node in gone {
            leaving.spawn(async move { node.retire(limit).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::{DiscoveryOptions, StaticNodes, follow};
    use crate::node_id::NodeId;

    #[tokio::test]
    async fn a_client_that_is_shut_down_stays_shut_down() {
        // Nothing listens there.
        let id: NodeId = "127.0.0.1:1".parse().unwrap();
        let (follow, _task) = follow(Arc::new(StaticNodes::new([id.clone()])), DiscoveryOptions::default());
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::empty()));
        let worker = Worker {
            snapshot: Arc::clone(&snapshot),
            published: watch::Sender::new(snapshot.load().map()),
            roster: follow.roster,
            addresses: follow.addresses,
            rule: Rule::default(),
            settings: Settings::default(),
        };
        let roster = Roster { version: 1, addr_epoch: 0, endpoints: vec![Endpoint::new(id)] };
        let mut leaving = JoinSet::new();
        tokio::join!(worker.apply(&roster, &mut leaving), async {
            // While the worker waits for the first dial.
            snapshot.store(Arc::new(Snapshot::closed()));
        });
        assert!(snapshot.load().closed && snapshot.load().nodes.is_empty());
        assert!(!worker.published.borrow().is_known());
    }
}
