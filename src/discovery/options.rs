//! How membership is followed: every interval and policy, with its default and the reason for it.

use std::time::Duration;

use crate::discovery::Endpoint;

/// No faster than this, whatever is asked for: a zero interval would be a busy loop.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// How the client follows a [`Discovery`](crate::Discovery) source.
///
/// The defaults suit a headless service on Kubernetes or OpenShift.
///
/// | what | default | why |
/// |---|---|---|
/// | [poll interval](Self::poll_interval) | the answer's TTL, within 5 s to 15 s | cluster DNS says 5 s or 30 s |
/// | [look-up timeout](Self::lookup_timeout) | 5 s | two tries of 2 s each, and a little |
/// | [removal grace](Self::removal_grace) | 120 s | a pod's restart takes a minute or two, and should move no key |
/// | [mass removal hold](Self::mass_removal_hold) | 30 s | a DNS server that just started may know a few pods only |
/// | [empty answers](Self::empty) | keep the last set | "no pod is ready" and "no such name" look the same |
/// | [start](Self::startup) | wait 10 s for a first node | the application may start before the cache does |
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
    /// The bounds of the time between polls. Within them the answer's TTL decides; an answer without one, or with a
    /// TTL of 0, is asked for again after `min`. Up to a tenth is added at random, so that a fleet of clients spreads out.
    ///
    /// After an error polls come sooner, then back off up to `max`. `min` is raised to 10 ms, and `max` to `min`.
    #[must_use]
    pub fn poll_interval(mut self, min: Duration, max: Duration) -> Self {
        self.min_interval = min.max(SHORTEST_INTERVAL);
        self.max_interval = max.max(self.min_interval);
        self
    }

    /// The longest one look-up may take, all its retries included.
    #[must_use]
    pub fn lookup_timeout(mut self, timeout: Duration) -> Self {
        self.lookup_timeout = timeout;
        self
    }

    /// How long a node that is no longer listed keeps its place on the ring. A node that is listed again within the
    /// grace never left: no key moved. Meanwhile requests for its keys fail, fast if it is really gone.
    ///
    /// With zero a node leaves with the first answer that lacks it, as in plain ketama clients; otherwise at least two
    /// answers must agree that it is gone. An error, or an answer that lists nothing at all, is never evidence of it.
    #[must_use]
    pub fn removal_grace(mut self, grace: Duration) -> Self {
        self.removal_grace = grace;
        self
    }

    /// How long nodes are kept if two or more, and more than half of those in use, vanish in a single answer. They
    /// leave when both this and their removal grace have passed: it makes a difference if the grace is the shorter one.
    #[must_use]
    pub fn mass_removal_hold(mut self, hold: Duration) -> Self {
        self.mass_removal_hold = hold;
        self
    }

    /// What an answer that lists nothing does to the nodes known.
    #[must_use]
    pub fn empty(mut self, policy: EmptyPolicy) -> Self {
        self.empty = policy;
        self
    }

    /// What happens until the first answer.
    #[must_use]
    pub fn startup(mut self, startup: Startup) -> Self {
        self.startup = startup;
        self
    }

    /// Makes the random part of every interval reproducible, for tests.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}

/// What an answer that lists no node at all (NXDOMAIN, or a name without records) does to the nodes known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum EmptyPolicy {
    /// They are kept for as long as answers stay empty. Safe, for a host that no longer exists is not dialled again.
    #[default]
    Keep,
    /// They are dropped once answers have been empty for so long.
    ClearAfter(Duration),
    /// They are dropped at once.
    ClearNow,
}

/// What the client does until the first answer that lists a node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Startup {
    /// Connecting waits for it, at most so long, and then fails.
    Wait(Duration),
    /// The client is ready at once, and operations fail with [`ErrorKind::NoNodes`](crate::ErrorKind::NoNodes).
    StartEmpty,
    /// The client is ready at once with these nodes, which the first answer replaces. Their host names are looked up
    /// as they stand, without the resolver's search list: give full names, or IP addresses.
    Bootstrap(Vec<Endpoint>),
}
