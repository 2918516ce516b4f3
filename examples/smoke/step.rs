//! One step of a run: what was expected, and what was seen.

use std::borrow::Cow;
use std::fmt::{Debug, Display};
use std::ops::RangeInclusive;
use std::time::Duration;

use memring::NodeId;

#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) checks: Vec<Check>,
    /// Why it was not gone through.
    pub(crate) skipped: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) what: Cow<'static, str>,
    pub(crate) expected: String,
    pub(crate) seen: String,
    pub(crate) ok: bool,
}

impl Step {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, checks: Vec::new(), skipped: None }
    }

    pub(crate) fn skip(mut self, why: impl Into<String>) -> Self {
        self.skipped = Some(why.into());
        self
    }

    /// Whether every expectation held; `None` if it was skipped.
    pub(crate) fn ok(&self) -> Option<bool> {
        self.skipped.is_none().then(|| self.checks.iter().all(|check| check.ok))
    }

    pub(crate) fn is<T: PartialEq + Display>(&mut self, what: impl Into<Cow<'static, str>>, expected: T, seen: T) {
        let ok = expected == seen;
        self.check(what, expected.to_string(), seen.to_string(), ok);
    }

    pub(crate) fn pods(&mut self, what: impl Into<Cow<'static, str>>, expected: &[NodeId], seen: &[NodeId]) {
        let names = |ids: &[NodeId]| listed(&ids.iter().map(pod_name).collect::<Vec<_>>());
        self.check(what, names(expected), names(seen), expected == seen);
    }

    pub(crate) fn at_most(&mut self, what: impl Into<Cow<'static, str>>, most: u64, seen: u64) {
        self.check(what, format!("at most {most}"), seen.to_string(), seen <= most);
    }

    pub(crate) fn at_least(&mut self, what: impl Into<Cow<'static, str>>, least: u64, seen: u64) {
        self.check(what, format!("at least {least}"), seen.to_string(), seen >= least);
    }

    /// A share of all keys, within bounds.
    pub(crate) fn share(&mut self, what: impl Into<Cow<'static, str>>, bounds: RangeInclusive<f64>, seen: f64) {
        let expected = format!("{} to {}", percent(*bounds.start()), percent(*bounds.end()));
        self.check(what, expected, percent(seen), bounds.contains(&seen));
    }

    /// A share of all keys, to the last digit but those that summing up costs.
    pub(crate) fn exact_share(&mut self, what: impl Into<Cow<'static, str>>, expected: f64, seen: f64) {
        let ok = (expected - seen).abs() < 1e-9;
        self.check(what, format!("{:.4}%", expected * 100.0), format!("{:.4}%", seen * 100.0), ok);
    }

    /// How many of `keys` fall in a share, give or take what chance does to a sample: five standard deviations.
    pub(crate) fn sample(&mut self, what: impl Into<Cow<'static, str>>, share: f64, keys: u64, seen: u64) {
        let mean = share * keys as f64;
        let slack = 5.0 * (mean * (1.0 - share)).sqrt() + 1.0;
        self.check(what, format!("{mean:.0} +- {slack:.0}"), seen.to_string(), (seen as f64 - mean).abs() <= slack);
    }

    /// `None` if it did not happen.
    pub(crate) fn within(&mut self, what: impl Into<Cow<'static, str>>, limit: Duration, seen: Option<Duration>) {
        let shown = seen.map_or_else(|| "not at all".to_owned(), seconds);
        self.check(what, format!("within {}", seconds(limit)), shown, seen.is_some_and(|seen| seen <= limit));
    }

    pub(crate) fn check(&mut self, what: impl Into<Cow<'static, str>>, expected: String, seen: String, ok: bool) {
        self.checks.push(Check { what: what.into(), expected, seen, ok });
    }
}

/// What is seen where something else than what was expected is worth a word of its own.
pub(crate) fn name_of<T: Debug>(thing: &T) -> String {
    format!("{thing:?}").to_lowercase()
}

/// A pod's own name, where the service's is understood. An IP address has no such part.
pub(crate) fn pod_name(id: &NodeId) -> String {
    match id.ip() {
        Some(_) => id.to_string(),
        None => id.host().split('.').next().unwrap_or_default().to_owned(),
    }
}

pub(crate) fn listed<T: Display>(things: &[T]) -> String {
    if things.is_empty() {
        return "none".to_owned();
    }
    things.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

pub(crate) fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
