//! The cost of encoding requests and decoding responses, without sockets, tasks and waiting callers.
//!
//! `cargo bench --bench codec -- --warm-up-time 0.3 --measurement-time 1` (half a minute). Each iteration first copies
//! the response, as the kernel does, and drops the decoded values at once.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use memring::internals::{Codec, Command};

const MAX_VALUE: usize = 1 << 20;

/// Returns keys of 17 bytes, the size that benches/throughput uses.
fn keys(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("key:{n:013}")).collect()
}

fn get(count: usize) -> Command {
    Command::get(keys(count)).expect("valid keys")
}

fn set(len: usize) -> Command {
    Command::set(&keys(1)[0], Bytes::from(vec![b'v'; len])).expect("a valid key")
}

/// Returns the response to a get of `count` keys, with a hit for every `step`th key from the first on.
fn values(count: usize, step: usize, len: usize) -> Vec<u8> {
    let value = "v".repeat(len);
    let hits = keys(count).into_iter().step_by(step);
    let response: String =
        hits.map(|key| format!("VALUE {key} 0 {len}\r\n{value}\r\n")).chain(["END\r\n".into()]).collect();
    response.into_bytes()
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    let mut codec = Codec::new(MAX_VALUE);
    let commands = [("get, keys", 1, get(1)), ("get, keys", 16, get(16)), ("get, keys", 100, get(100))]
        .into_iter()
        .chain([100, 16 * 1024].map(|len| ("set, bytes", len, set(len))));
    for (name, size, command) in commands {
        group.bench_function(BenchmarkId::new(name, size), |b| b.iter(|| codec.encode(black_box(&command))));
    }
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    let mut codec = Codec::new(MAX_VALUE);
    for (name, count, hits, response) in [
        ("100 values of 100 B", 100, 100, values(100, 1, 100)),
        // Leaves the fast path, which expects only the next key.
        ("100 keys, every other one missing", 100, 50, values(100, 2, 100)),
        ("100 keys, all missing", 100, 0, values(0, 1, 0)),
        ("1 value of 100 B", 1, 1, values(1, 1, 100)),
        ("1 value of 16 KiB", 1, 1, values(1, 1, 16 * 1024)),
    ] {
        let command = get(count);
        assert_eq!(codec.found(&command, &response), Some(hits), "{name}");
        group.throughput(Throughput::Bytes(response.len() as u64));
        group.bench_function(name, |b| b.iter(|| codec.found(black_box(&command), black_box(&response))));
    }
    let responses = "STORED\r\n".repeat(100);
    assert_eq!(codec.stored(responses.as_bytes()), Some(100));
    group.throughput(Throughput::Bytes(responses.len() as u64));
    group.bench_function("100 STORED", |b| b.iter(|| codec.stored(black_box(responses.as_bytes()))));
}

criterion_group!(benches, encode, decode);
criterion_main!(benches);
