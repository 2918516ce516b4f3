//! Polls before their time: changes that the source reports, and demands of the application.

use std::sync::atomic::AtomicUsize;

use tokio::sync::watch;
use tokio::time::sleep_until;

use super::*;

/// How a source reports its changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reports {
    EachChange,
    AtOnce,
    Panic,
}

/// A source that reports when its answer has changed.
#[derive(Debug)]
struct Reporting {
    answer: watch::Sender<Answer>,
    reports: Mutex<Reports>,
    /// How long each poll takes. The answer is that of its beginning.
    takes: Duration,
    asked: Mutex<Vec<Instant>>,
    watched: AtomicUsize,
}

impl Discovery for Reporting {
    async fn discover(&self) -> Answer {
        self.asked.lock().unwrap().push(Instant::now());
        let answer = self.answer.borrow().clone();
        sleep(self.takes).await;
        answer
    }

    async fn changed(&self) {
        self.watched.fetch_add(1, Ordering::SeqCst);
        let reports = *self.reports.lock().unwrap();
        match reports {
            Reports::EachChange => drop(self.answer.subscribe().changed().await),
            Reports::AtOnce => {}
            Reports::Panic => panic!("as scripted"),
        }
    }
}

struct ReportingRig {
    source: Arc<Reporting>,
    discovery: DiscoveryHandle,
    task: JoinHandle<()>,
    start: Instant,
}

impl ReportingRig {
    /// Starts with an answer at 0 s, and waits until it has arrived.
    async fn new(options: DiscoveryOptions, answer: Answer, reports: Reports, takes: Duration) -> Self {
        let source = Arc::new(Reporting {
            answer: watch::Sender::new(answer),
            reports: Mutex::new(reports),
            takes,
            asked: Mutex::default(),
            watched: AtomicUsize::new(0),
        });
        let (discovery, body) = start_refresh(Arc::clone(&source), options.seed(7));
        let rig = Self { source, discovery, task: tokio::spawn(body), start: Instant::now() };
        sleep(takes + Duration::from_millis(1)).await;
        rig
    }

    fn set(&self, answer: Answer) {
        drop(self.source.answer.send_replace(answer));
    }

    /// Returns when the source was asked, in milliseconds from the start.
    fn asked(&self) -> Vec<u128> {
        self.source.asked.lock().unwrap().iter().map(|at| at.duration_since(self.start).as_millis()).collect()
    }

    fn watched(&self) -> usize {
        self.source.watched.load(Ordering::SeqCst)
    }

    fn nodes(&self) -> usize {
        self.discovery.roster.borrow().endpoints.len()
    }

    async fn sleep_until(&self, millis: u64) {
        sleep_until(self.start + Duration::from_millis(millis)).await;
    }
}

fn nodes(hosts: &[&str], ttl: Duration) -> Answer {
    let endpoint = |host: &&str| Endpoint::new(NodeId::new(host, 11211).unwrap());
    Ok(Membership::new(hosts.iter().map(endpoint)).with_ttl(ttl))
}

fn hourly() -> DiscoveryOptions {
    options().poll_interval(secs(3600), secs(3600))
}

/// docs/discovery.md, row 73: whether the answer has a TTL, or is valid forever.
#[tokio::test(start_paused = true)]
async fn a_change_that_the_source_reports_is_polled_at_once() {
    for ttl in [secs(3600), Duration::MAX] {
        let rig = ReportingRig::new(hourly(), nodes(&["a"], ttl), Reports::EachChange, Duration::ZERO).await;
        rig.sleep_until(500).await;
        for hosts in [&["b"][..], &["a", "b"], &["a", "b", "c"]] {
            rig.set(nodes(hosts, ttl));
            sleep(Duration::from_millis(10)).await;
        }
        rig.sleep_until(20_000).await;
        assert_eq!((rig.asked(), rig.nodes()), (vec![0, 1_000], 3), "all within a second after a poll share one");
        rig.set(nodes(&["a", "b", "c", "d"], ttl));
        rig.sleep_until(20_001).await;
        assert_eq!((rig.asked(), rig.nodes()), (vec![0, 1_000, 20_000], 4));
    }
}

