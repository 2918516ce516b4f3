//! The rule by which a client builds its rings.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use tracing::warn;

use crate::discovery::Endpoint;
#[cfg(feature = "placements")]
use crate::ring::placement::Placement;
use crate::ring::{InvalidRing, Ring, RingNode};

type LabelOf = dyn Fn(&Endpoint) -> String + Send + Sync;

/// The text the ring hashes for each node, and how keys are placed on nodes.
#[derive(Clone, Default)]
pub(crate) struct PlacementRule {
    label_of: Option<Arc<LabelOf>>,
    /// The placement of another client, with nodes in natural order, because discovery does not know that client's
    /// order. `None` is the native placement.
    #[cfg(feature = "placements")]
    placement: Option<Placement>,
}

impl PlacementRule {
    /// Sets the label of each endpoint that has none of its own.
    pub(crate) fn set_labels(&mut self, label_of: impl Fn(&Endpoint) -> String + Send + Sync + 'static) {
        self.label_of = Some(Arc::new(label_of));
    }

    #[cfg(feature = "placements")]
    pub(crate) fn set_placement(&mut self, placement: Placement) {
        self.placement = (!placement.is_native()).then(|| placement.in_natural_order());
    }

    /// Builds the ring over the nodes' labels, in the order of the endpoints.
    ///
    /// If the labels make no ring, for example because two nodes share one, the identities are used instead. They are
    /// unique, so every node gets keys. A ring has room for 10,000 nodes: if there are more, only the first ones are
    /// used. They are the same in every client, because endpoints are sorted.
    pub(super) fn ring_of(&self, endpoints: &[Endpoint]) -> Ring {
        self.ring(endpoints.iter().map(|endpoint| self.labeled(endpoint)).collect()).unwrap_or_else(|error| {
            warn!(target: "memring", %error, "the labels of the nodes make no ring, using their identities instead");
            let room = endpoints.len().min(Ring::MAX_TOTAL_WEIGHT as usize);
            if room < endpoints.len() {
                warn!(target: "memring", room, "more nodes than a ring has room for, the last ones get no keys");
            }
            self.ring(endpoints[..room].iter().map(|endpoint| RingNode::from(endpoint.id())).collect())
                .unwrap_or_default()
        })
    }

    fn labeled(&self, endpoint: &Endpoint) -> RingNode {
        let label = match (endpoint.label(), &self.label_of) {
            (Some(label), _) => label.to_owned(),
            (None, Some(label_of)) => label_of(endpoint),
            (None, None) => endpoint.id().to_string(),
        };
        RingNode::new(label).with_weight(endpoint.weight().clamp(1, RingNode::MAX_WEIGHT))
    }

    fn ring(&self, nodes: Vec<RingNode>) -> Result<Ring, InvalidRing> {
        #[cfg(feature = "placements")]
        if let Some(placement) = &self.placement {
            return Ring::with_placement(placement, nodes);
        }
        Ring::new(nodes)
    }
}

impl fmt::Debug for PlacementRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rule = f.debug_struct("PlacementRule");
        #[cfg(feature = "placements")]
        rule.field("placement", &self.placement);
        rule.field("has_labels", &self.label_of.is_some()).finish()
    }
}
