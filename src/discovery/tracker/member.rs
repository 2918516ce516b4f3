//! One member of the membership, and how long it has not been listed.

use tokio::time::Instant;

use crate::discovery::{Endpoint, ListedAddresses};

#[derive(Debug)]
pub(super) struct Member {
    pub(super) endpoint: Endpoint,
    /// The addresses the node was last listed at. Kept when an answer comes without addresses, because DNS servers
    /// leave them out at will.
    last_listed: ListedAddresses,
    /// Whether the latest answer lists the node at other addresses than before.
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
        Self {
            endpoint: endpoint.clone(),
            last_listed: endpoint.listed_addresses().clone(),
            has_moved: false,
            absence: None,
        }
    }

    /// Takes over what an answer lists. Returns whether anything differs.
    pub(super) fn update(&mut self, endpoint: &Endpoint) -> bool {
        let listed = endpoint.listed_addresses();
        self.has_moved = listed.differs_from(&self.last_listed);
        if self.has_moved {
            self.last_listed = listed.clone();
        }
        let properties = |endpoint: &Endpoint| (endpoint.weight(), endpoint.priority());
        let has_changed = properties(&self.endpoint) != properties(endpoint)
            || self.endpoint.label() != endpoint.label()
            || self.has_moved;
        self.endpoint = endpoint.clone();
        has_changed
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
