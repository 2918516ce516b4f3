//! Which addresses are known of each node, and how good they are. Pure: every method takes the time.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::discovery::time::later_by;
use crate::discovery::{DiscoveryError, Endpoint, HostAddresses, ListedAddresses, Membership};
use crate::node_id::NodeId;

/// How long after it was last known to be good an address may still be dialed, if lookups fail. Within this time
/// another pod is unlikely to have got the address; after it, not dialing is safer.
const MAX_STALENESS: Duration = Duration::from_secs(300);

/// The time between two lookups of a host, at least: an answer is unlikely to be another one sooner.
const LOOKUP_SPACING: Duration = Duration::from_secs(1);

/// How long a host that does not exist is not looked up again, at most. Servers may allow much longer, but a pod that
/// is back should be found.
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(15);

/// How many nodes without any sign of trouble are looked up again after one answer. With many nodes, each one's turn
/// comes less often.
const CHECKS_PER_ANSWER: usize = 10;

/// The addresses of all nodes.
#[derive(Debug, Default)]
pub(super) struct AddressBook {
    entries: HashMap<NodeId, Entry>,
}

/// The addresses of one node.
#[derive(Debug, Default)]
struct Entry {
    /// Where the latest answer lists the node.
    listed: ListedAddresses,
    /// When `listed` expires; `None` means at the next answer.
    listed_until: Option<Instant>,
    /// No other answer comes: no loss puts the listing in doubt.
    is_listed_for_good: bool,
    /// A dial has failed at every address listed. Cleared by a connection there that gets replies, and by an answer
    /// that lists others.
    listed_failed: bool,
    /// A connection was lost since an answer listed addresses.
    lost_since_listed: bool,
    last_lookup: Option<LastLookup>,
    last_known: Option<LastKnown>,
    /// A connection was dialed at an address that was only known from before. Cleared by what says where the node is.
    is_unverified: bool,
}

/// The last lookup that has ended.
#[derive(Debug)]
struct LastLookup {
    at: Instant,
    outcome: LookupOutcome,
}

#[derive(Debug)]
enum LookupOutcome {
    Found {
        ips: Vec<IpAddr>,
        /// When the addresses expire; `None` means at the next answer.
        until: Option<Instant>,
        /// A connection was lost since, or could not be opened at any of the addresses.
        is_doubtful: bool,
    },
    NoSuchHost {
        error: DiscoveryError,
        until: Instant,
    },
    Failed(DiscoveryError),
}

/// The addresses that were last listed or looked up, in the order to dial them: first the one that answered last.
#[derive(Debug)]
struct LastKnown {
    ips: Vec<IpAddr>,
    at: Instant,
}

/// The addresses to dial, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidates {
    pub(super) ips: Vec<IpAddr>,
    /// Whether an answer or a lookup says that they are the node's now. If not, another pod may have got them.
    pub(super) is_verified: bool,
}

impl Entry {
    /// Returns the addresses that the latest answer lists, unless its TTL is over.
    fn listed(&self, now: Instant) -> Option<&[IpAddr]> {
        match &self.listed {
            ListedAddresses::At(ips) if is_valid(self.listed_until, now) => Some(ips),
            _ => None,
        }
    }

    /// Returns the addresses to dial if no lookup shows others. A connection that was lost since they were listed may
    /// show that the node has moved.
    fn listed_candidates(&self, now: Instant) -> Option<Candidates> {
        self.listed(now).map(|ips| Candidates { ips: ips.to_vec(), is_verified: !self.lost_since_listed })
    }

    /// Returns the addresses of the last lookup, if they are valid and not in doubt.
    fn found_and_good(&self, now: Instant) -> Option<&[IpAddr]> {
        match &self.last_lookup.as_ref()?.outcome {
            LookupOutcome::Found { ips, until, is_doubtful: false } if is_valid(*until, now) => Some(ips),
            _ => None,
        }
    }

    /// Returns the addresses known to be good within the last five minutes.
    fn last_known(&self, now: Instant) -> Option<Candidates> {
        let LastKnown { ips, at } = self.last_known.as_ref()?;
        let is_recent = now.saturating_duration_since(*at) <= MAX_STALENESS;
        is_recent.then(|| Candidates { ips: ips.clone(), is_verified: false })
    }

