//! Deadlines are kept, whatever becomes of the connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, Repeat, repeat};

use super::*;

pub(super) const SHORT: Duration = Duration::from_millis(50);
pub(super) const LONG: Duration = Duration::from_secs(5);

async fn assert_not_sent_in_time(call: TestCall, start: Instant) {
    assert_failed(call.value().await, ErrorKind::Timeout, Delivery::NotSent);
    assert!(start.elapsed() <= SHORT + SHORT, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_kept_while_queued_in_flight_and_waiting_for_space() {
    let assert_on_time = |start: Instant| {
        let late = start.elapsed().saturating_sub(DEADLINE);
        assert!(start.elapsed() >= DEADLINE && late <= Duration::from_millis(50), "{:?}", start.elapsed());
    };
    let rig = Rig::with_limits(1, 1 << 20);
    let (_driver, mut peer) = rig.connect();
    let start = Instant::now();
    let written = rig.call(get("a")).await;
    peer.expect("get a\r\n").await;
    let queued = rig.call(set("b", "v")).await;
    let (waiting, queued, written) = tokio::join!(rig.try_call(get("c")), queued.reply(), written.value());
    assert_failed(waiting, ErrorKind::Overloaded, Delivery::NotSent);
    assert_failed(queued, ErrorKind::Timeout, Delivery::NotSent);
    assert_failed(written, ErrorKind::Timeout, Delivery::Unknown);
    assert_on_time(start);
    // The late reply is read and dropped, and the connection still serves.
    peer.send("VALUE a 0 1\r\nA\r\nEND\r\n").await;
    rig.assert_serves(&mut peer).await;
    // Also without any connection.
    let rig = Rig::new();
    let start = Instant::now();
    assert_failed(rig.call(get("a")).await.value().await, ErrorKind::Timeout, Delivery::NotSent);
    assert_on_time(start);
}

#[tokio::test(start_paused = true)]
async fn deadlines_out_of_order_are_each_kept() {
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect();
    let start = Instant::now();
    let mut calls = vec![(rig.call_within(get("first"), Duration::from_millis(900)).await, start, 900)];
    peer.expect("get first\r\n").await;
    for (key, ms) in [("b", 400), ("c", 100), ("d", 700), ("e", 50)] {
        let start = Instant::now();
        calls.push((rig.call_within(get(key), Duration::from_millis(ms)).await, start, ms));
    }
    for (call, start, ms) in calls.into_iter().rev() {
        let delivery = if ms == 900 { Delivery::Unknown } else { Delivery::NotSent };
        assert_failed(call.value().await, ErrorKind::Timeout, delivery);
        let passed = start.elapsed();
        // Awaited in turn, so a call may have been over while an earlier one was awaited.
        assert!(
            passed >= Duration::from_millis(ms) && passed <= Duration::from_millis(ms.max(700) + 50),
            "{ms}: {passed:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_kept_when_less_urgent_calls_are_requeued_before_it() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect_over(64);
    let start = Instant::now();
    let body = "x".repeat(1000);
    let _written = rig.call_within(set("first", &body), LONG).await;
    let _requeued = rig.call_within(set("second", &body), LONG).await;
    peer.expect("set first 0 0 1000\r\n").await;
    let urgent = rig.call_within(get("third"), SHORT).await;
    drop(peer);
    lost(driver).await.unwrap();
    assert_not_sent_in_time(urgent, start).await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_kept_when_the_woken_connections_end_before_they_take_the_call() {
    let queue = swept_queue(QueueLimits { calls: 4096, bytes: 1 << 20 }, 3);
    let connect = |task| {
        let (ours, theirs) = tokio::io::duplex(64);
        (spawn(new_driver(ours, &queue, task)), theirs)
    };
    let (first, second) = (connect(1), connect(2));
    sleep(Duration::from_millis(1)).await;
    // Each idle connection is woken for one call, and ends before it can take it.
    let start = Instant::now();
    let _patient = TestCall::queue(&queue, get("a"), start + LONG).await.unwrap();
    let urgent = TestCall::queue(&queue, get("b"), start + SHORT).await.unwrap();
    first.0.abort();
    second.0.abort();
    assert_not_sent_in_time(urgent, start).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_requeued_after_the_node_has_left_fails_at_once() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect_over(64);
    let start = Instant::now();
    let body = "x".repeat(1000);
    let _written = rig.call(set("first", &body)).await;
    let requeued = rig.call(set("second", &body)).await;
    peer.expect("set first 0 0 1000\r\n").await;
    rig.queue.close(CloseReason::NodeLeft);
    drop(peer);
    lost(driver).await.unwrap();
    assert_failed(requeued.reply().await, ErrorKind::Unavailable, Delivery::NotSent);
    assert!(start.elapsed() < DEADLINE, "it waited, although no connection will take it");
}

/// A socket that always has more to read, as a fast server in the middle of large values.
struct EndlessSocket {
    is_requested: bool,
    head: &'static [u8],
    rest: Repeat,
}

impl AsyncRead for EndlessSocket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_requested {
            return Poll::Pending;
        }
        if !this.head.is_empty() {
            buf.put_slice(std::mem::take(&mut this.head));
            return Poll::Ready(Ok(()));
        }
        // Like a socket, this consumes the task's budget, and makes it yield now and then.
        let mut piece = [0; 64];
        let mut piece = ReadBuf::new(&mut piece);
        let read = Pin::new(&mut this.rest).poll_read(cx, &mut piece);
        buf.put_slice(piece.filled());
        read
    }
}

impl AsyncWrite for EndlessSocket {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.is_requested = true;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_deadline_is_kept_while_the_connection_never_stops_reading() {
    let rig = Rig::new();
    let socket = EndlessSocket { is_requested: false, head: b"VALUE a 0 1073741824\r\n", rest: repeat(b'x') };
    let driver = spawn(rig.driver(socket));
    let start = Instant::now();
    let call = rig.call_within(get("a"), SHORT).await;
    let result = timeout(SILENCE_TIMEOUT, call.value()).await.expect("the deadline was not kept");
    assert_failed(result, ErrorKind::Timeout, Delivery::Unknown);
    assert!(start.elapsed() <= SHORT + SHORT, "{:?}", start.elapsed());
    driver.abort();
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_arrives_after_the_deadline_is_dropped() {
    let rig = Rig::new();
    let (read, write) = (rig.call(get("a")).await, rig.call(set("s", "v")).await);
    let (_driver, mut peer) = rig.connect();
    peer.expect("set s 0 0 1\r\nv\r\nget a\r\n").await;
    assert_failed(read.result().await, ErrorKind::Timeout, Delivery::Unknown);
    assert_failed(write.reply().await, ErrorKind::Timeout, Delivery::Unknown);
    peer.send("STORED\r\nVALUE a 0 1\r\nA\r\nEND\r\n").await;
    let next = rig.call(get("b")).await;
    peer.expect("get b\r\n").await;
    peer.send("VALUE b 0 1\r\nB\r\nEND\r\n").await;
    assert_eq!(next.value().await.unwrap().as_deref(), Some(&b"B"[..]));
}
