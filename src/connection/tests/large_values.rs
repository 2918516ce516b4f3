//! Large values: written from the memory of their callers, and read into memory that becomes their callers'.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf, duplex};

use super::deadlines::LONG;
use super::requests::set_bytes;
use super::*;
use crate::protocol::{WriteBuffer, encode};

/// Sizes around the limits above which values are not copied when written (4 KiB) and when read (8 KiB).
const SIZES: [usize; 11] = [0, 1, 4095, 4096, 4097, 8191, 8192, 8193, 16_384, 40_000, 100_000];

/// A value whose bytes differ from place to place, and between seeds.
fn body(seed: usize, len: usize) -> Bytes {
    (0..len).map(|at| (at * 7 + at / 251 + seed * 13) as u8).collect()
}

/// A pipe that accepts a limited number of bytes, and is then closed by the other end.
struct LimitedPipe {
    left: usize,
    /// The most bytes that one write accepts.
    most_per_write: usize,
    is_vectored: bool,
}

impl AsyncRead for LimitedPipe {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl AsyncWrite for LimitedPipe {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let count = buf.len().min(self.left).min(self.most_per_write);
        self.left -= count;
        if count == 0 { Poll::Pending } else { Poll::Ready(Ok(count)) }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        assert!(self.is_vectored, "vectored writes are not supported");
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.poll_write(cx, &all)
    }

