//! Rings that place keys as another client does.

use std::collections::HashSet;
use std::sync::Arc;

use super::placement::{self, Placement, Server};
use super::{InvalidRing, Ring, RingNode, Table};
use crate::node_id::DEFAULT_PORT;

/// What the weights of a ring may add up to: it bounds points and slots. nginx and pecl-memcache have the most, 160 for
/// each; that is 16 million, in some 160 MB.
const MAX_TOTAL_WEIGHT: u32 = 100_000;
/// As many as a native ring can have.
const MAX_NODES: u32 = Ring::MAX_TOTAL_WEIGHT;

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
    /// [custom](Placement::custom) one. Weights may be from 0 (which clients read differently; where it means no keys, not
    /// every node may have it) to 65,535, and 100,000 together; nodes may be 10,000.
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
            return Err(node.outside(0..=u16::MAX.into()));
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
        if let Some(pair) = labels.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(InvalidRing::DuplicateLabel { label: pair[0].to_owned() });
        }
        let table = match placement.custom_table(&nodes) {
            Some(table) => table,
            None => placement::Table::new(placement, &servers(&nodes)?),
        };
        if table.owns_nothing() {
            return Err(InvalidRing::NoOwner);
        }
        Ok(Self { table: Table::Foreign(Arc::new(table)), nodes: nodes.into() })
    }
}

fn servers(nodes: &[RingNode]) -> Result<Vec<Server>, InvalidRing> {
    let servers = nodes.iter().map(server).collect::<Result<Vec<_>, _>>()?;
    // `a` and `a:11211` are two labels, and one server.
    let mut known = HashSet::new();
    for (server, node) in servers.iter().zip(nodes) {
        if !known.insert((&server.host, server.port, &server.name)) {
            return Err(InvalidRing::DuplicateLabel { label: node.label.to_string() });
        }
    }
    Ok(servers)
}

fn server(node: &RingNode) -> Result<Server, InvalidRing> {
    let invalid = || InvalidRing::Label { label: node.label.to_string() };
    let (host, port) = match node.label.strip_prefix('[') {
        Some(rest) => rest.split_once(']').filter(|(host, _)| host.contains(':')).ok_or_else(invalid)?,
        // At the first colon: an IPv6 address without brackets could as well be one with a port, and is refused.
        None => node.label.split_at(node.label.find(':').unwrap_or(node.label.len())),
    };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => DEFAULT_PORT,
        // `u16::from_str` takes a leading `+`.
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().map_err(|_| invalid())?,
        _ => return Err(invalid()),
    };
    if host.is_empty() {
        return Err(invalid());
    }
    let text = |text: &Option<Arc<str>>| text.as_ref().map(ToString::to_string);
    Ok(Server { host: host.to_owned(), port, weight: node.weight, name: text(&node.name), ip: text(&node.ip) })
}
