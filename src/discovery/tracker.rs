//! Which nodes are in use, derived from the answers so far.
//!
//! A pure state machine with one method per event: every method takes the time, and none waits, polls or logs. Nodes
//! leave by two rules only, and both are about *answers*: a node was not listed for its grace, or the policy for empty
//! answers drops all nodes. An error changes the schedule and nothing else.

mod member;
mod schedule;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use self::member::{Absence, Member};
use self::schedule::Schedule;
use crate::discovery::time::later_by;
use crate::discovery::{
    DiscoveryError, DiscoveryOptions, DiscoveryState, EmptyPolicy, Endpoint, ListedAddresses, Membership, Startup,
};
use crate::node_id::NodeId;

/// The nodes in use. Published whole, and only when something in it differs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roster {
    /// Grows when the set of nodes changes, or a label or weight of one. 0 is the empty roster before the first answer.
    pub(crate) version: u64,
    /// Grows when an answer or a lookup finds a node in use at other addresses than before. Compare a node's addresses
    /// here with those of the previous roster, not with its connection's: a dial may have looked up newer ones since.
    pub(crate) addr_epoch: u64,
    /// The listed nodes and those within their grace, of the lowest priority value, sorted by identity, with the
    /// addresses where they were last found.
    pub(crate) endpoints: Vec<Endpoint>,
}

impl Roster {
    /// Returns whether a node in use is elsewhere than it says.
    fn has_moved(&self, member: &Member) -> bool {
        let at = self.endpoints.binary_search_by(|endpoint| endpoint.id().cmp(member.endpoint.id()));
        at.is_ok_and(|at| member.has_moved_since(&self.endpoints[at]))
    }
}

#[derive(Debug)]
pub(crate) struct Tracker {
    options: DiscoveryOptions,
    schedule: Schedule,
    members: BTreeMap<NodeId, Member>,
    origin: MemberOrigin,
    roster: Arc<Roster>,
    state: DiscoveryState,
    /// When the current run of empty answers began. Errors between them do not end the run.
    empty_since: Option<Instant>,
}

/// Where the members come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MemberOrigin {
    /// The bootstrap list, which the first listing replaces without a grace.
    Bootstrap,
    Answers,
}

impl Tracker {
    pub(crate) fn new(options: DiscoveryOptions, now: Instant) -> Self {
        let mut tracker = Self {
            schedule: Schedule::new(&options, now),
            members: BTreeMap::new(),
            origin: MemberOrigin::Answers,
            roster: Arc::default(),
            state: DiscoveryState::Starting,
            empty_since: None,
            options,
        };
        if let Startup::Bootstrap(endpoints) = &tracker.options.startup {
            let bootstrap = Membership::new(endpoints.clone());
            tracker.update_members(now, &bootstrap);
            tracker.rebuild_roster();
            tracker.origin = MemberOrigin::Bootstrap;
        }
        tracker
    }

    pub(crate) fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    pub(crate) fn state(&self) -> DiscoveryState {
        self.state
    }

    /// Returns when to poll the source next; `None` means never.
    pub(crate) fn next_poll(&self) -> Option<Instant> {
        self.schedule.next_poll()
    }

    /// Returns whether the node is a member, in use or not.
    pub(crate) fn is_member(&self, id: &NodeId) -> bool {
        self.members.contains_key(id)
    }

    /// Returns the nodes in use that the last good answer did not list.
    pub(crate) fn vanished(&self) -> impl Iterator<Item = &NodeId> {
        let is_absent = |id: &&NodeId| self.members.get(*id).is_some_and(|member| member.absence.is_some());
        self.roster.endpoints.iter().map(Endpoint::id).filter(is_absent)
    }

