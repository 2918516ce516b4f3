//! By which rule a client makes its rings.

use std::fmt;
use std::sync::Arc;

use tracing::warn;

use crate::discovery::Endpoint;
#[cfg(feature = "placements")]
use crate::ring::placement::Placement;
use crate::ring::{InvalidRing, Ring, RingNode};

type LabelOf = dyn Fn(&Endpoint) -> String + Send + Sync;

/// What is hashed of a node, and how keys meet it.
#[derive(Clone, Default)]
pub(crate) struct Rule {
    label: Option<Arc<LabelOf>>,
    /// Another client's, with nobody to list the servers in its order.
    #[cfg(feature = "placements")]
    placement: Option<Placement>,
}

impl Rule {
    pub(crate) fn label_by(&mut self, label: impl Fn(&Endpoint) -> String + Send + Sync + 'static) {
        self.label = Some(Arc::new(label));
    }

    #[cfg(feature = "placements")]
    pub(crate) fn place_by(&mut self, placement: Placement) {
        self.placement = (!placement.is_native()).then(|| placement.in_natural_order());
    }

    /// The ring over the nodes' labels, in the order of the endpoints.
    pub(super) fn ring_of(&self, endpoints: &[Endpoint]) -> Ring {
        let by_label = |endpoint: &Endpoint| {
            let label = match (endpoint.label(), &self.label) {
                (Some(label), _) => label.to_owned(),
                (None, Some(label)) => label(endpoint),
                (None, None) => endpoint.id().to_string(),
            };
            RingNode::new(label).with_weight(endpoint.weight().clamp(1, RingNode::MAX_WEIGHT))
        };
        self.ring(endpoints.iter().map(by_label).collect()).unwrap_or_else(|error| {
            // Two nodes with one label, say. Identities are unique, so that all nodes can be used, if not as meant; or as
            // many as a ring has room for, the same ones in every client, for they are sorted.
            warn!(target: "memring", %error, "the nodes' labels make no ring; their identities are used instead");
            let room = endpoints.len().min(Ring::MAX_TOTAL_WEIGHT as usize);
            if room < endpoints.len() {
                warn!(target: "memring", room, "there are more nodes than a ring has room for; the last get no keys");
            }
            self.ring(endpoints[..room].iter().map(|endpoint| RingNode::from(endpoint.id())).collect())
                .unwrap_or_default()
        })
    }

    fn ring(&self, nodes: Vec<RingNode>) -> Result<Ring, InvalidRing> {
        #[cfg(feature = "placements")]
        if let Some(placement) = &self.placement {
            return Ring::with_placement(placement, nodes);
        }
        Ring::new(nodes)
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rule = f.debug_struct("Rule");
        #[cfg(feature = "placements")]
        rule.field("placement", &self.placement);
        rule.field("labelled", &self.label.is_some()).finish()
    }
}
