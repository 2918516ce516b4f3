//! The defaults of nodes and their connections, each with its reason. (Those of discovery are in its own options.)

use std::time::Duration;

use crate::credentials::Credentials;
#[cfg(feature = "long-keys")]
use crate::key::LongKeys;

/// Longer waits are cut to this, so that no sum of times overflows: "for ever" is a fair thing to ask for.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(30 * 24 * 3600);

/// What the builder collects for nodes and their connections.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// A command's deadline, over queueing, writing and waiting. Ten times what a cache on the same network needs when
    /// something is wrong with it, and little enough to fall back to the source of truth.
    pub(crate) request_timeout: Duration,
    /// How long one address is given to accept, and the server to answer the credentials. A SYN that is lost is repeated after a second: by then another address,
    /// or another dial, has had its chance.
    pub(crate) connect_timeout: Duration,
    /// Connections to each node. With one batch under way per connection a second one only splits the batches:
    /// measured by `cargo bench --bench connections`.
    pub(crate) connections: usize,
    /// Room for a burst, and a bound on what a slow node can hold of this process's memory. Whoever comes on top waits at
    /// the door.
    pub(crate) queue: QueueLimits,
    /// The largest value sent or accepted. memcached's own default (`-I 1m`).
    pub(crate) max_value: usize,
    /// Whether a set that is refused for its size deletes the old value. Off by default: a refused command that writes is
    /// a surprise.
    pub(crate) delete_when_too_large: bool,
    /// Keys that are no text go as base64, by meta commands.
    pub(crate) binary_keys: bool,
    /// What a key over 250 bytes becomes. Refused by default: a digest costs time, and it is better to hear of a key that is
    /// too long by mistake.
    #[cfg(feature = "long-keys")]
    pub(crate) long_keys: LongKeys,
    /// The delay before a second dial; doubled each time, with jitter.
    pub(crate) backoff_min: Duration,
    /// And its limit: a pod that is back is noticed within this.
    pub(crate) backoff_max: Duration,
    /// Shown on every new connection, before anything else is sent.
    pub(crate) credentials: Option<Credentials>,
    /// Idle connections are probed this often, so that a machine that vanished is noticed before a request is lost.
    pub(crate) keepalive: Duration,
}

/// How much may wait at one node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueueLimits {
    pub(crate) calls: usize,
    pub(crate) bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_millis(250),
            connect_timeout: Duration::from_millis(500),
            connections: 1,
            queue: QueueLimits { calls: 4096, bytes: 8 * 1024 * 1024 },
            max_value: 1024 * 1024,
            delete_when_too_large: false,
            binary_keys: false,
            #[cfg(feature = "long-keys")]
            long_keys: LongKeys::Refuse,
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(5),
            credentials: None,
            keepalive: Duration::from_secs(30),
        }
    }
}

impl Settings {
    /// How long a server may owe replies and say nothing before it is taken for gone: longer than any request waits,
    /// and never so short that a pause of the process looks like death.
    pub(crate) fn silence_timeout(&self) -> Duration {
        (self.request_timeout * 2).max(Duration::from_secs(1))
    }

    /// How long it may take for the next line of a long answer: it may have much to look through that it need not list.
    pub(crate) fn line_timeout(&self) -> Duration {
        self.silence_timeout().max(Duration::from_secs(10))
    }
}
