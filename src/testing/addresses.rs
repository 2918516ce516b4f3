//! Loopback addresses, one for each pod, as in a cluster.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use crate::node_id::DEFAULT_PORT;

/// How often to try when another process takes the chosen address before it is bound.
pub(super) const ATTEMPTS: usize = 8;

/// The loopback addresses of this machine: all of 127.0.0.0/8 on Linux and Windows, only 127.0.0.1 on macOS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loopback {
    Many,
    One,
}

impl Loopback {
    pub(super) fn probe() -> Self {
        let has_many = (0..3).any(|_| TcpListener::bind((random_ip(), 0)).is_ok());
        if has_many { Self::Many } else { Self::One }
    }

    /// Returns an address that was free a moment ago, with the given port.
    ///
    /// Without a port, it has memcached's default port if that is available, or else a port chosen by the system.
    pub(super) fn free_addr(self, port: Option<u16>) -> io::Result<SocketAddr> {
        if self == Self::One {
            return probe_free(Ipv4Addr::LOCALHOST, port.unwrap_or(0));
        }
        let mut addr = probe_free(random_ip(), port.unwrap_or(DEFAULT_PORT));
        for _ in 1..ATTEMPTS {
            if addr.is_ok() {
                break;
            }
            addr = probe_free(random_ip(), port.unwrap_or(DEFAULT_PORT));
        }
        match port {
            // The default port may be forbidden to this process, or another process listens on it at all addresses.
            None => addr.or_else(|_| probe_free(random_ip(), 0)),
            Some(_) => addr,
        }
    }

    /// Returns an IP address on which to bind a port chosen by the system.
    pub(super) fn bind_ip(self) -> IpAddr {
        match self {
            Self::Many => random_ip().into(),
            Self::One => Ipv4Addr::LOCALHOST.into(),
        }
    }
}

/// Returns a random address, so that concurrent test processes rarely collide. It is never in 127.0.0.0/16, which other
/// programs use.
fn random_ip() -> Ipv4Addr {
    Ipv4Addr::new(127, fastrand::u8(1..=254), fastrand::u8(..), fastrand::u8(1..=254))
}

/// Returns the address if it can be bound. Port 0 lets the system choose a port.
fn probe_free(ip: Ipv4Addr, port: u16) -> io::Result<SocketAddr> {
    TcpListener::bind((ip, port))?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_addresses_differ_and_have_the_given_port() {
        let loopback = Loopback::probe();
        let first = loopback.free_addr(None).unwrap();
        let taken = TcpListener::bind(first).unwrap();
        let second = loopback.free_addr(None).unwrap();
        assert_ne!(first, second);
        if loopback == Loopback::Many {
            assert_ne!(first.ip(), second.ip());
            assert_eq!(loopback.free_addr(Some(second.port())).unwrap().port(), second.port());
        }
        drop(taken);
    }
}
