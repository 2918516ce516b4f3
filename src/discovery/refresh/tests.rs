//! The task against a scripted source, in paused time.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;
use tokio::time::{advance, sleep};

use super::*;
use crate::discovery::{DiscoveryStatus, EmptyPolicy, Endpoint, StaticNodes};
use crate::node_id::NodeId;

type Answer = Result<Membership, DiscoveryError>;

/// What the source does when asked.
#[derive(Debug, Clone)]
enum Act {
    Answer(Answer),
    Hang,
    Panic,
}

/// Follows a script, the last line of which it repeats; notes when it was asked.
#[derive(Debug)]
struct Scripted {
    script: Mutex<VecDeque<Act>>,
    asked: Mutex<Vec<Instant>>,
    /// Set while a look-up is under way.
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
        assert!(!self.busy.swap(true, Ordering::SeqCst), "one look-up at a time");
        let _busy = Busy(&self.busy);
        match act {
            Some(Act::Answer(answer)) => answer,
            Some(Act::Panic) => panic!("as scripted"),
            Some(Act::Hang) | None => std::future::pending().await,
        }
    }
}

struct Rig {
    source: Arc<Scripted>,
    follow: Follow,
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
        let (follow, body) = follow(Arc::clone(&source), options.seed(7));
        Self { source, follow, startup, task: tokio::spawn(body), start: Instant::now() }
    }

    async fn first(&self) -> Result<(), DiscoveryError> {
        self.follow.first(&self.startup).await
    }

    fn then(&self, act: Act) {
        let mut script = self.source.script.lock().unwrap();
        script.clear();
        script.push_back(act);
    }

    fn polls(&self) -> usize {
        self.source.asked.lock().unwrap().len()
    }

    /// Seconds between two polls in a row.
    fn gaps(&self) -> Vec<f64> {
        let asked = self.source.asked.lock().unwrap();
        asked.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect()
    }

    fn nodes(&self) -> usize {
        self.follow.roster.borrow().endpoints.len()
    }

    fn version(&self) -> u64 {
        self.follow.roster.borrow().version
    }

    fn status(&self) -> DiscoveryStatus {
        self.follow.addresses.status()
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

/// Row 1: the first answer is the start.
#[tokio::test(start_paused = true)]
async fn three_pods_are_found_at_once() {
    let rig = Rig::new(options(), [listing(&["a", "b", "c"])]);
    assert_eq!(rig.status().state, DiscoveryState::Starting);
    rig.first().await.unwrap();
    assert_eq!((rig.nodes(), rig.version(), rig.start.elapsed()), (3, 1, Duration::ZERO));
    tokio::task::yield_now().await;
    let status = rig.status();
    assert_eq!((status.state, status.nodes, status.polls, status.errors), (DiscoveryState::Fresh, 3, 1, 0));
    assert!(status.last_error.is_none() && status.last_ok == Some(Duration::ZERO) && status.next_poll > Some(secs(2)));
}

/// Row 2: the service exists a little later.
#[tokio::test(start_paused = true)]
async fn a_cold_start_is_waited_for() {
    let rig = Rig::new(options(), [nxdomain(), nxdomain(), nxdomain(), listing(&["a", "b", "c"])]);
    rig.first().await.unwrap();
    assert!((8.0..9.0).contains(&rig.start.elapsed().as_secs_f64()), "{:?}", rig.start.elapsed());
    assert_eq!((rig.nodes(), rig.version(), rig.status().errors), (3, 1, 3));
}

/// Row 3: the service never exists. What was said last is the reason.
#[tokio::test(start_paused = true)]
async fn a_service_that_never_exists_fails_the_start() {
    let rig = Rig::new(options(), [nxdomain()]);
    let error = rig.first().await.unwrap_err();
    assert!(error.is_empty(), "{error}");
    assert_eq!(rig.start.elapsed().as_secs(), 10);
}

/// A source that is configured wrongly is not waited for.
#[tokio::test(start_paused = true)]
async fn a_wrong_configuration_fails_the_start_at_once() {
    let wrong = DiscoveryError::Config("no such file".into());
    let rig = Rig::new(options(), [Act::Answer(Err(wrong.clone()))]);
    assert_eq!(rig.first().await, Err(wrong));
    assert_eq!(rig.start.elapsed(), Duration::ZERO);
}

/// Rows 4 and 17: the client is ready although DNS does not answer; look-ups end in time, and back off.
#[tokio::test(start_paused = true)]
async fn an_empty_start_waits_for_nothing() {
    let rig = Rig::new(options().startup(Startup::StartEmpty), [Act::Hang]);
    rig.first().await.unwrap();
    assert_eq!((rig.nodes(), rig.version()), (0, 0));
    sleep(secs(300)).await;
    // Each look-up takes its five seconds, and then the backoff.
    let gaps = rig.gaps();
    for (gap, backoff) in gaps.iter().zip([1.0_f64, 1.6, 2.56, 4.1, 6.55, 10.5, 15.0]) {
        let least = if backoff < 15.0 { backoff * 0.79 } else { 12.0 };
        assert!((5.0 + least..=5.01 + (backoff * 1.21).min(15.0)).contains(gap), "{gaps:?}");
    }
    assert!(gaps.iter().all(|gap| (6.0..=20.01).contains(gap)), "{gaps:?}");
    assert_eq!(rig.status().last_error, Some(DiscoveryError::Timeout));
}

/// Row 5: the bootstrap list until the first answer, which replaces it in one step.
#[tokio::test(start_paused = true)]
async fn a_bootstrap_list_is_used_until_the_first_answer() {
    let bootstrap = vec![Endpoint::new("x:11211".parse().unwrap()).with_addresses(["10.0.0.1".parse().unwrap()])];
    let rig = Rig::new(options().startup(Startup::Bootstrap(bootstrap)), [Act::Hang, listing(&["a", "b"])]);
    rig.first().await.unwrap();
    assert_eq!((rig.nodes(), rig.version()), (1, 1));
    let x = "x:11211".parse().unwrap();
    assert_eq!(rig.follow.addresses.lookup(&x).await.unwrap(), ["10.0.0.1:11211".parse().unwrap()]);
    sleep(secs(8)).await;
    assert_eq!((rig.nodes(), rig.version()), (2, 2));
}

/// Rows 6 and 24: only differences are published.
#[tokio::test(start_paused = true)]
async fn the_same_answer_is_no_news() {
    let rig = Rig::new(options(), [listing(&["a", "b", "c"]), listing(&["c", "b", "a"])]);
    rig.first().await.unwrap();
    let mut roster = rig.follow.roster.clone();
    roster.mark_unchanged();
    sleep(secs(120)).await;
    assert!(!roster.has_changed().unwrap());
    assert!(rig.polls() > 20);
}

/// Rows 7 and 8: in at the next poll; out when the grace ends.
#[tokio::test(start_paused = true)]
async fn nodes_come_and_go() {
    let rig = Rig::new(options(), [listing(&["a", "b"]), listing(&["a", "b", "c"]), listing(&["a", "b"])]);
    rig.first().await.unwrap();
    sleep(secs(6)).await;
    assert_eq!((rig.nodes(), rig.version()), (3, 2));
    let c = "c:11211".parse().unwrap();
    rig.follow.addresses.confirm(&c, "10.0.0.3".parse().unwrap());
    sleep(secs(20)).await;
    assert_eq!((rig.nodes(), rig.status().vanished), (3, 1));
    let mut roster = rig.follow.roster.clone();
    roster.mark_unchanged();
    roster.changed().await.unwrap();
    assert_eq!((rig.nodes(), rig.version()), (2, 3));
    assert!(!rig.follow.addresses.remembers(&c), "and it is forgotten");
    let vanished_at = rig.source.asked.lock().unwrap()[2];
    assert_eq!(vanished_at.elapsed().as_secs(), 120, "not only with the poll after that");
}

/// Rows 9 and 11: a pod that comes back elsewhere is the same node, and is dialled there, without a look-up.
#[tokio::test(start_paused = true)]
async fn a_node_is_dialled_where_it_was_listed_last() {
    let at = |ip: Option<&str>| {
        let steady = Endpoint::new("a:11211".parse().unwrap());
        let restarted = ip.map(|ip| Endpoint::new("b:11211".parse().unwrap()).with_addresses([ip.parse().unwrap()]));
        Act::Answer(Ok(Membership::new([steady].into_iter().chain(restarted)).with_ttl(secs(60))))
    };
    let rig = Rig::new(options(), [at(Some("10.0.0.1")), at(None), at(None), at(Some("10.0.0.2"))]);
    rig.first().await.unwrap();
    let b = "b:11211".parse().unwrap();
    assert_eq!(rig.follow.addresses.lookup(&b).await.unwrap(), ["10.0.0.1:11211".parse().unwrap()]);
    let mut roster = rig.follow.roster.clone();
    roster.mark_unchanged();
    roster.changed().await.unwrap();
    assert_eq!(rig.polls(), 4);
    assert_eq!((rig.version(), roster.borrow().addr_epoch), (1, 1));
    assert_eq!(rig.follow.addresses.lookup(&b).await.unwrap(), ["10.0.0.2:11211".parse().unwrap()]);
}

/// Rows 13 and 16: NXDOMAIN and errors after a good start keep the nodes; each is counted.
#[tokio::test(start_paused = true)]
async fn outages_keep_the_nodes() {
    let rig = Rig::new(options(), [listing(&["a", "b", "c"])]);
    rig.first().await.unwrap();
    let failure = DiscoveryError::ServerFailure("SERVFAIL".into());
    for (act, state) in [(nxdomain(), DiscoveryState::EmptyHeld), (Act::Answer(Err(failure)), DiscoveryState::Stale)] {
        let before = rig.status().errors;
        rig.then(act);
        sleep(secs(600)).await;
        let status = rig.status();
        assert_eq!((rig.nodes(), rig.version(), status.state), (3, 1, state));
        assert!(status.errors > before + 30 && status.last_ok > Some(secs(590)));
    }
    rig.then(listing(&["a", "b", "c"]));
    sleep(secs(20)).await;
    assert_eq!((rig.version(), rig.status().state), (1, DiscoveryState::Fresh));
}

/// Row 14: cleared once.
#[tokio::test(start_paused = true)]
async fn emptiness_clears_if_told_to() {
    let rig = Rig::new(options().empty(EmptyPolicy::ClearAfter(secs(60))), [listing(&["a", "b", "c"]), nxdomain()]);
    rig.first().await.unwrap();
    sleep(secs(59)).await;
    assert_eq!(rig.nodes(), 3);
    sleep(secs(8)).await;
    assert_eq!((rig.nodes(), rig.version(), rig.status().state), (0, 2, DiscoveryState::Empty));
    sleep(secs(600)).await;
    assert_eq!(rig.version(), 2);
}

/// Row 25: two polls are never within a second, whatever happens.
#[tokio::test(start_paused = true)]
async fn polls_keep_their_distance() {
    let failure = || Act::Answer(Err(DiscoveryError::Truncated));
    let acts = || [listing(&["a"]), failure(), nxdomain(), listing(&["b", "c"]), listing(&["a", "b"])];
    let rig = Rig::new(options(), (0..40).flat_map(|_| acts()));
    for _ in 0..20_000 {
        rig.follow.addresses.nudge();
        sleep(Duration::from_millis(11)).await;
    }
    let gaps = rig.gaps();
    assert!(gaps.len() > 50 && gaps.iter().all(|gap| *gap >= 1.0), "{gaps:?}");
}

/// Rows 26 and 27: a burst of connection errors is one more look-up, and one when its answer expires.
#[tokio::test(start_paused = true)]
async fn a_burst_of_errors_is_one_look_up() {
    let rig = Rig::new(options().poll_interval(secs(60), secs(60)), [listing(&["a", "b", "c"])]);
    rig.first().await.unwrap();
    sleep(secs(10)).await;
    assert_eq!(rig.polls(), 1);
    for _ in 0..500 {
        rig.follow.addresses.nudge();
        sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(rig.polls(), 2);
    sleep(secs(3)).await;
    assert_eq!(rig.polls(), 2);
    sleep(secs(2)).await;
    assert_eq!(rig.polls(), 3, "at the end of the TTL");
    sleep(secs(50)).await;
    assert_eq!(rig.polls(), 3, "and that was that");
}

/// Row 26: look-ups that take long are not joined by others.
#[tokio::test(start_paused = true)]
async fn one_look_up_at_a_time() {
    let rig = Rig::new(options(), [listing(&["a"]), Act::Hang]);
    rig.first().await.unwrap();
    for _ in 0..1000 {
        rig.follow.addresses.nudge();
        sleep(Duration::from_millis(50)).await;
    }
    assert!(rig.polls() > 3);
    assert_eq!(rig.nodes(), 1);
}

/// Row 43: the task dies with its owner, during a look-up too, and those who watch can tell.
#[tokio::test(start_paused = true)]
async fn the_watch_closes_with_the_task() {
    let rig = Rig::new(options(), [listing(&["a"]), Act::Hang]);
    rig.first().await.unwrap();
    sleep(secs(6)).await;
    assert!(rig.source.busy.load(Ordering::SeqCst));
    rig.task.abort();
    let mut roster = rig.follow.roster.clone();
    roster.mark_unchanged();
    assert!(roster.changed().await.is_err());
    assert!(!rig.source.busy.load(Ordering::SeqCst), "the look-up was dropped");
    assert_eq!(roster.borrow().endpoints.len(), 1, "what was known can still be read");

    let rig = Rig::new(options(), [Act::Hang]);
    rig.task.abort();
    assert_eq!(rig.first().await, Err(DiscoveryError::Timeout));
    assert_eq!(rig.start.elapsed(), Duration::ZERO);
}

/// Row 44: a source that panics is asked again, and meanwhile nothing is lost.
#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failed_look_up() {
    let rig = Rig::new(options(), [listing(&["a"]), Act::Panic, Act::Panic, listing(&["a", "b"])]);
    rig.first().await.unwrap();
    while rig.polls() < 2 {
        sleep(Duration::from_millis(10)).await;
    }
    assert!(matches!(rig.status().last_error, Some(DiscoveryError::Transport(_))));
    assert_eq!((rig.nodes(), rig.status().state), (1, DiscoveryState::Stale));
    sleep(secs(4)).await;
    assert_eq!((rig.nodes(), rig.status().errors), (2, 2));
    assert!(!rig.task.is_finished());
}

/// Row 44: after a stall one poll is late; those that were missed are not made up for.
#[tokio::test(start_paused = true)]
async fn a_stall_is_one_late_poll() {
    let rig = Rig::new(options(), [listing(&["a"])]);
    rig.first().await.unwrap();
    advance(secs(60)).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.polls(), 2);
    sleep(secs(4)).await;
    assert_eq!(rig.polls(), 2);
}

