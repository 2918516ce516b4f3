//! What a sequence of answers means: which nodes are in use, and when to ask again.
//!
//! A pure state machine: every method is told the time, and nothing here waits, asks or logs. Nodes leave by two rules
//! only, both of them about *answers*: a node that was not listed for its grace, and an empty answer if the policy says
//! so. An error changes the timetable and nothing else.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::discovery::{DiscoveryError, DiscoveryOptions, DiscoveryState, EmptyPolicy, Endpoint, Membership, Startup};
use crate::node_id::NodeId;

/// Two polls are at least so far apart, whoever asks for them (or `min_interval`, if that is shorter).
const SPACING: Duration = Duration::from_secs(1);
/// What "for ever" comes to, so that no sum of a time and a duration overflows.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// The nodes in use, and how they are known: published whole, and only when something in it differs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roster {
    /// Moves when the set of nodes, or a label or weight, does. 0 is the empty roster before the first answer.
    pub(crate) version: u64,
    /// Moves when an answer lists a node already in use with other addresses than before. Compare a node's addresses
    /// here with those of the previous roster, not with its connection's: a dial may have looked up newer ones since.
    pub(crate) addr_epoch: u64,
    /// Sorted by identity: of the nodes listed or within their grace, those of the lowest priority value. Those within
    /// their grace have the addresses they were last listed with.
    pub(crate) endpoints: Vec<Endpoint>,
}

#[derive(Debug)]
pub(crate) struct Tracker {
    options: DiscoveryOptions,
    /// The floor of every wait.
    spacing: Duration,
    rng: fastrand::Rng,
    members: BTreeMap<NodeId, Member>,
    /// The members are the bootstrap list, which the first answer replaces without any grace.
    provisional: bool,
    roster: Arc<Roster>,
    state: DiscoveryState,
    /// When the run of empty answers began; errors in between do not end it.
    empty_since: Option<Instant>,
    empties: u32,
    errors: i32,
    /// The first interval was shortened at random, so that clients that started together drift apart.
    dephased: bool,
    last_poll: Option<Instant>,
    /// `None`: never again.
    next_poll: Option<Instant>,
    /// The next poll was asked for.
    nudged: bool,
    /// Asking for a poll is to no avail until the next regular one: the last one that was asked for brought nothing
    /// new, or the source fails and its backoff is not to be bypassed.
    settled: bool,
}

#[derive(Debug)]
struct Member {
    endpoint: Endpoint,
    /// The addresses it was last listed with, sorted. Outlives answers without addresses: DNS servers leave them out as
    /// they please, and that is no change of address.
    known: Vec<IpAddr>,
    moved: bool,
    absence: Option<Absence>,
}

/// Since when a member is not listed.
#[derive(Debug)]
struct Absence {
    since: Instant,
    /// Set if it vanished along with most others.
    held_until: Option<Instant>,
    /// How many good answers did not list it.
    answers: u32,
}