    /// Replaces what the last lookup found by what an answer has listed since, which is valid for as long as it is
    /// listed.
    fn end_lookup(&mut self, listed: &[IpAddr], now: Instant) {
        if let Some(last) = &mut self.last_lookup {
            last.outcome = LookupOutcome::Found { ips: listed.to_vec(), until: Some(now), is_doubtful: false };
        }
    }

    fn has_no_host(&self) -> bool {
        matches!(&self.last_lookup, Some(LastLookup { outcome: LookupOutcome::NoSuchHost { .. }, .. }))
    }

    /// Returns whether the host may be looked up: not too soon after the last time.
    fn may_look_up(&self, now: Instant) -> bool {
        self.last_lookup.as_ref().is_none_or(|last| {
            let allowed_from = match &last.outcome {
                LookupOutcome::NoSuchHost { until, .. } => *until,
                LookupOutcome::Found { .. } | LookupOutcome::Failed(_) => last.at + LOOKUP_SPACING,
            };
            allowed_from <= now
        })
    }

    /// Returns whether the answer that has just been recorded leaves open where the node is.
    fn check_due(&self, now: Instant) -> Option<Check> {
        if !self.may_look_up(now) {
            return None;
        }
        if self.is_unverified {
            return Some(Check::Urgent);
        }
        // The first dial looks up a node that was never looked up.
        let last = self.last_lookup.as_ref().filter(|_| self.listed == ListedAddresses::WithoutAddresses)?;
        match &last.outcome {
            LookupOutcome::Found { until, is_doubtful: false, .. } => {
                // A TTL that is not known ends with this answer.
                let is_over = until.is_none_or(|until| until <= now);
                is_over.then_some(Check::Routine { last: last.at })
            }
            LookupOutcome::Found { .. } | LookupOutcome::NoSuchHost { .. } | LookupOutcome::Failed(_) => {
                Some(Check::Urgent)
            }
        }
    }
}

/// Why a node is looked up after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    /// It cannot be reached, or was dialed where it was before.
    Urgent,
    /// The TTL of its addresses is over.
    Routine { last: Instant },
}

impl AddressBook {
    /// Returns whether a dial should wait for a lookup: nothing that is valid, or that no dial has failed at, is known.
    pub(super) fn needs_lookup(&self, id: &NodeId, now: Instant) -> bool {
        self.entries.get(id).is_none_or(|entry| {
            let has_listed = entry.listed(now).is_some() && !entry.listed_failed;
            !has_listed && entry.found_and_good(now).is_none() && entry.may_look_up(now)
        })
    }

    /// Returns where to dial a node by what is known, without another lookup.
    ///
    /// # Errors
    /// The outcome of the last lookup, if there is no address.
    pub(super) fn best_known(&self, id: &NodeId, now: Instant) -> Result<Candidates, DiscoveryError> {
        let Some(entry) = self.entries.get(id) else { return Err(DiscoveryError::Timeout) };
        let listed = entry.listed_candidates(now);
        if let Some(listed) = listed.clone().filter(|_| !entry.listed_failed) {
            return Ok(listed);
        }
        if let Some(ips) = entry.found_and_good(now) {
            return Ok(Candidates { ips: ips.to_vec(), is_verified: true });
        }
        match entry.last_lookup.as_ref().map(|last| (&last.outcome, last.at)) {
            Some((LookupOutcome::Found { ips, is_doubtful, .. }, at)) if now < at + LOOKUP_SPACING => {
                let also_listed = listed.into_iter().flat_map(|listed| listed.ips).filter(|ip| !ips.contains(ip));
                Ok(Candidates { ips: ips.iter().copied().chain(also_listed).collect(), is_verified: !is_doubtful })
            }
            // The last known address may belong to another pod by now.
            Some((LookupOutcome::NoSuchHost { error, .. }, _)) => listed.ok_or_else(|| error.clone()),
            outcome => listed.or_else(|| entry.last_known(now)).ok_or_else(|| match outcome {
                Some((LookupOutcome::Failed(error), _)) => error.clone(),
                _ => DiscoveryError::Timeout,
            }),
        }
    }

    /// Returns where to dial a node, and records that it is being dialed there.
    ///
    /// # Errors
    /// See [`best_known`](Self::best_known).
    pub(super) fn start_dial(&mut self, id: &NodeId, now: Instant) -> Result<Candidates, DiscoveryError> {
        let candidates = self.best_known(id, now)?;
        if let Some(entry) = self.entries.get_mut(id) {
            entry.is_unverified |= !candidates.is_verified;
        }
        Ok(candidates)
    }