/// Row 45: a fixed list is read once, nudged or not.
#[tokio::test(start_paused = true)]
async fn a_fixed_list_is_never_polled() {
    let nodes: [NodeId; 2] = ["127.0.0.1:11211".parse().unwrap(), "127.0.0.2:11211".parse().unwrap()];
    let (follow, body) = follow(Arc::new(StaticNodes::new(nodes.clone())), options());
    let _task = tokio::spawn(body);
    follow.first(&Startup::Wait(secs(10))).await.unwrap();
    for _ in 0..100 {
        follow.addresses.nudge();
        sleep(secs(10)).await;
    }
    let status = follow.addresses.status();
    assert_eq!((status.state, status.polls, status.next_poll, status.nodes), (DiscoveryState::Static, 1, None, 2));
    assert_eq!(follow.addresses.lookup(&nodes[0]).await.unwrap(), ["127.0.0.1:11211".parse().unwrap()]);
}

/// Row 45: an empty list is a mistake, not an empty service.
#[tokio::test(start_paused = true)]
async fn an_empty_list_is_refused() {
    let (follow, body) = follow(Arc::new(StaticNodes::new(Vec::<NodeId>::new())), options());
    let _task = tokio::spawn(body);
    assert!(matches!(follow.first(&Startup::Wait(secs(10))).await, Err(DiscoveryError::Config(_))));
}
