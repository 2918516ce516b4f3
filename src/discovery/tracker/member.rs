//! One member of the membership, and how long it has not been listed.

use tokio::time::Instant;

use crate::discovery::{Endpoint, ListedAddresses};

#[derive(Debug)]
pub(super) struct Member {
    /// What the latest answer that lists the node says about it, with the addresses where it was last found.
    pub(super) endpoint: Endpoint,
    /// Whether the node was found at other addresses than before.
    has_moved: bool,
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
        Self { endpoint: endpoint.clone(), has_moved: false, absence: None }
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
        self.has_moved |= has_moved;
        has_changed
    }

    /// Takes over what a lookup has found. The first addresses are no move, because the node was never elsewhere.
    pub(super) fn update_addresses(&mut self, found: &ListedAddresses) {
        let before = self.endpoint.listed_addresses();
        let is_first = *before == ListedAddresses::WithoutAddresses;
        let is_gone = *found == ListedAddresses::NoSuchHost && found != before;
        if found.differs_from(before) || is_gone {
            self.has_moved |= !is_first;
            self.endpoint = self.endpoint.clone().at(found.clone());
        }
    }

    /// Returns whether the member has moved since the last call.
    pub(super) fn take_move(&mut self) -> bool {
        std::mem::take(&mut self.has_moved)
    }

    /// Returns whether the member vanished in a mass removal that is still held.
    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.absence.as_ref().and_then(|absence| absence.held_until).is_some_and(|until| until > now)
    }
}
