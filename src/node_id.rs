//! The identity of a server, as opposed to its address.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// The default port of memcached.
pub const DEFAULT_PORT: u16 = 11211;

/// The longest host name in DNS, in bytes, without the trailing dot.
const MAX_HOST_LEN: usize = 253;

/// A server's identity: a host name (or IP literal) and a port.
///
/// The identity of a pod is its stable name, not its address: a pod that restarts with another IP address is the same
/// node and keeps its keys. Host names are in lower case, so that names that are equal in DNS are equal here. IPv6
/// literals are in their canonical (RFC 5952) form.
///
/// A name that ends with a dot is absolute: resolvers look it up without a search list. The dot is kept for lookups,
/// and is no part of the identity. Names that differ in it only are equal, and their text and their place on the ring
/// have no dot.
///
/// ```
/// use memring::NodeId;
///
/// let id: NodeId = "Memcached-0.memcached.default.svc.cluster.local.:11211".parse()?;
/// assert_eq!(id.host(), "memcached-0.memcached.default.svc.cluster.local");
/// assert_eq!(id.lookup_name(), "memcached-0.memcached.default.svc.cluster.local.");
/// assert_eq!(id.port(), 11211);
/// assert_eq!(id, "memcached-0.memcached.default.svc.cluster.local".parse()?);
///
/// assert_eq!("cache-1".parse::<NodeId>()?.to_string(), "cache-1:11211");
/// assert_eq!("[::1]:11212".parse::<NodeId>()?.to_string(), "[::1]:11212");
/// # Ok::<(), memring::InvalidNodeId>(())
/// ```
#[derive(Clone)]
pub struct NodeId {
    /// With the trailing dot if the name was written with one.
    name: Arc<str>,
    port: u16,
}

impl NodeId {
    /// Makes an identity from a host name or IP literal (IPv6 with or without brackets) and a port.
    ///
    /// # Errors
    /// [`InvalidNodeId`] if the host is empty or longer than 253 bytes, has an empty label or one over 63 bytes, or
    /// holds anything but ASCII letters, digits, `-`, `_` and dots. Also if the port is 0.
    pub fn new(host: &str, port: u16) -> Result<Self, InvalidNodeId> {
        if port == 0 {
            return Err(InvalidNodeId::Port);
        }
        Ok(Self { name: normalize_host(host)?.into(), port })
    }

    /// Returns the host name in lower case without a trailing dot, or the IP literal without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.name.strip_suffix('.').unwrap_or(&self.name)
    }

    /// Returns the host name to look up: with a trailing dot if the identity was made of a name with one.
    ///
    /// The dot keeps a resolver from trying the suffixes of its search list.
    #[must_use]
    pub fn lookup_name(&self) -> &str {
        &self.name
    }

    /// Returns the TCP port, which is never 0.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the address if the host is an IP literal, which needs no DNS lookup.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host().parse().ok()
    }

    /// Returns what identifies the server.
    fn identity(&self) -> (&str, u16) {
        (self.host(), self.port)
    }
}

impl PartialEq for NodeId {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for NodeId {}

impl Hash for NodeId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl PartialOrd for NodeId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for NodeId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.identity().cmp(&other.identity())
    }
}

/// Returns the host in lower case, or the literal in its canonical form. Keeps the trailing dot.
fn normalize_host(host: &str) -> Result<String, InvalidNodeId> {
    let unbracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Some(literal) = unbracketed {
        return Ok(literal.parse::<Ipv6Addr>().map_err(|_| InvalidNodeId::Host)?.to_string());
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(ip.to_string());
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_valid_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if name.len() > MAX_HOST_LEN || !name.split('.').all(is_valid_label) {
        return Err(InvalidNodeId::Host);
    }
    Ok(host.to_ascii_lowercase())
}

impl FromStr for NodeId {
    type Err = InvalidNodeId;

    /// Parses `host`, `host:port`, `[v6]:port` or a bare IPv6 literal. The default port is 11211.
    fn from_str(text: &str) -> Result<Self, InvalidNodeId> {
        if text.parse::<Ipv6Addr>().is_ok() || text.ends_with(']') {
            return Self::new(text, DEFAULT_PORT);
        }
        match text.rsplit_once(':') {
            Some((host, port)) => {
                // `u16::from_str` accepts a leading `+`.
                if !port.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(InvalidNodeId::Port);
                }
                Self::new(host, port.parse().map_err(|_| InvalidNodeId::Port)?)
            }
            None => Self::new(text, DEFAULT_PORT),
        }
    }
}

