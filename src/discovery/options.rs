//! The options of discovery: every interval and policy, with its default and why.

use std::time::Duration;

use crate::discovery::Endpoint;

/// The shortest poll interval. Shorter ones are raised to it, because a zero interval would be a busy loop.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// How the client polls a [`Discovery`](crate::Discovery) source, and what it makes of the answers.
///
/// The defaults suit a headless service on Kubernetes or OpenShift.
///
/// | option | default | why |
/// |---|---|---|
/// | [poll interval](Self::poll_interval) | the answer's TTL, from 5 s to 15 s | cluster DNS has TTLs of 5 s or 30 s |
/// | [lookup timeout](Self::lookup_timeout) | 5 s | a dead DNS server and lost datagrams cost less than 2 s |
/// | [removal grace](Self::removal_grace) | 120 s | a pod restarts within a minute or two, and should move no key |
/// | [mass removal hold](Self::mass_removal_hold) | 30 s | a DNS server that just started may know only a few pods |
/// | [empty answers](Self::empty) | keep the last nodes | "no pod is ready" and "no such name" look the same |
/// | [start-up](Self::startup) | wait 10 s for a first node | the application may start before the cache |
///
/// ```
/// use std::time::Duration;
/// use memring::{DiscoveryOptions, EmptyPolicy, Startup};
///
/// let options = DiscoveryOptions::default()
///     .poll_interval(Duration::from_secs(2), Duration::from_secs(10))
///     .removal_grace(Duration::from_secs(60))
///     .empty(EmptyPolicy::ClearAfter(Duration::from_secs(300)))
///     .startup(Startup::StartEmpty);
/// # let _ = options;
/// ```
#[derive(Debug, Clone)]
pub struct DiscoveryOptions {
    pub(crate) min_interval: Duration,
    pub(crate) max_interval: Duration,
    pub(crate) lookup_timeout: Duration,
    pub(crate) removal_grace: Duration,
    pub(crate) mass_removal_hold: Duration,
    pub(crate) empty: EmptyPolicy,
    pub(crate) startup: Startup,
    pub(crate) seed: Option<u64>,
}

impl Default for DiscoveryOptions {
    fn default() -> Self {
        Self {
            min_interval: Duration::from_secs(5),
            max_interval: Duration::from_secs(15),
            lookup_timeout: Duration::from_secs(5),
            removal_grace: Duration::from_secs(120),
            mass_removal_hold: Duration::from_secs(30),
            empty: EmptyPolicy::Keep,
            startup: Startup::Wait(Duration::from_secs(10)),
            seed: None,
        }
    }
}

impl DiscoveryOptions {
    /// Sets the bounds of the time between polls.
    ///
    /// Between them the answer's TTL decides. After an answer without a TTL, or with a TTL of 0, the client polls again
    /// after `min`. Up to a tenth is added at random, so that the polls of a fleet of clients spread out.
    ///
    /// After an error the client polls sooner, then backs off up to `max`.
    ///
    /// `min` is raised to 10 ms, and `max` to `min`.
    #[must_use]
    pub fn poll_interval(mut self, min: Duration, max: Duration) -> Self {
        self.min_interval = min.max(SHORTEST_INTERVAL);
        self.max_interval = max.max(self.min_interval);
        self
    }

    /// Sets the time limit of one lookup, all its retries included.
    ///
    /// It is the only limit: within it the client resends queries, and tries the other DNS servers and TCP. With a dead
    /// DNS server or lost datagrams a lookup takes up to 2 s, so set no less.
    #[must_use]
    pub fn lookup_timeout(mut self, timeout: Duration) -> Self {
        self.lookup_timeout = timeout;
        self
    }

    /// Sets how long a node that is no longer listed stays on the ring.
    ///
    /// If the node is listed again within the grace, no key moves. Meanwhile requests for its keys fail; they fail fast
    /// if the node does not accept connections.
    ///
    /// With zero a node leaves with the first answer that does not list it, as in plain ketama clients. Otherwise at
    /// least two answers must lack it. Errors and empty answers never count.
    #[must_use]
    pub fn removal_grace(mut self, grace: Duration) -> Self {
        self.removal_grace = grace;
        self
    }

    /// Sets how long nodes stay if two or more, and more than half of those in use, vanish with one answer.
    ///
    /// They leave when both this hold and their removal grace are over, so the hold matters only if it is the longer
    /// one.
    #[must_use]
    pub fn mass_removal_hold(mut self, hold: Duration) -> Self {
        self.mass_removal_hold = hold;
        self
    }

    /// Sets what happens to the known nodes after an answer that lists nothing.
    #[must_use]
    pub fn empty(mut self, policy: EmptyPolicy) -> Self {
        self.empty = policy;
        self
    }

    /// Sets what happens until the first answer.
    #[must_use]
    pub fn startup(mut self, startup: Startup) -> Self {
        self.startup = startup;
        self
    }

    /// Seeds the random part of every interval, so that tests are reproducible.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}

/// What happens to the known nodes after an answer that lists none (NXDOMAIN, or a name without records).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EmptyPolicy {
    /// Keeps the nodes while answers are empty. This is safe, because a host that no longer exists is not dialed.
    #[default]
    Keep,
    /// Drops the nodes when answers have been empty for this long.
    ClearAfter(Duration),
    /// Drops the nodes at once.
    ClearNow,
}

/// What the client does until the first answer that lists a node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Startup {
    /// Connecting waits for the answer, and fails after this time.
    Wait(Duration),
    /// The client is ready at once. Its operations fail with [`ErrorKind::NoNodes`](crate::ErrorKind::NoNodes).
    StartEmpty,
    /// The client is ready at once with these nodes, and the first answer replaces them.
    ///
    /// Their host names are looked up without the resolver's search list: use full names or IP addresses.
    Bootstrap(Vec<Endpoint>),
}
