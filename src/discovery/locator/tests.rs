//! Where nodes are dialed, with scripted lookups that run as those of the refresh task do, in paused time.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{advance, sleep};

use super::*;
use crate::discovery::lookups::Lookups;
use crate::discovery::lookups::tests::ScriptedHosts;
use crate::discovery::{Endpoint, Membership};

/// A locator of one node, and what it is connected to.
struct Rig {
    hosts: Arc<ScriptedHosts>,
    locator: NodeLocator,
    answers: watch::Sender<Membership>,
    _lookups: JoinHandle<()>,
}

impl Rig {
    fn new() -> Self {
        let hosts = Arc::<ScriptedHosts>::default();
        let answers = watch::Sender::default();
        let book = SharedAddressBook::default();
        let limit = Duration::from_secs(5);
        let (mut lookups, requests) = Lookups::new(Arc::<ScriptedHosts>::clone(&hosts), limit, book.clone());
        let locator = NodeLocator {
            book,
            lookups: requests,
            latest_answer: LatestAnswer::new(&answers),
            poll_requests: PollRequests::default(),
        };
        let lookups = tokio::spawn(async move {
            loop {
                lookups.next().await;
            }
        });
        let rig = Self { hosts, locator, answers, _lookups: lookups };
        rig.list(&[], Some(5));
        rig
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

    fn dial_failed(&self, ips: &[u8]) {
        let tried: Vec<_> = ips.iter().map(|last| SocketAddr::new(ip(*last), 11212)).collect();
        self.locator.report_failed_dial(&node(), &tried);
    }

    async fn has_poll_request(&self) -> bool {
        timeout(Duration::from_millis(1), self.locator.poll_requested()).await.is_ok()
    }
}

fn node() -> NodeId {
    NodeId::new("mc-0.memcached", 11212).unwrap()
}

fn ip(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))
}

#[tokio::test(start_paused = true)]
async fn an_ip_literal_is_dialed_without_a_lookup() {
    let rig = Rig::new();
    let literal = NodeId::new("::1", 11211).unwrap();
    rig.locator.confirm(&literal, ip(1));
    assert_eq!(rig.locator.lookup(&literal).await.unwrap(), ["[::1]:11211".parse().unwrap()]);
    assert_eq!(rig.hosts.lookups(), 0);
}

/// docs/discovery.md, rows 11 and 34: listed addresses are dialed in their order.
#[tokio::test(start_paused = true)]
async fn listed_addresses_are_dialed_without_a_lookup_until_their_ttl_ends() {
    let rig = Rig::new();
    rig.list(&[1, 2], Some(5));
    assert_eq!(rig.dial().await.unwrap(), [1, 2]);
    advance(Duration::from_secs(5)).await;
    rig.hosts.finds(&[3]);
    assert_eq!(rig.dial().await.unwrap(), [3]);
    assert_eq!(rig.hosts.lookups(), 1);

    rig.list(&[4], None);
    advance(Duration::from_secs(3600)).await;
    assert_eq!(rig.dial().await.unwrap(), [4], "without a TTL they are valid until the next answer");
    rig.answer(&Membership::default());
    rig.hosts.finds(&[5]);
    assert_eq!(rig.dial().await.unwrap(), [5]);

    advance(Duration::from_secs(60)).await;
    rig.list(&[6], Some(u64::MAX));
    rig.list(&[], Some(5));
    rig.hosts.finds(&[7]);
    assert_eq!(rig.dial().await.unwrap(), [7], "the next answer leaves them out, so they are too old");
}

/// docs/discovery.md, row 12: the TTL of its address, and what dials and connections show, decide.
#[tokio::test(start_paused = true)]
async fn a_node_listed_without_addresses_is_looked_up_when_its_address_is_in_doubt() {
    let rig = Rig::new();
    rig.hosts.finds(&[1]);
    assert_eq!(rig.dial().await.unwrap(), [1]);
    assert_eq!(rig.dial().await.unwrap(), [1], "within the TTL");
    assert_eq!(rig.hosts.lookups(), 1);

    advance(Duration::from_secs(2)).await;
    rig.locator.report_loss(&node());
    rig.hosts.finds(&[2]);
    assert_eq!(rig.dial().await.unwrap(), [2], "a connection was lost");
    advance(Duration::from_secs(2)).await;
    rig.dial_failed(&[2]);
    rig.hosts.finds(&[3]);
    assert_eq!(rig.dial().await.unwrap(), [3], "a dial has failed");
    advance(Duration::from_secs(5)).await;
    rig.hosts.finds(&[4]);
    assert_eq!(rig.dial().await.unwrap(), [4], "the TTL is over");
    assert_eq!(rig.hosts.asked(), ["mc-0.memcached"; 4]);
}

/// docs/discovery.md, row 70: with the dot of an absolute name, so that no resolver tries its search list.
#[tokio::test(start_paused = true)]
async fn a_host_is_looked_up_as_its_name_was_written() {
    for name in ["mc-0.memcached.", "mc-0.memcached"] {
        let rig = Rig::new();
        rig.hosts.finds(&[1]);
        assert_eq!(rig.locator.lookup(&NodeId::new(name, 11212).unwrap()).await.unwrap().len(), 1);
        assert_eq!(rig.hosts.asked(), [name]);
    }
}

