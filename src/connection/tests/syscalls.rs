//! How many system calls a lone request takes.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::*;

#[derive(Debug, Default)]
struct Counts {
    writes: AtomicUsize,
    reads: AtomicUsize,
}

/// Counts all writes, and the reads that return bytes. Over a real socket each of them is a system call.
struct CountedSocket {
    socket: TcpStream,
    counts: Arc<Counts>,
}

impl AsyncRead for CountedSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.socket).poll_read(cx, buf);
        if polled.is_ready() {
            self.counts.reads.fetch_add(1, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for CountedSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.counts.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_lone_request_is_one_write_and_one_read() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut peer, _) = listener.accept().await.unwrap();
    tokio::spawn(async move {
        let mut wire = vec![0; 4096];
        while let Ok(count @ 1..) = peer.read(&mut wire).await {
            let reply: &[u8] =
                if wire[..count].starts_with(b"get") { b"VALUE k 0 1\r\nv\r\nEND\r\n" } else { b"STORED\r\n" };
            peer.write_all(reply).await.unwrap();
        }
    });
    let counts = Arc::<Counts>::default();
    let queue = Arc::new(Queue::new(node(), QueueLimits { calls: 10, bytes: 1 << 20 }, 1));
    spawn(new_driver(CountedSocket { socket, counts: Arc::clone(&counts) }, &queue, 0));

    for _ in 0..50 {
        let call = TestCall::queue(&queue, get("k"), Instant::now() + DEADLINE).await.unwrap();
        assert_eq!(call.value().await.unwrap().as_deref(), Some(&b"v"[..]));
        let call = TestCall::queue(&queue, set("k", "v"), Instant::now() + DEADLINE).await.unwrap();
        drop(call.reply().await);
    }
    assert_eq!(counts.writes.load(Ordering::Relaxed), 100);
    assert_eq!(counts.reads.load(Ordering::Relaxed), 100);
}