/// docs/discovery.md, row 73.
#[tokio::test(start_paused = true)]
async fn a_change_during_a_poll_is_not_lost() {
    let rig = ReportingRig::new(hourly(), nodes(&["a"], secs(3600)), Reports::EachChange, secs(3)).await;
    rig.sleep_until(10_000).await;
    rig.set(nodes(&["a", "b"], secs(3600)));
    rig.sleep_until(12_000).await;
    rig.set(nodes(&["a", "b", "c"], secs(3600)));
    rig.sleep_until(18_000).await;
    assert_eq!((rig.asked(), rig.nodes()), (vec![0, 10_000, 14_000], 3));
}

/// docs/discovery.md, row 73: the change may end the reason of the failures.
#[tokio::test(start_paused = true)]
async fn a_change_is_polled_while_polls_fail() {
    let failure = Err(DiscoveryError::Transport("no such file".into()));
    let rig = ReportingRig::new(hourly(), failure, Reports::EachChange, Duration::ZERO).await;
    rig.sleep_until(600_000).await;
    let polls = rig.asked().len();
    rig.set(nodes(&["a"], secs(3600)));
    rig.sleep_until(600_001).await;
    assert_eq!((rig.asked().len(), rig.nodes()), (polls + 1, 1));
}

/// docs/discovery.md, row 74.
#[tokio::test(start_paused = true)]
async fn a_source_that_reports_changes_without_end_is_polled_once_a_second() {
    for answer in [nodes(&["a"], secs(3600)), nodes(&["a"], Duration::MAX), Err(DiscoveryError::Truncated)] {
        let rig = ReportingRig::new(hourly(), answer, Reports::AtOnce, Duration::ZERO).await;
        rig.sleep_until(60_500).await;
        let asked = rig.asked();
        assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= 1_000), "{asked:?}");
        assert_eq!((asked.len(), rig.watched()), (61, 61));
    }
}

/// docs/discovery.md, row 74: the client goes on to poll, and watches again with the next poll.
#[tokio::test(start_paused = true)]
async fn a_panic_while_watching_is_no_change() {
    for ttl in [secs(60), Duration::MAX] {
        let options = options().poll_interval(secs(60), secs(60));
        let rig = ReportingRig::new(options, nodes(&["a"], ttl), Reports::Panic, Duration::ZERO).await;
        rig.sleep_until(1_000).await;
        assert_eq!(rig.watched(), 1);
        *rig.source.reports.lock().unwrap() = Reports::EachChange;
        rig.sleep_until(67_000).await;
        assert_eq!((rig.asked().len(), rig.watched()), (2, 2));
        rig.set(nodes(&["a", "b"], ttl));
        rig.sleep_until(68_500).await;
        assert_eq!((rig.asked().len(), rig.nodes()), (3, 2));
        assert!(!rig.task.is_finished());
    }
}

/// docs/discovery.md, row 75: also of a fixed list, and also if polls fail.
#[tokio::test(start_paused = true)]
async fn a_demand_is_answered_by_a_poll_that_begins_after_it() {
    for answer in [nodes(&["a"], Duration::MAX), nodes(&["a"], secs(3600)), Err(DiscoveryError::Truncated)] {
        let rig = ReportingRig::new(hourly(), answer, Reports::EachChange, secs(3)).await;
        // At the end of the spacing after the first poll, all of them.
        tokio::join!(rig.discovery.poll_now(), rig.discovery.poll_now(), async {
            sleep(Duration::from_millis(200)).await;
            rig.discovery.poll_now().await;
        });
        assert_eq!((rig.asked(), rig.start.elapsed().as_millis()), (vec![0, 4_000], 7_000));
        // During a poll.
        rig.sleep_until(20_000).await;
        let polls = rig.asked().len();
        tokio::join!(rig.discovery.poll_now(), async {
            sleep(secs(1)).await;
            rig.discovery.poll_now().await;
        });
        assert_eq!(rig.asked()[polls..], [20_000, 24_000]);
        assert_eq!(rig.start.elapsed().as_millis(), 27_000);
    }
}

/// docs/discovery.md, row 75.
#[tokio::test(start_paused = true)]
async fn a_demand_does_not_wait_for_discovery_that_has_ended() {
    let rig = ReportingRig::new(hourly(), nodes(&["a"], secs(5)), Reports::EachChange, Duration::ZERO).await;
    tokio::join!(rig.discovery.poll_now(), async { rig.task.abort() });
    rig.discovery.poll_now().await;
    assert_eq!(rig.asked(), [0]);
}
