//! The refresh task with a scripted source, in paused time.

mod changes;

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;
use tokio::time::{advance, sleep};

use super::*;
use crate::discovery::{DiscoveryStatus, EmptyPolicy, Endpoint, StaticNodes};
use crate::node_id::NodeId;

type Answer = Result<Membership, DiscoveryError>;

/// What the source does when polled.
#[derive(Debug, Clone)]
enum Act {
    Answer(Answer),
    /// Answers after this time.
    Slow(Duration, Answer),
    Hang,
    Panic,
}

/// Follows a script, repeats its last line, and records when it was polled.
#[derive(Debug)]
struct Scripted {
    script: Mutex<VecDeque<Act>>,
    asked: Mutex<Vec<Instant>>,
    /// Set while a poll is in flight.
    busy: AtomicBool,
}

struct Busy<'a>(&'a AtomicBool);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Discovery for Scripted {
    async fn discover(&self) -> Answer {
        let act = {
            let mut script = self.script.lock().unwrap();
            self.asked.lock().unwrap().push(Instant::now());
            if script.len() > 1 { script.pop_front() } else { script.front().cloned() }
        };
        assert!(!self.busy.swap(true, Ordering::SeqCst), "one poll at a time");
        let _busy = Busy(&self.busy);
        match act {
            Some(Act::Answer(answer)) => answer,
            Some(Act::Slow(delay, answer)) => {
                sleep(delay).await;
                answer
            }
            Some(Act::Panic) => panic!("as scripted"),
            Some(Act::Hang) | None => std::future::pending().await,
        }
    }
}

struct Rig {
    source: Arc<Scripted>,
    discovery: DiscoveryHandle,
    startup: Startup,
    task: JoinHandle<()>,
    start: Instant,
}

impl Rig {
    fn new(options: DiscoveryOptions, script: impl IntoIterator<Item = Act>) -> Self {
        let source = Arc::new(Scripted {
            script: Mutex::new(script.into_iter().collect()),
            asked: Mutex::default(),
            busy: AtomicBool::new(false),
        });
        let startup = options.startup.clone();
        let (discovery, body) = start_refresh(Arc::clone(&source), options.seed(7));
        Self { source, discovery, startup, task: tokio::spawn(body), start: Instant::now() }
    }

    async fn wait_for_nodes(&self) -> Result<(), DiscoveryError> {
        self.discovery.wait_for_nodes(&self.startup).await
    }

    fn set_script(&self, act: Act) {
        let mut script = self.source.script.lock().unwrap();
        script.clear();
        script.push_back(act);
    }

    fn polls(&self) -> usize {
        self.source.asked.lock().unwrap().len()
    }

    /// Returns the seconds between consecutive polls.
    fn gaps(&self) -> Vec<f64> {
        let asked = self.source.asked.lock().unwrap();
        asked.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
    }

    fn nodes(&self) -> usize {
        self.discovery.roster.borrow().endpoints.len()
    }

    fn version(&self) -> u64 {
        self.discovery.roster.borrow().version
    }