    /// Returns when something is due next: a poll, or the removal of nodes between polls.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        let removals = self.members.values().filter_map(|member| self.removal_due(member));
        removals.chain(self.clearing_due()).chain(self.next_poll()).min()
    }

    /// Takes the outcome of a poll. Returns the roster if it changed.
    pub(crate) fn observe(
        &mut self,
        now: Instant,
        outcome: &Result<Membership, DiscoveryError>,
    ) -> Option<Arc<Roster>> {
        match outcome {
            Ok(answer) if !answer.is_empty() => self.on_listing(now, answer),
            Err(error) if !error.is_empty() => self.on_failure(now),
            // An empty list and an authoritative "there is nothing" mean the same.
            Ok(_) | Err(_) => self.on_empty(now),
        }
        self.tick(now)
    }

    /// Takes what a lookup says about where a node is. Returns the roster if it changed.
    pub(crate) fn observe_lookup(&mut self, id: &NodeId, found: &ListedAddresses) -> Option<Arc<Roster>> {
        self.members.get_mut(id)?.update_addresses(found);
        self.rebuild_roster().then(|| Arc::clone(&self.roster))
    }

    /// Removes the nodes whose time is over. Returns the roster if it changed.
    pub(crate) fn tick(&mut self, now: Instant) -> Option<Arc<Roster>> {
        if self.clearing_due().is_some_and(|due| due <= now) {
            self.clear();
            self.state = DiscoveryState::Empty;
        }
        let is_due = |member: &Member| self.removal_due(member).is_some_and(|due| due <= now);
        let removed: Vec<NodeId> =
            self.members.iter().filter(|(_, member)| is_due(member)).map(|(id, _)| id.clone()).collect();
        for id in &removed {
            self.members.remove(id);
        }
        self.rebuild_roster().then(|| Arc::clone(&self.roster))
    }

    /// Brings the next poll forward, for a node that may have moved or left.
    ///
    /// Polls stay a second apart. If the early poll finds nothing new, requests are ignored until the next regular one.
    pub(crate) fn request_poll(&mut self, now: Instant) {
        self.schedule.on_request(now);
    }

    /// Brings the next poll forward, because the source or the application knows of a change.
    ///
    /// Polls stay a second apart. Neither a backoff nor an answer that is valid forever prevents the poll.
    pub(crate) fn demand_poll(&mut self, now: Instant) {
        self.schedule.on_demand(now);
    }

    /// Sees to it that a poll comes, because changes may go unreported until then.
    pub(crate) fn expect_poll(&mut self, now: Instant) {
        self.schedule.on_lost_reports(now);
    }

    fn on_listing(&mut self, now: Instant, answer: &Membership) {
        // Errors or a late poll may have kept the nodes longer. Clients with the same answers have to agree again.
        if self.clearing_time().is_some_and(|due| due <= now) {
            self.clear();
        }
        let has_news = self.update_members(now, answer);
        self.empty_since = None;
        if answer.is_final() {
            self.state = DiscoveryState::Static;
            self.schedule.on_final_listing(now);
            return;
        }
        self.state = DiscoveryState::Fresh;
        let holds_removal = self.members.values().any(|member| member.is_held(now));
        self.schedule.on_listing(now, answer.ttl(), has_news, holds_removal);
    }

    fn on_empty(&mut self, now: Instant) {
        let is_first = self.empty_since.is_none();
        self.empty_since.get_or_insert(now);
        self.state = if self.members.is_empty() { DiscoveryState::Empty } else { DiscoveryState::EmptyHeld };
        self.schedule.on_empty(now, is_first);
    }

    fn on_failure(&mut self, now: Instant) {
        if self.state != DiscoveryState::Starting {
            self.state = DiscoveryState::Stale;
        }
        self.schedule.on_failure(now);
    }

    /// Updates the members to a listing. Returns whether it has any news.
    fn update_members(&mut self, now: Instant, answer: &Membership) -> bool {
        let mut has_news = false;
        if self.origin == MemberOrigin::Bootstrap {
            self.members.retain(|id, _| answer.lists(id));
            self.origin = MemberOrigin::Answers;
            has_news = true;
        }
        let held_until = self.is_mass_removal(answer).then(|| later_by(now, self.options.mass_removal_hold));
        for (id, member) in &mut self.members {
            if answer.lists(id) {
                has_news |= member.absence.take().is_some();
            } else if let Some(absence) = &mut member.absence {
                absence.answers = absence.answers.saturating_add(1);
            } else {
                member.absence = Some(Absence { since: now, held_until, answers: 1 });
                has_news = true;
            }
        }
        for endpoint in answer.endpoints() {
            match self.members.get_mut(endpoint.id()) {
                Some(member) => has_news |= member.update(endpoint),
                None => {
                    self.members.insert(endpoint.id().clone(), Member::new(endpoint));
                    has_news = true;
                }
            }
        }
        has_news
    }

    /// Returns whether the answer lacks two or more, and more than half, of the nodes that the one before listed with
    /// the lowest priority value.
    ///
    /// The nodes in use do not matter: errors and late polls may have kept some of them longer than in another client.
    fn is_mass_removal(&self, answer: &Membership) -> bool {
        let listed = || self.members.values().filter(|member| member.absence.is_none()).map(|member| &member.endpoint);
        let lowest = listed().map(Endpoint::priority).min();
        let (mut missing, mut total) = (0, 0);
        for endpoint in listed().filter(|endpoint| Some(endpoint.priority()) == lowest) {
            missing += usize::from(!answer.lists(endpoint.id()));
            total += 1;
        }
        missing >= 2 && missing * 2 > total
    }

    /// Returns when a member that is not listed leaves, if enough answers lack it.
    fn removal_due(&self, member: &Member) -> Option<Instant> {
        let absence = member.absence.as_ref()?;
        let grace = self.options.removal_grace;
        let answers_needed = match self.state {
            DiscoveryState::Fresh if grace.is_zero() => 1,
            DiscoveryState::Fresh => 2,
            // No second answer comes before the next change.
            DiscoveryState::Static => 1,
            // After a failure or an empty answer the last good answer is too old to act on.
            _ => return None,
        };
        let due = later_by(absence.since, grace);
        (absence.answers >= answers_needed).then(|| absence.held_until.map_or(due, |until| until.max(due)))
    }

    /// Returns when empty answers have lasted long enough to drop all nodes.
    fn clearing_due(&self) -> Option<Instant> {
        self.clearing_time().filter(|_| self.state == DiscoveryState::EmptyHeld)
    }

    /// Returns the same, whether the last poll failed or not.
    fn clearing_time(&self) -> Option<Instant> {
        let since = self.empty_since?;
        match self.options.empty {
            EmptyPolicy::Keep => None,
            EmptyPolicy::ClearAfter(limit) => Some(later_by(since, limit)),
            EmptyPolicy::ClearNow => Some(since),
        }
    }

    /// Drops all members.
    fn clear(&mut self) {
        self.members.clear();
        self.origin = MemberOrigin::Answers;
    }

    /// Derives the roster from the members. Returns whether it differs from the one before.
    fn rebuild_roster(&mut self) -> bool {
        let lowest = self.members.values().map(|member| member.endpoint.priority()).min();
        let in_use = || self.members.values().filter(|member| Some(member.endpoint.priority()) == lowest);
        let has_moves = in_use().any(|member| self.roster.has_moved(member));
        let endpoints: Vec<_> = in_use().map(|member| member.endpoint.clone()).collect();
        let is_same = |a: &Endpoint, b: &Endpoint| (a.id(), a.label(), a.weight()) == (b.id(), b.label(), b.weight());
        let before = &self.roster.endpoints;
        let has_changes =
            before.len() != endpoints.len() || !before.iter().zip(&endpoints).all(|(old, new)| is_same(old, new));
        if !has_changes && !has_moves {
            return false;
        }
        self.roster = Arc::new(Roster {
            version: self.roster.version + u64::from(has_changes),
            addr_epoch: self.roster.addr_epoch + u64::from(has_moves),
            endpoints,
        });
        true
    }
}
