//! A node by any sequence of answers, lookups, dials and losses, against the last report of where it is.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::discovery::DiscoveryOptions;
use crate::discovery::tracker::Tracker;

type Ips = BTreeSet<u8>;

#[derive(Debug, Clone)]
enum Event {
    /// An answer that lists the node, perhaps without addresses.
    Listed(Ips, Option<u64>),
    NotListed,
    Nothing,
    Failed,
    /// A connection of the node is dialed. If a dial waits for a lookup, this is its outcome.
    Dialed {
        connection: usize,
        succeeds: bool,
        lookup: LookupResult,
    },
    Lost {
        connection: usize,
        has_answered: bool,
    },
    /// The lookups that are due end. `true`: those after an answer. `false`: those of the timer.
    Checked(bool, LookupResult),
}

#[derive(Debug, Clone)]
enum LookupResult {
    Found(Ips, Option<u64>),
    NoSuchHost(Option<u64>),
    Fails,
}

fn ips() -> impl Strategy<Value = Ips> {
    proptest::collection::btree_set(1_u8..5, 1..3)
}

fn ttl() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![Just(None), Just(Some(0)), Just(Some(4)), Just(Some(30)), Just(Some(600))]
}

fn lookup() -> impl Strategy<Value = LookupResult> {
    prop_oneof![
        3 => (ips(), ttl()).prop_map(|(ips, ttl)| LookupResult::Found(ips, ttl)),
        1 => ttl().prop_map(LookupResult::NoSuchHost),
        2 => Just(LookupResult::Fails),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (ips(), ttl()).prop_map(|(ips, ttl)| Event::Listed(ips, ttl)),
        3 => ttl().prop_map(|ttl| Event::Listed(Ips::new(), ttl)),
        1 => Just(Event::NotListed),
        1 => Just(Event::Nothing),
        2 => Just(Event::Failed),
        6 => (0_usize..2, any::<bool>(), lookup())
            .prop_map(|(connection, succeeds, lookup)| Event::Dialed { connection, succeeds, lookup }),
        4 => (0_usize..2, any::<bool>())
            .prop_map(|(connection, has_answered)| Event::Lost { connection, has_answered }),
        4 => (any::<bool>(), lookup()).prop_map(|(after_answer, lookup)| Event::Checked(after_answer, lookup)),
    ]
}

#[derive(Debug, Clone, Copy)]
struct Connection {
    peer: u8,
    /// It was dialed where no report placed the node, and there was no report since.
    is_in_doubt: bool,
}

/// A client with a node of two connections, and what was reported to it.
struct Model {
    now: Instant,
    book: AddressBook,
    tracker: Tracker,
    /// Sees the same answers and lookups, and never dials.
    idle: (AddressBook, Tracker),
    orders: ListedAddresses,
    connections: [Option<Connection>; 2],
    /// Where the last lookup says that the node is, or the last answer with addresses, unless a dial has failed at
    /// these. Empty if it does not exist.
    last_word: Ips,
    /// What the last answer lists, and until when.
    listing: (Ips, Option<Instant>),
    /// A connection was lost since. The next lookup replaces what is listed.
    is_listing_in_doubt: bool,
    /// A dial has failed at all that is listed.
    has_listing_failed: bool,
    last_lookup: Option<Instant>,
}

