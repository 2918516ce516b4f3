use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Mutex;

use tokio::sync::watch;
use tokio::time::advance;

use super::*;
use crate::discovery::{Endpoint, Membership};

/// A source that resolves hosts by a script, then does not answer.
#[derive(Debug, Default)]
struct ScriptedHosts {
    script: Mutex<VecDeque<Result<HostAddresses, DiscoveryError>>>,
    asked: Mutex<Vec<String>>,
}

impl Discovery for ScriptedHosts {
    async fn discover(&self) -> Result<Membership, DiscoveryError> {
        std::future::pending().await
    }

    async fn resolve(&self, host: &str) -> Result<HostAddresses, DiscoveryError> {
        self.asked.lock().unwrap().push(host.to_owned());
        let next = self.script.lock().unwrap().pop_front();
        match next {
            Some(Err(DiscoveryError::Config(text))) if text == "panic" => panic!("as scripted"),
            Some(outcome) => outcome,
            None => std::future::pending().await,
        }
    }
}

/// A locator of one node, and what it is connected to.
struct Rig {
    hosts: Arc<ScriptedHosts>,
    locator: NodeLocator,
    answers: watch::Sender<Membership>,
}

impl Rig {
    fn new() -> Self {
        let hosts = Arc::<ScriptedHosts>::default();
        let answers = watch::Sender::default();
        let locator = NodeLocator {
            resolver: Arc::<ScriptedHosts>::clone(&hosts),
            lookup_timeout: Duration::from_secs(5),
            book: SharedAddressBook::default(),
            latest_answer: LatestAnswer::new(&answers),
            poll_requests: PollRequests::default(),
        };
        Self { hosts, locator, answers }
    }

    /// Scripts the outcome of the next lookup.
    fn next(&self, outcome: Result<Vec<IpAddr>, DiscoveryError>) {
        self.hosts.script.lock().unwrap().push_back(outcome.map(HostAddresses::new));
    }

    fn list(&self, ips: &[u8], ttl: Option<u64>) {
        let endpoint = Endpoint::new(node()).with_addresses(ips.iter().copied().map(ip));
        let answer = Membership::new([endpoint]);
        self.answer(&match ttl {
            Some(seconds) => answer.with_ttl(Duration::from_secs(seconds)),
            None => answer,
        });
    }

    fn answer(&self, answer: &Membership) {
        self.locator.book.lock().record_answer(answer, Instant::now());
        self.answers.send_replace(answer.clone());
    }

    /// Returns the last bytes of the addresses to dial.
    async fn dial(&self) -> Result<Vec<u8>, DiscoveryError> {
        let found = self.locator.lookup(&node()).await?;
        Ok(found
            .into_iter()
            .map(|address| match address {
                SocketAddr::V4(address) if address.port() == 11212 => address.ip().octets()[3],
                other => panic!("{other}"),
            })
            .collect())
    }

    fn lookups(&self) -> usize {
        self.hosts.asked.lock().unwrap().len()
    }

    async fn has_poll_request(&self) -> bool {
        timeout(Duration::from_millis(1), self.locator.poll_requests.received()).await.is_ok()
    }
}

fn node() -> NodeId {
    NodeId::new("mc-0.memcached", 11212).unwrap()
}

fn ip(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

fn nxdomain<T>() -> Result<T, DiscoveryError> {
    Err(DiscoveryError::no_such_host("mc-0.memcached", None))
}

#[tokio::test(start_paused = true)]
async fn an_ip_literal_is_dialed_without_a_lookup() {
    let rig = Rig::new();
    let literal = NodeId::new("::1", 11211).unwrap();
    rig.locator.confirm(&literal, ip(1));
    assert_eq!(rig.locator.lookup(&literal).await.unwrap(), ["[::1]:11211".parse().unwrap()]);
    assert_eq!(rig.lookups(), 0);
}

/// docs/discovery.md, rows 11 and 34: listed addresses are dialed in their order.
#[tokio::test(start_paused = true)]
async fn listed_addresses_are_dialed_without_a_lookup_until_their_ttl_ends() {
    let rig = Rig::new();
    rig.list(&[1, 2], Some(5));
    assert_eq!(rig.dial().await.unwrap(), [1, 2]);
    advance(Duration::from_secs(5)).await;
    rig.next(Ok(vec![ip(3)]));
    assert_eq!(rig.dial().await.unwrap(), [3]);
    assert_eq!(rig.lookups(), 1);

    rig.list(&[4], None);
    advance(Duration::from_secs(3600)).await;
    assert_eq!(rig.dial().await.unwrap(), [4], "without a TTL they are valid until the next answer");
    rig.answer(&Membership::default());
    rig.next(Ok(vec![ip(5)]));
    assert_eq!(rig.dial().await.unwrap(), [5]);

    rig.list(&[6], Some(u64::MAX));
    rig.list(&[], Some(5));
    rig.next(Ok(vec![ip(7)]));
    assert_eq!(rig.dial().await.unwrap(), [7], "the next answer leaves them out, so they are too old");
}

/// docs/discovery.md, row 12.
#[tokio::test(start_paused = true)]
async fn every_dial_looks_up_a_node_listed_without_addresses() {
    let rig = Rig::new();
    for last in 1..4 {
        rig.next(Ok(vec![ip(last)]));
        assert_eq!(rig.dial().await.unwrap(), [last]);
    }
    assert_eq!(*rig.hosts.asked.lock().unwrap(), ["mc-0.memcached"; 3]);
}

/// docs/discovery.md, rows 37 and 41: its old address may belong to another pod by now. A poll is requested, and a
/// later failure does not bring the old address back.
#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_exist_is_not_dialed() {
    for nothing in [nxdomain(), Ok(Vec::new())] {
        let rig = Rig::new();
        rig.list(&[1], Some(1));
        rig.locator.confirm(&node(), ip(1));
        advance(Duration::from_secs(2)).await;
        rig.next(nothing);
        assert!(rig.dial().await.unwrap_err().is_no_such_host());
        assert!(rig.has_poll_request().await);
        rig.next(Err(DiscoveryError::Timeout));
        assert_eq!(rig.dial().await, Err(DiscoveryError::Timeout));
        assert!(!rig.has_poll_request().await, "a DNS outage is no news about the node");
    }
}

