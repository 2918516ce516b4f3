//! One connection over an in-memory pipe: pending queue, batches, driver, response matching and wake-ups, without the
//! kernel, a network or a server.
//!
//! ```sh
//! RUSTFLAGS="--cfg memring_internals" cargo bench --bench pipeline -- --warm-up-time 0.3 --measurement-time 1
//! ```
//!
//! That takes half a minute. A closed loop of callers: each one starts its next operation when the last one ends. A
//! result is the time in which every caller completes one operation. It includes the peer, which runs on the same
//! thread.

#[cfg(memring_internals)]
mod bench {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use bytes::{Buf, Bytes, BytesMut};
    use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
    use memring::Error;
    use memring::internals::Connection;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::runtime::{Builder, Runtime};

    const VALUE: [u8; 100] = [b'v'; 100];

    /// More bytes than all concurrent requests, or all concurrent responses.
    const PIPE_BYTES: usize = 1 << 20;

    /// Responds to every get with a hit for each key, and to every set with `STORED`.
    async fn serve(mut io: DuplexStream) {
        let (mut input, mut output) = (BytesMut::new(), Vec::new());
        while io.read_buf(&mut input).await.is_ok_and(|read| read > 0) {
            while let Some(len) = respond(&input, &mut output) {
                input.advance(len);
            }
            if io.write_all(&output).await.is_err() {
                return;
            }
            output.clear();
        }
    }

    /// Responds to the request at the front of `input`, if it is complete. Returns the length of the request.
    fn respond(input: &[u8], output: &mut Vec<u8>) -> Option<usize> {
        let end = memchr::memchr(b'\n', input)? + 1;
        let line = input[..end].trim_ascii_end();
        if let Some(keys) = line.strip_prefix(b"get ") {
            for key in keys.split(|&byte| byte == b' ') {
                for piece in [b"VALUE ", key, b" 0 100\r\n", &VALUE, b"\r\n"] {
                    output.extend_from_slice(piece);
                }
            }
            output.extend_from_slice(b"END\r\n");
            return Some(end);
        }
        assert!(line.starts_with(b"set ") && line.ends_with(b" 100"), "unknown request");
        let len = end + VALUE.len() + 2;
        if input.len() < len {
            return None;
        }
        output.extend_from_slice(b"STORED\r\n");
        Some(len)
    }

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_time().build().expect("a runtime")
    }

    /// Returns a connection to a peer that responds.
    fn connect(runtime: &Runtime) -> Arc<Connection> {
        let _guard = runtime.enter();
        let (client, server) = tokio::io::duplex(PIPE_BYTES);
        tokio::spawn(serve(server));
        Arc::new(Connection::over(client, "peer".parse().expect("a valid node ID")))
    }

    #[derive(Debug, Clone, Copy)]
    enum Op {
        Get,
        /// A `get_many` of 100 keys.
        GetMany,
        Set,
    }

    impl Op {
        fn keys(self) -> usize {
            if matches!(self, Self::GetMany) { 100 } else { 1 }
        }

        async fn run(self, connection: &Connection, keys: &[String]) -> Result<(), Error> {
            match self {
                Self::Get => {
                    assert_eq!(connection.get(&keys[0]).await?.map(|item| item.value.len()), Some(VALUE.len()))
                }
                Self::GetMany => {
                    let found = connection.get_many(keys).await?;
                    assert_eq!(found.iter().flatten().count(), keys.len());
                }
                Self::Set => connection.set(&keys[0], Bytes::from_static(&VALUE)).await?,
            }
            Ok(())
        }
    }

    /// Returns the time in which each of `window` callers completes `times` operations on its own keys.
    async fn closed_loop(connection: &Arc<Connection>, op: Op, window: usize, times: u64) -> Duration {
        let start = Instant::now();
        let callers: Vec<_> = (0..window)
            .map(|caller| {
                let connection = Arc::clone(connection);
                let keys: Vec<_> = (0..op.keys()).map(|n| format!("key:{:013}", caller * op.keys() + n)).collect();
                tokio::spawn(async move {
                    for _ in 0..times {
                        op.run(&connection, &keys).await?;
                    }
                    Ok::<_, Error>(())
                })
            })
            .collect();
        for caller in callers {
            caller.await.expect("the caller does not panic").expect("the operation succeeds");
        }
        start.elapsed()
    }

    fn pipeline(c: &mut Criterion) {
        let mut group = c.benchmark_group("pipeline");
        let runtime = runtime();
        let connection = connect(&runtime);
        for (name, op, window) in [
            ("get, callers", Op::Get, 1),
            ("get, callers", Op::Get, 16),
            ("get, callers", Op::Get, 256),
            ("get_many of 100, callers", Op::GetMany, 1),
            ("set, callers", Op::Set, 16),
        ] {
            group.throughput(Throughput::Elements((window * op.keys()) as u64));
            group.bench_function(BenchmarkId::new(name, window), |b| {
                b.iter_custom(|times| runtime.block_on(closed_loop(&connection, op, window, times)));
            });
        }
    }

    criterion_group!(benches, pipeline);
}

#[cfg(memring_internals)]
criterion::criterion_main!(bench::benches);

#[cfg(not(memring_internals))]
fn main() {
    eprintln!("not built: set RUSTFLAGS=\"--cfg memring_internals\"");
}