/// docs/discovery.md, row 62: 500 dials within a second cause one lookup.
#[tokio::test(start_paused = true)]
async fn lookups_of_a_host_are_a_second_apart() {
    let rig = Rig::new();
    rig.hosts.finds(&[1]);
    for _ in 0..50 {
        assert_eq!(rig.dial().await.unwrap(), [1]);
        rig.dial_failed(&[1]);
        advance(Duration::from_millis(10)).await;
    }
    assert_eq!(rig.hosts.lookups(), 1);
}

/// docs/discovery.md, row 63: wrong glue, or a dead IPv4 address beside an IPv6 address that lives.
#[tokio::test(start_paused = true)]
async fn a_lookup_is_believed_rather_than_listed_addresses_where_dials_fail() {
    let rig = Rig::new();
    rig.list(&[1], Some(30));
    assert_eq!(rig.dial().await.unwrap(), [1]);
    rig.dial_failed(&[1]);
    rig.hosts.finds(&[2]);
    assert_eq!(rig.dial().await.unwrap(), [2]);

    rig.list(&[1], Some(30));
    assert_eq!(rig.dial().await.unwrap(), [2], "the same addresses are no news");
    rig.list(&[3], Some(30));
    assert_eq!(rig.dial().await.unwrap(), [3], "other addresses are");

    rig.dial_failed(&[3]);
    advance(Duration::from_secs(6)).await;
    rig.hosts.fails(DiscoveryError::Timeout);
    assert_eq!(rig.dial().await.unwrap(), [3], "nothing better is known");
}

/// docs/discovery.md, rows 37 and 41: its old address may belong to another pod by now. A poll is requested, and a
/// later failure does not bring the old address back.
#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_exist_is_not_dialed() {
    for has_addresses in [true, false] {
        let rig = Rig::new();
        rig.list(&[1], Some(1));
        rig.locator.confirm(&node(), ip(1));
        advance(Duration::from_secs(2)).await;
        if has_addresses {
            rig.hosts.fails(DiscoveryError::no_such_host("mc-0.memcached", None));
        } else {
            rig.hosts.finds(&[]);
        }
        assert!(rig.dial().await.unwrap_err().is_no_such_host());
        assert!(rig.has_poll_request().await);
        rig.locator.confirm(&node(), ip(1));
        advance(Duration::from_secs(2)).await;
        rig.hosts.fails(DiscoveryError::Timeout);
        assert_eq!(rig.dial().await, Err(DiscoveryError::Timeout));
        assert!(!rig.has_poll_request().await, "a DNS outage is no news about the node");
    }
}

/// docs/discovery.md, row 62.
#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_exist_is_looked_up_again_after_its_negative_ttl_or_when_it_is_listed_again() {
    let nxdomain = |seconds| DiscoveryError::no_such_host("mc-0.memcached", Some(Duration::from_secs(seconds)));
    let rig = Rig::new();
    rig.hosts.fails(nxdomain(10));
    assert!(rig.dial().await.unwrap_err().is_no_such_host());
    advance(Duration::from_secs(9)).await;
    assert!(rig.dial().await.unwrap_err().is_no_such_host());
    assert_eq!(rig.hosts.lookups(), 1);
    advance(Duration::from_secs(1)).await;
    rig.hosts.fails(nxdomain(3600));
    assert!(rig.dial().await.unwrap_err().is_no_such_host());
    advance(Duration::from_secs(15)).await;
    rig.hosts.fails(nxdomain(3600));
    assert!(rig.dial().await.unwrap_err().is_no_such_host(), "no longer than 15 s");
    assert_eq!(rig.hosts.lookups(), 3);
    assert!(!rig.locator.waits_for_listing(&node()), "it is listed");

    rig.answer(&Membership::default());
    assert!(rig.locator.waits_for_listing(&node()));
    let id = node();
    let mut listed = Box::pin(rig.locator.until_listed(&id));
    assert!(futures_util::poll!(&mut listed).is_pending());
    advance(Duration::from_secs(1)).await;
    rig.list(&[], Some(5));
    assert!(futures_util::poll!(&mut listed).is_ready());
    rig.locator.until_listed(&id).await;
    assert!(!rig.locator.waits_for_listing(&node()));
    rig.hosts.finds(&[1]);
    assert_eq!(rig.dial().await.unwrap(), [1]);
}

