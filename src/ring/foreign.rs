//! Rings that place keys as another client does.

use std::sync::Arc;

use super::placement::{self, Placement, Server};
use super::{InvalidRing, Ring, RingNode, Table};

/// More points, slots and the like than this no ring may have.
const MAX_WEIGHT_OF_ALL: u64 = 100_000;

impl Ring {
    /// Builds a ring that places keys as another client does, bit for bit.
    ///
    /// A node's label must be its `host:port`, as that client's configuration has it; a port left out is 11211, an IPv6
    /// address stands in brackets. Weights, and a [name](RingNode::with_name) or an [address](RingNode::with_ip) where
    /// the client has such, count as they do there. Where the order of servers matters to the client, nodes must be
    /// given in its order.
    ///
    /// ```
    /// use memring::{KeyHash, Libmemcached, Placement, Ring};
    ///
    /// // php-memcached with OPT_LIBKETAMA_COMPATIBLE.
    /// let placement = Placement::libmemcached(Libmemcached::KetamaWeighted, KeyHash::Md5);
    /// let ring = Ring::with_placement(&placement, ["cache-0:11211", "cache-1:11211", "cache-2:11211"])?;
    /// assert!(ring.node_for("user:42").is_some());
    /// # Ok::<(), memring::InvalidRing>(())
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new); and [`InvalidRing::Label`] if a label is no `host:port`, unless the placement is a
    /// [custom](Placement::custom) one. Weights may be from 0 (which
    /// clients read differently) to 65,535, and 100,000 together.
    pub fn with_placement(
        placement: &Placement,
        nodes: impl IntoIterator<Item = impl Into<RingNode>>,
    ) -> Result<Self, InvalidRing> {
        let nodes: Vec<RingNode> = nodes.into_iter().map(Into::into).collect();
        if placement.is_native() {
            return Self::new(nodes);
        }
        if nodes.iter().any(|node| node.label.is_empty()) {
            return Err(InvalidRing::EmptyLabel);
        }
        if let Some(node) = nodes.iter().find(|node| node.weight > u32::from(u16::MAX)) {
            return Err(InvalidRing::Weight { label: node.label.to_string(), weight: node.weight });
        }
        let total = nodes.iter().map(|node| u64::from(node.weight)).sum();
        if total > MAX_WEIGHT_OF_ALL || nodes.len() > usize::from(u16::MAX) {
            return Err(InvalidRing::TotalWeight { total });
        }
        let mut labels: Vec<&str> = nodes.iter().map(RingNode::label).collect();
        labels.sort_unstable();
        if let Some(pair) = labels.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(InvalidRing::DuplicateLabel { label: pair[0].to_owned() });
        }
        let table = match placement.custom_table(&nodes) {
            Some(table) => table,
            None => placement::Table::new(placement, &nodes.iter().map(server).collect::<Result<Vec<_>, _>>()?),
        };
        Ok(Self { table: Table::Foreign(Arc::new(table)), nodes: nodes.into() })
    }
}

fn server(node: &RingNode) -> Result<Server, InvalidRing> {
    let invalid = || InvalidRing::Label { label: node.label.to_string() };
    let (host, port) = match node.label.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => {
            (host, rest.strip_prefix(':').or_else(|| rest.is_empty().then_some("11211")).ok_or_else(invalid)?)
        }
        None => node.label.rsplit_once(':').unwrap_or((&node.label, "11211")),
    };
    let port = port.parse().map_err(|_| invalid())?;
    if host.is_empty() {
        return Err(invalid());
    }
    let text = |text: &Option<Arc<str>>| text.as_ref().map(ToString::to_string);
    Ok(Server { host: host.to_owned(), port, weight: node.weight, name: text(&node.name), ip: text(&node.ip) })
}
