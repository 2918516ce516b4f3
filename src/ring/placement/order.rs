//! The order in which clients take servers. It decides who owns a slot, or a point that two servers share.

use std::cmp::Ordering;

use super::Server;
use super::name_format::NameFormat;

/// An order of servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerOrder {
    /// As listed.
    Listed,
    /// By host, then by port.
    ByHost,
    /// By name, shorter names first.
    ByNameLength,
    /// By `host:port` in [natural order](natural_cmp).
    Natural,
}

impl ServerOrder {
    /// Returns the indices of the servers in this order.
    pub(super) fn sorted_indices(self, servers: &[Server]) -> Vec<u16> {
        let mut indices: Vec<u16> = (0_u16..).take(servers.len()).collect();
        let server = |index: &u16| &servers[usize::from(*index)];
        match self {
            Self::Listed => {}
            Self::ByHost => indices.sort_by_key(|index| (server(index).host.as_bytes(), server(index).port)),
            Self::ByNameLength => indices.sort_by_cached_key(|index| {
                let name = NameFormat::NamedShort.name_of(server(index));
                (name.len(), name)
            }),
            Self::Natural => sort_naturally(&mut indices, |index| NameFormat::Bracketed.name_of(server(index))),
        }
        indices
    }
}

/// Sorts indices by the natural order of their names. Ties, such as `n1` and `n01`, are sorted by bytes.
pub(super) fn sort_naturally<Name: AsRef<str>>(indices: &mut [u16], name: impl Fn(&u16) -> Name) {
    indices.sort_by(|a, b| {
        let (a, b) = (name(a), name(b));
        let (a, b) = (a.as_ref(), b.as_ref());
        natural_cmp(a, b).then_with(|| a.cmp(b))
    });
}

/// Compares runs of digits as numbers and other runs as bytes: `cache-2` comes before `cache-10`.
fn natural_cmp(a: &str, b: &str) -> Ordering {
    let (mut a_runs, mut b_runs) = (runs(a), runs(b));
    loop {
        match (a_runs.next(), b_runs.next()) {
            (Some(a), Some(b)) => {
                let is_number = |run: &str| run.bytes().all(|byte| byte.is_ascii_digit());
                let order = if is_number(a) && is_number(b) {
                    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
                    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
                } else {
                    a.cmp(b)
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

/// Splits a text into runs of digits and runs of other bytes.
fn runs(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let starts_with_digit = rest.bytes().next()?.is_ascii_digit();
        let end = rest.bytes().position(|byte| byte.is_ascii_digit() != starts_with_digit).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        rest = after;
        Some(run)
    })
}
