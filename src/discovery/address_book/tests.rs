mod model;

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
        assert!(!book.start_dial(&node(n), now).unwrap().is_verified);
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
        assert!(!book.start_dial(&node(0), now).unwrap().is_verified);
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

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn listing_at(last: u8, ttl: u64) -> Membership {
    Membership::new([Endpoint::new(node(0)).with_addresses([ip(last)])]).with_ttl(Duration::from_secs(ttl))
}

/// The old connection outlives the lookup that finds the node elsewhere, because the new address is not up yet.
#[test]
fn an_address_that_a_lookup_has_contradicted_is_not_confirmed() {
    let (mut book, now) = (AddressBook::default(), Instant::now());
    book.record_answer(&listing_without_addresses(1), now);
    book.record_lookup(&node(0), &found(1, 5), now);
    book.record_lookup(&node(0), &found(2, 5), now + SECOND);
    book.confirm(&node(0), ip(1), now + SECOND);
    book.record_loss(&node(0));
    book.record_lookup(&node(0), &Err(DiscoveryError::Timeout), now + 2 * SECOND);
    assert_eq!(book.best_known(&node(0), now + 3 * SECOND).unwrap().ips, [ip(2)]);
}

/// The listing is still valid, but no poll succeeds after the loss.
#[test]
fn a_lookup_after_a_loss_is_believed_rather_than_the_listing() {
    let (mut book, now) = (AddressBook::default(), Instant::now());
    book.record_answer(&listing_at(1, 300), now);
    book.record_loss(&node(0));
    assert_eq!(book.start_dial(&node(0), now), Ok(Candidates { ips: vec![ip(1)], is_verified: false }));
    assert_eq!(book.unverified(now), [node(0)]);
    assert_eq!(book.record_lookup(&node(0), &found(2, 5), now), Some([ip(2)].into_iter().collect()));
    assert_eq!(book.best_known(&node(0), now), Ok(Candidates { ips: vec![ip(2)], is_verified: true }));
    book.record_answer(&listing_at(1, 300), now + SECOND);
    assert_eq!(book.best_known(&node(0), now + SECOND).unwrap().ips, [ip(1)], "the last answer decides");
}

#[test]
fn what_a_lookup_found_is_over_when_an_answer_lists_other_addresses() {
    let (mut book, now) = (AddressBook::default(), Instant::now());
    book.record_answer(&listing_without_addresses(1), now);
    book.record_lookup(&node(0), &found(1, 300), now);
    book.record_answer(&listing_at(2, 5), now);
    let later = now + 6 * SECOND;
    assert!(book.needs_lookup(&node(0), later));
    assert_eq!(book.best_known(&node(0), later), Ok(Candidates { ips: vec![ip(2)], is_verified: false }));
}

#[test]
fn nodes_whose_lookups_fail_do_not_keep_others_from_their_check() {
    let (mut book, mut now) = (AddressBook::default(), Instant::now());
    book.record_answer(&listing_without_addresses(30), now);
    for n in 0..30 {
        book.record_lookup(&node(n), &found(1, 0), now);
        book.record_loss(&node(n));
        assert!(!book.start_dial(&node(n), now + SECOND).unwrap().is_verified);
    }
    let mut checked: Vec<NodeId> = Vec::new();
    for _ in 0..3 {
        now += 5 * SECOND;
        for id in book.unverified(now).into_iter().take(10) {
            book.record_lookup(&id, &Err(DiscoveryError::Timeout), now);
            checked.push(id);
        }
    }
    checked.sort_unstable();
    checked.dedup();
    assert_eq!(checked.len(), 30);
}

/// A list that changes at every poll, every 10 ms.
#[test]
fn a_host_that_does_not_exist_is_not_looked_up_whenever_it_is_listed_again() {
    let (mut book, now) = (AddressBook::default(), Instant::now());
    book.record_answer(&listing_without_addresses(1), now);
    book.record_lookup(&node(0), &Err(DiscoveryError::no_such_host("mc-0", Some(15 * SECOND))), now);
    book.record_answer(&Membership::default(), now);
    book.record_answer(&listing_without_addresses(1), now);
    assert!(!book.needs_lookup(&node(0), now + Duration::from_millis(999)));
    assert!(book.needs_lookup(&node(0), now + SECOND), "before its negative TTL is over");
}

/// The pod is gone: no answer lists it anew, and another may have got its address.
#[test]
fn a_listing_in_doubt_is_not_dialed_if_the_host_does_not_exist() {
    let no_such_host = || Err(DiscoveryError::no_such_host("mc-0", None));
    let (mut book, now) = (AddressBook::default(), Instant::now());
    book.record_answer(&listing_at(1, 300), now);
    book.record_loss(&node(0));
    assert!(!book.start_dial(&node(0), now).unwrap().is_verified);
    assert_eq!(book.record_lookup(&node(0), &no_such_host(), now), Some(ListedAddresses::NoSuchHost));
    assert!(book.best_known(&node(0), now).unwrap_err().is_no_such_host());
    assert!(book.needs_lookup(&node(0), now + SECOND), "it may be back");
    book.record_answer(&listing_at(1, 300), now + SECOND);
    assert_eq!(book.best_known(&node(0), now + SECOND), Ok(Candidates { ips: vec![ip(1)], is_verified: true }));
}

/// No other answer would take the doubt away, and the names need not exist elsewhere.
#[test]
fn addresses_that_are_listed_for_good_are_not_in_doubt_after_a_loss() {
    let (mut book, now) = (AddressBook::default(), Instant::now());
    book.record_answer(&listing_at(1, 5).with_ttl(Duration::MAX), now);
    book.record_loss(&node(0));
    assert!(book.start_dial(&node(0), now + 3600 * SECOND).unwrap().is_verified);
    assert_eq!(book.unverified(now + 3600 * SECOND), []);
}

#[test]
fn listed_addresses_where_a_dial_has_failed_are_believed_again_after_a_reply() {
    let (mut book, now) = (AddressBook::default(), Instant::now());
    let listing = listing_at(1, 300);
    book.record_answer(&listing, now);
    book.record_failed_dial(&node(0), &[ip(1)]);
    book.record_answer(&listing, now);
    assert!(book.without_failed(listing.clone()).endpoints()[0].addresses().is_empty());
    assert!(book.needs_lookup(&node(0), now));
    book.confirm(&node(0), ip(1), now);
    assert_eq!(book.without_failed(listing.clone()), listing);
    assert!(!book.needs_lookup(&node(0), now));
}
