//! Deadlines are kept whatever becomes of the connection that would have kept them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, Repeat, repeat};

use super::*;

pub(super) const SHORT: Duration = Duration::from_millis(50);
pub(super) const LONG: Duration = Duration::from_secs(5);

pub(super) async fn ask_within(queue: &Arc<Queue>, request: Request, limit: Duration) -> ResponseFuture {
    queue.enter(&Arc::new(Call::new(request, Instant::now() + limit))).await.unwrap()
}

async fn assert_not_sent_in_time(ticket: ResponseFuture, start: Instant) {
    assert_failed(value_of(ticket).await, ErrorKind::Timeout, Delivery::NotSent);
    assert!(start.elapsed() <= SHORT + SHORT, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn of_those_put_back_before_more_urgent_ones() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect_with_room(64);
    let start = Instant::now();
    let body = "x".repeat(1000);
    let _written = ask_within(&rig.queue, set("first", &body), LONG).await;
    let _put_back = ask_within(&rig.queue, set("second", &body), LONG).await;
    peer.expect("set first 0 0 1000\r\n").await;
    let urgent = ask_within(&rig.queue, get("third"), SHORT).await;
    drop(peer);
    assert!(matches!(driver.await.unwrap(), End::Lost(_)));
    assert_not_sent_in_time(urgent, start).await;
}

#[tokio::test(start_paused = true)]
async fn of_those_left_to_connections_that_end() {
    let limits = QueueLimits { calls: 4096, bytes: 1 << 20 };
    let queue = Arc::new(Queue::new("mc-0".parse().unwrap(), limits, 3));
    tokio::spawn({
        let mut sweeper = DeadlineSweeper::new(Arc::clone(&queue));
        async move { sweeper.run().await }
    });
    let connect = |task| {
        let (ours, theirs) = tokio::io::duplex(64);
        let mut driver =
            Driver::new(ours, Arc::clone(&queue), "mc-0".parse().unwrap(), task, 1 << 20, PATIENCE, Arc::default());
        (tokio::spawn(async move { driver.run().await }), theirs)
    };
    let (first, second) = (connect(1), connect(2));
    tokio::time::sleep(Duration::from_millis(1)).await;
    // Each of the idle connections is told of one call, and ends before it can take it.
    let start = Instant::now();
    let _patient = ask_within(&queue, get("a"), LONG).await;
    let urgent = ask_within(&queue, get("b"), SHORT).await;
    first.0.abort();
    second.0.abort();
    assert_not_sent_in_time(urgent, start).await;
}

#[tokio::test(start_paused = true)]
async fn of_those_put_back_after_the_node_has_left() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect_with_room(64);
    let start = Instant::now();
    let body = "x".repeat(1000);
    let _written = rig.ask(set("first", &body)).await;
    let requeue = rig.ask(set("second", &body)).await;
    peer.expect("set first 0 0 1000\r\n").await;
    rig.queue.close();
    drop(peer);
    assert!(matches!(driver.await.unwrap(), End::Lost(_)));
    assert_failed(outcome(requeue).await, ErrorKind::Unavailable, Delivery::NotSent);
    assert!(start.elapsed() < DEADLINE, "nobody will take it, so it need not wait");
}

/// Always has more to read, as a fast server in the middle of large values.
struct Flood {
    asked: bool,
    head: &'static [u8],
    rest: Repeat,
}

impl AsyncRead for Flood {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.asked {
            return Poll::Pending;
        }
        if !this.head.is_empty() {
            buf.put_slice(std::mem::take(&mut this.head));
            return Poll::Ready(Ok(()));
        }
        // As a socket does, it makes its task yield now and then.
        let mut piece = [0; 64];
        let mut piece = ReadBuf::new(&mut piece);
        let read = Pin::new(&mut this.rest).poll_read(cx, &mut piece);
        buf.put_slice(piece.filled());
        read
    }
}

impl AsyncWrite for Flood {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.asked = true;
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
async fn of_those_whose_connection_never_stops_reading() {
    let rig = Rig::new();
    let flood = Flood { asked: false, head: b"VALUE a 0 1073741824\r\n", rest: repeat(b'x') };
    let mut driver =
        Driver::new(flood, Arc::clone(&rig.queue), "mc-0".parse().unwrap(), 1, 1 << 20, PATIENCE, Arc::default());
    let driver = tokio::spawn(async move { driver.run().await });
    let start = Instant::now();
    let ticket = ask_within(&rig.queue, get("a"), SHORT).await;
    let answer = timeout(PATIENCE, value_of(ticket)).await.expect("the deadline was never kept");
    assert_failed(answer, ErrorKind::Timeout, Delivery::Unknown);
    assert!(start.elapsed() <= SHORT + SHORT, "{:?}", start.elapsed());
    driver.abort();
}

#[tokio::test(start_paused = true)]
async fn what_comes_for_one_that_was_given_up_and_told_so_is_dropped() {
    let rig = Rig::new();
    let (lookup, reply) = (rig.ask(get("a")).await, rig.ask(set("s", "v")).await);
    let (_driver, mut peer) = rig.connect();
    peer.expect("set s 0 0 1\r\nv\r\nget a\r\n").await;
    assert_failed(lookup.lookup().await, ErrorKind::Timeout, Delivery::Unknown);
    assert_failed(reply.reply().await, ErrorKind::Timeout, Delivery::Unknown);
    peer.send("STORED\r\nVALUE a 0 1\r\nA\r\nEND\r\n").await;
    let next = rig.ask(get("b")).await;
    peer.expect("get b\r\n").await;
    peer.send("VALUE b 0 1\r\nB\r\nEND\r\n").await;
    assert_eq!(next.lookup().await.unwrap().map(|item| item.value).as_deref(), Some(&b"B"[..]));
}
