//! What it costs to encode commands, and to pass a batch through a connection's pipeline: no socket, no
//! task, no caller.
//!
//! ```sh
//! RUSTFLAGS="--cfg memring_internals" cargo bench --bench codec -- --warm-up-time 0.3 --measurement-time 1
//! ```
//!
//! That takes half a minute. An exchange makes the calls, encodes them, copies the replies into the read buffer as the
//! kernel does, decodes them, matches them to the calls and drops the values.

#[cfg(memring_internals)]
mod bench {
    use std::hint::black_box;

    use bytes::Bytes;
    use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
    use memring::internals::{Command, Exchange};

    /// Keys of 17 bytes, as those of benches/throughput.
    fn keys(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("key:{n:013}")).collect()
    }

    fn get(count: usize) -> Command {
        Command::get(keys(count)).expect("valid keys")
    }

    fn set(key: usize, len: usize) -> Command {
        Command::set(format!("key:{key:013}"), Bytes::from(vec![b'v'; len])).expect("a valid key")
    }

    /// The reply to a get of `count` keys, of which every `step`th is a hit.
    fn values(count: usize, step: usize, len: usize) -> Vec<u8> {
        let value = "v".repeat(len);
        let hits = keys(count).into_iter().step_by(step);
        let lines = hits.map(|key| format!("VALUE {key} 0 {len}\r\n{value}\r\n"));
        lines.chain(["END\r\n".into()]).collect::<String>().into_bytes()
    }

    fn connection() -> Exchange {
        Exchange::new("peer".parse().expect("a valid name"), 1 << 20)
    }

    fn encode(c: &mut Criterion) {
        let mut group = c.benchmark_group("encode");
        let mut connection = connection();
        let gets = [1, 16, 100].map(|count| ("get, keys", count, get(count)));
        let sets = [100, 16 * 1024].map(|len| ("set, bytes", len, set(0, len)));
        for (name, size, command) in gets.into_iter().chain(sets) {
            group.bench_function(BenchmarkId::new(name, size), |b| b.iter(|| connection.encode(black_box(&command))));
        }
    }

    fn exchange(c: &mut Criterion) {
        let mut group = c.benchmark_group("exchange");
        let mut connection = connection();
        let sets: Vec<_> = (0..100).map(|key| set(key, 100)).collect();
        for (name, commands, successes, replies) in [
            ("100 values of 100 B", vec![get(100)], 100, values(100, 1, 100)),
            // Not the fast path, which expects the next key.
            ("100 keys, every other one a miss", vec![get(100)], 50, values(100, 2, 100)),
            ("100 keys, all misses", vec![get(100)], 0, values(0, 1, 0)),
            ("1 value of 100 B", vec![get(1)], 1, values(1, 1, 100)),
            ("1 value of 16 KiB", vec![get(1)], 1, values(1, 1, 16 * 1024)),
            ("100 sets of 100 B", sets, 100, "STORED\r\n".repeat(100).into_bytes()),
        ] {
            assert_eq!(connection.exchange(&commands, &replies), Some(successes), "{name}");
            group.throughput(Throughput::Bytes(replies.len() as u64));
            group.bench_function(name, |b| {
                b.iter(|| connection.exchange(black_box(&commands), black_box(&replies)));
            });
        }
    }

    criterion_group!(benches, encode, exchange);
}

#[cfg(memring_internals)]
criterion::criterion_main!(bench::benches);

#[cfg(not(memring_internals))]
fn main() {
    eprintln!("not built: set RUSTFLAGS=\"--cfg memring_internals\"");
}
