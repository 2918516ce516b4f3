//! The smoke example at work, and what it says.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::process::{PATIENCE, Process, until};

#[derive(Debug)]
pub(crate) struct Smoke {
    process: Process,
    reader: JoinHandle<()>,
    said: Arc<Mutex<Vec<Line>>>,
}

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

    /// The names and counts in an object of counts.
    pub(crate) fn counts(&self, field: &str) -> Vec<(&str, u64)> {
        let counts = self.event[field].as_object().unwrap_or_else(|| panic!("no {field} in {}", self.event));
        counts.iter().map(|(name, count)| (name.as_str(), count.as_u64().unwrap())).collect()
    }

    /// Which nodes this changed in this way.
    pub(crate) fn changed(&self, how: &str) -> Vec<&str> {
        let ids = self.event[how].as_array().filter(|_| self.is("topology"));
        ids.into_iter().flatten().map(|id| id.as_str().unwrap()).collect()
    }
}

impl Smoke {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let test = std::env::current_exe().unwrap();
        let built = test.parent().and_then(|deps| deps.parent()).unwrap();
        let path = built.join("examples").join(format!("smoke{}", std::env::consts::EXE_SUFFIX));
        assert!(path.exists(), "there is no {}: build it with `cargo build --example smoke`", path.display());
        let mut command = Command::new(path);
        let mut process = Process::spawn(command.args(arguments).env_remove("RUST_LOG").stdout(Stdio::piped()));
        let lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        let reader = std::thread::spawn(move || {
            for line in lines.map(Result::unwrap) {
                let event = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
                heard.lock().unwrap().push(Line { at: Instant::now(), event });
            }
        });
        Self { process, reader, said }
    }

    /// Waits until it has said so.
    pub(crate) fn says(&self, limit: Duration, what: &str, is_it: impl Fn(&Line) -> bool) -> Line {
        let mut found = None;
        until(limit, what, || {
            found = self.said.lock().unwrap().iter().find(|line| is_it(line)).cloned();
            found.is_some()
        });
        found.unwrap()
    }

    /// As by an operator who has seen enough; all that it said.
    pub(crate) fn interrupted(mut self) -> (ExitStatus, Vec<Line>) {
        self.process.signal("-INT");
        let status = self.process.ended(PATIENCE);
        self.reader.join().unwrap();
        (status, std::mem::take(&mut *self.said.lock().unwrap()))
    }
}
