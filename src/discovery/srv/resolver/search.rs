//! The absolute names that the name of a service may stand for.

use hickory_resolver::proto::rr::Name;

/// Returns the absolute names that a name may stand for, likeliest first.
///
/// The name as it is comes first if it has enough dots, or ends in a domain of the search list. In a pod
/// `x.svc.cluster.local` has fewer dots than `ndots`, but never stands for `x.svc.cluster.local.svc.cluster.local`.
pub(super) fn candidates(name: &Name, search: &[Name], ndots: usize) -> Vec<Name> {
    let mut absolute = name.clone();
    absolute.set_fqdn(true);
    if name.is_fqdn() {
        return vec![absolute];
    }
    let dots = usize::from(name.num_labels()).saturating_sub(1);
    let is_full = dots >= ndots
        || search.iter().any(|domain| {
            let mut domain = domain.clone();
            domain.set_fqdn(true);
            domain.num_labels() > 0 && domain.zone_of(&absolute)
        });
    let mut names = Vec::with_capacity(search.len() + 1);
    if is_full {
        names.push(absolute.clone());
    }
    for domain in search {
        // Skips names that are too long with the domain appended.
        if let Ok(name) = name.clone().append_domain(domain)
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    if !names.contains(&absolute) {
        names.push(absolute);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(texts: &[&str]) -> Vec<Name> {
        texts.iter().map(|text| Name::from_ascii(text).unwrap()).collect()
    }

    fn candidates_of(query: &str, ndots: usize) -> Vec<String> {
        let search = names(&["default.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"]);
        candidates(&Name::from_ascii(query).unwrap(), &search, ndots).iter().map(Name::to_ascii).collect()
    }

    #[test]
    fn names_that_look_absolute_are_tried_unchanged_first() {
        assert_eq!(candidates_of("memcached.default.svc.cluster.local.", 5), ["memcached.default.svc.cluster.local."]);
        assert_eq!(candidates_of("memcached.default.svc.cluster.local", 5)[0], "memcached.default.svc.cluster.local.");
        assert_eq!(candidates_of("_memcached._tcp.a.b.c.d", 5)[0], "_memcached._tcp.a.b.c.d.");
        let short = candidates_of("memcached", 5);
        assert_eq!(short[0], "memcached.default.svc.cluster.local.");
        assert_eq!((short.len(), short[4].as_str()), (5, "memcached."));
        assert_eq!(candidates(&Name::from_ascii("a.b").unwrap(), &[], 0), names(&["a.b."]));
    }
}
