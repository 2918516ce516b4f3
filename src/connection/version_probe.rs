//! What a server can do, asked when a meta command first needs to know.
//!
//! Each connection asks for itself, for a pod may come back as another version. The question goes out alone: proxies
//! close a connection on `version`, or never answer, and nobody else's command may suffer for it. Where asking has failed
//! twice, and never succeeded, the node's connections leave it for a while.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::call::Call;
use super::lock;
use crate::error::{Error, ErrorKind};
use crate::node_id::NodeId;
use crate::protocol::{Reply, Request, ServerVersion};

/// After two failures nobody asks for so long.
const SILENCE: Duration = Duration::from_secs(60);

/// What became of asking a node for its version; shared by the node's connections.
#[derive(Debug, Default)]
pub(crate) struct ProbeHistory(Mutex<Failures>);

#[derive(Debug, Default)]
struct Failures {
    count: u32,
    last: Option<Instant>,
    /// The node has once said what it is, as memcached does: should it not answer, it is slow or away, and no proxy.
    told: bool,
}

impl ProbeHistory {
    /// Connections that had asked before another failed are lost to the same cause, and count no more than that one.
    fn failed(&self, asked: Instant) {
        let mut failures = lock(&self.0);
        if failures.last.is_none_or(|last| last <= asked) {
            failures.count = failures.count.saturating_add(1);
            failures.last = Some(Instant::now());
        }
    }

    fn succeeded(&self, told: bool) {
        let mut failures = lock(&self.0);
        failures.count = 0;
        failures.told |= told;
    }

    /// Once may be a connection that was lost for reasons of its own.
    fn are_futile(&self) -> bool {
        let failures = lock(&self.0);
        !failures.told && failures.count >= 2 && failures.last.is_some_and(|last| last.elapsed() < SILENCE)
    }
}

/// What one connection knows of its server.
#[derive(Debug)]
pub(super) struct VersionProbe {
    probe_history: Arc<ProbeHistory>,
    state: State,
}

#[derive(Debug)]
enum State {
    Unasked,
    /// A command waits for the answer.
    Wanted,
    Asked {
        call: Arc<Call>,
        at: Instant,
    },
    Known(ServerVersion),
    /// It answered, but not as memcached does.
    Unrecognized,
}

/// What is to be done with a command that needs a certain server.
#[derive(Debug)]
pub(super) enum Admission {
    Send,
    Wait,
    Refuse(Error),
}

impl VersionProbe {
    pub(super) fn new(probe_history: Arc<ProbeHistory>) -> Self {
        Self { probe_history, state: State::Unasked }
    }

    /// What to do with a command that needs a server of this version.
    pub(super) fn judge(&mut self, needs: ServerVersion, node: &NodeId) -> Admission {
        let found = match &self.state {
            State::Known(version) if needs <= *version => return Admission::Send,
            State::Known(version) => format!("the server is {version}"),
            State::Unasked if !self.probe_history.are_futile() => {
                self.state = State::Wanted;
                return Admission::Wait;
            }
            State::Wanted | State::Asked { .. } => return Admission::Wait,
            State::Unasked | State::Unrecognized => "the server does not say what it is".to_owned(),
        };
        let text = format!("needs memcached {needs}, {found}");
        Admission::Refuse(Error::not_sent(ErrorKind::Unsupported).with_node(node).with_message(text))
    }

    /// The question, if it is time to put it.
    pub(super) fn ask(&mut self, silence_timeout: Duration) -> Option<Arc<Call>> {
        let State::Wanted = self.state else { return None };
        let at = Instant::now();
        let call = Arc::new(Call::new(Request::Version, at + silence_timeout));
        self.state = State::Asked { call: Arc::clone(&call), at };
        Some(call)
    }

    /// Looks whether the answer has come; `false` if it is overdue.
    pub(super) fn check(&mut self) -> bool {
        let State::Asked { call, at } = &self.state else { return true };
        self.state = match call.take_reply() {
            None => return true,
            Some(Ok(Reply::Version(text))) => {
                let version = ServerVersion::parse(&text);
                self.probe_history.succeeded(version.is_some());
                version.map_or(State::Unrecognized, State::Known)
            }
            Some(Err(error)) if error.kind() == ErrorKind::Timeout => {
                self.probe_history.failed(*at);
                self.state = State::Unrecognized;
                return false;
            }
            Some(_) => State::Unrecognized,
        };
        true
    }

    /// The connection is lost. If it was over the question, the node's other connections hear of it.
    pub(super) fn lost(&self) {
        if let State::Asked { at, .. } = self.state {
            self.probe_history.failed(at);
        }
    }
}
