//! One run against a service: the client, its keys, and the counts so far.

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
pub(crate) struct Session {
    pub(crate) options: Options,
    pub(crate) client: Client,
    pub(crate) changes: TopologyWatch,
    pub(crate) load: Load,
    pub(crate) report: Report,
    pub(crate) summary: Summary,
}

impl Session {
    pub(crate) fn keys(&self) -> u64 {
        self.options.keys as u64
    }

    pub(crate) async fn write_all(&mut self) -> Tally {
        self.pass(Pass::Write, "writing").await
    }

    pub(crate) async fn read_all(&mut self) -> Tally {
        self.pass(Pass::Read, "reading").await
    }

    async fn pass(&mut self, pass: Pass, label: &str) -> Tally {
        let bar = self.report.progress(label, self.keys());
        let each = bar.clone();
        let tally = self.load.pass(pass, move || each.inc(1)).await;
        bar.finish_and_clear();
        self.summary.total.merge(&tally);
        tally
    }

    /// Returns how many keys ended the last pass with this outcome.
    pub(crate) fn count(&self, outcome: Outcome) -> u64 {
        self.load.entries().filter(|entry| entry.last == outcome).count() as u64
    }

    /// Writes every key and reads it back. Returns the counts and latencies of both passes.
    pub(crate) async fn round_trip(&mut self, step: &mut Step) -> Tally {
        let mut tally = self.write_all().await;
        step.expect("keys written", self.keys(), self.count(Outcome::Stored));
        tally.merge(&self.read_all().await);
        step.expect("keys read back as written", self.keys(), self.count(Outcome::Fresh));
        step.expect("wrong values", 0, tally.wrong);
        tally
    }

    /// Returns each node's keys and its exact share of the ring.
    pub(crate) fn shares(&self) -> Vec<Share> {
        let owners = self.load.owners();
        let shares = self.client.topology().nodes.into_iter().map(|node| {
            let keys = owners.iter().flatten().filter(|owner| **owner == node.id).count();
            Share { id: node.id, keys, counted: keys as f64 / self.options.keys as f64, exact: node.share }
        });
        shares.collect()
    }

    /// Returns a node's exact share of the ring.
    pub(crate) fn share_of(&self, id: &NodeId) -> f64 {
        self.client.topology().nodes.iter().find(|node| node.id == *id).map_or(0.0, |node| node.share)
    }

    /// Waits up to `limit` for a topology change that matches.
    pub(crate) async fn wait_for_change(
        &mut self,
        limit: Duration,
        matches: impl Fn(&TopologyChange) -> bool,
    ) -> Option<TopologyChange> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let change = timeout(left, self.changes.changed()).await.ok()??;
            self.record_change(&change);
            if matches(&change) {
                return Some(change);
            }
        }
    }

    pub(crate) fn record_change(&self, change: &TopologyChange) {
        if !change.readdressed.is_empty() {
            self.load.shared.epoch.fetch_add(1, Ordering::Relaxed);
        }
        self.report.topology(change);
    }

    /// Waits up to `limit` for a discovery status that matches. Returns how long that took.
    pub(crate) async fn wait_for_status(
        &self,
        limit: Duration,
        matches: impl Fn(&DiscoveryStatus) -> bool + Send,
    ) -> Option<Duration> {
        let start = Instant::now();
        while !matches(&self.client.discovery_status()) {
            if start.elapsed() >= limit {
                return None;
            }
            sleep(Duration::from_millis(10)).await;
        }
        Some(start.elapsed())
    }

    /// Counts a finished step and reports it.
    pub(crate) fn finish_step(&mut self, step: &Step) {
        match step.is_ok() {
            Some(true) => self.summary.passed += 1,
            Some(false) => self.summary.failed += 1,
            None => self.summary.skipped += 1,
        }
        self.report.step(step);
    }

    /// Whether a stall of the machine can explain a failed run. A stall makes operations late, but no value wrong.
    pub(crate) fn can_be_retried(&self) -> bool {
        self.summary.total.wrong == 0 && self.summary.error.is_none()
    }

    /// Whether the run succeeded. Under `--watch` on a real service, failed operations and steps do not count, because
    /// the operator restarts pods meanwhile. Wrong values and seconds without an operation always count.
    pub(crate) fn is_ok(&self) -> bool {
        let summary = &self.summary;
        let steps_count = self.options.watch.is_none() || self.options.target.is_own();
        let steps_are_ok = summary.failed == 0 || !steps_count;
        summary.error.is_none() && summary.total.wrong == 0 && summary.idle_seconds == 0 && steps_are_ok
    }
}
