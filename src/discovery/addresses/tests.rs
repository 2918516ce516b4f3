use std::collections::VecDeque;
use std::net::Ipv4Addr;

use tokio::time::advance;

use super::*;
use crate::discovery::DiscoveryState;

/// Answers `resolve` from a script; then times out for ever.
#[derive(Debug, Default)]
struct Hosts {
    script: Mutex<VecDeque<Result<Vec<IpAddr>, DiscoveryError>>>,
    asked: Mutex<Vec<String>>,
}

impl Discovery for Hosts {
    async fn discover(&self) -> Result<Membership, DiscoveryError> {
        std::future::pending().await
    }

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, DiscoveryError> {
        self.asked.lock().unwrap().push(host.to_owned());
        let next = self.script.lock().unwrap().pop_front();
        match next {
            Some(Err(DiscoveryError::Config(text))) if text == "panic" => panic!("as scripted"),
            Some(outcome) => outcome,
            None => std::future::pending().await,
        }
    }
}

struct Desk {
    hosts: Arc<Hosts>,
    addresses: Addresses,
}

impl Desk {
    fn new() -> Self {
        let hosts = Arc::<Hosts>::default();
        let progress = Progress {
            state: DiscoveryState::Fresh,
            nodes: 0,
            vanished: 0,
            last_ok: None,
            last_error: None,
            polls: 0,
            errors: 0,
            next_poll: None,
        };
        let addresses = Addresses::new(Arc::clone(&hosts), Duration::from_secs(5), progress);
        Self { hosts, addresses }
    }

    fn next(&self, outcome: Result<Vec<IpAddr>, DiscoveryError>) {
        self.hosts.script.lock().unwrap().push_back(outcome);
    }

    fn list(&self, ips: &[u8], ttl: Option<u64>) {
        let endpoint = Endpoint::new(node()).with_addresses(ips.iter().copied().map(ip));
        let listing = Membership::new([endpoint]);
        let listing = match ttl {
            Some(seconds) => listing.with_ttl(Duration::from_secs(seconds)),
            None => listing,
        };
        self.addresses.learn(Instant::now(), &listing);
    }

    /// The last bytes of the addresses to dial.
    async fn dial(&self) -> Result<Vec<u8>, DiscoveryError> {
        let found = self.addresses.lookup(&node()).await?;
        Ok(found
            .into_iter()
            .map(|address| match address {
                SocketAddr::V4(address) if address.port() == 11212 => address.ip().octets()[3],
                other => panic!("{other}"),
            })
            .collect())
    }

    fn looked_up(&self) -> usize {
        self.hosts.asked.lock().unwrap().len()
    }

    /// Whether someone asked for a poll.
    async fn is_nudged(&self) -> bool {
        timeout(Duration::from_millis(1), self.addresses.nudged()).await.is_ok()
    }
}

fn node() -> NodeId {
    NodeId::new("mc-0.memcached", 11212).unwrap()
}