    /// Records that none of these addresses could be connected to.
    pub(super) fn record_failed_dial(&mut self, id: &NodeId, tried: &[IpAddr]) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let has_failed = |ips: &[IpAddr]| ips.iter().all(|ip| tried.contains(ip));
        if let ListedAddresses::At(ips) = &entry.listed {
            entry.listed_failed |= has_failed(ips);
        }
        if let Some(LastLookup { outcome: LookupOutcome::Found { ips, is_doubtful, .. }, .. }) = &mut entry.last_lookup
        {
            *is_doubtful |= has_failed(ips);
        }
    }

    /// Records that a connection to the node was lost. It may have moved, so what the last lookup found is in doubt.
    pub(super) fn record_loss(&mut self, id: &NodeId) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.lost_since_listed = !entry.is_listed_for_good;
        if let Some(LastLookup { outcome: LookupOutcome::Found { is_doubtful, .. }, .. }) = &mut entry.last_lookup {
            *is_doubtful = true;
        }
    }

    /// Records where an answer lists each node. Nodes it does not list lose the addresses of the answer before.
    pub(super) fn record_answer(&mut self, answer: &Membership, now: Instant) {
        let listed_until = answer.ttl().map(|ttl| later_by(now, ttl));
        for (id, entry) in &mut self.entries {
            if !answer.lists(id) {
                (entry.listed, entry.listed_failed) = (ListedAddresses::NotListed, false);
            }
        }
        for endpoint in answer.endpoints() {
            let entry = self.entries.entry(endpoint.id().clone()).or_default();
            let listed = endpoint.listed_addresses();
            if !entry.listed.is_listed() {
                // A pod that is back may have an address again, whatever its negative TTL is.
                if let Some(LastLookup { at, outcome: LookupOutcome::NoSuchHost { until, .. } }) =
                    &mut entry.last_lookup
                {
                    *until = *at + LOOKUP_SPACING;
                }
            }
            entry.listed_failed &= !listed.differs_from(&entry.listed);
            entry.listed = listed.clone();
            entry.listed_until = listed_until;
            entry.is_listed_for_good = answer.is_final();
            if let ListedAddresses::At(ips) = listed {
                entry.lost_since_listed = false;
                if !entry.listed_failed {
                    entry.last_known = Some(LastKnown { ips: ips.clone(), at: now });
                    entry.is_unverified = false;
                    entry.end_lookup(ips, now);
                }
            }
        }
    }

    /// Returns the answer that has just been recorded, without addresses where dials have failed: a lookup is believed
    /// rather than these.
    pub(super) fn without_failed(&self, answer: Membership) -> Membership {
        let has_failed = |endpoint: &Endpoint| self.entries.get(endpoint.id()).is_some_and(|entry| entry.listed_failed);
        answer.map(|endpoint| match has_failed(&endpoint) {
            true => endpoint.at(ListedAddresses::WithoutAddresses),
            false => endpoint,
        })
    }

    /// Returns the nodes to look up after an answer, because it leaves open where they are. Of the nodes that show no
    /// sign of trouble, those looked up longest ago.
    pub(super) fn checks_due(&self, now: Instant) -> Vec<NodeId> {
        let (mut due, mut routine) = (Vec::new(), Vec::new());
        for (id, entry) in &self.entries {
            match entry.check_due(now) {
                Some(Check::Urgent) => due.push(id.clone()),
                Some(Check::Routine { last }) => routine.push((last, id)),
                None => {}
            }
        }
        routine.sort_unstable();
        due.extend(routine.into_iter().take(CHECKS_PER_ANSWER).map(|(_, id)| id.clone()));
        due
    }

    /// Returns the nodes that were last dialed at an address only known from before, and may be looked up. First those
    /// looked up longest ago, so that lookups that fail do not keep others from their turn.
    pub(super) fn unverified(&self, now: Instant) -> Vec<NodeId> {
        let is_due = |entry: &Entry| entry.is_unverified && entry.may_look_up(now);
        let mut due: Vec<_> = self.entries.iter().filter(|(_, entry)| is_due(entry)).collect();
        due.sort_unstable_by_key(|(id, entry)| (entry.last_lookup.as_ref().map(|last| last.at), *id));
        due.into_iter().map(|(id, _)| id.clone()).collect()
    }

    /// Records what a lookup has found. Returns what this says about where the node is, or `None` if it says nothing
    /// new: the lookup failed, an answer lists addresses that nothing has put in doubt since, or no connection can be
    /// at a wrong one.
    pub(super) fn record_lookup(
        &mut self,
        id: &NodeId,
        outcome: &Result<HostAddresses, DiscoveryError>,
        now: Instant,
    ) -> Option<ListedAddresses> {
        let entry = self.entries.get_mut(id)?;
        let (outcome, found) = match outcome {
            Ok(found) => {
                let ips = found.addresses().to_vec();
                let until = found.ttl().map(|ttl| later_by(now, ttl));
                entry.last_known = Some(LastKnown { ips: ips.clone(), at: now });
                entry.is_unverified = false;
                (LookupOutcome::Found { ips: ips.clone(), until, is_doubtful: false }, Some(ips.into_iter().collect()))
            }
            Err(error @ DiscoveryError::NoSuchHost { negative_ttl, .. }) => {
                let ttl = negative_ttl.unwrap_or_default().clamp(LOOKUP_SPACING, MAX_NEGATIVE_TTL);
                entry.last_known = None;
                let was_unverified = std::mem::take(&mut entry.is_unverified);
                let outcome = LookupOutcome::NoSuchHost { error: error.clone(), until: now + ttl };
                (outcome, was_unverified.then_some(ListedAddresses::NoSuchHost))
            }
            Err(error) => (LookupOutcome::Failed(error.clone()), None),
        };
        let is_failure = matches!(outcome, LookupOutcome::Failed(_));
        if entry.lost_since_listed && entry.listed.is_listed() && !is_failure {
            // What is listed was in doubt, and the lookup is newer.
            entry.listed = ListedAddresses::WithoutAddresses;
        }
        entry.last_lookup = Some(LastLookup { at: now, outcome });
        found.filter(|_| entry.listed_failed || entry.listed(now).is_none())
    }

    /// Records that the node answered at this address until now. An address that was only known from before, whose host
    /// does not exist, or that is not the one last listed or found, gains nothing by that: it may be another pod's.
    pub(super) fn confirm(&mut self, id: &NodeId, ip: IpAddr, now: Instant) {
        if let Some(entry) = self.entries.get_mut(id)
            && matches!(&entry.listed, ListedAddresses::At(ips) if ips.contains(&ip))
        {
            entry.listed_failed = false;
        }
        let is_verified = |entry: &&mut Entry| !entry.is_unverified && !entry.has_no_host();
        let Some(entry) = self.entries.get_mut(id).filter(is_verified) else { return };
        if let Some(known) = &mut entry.last_known
            && let Some(index) = known.ips.iter().position(|known| *known == ip)
        {
            // The address that answered is tried first.
            known.ips[..=index].rotate_right(1);
            known.at = now;
        }
    }

    /// Returns whether the node is not listed and its host does not exist: only an answer that lists it again makes
    /// another dial worthwhile.
    pub(super) fn waits_for_listing(&self, id: &NodeId) -> bool {
        self.entries.get(id).is_some_and(|entry| !entry.listed.is_listed() && entry.has_no_host())
    }

    /// Returns the nodes whose host names do not exist.
    pub(super) fn without_host(&self) -> impl Iterator<Item = &NodeId> {
        self.entries.iter().filter(|(_, entry)| entry.has_no_host()).map(|(id, _)| id)
    }

    /// Forgets all nodes but the members.
    pub(super) fn retain(&mut self, is_member: impl Fn(&NodeId) -> bool) {
        self.entries.retain(|id, _| is_member(id));
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    #[cfg(test)]
    pub(super) fn contains(&self, id: &NodeId) -> bool {
        self.entries.contains_key(id)
    }
}

/// Returns whether the time is before the limit, if there is one.
fn is_valid(until: Option<Instant>, now: Instant) -> bool {
    until.is_none_or(|until| now < until)
}

/// The address book that the refresh task writes and all nodes read.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedAddressBook(Arc<Mutex<AddressBook>>);

impl SharedAddressBook {
    pub(super) fn lock(&self) -> MutexGuard<'_, AddressBook> {
        // A panic cannot leave an entry half-written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