impl Tracker {
    pub(crate) fn new(options: DiscoveryOptions, now: Instant) -> Self {
        let mut tracker = Self {
            spacing: SPACING.min(options.min_interval),
            rng: options.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed),
            members: BTreeMap::new(),
            provisional: false,
            roster: Arc::default(),
            state: DiscoveryState::Starting,
            empty_since: None,
            empties: 0,
            errors: 0,
            dephased: false,
            last_poll: None,
            next_poll: Some(now),
            nudged: false,
            settled: false,
            options,
        };
        if let Startup::Bootstrap(endpoints) = &tracker.options.startup {
            let membership = Membership::new(endpoints.clone());
            tracker.merge(now, &membership);
            tracker.recast();
            tracker.provisional = true;
        }
        tracker
    }

    pub(crate) fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    pub(crate) fn state(&self) -> DiscoveryState {
        self.state
    }

    /// When the source is to be asked next; `None` if never again.
    pub(crate) fn next_poll(&self) -> Option<Instant> {
        self.next_poll
    }

    /// Whether the node is a member, in use or not.
    pub(crate) fn knows(&self, id: &NodeId) -> bool {
        self.members.contains_key(id)
    }

    /// Nodes in use that the last good answer did not list.
    pub(crate) fn vanished(&self) -> impl Iterator<Item = &NodeId> {
        let absent = |id: &&NodeId| self.members.get(*id).is_some_and(|member| member.absence.is_some());
        self.roster.endpoints.iter().map(Endpoint::id).filter(absent)
    }

    /// When something is due: a poll, or the end of a grace between polls.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        let departures = self.members.values().filter_map(|member| self.leaves_at(member));
        departures.chain(self.clears_at()).chain(self.next_poll).min()
    }

    /// Takes in the outcome of a poll; answers the roster if it differs now.
    pub(crate) fn observe(
        &mut self,
        now: Instant,
        outcome: &Result<Membership, DiscoveryError>,
    ) -> Option<Arc<Roster>> {
        self.last_poll = Some(now);
        let wait = match outcome {
            Ok(membership) if !membership.is_empty() => self.accept(now, membership),
            Err(error) if !error.is_empty() => Some(self.fail()),
            // A source that lists nothing and one that says there is nothing are the same.
            Ok(_) | Err(_) => Some(self.find_empty(now)),
        };
        self.nudged = false;
        self.next_poll = wait.map(|wait| later(now, wait));
        self.tick(now)
    }

    /// Lets time pass; answers the roster if it differs now.
    pub(crate) fn tick(&mut self, now: Instant) -> Option<Arc<Roster>> {
        if self.clears_at().is_some_and(|due| due <= now) {
            self.members.clear();
            self.provisional = false;
            self.state = DiscoveryState::Empty;
        }
        let gone = |member: &Member| self.leaves_at(member).is_some_and(|due| due <= now);
        let gone: Vec<NodeId> =
            self.members.iter().filter(|(_, member)| gone(member)).map(|(id, _)| id.clone()).collect();
        for id in &gone {
            self.members.remove(id);
        }
        self.recast().then(|| Arc::clone(&self.roster))
    }

    /// Asks for a poll ahead of time: at once, but not within a second of the last one, and not again until the regular
    /// one if that brought nothing new.
    pub(crate) fn nudge(&mut self, now: Instant) {
        let Some(next_poll) = self.next_poll else { return };
        if self.settled {
            return;
        }
        let earliest = self.last_poll.map_or(now, |last| later(last, self.spacing)).max(now);
        if earliest < next_poll {
            self.next_poll = Some(earliest);
            self.nudged = true;
        }
    }

    /// A good answer; how long to wait for the next.
    fn accept(&mut self, now: Instant, answer: &Membership) -> Option<Duration> {
        let news = self.merge(now, answer);
        (self.errors, self.empties, self.empty_since) = (0, 0, None);
        self.settled = self.nudged && !news;
        if answer.is_final() {
            self.state = DiscoveryState::Static;
            return None;
        }
        self.state = DiscoveryState::Fresh;

        let (min, max) = (self.options.min_interval, self.options.max_interval);
        let ttl = answer.ttl().unwrap_or_default();
        let held = |member: &Member| {
            member.absence.as_ref().and_then(|absence| absence.held_until).is_some_and(|until| until > now)
        };
        let interval = if self.members.values().any(held) {
            min
        } else if self.settled && !ttl.is_zero() {
            // Whoever asked for this poll expects a change, and it may have hidden behind a cache: look when that expires.
            ttl.clamp(self.spacing, max)
        } else {
            ttl.clamp(min, max)
        };
        let mut wait = self.jittered(interval);
        if !self.dephased {
            self.dephased = true;
            wait = wait.mul_f64(0.5 + self.rng.f64() / 2.0);
        }
        Some(wait.max(self.spacing))
    }

    /// An answer that lists nothing: quick looks at first, for this is also what a cold start looks like.
    fn find_empty(&mut self, now: Instant) -> Duration {
        let new = self.empty_since.is_none();
        self.empty_since.get_or_insert(now);
        self.errors = 0;
        self.empties = self.empties.saturating_add(1);
        self.settled = self.nudged && !new;
        self.state = if self.members.is_empty() { DiscoveryState::Empty } else { DiscoveryState::EmptyHeld };
        let interval = match self.empties {
            1 => self.spacing,
            2 => self.spacing * 2,
            _ => self.options.min_interval,
        };
        self.jittered(interval.min(self.options.min_interval))
    }

    /// No answer: back off.
    fn fail(&mut self) -> Duration {
        let backoff = self.spacing.as_secs_f64() * 1.6_f64.powi(self.errors) * (0.8 + self.rng.f64() * 0.4);
        self.errors = self.errors.saturating_add(1);
        self.settled = true;
        if self.state != DiscoveryState::Starting {
            self.state = DiscoveryState::Stale;
        }
        // The backoff is without bound, and a duration is not.
        let max = self.options.max_interval;
        Duration::try_from_secs_f64(backoff).unwrap_or(max).clamp(self.spacing, max)
    }

    /// Jitter only ever adds, so that a poll comes just after a cache on the way has expired.
    fn jittered(&mut self, interval: Duration) -> Duration {
        let interval = interval.min(FOR_EVER);
        interval + (interval / 10).min(Duration::from_secs(1)).mul_f64(self.rng.f64())
    }

    /// Brings the members up to the answer; whether it said anything new.
    fn merge(&mut self, now: Instant, answer: &Membership) -> bool {
        let listed = |id: &NodeId| answer.endpoints().binary_search_by(|endpoint| endpoint.id().cmp(id)).is_ok();
        let mut news = false;
        if std::mem::take(&mut self.provisional) {
            self.members.retain(|id, _| listed(id));
            news = true;
        }
        let held_until = self.is_mass_removal(listed).then(|| later(now, self.options.mass_removal_hold));
        for (id, member) in &mut self.members {
            if listed(id) {
                news |= member.absence.take().is_some();
            } else if let Some(absence) = &mut member.absence {
                absence.answers = absence.answers.saturating_add(1);
            } else {
                member.absence = Some(Absence { since: now, held_until, answers: 1 });
                news = true;
            }
        }
        for endpoint in answer.endpoints() {
            match self.members.get_mut(endpoint.id()) {
                Some(member) => news |= member.update(endpoint),
                None => {
                    self.members.insert(endpoint.id().clone(), Member::new(endpoint));
                    news = true;
                }
            }
        }
        news
    }

    /// Whether two or more, and more than half, of the nodes in use that were listed before are not any more.
    fn is_mass_removal(&self, listed: impl Fn(&NodeId) -> bool) -> bool {
        let vanished_before: Vec<&NodeId> = self.vanished().collect();
        let before = self.roster.endpoints.iter().map(Endpoint::id).filter(|id| !vanished_before.contains(id));
        let (gone, total) = before.fold((0, 0), |(gone, total), id| (gone + usize::from(!listed(id)), total + 1));
        gone >= 2 && gone * 2 > total
    }

    /// When a member that is not listed leaves, if the answers so far suffice for it.
    fn leaves_at(&self, member: &Member) -> Option<Instant> {
        // While the source fails or says that there is nothing, the last good answer is too old to act on.
        if self.state != DiscoveryState::Fresh {
            return None;
        }
        let absence = member.absence.as_ref()?;
        let grace = self.options.removal_grace;
        let enough = if grace.is_zero() { 1 } else { 2 };
        let due = later(absence.since, grace);
        (absence.answers >= enough).then(|| absence.held_until.map_or(due, |until| until.max(due)))
    }

    /// When empty answers have lasted long enough to be believed.
    fn clears_at(&self) -> Option<Instant> {
        let since = self.empty_since.filter(|_| self.state == DiscoveryState::EmptyHeld)?;
        match self.options.empty {
            EmptyPolicy::Keep => None,
            EmptyPolicy::ClearAfter(patience) => Some(later(since, patience)),
            EmptyPolicy::ClearNow => Some(since),
        }
    }

    /// Makes the roster of the members; whether it differs from the one before.
    fn recast(&mut self) -> bool {
        let tier = self.members.values().map(|member| member.endpoint.priority()).min();
        let mut moved = false;
        let mut endpoints = Vec::with_capacity(self.roster.endpoints.len());
        for member in self.members.values_mut() {
            let has_moved = std::mem::take(&mut member.moved);
            if Some(member.endpoint.priority()) == tier {
                moved |= has_moved;
                endpoints.push(member.endpoint.clone());
            }
        }
        let same = |a: &Endpoint, b: &Endpoint| (a.id(), a.label(), a.weight()) == (b.id(), b.label(), b.weight());
        let before = &self.roster.endpoints;
        let reshaped =
            before.len() != endpoints.len() || !before.iter().zip(&endpoints).all(|(old, new)| same(old, new));
        if !reshaped && !moved {
            return false;
        }
        self.roster = Arc::new(Roster {
            version: self.roster.version + u64::from(reshaped),
            addr_epoch: self.roster.addr_epoch + u64::from(moved),
            endpoints,
        });
        true
    }
}

impl Member {
    fn new(endpoint: &Endpoint) -> Self {
        Self { known: sorted(endpoint.addresses()), endpoint: endpoint.clone(), moved: false, absence: None }
    }

    /// Takes over what an answer says now; whether that is anything new.
    fn update(&mut self, endpoint: &Endpoint) -> bool {
        let now_known = sorted(endpoint.addresses());
        self.moved = !now_known.is_empty() && now_known != self.known;
        if self.moved {
            self.known = now_known;
        }
        let traits = |endpoint: &Endpoint| (endpoint.weight(), endpoint.priority());
        let changed =
            traits(&self.endpoint) != traits(endpoint) || self.endpoint.label() != endpoint.label() || self.moved;
        self.endpoint = endpoint.clone();
        changed
    }
}

fn sorted(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut addresses = addresses.to_vec();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

/// A time that much later, however long that is.
pub(crate) fn later(time: Instant, wait: Duration) -> Instant {
    time + wait.min(FOR_EVER)
}