fn ip(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

fn nxdomain<T>() -> Result<T, DiscoveryError> {
    Err(DiscoveryError::empty(true, None))
}

#[tokio::test(start_paused = true)]
async fn a_literal_is_its_own_address() {
    let desk = Desk::new();
    let literal = NodeId::new("::1", 11211).unwrap();
    desk.addresses.confirm(&literal, ip(1));
    assert_eq!(desk.addresses.lookup(&literal).await.unwrap(), ["[::1]:11211".parse().unwrap()]);
    assert_eq!(desk.looked_up(), 0);
}

/// Rows 11 and 34: what the listing says is dialled, in its order, without a look-up; but only while its TTL lasts.
#[tokio::test(start_paused = true)]
async fn listed_addresses_are_good_for_their_ttl() {
    let desk = Desk::new();
    desk.list(&[1, 2], Some(5));
    assert_eq!(desk.dial().await.unwrap(), [1, 2]);
    advance(Duration::from_secs(5)).await;
    desk.next(Ok(vec![ip(3)]));
    assert_eq!(desk.dial().await.unwrap(), [3]);
    assert_eq!(desk.looked_up(), 1);

    desk.list(&[4], None);
    advance(Duration::from_secs(3600)).await;
    assert_eq!(desk.dial().await.unwrap(), [4], "without a TTL they are good until the next listing");
    desk.addresses.learn(Instant::now(), &Membership::default());
    desk.next(Ok(vec![ip(5)]));
    assert_eq!(desk.dial().await.unwrap(), [5]);

    desk.list(&[6], Some(u64::MAX));
    desk.list(&[], Some(5));
    desk.next(Ok(vec![ip(7)]));
    assert_eq!(desk.dial().await.unwrap(), [7], "left out of the next listing, they are too old");
}

/// Row 12: without listed addresses every dial asks.
#[tokio::test(start_paused = true)]
async fn every_dial_looks_up() {
    let desk = Desk::new();
    for last in 1..4 {
        desk.next(Ok(vec![ip(last)]));
        assert_eq!(desk.dial().await.unwrap(), [last]);
    }
    assert_eq!(*desk.hosts.asked.lock().unwrap(), ["mc-0.memcached"; 3]);
}

/// Rows 37 and 41: a host that does not exist is not dialled where it was, for another pod may be there now; and the
/// source is asked to look again. A later failure does not bring the old address back.
#[tokio::test(start_paused = true)]
async fn a_host_that_is_gone_is_not_dialled() {
    for nothing in [nxdomain(), Ok(Vec::new())] {
        let desk = Desk::new();
        desk.list(&[1], Some(1));
        desk.addresses.confirm(&node(), ip(1));
        advance(Duration::from_secs(2)).await;
        desk.next(nothing);
        assert!(desk.dial().await.unwrap_err().is_empty());
        assert!(desk.is_nudged().await);
        desk.next(Err(DiscoveryError::Timeout));
        assert_eq!(desk.dial().await, Err(DiscoveryError::Timeout));
        assert!(!desk.is_nudged().await, "DNS being down is no news about the node");
    }
}

/// Row 42: while DNS is down the last known address is dialled, for five minutes since it was last good.
#[tokio::test(start_paused = true)]
async fn the_last_known_address_bridges_an_outage() {
    let desk = Desk::new();
    desk.next(Ok(vec![ip(1), ip(2)]));
    assert_eq!(desk.dial().await.unwrap(), [1, 2]);
    advance(Duration::from_secs(3600)).await;
    assert_eq!(desk.dial().await, Err(DiscoveryError::Timeout), "an old look-up proves nothing");

    desk.addresses.confirm(&node(), ip(2));
    advance(Duration::from_secs(290)).await;
    desk.next(Err(DiscoveryError::ServerFailure("SERVFAIL".into())));
    assert_eq!(desk.dial().await.unwrap(), [2, 1], "what answered last is tried first");
    advance(Duration::from_secs(20)).await;
    desk.next(Err(DiscoveryError::ServerFailure("SERVFAIL".into())));
    assert_eq!(desk.dial().await, Err(DiscoveryError::ServerFailure("SERVFAIL".into())));

    desk.addresses.confirm(&node(), ip(9));
    desk.next(Err(DiscoveryError::Truncated));
    assert_eq!(desk.dial().await.unwrap(), [9], "an address of which the look-up said nothing replaces what it said");
}

/// Row 17: a look-up ends with its timeout.
#[tokio::test(start_paused = true)]
async fn a_look_up_takes_no_longer_than_its_timeout() {
    let desk = Desk::new();
    let start = Instant::now();
    assert_eq!(desk.dial().await, Err(DiscoveryError::Timeout));
    assert_eq!(start.elapsed().as_secs(), 5);
}

/// Rows 17 and 42: requests wait for the dial, so that an address to fall back on is not withheld for long.
#[tokio::test(start_paused = true)]
async fn a_look_up_with_something_to_fall_back_on_is_cut_short() {
    let desk = Desk::new();
    desk.next(Ok(vec![ip(1)]));
    assert_eq!(desk.dial().await.unwrap(), [1]);
    let start = Instant::now();
    assert_eq!(desk.dial().await.unwrap(), [1]);
    assert_eq!(start.elapsed().as_millis(), 500);
}

/// Row 44: a source that panics is a source that fails.
#[tokio::test(start_paused = true)]
async fn a_panic_is_an_error() {
    let desk = Desk::new();
    desk.next(Err(DiscoveryError::Config("panic".into())));
    assert!(matches!(desk.dial().await, Err(DiscoveryError::Transport(_))));
    desk.next(Ok(vec![ip(1)]));
    assert_eq!(desk.dial().await.unwrap(), [1]);
}

#[tokio::test(start_paused = true)]
async fn what_is_worth_another_dial() {
    let desk = Desk::new();
    let id = node();
    desk.list(&[1], None);
    let mut news = Box::pin(desk.addresses.worth_another_dial(&id));
    assert!(futures_util::poll!(&mut news).is_pending());
    desk.list(&[1], None);
    assert!(futures_util::poll!(&mut news).is_pending(), "listed as before");
    desk.addresses.learn(Instant::now(), &Membership::default());
    assert!(futures_util::poll!(&mut news).is_pending(), "not listed");
    desk.list(&[1], None);
    assert!(futures_util::poll!(&mut news).is_ready(), "listed again");

    let mut news = Box::pin(desk.addresses.worth_another_dial(&id));
    assert!(futures_util::poll!(&mut news).is_pending());
    desk.list(&[], None);
    assert!(futures_util::poll!(&mut news).is_ready(), "listed, to be looked up");
}

#[tokio::test(start_paused = true)]
async fn those_that_left_are_forgotten() {
    let desk = Desk::new();
    desk.list(&[1], None);
    desk.addresses.retain(|id| *id != node());
    assert!(desk.addresses.book().is_empty());
}
