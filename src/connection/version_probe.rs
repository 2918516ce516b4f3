//! Finds out the server's version, when the first meta command needs it.
//!
//! Each connection probes for itself, because a pod may come back with another version. The probe is sent alone:
//! proxies close a connection on `version`, or never reply, and no other call may suffer for it.
//!
//! What is known of a server is one of three: it has the command, it lacks it, or nothing yet. A server that has not
//! replied may be a memcached that is slow, stopped or far away, whose empty items may be leases. So no silence of any
//! length shows that a server lacks meta commands. These show it:
//!
//! - a reply that no memcached with meta commands gives: an older version, other text, `ERROR`, a `CLIENT_ERROR`
//! - a reply to a `delete` sent behind the `version`, and none to the `version`: replies come in order
//! - three probes in a row to which the server closes the connection or replies with anything else, although it has
//!   just answered a `delete`
//!
//! So once a probe has failed, the next ones are preceded and followed by a `delete`. Every server has that command,
//! and an error line in reply to it does no harm.

mod history;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use self::history::ProbeHistory;

use self::history::Prospect;
use super::call::Call;
use crate::error::{Delivery, Error, ErrorKind, Feature};
use crate::key::Key;
use crate::node_id::NodeId;
use crate::protocol::{ProtocolError, Reply, Request, ServerVersion};

/// The key that is deleted before and after a probe. No item has it.
const PROBE_KEY: &str = "memring:probe";

/// The state of one connection's probe.
#[derive(Debug)]
pub(super) struct VersionProbe {
    history: Arc<ProbeHistory>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// No command has needed the version yet, or the last probe had no result.
    NotNeeded,
    /// A command waits for the version, and the probe is not sent yet.
    Needed,
    /// The delete before the probe is sent.
    Preceded {
        by: Arc<Call>,
    },
    /// The delete before the probe was answered, and the probe is not sent yet.
    Ready {
        /// It was carried out, and not answered by an error line.
        was_served: bool,
    },
    Sent {
        call: Arc<Call>,
        at: Instant,
        /// The delete before it was carried out, so that a refusal is one of the probe.
        can_be_refused: bool,
        /// A delete was sent behind it.
        is_followed: bool,
    },
    Memcached(ServerVersion),
    /// The server replied, and not as memcached does.
    Other,
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
    ///
    /// Refuses with [`Feature::MetaCommands`] only if the server is known to have none. While that is not known, the
    /// command waits, or fails with an error that is transient.
    pub(super) fn admission(&mut self, needs: ServerVersion, node: &NodeId) -> Admission {
        let is_other = match &self.state {
            State::Memcached(version) if needs <= *version => return Admission::Send,
            State::Memcached(version) => return Admission::Refuse(too_old(needs, *version).with_node(node)),
            State::Needed | State::Preceded { .. } | State::Ready { .. } | State::Sent { .. } => {
                return Admission::Wait;
            }
            State::Other => true,
            State::NotNeeded => match self.history.prospect() {
                Prospect::Probe => {
                    self.state = State::Needed;
                    return Admission::Wait;
                }
                Prospect::Unknown => false,
                Prospect::Other => true,
            },
        };
        let error = if is_other {
            let text = format!("needs memcached {needs}, the server states no version of memcached");
            Error::unsupported(Feature::MetaCommands, Delivery::NotSent).with_message(text)
        } else {
            let text = format!("needs memcached {needs}, the server has not stated its version yet");
            Error::not_sent(ErrorKind::Unavailable).with_message(text)
        };
        Admission::Refuse(error.with_node(node))
    }

    /// Adds the next request of the probe to a batch that is empty, if one is to be sent now.
    pub(super) fn start(&mut self, batch: &mut VecDeque<Arc<Call>>, silence_timeout: Duration) {
        let at = Instant::now();
        let (can_be_refused, is_followed) = match self.state {
            State::Needed if self.history.is_doubtful() => {
                let call = delete_probe_key(at + silence_timeout);
                batch.push_back(Arc::clone(&call));
                self.state = State::Preceded { by: call };
                return;
            }
            State::Needed => (false, false),
            State::Ready { was_served } => (was_served, true),
            _ => return,
        };
        let deadline = at + self.history.timeout(silence_timeout);
        let call = Arc::new(Call::new(Request::Version, deadline));
        batch.push_back(Arc::clone(&call));
        if is_followed {
            batch.push_back(delete_probe_key(deadline));
        }
        self.state = State::Sent { call, at, can_be_refused, is_followed };
    }

    /// Takes the reply to the probe, if it has arrived. Returns `false` if the reply is overdue.
    pub(super) fn poll(&mut self) -> bool {
        let (State::Preceded { by: call } | State::Sent { call, .. }) = &self.state else { return true };
        let Some(reply) = call.take_reply() else { return true };
        if let State::Preceded { .. } = self.state {
            self.state = State::Ready { was_served: reply.is_ok() };
            return true;
        }
        match reply {
            Ok(Reply::Version(text)) => self.reply_received(ServerVersion::parse(&text)),
            Err(error) if rejects_command(&error) => self.reply_received(None),
            Err(error) if error.kind() == ErrorKind::Timeout => {
                self.connection_lost();
                return false;
            }
            // Such as `SERVER_ERROR out of memory`.
            _ => self.refused(),
        }
        true
    }

    /// The server has replied. `None` if it is no memcached.
    fn reply_received(&mut self, version: Option<ServerVersion>) {
        self.history.record_reply(version.is_some());
        self.state = version.map_or(State::Other, State::Memcached);
    }

    /// The server has sent an invalid reply, which `input` starts with.
    pub(super) fn invalid_reply(&mut self, reason: ProtocolError, input: &[u8]) {
        let answers_delete = input.starts_with(b"NOT_FOUND\r\n") || input.starts_with(b"DELETED\r\n");
        match self.state {
            // It has replied to the delete behind the probe, and not to the probe.
            State::Sent { is_followed: true, .. } if answers_delete && reason == ProtocolError::UnexpectedReply => {
                self.history.record_other();
                self.state = State::NotNeeded;
            }
            _ => self.refused(),
        }
    }

    /// The server has closed the connection instead of a reply to the probe, or has replied with something else.
    pub(super) fn refused(&mut self) {
        match self.state {
            State::Sent { at, can_be_refused: true, .. } => self.history.record_refusal(at),
            _ => return self.connection_lost(),
        }
        self.state = State::NotNeeded;
    }

    /// Counts a failure if the connection was lost before the reply to the probe arrived.
    pub(super) fn connection_lost(&mut self) {
        if let State::Sent { at, .. } = self.state {
            self.history.record_failure(at);
            self.state = State::NotNeeded;
        }
    }
}

fn delete_probe_key(deadline: Instant) -> Arc<Call> {
    let mut key = Key::placeholder();
    let is_valid = key.assign(b"", PROBE_KEY.as_bytes()).is_ok();
    debug_assert!(is_valid);
    Arc::new(Call::new(Request::Delete { key }, deadline))
}

/// Whether the server has replied that it does not know the command.
fn rejects_command(error: &Error) -> bool {
    let is_rejection = |line: &str| line == "ERROR" || line.starts_with("CLIENT_ERROR");
    error.kind() == ErrorKind::Server && error.message().is_some_and(is_rejection)
}

fn too_old(needs: ServerVersion, version: ServerVersion) -> Error {
    let error = if version < ServerVersion::META {
        Error::unsupported(Feature::MetaCommands, Delivery::NotSent)
    } else {
        Error::not_sent(ErrorKind::Unsupported)
    };
    error.with_message(format!("needs memcached {needs}, the server is {version}"))
}