impl TryFrom<&str> for NodeId {
    type Error = InvalidNodeId;

    fn try_from(text: &str) -> Result<Self, InvalidNodeId> {
        text.parse()
    }
}

impl TryFrom<String> for NodeId {
    type Error = InvalidNodeId;

    fn try_from(text: String) -> Result<Self, InvalidNodeId> {
        text.parse()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, port) = self.identity();
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

/// The error for a host or text that is not a valid server identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidNodeId {
    /// The host is neither a DNS name nor an IP literal.
    #[error("the host is neither a DNS name nor an IP address")]
    Host,
    /// The port is not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    Port,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_in_different_spellings_are_one_identity() {
        let plain = NodeId::new("mc-0.memcached.svc", 11211).unwrap();
        for spelling in ["mc-0.memcached.svc", "MC-0.memcached.svc", "mc-0.memcached.svc.", "mc-0.memcached.svc:11211"]
        {
            assert_eq!(spelling.parse::<NodeId>().unwrap(), plain, "{spelling}");
        }
        assert_ne!("mc-0.memcached.svc:11212".parse::<NodeId>().unwrap(), plain);
    }

    /// docs/discovery.md, row 70.
    #[test]
    fn a_trailing_dot_is_kept_for_lookups_and_is_no_part_of_the_identity() {
        let hash = |id: &NodeId| {
            let mut hasher = std::hash::DefaultHasher::new();
            id.hash(&mut hasher);
            hasher.finish()
        };
        let (relative, absolute) = (NodeId::new("mc-0.svc", 1).unwrap(), NodeId::new("MC-0.svc.", 1).unwrap());
        assert_eq!((relative.lookup_name(), absolute.lookup_name()), ("mc-0.svc", "mc-0.svc."));
        assert_eq!((relative.host(), relative.to_string()), (absolute.host(), absolute.to_string()));
        assert_eq!((relative.cmp(&absolute), hash(&relative)), (Ordering::Equal, hash(&absolute)));
        // "mc-0.svc" is less than "mc-0.svc-2" with a dot as well, although a dot is greater than a hyphen.
        assert!(absolute < NodeId::new("mc-0.svc-2", 1).unwrap());
    }

    #[test]
    fn ipv6_literals_have_one_canonical_text() {
        for spelling in ["::1", "[::1]", "[::1]:11211", "[0:0:0:0:0:0:0:1]:11211"] {
            let id: NodeId = spelling.parse().unwrap();
            assert_eq!((id.host(), id.to_string().as_str()), ("::1", "[::1]:11211"), "{spelling}");
            assert!(id.ip().is_some());
        }
    }

    #[test]
    fn invalid_hosts_and_ports_are_rejected() {
        let long_label = format!("{}.svc", "a".repeat(64));
        let long_name = format!("{}a", "a.".repeat(127));
        for host in ["", ".", "a..b", "a b", "a\r\nb", "[::1", "[cache]", "ü", "a/b", &long_label, &long_name] {
            assert_eq!(NodeId::new(host, 11211), Err(InvalidNodeId::Host), "{host:?}");
        }
        for text in ["a:0", "a:65536", "a:+1", "a:", "a:x", "a:-1"] {
            assert_eq!(text.parse::<NodeId>(), Err(InvalidNodeId::Port), "{text:?}");
        }
    }
}
