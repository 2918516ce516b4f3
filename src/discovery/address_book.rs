//! Which addresses are known of each node, and how good they are. Pure: every method takes the time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::discovery::time::later_by;
use crate::discovery::{ListedAddresses, Membership};
use crate::node_id::NodeId;

/// How long after it was last known to be good an address may still be dialed, if lookups fail. Within this time
/// another pod is unlikely to have got the address; after it, not dialing is safer.
const MAX_STALENESS: Duration = Duration::from_secs(300);

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
    last_known: Option<LastKnown>,
}

/// The addresses that were last listed, looked up or connected to, in the order to dial them.
#[derive(Debug)]
struct LastKnown {
    ips: Vec<IpAddr>,
    at: Instant,
}

impl AddressBook {
    /// Returns the addresses the latest answer lists the node at, unless the answer's TTL is over.
    pub(super) fn listed(&self, id: &NodeId, now: Instant) -> Option<Vec<IpAddr>> {
        let entry = self.entries.get(id)?;
        match &entry.listed {
            ListedAddresses::At(ips) if entry.listed_until.is_none_or(|until| now < until) => Some(ips.clone()),
            _ => None,
        }
    }

    /// Returns the addresses that were good within the last five minutes.
    pub(super) fn last_known(&self, id: &NodeId, now: Instant) -> Option<Vec<IpAddr>> {
        let LastKnown { ips, at } = self.entries.get(id)?.last_known.as_ref()?;
        (now.saturating_duration_since(*at) <= MAX_STALENESS).then(|| ips.clone())
    }

    /// Records where an answer lists each node. Nodes it does not list lose the addresses of the answer before.
    pub(super) fn record_answer(&mut self, answer: &Membership, now: Instant) {
        let listed_until = answer.ttl().map(|ttl| later_by(now, ttl));
        for entry in self.entries.values_mut() {
            entry.listed = ListedAddresses::NotListed;
        }
        for endpoint in answer.endpoints() {
            let entry = self.entries.entry(endpoint.id().clone()).or_default();
            entry.listed = endpoint.listed_addresses().clone();
            entry.listed_until = listed_until;
            if let ListedAddresses::At(ips) = &entry.listed {
                entry.last_known = Some(LastKnown { ips: ips.clone(), at: now });
            }
        }
    }

    /// Records the addresses that a lookup found.
    pub(super) fn record_lookup(&mut self, id: &NodeId, ips: Vec<IpAddr>, now: Instant) {
        self.entries.entry(id.clone()).or_default().last_known = Some(LastKnown { ips, at: now });
    }

    /// Records that the node answered at this address until now.
    pub(super) fn confirm(&mut self, id: &NodeId, ip: IpAddr, now: Instant) {
        let entry = self.entries.entry(id.clone()).or_default();
        let mut ips = entry.last_known.take().map_or_else(Vec::new, |known| known.ips);
        // The address that answered is tried first. The others are kept only if they came with it.
        if ips.contains(&ip) {
            ips.retain(|known| *known != ip);
        } else {
            ips.clear();
        }
        ips.insert(0, ip);
        entry.last_known = Some(LastKnown { ips, at: now });
    }

    /// Forgets a node.
    pub(super) fn remove(&mut self, id: &NodeId) {
        self.entries.remove(id);
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

/// The address book that the refresh task writes and all nodes read.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedAddressBook(Arc<Mutex<AddressBook>>);

impl SharedAddressBook {
    pub(super) fn lock(&self) -> MutexGuard<'_, AddressBook> {
        // A panic cannot leave an entry half-written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
