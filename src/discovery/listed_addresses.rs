//! Where an answer lists a node.

use std::net::IpAddr;

/// Where a node is: as an answer of the source lists it, or as a lookup of its host name has found it.
///
/// Equal only if the addresses come in the same order, which is the order to dial them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum ListedAddresses {
    /// The answer does not list the node.
    #[default]
    NotListed,
    /// The answer lists the node without addresses: its host name has to be looked up.
    WithoutAddresses,
    /// The node is at these addresses, in the order to dial them. Never empty.
    At(Vec<IpAddr>),
    /// The answer lists the node without addresses or not at all, and its host name does not exist.
    NoSuchHost,
}

impl ListedAddresses {
    /// Returns whether addresses are listed and `ip` is none of them.
    pub(crate) fn excludes(&self, ip: IpAddr) -> bool {
        matches!(self, Self::At(ips) if !ips.contains(&ip))
    }

    /// Returns whether addresses are listed, and not the same set as in `before`.
    ///
    /// DNS servers shuffle addresses, repeat them and leave them out: none of that is a change.
    pub(crate) fn differs_from(&self, before: &Self) -> bool {
        match (self, before) {
            (Self::At(ips), Self::At(before)) => sorted(ips) != sorted(before),
            (Self::At(_), _) => true,
            (Self::NotListed | Self::WithoutAddresses | Self::NoSuchHost, _) => false,
        }
    }

    /// Returns whether an answer lists the node, with or without addresses.
    pub(crate) fn is_listed(&self) -> bool {
        matches!(self, Self::WithoutAddresses | Self::At(_))
    }
}

impl FromIterator<IpAddr> for ListedAddresses {
    /// Collects the addresses of a node that is listed, with or without any.
    fn from_iter<T: IntoIterator<Item = IpAddr>>(ips: T) -> Self {
        let ips: Vec<_> = ips.into_iter().collect();
        if ips.is_empty() { Self::WithoutAddresses } else { Self::At(ips) }
    }
}

fn sorted(ips: &[IpAddr]) -> Vec<IpAddr> {
    let mut ips = ips.to_vec();
    ips.sort_unstable();
    ips.dedup();
    ips
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last_bytes: &[u8]) -> ListedAddresses {
        last_bytes.iter().map(|last| IpAddr::from([10, 0, 0, *last])).collect()
    }

    #[test]
    fn order_repetition_and_absence_of_addresses_are_no_difference() {
        assert!(!at(&[1, 2]).differs_from(&at(&[2, 1, 1])));
        assert!(!at(&[]).differs_from(&at(&[1])));
        assert!(!ListedAddresses::NotListed.differs_from(&at(&[1])));
        assert!(at(&[1, 3]).differs_from(&at(&[1, 2])));
        assert!(at(&[1]).differs_from(&at(&[])), "the first addresses are a change");
    }

    #[test]
    fn only_listed_addresses_exclude_others() {
        let ip = IpAddr::from([10, 0, 0, 1]);
        assert!(at(&[2]).excludes(ip));
        assert!(!at(&[2, 1]).excludes(ip) && !at(&[]).excludes(ip) && !ListedAddresses::NotListed.excludes(ip));
    }
}
