//! One member of the membership, and how long it has not been listed.

use tokio::time::Instant;

use crate::discovery::{Endpoint, ListedAddresses};

#[derive(Debug)]
pub(super) struct Member {
    /// What the latest answer that lists the node says about it, with the addresses where it was last found.
    pub(super) endpoint: Endpoint,
    /// Whether the addresses are the first that a lookup has found. The node was dialed there, so nothing has changed.
    are_first_found: bool,
    /// Set while answers do not list the node.
    pub(super) absence: Option<Absence>,
}

/// How long a member has not been listed.
#[derive(Debug)]
pub(super) struct Absence {
    pub(super) since: Instant,
    /// Set if the member vanished in a mass removal.
    pub(super) held_until: Option<Instant>,
    /// The number of good answers that did not list the member.
    pub(super) answers: u32,
}

impl Member {
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        Self { endpoint: endpoint.clone(), are_first_found: false, absence: None }
    }

    /// Takes over what an answer lists. Returns whether anything differs.
    pub(super) fn update(&mut self, endpoint: &Endpoint) -> bool {
        let (listed, before) = (endpoint.listed_addresses(), self.endpoint.listed_addresses());
        let has_moved = listed.differs_from(before);
        // An answer without addresses leaves the node where it was, because DNS servers leave them out at will.
        let found = if has_moved { listed.clone() } else { before.clone() };
        let properties = |endpoint: &Endpoint| (endpoint.weight(), endpoint.priority());
        let has_changed = properties(&self.endpoint) != properties(endpoint)
            || self.endpoint.label() != endpoint.label()
            || has_moved;
        self.endpoint = endpoint.clone().at(found);
        self.are_first_found &= !has_moved;
        has_changed
    }

    /// Takes over what a lookup has found.
    pub(super) fn update_addresses(&mut self, found: &ListedAddresses) {
        let before = self.endpoint.listed_addresses();
        if found.differs_from(before) || *found == ListedAddresses::NoSuchHost {
            self.are_first_found = *before == ListedAddresses::WithoutAddresses;
            self.endpoint = self.endpoint.clone().at(found.clone());
        }
    }

    /// Returns whether the node is elsewhere than a roster says.
    pub(super) fn has_moved_since(&self, roster: &Endpoint) -> bool {
        let (found, before) = (self.endpoint.listed_addresses(), roster.listed_addresses());
        let is_gone = *found == ListedAddresses::NoSuchHost && found != before;
        !self.are_first_found && (found.differs_from(before) || is_gone)
    }

    /// Returns whether the member vanished in a mass removal that is still held.
    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.absence.as_ref().and_then(|absence| absence.held_until).is_some_and(|until| until > now)
    }
}
