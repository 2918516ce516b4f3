//! Finds out the server's version, when the first meta command needs it.
//!
//! Each connection probes for itself, because a pod may come back with another version. The probe is sent alone:
//! proxies close a connection on `version`, or never reply, and no other call may suffer for it. After two failed
//! probes of a node that has never stated its version, the node's connections send no probe for a while.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::call::Call;
use super::lock;
use crate::error::{Error, ErrorKind};
use crate::node_id::NodeId;
use crate::protocol::{Reply, Request, ServerVersion};

/// How long no probe is sent after two have failed.
const PAUSE: Duration = Duration::from_secs(60);

/// How many failed probes start the pause. One may be a connection that was lost for another reason.
const FAILURES_BEFORE_PAUSE: u32 = 2;

/// What became of a node's probes; shared by its connections.
#[derive(Debug, Default)]
pub(crate) struct ProbeHistory(Mutex<Outcomes>);

#[derive(Debug, Default)]
struct Outcomes {
    /// Failures since the last success.
    failures: u32,
    last_failure: Option<Instant>,
    /// The node has stated its version once, as memcached does. So a probe that fails means that it is slow or
    /// unreachable, and not that it is a proxy.
    is_memcached: bool,
}

impl ProbeHistory {
    /// Counts a failed probe. Connections that had sent a probe before another one failed were lost to the same cause,
    /// and all of them count as one failure.
    fn record_failure(&self, sent: Instant) {
        let mut outcomes = lock(&self.0);
        if outcomes.last_failure.is_none_or(|last| last <= sent) {
            outcomes.failures = outcomes.failures.saturating_add(1);
            outcomes.last_failure = Some(Instant::now());
        }
    }

    fn record_success(&self, is_memcached: bool) {
        let mut outcomes = lock(&self.0);
        outcomes.failures = 0;
        outcomes.is_memcached |= is_memcached;
    }

    fn is_paused(&self) -> bool {
        let outcomes = lock(&self.0);
        !outcomes.is_memcached
            && outcomes.failures >= FAILURES_BEFORE_PAUSE
            && outcomes.last_failure.is_some_and(|last| last.elapsed() < PAUSE)
    }
}

/// The state of one connection's probe.
#[derive(Debug)]
pub(super) struct VersionProbe {
    history: Arc<ProbeHistory>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// No command has needed the version yet.
    NotNeeded,
    /// A command waits for the version, and the probe is not sent yet.
    Needed,
    Sent {
        call: Arc<Call>,
        at: Instant,
    },
    Known(ServerVersion),
    /// The server did not reply in time, or not as memcached does.
    Unrecognized,
}

/// What to do with a command that needs a certain version.
#[derive(Debug)]
pub(super) enum Admission {
    Send,
    /// The version is not known yet.
    Wait,
    Refuse(Error),
}

impl VersionProbe {
    pub(super) fn new(history: Arc<ProbeHistory>) -> Self {
        Self { history, state: State::NotNeeded }
    }

    /// Decides what to do with a command that needs this version or a later one.
    pub(super) fn admission(&mut self, needs: ServerVersion, node: &NodeId) -> Admission {
        let found = match &self.state {
            State::Known(version) if needs <= *version => return Admission::Send,
            State::Known(version) => format!("the server is {version}"),
            State::NotNeeded if !self.history.is_paused() => {
                self.state = State::Needed;
                return Admission::Wait;
            }
            State::Needed | State::Sent { .. } => return Admission::Wait,
            State::NotNeeded | State::Unrecognized => "the server's version is unknown".to_owned(),
        };
        let text = format!("needs memcached {needs}, {found}");
        Admission::Refuse(Error::not_sent(ErrorKind::Unsupported).with_node(node).with_message(text))
    }

    /// Returns the probe if one is to be sent now. The server has this long to reply.
    pub(super) fn start(&mut self, timeout: Duration) -> Option<Arc<Call>> {
        let State::Needed = self.state else { return None };
        let at = Instant::now();
        let call = Arc::new(Call::new(Request::Version, at + timeout));
        self.state = State::Sent { call: Arc::clone(&call), at };
        Some(call)
    }

    /// Takes the reply to the probe, if it has arrived. Returns `false` if the reply is overdue.
    pub(super) fn poll(&mut self) -> bool {
        let State::Sent { call, at } = &self.state else { return true };
        self.state = match call.take_reply() {
            None => return true,
            Some(Ok(Reply::Version(text))) => {
                let version = ServerVersion::parse(&text);
                self.history.record_success(version.is_some());
                version.map_or(State::Unrecognized, State::Known)
            }
            Some(Err(error)) if error.kind() == ErrorKind::Timeout => {
                self.history.record_failure(*at);
                self.state = State::Unrecognized;
                return false;
            }
            Some(_) => State::Unrecognized,
        };
        true
    }

    /// Counts a failure if the connection was lost before the reply to the probe arrived.
    pub(super) fn connection_lost(&self) {
        if let State::Sent { at, .. } = self.state {
            self.history.record_failure(at);
        }
    }
}
