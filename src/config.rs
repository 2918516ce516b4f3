//! The settings of nodes and their connections, with the reason for each default. (Those of discovery are in
//! [`DiscoveryOptions`](crate::DiscoveryOptions).)

mod breaker_options;

use std::time::Duration;

pub use self::breaker_options::BreakerOptions;
use crate::credentials::Credentials;
#[cfg(feature = "long-keys")]
use crate::key::LongKeys;

/// The longest wait. Longer ones, such as [`Duration::MAX`] for "no limit", are cut to it, so that no sum of times
/// overflows.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long a lease lasts by default unless it is renewed. A process that computes renews it, so this need not be
/// longer than computations take. It is several times longer than the pauses of processes and servers.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// The settings of nodes and their connections, as the builder collects them.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The deadline of a command, over queueing, writing and waiting for the reply. Ten times what a cache on the same
    /// network needs when something is wrong with it, and short enough to fall back to the source of truth.
    pub(crate) request_timeout: Duration,
    /// How long one address may take to accept, and the server to reply to the credentials. A lost SYN is sent again
    /// after a second; by then another address, or another dial, has had its chance.
    pub(crate) connect_timeout: Duration,
    /// How many connections each node has. With one batch in flight per connection, a second connection only splits the
    /// batches: measured by `cargo bench --bench connections`.
    pub(crate) connections: usize,
    /// Space for a burst, and a bound on the memory that a slow node can take. Callers beyond the limit wait for space.
    pub(crate) queue: QueueLimits,
    /// The largest value sent or accepted, in bytes: the default of memcached (`-I 1m`).
    pub(crate) max_value: usize,
    /// Whether a set that the server rejects for its size deletes the old value. Off by default, because a rejected
    /// command that writes is a surprise.
    pub(crate) delete_when_too_large: bool,
    /// Whether keys that are not plain text are sent as base64, in meta commands.
    pub(crate) binary_keys: bool,
    /// What becomes of a key over 250 bytes. Rejected by default: a digest costs time, and a key that is too long by
    /// mistake should be noticed.
    #[cfg(feature = "long-keys")]
    pub(crate) long_keys: LongKeys,
    /// The delay before the second dial; doubled for each further one, with jitter.
    pub(crate) backoff_min: Duration,
    /// The longest delay between dials: a pod that is back is noticed within it.
    pub(crate) backoff_max: Duration,
    /// Sent on every new connection before anything else.
    pub(crate) credentials: Option<Credentials>,
    /// How often an idle connection is probed, so that a vanished machine is noticed before a request is lost.
    pub(crate) keepalive: Duration,
    /// When a node's requests fail at once because its server does not reply.
    pub(crate) breaker: BreakerOptions,
}

/// How much may be queued at one node.
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
            breaker: BreakerOptions::default(),
        }
    }
}

impl Settings {
    /// How long a server may send no reply while replies are pending, before the connection is closed: longer than any
    /// request waits, and at least 1 s, so that a short pause of the server's process is tolerated.
    pub(crate) fn silence_timeout(&self) -> Duration {
        (self.request_timeout * 2).max(Duration::from_secs(1))
    }

    /// How long a server may take to send the next line of a long response. It may have many items to scan that it does
    /// not list.
    pub(crate) fn line_timeout(&self) -> Duration {
        self.silence_timeout().max(Duration::from_secs(10))
    }
}