impl Model {
    fn new() -> Self {
        let now = Instant::now();
        let tracker = || Tracker::new(DiscoveryOptions::default().seed(7), now);
        let mut model = Self {
            now,
            book: AddressBook::default(),
            tracker: tracker(),
            idle: (AddressBook::default(), tracker()),
            orders: ListedAddresses::WithoutAddresses,
            connections: [None; 2],
            last_word: Ips::new(),
            listing: (Ips::new(), None),
            is_listing_in_doubt: false,
            has_listing_failed: false,
            last_lookup: None,
        };
        model.apply(&Event::Listed(Ips::new(), None));
        model
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Listed(ips, ttl) => self.answered(Some(ips), *ttl),
            Event::NotListed => self.answered(None, None),
            Event::Nothing => self.observe(&Ok(Membership::default())),
            Event::Failed => self.observe(&Err(DiscoveryError::Timeout)),
            Event::Dialed { connection, succeeds, lookup } => {
                if self.connections[*connection].is_none() {
                    if self.book.needs_lookup(&node(0), self.now) {
                        self.looked_up(lookup);
                    }
                    self.dial(*connection, *succeeds);
                }
            }
            Event::Lost { connection, has_answered } => {
                if let Some(lost) = self.connections[*connection].take() {
                    if *has_answered {
                        self.has_listing_failed &= !self.listing.0.contains(&lost.peer);
                        self.book.confirm(&node(0), ip(lost.peer), self.now);
                    }
                    self.lose();
                }
            }
            Event::Checked(after_answer, lookup) => {
                let book = &self.book;
                let due = if *after_answer { book.checks_due(self.now) } else { book.unverified(self.now) };
                if due.contains(&node(0)) {
                    self.looked_up(lookup);
                }
            }
        }
    }

    fn answered(&mut self, ips: Option<&Ips>, ttl: Option<u64>) {
        let listed = ips.map(|ips| Endpoint::new(node(0)).with_addresses(ips.iter().copied().map(ip)));
        let answer = Membership::new([Endpoint::new(node(1))].into_iter().chain(listed));
        let seconds = ttl.map(Duration::from_secs);
        self.observe(&Ok(match seconds {
            Some(ttl) => answer.with_ttl(ttl),
            None => answer,
        }));
        let listed = ips.cloned().unwrap_or_default();
        self.has_listing_failed &= listed == self.listing.0;
        self.is_listing_in_doubt &= listed.is_empty();
        self.listing = (listed, seconds.map(|ttl| self.now + ttl));
        if !self.listing.0.is_empty() && !self.has_listing_failed {
            self.reported(self.listing.0.clone());
            // The first addresses that a lookup finds are published with the next change.
            let published = [&self.tracker, &self.idle.1].map(|tracker| self.found_at(tracker));
            if !published.contains(&ListedAddresses::WithoutAddresses) {
                assert_eq!(published[0], published[1], "clients agree on addresses");
            }
        } else {
            self.follow_orders();
        }
    }

    fn observe(&mut self, outcome: &Result<Membership, DiscoveryError>) {
        if let Ok(answer) = outcome {
            self.book.record_answer(answer, self.now);
            self.idle.0.record_answer(answer, self.now);
            if answer.is_empty() {
                self.listing = (Ips::new(), None);
            }
        }
        for (book, tracker) in [(&self.book, &mut self.tracker), (&self.idle.0, &mut self.idle.1)] {
            tracker.observe(self.now, &outcome.clone().map(|answer| book.without_failed(answer)));
        }
        let nodes = |tracker: &Tracker| tracker.roster().endpoints.iter().map(|e| e.id().clone()).collect::<Vec<_>>();
        assert_eq!(nodes(&self.tracker), nodes(&self.idle.1), "clients agree on nodes");
        for (book, tracker) in [(&mut self.book, &self.tracker), (&mut self.idle.0, &self.idle.1)] {
            book.retain(|id| tracker.is_member(id));
        }
        if !self.tracker.is_member(&node(0)) {
            // It has left. If it joins again, that is another node.
            (self.connections, self.last_word, self.last_lookup) = ([None; 2], Ips::new(), None);
            self.orders = ListedAddresses::WithoutAddresses;
        }
    }

    fn looked_up(&mut self, lookup: &LookupResult) {
        let is_spaced = self.last_lookup.is_none_or(|last| self.now >= last + SECOND);
        assert!(is_spaced, "lookups are a second apart");
        self.last_lookup = Some(self.now);
        let ttl = |ttl: &Option<u64>| ttl.map(Duration::from_secs);
        let outcome = match lookup {
            LookupResult::Found(ips, seconds) => {
                let found = HostAddresses::new(ips.iter().copied().map(ip));
                Ok(match ttl(seconds) {
                    Some(ttl) => found.with_ttl(ttl),
                    None => found,
                })
            }
            LookupResult::NoSuchHost(seconds) => Err(DiscoveryError::no_such_host("mc-0", ttl(seconds))),
            LookupResult::Fails => Err(DiscoveryError::Timeout),
        };
        for (book, tracker) in [(&mut self.book, &mut self.tracker), (&mut self.idle.0, &mut self.idle.1)] {
            if let Some(found) = book.record_lookup(&node(0), &outcome, self.now) {
                tracker.observe_lookup(&node(0), &found);
            }
        }
        let found = match lookup {
            LookupResult::Found(ips, _) => ips.clone(),
            LookupResult::NoSuchHost(_) => Ips::new(),
            LookupResult::Fails => return,
        };
        if std::mem::take(&mut self.is_listing_in_doubt) {
            (self.listing, self.has_listing_failed) = ((Ips::new(), None), false);
        }
        self.reported(found);
    }

    /// A report of where the node is: what was in doubt is there now, or closed.
    fn reported(&mut self, ips: Ips) {
        self.last_word = ips;
        let doubtful: Vec<usize> =
            (0..2).filter(|n| self.connections[*n].is_some_and(|connection| connection.is_in_doubt)).collect();
        for connection in self.connections.iter_mut().flatten() {
            connection.is_in_doubt = false;
        }
        self.follow_orders();
        for connection in doubtful {
            if let Some(Connection { peer, .. }) = self.connections[connection] {
                assert!(self.last_word.contains(&peer), "still connected to {peer}");
            }
        }
    }

    /// Does what the node does when its addresses in the roster change.
    fn follow_orders(&mut self) {
        let found = self.found_at(&self.tracker);
        if found == self.orders {
            return;
        }
        self.orders = found;
        for connection in 0..2 {
            let Some(Connection { peer, .. }) = self.connections[connection] else { continue };
            if self.orders == ListedAddresses::NoSuchHost {
                self.connections[connection] = None;
                self.lose();
            } else if self.orders.excludes(ip(peer)) {
                self.dial(connection, true);
            }
        }
    }

    fn lose(&mut self) {
        self.book.record_loss(&node(0));
        self.is_listing_in_doubt = true;
    }

    fn found_at(&self, tracker: &Tracker) -> ListedAddresses {
        let endpoints = &tracker.roster().endpoints;
        let listed = endpoints.iter().find(|endpoint| *endpoint.id() == node(0)).map(Endpoint::listed_addresses);
        match listed.cloned().unwrap_or_default() {
            ListedAddresses::At(mut ips) => {
                ips.sort_unstable();
                ListedAddresses::At(ips)
            }
            other => other,
        }
    }

    fn dial(&mut self, connection: usize, succeeds: bool) {
        let Ok(dialed) = self.book.start_dial(&node(0), self.now) else { return };
        if succeeds {
            let peer = last_byte(dialed.ips[0]);
            self.connections[connection] = Some(Connection { peer, is_in_doubt: !dialed.is_verified });
        } else {
            self.book.record_failed_dial(&node(0), &dialed.ips);
            self.has_listing_failed |= self.listing.0.iter().all(|listed| dialed.ips.contains(&ip(*listed)));
        }
    }

    /// What holds after each event.
    fn check(&self) {
        if let Ok(candidates) = self.book.best_known(&node(0), self.now) {
            let first = last_byte(candidates.ips[0]);
            let (listed, until) = &self.listing;
            let is_listed = listed.contains(&first) && is_valid(*until, self.now);
            assert!(is_listed || self.last_word.contains(&first), "{first} was contradicted");
        }
        if self.connections.iter().flatten().any(|connection| connection.is_in_doubt) {
            assert_eq!(self.book.unverified(self.now + MAX_NEGATIVE_TTL), [node(0)], "the node is checked");
        }
    }
}

fn last_byte(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => panic!("{ip}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// docs/discovery.md, row 61: what was contradicted is not dialed first, what is dialed in doubt is checked,
    /// and left if it was wrong. Lookups are spaced, and clients with the same reports agree.
    #[test]
    fn a_node_is_where_it_was_last_reported_to_be(
        events in proptest::collection::vec((0_u64..2500, event()), 1..40),
    ) {
        let mut model = Model::new();
        for (wait, event) in &events {
            model.now += Duration::from_millis(*wait);
            model.tracker.tick(model.now);
            model.idle.1.tick(model.now);
            model.apply(event);
            model.check();
        }
    }
}
