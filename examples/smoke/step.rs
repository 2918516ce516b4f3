//! One step of a run, with the expected and the actual result of each check.

use std::borrow::Cow;
use std::fmt::{Debug, Display};
use std::ops::RangeInclusive;
use std::time::Duration;

use memring::NodeId;

#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) checks: Vec<Check>,
    /// The reason, if the step was skipped.
    pub(crate) skipped: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) what: Cow<'static, str>,
    pub(crate) expected: String,
    pub(crate) actual: String,
    pub(crate) ok: bool,
}

impl Step {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, checks: Vec::new(), skipped: None }
    }

    pub(crate) fn skip(mut self, reason: impl Into<String>) -> Self {
        self.skipped = Some(reason.into());
        self
    }

    /// Returns whether every check passed, or `None` if the step was skipped.
    pub(crate) fn is_ok(&self) -> Option<bool> {
        self.skipped.is_none().then(|| self.checks.iter().all(|check| check.ok))
    }

    pub(crate) fn expect<T: PartialEq + Display>(
        &mut self,
        what: impl Into<Cow<'static, str>>,
        expected: T,
        actual: T,
    ) {
        let ok = expected == actual;
        self.check(what, expected.to_string(), actual.to_string(), ok);
    }

    pub(crate) fn expect_pods(&mut self, what: impl Into<Cow<'static, str>>, expected: &[NodeId], actual: &[NodeId]) {
        let names = |ids: &[NodeId]| list(&ids.iter().map(pod_name).collect::<Vec<_>>());
        self.check(what, names(expected), names(actual), expected == actual);
    }

    pub(crate) fn expect_at_most(&mut self, what: impl Into<Cow<'static, str>>, maximum: u64, actual: u64) {
        self.check(what, format!("at most {maximum}"), actual.to_string(), actual <= maximum);
    }

    pub(crate) fn expect_at_least(&mut self, what: impl Into<Cow<'static, str>>, minimum: u64, actual: u64) {
        self.check(what, format!("at least {minimum}"), actual.to_string(), actual >= minimum);
    }

    /// Checks that a share of all keys is within bounds.
    pub(crate) fn expect_share(
        &mut self,
        what: impl Into<Cow<'static, str>>,
        bounds: RangeInclusive<f64>,
        actual: f64,
    ) {
        let expected = format!("{} to {}", percent(*bounds.start()), percent(*bounds.end()));
        self.check(what, expected, percent(actual), bounds.contains(&actual));
    }

    /// Checks a share of all keys, up to rounding errors.
    pub(crate) fn expect_exact_share(&mut self, what: impl Into<Cow<'static, str>>, expected: f64, actual: f64) {
        let ok = (expected - actual).abs() < 1e-9;
        self.check(what, format!("{:.4}%", expected * 100.0), format!("{:.4}%", actual * 100.0), ok);
    }

    /// Checks how many of `keys` are in a share, within five standard deviations of a random sample.
    pub(crate) fn expect_sample(&mut self, what: impl Into<Cow<'static, str>>, share: f64, keys: u64, actual: u64) {
        let mean = share * keys as f64;
        let tolerance = 5.0 * (mean * (1.0 - share)).sqrt() + 1.0;
        let ok = (actual as f64 - mean).abs() <= tolerance;
        self.check(what, format!("{mean:.0} +- {tolerance:.0}"), actual.to_string(), ok);
    }

    /// Checks that an event happened in time. `None` means that it did not happen.
    pub(crate) fn expect_within(
        &mut self,
        what: impl Into<Cow<'static, str>>,
        limit: Duration,
        actual: Option<Duration>,
    ) {
        let shown = actual.map_or_else(|| "never".to_owned(), seconds);
        self.check(what, format!("within {}", seconds(limit)), shown, actual.is_some_and(|actual| actual <= limit));
    }

    fn check(&mut self, what: impl Into<Cow<'static, str>>, expected: String, actual: String, ok: bool) {
        self.checks.push(Check { what: what.into(), expected, actual, ok });
    }
}

/// Returns the lower-case `Debug` name, for a value without a `Display`.
pub(crate) fn name_of<T: Debug>(value: &T) -> String {
    format!("{value:?}").to_lowercase()
}

/// Returns the pod's own name without the service's, or the whole ID if the host is an IP address.
pub(crate) fn pod_name(id: &NodeId) -> String {
    match id.ip() {
        Some(_) => id.to_string(),
        None => id.host().split('.').next().unwrap_or_default().to_owned(),
    }
}

pub(crate) fn list<T: Display>(items: &[T]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

pub(crate) fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
