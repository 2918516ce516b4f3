//! Drivers against a scripted peer over an in-memory pipe, with paused time: what a healthy server never does.

mod any_order;
mod any_response;
mod churn;
mod deadlines;
mod large;
mod line_reader;
mod long_link;
mod merged;
mod meta;
mod multi_batch_model;
mod peer;
mod queue_limits;
mod repeats;
mod syscalls;
mod touching;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use self::any_response::{Answer, ResponseFuture};
use self::peer::{Peer, add, cas, get, gets, incr, outcome, set, value_of};
use super::call::Call;
use super::{DeadlineSweeper, Driver, End, ProbeHistory, Queue};
use crate::config::QueueLimits;
use crate::error::{Delivery, Error, ErrorKind};
use crate::protocol::{Keys, Reply, Request};

const PATIENCE: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_millis(250);

struct Rig {
    queue: Arc<Queue>,
    probe_history: Arc<ProbeHistory>,
}

impl Rig {
    fn new() -> Self {
        Self::with_limits(4096, 8 << 20)
    }

    fn with_limits(calls: usize, bytes: usize) -> Self {
        // As a node with two connections has it: the first one's task keeps the queue's deadlines (and never connects),
        // the second is the one under test.
        let queue = Arc::new(Queue::new("mc-0".parse().unwrap(), QueueLimits { calls, bytes }, 2));
        tokio::spawn({
            let mut sweeper = DeadlineSweeper::new(Arc::clone(&queue));
            async move { sweeper.run().await }
        });
        Self { queue, probe_history: Arc::default() }
    }

    /// A connection at work, and the other end of it.
    fn connect(&self) -> (tokio::task::JoinHandle<End>, Peer) {
        self.connect_with_room(1 << 20)
    }

    fn connect_with_room(&self, bytes: usize) -> (tokio::task::JoinHandle<End>, Peer) {
        let (ours, theirs) = tokio::io::duplex(bytes);
        let node = "mc-0".parse().unwrap();
        let mut driver =
            Driver::new(ours, Arc::clone(&self.queue), node, 1, 1 << 20, PATIENCE, Arc::clone(&self.probe_history));
        (tokio::spawn(async move { driver.run().await }), Peer::new(theirs))
    }

    async fn ask(&self, request: Request) -> ResponseFuture {
        self.try_ask(request).await.unwrap()
    }

    async fn try_ask(&self, request: Request) -> Result<ResponseFuture, Error> {
        self.queue.enter(&Arc::new(Call::new(request, Instant::now() + DEADLINE))).await
    }
}

fn assert_failed<T: std::fmt::Debug>(result: Result<T, Error>, kind: ErrorKind, delivery: Delivery) -> Error {
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (kind, delivery), "{error:?}");
    error
}

