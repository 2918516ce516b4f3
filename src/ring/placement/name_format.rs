//! The text that clients hash to identify a server.

use std::net::Ipv6Addr;

use super::Server;
use crate::node_id::DEFAULT_PORT;

/// The format of the name that is hashed for a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameFormat {
    /// `host`, with `:port` unless the port is 11211.
    Short,
    /// The server's own name if it has one, otherwise [`Short`](Self::Short).
    NamedShort,
    /// `host:port`, without brackets.
    Full,
    /// `host:port`, with an IPv6 address in brackets.
    Bracketed,
    /// The server's own name if it has one, otherwise [`Bracketed`](Self::Bracketed).
    Named,
    /// `/host:port`.
    Slashed,
    /// [`Short`](Self::Short), with an IPv6 address as Java writes it.
    JavaShort,
    /// A socket address as Java prints it: `host/ip:port`, `ip:port` or `[ip]:port`.
    Java,
}

impl NameFormat {
    /// Returns the name of a server in this format.
    pub(super) fn name_of(self, server: &Server) -> String {
        let Server { host, port, name, ip, .. } = server;
        match self {
            Self::Short => short(host, *port),
            Self::NamedShort => name.clone().unwrap_or_else(|| short(host, *port)),
            Self::Full => format!("{host}:{port}"),
            Self::Bracketed => match host.parse::<Ipv6Addr>() {
                Ok(_) => format!("[{host}]:{port}"),
                Err(_) => format!("{host}:{port}"),
            },
            Self::Named => name.clone().unwrap_or_else(|| Self::Bracketed.name_of(server)),
            Self::Slashed => format!("/{host}:{port}"),
            Self::JavaShort => short(&java_ipv6(host).unwrap_or_else(|| host.clone()), *port),
            Self::Java => match (java_ipv6(host), ip) {
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

/// Returns an IPv6 address as Java writes it, in eight groups; `None` for other hosts.
fn java_ipv6(host: &str) -> Option<String> {
    let groups = host.parse::<Ipv6Addr>().ok()?.segments();
    Some(groups.map(|group| format!("{group:x}")).join(":"))
}