    fn status(&self) -> DiscoveryStatus {
        self.discovery.status.status()
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn listing(hosts: &[&str]) -> Act {
    let endpoint = |host: &&str| Endpoint::new(NodeId::new(host, 11211).unwrap());
    Act::Answer(Ok(Membership::new(hosts.iter().map(endpoint)).with_ttl(secs(5))))
}

fn nxdomain() -> Act {
    Act::Answer(Err(DiscoveryError::empty(true, None)))
}

fn options() -> DiscoveryOptions {
    DiscoveryOptions::default()
}

/// docs/discovery.md, row 1.
#[tokio::test(start_paused = true)]
async fn three_pods_are_found_at_once() {
    let rig = Rig::new(options(), [listing(&["a", "b", "c"])]);
    assert_eq!(rig.status().state, DiscoveryState::Starting);
    rig.wait_for_nodes().await.unwrap();
    assert_eq!((rig.nodes(), rig.version(), rig.start.elapsed()), (3, 1, Duration::ZERO));
    tokio::task::yield_now().await;
    let status = rig.status();
    assert_eq!((status.state, status.nodes, status.polls, status.errors), (DiscoveryState::Fresh, 3, 1, 0));
    assert!(status.last_error.is_none() && status.last_ok == Some(Duration::ZERO) && status.next_poll > Some(secs(2)));
}

/// docs/discovery.md, row 2: the service exists a little later.
#[tokio::test(start_paused = true)]
async fn start_up_waits_for_the_first_nodes() {
    let rig = Rig::new(options(), [nxdomain(), nxdomain(), nxdomain(), listing(&["a", "b", "c"])]);
    rig.wait_for_nodes().await.unwrap();
    assert!((8.0..9.0).contains(&rig.start.elapsed().as_secs_f64()), "{:?}", rig.start.elapsed());
    assert_eq!((rig.nodes(), rig.version(), rig.status().errors), (3, 1, 3));
}

/// docs/discovery.md, row 3: the error is that of the last poll.
#[tokio::test(start_paused = true)]
async fn start_up_fails_if_the_service_never_exists() {
    let rig = Rig::new(options(), [nxdomain()]);
    let error = rig.wait_for_nodes().await.unwrap_err();
    assert!(error.is_empty(), "{error}");
    assert_eq!(rig.start.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn start_up_fails_at_once_if_the_source_is_misconfigured() {
    let wrong = DiscoveryError::Config("no such file".into());
    let rig = Rig::new(options(), [Act::Answer(Err(wrong.clone()))]);
    assert_eq!(rig.wait_for_nodes().await, Err(wrong));
    assert_eq!(rig.start.elapsed(), Duration::ZERO);
}

/// docs/discovery.md, rows 4 and 17: the client is ready although DNS does not answer. Polls end in time, and back off.
#[tokio::test(start_paused = true)]
async fn start_empty_does_not_wait_for_nodes() {
    let rig = Rig::new(options().startup(Startup::StartEmpty), [Act::Hang]);
    rig.wait_for_nodes().await.unwrap();
    assert_eq!((rig.nodes(), rig.version()), (0, 0));
    sleep(secs(300)).await;
    // Each poll takes its five seconds, and then the backoff.
    let gaps = rig.gaps();
    for (gap, backoff) in gaps.iter().zip([1.0_f64, 1.6, 2.56, 4.1, 6.55, 10.5, 15.0]) {
        let least = if backoff < 15.0 { backoff * 0.79 } else { 12.0 };
        assert!((5.0 + least..=5.01 + (backoff * 1.21).min(15.0)).contains(gap), "{gaps:?}");
    }
    assert!(gaps.iter().all(|gap| (6.0..=20.01).contains(gap)), "{gaps:?}");
    assert_eq!(rig.status().last_error, Some(DiscoveryError::Timeout));
}

/// docs/discovery.md, row 5: the answer replaces the list in one step.
#[tokio::test(start_paused = true)]
async fn a_bootstrap_list_is_used_until_the_first_answer() {
    let bootstrap = vec![Endpoint::new("x:11211".parse().unwrap()).with_addresses(["10.0.0.1".parse().unwrap()])];
    let rig = Rig::new(options().startup(Startup::Bootstrap(bootstrap)), [Act::Hang, listing(&["a", "b"])]);
    rig.wait_for_nodes().await.unwrap();
    assert_eq!((rig.nodes(), rig.version()), (1, 1));
    let x = "x:11211".parse().unwrap();
    assert_eq!(rig.discovery.locator.lookup(&x).await.unwrap(), ["10.0.0.1:11211".parse().unwrap()]);
    sleep(secs(8)).await;
    assert_eq!((rig.nodes(), rig.version()), (2, 2));
}

/// docs/discovery.md, rows 6 and 24.
#[tokio::test(start_paused = true)]
async fn the_same_answer_publishes_nothing() {
    let rig = Rig::new(options(), [listing(&["a", "b", "c"]), listing(&["c", "b", "a"])]);
    rig.wait_for_nodes().await.unwrap();
    let mut roster = rig.discovery.roster.clone();
    roster.mark_unchanged();
    sleep(secs(120)).await;
    assert!(!roster.has_changed().unwrap());
    assert!(rig.polls() > 20);
}

/// docs/discovery.md, rows 7 and 8.
#[tokio::test(start_paused = true)]
async fn nodes_join_at_the_next_poll_and_leave_when_their_grace_ends() {
    let rig = Rig::new(options(), [listing(&["a", "b"]), listing(&["a", "b", "c"]), listing(&["a", "b"])]);
    rig.wait_for_nodes().await.unwrap();
    sleep(secs(6)).await;
    assert_eq!((rig.nodes(), rig.version()), (3, 2));
    let c = "c:11211".parse().unwrap();
    rig.discovery.locator.confirm(&c, "10.0.0.3".parse().unwrap());
    sleep(secs(20)).await;
    assert_eq!((rig.nodes(), rig.status().vanished), (3, 1));
    let mut roster = rig.discovery.roster.clone();
    roster.mark_unchanged();
    roster.changed().await.unwrap();
    assert_eq!((rig.nodes(), rig.version()), (2, 3));
    assert!(!rig.discovery.locator.knows(&c), "its address is forgotten");
    let vanished_at = rig.source.asked.lock().unwrap()[2];
    assert_eq!(vanished_at.elapsed().as_secs(), 120, "not only at the next poll");
}

/// docs/discovery.md, rows 9 and 11: without a lookup. A pod that comes back elsewhere is the same node.
#[tokio::test(start_paused = true)]
async fn a_node_is_dialed_where_it_was_listed_last() {
    let at = |ip: Option<&str>| {
        let steady = Endpoint::new("a:11211".parse().unwrap());
        let restarted = ip.map(|ip| Endpoint::new("b:11211".parse().unwrap()).with_addresses([ip.parse().unwrap()]));
        Act::Answer(Ok(Membership::new([steady].into_iter().chain(restarted)).with_ttl(secs(60))))
    };
    let rig = Rig::new(options(), [at(Some("10.0.0.1")), at(None), at(None), at(Some("10.0.0.2"))]);
    rig.wait_for_nodes().await.unwrap();
    let b = "b:11211".parse().unwrap();
    assert_eq!(rig.discovery.locator.lookup(&b).await.unwrap(), ["10.0.0.1:11211".parse().unwrap()]);
    let mut roster = rig.discovery.roster.clone();
    roster.mark_unchanged();
    roster.changed().await.unwrap();
    assert_eq!(rig.polls(), 4);
    assert_eq!((rig.version(), roster.borrow().addr_epoch), (1, 1));
    assert_eq!(rig.discovery.locator.lookup(&b).await.unwrap(), ["10.0.0.2:11211".parse().unwrap()]);
}

/// docs/discovery.md, rows 13 and 16: NXDOMAIN and errors alike, and each is counted.
#[tokio::test(start_paused = true)]
async fn dns_outages_keep_the_nodes() {
    let rig = Rig::new(options(), [listing(&["a", "b", "c"])]);
    rig.wait_for_nodes().await.unwrap();
    let failure = DiscoveryError::ServerFailure("SERVFAIL".into());
    for (act, state) in [(nxdomain(), DiscoveryState::EmptyHeld), (Act::Answer(Err(failure)), DiscoveryState::Stale)] {
        let before = rig.status().errors;
        rig.set_script(act);
        sleep(secs(600)).await;
        let status = rig.status();
        assert_eq!((rig.nodes(), rig.version(), status.state), (3, 1, state));
        assert!(status.errors > before + 30 && status.last_ok > Some(secs(590)));
    }
    rig.set_script(listing(&["a", "b", "c"]));
    sleep(secs(20)).await;
    assert_eq!((rig.version(), rig.status().state), (1, DiscoveryState::Fresh));
}

/// docs/discovery.md, row 14.
#[tokio::test(start_paused = true)]
async fn a_clearing_policy_drops_the_nodes_once() {
    let rig = Rig::new(options().empty(EmptyPolicy::ClearAfter(secs(60))), [listing(&["a", "b", "c"]), nxdomain()]);
    rig.wait_for_nodes().await.unwrap();
    sleep(secs(59)).await;
    assert_eq!(rig.nodes(), 3);
    sleep(secs(8)).await;
    assert_eq!((rig.nodes(), rig.version(), rig.status().state), (0, 2, DiscoveryState::Empty));
    sleep(secs(600)).await;
    assert_eq!(rig.version(), 2);
}

/// docs/discovery.md, row 25: whatever the answers, and however many requests there are.
#[tokio::test(start_paused = true)]
async fn polls_are_at_least_a_second_apart() {
    let failure = || Act::Answer(Err(DiscoveryError::Truncated));
    let acts = || [listing(&["a"]), failure(), nxdomain(), listing(&["b", "c"]), listing(&["a", "b"])];
    let rig = Rig::new(options(), (0..40).flat_map(|_| acts()));
    for _ in 0..20_000 {
        rig.discovery.locator.request_poll();
        sleep(Duration::from_millis(11)).await;
    }
    let gaps = rig.gaps();
    assert!(gaps.len() > 50 && gaps.iter().all(|gap| *gap >= 1.0), "{gaps:?}");
}

/// docs/discovery.md, rows 26 and 27: and one more poll when its answer expires.
#[tokio::test(start_paused = true)]
async fn a_burst_of_poll_requests_causes_one_poll() {
    let rig = Rig::new(options().poll_interval(secs(60), secs(60)), [listing(&["a", "b", "c"])]);
    rig.wait_for_nodes().await.unwrap();
    sleep(secs(10)).await;
    assert_eq!(rig.polls(), 1);
    for _ in 0..500 {
        rig.discovery.locator.request_poll();
        sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(rig.polls(), 2);
    sleep(secs(3)).await;
    assert_eq!(rig.polls(), 2);
    sleep(secs(2)).await;
    assert_eq!(rig.polls(), 3, "at the end of the TTL");
    sleep(secs(50)).await;
    assert_eq!(rig.polls(), 3, "and no more after that");
}

/// docs/discovery.md, row 26: its answer may be older than what the node has seen.
#[tokio::test(start_paused = true)]
async fn a_request_during_a_poll_causes_another_one() {
    let Act::Answer(answer) = listing(&["a"]) else { unreachable!() };
    let slow = Act::Slow(secs(3), answer);
    let rig = Rig::new(options().poll_interval(secs(60), secs(60)), [listing(&["a"]), slow, listing(&["a"])]);
    rig.wait_for_nodes().await.unwrap();
    sleep(secs(10)).await;
    rig.discovery.locator.request_poll();
    sleep(secs(2)).await;
    assert_eq!(rig.polls(), 2);
    rig.discovery.locator.request_poll();
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(rig.polls(), 2, "the second poll has just ended");
    sleep(secs(6)).await;
    assert_eq!(rig.polls(), 3);
}

/// docs/discovery.md, row 26: requests do not start another poll beside a slow one.
#[tokio::test(start_paused = true)]
async fn only_one_poll_is_in_flight() {
    let rig = Rig::new(options(), [listing(&["a"]), Act::Hang]);
    rig.wait_for_nodes().await.unwrap();
    for _ in 0..1000 {
        rig.discovery.locator.request_poll();
        sleep(Duration::from_millis(50)).await;
    }
    assert!(rig.polls() > 3);
    assert_eq!(rig.nodes(), 1);
}

/// docs/discovery.md, row 43: also during a poll.
#[tokio::test(start_paused = true)]
async fn the_roster_closes_when_the_task_is_dropped() {
    let rig = Rig::new(options(), [listing(&["a"]), Act::Hang]);
    rig.wait_for_nodes().await.unwrap();
    sleep(secs(6)).await;
    assert!(rig.source.busy.load(Ordering::SeqCst));
    rig.task.abort();
    let mut roster = rig.discovery.roster.clone();
    roster.mark_unchanged();
    assert!(roster.changed().await.is_err());
    assert!(!rig.source.busy.load(Ordering::SeqCst), "the poll was dropped");
    assert_eq!(roster.borrow().endpoints.len(), 1, "the last roster can still be read");

    let rig = Rig::new(options(), [Act::Hang]);
    rig.task.abort();
    assert_eq!(rig.wait_for_nodes().await, Err(DiscoveryError::Timeout));
    assert_eq!(rig.start.elapsed(), Duration::ZERO);
}

/// docs/discovery.md, row 44: the source is polled again, and the nodes are kept.
#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failed_poll() {
    let rig = Rig::new(options(), [listing(&["a"]), Act::Panic, Act::Panic, listing(&["a", "b"])]);
    rig.wait_for_nodes().await.unwrap();
    while rig.polls() < 2 {
        sleep(Duration::from_millis(10)).await;
    }
    assert!(matches!(rig.status().last_error, Some(DiscoveryError::Transport(_))));
    assert_eq!((rig.nodes(), rig.status().state), (1, DiscoveryState::Stale));
    sleep(secs(4)).await;
    assert_eq!((rig.nodes(), rig.status().errors), (2, 2));
    assert!(!rig.task.is_finished());
}

/// docs/discovery.md, row 44: one poll is late, and missed ones are not made up for.
#[tokio::test(start_paused = true)]
async fn a_stalled_runtime_polls_once_when_it_resumes() {
    let rig = Rig::new(options(), [listing(&["a"])]);
    rig.wait_for_nodes().await.unwrap();
    advance(secs(60)).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.polls(), 2);
    sleep(secs(4)).await;
    assert_eq!(rig.polls(), 2);
}

/// docs/discovery.md, row 45: not even on request.
#[tokio::test(start_paused = true)]
async fn a_fixed_list_is_never_polled_again() {
    let nodes: [NodeId; 2] = ["127.0.0.1:11211".parse().unwrap(), "127.0.0.2:11211".parse().unwrap()];
    let (discovery, body) = start_refresh(Arc::new(StaticNodes::new(nodes.clone())), options());
    let _task = tokio::spawn(body);
    discovery.wait_for_nodes(&Startup::Wait(secs(10))).await.unwrap();
    for _ in 0..100 {
        discovery.locator.request_poll();
        sleep(secs(10)).await;
    }
    let status = discovery.status.status();
    assert_eq!((status.state, status.polls, status.next_poll, status.nodes), (DiscoveryState::Static, 1, None, 2));
    assert_eq!(discovery.locator.lookup(&nodes[0]).await.unwrap(), ["127.0.0.1:11211".parse().unwrap()]);
}

/// docs/discovery.md, row 45: it is a mistake, not an empty service.
#[tokio::test(start_paused = true)]
async fn an_empty_fixed_list_is_a_configuration_error() {
    let (discovery, body) = start_refresh(Arc::new(StaticNodes::new(Vec::<NodeId>::new())), options());
    let _task = tokio::spawn(body);
    assert!(matches!(discovery.wait_for_nodes(&Startup::Wait(secs(10))).await, Err(DiscoveryError::Config(_))));
}
