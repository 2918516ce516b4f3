//! The lookups with a scripted source, in paused time.

use std::net::IpAddr;
use std::sync::Mutex;

use futures_util::future::join_all;
use tokio::time::{advance, sleep};

use super::*;
use crate::discovery::{Discovery, Endpoint, Membership};

/// A source that resolves hosts by a script, then does not answer.
#[derive(Debug, Default)]
pub(in crate::discovery) struct ScriptedHosts {
    script: Mutex<VecDeque<(Duration, Result<HostAddresses, DiscoveryError>)>>,
    asked: Mutex<Vec<String>>,
}

impl ScriptedHosts {
    /// Scripts the last bytes of the addresses that the next lookup finds, with a TTL of 5 s.
    pub(in crate::discovery) fn finds(&self, ips: &[u8]) {
        self.finds_after(Duration::ZERO, ips);
    }

    pub(in crate::discovery) fn finds_after(&self, delay: Duration, ips: &[u8]) {
        let found = HostAddresses::new(ips.iter().map(|last| IpAddr::from([10, 0, 0, *last])));
        self.script.lock().unwrap().push_back((delay, Ok(found.with_ttl(Duration::from_secs(5)))));
    }

    pub(in crate::discovery) fn fails(&self, error: DiscoveryError) {
        self.script.lock().unwrap().push_back((Duration::ZERO, Err(error)));
    }

    pub(in crate::discovery) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    pub(in crate::discovery) fn lookups(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Discovery for ScriptedHosts {
    async fn discover(&self) -> Result<Membership, DiscoveryError> {
        std::future::pending().await
    }

    async fn resolve(&self, host: &str) -> Result<HostAddresses, DiscoveryError> {
        self.asked.lock().unwrap().push(host.to_owned());
        let next = self.script.lock().unwrap().pop_front();
        let Some((delay, outcome)) = next else { return std::future::pending().await };
        sleep(delay).await;
        match outcome {
            Err(DiscoveryError::Config(text)) if text == "panic" => panic!("as scripted"),
            outcome => outcome,
        }
    }
}

const LIMIT: Duration = Duration::from_secs(5);

/// Lookups of nodes that the last answer lists without addresses.
fn lookups(nodes: &[&str]) -> (Arc<ScriptedHosts>, SharedAddressBook, Lookups, LookupRequests) {
    let (hosts, book) = (Arc::<ScriptedHosts>::default(), SharedAddressBook::default());
    book.lock().record_answer(&listing(nodes), Instant::now());
    let (lookups, requests) = Lookups::new(Arc::<ScriptedHosts>::clone(&hosts), LIMIT, book.clone());
    (hosts, book, lookups, requests)
}

fn listing(nodes: &[&str]) -> Membership {
    Membership::new(nodes.iter().map(|host| Endpoint::new(node(host))))
}

fn node(host: &str) -> NodeId {
    NodeId::new(host, 11211).unwrap()
}

fn at(last: u8) -> ListedAddresses {
    [IpAddr::from([10, 0, 0, last])].into_iter().collect()
}

/// docs/discovery.md, row 62: the connections of a node, and dials that come later, share a lookup.
#[tokio::test(start_paused = true)]
async fn all_that_wait_for_a_host_share_its_lookup() {
    let (hosts, _book, mut lookups, requests) = lookups(&["a", "b"]);
    hosts.finds_after(Duration::from_secs(1), &[1]);
    hosts.finds_after(Duration::from_secs(1), &[2]);
    let (a, b) = (node("a"), node("b"));
    let waiting = join_all((0..20).map(|n| requests.look_up(if n < 10 { &a } else { &b })));
    let mut found = Vec::new();
    tokio::select! {
        _ = waiting => {}
        () = async { loop { found.push(lookups.next().await) } } => {}
    }
    assert_eq!(found, [(a, Some(at(1))), (b, Some(at(2)))]);
    assert_eq!(hosts.asked(), ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_bounded_number_of_hosts_is_looked_up_at_a_time() {
    let names: Vec<_> = (0..100).map(|n| format!("mc-{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (hosts, book, mut lookups, requests) = lookups(&names);
    // None of them is answered.
    let nodes: Vec<_> = names.iter().map(|host| node(host)).collect();
    let waiting = tokio::spawn(async move { join_all(nodes.iter().map(|id| requests.look_up(id))).await });
    let start = Instant::now();
    for ended in 1..=100 {
        let (id, found) = lookups.next().await;
        assert_eq!((found, book.lock().best_known(&id, start)), (None, Err(DiscoveryError::Timeout)));
        assert!(hosts.lookups() <= (MOST_IN_FLIGHT + ended).min(100));
    }
    assert_eq!((start.elapsed(), hosts.lookups()), (2 * LIMIT, 100));
    waiting.await.unwrap();
}

/// docs/discovery.md, row 61: the node was dialed where it was before, and another pod may have got that address.
#[tokio::test(start_paused = true)]
async fn a_node_dialed_where_it_was_before_is_checked_until_a_lookup_succeeds() {
    let (hosts, book, mut lookups, requests) = lookups(&["a"]);
    let id = node("a");
    let dial = async |book: &SharedAddressBook| {
        requests.look_up(&id).await;
        book.lock().start_dial(&id, Instant::now())
    };
    hosts.finds(&[1]);
    let (_, outcome) = tokio::join!(lookups.next(), dial(&book));
    assert!(outcome.unwrap().is_verified);

    // Lookups fail, and the connection is lost.
    advance(Duration::from_secs(6)).await;
    book.lock().record_loss(&id);
    hosts.fails(DiscoveryError::ServerFailure("SERVFAIL".into()));
    let (_, outcome) = tokio::join!(lookups.next(), dial(&book));
    assert!(!outcome.unwrap().is_verified);

    // An answer comes, and the lookup still fails. No other answer comes, but lookups succeed again.
    advance(Duration::from_secs(1)).await;
    book.lock().record_answer(&listing(&["a"]), Instant::now());
    hosts.fails(DiscoveryError::Timeout);
    lookups.check_nodes();
    assert_eq!(lookups.next().await, (id.clone(), None));
    hosts.finds(&[2]);
    assert_eq!(lookups.next().await, (id.clone(), Some(at(2))));
    assert_eq!(hosts.lookups(), 4);
    assert!(timeout(Duration::from_secs(60), lookups.next()).await.is_err(), "it is checked no more");
}

/// docs/discovery.md, row 61: there is nothing at the old address that is the node's.
#[tokio::test(start_paused = true)]
async fn a_node_dialed_where_it_was_before_is_left_if_its_host_does_not_exist() {
    for is_unverified in [true, false] {
        let (hosts, book, mut lookups, requests) = lookups(&["a"]);
        let id = node("a");
        hosts.finds(&[1]);
        let _ = tokio::join!(lookups.next(), requests.look_up(&id));
        advance(Duration::from_secs(6)).await;
        if is_unverified {
            assert!(!book.lock().start_dial(&id, Instant::now()).unwrap().is_verified);
        }
        book.lock().record_answer(&listing(&["a"]), Instant::now());
        hosts.fails(DiscoveryError::no_such_host("a", None));
        lookups.check_nodes();
        let left = is_unverified.then_some(ListedAddresses::NoSuchHost);
        assert_eq!(lookups.next().await, (id, left), "a verified connection is still the node's");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_end_when_discovery_has_ended() {
    let (_hosts, _book, lookups, requests) = lookups(&["a"]);
    let id = node("a");
    let (request, ()) = tokio::join!(timeout(LIMIT, requests.look_up(&id)), async { drop(lookups) });
    assert!(request.is_ok());
    requests.look_up(&id).await;
}
