//! How clients spell a server when they hash it, and in which order they take servers.

use std::cmp::Ordering;
use std::net::Ipv6Addr;

use super::Server;
use crate::node_id::DEFAULT_PORT;

/// What is hashed of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// `host`, and `:port` unless that is 11211.
    Short,
    /// The server's own name if it has one, or else as [`Short`](Self::Short).
    NamedShort,
    /// `host:port`, no brackets.
    Full,
    /// `host:port`, an IPv6 address in brackets.
    Bracketed,
    /// The server's own name if it has one, or else as [`Bracketed`](Self::Bracketed).
    Named,
    /// `/host:port`.
    Slashed,
    /// As [`Short`](Self::Short), an IPv6 address as Java spells it.
    JavaShort,
    /// As Java prints a socket address: `host/ip:port`, `ip:port`, `[ip]:port`.
    Java,
}

impl Spelling {
    pub(super) fn of(self, server: &Server) -> String {
        let Server { host, port, name, ip, .. } = server;
        match self {
            Self::Short => short(host, *port),
            Self::NamedShort => name.clone().unwrap_or_else(|| short(host, *port)),
            Self::Full => format!("{host}:{port}"),
            Self::Bracketed => match host.parse::<Ipv6Addr>() {
                Ok(_) => format!("[{host}]:{port}"),
                Err(_) => format!("{host}:{port}"),
            },
            Self::Named => name.clone().unwrap_or_else(|| Self::Bracketed.of(server)),
            Self::Slashed => format!("/{host}:{port}"),
            Self::JavaShort => short(&java_host(host).unwrap_or_else(|| host.clone()), *port),
            Self::Java => match (java_host(host), ip) {
                (Some(address), _) => format!("[{address}]:{port}"),
                (None, Some(ip)) if ip != host => format!("{host}/{ip}:{port}"),
                (None, _) => format!("{host}:{port}"),
            },
        }
    }
}

fn short(host: &str, port: u16) -> String {
    if port == DEFAULT_PORT { host.to_owned() } else { format!("{host}:{port}") }
}

/// An IPv6 address in eight groups, none left out.
fn java_host(host: &str) -> Option<String> {
    let groups = host.parse::<Ipv6Addr>().ok()?.segments();
    Some(groups.map(|group| format!("{group:x}")).join(":"))
}

/// In which order servers are taken, which decides who owns a contested point or a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// As they are given.
    Listed,
    /// By host, then by port.
    ByHost,
    /// By name, shorter ones first.
    ByNameLength,
    /// By `host:port`, numbers in it as numbers.
    Natural,
}

impl Order {
    /// The servers' indices in this order.
    pub(super) fn of(self, servers: &[Server]) -> Vec<u16> {
        let mut order: Vec<u16> = (0_u16..).take(servers.len()).collect();
        let server = |index: &u16| &servers[usize::from(*index)];
        match self {
            Self::Listed => {}
            Self::ByHost => order.sort_by_key(|index| (server(index).host.as_bytes(), server(index).port)),
            Self::ByNameLength => order.sort_by_cached_key(|index| {
                let name = Spelling::NamedShort.of(server(index));
                (name.len(), name)
            }),
            Self::Natural => {
                let name = |index: &u16| Spelling::Bracketed.of(server(index));
                // `n1` and `n01` are equal in this order, but not in any.
                order.sort_by(|a, b| natural(&name(a), &name(b)).then_with(|| name(a).cmp(&name(b))));
            }
        }
        order
    }
}

/// Runs of digits as numbers, other runs as bytes.
pub(super) fn natural(a: &str, b: &str) -> Ordering {
    let (mut ours, mut theirs) = (runs(a), runs(b));
    loop {
        match (ours.next(), theirs.next()) {
            (Some(our), Some(their)) => {
                let digits = |run: &str| run.bytes().all(|byte| byte.is_ascii_digit());
                let order = if digits(our) && digits(their) {
                    let trim = |run: &str| run.trim_start_matches('0').len();
                    let (a, b) = (our.trim_start_matches('0'), their.trim_start_matches('0'));
                    trim(our).cmp(&trim(their)).then_with(|| a.cmp(b))
                } else {
                    our.cmp(their)
                };
                if order != Ordering::Equal {
                    return order;
                }
            }
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (None, None) => return Ordering::Equal,
        }
    }
}

/// Runs of digits and of other bytes, in turn.
fn runs(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.bytes().next()?.is_ascii_digit();
        let end = rest.bytes().position(|byte| byte.is_ascii_digit() != first).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        rest = after;
        Some(run)
    })
}
