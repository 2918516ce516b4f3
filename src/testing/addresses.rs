//! Loopback addresses, one for each pod, as a cluster has one for each pod.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use crate::node_id::DEFAULT_PORT;

/// How often a start is tried when the address picked turns out to be taken.
pub(super) const ATTEMPTS: usize = 8;

/// Which addresses this machine listens on. Linux and Windows have all of 127.0.0.0/8; macOS has 127.0.0.1 only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loopback {
    Many,
    One,
}

impl Loopback {
    pub(super) fn probe() -> Self {
        let listens = (0..3).any(|_| TcpListener::bind((random_address(), 0)).is_ok());
        if listens { Self::Many } else { Self::One }
    }

    /// An address that nobody listens on, or did not a moment ago, at the given port or else memcached's own if it
    /// may be had.
    pub(super) fn pick(self, port: Option<u16>) -> io::Result<SocketAddr> {
        if self == Self::One {
            return free(Ipv4Addr::LOCALHOST, port.unwrap_or(0));
        }
        let mut picked = free(random_address(), port.unwrap_or(DEFAULT_PORT));
        for _ in 1..ATTEMPTS {
            if picked.is_ok() {
                break;
            }
            picked = free(random_address(), port.unwrap_or(DEFAULT_PORT));
        }
        match port {
            // The port may be denied to us, or someone listens on it at all addresses.
            None => picked.or_else(|_| free(random_address(), 0)),
            Some(_) => picked,
        }
    }

    /// An address to bind a port of the system's choosing on.
    pub(super) fn any(self) -> IpAddr {
        match self {
            Self::Many => random_address().into(),
            Self::One => Ipv4Addr::LOCALHOST.into(),
        }
    }
}

/// Picked blindly, so that test processes that run side by side do not meet; 127.0.x.y is left to everybody else.
fn random_address() -> Ipv4Addr {
    Ipv4Addr::new(127, fastrand::u8(1..=254), fastrand::u8(..), fastrand::u8(1..=254))
}

fn free(ip: Ipv4Addr, port: u16) -> io::Result<SocketAddr> {
    TcpListener::bind((ip, port))?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_are_apart_and_keep_the_port() {
        let loopback = Loopback::probe();
        let first = loopback.pick(None).unwrap();
        let taken = TcpListener::bind(first).unwrap();
        let second = loopback.pick(None).unwrap();
        assert_ne!(first, second);
        if loopback == Loopback::Many {
            assert_ne!(first.ip(), second.ip());
            assert_eq!(loopback.pick(Some(second.port())).unwrap().port(), second.port());
        }
        drop(taken);
    }
}
