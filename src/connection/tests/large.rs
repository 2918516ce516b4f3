//! Large values: written from where their callers have them, and read to where their callers will.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};

use super::deadlines::LONG;
use super::peer::set_bytes;
use super::*;

/// Around where values are no longer copied when written (4 KiB), and when read (8 KiB).
const SIZES: [usize; 11] = [0, 1, 4095, 4096, 4097, 8191, 8192, 8193, 16_384, 40_000, 100_000];

/// Bytes that tell their place, and the values of different seeds apart.
fn body(seed: usize, len: usize) -> Bytes {
    (0..len).map(|at| (at * 7 + at / 251 + seed * 13) as u8).collect()
}

/// A pipe that takes a limited number of bytes, and is closed by the other end as soon as it has. In one write it takes `step`
/// bytes at the most.
struct Stopping {
    left: usize,
    step: usize,
    vectored: bool,
}

impl AsyncRead for Stopping {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl AsyncWrite for Stopping {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let count = buf.len().min(self.left).min(self.step);
        self.left -= count;
        if count == 0 { Poll::Pending } else { Poll::Ready(Ok(count)) }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        assert!(self.vectored, "it has said that it cannot");
        let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        self.poll_write(cx, &all)
    }

    fn is_write_vectored(&self) -> bool {
        self.vectored
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A pipe without vectored writes.
struct Plain(DuplexStream);

impl AsyncRead for Plain {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Plain {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        panic!("it has said that it cannot");
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn driver<S: AsyncRead + AsyncWrite + Unpin>(rig: &Rig, socket: S) -> Driver<S> {
    let node = "mc-0".parse().unwrap();
    Driver::new(socket, Arc::clone(&rig.queue), node, 1, 1 << 20, PATIENCE, Arc::clone(&rig.probe_history))
}

async fn ask_long(rig: &Rig, request: Request) -> ResponseFuture {
    rig.queue.enter(&Arc::new(Call::new(request, Instant::now() + LONG * 1000))).await.unwrap()
}

/// Sets values of these sizes and gets them again, over a pipe that holds `room` bytes.
async fn there_and_back(sizes: &[usize], room: usize, vectored: bool) {
    let rig = Rig::new();
    let (ours, theirs) = duplex(room);
    tokio::spawn(async move { Peer::new(theirs).serve_like_memcached().await });
    let server = if vectored {
        let mut driver = driver(&rig, ours);
        tokio::spawn(async move { driver.run().await })
    } else {
        let mut driver = driver(&rig, Plain(ours));
        tokio::spawn(async move { driver.run().await })
    };
    let mut sets = Vec::new();
    for (seed, &len) in sizes.iter().enumerate() {
        sets.push(ask_long(&rig, set_bytes(&format!("key-{seed}"), body(seed, len))).await);
        // Something small between them.
        sets.push(ask_long(&rig, set(&format!("small-{seed}"), "v")).await);
    }
    for set in sets {
        let Answer::Reply(reply) = set.await else { panic!("not the answer to a set") };
        assert_eq!(reply.unwrap(), Reply::Stored);
    }
    let mut gets = Vec::new();
    for seed in 0..sizes.len() {
        gets.push(ask_long(&rig, get(&format!("key-{seed}"))).await);
        gets.push(ask_long(&rig, get(&format!("small-{seed}"))).await);
    }
    for (at, get) in gets.into_iter().enumerate() {
        let found = get.lookup().await.unwrap().expect("it is there").value;
        let (seed, is_small) = (at / 2, at % 2 == 1);
        let meant = if is_small { Bytes::from_static(b"v") } else { body(seed, sizes[seed]) };
        assert!(found == meant, "{seed}, of {} bytes, came back as {}", meant.len(), found.len());
    }
    server.abort();
}

#[tokio::test(start_paused = true)]
async fn values_arrive_as_they_are_however_little_a_pipe_holds() {
    for room in [1, 2, 3, 61, 4096, 5000, 1 << 20] {
        // Byte by byte, the largest take too long.
        let sizes = if room < 10 { &SIZES[..8] } else { &SIZES[..] };
        there_and_back(sizes, room, true).await;
        there_and_back(sizes, room, false).await;
    }
    // More pieces than go into one write.
    there_and_back(&[5000; 50], 1 << 20, true).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn values_of_any_size_arrive_as_they_are(
        sizes in prop::collection::vec(prop_oneof![0usize..100, 4000usize..4200, 8100usize..8300, 0usize..80_000], 1..12),
        room in prop_oneof![20usize..200, 200usize..100_000],
        vectored in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(there_and_back(&sizes, room, vectored));
    }
}

#[tokio::test(start_paused = true)]
async fn wherever_the_writing_stops_what_was_begun_is_unknown_and_the_rest_waits() {
    let requests = || {
        [
            set_bytes("small", body(1, 10)),
            set_bytes("large", body(2, 5000)),
            set_bytes("larger", body(3, 9000)),
            set_bytes("last", body(4, 5000)),
            incr("counter", 1),
        ]
    };
    let mut starts = vec![0];
    for request in requests() {
        let mut out = crate::protocol::Output::default();
        crate::protocol::encode(&request, 0, &mut out);
        starts.push(starts[starts.len() - 1] + out.len());
    }
    let all = starts.pop().unwrap();
    // Every place in a line, and some in the data blocks.
    let near = |stop: usize| starts.iter().any(|&start| start.abs_diff(stop) < 40) || stop.is_multiple_of(997);
    for stop in (1..all).filter(|&stop| near(stop)) {
        for (step, vectored) in [(usize::MAX, true), (1777, true), (usize::MAX, false)] {
            let rig = Rig::new();
            let mut tickets = Vec::new();
            for request in requests() {
                tickets.push(rig.ask(request).await);
            }
            let end = driver(&rig, Stopping { left: stop, step, vectored }).run().await;
            assert!(matches!(end, End::Lost(_)));
            for (ticket, &start) in tickets.into_iter().zip(&starts) {
                match ticket.now_or_never() {
                    Some(Answer::Reply(reply)) => {
                        assert!(start < stop, "{start} was not begun when {stop} bytes were written");
                        assert_failed(reply, ErrorKind::Connection, Delivery::Unknown);
                    }
                    Some(other) => panic!("not the answer to a set: {other:?}"),
                    None => assert!(start >= stop, "{start} was begun when {stop} bytes were written"),
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_half_written_value_is_not_continued_on_the_next_connection() {
    let rig = Rig::new();
    let (connection, mut peer) = rig.connect_with_room(64);
    let (first, second) = (body(1, 50_000), body(2, 50_000));
    let half = rig.ask(set_bytes("first", first)).await;
    let unsent = rig.ask(set_bytes("second", second.clone())).await;
    peer.expect("set first 0 0 50000\r\n").await;
    drop(peer);
    assert!(matches!(connection.await.unwrap(), End::Lost(_)));
    assert_failed(outcome(half).await, ErrorKind::Connection, Delivery::Unknown);
    let (ours, mut theirs) = duplex(64);
    let mut driver = driver(&rig, ours);
    let script = async {
        let wire = [b"set second 0 0 50000\r\n", &second[..], b"\r\n"].concat();
        let mut read = vec![0; wire.len()];
        theirs.read_exact(&mut read).await.unwrap();
        assert!(read == wire);
        theirs.write_all(b"STORED\r\n").await.unwrap();
        assert_eq!(outcome(unsent).await.unwrap(), Reply::Stored);
    };
    tokio::select! {
        end = driver.run() => panic!("{end:?}"),
        () = script => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_value_leaves_nothing_behind() {
    let rig = Rig::new();
    let (ours, theirs) = duplex(16 * 1024);
    tokio::spawn(async move { Peer::new(theirs).serve_like_memcached().await });
    let mut driver = driver(&rig, ours);
    let script = async {
        let value = body(1, 1_000_000);
        let stored = ask_long(&rig, set_bytes("k", value.clone())).await;
        let Answer::Reply(reply) = stored.await else { panic!("not the answer to a set") };
        assert_eq!(reply.unwrap(), Reply::Stored);
        assert!(value.is_unique(), "the connection keeps what was written");
        let found = ask_long(&rig, get("k")).await.lookup().await.unwrap().expect("it is there").value;
        assert!(found == value);
        let kept = found.try_into_mut().expect("shared with the connection").capacity();
        assert!(kept <= value.len() + 2048, "{kept} bytes are kept for {}", value.len());
        // Small ones after it, as if nothing had been.
        for _ in 0..1000 {
            let stored = ask_long(&rig, set("small", "v")).await;
            assert!(matches!(stored.await, Answer::Reply(Ok(Reply::Stored))));
            let found = ask_long(&rig, get("small")).await.lookup().await.unwrap().expect("it is there");
            assert_eq!(found.value, b"v"[..]);
        }
    };
    tokio::select! {
        end = driver.run() => panic!("{end:?}"),
        () = script => {}
    }
    let (reading, writing) = driver.room_kept();
    assert!(reading <= 64 * 1024, "{reading}");
    assert!(writing <= 64 * 1024, "{writing}");
}

#[tokio::test(start_paused = true)]
async fn the_end_inside_a_large_value_is_no_end() {
    let rig = Rig::new();
    let (connection, mut peer) = rig.connect();
    let ticket = rig.ask(get("k")).await;
    peer.expect("get k\r\n").await;
    peer.send(&format!("VALUE k 0 20000\r\n{}\r\n", "x".repeat(19_998))).await;
    drop(peer);
    let End::Lost(error) = connection.await.unwrap() else { panic!("taken for an end") };
    assert!(error.to_string().contains("inside a reply"), "{error}");
    assert_failed(value_of(ticket).await, ErrorKind::Connection, Delivery::Unknown);
}

#[tokio::test(start_paused = true)]
async fn a_large_value_that_goes_on_too_long_is_nobodys() {
    let rig = Rig::new();
    let (connection, mut peer) = rig.connect();
    let ticket = rig.ask(get("k")).await;
    peer.expect("get k\r\n").await;
    peer.send(&format!("VALUE k 0 20000\r\n{}\r\nEND\r\n", "x".repeat(20_001))).await;
    assert!(matches!(connection.await.unwrap(), End::Lost(_)));
    assert_failed(value_of(ticket).await, ErrorKind::Protocol, Delivery::Unknown);
}
