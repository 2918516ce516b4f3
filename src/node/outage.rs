//! Notices that most nodes of a client fail their requests at once, which has one cause: most likely this client's
//! network.

use std::sync::Mutex;

use tracing::{error, info};

use crate::connection::lock;

/// How many nodes a client has, and how many of them have an open circuit breaker.
#[derive(Debug, Default)]
pub(crate) struct Outage(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    nodes: usize,
    open: usize,
    is_reported: bool,
}

impl Outage {
    pub(super) fn node_added(&self) {
        lock(&self.0).nodes += 1;
    }

    pub(super) fn node_removed(&self, is_open: bool) {
        lock(&self.0).node_removed(is_open);
    }

    /// A breaker has opened or closed.
    pub(super) fn breaker_changed(&self, is_open: bool) {
        let mut counts = lock(&self.0);
        counts.open = if is_open { counts.open + 1 } else { counts.open.saturating_sub(1) };
        let (nodes, open) = (counts.nodes, counts.open);
        if counts.notices_begin() {
            error!(target: "memring", open, nodes, "most nodes do not reply: the cause may be this client's network");
        } else if counts.notices_end() {
            info!(target: "memring", open, nodes, "most nodes reply again");
        }
    }
}

impl Counts {
    fn node_removed(&mut self, is_open: bool) {
        self.nodes = self.nodes.saturating_sub(1);
        self.open = self.open.saturating_sub(is_open.into());
        // Not logged, because nodes are removed with their client, too. But the next outage is noticed.
        self.notices_end();
    }

    /// Whether more than half of the nodes are open, for the first time.
    fn notices_begin(&mut self) -> bool {
        let begins = !self.is_reported && self.nodes > 1 && self.open * 2 > self.nodes;
        self.is_reported |= begins;
        begins
    }

    /// Whether at most a quarter of the nodes is open again. Not half, because each crossing is an event.
    fn notices_end(&mut self) -> bool {
        let ends = self.is_reported && self.open * 4 <= self.nodes;
        self.is_reported &= !ends;
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_noticed_once_until_it_is_over() {
        let mut counts = Counts { nodes: 4, open: 2, is_reported: false };
        assert!(!counts.notices_begin());
        counts.open = 3;
        assert!(counts.notices_begin() && !counts.notices_begin());
        counts.open = 2;
        assert!(!counts.notices_end());
        counts.open = 1;
        assert!(counts.notices_end() && !counts.notices_end());
    }

    #[test]
    fn an_outage_is_noticed_after_the_nodes_of_the_one_before_were_removed() {
        let mut counts = Counts { nodes: 4, open: 3, is_reported: false };
        assert!(counts.notices_begin());
        for _ in 0..3 {
            counts.node_removed(true);
        }
        counts.nodes += 1;
        counts.open = 2;
        assert!(counts.notices_begin());
    }

    #[test]
    fn a_single_node_is_no_outage_of_most() {
        let mut counts = Counts { nodes: 1, open: 1, is_reported: false };
        assert!(!counts.notices_begin());
    }
}
