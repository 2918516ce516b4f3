//! The system's DNS configuration, which is read once.

use std::net::SocketAddr;

use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::system_conf::read_system_conf;

const DNS_PORT: u16 = 53;

/// Which DNS servers to query, and what a name that is not absolute stands for.
#[derive(Debug, Default)]
pub(super) struct Config {
    pub(super) servers: Vec<SocketAddr>,
    pub(super) search: Vec<Name>,
    pub(super) ndots: usize,
    pub(super) is_tcp_only: bool,
}

impl Config {
    /// Reads the system's configuration.
    pub(super) fn of_system() -> Result<Self, NetError> {
        let (system, options) = read_system_conf()?;
        let (_, search, servers) = system.into_parts();
        let servers = servers.iter().map(|server| SocketAddr::new(server.ip, DNS_PORT)).collect();
        // hickory ignores this option.
        let is_tcp_only = std::fs::read_to_string("/etc/resolv.conf").is_ok_and(|text| has_use_vc(&text));
        Ok(Self { servers, search, ndots: options.ndots, is_tcp_only })
    }
}

/// Returns whether a `resolv.conf` asks for queries over TCP only.
fn has_use_vc(resolv_conf: &str) -> bool {
    resolv_conf.lines().any(|line| {
        let mut words = line.split_whitespace();
        words.next() == Some("options") && words.any(|option| option == "use-vc")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_vc_is_found_among_the_options() {
        assert!(has_use_vc("nameserver 10.96.0.10\noptions ndots:5 use-vc\n"));
        assert!(has_use_vc("options ndots:5\noptions use-vc"));
        assert!(!has_use_vc("# options use-vc\nsearch use-vc\noptions ndots:5 edns0\n"));
    }
}
