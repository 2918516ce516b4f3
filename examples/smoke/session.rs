//! The run as it stands: the client, its keys, and what was counted so far.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use memring::{Client, DiscoveryStatus, NodeId, TopologyChange, TopologyWatch};
use tokio::time::{sleep, timeout};

use crate::load::{Load, Pass};
use crate::options::Options;
use crate::report::{Report, Share, Summary};
use crate::step::Step;
use crate::tally::Tally;
use crate::value::Outcome;

#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) options: Options,
    pub(crate) client: Client,
    pub(crate) changes: TopologyWatch,
    pub(crate) load: Load,
    pub(crate) report: Report,
    pub(crate) summary: Summary,
}

impl Stage {
    pub(crate) fn keys(&self) -> u64 {
        self.options.keys as u64
    }

    pub(crate) async fn write_all(&mut self) -> Tally {
        self.pass(Pass::Write, "writing").await
    }

    pub(crate) async fn read_all(&mut self) -> Tally {
        self.pass(Pass::Read, "reading").await
    }

    async fn pass(&mut self, pass: Pass, what: &str) -> Tally {
        let bar = self.report.progress(what, self.keys());
        let each = bar.clone();
        let tally = self.load.pass(pass, move || each.inc(1)).await;
        bar.finish_and_clear();
        self.summary.total.merge(&tally);
        tally
    }

    /// How many keys the last pass left with this outcome.
    pub(crate) fn count(&self, outcome: Outcome) -> u64 {
        self.load.entries().filter(|entry| entry.last == outcome).count() as u64
    }

    /// Writes every key and reads it back; what that took from whom.
    pub(crate) async fn round_trip(&mut self, step: &mut Step) -> Tally {
        let mut tally = self.write_all().await;
        step.is("keys written", self.keys(), self.count(Outcome::Stored));
        tally.merge(&self.read_all().await);
        step.is("keys read back as written", self.keys(), self.count(Outcome::Fresh));
        step.is("wrong values", 0, tally.wrong);
        tally
    }

    /// Tells how the keys are shared out, beside the ring's exact shares.
    pub(crate) fn shares(&self) -> Vec<Share> {
        let owners = self.load.owners();
        let shares = self.client.topology().nodes.into_iter().map(|node| {
            let keys = owners.iter().flatten().filter(|owner| **owner == node.id).count();
            Share { id: node.id, keys, counted: keys as f64 / self.options.keys as f64, exact: node.share }
        });
        shares.collect()
    }

    /// The exact share of the ring a node has.
    pub(crate) fn share_of(&self, id: &NodeId) -> f64 {
        self.client.topology().nodes.iter().find(|node| node.id == *id).map_or(0.0, |node| node.share)
    }

    /// Waits for a change of the topology that is wanted, at most so long.
    pub(crate) async fn change(
        &mut self,
        limit: Duration,
        wanted: impl Fn(&TopologyChange) -> bool,
    ) -> Option<TopologyChange> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let change = timeout(left, self.changes.changed()).await.ok()??;
            self.changed(&change);
            if wanted(&change) {
                return Some(change);
            }
        }
    }

    pub(crate) fn changed(&self, change: &TopologyChange) {
        if !change.readdressed.is_empty() {
            self.load.shared.epoch.fetch_add(1, Ordering::Relaxed);
        }
        self.report.topology(change);
    }

    /// Waits until discovery is as wanted, at most so long; how long it took.
    pub(crate) async fn until(
        &self,
        limit: Duration,
        wanted: impl Fn(&DiscoveryStatus) -> bool + Send,
    ) -> Option<Duration> {
        let began = Instant::now();
        while !wanted(&self.client.discovery_status()) {
            if began.elapsed() >= limit {
                return None;
            }
            sleep(Duration::from_millis(10)).await;
        }
        Some(began.elapsed())
    }

    /// The step is over.
    pub(crate) fn done(&mut self, step: &Step) {
        match step.ok() {
            Some(true) => self.summary.passed += 1,
            Some(false) => self.summary.failed += 1,
            None => self.summary.skipped += 1,
        }
        self.report.step(step);
    }

    /// Whether a machine that stood still may be why it did not: it makes operations late, and no value wrong.
    pub(crate) fn is_worth_another_attempt(&self) -> bool {
        self.summary.total.wrong == 0 && self.summary.error.is_none()
    }

    /// Whether all went as it should. Errors are no fault of whoever watches pods come and go; silence is.
    pub(crate) fn ok(&self) -> bool {
        let summary = &self.summary;
        let steps_count = self.options.watch.is_none() || self.options.target.is_own();
        let steps = summary.failed == 0 || !steps_count;
        summary.error.is_none() && summary.total.wrong == 0 && summary.idle_seconds == 0 && steps
    }
}
