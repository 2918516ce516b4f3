//! Child processes that do not outlive the test, and addresses for them.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// What a process may take to get ready or to end. A busy disk may take many seconds to bring a program into memory.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// By way of the program `kill`, for sending a signal ourselves would take `unsafe` code.
    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").arg(signal).arg(self.0.id().to_string()).status().unwrap();
        assert!(status.success(), "kill {signal}: {status}");
    }

    /// Waits until it is ready.
    pub(crate) fn ready(&mut self, what: &str, mut is_ready: impl FnMut() -> bool) {
        until(PATIENCE, what, || {
            assert_eq!(self.0.try_wait().unwrap(), None, "ended before {what}");
            is_ready()
        });
    }

    /// Waits until it ends by itself.
    pub(crate) fn ended(&mut self, limit: Duration) -> ExitStatus {
        until(limit, "a process to end", || self.0.try_wait().unwrap().is_some());
        self.0.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Looks again and again, at most so long; when it had come true.
pub(crate) fn until(limit: Duration, what: &str, mut is_so: impl FnMut() -> bool) -> Instant {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < limit, "waited {limit:?} in vain for {what}");
        sleep(Duration::from_millis(5));
    }
    Instant::now()
}

/// An address where nobody listens on the port (or on some port, if 0), picked blindly so that tests side by side do not
/// meet. `None` if 127.0.0.1 is all there is.
pub(crate) fn loopback(port: u16) -> Option<SocketAddr> {
    let random = || Ipv4Addr::new(127, fastrand::u8(1..=254), fastrand::u8(..), fastrand::u8(1..=254));
    (0..8).find_map(|_| TcpListener::bind((random(), port)).ok()?.local_addr().ok())
}

/// How long the machine at times lets wait who is to run: a deadline cannot be kept any better than that.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stalls(Arc<Mutex<Vec<(Instant, Duration)>>>);

impl Stalls {
    /// Watches until the program ends.
    pub(crate) fn watch() -> Self {
        let stalls = Self::default();
        let seen = stalls.clone();
        spawn(move || {
            loop {
                let due = Instant::now() + Duration::from_millis(5);
                sleep(Duration::from_millis(5));
                seen.0.lock().unwrap().push((due, due.elapsed()));
            }
        });
        stalls
    }

    /// The longest that was under way in that time.
    pub(crate) fn longest(&self, from: Instant, to: Instant) -> Duration {
        let seen = self.0.lock().unwrap();
        let then = seen.iter().filter(|(due, stall)| *due <= to && *due + *stall >= from);
        then.map(|(_, stall)| *stall).max().unwrap_or_default()
    }
}
