//! A running smoke example and its JSON output.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{PROCESS_LIMIT, Process, wait_until};

#[derive(Debug)]
pub(crate) struct Smoke {
    process: Process,
    reader: JoinHandle<()>,
    lines: Arc<Mutex<Vec<Line>>>,
}

/// A line of output, parsed, with its time of arrival.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) at: Instant,
    pub(crate) event: Value,
}

impl Line {
    pub(crate) fn is(&self, kind: &str) -> bool {
        self.event["event"] == kind
    }

    pub(crate) fn number(&self, field: &str) -> u64 {
        self.event[field].as_u64().unwrap_or_else(|| panic!("no {field} in {}", self.event))
    }

    /// Returns the entries of a field that maps names to counts.
    pub(crate) fn counts(&self, field: &str) -> Vec<(&str, u64)> {
        let counts = self.event[field].as_object().unwrap_or_else(|| panic!("no {field} in {}", self.event));
        counts.iter().map(|(name, count)| (name.as_str(), count.as_u64().unwrap())).collect()
    }

    /// Returns the nodes in a list of a topology event, or none for other events.
    pub(crate) fn changed(&self, field: &str) -> Vec<&str> {
        let ids = self.event[field].as_array().filter(|_| self.is("topology"));
        ids.into_iter().flatten().map(|id| id.as_str().unwrap()).collect()
    }
}

impl Smoke {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let test = std::env::current_exe().unwrap();
        let profile_dir = test.parent().and_then(|deps| deps.parent()).unwrap();
        let path = profile_dir.join("examples").join(format!("smoke{}", std::env::consts::EXE_SUFFIX));
        assert!(path.exists(), "{} does not exist: build it with `cargo build --example smoke`", path.display());
        let mut command = Command::new(path);
        let mut process = Process::spawn(command.args(arguments).env_remove("RUST_LOG").stdout(Stdio::piped()));
        let output = BufReader::new(process.0.stdout.take().unwrap()).lines();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for line in output.map(Result::unwrap) {
                let event = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
                shared.lock().unwrap().push(Line { at: Instant::now(), event });
            }
        });
        Self { process, reader, lines }
    }

    /// Waits for a line that matches, and returns the first one.
    pub(crate) fn wait_for(&self, limit: Duration, what: &str, matches: impl Fn(&Line) -> bool) -> Line {
        let mut found = None;
        wait_until(limit, what, || {
            found = self.lines.lock().unwrap().iter().find(|line| matches(line)).cloned();
            found.is_some()
        });
        found.unwrap()
    }

    /// Interrupts the example as Ctrl-C does. Returns its exit status and all lines.
    pub(crate) fn interrupt(mut self) -> (ExitStatus, Vec<Line>) {
        self.process.signal("-INT");
        let status = self.process.wait_until_ended(PROCESS_LIMIT);
        self.reader.join().unwrap();
        (status, std::mem::take(&mut *self.lines.lock().unwrap()))
    }
}
