//! `Ring::with_placement`: rings that place keys as another client does. Checks labels, weights and limits.

use std::collections::HashSet;
use std::sync::Arc;

use super::placement::{Placement, PlacementTable, Server};
use super::{InvalidRing, OwnerTable, Ring, RingNode};
use crate::node_id::DEFAULT_PORT;

/// The limit for the sum of all weights, which bounds points and slots. nginx and pecl-memcache have the most, 160 per
/// unit of weight: 16 million, in about 160 MB.
const MAX_TOTAL_WEIGHT: u32 = 100_000;
/// The limit for nodes: as many as a native ring can have.
const MAX_NODES: u32 = Ring::MAX_TOTAL_WEIGHT;

impl Ring {
    /// Builds a ring that places keys exactly as another client does.
    ///
    /// The label of a node must be the `host:port` from the configuration of that client. A missing port means 11211,
    /// and an IPv6 address stands in brackets. Weights count as they do in that client, and so do
    /// [names](RingNode::with_name) and [addresses](RingNode::with_ip) if it has them. If the order of servers matters
    /// to the client, give the nodes in its order.
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
    /// # Limits
    /// A weight may be from 0 to 65,535, and all weights together 100,000. Clients read the weight 0 differently; if it
    /// means no keys, at least one node needs another weight. A ring may have 10,000 nodes.
    ///
    /// # Errors
    /// Returns [`InvalidRing`] for the same reasons as [`new`](Self::new), with these limits. Returns
    /// [`InvalidRing::Label`] if a label is not a `host:port`, unless the placement is a [custom](Placement::custom)
    /// one.
    pub fn with_placement(
        placement: &Placement,
        nodes: impl IntoIterator<Item = impl Into<RingNode>>,
    ) -> Result<Self, InvalidRing> {
        let nodes: Vec<RingNode> = nodes.into_iter().map(Into::into).collect();
        if placement.is_native() {
            return Self::new(nodes);
        }
        validate(&nodes)?;
        let table = match placement.custom_table(&nodes) {
            Some(table) => table,
            None => PlacementTable::new(placement, &servers(&nodes)?),
        };
        if table.is_ownerless() {
            return Err(InvalidRing::NoOwner);
        }
        Ok(Self { table: OwnerTable::Placement(Arc::new(table)), nodes: nodes.into() })
    }
}

fn validate(nodes: &[RingNode]) -> Result<(), InvalidRing> {
    if nodes.iter().any(|node| node.label.is_empty()) {
        return Err(InvalidRing::EmptyLabel);
    }
    if let Some(node) = nodes.iter().find(|node| node.weight > u32::from(u16::MAX)) {
        return Err(node.weight_error(0..=u16::MAX.into()));
    }
    let total = nodes.iter().map(|node| u64::from(node.weight)).sum();
    if total > MAX_TOTAL_WEIGHT.into() {
        return Err(InvalidRing::TotalWeight { total, max: MAX_TOTAL_WEIGHT });
    }
    if nodes.len() as u64 > MAX_NODES.into() {
        return Err(InvalidRing::Nodes { count: nodes.len(), max: MAX_NODES });
    }
    let mut labels: Vec<&str> = nodes.iter().map(RingNode::label).collect();
    labels.sort_unstable();
    match labels.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(InvalidRing::DuplicateLabel { label: pair[0].to_owned() }),
        None => Ok(()),
    }
}

fn servers(nodes: &[RingNode]) -> Result<Vec<Server>, InvalidRing> {
    let servers = nodes.iter().map(parse_server).collect::<Result<Vec<_>, _>>()?;
    // `a` and `a:11211` are two labels but one server.
    let mut known = HashSet::new();
    for (server, node) in servers.iter().zip(nodes) {
        if !known.insert((&server.host, server.port, &server.name)) {
            return Err(InvalidRing::DuplicateLabel { label: node.label.to_string() });
        }
    }
    Ok(servers)
}

fn parse_server(node: &RingNode) -> Result<Server, InvalidRing> {
    let invalid = || InvalidRing::Label { label: node.label.to_string() };
    let (host, port) = match node.label.strip_prefix('[') {
        Some(rest) => rest.split_once(']').filter(|(host, _)| host.contains(':')).ok_or_else(invalid)?,
        // Splits at the first colon. An IPv6 address without brackets is rejected, because it is ambiguous: its last
        // group could be a port.
        None => node.label.split_at(node.label.find(':').unwrap_or(node.label.len())),
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => DEFAULT_PORT,
        // Checks for digits first, because `u16::from_str` accepts a leading `+`.
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().map_err(|_| invalid())?,
        _ => return Err(invalid()),
    };
    if host.is_empty() {
        return Err(invalid());
    }
    let text = |text: &Option<Arc<str>>| text.as_ref().map(ToString::to_string);
    Ok(Server { host: host.to_owned(), port, weight: node.weight, name: text(&node.name), ip: text(&node.ip) })
}
