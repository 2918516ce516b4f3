//! The output: text for people, or one JSON object per line for programs.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use memring::{NodeId, Topology, TopologyChange};
use serde_json::{Value, json};

use crate::json::{Object, array};
use crate::step::{Step, list, percent, pod_name};
use crate::tally::{LATE, Latencies, Tally};

#[derive(Debug, Clone)]
pub(crate) struct Report {
    json: bool,
    /// Whether to show progress bars: both outputs are terminals.
    is_interactive: bool,
}

/// The totals of a run.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) total: Tally,
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    pub(crate) seconds: u64,
    /// Seconds in which no operation ended.
    pub(crate) idle_seconds: u64,
    pub(crate) error: Option<String>,
}

/// A node's share of the keys.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) id: NodeId,
    pub(crate) keys: usize,
    pub(crate) counted: f64,
    pub(crate) exact: f64,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        let is_interactive = !json && std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
        Self { json, is_interactive }
    }

    /// Prints a line that JSON output omits.
    pub(crate) fn text(&self, text: &str) {
        if !self.json {
            line(text);
        }
    }

    pub(crate) fn nodes(&self, topology: &Topology) {
        if self.json {
            let nodes = topology.nodes.iter().map(|node| {
                let addr = node.address.map(|addr| addr.to_string());
                Object::new().with("id", node.id.to_string()).with("addr", addr).end()
            });
            return line(&Object::event("nodes").raw("nodes", &array(nodes)).end());
        }
        let rows = topology.nodes.iter().map(|node| {
            let address =
                node.address.map_or_else(|| format!("({:?})", node.state).to_lowercase(), |at| at.to_string());
            vec![node.id.host().to_owned(), node.id.port().to_string(), address]
        });
        table(&["node", "port", "address"], rows);
    }

    pub(crate) fn shares(&self, shares: &[Share]) {
        if self.json {
            let nodes = shares.iter().map(|share| {
                let node = Object::new().with("id", share.id.to_string()).with("keys", share.keys);
                node.with("counted", share.counted).with("exact", share.exact).end()
            });
            return line(&Object::event("shares").raw("nodes", &array(nodes)).end());
        }
        let rows = shares.iter().map(|share| {
            vec![share.id.to_string(), share.keys.to_string(), percent(share.counted), percent(share.exact)]
        });
        table(&["node", "keys", "share of keys", "share of ring"], rows);
    }

    /// Prints the operations, errors and latencies of each node.
    pub(crate) fn pods(&self, tally: &Tally) {
        if self.json {
            let nodes = tally.nodes.iter().map(|(id, node)| {
                let object = Object::new().with("id", id.to_string()).with("ops", node.ops).with("errors", node.failed);
                latencies(object, &node.latencies).end()
            });
            return line(&Object::event("pods").raw("nodes", &array(nodes)).end());
        }
        let rows = tally.nodes.iter().map(|(id, node)| {
            let l = &node.latencies;
            let times = [l.at(0.5), l.at(0.99), l.at(0.999), l.max()].map(micros);
            [vec![id.to_string(), node.ops.to_string(), node.failed.to_string()], times.to_vec()].concat()
        });
        table(&["node", "ops", "errors", "p50", "p99", "p99.9", "max"], rows);
    }

    pub(crate) fn second(&self, t: u64, tally: &Tally, nodes: usize) {
        if self.json {
            let object = counts(Object::event("second").with("t", t), tally);
            let failing = failing(tally).map(|(id, count)| (id.to_string(), Value::from(count)));
            let object = latencies(object, &tally.latencies).with("nodes", nodes);
            return line(&object.with("errors_by_node", Value::from_iter(failing)).end());
        }
        let l = &tally.latencies;
        let failing_nodes: Vec<_> = failing(tally).map(|(id, _)| pod_name(id)).collect();
        line(&format!(
            "{t:>5} s  {:>7} ops  {:>7} hits  {:>6} misses  wrong {}  stale {}  p50 {}  p99 {}  max {}  \
             {nodes} nodes{}{}",
            tally.ops,
            tally.hits,
            tally.misses,
            tally.wrong,
            tally.stale,
            micros(l.at(0.5)),
            micros(l.at(0.99)),
            micros(l.max()),
            problems(tally),
            if failing_nodes.is_empty() { String::new() } else { format!("  on {}", list(&failing_nodes)) },
        ));
    }

    pub(crate) fn topology(&self, change: &TopologyChange) {
        let texts = |ids: &[NodeId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
        if self.json {
            let object = Object::event("topology")
                .with("version", change.version)
                .with("added", texts(&change.added))
                .with("removed", texts(&change.removed))
                .with("readdressed", texts(&change.readdressed));
            return line(&object.with("moved", change.moved).end());
        }
        let mut parts = Vec::new();
        for (what, ids) in
            [("added", &change.added), ("removed", &change.removed), ("new address", &change.readdressed)]
        {
            if !ids.is_empty() {
                parts.push(format!("{what}: {}", list(ids)));
            }
        }
        let (version, nodes, moved) = (change.version, change.nodes.len(), percent(change.moved));
        line(&format!("  topology {version}, {nodes} nodes; {}; {moved} of all keys moved", parts.join("; ")));
    }

    pub(crate) fn step(&self, step: &Step) {
        if self.json {
            let checks = step.checks.iter().map(|check| {
                let object = Object::new().with("what", check.what.as_ref()).with("expected", check.expected.as_str());
                object.with("actual", check.actual.as_str()).with("ok", check.ok).end()
            });
            let object = Object::event("step").with("step", step.name).with("ok", step.is_ok());
            return line(&object.with("skipped", step.skipped.clone()).raw("checks", &array(checks)).end());
        }
        if let Some(reason) = &step.skipped {
            return line(&format!("  skipped: {reason}"));
        }
        let rows = step.checks.iter().map(|check| {
            let result = if check.ok { "ok" } else { "FAILED" };
            vec![check.what.to_string(), check.expected.clone(), check.actual.clone(), result.to_owned()]
        });
        table(&["check", "expected", "actual", "result"], rows);
    }

    /// Reports that the run is repeated because the machine stalled. Earlier output no longer counts.
    pub(crate) fn retry(&self, stall: Duration) {
        if self.json {
            return line(&Object::event("retry").with("stall_ms", stall.as_millis() as u64).end());
        }
        line(&format!("\nretrying: the run failed while this machine stalled for {stall:?}\n"));
    }

    pub(crate) fn summary(&self, ok: bool, summary: &Summary) {
        let tally = &summary.total;
        if self.json {
            let object = counts(Object::event("summary").with("ok", ok), tally);
            let steps = json!({ "passed": summary.passed, "failed": summary.failed, "skipped": summary.skipped });
            let object = latencies(object, &tally.latencies)
                .with("seconds", summary.seconds)
                .with("idle_seconds", summary.idle_seconds)
                .with("steps", steps);
            return line(&object.with("error", summary.error.clone()).end());
        }
        let Summary { passed, failed, skipped, .. } = summary;
        line(&format!("\nsteps: {passed} passed, {failed} failed, {skipped} skipped"));
        if summary.seconds > 0 {
            line(&format!("seconds: {}, {} without any operation", summary.seconds, summary.idle_seconds));
        }
        let Tally { ops, hits, misses, wrong, stale, unexplained, .. } = tally;
        line(&format!("operations: {ops}, {hits} hits, {misses} misses, {} errors{}", tally.failed(), problems(tally)));
        let unexplained = if *unexplained > 0 { format!(", {unexplained} unexplained") } else { String::new() };
        line(&format!("wrong values: {wrong}; stale values: {stale}{unexplained}"));
        line(if ok { "PASSED" } else { "FAILED" });
    }

    /// Returns a progress bar, which is hidden unless the output is interactive.
    pub(crate) fn progress(&self, label: &str, length: u64) -> ProgressBar {
        if !self.is_interactive {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(length);
        if let Ok(style) = ProgressStyle::with_template("  {msg} {wide_bar} {pos}/{len}") {
            bar.set_style(style);
        }
        bar.with_message(label.to_owned())
    }

    /// Shows a spinner until the result is dropped.
    pub(crate) fn spinner(&self, label: &str) -> Spinner {
        if !self.is_interactive {
            return Spinner(ProgressBar::hidden());
        }
        let bar = ProgressBar::new_spinner().with_message(label.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        Spinner(bar)
    }
}

/// A spinner that disappears when dropped.
#[derive(Debug)]
pub(crate) struct Spinner(ProgressBar);

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Adds the counts that a second and the summary share.
fn counts(object: Object, tally: &Tally) -> Object {
    object
        .with("ops", tally.ops)
        .with("hits", tally.hits)
        .with("misses", tally.misses)
        .with("errors", Value::from_iter(tally.errors.clone()))
        .with("wrong", tally.wrong)
        .with("stale", tally.stale)
        .with("unexplained", tally.unexplained)
        .with("late", tally.late)
}

fn latencies(object: Object, l: &Latencies) -> Object {
    let object = object.with("p50_us", l.at(0.5)).with("p99_us", l.at(0.99)).with("p999_us", l.at(0.999));
    object.with("max_us", l.max())
}

/// Returns the number of errors of each kind, and of late operations.
fn problems(tally: &Tally) -> String {
    let mut problems: BTreeMap<&str, u64> = tally.errors.iter().map(|(kind, count)| (kind.as_str(), *count)).collect();
    let late = format!("over {} ms late", LATE.as_millis());
    if tally.late > 0 {
        problems.insert(&late, tally.late);
    }
    problems.into_iter().map(|(what, count)| format!("  {what} {count}")).collect()
}

/// Returns the nodes with failed operations, and how many failed.
fn failing(tally: &Tally) -> impl Iterator<Item = (&NodeId, u64)> {
    tally.nodes.iter().filter(|(_, node)| node.failed > 0).map(|(id, node)| (id, node.failed))
}

fn micros(us: u64) -> String {
    format!("{:.2} ms", us as f64 / 1000.0)
}

/// Prints left-aligned columns, each as wide as its widest cell.
fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let heads = heads.iter().map(|&head| head.to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(heads).chain(rows).collect();
    let columns = rows.first().map_or(0, Vec::len);
    let width =
        |column: usize| rows.iter().map(|row: &Vec<String>| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        line(format!("  {}", cells.join("  ")).trim_end());
    }
}

fn line(text: &str) {
    // A closed pipe is no reason to panic and leave pods running.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