/// docs/discovery.md, row 42: for five minutes after the address was last known to be good.
#[tokio::test(start_paused = true)]
async fn the_last_known_address_is_dialed_while_lookups_fail() {
    let rig = Rig::new();
    rig.next(Ok(vec![ip(1), ip(2)]));
    assert_eq!(rig.dial().await.unwrap(), [1, 2]);
    advance(Duration::from_secs(3600)).await;
    assert_eq!(rig.dial().await, Err(DiscoveryError::Timeout), "an old lookup proves nothing");

    rig.locator.confirm(&node(), ip(2));
    advance(Duration::from_secs(290)).await;
    rig.next(Err(DiscoveryError::ServerFailure("SERVFAIL".into())));
    assert_eq!(rig.dial().await.unwrap(), [2, 1], "the address that answered last is tried first");
    advance(Duration::from_secs(20)).await;
    rig.next(Err(DiscoveryError::ServerFailure("SERVFAIL".into())));
    assert_eq!(rig.dial().await, Err(DiscoveryError::ServerFailure("SERVFAIL".into())));

    rig.locator.confirm(&node(), ip(9));
    rig.next(Err(DiscoveryError::Truncated));
    assert_eq!(rig.dial().await.unwrap(), [9], "an address that the lookup did not list replaces the ones it listed");
}

/// docs/discovery.md, row 17.
#[tokio::test(start_paused = true)]
async fn a_lookup_ends_at_its_timeout() {
    let rig = Rig::new();
    let start = Instant::now();
    assert_eq!(rig.dial().await, Err(DiscoveryError::Timeout));
    assert_eq!(start.elapsed().as_secs(), 5);
}

/// docs/discovery.md, rows 17 and 42: requests wait for the dial.
#[tokio::test(start_paused = true)]
async fn a_lookup_is_cut_short_if_there_is_a_known_address() {
    let rig = Rig::new();
    rig.next(Ok(vec![ip(1)]));
    assert_eq!(rig.dial().await.unwrap(), [1]);
    let start = Instant::now();
    assert_eq!(rig.dial().await.unwrap(), [1]);
    assert_eq!(start.elapsed().as_millis(), 500);
}

/// docs/discovery.md, row 44.
#[tokio::test(start_paused = true)]
async fn a_panic_in_a_lookup_is_an_error() {
    let rig = Rig::new();
    rig.next(Err(DiscoveryError::Config("panic".into())));
    assert!(matches!(rig.dial().await, Err(DiscoveryError::Transport(_))));
    rig.next(Ok(vec![ip(1)]));
    assert_eq!(rig.dial().await.unwrap(), [1]);
}

#[tokio::test(start_paused = true)]
async fn another_dial_is_worthwhile_when_the_node_is_listed_again_or_without_addresses() {
    let rig = Rig::new();
    let id = node();
    rig.list(&[1], None);
    let mut worthwhile = Box::pin(rig.locator.until_worth_redialing(&id));
    assert!(futures_util::poll!(&mut worthwhile).is_pending());
    rig.list(&[1], None);
    assert!(futures_util::poll!(&mut worthwhile).is_pending(), "listed as before");
    rig.answer(&Membership::default());
    assert!(futures_util::poll!(&mut worthwhile).is_pending(), "not listed");
    rig.list(&[1], None);
    assert!(futures_util::poll!(&mut worthwhile).is_ready(), "listed again");

    let mut worthwhile = Box::pin(rig.locator.until_worth_redialing(&id));
    assert!(futures_util::poll!(&mut worthwhile).is_pending());
    rig.list(&[], None);
    assert!(futures_util::poll!(&mut worthwhile).is_ready(), "listed without addresses");
}

#[tokio::test(start_paused = true)]
async fn nodes_that_left_are_forgotten() {
    let rig = Rig::new();
    rig.list(&[1], None);
    rig.locator.book.lock().retain(|id| *id != node());
    assert!(rig.locator.book.lock().is_empty());
}