/// docs/discovery.md, row 42: for five minutes after the address was last known to be good.
#[tokio::test(start_paused = true)]
async fn the_last_known_address_is_dialed_while_lookups_fail() {
    let servfail = || DiscoveryError::ServerFailure("SERVFAIL".into());
    let rig = Rig::new();
    rig.hosts.finds(&[1, 2]);
    assert_eq!(rig.dial().await.unwrap(), [1, 2]);
    rig.locator.confirm(&node(), ip(2));
    advance(Duration::from_secs(290)).await;
    rig.hosts.fails(servfail());
    assert_eq!(rig.dial().await.unwrap(), [2, 1], "the address that answered last is tried first");
    rig.locator.confirm(&node(), ip(2));
    advance(Duration::from_secs(20)).await;
    rig.hosts.fails(servfail());
    assert_eq!(rig.dial().await, Err(servfail()), "another pod may answer there, so that proves nothing");

    rig.list(&[1], Some(1));
    rig.locator.confirm(&node(), ip(9));
    rig.list(&[], Some(1));
    advance(Duration::from_secs(2)).await;
    rig.hosts.fails(DiscoveryError::Truncated);
    assert_eq!(rig.dial().await.unwrap(), [1], "an answer has contradicted the address that answered");
}

/// docs/discovery.md, row 17.
#[tokio::test(start_paused = true)]
async fn a_lookup_ends_at_its_timeout() {
    let rig = Rig::new();
    let start = Instant::now();
    assert_eq!(rig.dial().await, Err(DiscoveryError::Timeout));
    assert_eq!(start.elapsed().as_secs(), 5);
}

/// docs/discovery.md, rows 17, 42 and 60: requests wait for the dial. What the lookup finds later is used.
#[tokio::test(start_paused = true)]
async fn a_dial_does_not_wait_long_for_a_lookup_if_there_is_a_known_address() {
    let rig = Rig::new();
    rig.hosts.finds(&[1]);
    assert_eq!(rig.dial().await.unwrap(), [1]);
    rig.locator.report_loss(&node());
    advance(Duration::from_secs(2)).await;
    rig.hosts.finds_after(Duration::from_millis(600), &[2]);
    let start = Instant::now();
    assert_eq!(rig.dial().await.unwrap(), [1]);
    assert_eq!(start.elapsed().as_millis(), 500);
    advance(Duration::from_millis(101)).await;
    assert_eq!(rig.dial().await.unwrap(), [2]);
    assert_eq!(rig.hosts.lookups(), 2, "the lookup went on");
}

/// The answer that comes during the wait for a lookup contradicts the address that was known before.
#[tokio::test(start_paused = true)]
async fn a_dial_takes_an_answer_that_comes_while_it_waits_for_a_lookup() {
    let rig = Rig::new();
    rig.hosts.finds(&[1]);
    assert_eq!(rig.dial().await.unwrap(), [1]);
    advance(Duration::from_secs(6)).await;
    let answer = async {
        sleep(Duration::from_millis(100)).await;
        rig.list(&[2], Some(30));
    };
    let (dialed, ()) = tokio::join!(rig.dial(), answer);
    assert_eq!(dialed.unwrap(), [2]);
    assert_eq!(rig.locator.book.lock().unverified(Instant::now()), []);
}

/// docs/discovery.md, row 44.
#[tokio::test(start_paused = true)]
async fn a_panic_in_a_lookup_is_an_error() {
    let rig = Rig::new();
    rig.hosts.fails(DiscoveryError::Config("panic".into()));
    assert!(matches!(rig.dial().await, Err(DiscoveryError::Transport(_))));
    advance(Duration::from_secs(1)).await;
    rig.hosts.finds(&[1]);
    assert_eq!(rig.dial().await.unwrap(), [1]);
}

#[tokio::test(start_paused = true)]
async fn lost_connections_and_failed_dials_request_polls() {
    let rig = Rig::new();
    assert!(!rig.has_poll_request().await);
    rig.locator.report_loss(&node());
    assert!(rig.has_poll_request().await);
    rig.dial_failed(&[1]);
    assert!(rig.has_poll_request().await);
    assert!(!rig.has_poll_request().await);
}

#[tokio::test(start_paused = true)]
async fn another_dial_is_worthwhile_when_the_node_is_listed_again() {
    for ips in [&[1][..], &[]] {
        let rig = Rig::new();
        let id = node();
        rig.list(ips, None);
        let mut listed_again = Box::pin(rig.locator.until_listed_again(&id));
        assert!(futures_util::poll!(&mut listed_again).is_pending());
        rig.list(ips, None);
        assert!(futures_util::poll!(&mut listed_again).is_pending(), "listed as before");
        rig.answer(&Membership::default());
        assert!(futures_util::poll!(&mut listed_again).is_pending(), "not listed");
        rig.list(ips, None);
        assert!(futures_util::poll!(&mut listed_again).is_ready(), "listed again");
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_that_left_are_forgotten() {
    let rig = Rig::new();
    rig.list(&[1], None);
    rig.locator.book.lock().retain(|id| *id != node());
    assert!(rig.locator.book.lock().is_empty());
    rig.locator.confirm(&node(), ip(1));
    rig.locator.report_loss(&node());
    rig.dial_failed(&[1]);
    rig.hosts.finds(&[1]);
    let _ = rig.dial().await;
    assert!(rig.locator.book.lock().is_empty(), "for good");
}
