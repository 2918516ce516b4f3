use super::*;
use crate::discovery::Endpoint;

const SECOND: Duration = Duration::from_secs(1);

fn node(n: usize) -> NodeId {
    NodeId::new(&format!("mc-{n}"), 11211).unwrap()
}

fn found(last: u8, ttl: u64) -> Result<HostAddresses, DiscoveryError> {
    Ok(HostAddresses::new([IpAddr::from([10, 0, 0, last])]).with_ttl(Duration::from_secs(ttl)))
}

fn listing_without_addresses(nodes: usize) -> Membership {
    Membership::new((0..nodes).map(|n| Endpoint::new(node(n)))).with_ttl(5 * SECOND)
}

/// docs/discovery.md, row 61: without glue, ten healthy nodes are checked after an answer, each in its turn.
#[test]
fn after_an_answer_without_addresses_the_nodes_looked_up_longest_ago_are_checked() {
    let (mut book, mut now) = (AddressBook::default(), Instant::now());
    let answer = listing_without_addresses(25);
    book.record_answer(&answer, now);
    assert_eq!(book.checks_due(now), [], "the first dials look them up");
    for n in 0..25 {
        book.record_lookup(&node(n), &found(1, 5), now + Duration::from_millis(n as u64));
    }
    now += SECOND;
    assert_eq!(book.checks_due(now), [], "the TTL of their addresses is not over");
    for first in [0, 10, 20] {
        now += 6 * SECOND;
        book.record_answer(&answer, now);
        let due = book.checks_due(now);
        let expected: Vec<_> = (first..first + 10).map(|n| node(n % 25)).collect();
        assert_eq!(due, expected);
        for (n, id) in due.iter().enumerate() {
            book.record_lookup(id, &found(1, 5), now + Duration::from_millis(n as u64));
        }
    }
}

#[test]
fn nodes_in_doubt_are_all_checked_after_an_answer() {
    let (mut book, now) = (AddressBook::default(), Instant::now());
    let answer = listing_without_addresses(100);
    book.record_answer(&answer, now);
    for n in 0..100 {
        book.record_lookup(&node(n), &found(1, 300), now);
    }
    for n in 0..40 {
        book.record_loss(&node(n));
    }
    for n in 40..50 {
        book.record_failed_dial(&node(n), &[IpAddr::from([10, 0, 0, 1])]);
    }
    book.record_failed_dial(&node(50), &[IpAddr::from([10, 0, 0, 2])]);
    for n in 60..70 {
        book.record_lookup(&node(n), &Err(DiscoveryError::Timeout), now);
        let unverified = Candidates { ips: Vec::new(), is_verified: false };
        book.record_dial(&node(n), &unverified);
    }
    assert_eq!(book.checks_due(now), [], "too soon after the last lookups");
    let now = now + SECOND;
    book.record_answer(&answer, now);
    assert_eq!(book.checks_due(now).len(), 60);
    assert_eq!(book.unverified(now).len(), 10);
}

#[test]
fn a_node_with_listed_addresses_is_not_checked() {
    let (mut book, now) = (AddressBook::default(), Instant::now());
    book.record_answer(&listing_without_addresses(1), now);
    book.record_lookup(&node(0), &found(1, 0), now);
    let now = now + SECOND;
    let listed = Endpoint::new(node(0)).with_addresses([IpAddr::from([10, 0, 0, 9])]);
    book.record_answer(&Membership::new([listed]), now);
    assert_eq!(book.checks_due(now), []);
    assert_eq!(book.record_lookup(&node(0), &found(2, 5), now), None, "the listing goes first");
    book.record_answer(&Membership::default(), now);
    assert_eq!(book.checks_due(now + SECOND), [], "nor one that is not listed");
}

#[test]
fn addresses_without_a_ttl_are_checked_at_the_next_answer() {
    let (mut book, now) = (AddressBook::default(), Instant::now());
    book.record_answer(&listing_without_addresses(1), now);
    book.record_lookup(&node(0), &Ok(HostAddresses::new([IpAddr::from([10, 0, 0, 1])])), now);
    let much_later = now + 3600 * SECOND;
    assert!(!book.needs_lookup(&node(0), much_later));
    book.record_answer(&listing_without_addresses(1), much_later);
    assert_eq!(book.checks_due(much_later), [node(0)]);
}

/// docs/discovery.md, row 61: what shows that a node may have moved leaves every address in doubt, until an answer or a
/// lookup confirms it.
#[test]
fn an_address_dialed_after_a_loss_is_unverified_until_an_answer_or_a_lookup_confirms_it() {
    let at_1 = Endpoint::new(node(0)).with_addresses([IpAddr::from([10, 0, 0, 1])]);
    let listing = Membership::new([at_1]).with_ttl(5 * SECOND);
    for has_glue in [true, false] {
        let (mut book, now) = (AddressBook::default(), Instant::now());
        let is_verified = |book: &AddressBook, now| book.best_known(&node(0), now).unwrap().is_verified;
        if has_glue {
            book.record_answer(&listing, now);
        } else {
            book.record_answer(&listing_without_addresses(1), now);
            book.record_lookup(&node(0), &found(1, 5), now);
        }
        assert!(is_verified(&book, now));
        book.record_loss(&node(0));
        assert!(!is_verified(&book, now));
        let dialed = book.best_known(&node(0), now).unwrap();
        book.record_dial(&node(0), &dialed);
        // The answer that comes next does not list the node.
        let later = now + SECOND;
        book.record_answer(&Membership::default(), later);
        assert_eq!(book.checks_due(later), [node(0)]);
        if has_glue {
            book.record_answer(&listing, later);
        } else {
            book.record_lookup(&node(0), &found(1, 5), later);
        }
        assert!(is_verified(&book, later) && book.checks_due(later + SECOND).is_empty());
    }
}
