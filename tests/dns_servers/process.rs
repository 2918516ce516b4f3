//! Child processes that end with the test, and loopback addresses for them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// The longest a process may take to start or to end. A busy disk may need many seconds to load a program.
pub(crate) const PROCESS_LIMIT: Duration = Duration::from_secs(60);

/// A child process, killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Sends a signal with the program `kill`, because a system call would take `unsafe` code.
    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").arg(signal).arg(self.0.id().to_string()).status().unwrap();
        assert!(status.success(), "kill {signal}: {status}");
    }

    /// Waits until `is_ready` holds. Panics if the process ends before.
    pub(crate) fn wait_until_ready(&mut self, what: &str, mut is_ready: impl FnMut() -> bool) {
        wait_until(PROCESS_LIMIT, what, || {
            assert_eq!(self.0.try_wait().unwrap(), None, "ended before {what}");
            is_ready()
        });
    }

    /// Waits until the process ends without being killed.
    pub(crate) fn wait_until_ended(&mut self, limit: Duration) -> ExitStatus {
        wait_until(limit, "a process to end", || self.0.try_wait().unwrap().is_some());
        self.0.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails if the process has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Polls a condition and returns when it held. Panics after `limit`.
pub(crate) fn wait_until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Instant {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "timed out after {limit:?} waiting for {what}");
        sleep(Duration::from_millis(5));
    }
    Instant::now()
}

/// Returns a random loopback address with this port free (any port if 0), so that parallel tests do not collide.
/// Returns `None` if the machine has only 127.0.0.1.
pub(crate) fn loopback(port: u16) -> Option<SocketAddr> {
    let random = || Ipv4Addr::new(127, fastrand::u8(1..=254), fastrand::u8(..), fastrand::u8(1..=254));
    (0..8).find_map(|_| TcpListener::bind((random(), port)).ok()?.local_addr().ok())
}

/// The delays with which a sleeping thread woke up, by time. No deadline can be kept better than that.
#[derive(Debug, Clone, Default)]
pub(crate) struct StallLog(Arc<Mutex<Vec<(Instant, Duration)>>>);

impl StallLog {
    /// Starts a thread that runs until the program ends.
    pub(crate) fn start() -> Self {
        let stalls = Self::default();
        let log = stalls.clone();
        spawn(move || {
            loop {
                let due = Instant::now() + Duration::from_millis(5);
                sleep(Duration::from_millis(5));
                log.0.lock().unwrap().push((due, due.elapsed()));
            }
        });
        stalls
    }

    /// Returns the longest stall that overlaps the interval.
    pub(crate) fn longest(&self, from: Instant, to: Instant) -> Duration {
        let stalls = self.0.lock().unwrap();
        let overlapping = stalls.iter().filter(|(due, stall)| *due <= to && *due + *stall >= from);
        overlapping.map(|(_, stall)| *stall).max().unwrap_or_default()
    }
}