    fn is_write_vectored(&self) -> bool {
        self.is_vectored
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A pipe without vectored writes.
struct UnvectoredPipe(DuplexStream);

impl AsyncRead for UnvectoredPipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for UnvectoredPipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        panic!("vectored writes are not supported");
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A call whose deadline does not pass, however slow the pipe.
async fn call_without_deadline(rig: &Rig, request: Request) -> TestCall {
    rig.call_within(request, LONG * 1000).await
}

/// Sets values of these sizes and gets them again.
async fn set_and_get(sizes: &[usize], pipe_bytes: usize, is_vectored: bool) {
    let rig = Rig::new();
    let (ours, theirs) = duplex(pipe_bytes);
    tokio::spawn(async move { Peer::new(theirs).serve_like_memcached().await });
    let driver = if is_vectored { spawn(rig.driver(ours)) } else { spawn(rig.driver(UnvectoredPipe(ours))) };
    let mut sets = Vec::new();
    for (seed, &len) in sizes.iter().enumerate() {
        sets.push(call_without_deadline(&rig, set_bytes(&format!("key-{seed}"), body(seed, len))).await);
        // A small value between two large ones.
        sets.push(call_without_deadline(&rig, set(&format!("small-{seed}"), "v")).await);
    }
    for set in sets {
        assert_eq!(set.reply().await.unwrap(), Reply::Stored);
    }
    let mut gets = Vec::new();
    for (seed, &len) in sizes.iter().enumerate() {
        gets.push((call_without_deadline(&rig, get(&format!("key-{seed}"))).await, body(seed, len)));
        gets.push((call_without_deadline(&rig, get(&format!("small-{seed}"))).await, Bytes::from_static(b"v")));
    }
    for (at, (get, expected)) in gets.into_iter().enumerate() {
        let found = get.value().await.unwrap().expect("a hit");
        // Not `assert_eq`, which would print both values.
        assert!(found == expected, "value {at} of {} bytes has {} when read", expected.len(), found.len());
    }
    driver.abort();
}

#[tokio::test(start_paused = true)]
async fn values_arrive_unchanged_however_little_a_pipe_holds() {
    for pipe_bytes in [1, 2, 3, 61, 4096, 5000, 1 << 20] {
        // The largest values take too long byte by byte.
        let sizes = if pipe_bytes < 10 { &SIZES[..8] } else { &SIZES[..] };
        set_and_get(sizes, pipe_bytes, true).await;
        set_and_get(sizes, pipe_bytes, false).await;
    }
    // More slices than go into one vectored write.
    set_and_get(&[5000; 50], 1 << 20, true).await;
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![0usize..100, 4000usize..4200, 8100usize..8300, 0usize..80_000]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn values_of_any_size_arrive_unchanged(
        sizes in prop::collection::vec(size(), 1..12),
        pipe_bytes in prop_oneof![20usize..200, 200usize..100_000],
        is_vectored in any::<bool>(),
    ) {
        run_paused(set_and_get(&sizes, pipe_bytes, is_vectored));
    }
}

#[tokio::test(start_paused = true)]
async fn wherever_writing_stops_begun_calls_fail_as_unknown_and_the_others_are_requeued() {
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
        let mut out = WriteBuffer::default();
        encode(&request, 0, &mut out);
        starts.push(starts[starts.len() - 1] + out.len());
    }
    let all = starts.pop().unwrap();
    // Every place in a line, and some in the data blocks.
    let is_tested = |stop: usize| starts.iter().any(|&start| start.abs_diff(stop) < 40) || stop.is_multiple_of(997);
    for stop in (1..all).filter(|&stop| is_tested(stop)) {
        for (most_per_write, is_vectored) in [(usize::MAX, true), (1777, true), (usize::MAX, false)] {
            let rig = Rig::new();
            let calls = rig.calls(requests()).await;
            let end = rig.driver(LimitedPipe { left: stop, most_per_write, is_vectored }).run().await;
            assert!(matches!(end, End::Lost(_)));
            for (call, &start) in calls.into_iter().zip(&starts) {
                match call.reply_now() {
                    Some(reply) => {
                        assert!(start < stop, "{start} was not begun when {stop} bytes were written");
                        assert_failed(reply, ErrorKind::Connection, Delivery::Unknown);
                    }
                    None => assert!(start >= stop, "{start} was begun when {stop} bytes were written"),
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_half_written_value_is_not_continued_on_the_next_connection() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect_over(64);
    let (first, second) = (body(1, 50_000), body(2, 50_000));
    let half_written = rig.call(set_bytes("first", first)).await;
    let unwritten = rig.call(set_bytes("second", second.clone())).await;
    peer.expect("set first 0 0 50000\r\n").await;
    drop(peer);
    lost(driver).await.unwrap();
    assert_failed(half_written.reply().await, ErrorKind::Connection, Delivery::Unknown);
    let (ours, mut theirs) = duplex(64);
    let mut driver = rig.driver(ours);
    let script = async {
        let wire = [b"set second 0 0 50000\r\n", &second[..], b"\r\n"].concat();
        let mut read = vec![0; wire.len()];
        theirs.read_exact(&mut read).await.unwrap();
        assert!(read == wire);
        theirs.write_all(b"STORED\r\n").await.unwrap();
        assert_eq!(unwritten.reply().await.unwrap(), Reply::Stored);
    };
    tokio::select! {
        end = driver.run() => panic!("{end:?}"),
        () = script => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_keeps_no_memory_of_a_large_value() {
    let rig = Rig::new();
    let (ours, theirs) = duplex(16 * 1024);
    tokio::spawn(async move { Peer::new(theirs).serve_like_memcached().await });
    let mut driver = rig.driver(ours);
    let script = async {
        let value = body(1, 1_000_000);
        let stored = call_without_deadline(&rig, set_bytes("k", value.clone())).await;
        assert_eq!(stored.reply().await.unwrap(), Reply::Stored);
        assert!(value.is_unique(), "the connection keeps what was written");
        let found = call_without_deadline(&rig, get("k")).await.value().await.unwrap().expect("a hit");
        assert!(found == value);
        let kept = found.try_into_mut().expect("shared with the connection").capacity();
        assert!(kept <= value.len() + 2048, "{kept} bytes are kept for {}", value.len());
        // Small values are served after it as before.
        for _ in 0..1000 {
            let stored = call_without_deadline(&rig, set("small", "v")).await;
            assert_eq!(stored.reply().await.unwrap(), Reply::Stored);
            let found = call_without_deadline(&rig, get("small")).await;
            assert_eq!(found.value().await.unwrap().expect("a hit"), b"v"[..]);
        }
    };
    tokio::select! {
        end = driver.run() => panic!("{end:?}"),
        () = script => {}
    }
    let (reading, writing) = driver.buffer_capacities();
    assert!(reading <= 64 * 1024, "{reading}");
    assert!(writing <= 64 * 1024, "{writing}");
}

#[tokio::test(start_paused = true)]
async fn an_end_of_input_inside_a_large_value_is_an_error() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect();
    let call = rig.call(get("k")).await;
    peer.expect("get k\r\n").await;
    peer.send(&format!("VALUE k 0 20000\r\n{}\r\n", "x".repeat(19_998))).await;
    drop(peer);
    let error = lost(driver).await.unwrap();
    assert!(error.to_string().contains("inside a reply"), "{error}");
    assert_failed(call.value().await, ErrorKind::Connection, Delivery::Unknown);
}

#[tokio::test(start_paused = true)]
async fn a_large_value_longer_than_announced_is_an_error() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect();
    let call = rig.call(get("k")).await;
    peer.expect("get k\r\n").await;
    peer.send(&format!("VALUE k 0 20000\r\n{}\r\nEND\r\n", "x".repeat(20_001))).await;
    lost(driver).await.unwrap();
    assert_failed(call.value().await, ErrorKind::Protocol, Delivery::Unknown);
}