#[tokio::test(start_paused = true)]
async fn gets_that_wait_together_go_out_as_one_line_and_come_back_each_to_its_caller() {
    let rig = Rig::new();
    let tickets = [rig.ask(get("a")).await, rig.ask(get("b")).await, rig.ask(get("c")).await, rig.ask(get("d")).await];
    let (_driver, mut peer) = rig.connect();
    peer.expect("get a b c d\r\n").await;
    // b is settled by a later key's value, d by the end.
    peer.send("VALUE a 1 2\r\nAA\r\nVALUE c 3 0\r\n\r\nEND\r\n").await;
    let [a, b, c, d] = tickets;
    assert_eq!(value_of(a).await.unwrap().as_deref(), Some(&b"AA"[..]));
    assert_eq!(value_of(b).await.unwrap(), None);
    assert_eq!(value_of(c).await.unwrap().as_deref(), Some(&b""[..]));
    assert_eq!(value_of(d).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn one_batch_is_under_way_and_what_arrives_meanwhile_goes_out_together() {
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect();
    let first = rig.ask(get("a")).await;
    peer.expect("get a\r\n").await;
    let second = rig.ask(get("b")).await;
    let third = rig.ask(set("k", "v")).await;
    let fourth = rig.ask(get("c")).await;
    peer.expect_nothing().await;
    peer.send("END\r\n").await;
    peer.expect("set k 0 0 1\r\nv\r\nget b c\r\n").await;
    peer.send("STORED\r\nVALUE b 0 1\r\nB\r\nEND\r\n").await;
    assert_eq!(value_of(first).await.unwrap(), None);
    assert_eq!(value_of(second).await.unwrap().as_deref(), Some(&b"B"[..]));
    assert_eq!(outcome(third).await.unwrap(), Reply::Stored);
    assert_eq!(value_of(fourth).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn only_those_who_asked_see_the_version_a_merged_gets_brings() {
    let rig = Rig::new();
    // Once by a key of its own, once by one that is asked for already.
    let tickets = [get("a"), gets("a"), gets("b"), get("b")].map(|request| rig.ask(request));
    let tickets = futures_util::future::join_all(tickets).await;
    let (_driver, mut peer) = rig.connect();
    peer.expect("gets a b\r\n").await;
    peer.send("VALUE a 0 1 77\r\nx\r\nVALUE b 0 1 78\r\nx\r\nEND\r\n").await;
    let mut versions = Vec::new();
    for ticket in tickets {
        match ticket.await {
            Answer::One(Ok(Some(item))) => versions.push(item.cas.map(|cas| cas.0)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(versions, [None, Some(77), Some(78), None]);
}

#[tokio::test(start_paused = true)]
async fn a_value_without_the_version_asked_for_is_no_answer() {
    let rig = Rig::new();
    let (versioned, number) = (rig.ask(gets("a")).await, rig.ask(incr("n", 1)).await);
    let (_driver, mut peer) = rig.connect();
    peer.expect("gets a\r\nincr n 1\r\n").await;
    peer.send("VALUE a 0 1\r\nx\r\nEND\r\n7\r\n").await;
    assert_failed(value_of(versioned).await, ErrorKind::Protocol, Delivery::Answered);
    assert_eq!(outcome(number).await.unwrap(), Reply::Number(7));
}

#[tokio::test(start_paused = true)]
async fn a_reply_split_at_any_byte_is_the_same_reply() {
    let reply = "VALUE a 5 10\r\nEND\r\nEND\r\n\r\nVALUE b 0 1\r\nB\r\nEND\r\n";
    for at in 1..reply.len() {
        let rig = Rig::new();
        let tickets = [rig.ask(get("a")).await, rig.ask(get("b")).await];
        let (_driver, mut peer) = rig.connect();
        peer.expect("get a b\r\n").await;
        peer.send(&reply[..at]).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        peer.send(&reply[at..]).await;
        let [a, b] = tickets;
        assert_eq!(value_of(a).await.unwrap().as_deref(), Some(&b"END\r\nEND\r\n"[..]), "split at {at}");
        assert_eq!(value_of(b).await.unwrap().as_deref(), Some(&b"B"[..]), "split at {at}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_get_disturbs_nobody_whether_it_was_written_or_not() {
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect();
    let written = rig.ask(get("a")).await;
    peer.expect("get a\r\n").await;
    let queued = rig.ask(get("never-sent")).await;
    let other = rig.ask(get("b")).await;
    drop(queued);
    drop(written);
    peer.send("VALUE a 0 1\r\nA\r\nEND\r\n").await;
    peer.expect("get b\r\n").await;
    peer.send("VALUE b 0 1\r\nB\r\nEND\r\n").await;
    assert_eq!(value_of(other).await.unwrap().as_deref(), Some(&b"B"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_key_not_asked_for_is_never_a_hit_nor_a_miss() {
    for reply in [
        "VALUE b 0 1\r\nB\r\nEND\r\n",
        // Asked for, but out of order.
        "VALUE c 0 1\r\nC\r\nVALUE a 0 1\r\nA\r\nEND\r\n",
    ] {
        let rig = Rig::new();
        let (a, c) = (rig.ask(get("a")).await, rig.ask(get("c")).await);
        let (driver, mut peer) = rig.connect();
        peer.expect("get a c\r\n").await;
        let queued = rig.ask(get("q")).await;
        peer.send(reply).await;
        let End::Lost(cause) = driver.await.unwrap() else { panic!("not given up") };
        assert_eq!(cause.kind(), ErrorKind::Protocol);
        if reply.starts_with("VALUE b") {
            let (a, c) = (value_of(a).await, value_of(c).await);
            let a = assert_failed(a, ErrorKind::Protocol, Delivery::Unknown);
            let c = assert_failed(c, ErrorKind::Protocol, Delivery::Unknown);
            assert_eq!((a.identity(), c.identity()), (cause.identity(), cause.identity()), "one cause for all");
        }
        // What was not written is served by the next connection.
        let (_driver, mut peer) = rig.connect();
        peer.expect("get q\r\n").await;
        peer.send("VALUE q 0 1\r\nQ\r\nEND\r\n").await;
        assert_eq!(value_of(queued).await.unwrap().as_deref(), Some(&b"Q"[..]));
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_of_input_is_neither_a_miss_nor_a_shorter_value() {
    for reply in
        ["", "VALUE a 0 10\r\nshor", "VALUE a 0 1\r\nA\r\n", "VALUE a 0 1\r\nA", "EN", "VALUE a 0 1\r\nA\r\nEND"]
    {
        let rig = Rig::new();
        let (a, b) = (rig.ask(get("a")).await, rig.ask(get("b")).await);
        let (driver, mut peer) = rig.connect();
        peer.expect("get a b\r\n").await;
        peer.send(reply).await;
        drop(peer);
        assert!(matches!(driver.await.unwrap(), End::Lost(_)), "{reply:?}");
        match value_of(a).await {
            Ok(found) => {
                assert!(reply.starts_with("VALUE a 0 1\r\nA\r\n"), "{reply:?}");
                assert_eq!(found.as_deref(), Some(&b"A"[..]));
            }
            failed => drop(assert_failed(failed, ErrorKind::Connection, Delivery::Unknown)),
        }
        assert_failed(value_of(b).await, ErrorKind::Connection, Delivery::Unknown);
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_asked_for_ends_the_connection() {
    for (unasked, told) in
        [("END\r\n", None), ("ERROR Too many open connections\r\n", Some("Too many open connections"))]
    {
        let rig = Rig::new();
        let (driver, mut peer) = rig.connect();
        peer.send(unasked).await;
        let End::Lost(error) = driver.await.unwrap() else { panic!("not given up") };
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(error.to_string().contains(told.unwrap_or("protocol")), "{error}");
    }
    // More than was asked for, in one piece with what was.
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect();
    let a = rig.ask(get("a")).await;
    peer.expect("get a\r\n").await;
    peer.send("END\r\nVALUE b 0 1\r\nB\r\nEND\r\n").await;
    assert_eq!(value_of(a).await.unwrap(), None);
    assert!(matches!(driver.await.unwrap(), End::Lost(_)));
}

#[tokio::test(start_paused = true)]
async fn what_was_not_written_cannot_have_been_answered() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect_with_room(64);
    let body = "x".repeat(1000);
    let (first, second) = (rig.ask(set("first", &body)).await, rig.ask(incr("second", 1)).await);
    peer.expect("set first 0 0 1000\r\n").await;
    // The first may be refused before all of it was read; the second was not even begun.
    peer.send("SERVER_ERROR object too large for cache\r\n5\r\n").await;
    let End::Lost(cause) = driver.await.unwrap() else { panic!("not given up") };
    assert_eq!(cause.kind(), ErrorKind::Protocol);
    assert_failed(outcome(first).await, ErrorKind::TooLarge, Delivery::Answered);
    let (_driver, mut peer) = rig.connect();
    peer.expect("incr second 1\r\n").await;
    peer.send("7\r\n").await;
    assert_eq!(outcome(second).await.unwrap(), Reply::Number(7));
}

#[tokio::test(start_paused = true)]
async fn what_was_not_begun_is_neither_missing_nor_stored() {
    let body = "x".repeat(100);
    let line = format!("set first 0 0 100\r\n{body}\r\n");
    for early in ["END\r\n", "VALUE k 0 1\r\nK\r\nEND\r\n", "STORED\r\n"] {
        let next = || if early == "STORED\r\n" { set("k", "") } else { get("k") };
        // The pipe holds less than the first line, or just that.
        for room in [line.len() - 1, line.len()] {
            let rig = Rig::new();
            let (first, _next) = (rig.ask(set("first", &body)).await, rig.ask(next()).await);
            let (driver, mut peer) = rig.connect_with_room(room);
            // Nothing is read.
            tokio::time::sleep(Duration::from_millis(1)).await;
            peer.send(&format!("STORED\r\n{early}")).await;
            let end = timeout(PATIENCE / 2, driver).await.expect("it was believed").unwrap();
            assert!(matches!(end, End::Lost(_)), "{early:?} with room for {room}");
            assert_eq!(outcome(first).await.unwrap(), Reply::Stored);
            let (_driver, mut peer) = rig.connect();
            assert!(peer.line().await.contains(" k"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_that_was_looked_at_leaves_nothing_to_the_next() {
    // The next is shorter than what was looked at in vain.
    for (reply, rest) in
        [("END\r", "\n5\r\n"), ("VALUE a 0 1\r\nA\r\nEND\r", "\n5\r\n"), ("VALUE a 0 1\r", "\nA\r\nEND\r\n5\r\n")]
    {
        let rig = Rig::new();
        let (a, number) = (rig.ask(get("a")).await, rig.ask(incr("n", 1)).await);
        let (_driver, mut peer) = rig.connect();
        peer.expect("get a\r\nincr n 1\r\n").await;
        peer.send(reply).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        peer.send(rest).await;
        assert_eq!(outcome(number).await.unwrap(), Reply::Number(5), "{reply:?}");
        value_of(a).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn which_error_lines_end_the_connection() {
    let too_large = "SERVER_ERROR object too large for cache\r\n";
    let limit = || Request::CacheMemlimit { megabytes: 1 };
    let cases = [
        (set("k", "v"), "set k 0 0 1\r\nv\r\n", too_large, ErrorKind::TooLarge, true),
        (
            set("k", "v"),
            "set k 0 0 1\r\nv\r\n",
            "SERVER_ERROR out of memory storing object\r\n",
            ErrorKind::Server,
            true,
        ),
        (
            incr("k", 1),
            "incr k 1\r\n",
            "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
            ErrorKind::Server,
            true,
        ),
        (incr("k", 1), "incr k 1\r\n", "ERROR\r\n", ErrorKind::Server, true),
        (
            add("k", "flush_all\r\n"),
            "add k 0 0 11\r\nflush_all\r\n\r\n",
            "CLIENT_ERROR bad data chunk\r\n",
            ErrorKind::Server,
            false,
        ),
        (set("k", "v"), "set k 0 0 1\r\nv\r\n", "ERROR\r\n", ErrorKind::Server, false),
        (get("k"), "get k\r\n", "SERVER_ERROR out of memory writing get response\r\n", ErrorKind::Server, false),
        (get("k"), "get k\r\n", "CLIENT_ERROR unauthenticated\r\n", ErrorKind::Auth, false),
        (cas("k", 7, "v"), "cas k 0 0 1 7\r\nv\r\n", too_large, ErrorKind::TooLarge, true),
        (cas("k", 7, "v"), "cas k 0 0 1 7\r\nv\r\n", "CLIENT_ERROR bad data chunk\r\n", ErrorKind::Server, false),
        (limit(), "cache_memlimit 1\r\n", "MEMLIMIT_TOO_SMALL cannot set maxbytes\r\n", ErrorKind::Server, true),
        (limit(), "cache_memlimit 1\r\n", "ERROR\r\n", ErrorKind::Server, true),
        (
            Request::Verbosity { level: 9 },
            "verbosity 9\r\n",
            "CLIENT_ERROR bad command line format\r\n",
            ErrorKind::Server,
            true,
        ),
        (Request::FlushAll { delay: 5 }, "flush_all 5\r\n", "ERROR\r\n", ErrorKind::Server, true),
        // A server that wants a login takes a set for one.
        (
            set("k", "v"),
            "set k 0 0 1\r\nv\r\n",
            "CLIENT_ERROR bad authentication token format\r\n",
            ErrorKind::Auth,
            false,
        ),
        (set("k", "v w"), "set k 0 0 3\r\nv w\r\n", "CLIENT_ERROR authentication failure\r\n", ErrorKind::Auth, false),
        (incr("k", 1), "incr k 1\r\n", "CLIENT_ERROR unauthenticated\r\n", ErrorKind::Auth, false),
    ];
    for (request, wire, line, kind, survives) in cases {
        let rig = Rig::new();
        let (driver, mut peer) = rig.connect();
        let is_get = matches!(request, Request::Get { .. });
        let ticket = rig.ask(request).await;
        peer.expect(wire).await;
        peer.send(line).await;
        let delivery = if survives { Delivery::Answered } else { Delivery::Unknown };
        let error = if is_get { value_of(ticket).await.map(|_| ()) } else { outcome(ticket).await.map(|_| ()) };
        let error = assert_failed(error, kind, delivery);
        assert!(error.to_string().contains(line.trim_end()), "{error}");
        if survives {
            let next = rig.ask(get("a")).await;
            peer.expect("get a\r\n").await;
            peer.send("END\r\n").await;
            assert_eq!(value_of(next).await.unwrap(), None);
        } else {
            assert!(matches!(driver.await.unwrap(), End::Lost(_)), "{line}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_in_a_merged_line_fails_all_of_it_and_no_later_reply_is_believed() {
    let rig = Rig::new();
    let tickets = [rig.ask(incr("n", 1)).await, rig.ask(get("a")).await, rig.ask(get("b")).await];
    let (driver, mut peer) = rig.connect();
    peer.expect("get a b\r\nincr n 1\r\n").await;
    peer.send("CLIENT_ERROR line too long\r\n5\r\nVALUE b 0 1\r\nB\r\nEND\r\n").await;
    let [n, a, b] = tickets;
    assert_failed(outcome(n).await, ErrorKind::Server, Delivery::Unknown);
    assert_failed(value_of(a).await, ErrorKind::Server, Delivery::Unknown);
    assert_failed(value_of(b).await, ErrorKind::Server, Delivery::Unknown);
    assert!(matches!(driver.await.unwrap(), End::Lost(_)));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_kept_in_the_queue_on_the_wire_and_at_the_door() {
    let on_time = |start: Instant| {
        let late = start.elapsed().saturating_sub(DEADLINE);
        assert!(start.elapsed() >= DEADLINE && late <= Duration::from_millis(50), "{:?}", start.elapsed());
    };
    let rig = Rig::with_limits(1, 1 << 20);
    let (_driver, mut peer) = rig.connect();
    let start = Instant::now();
    let written = rig.ask(get("a")).await;
    peer.expect("get a\r\n").await;
    let queued = rig.ask(set("b", "v")).await;
    let (door, queued, written) = tokio::join!(rig.try_ask(get("c")), outcome(queued), value_of(written));
    assert_failed(door, ErrorKind::Overloaded, Delivery::NotSent);
    assert_failed(queued, ErrorKind::Timeout, Delivery::NotSent);
    assert_failed(written, ErrorKind::Timeout, Delivery::Unknown);
    on_time(start);
    // The late reply is read past, and the connection serves on.
    peer.send("VALUE a 0 1\r\nA\r\nEND\r\n").await;
    let next = rig.ask(get("d")).await;
    peer.expect("get d\r\n").await;
    peer.send("END\r\n").await;
    assert_eq!(value_of(next).await.unwrap(), None);
    // And without any connection at all.
    let rig = Rig::new();
    let start = Instant::now();
    assert_failed(value_of(rig.ask(get("a")).await).await, ErrorKind::Timeout, Delivery::NotSent);
    on_time(start);
}

#[tokio::test(start_paused = true)]
async fn deadlines_out_of_order_are_each_kept() {
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect();
    let ask = |key: &'static str, ms| {
        let start = Instant::now();
        let call = Arc::new(Call::new(get(key), start + Duration::from_millis(ms)));
        let queue = Arc::clone(&rig.queue);
        async move { (queue.enter(&call).await.unwrap(), start, ms) }
    };
    let mut asked = vec![ask("first", 900).await];
    peer.expect("get first\r\n").await;
    for (key, ms) in [("b", 400), ("c", 100), ("d", 700), ("e", 50)] {
        asked.push(ask(key, ms).await);
    }
    for (ticket, start, ms) in asked.into_iter().rev() {
        assert_failed(
            value_of(ticket).await,
            ErrorKind::Timeout,
            if ms == 900 { Delivery::Unknown } else { Delivery::NotSent },
        );
        let passed = start.elapsed();
        // Awaited in turn, so that a later one may have to wait for an earlier one awaited after it.
        assert!(
            passed >= Duration::from_millis(ms) && passed <= Duration::from_millis(ms.max(700) + 50),
            "{ms}: {passed:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn room_in_the_queue_is_given_to_those_who_wait_for_it() {
    let rig = Rig::with_limits(1, 1 << 20);
    let (_driver, mut peer) = rig.connect();
    let first = rig.ask(get("a")).await;
    peer.expect("get a\r\n").await;
    let second = rig.ask(get("b")).await;
    let third = tokio::spawn({
        let queue = Arc::clone(&rig.queue);
        async move { queue.enter(&Arc::new(Call::new(get("c"), Instant::now() + DEADLINE))).await }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(!third.is_finished());
    // A caller that goes away makes room at once.
    drop(second);
    let third = third.await.unwrap().unwrap();
    peer.send("END\r\n").await;
    peer.expect("get c\r\n").await;
    peer.send("END\r\n").await;
    assert_eq!(value_of(first).await.unwrap(), None);
    assert_eq!(value_of(third).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_owes_replies_and_is_silent_is_given_up() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect();
    let start = Instant::now();
    let a = rig.ask(get("a")).await;
    peer.expect("get a\r\n").await;
    // Bytes that make no reply are no sign of life.
    peer.send("VALUE a 0 10\r\n01").await;
    assert_failed(value_of(a).await, ErrorKind::Timeout, Delivery::Unknown);
    tokio::time::sleep(Duration::from_millis(500)).await;
    peer.send("23").await;
    let End::Lost(error) = driver.await.unwrap() else { panic!("not given up") };
    assert_eq!(error.kind(), ErrorKind::Connection);
    assert!(start.elapsed() >= PATIENCE && start.elapsed() < PATIENCE + Duration::from_millis(50));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_slow_to_take_a_large_value_is_not_given_up() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect_with_room(64);
    let body = "x".repeat(1000);
    let call = Arc::new(Call::new(set("k", &body), Instant::now() + PATIENCE * 10));
    let ticket = rig.queue.enter(&call).await.unwrap();
    let wire = format!("set k 0 0 1000\r\n{body}\r\n");
    for piece in wire.as_bytes().chunks(200) {
        tokio::time::sleep(PATIENCE / 2).await;
        peer.expect(std::str::from_utf8(piece).unwrap()).await;
    }
    peer.send("STORED\r\n").await;
    assert_eq!(outcome(ticket).await.unwrap(), Reply::Stored);
    assert!(!driver.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stood_still_does_not_hold_it_against_the_server() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect();
    let a = rig.ask(get("a")).await;
    peer.expect("get a\r\n").await;
    tokio::time::advance(PATIENCE * 10).await;
    assert_failed(value_of(a).await, ErrorKind::Timeout, Delivery::Unknown);
    peer.send("END\r\n").await;
    let b = rig.ask(get("b")).await;
    peer.expect("get b\r\n").await;
    peer.send("END\r\n").await;
    assert_eq!(value_of(b).await.unwrap(), None);
    assert!(!driver.is_finished());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_left_in_peace() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect();
    let a = rig.ask(get("a")).await;
    peer.expect("get a\r\n").await;
    peer.send("END\r\n").await;
    assert_eq!(value_of(a).await.unwrap(), None);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(!driver.is_finished());
    drop(peer);
    assert!(matches!(driver.await.unwrap(), End::Closed));
}

#[tokio::test(start_paused = true)]
async fn reads_go_on_while_a_write_is_stuck() {
    // Far more in both directions than the pipe holds: the peer answers as it reads, and stops reading when it
    // cannot write.
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect_with_room(4096);
    let body = "x".repeat(40_000);
    let mut tickets = Vec::new();
    for index in 0..100 {
        tickets.push(rig.ask(set(&format!("key-{index}"), &body)).await);
        tickets.push(rig.ask(get(&format!("key-{index}"))).await);
    }
    tokio::spawn(async move { peer.serve_like_memcached().await });
    for ticket in tickets {
        match timeout(Duration::from_secs(5), ticket).await.expect("a deadlock") {
            Answer::Reply(reply) => assert_eq!(reply.unwrap(), Reply::Stored),
            Answer::One(found) => assert!(found.unwrap().is_none_or(|item| item.value.len() == body.len())),
            Answer::Many(_) | Answer::Run(_) => unreachable!(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_written_goes_to_the_next_connection() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect_with_room(64);
    let body = "x".repeat(1000);
    let (first, second) = (rig.ask(set("first", &body)).await, rig.ask(set("second", &body)).await);
    let third = rig.ask(incr("third", 1)).await;
    peer.expect("set first 0 0 1000\r\n").await;
    drop(peer);
    assert!(matches!(driver.await.unwrap(), End::Lost(_)));
    assert_failed(outcome(first).await, ErrorKind::Connection, Delivery::Unknown);
    let (_driver, mut peer) = rig.connect();
    peer.expect(&format!("set second 0 0 1000\r\n{body}\r\nincr third 1\r\n")).await;
    peer.send("STORED\r\nNOT_FOUND\r\n").await;
    assert_eq!(outcome(second).await.unwrap(), Reply::Stored);
    assert_eq!(outcome(third).await.unwrap(), Reply::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_is_dropped_leaves_nobody_waiting() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect();
    let a = rig.ask(get("a")).await;
    peer.expect("get a\r\n").await;
    driver.abort();
    assert_failed(value_of(a).await, ErrorKind::Connection, Delivery::Unknown);
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_node_fails_those_who_wait_and_those_who_come() {
    let rig = Rig::new();
    let waiting = rig.ask(get("a")).await;
    let refusal = Error::not_sent(ErrorKind::Unavailable);
    rig.queue.mark_unavailable(&refusal);
    assert_failed(value_of(waiting).await, ErrorKind::Unavailable, Delivery::NotSent);
    assert_failed(rig.try_ask(get("b")).await, ErrorKind::Unavailable, Delivery::NotSent);
    rig.queue.mark_available();
    rig.ask(get("c")).await;
}

#[tokio::test(start_paused = true)]
async fn keys_that_fill_a_line_go_on_in_the_next() {
    let rig = Rig::new();
    let keys: Vec<String> = (0..250).map(|index| format!("key-{index}")).collect();
    let asked = keys.iter().map(|key| crate::key::Key::new(key).unwrap()).collect();
    let ticket = rig.ask(Request::Get { keys: Keys::Many(asked), cas: false, touch: None }).await;
    let (_driver, mut peer) = rig.connect();
    for line in keys.chunks(100) {
        peer.expect(&format!("get {}\r\n", line.join(" "))).await;
    }
    for line in keys.chunks(100) {
        // The last of each line is not there.
        for key in &line[..line.len() - 1] {
            peer.send(&format!("VALUE {key} 0 {}\r\n{key}\r\n", key.len())).await;
        }
        peer.send("END\r\n").await;
    }
    let Answer::Many(lookups) = ticket.await else { panic!("not many") };
    assert_eq!(lookups.len(), 250);
    for (index, lookup) in lookups.into_iter().enumerate() {
        let expected = (![99, 199, 249].contains(&index)).then(|| Bytes::from(keys[index].clone()));
        assert_eq!(lookup.unwrap().map(|item| item.value), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_over_the_limit_fails_alone() {
    let rig = Rig::new();
    let (a, b) = (rig.ask(get("a")).await, rig.ask(get("b")).await);
    let (_driver, mut peer) = rig.connect();
    peer.expect("get a b\r\n").await;
    let len = (1 << 20) + 1;
    peer.send(&format!("VALUE a 0 {len}\r\n{}\r\nVALUE b 0 1\r\nB\r\nEND\r\n", "x".repeat(len))).await;
    assert_failed(value_of(a).await, ErrorKind::TooLarge, Delivery::Answered);
    assert_eq!(value_of(b).await.unwrap().as_deref(), Some(&b"B"[..]));
}
