//! Any requests in any order, replies split anywhere, callers that drop their calls: each caller gets its own response.

use proptest::prelude::*;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};

use super::requests::{meta_get, meta_run, meta_set};
use super::*;
use crate::key::Key;
use crate::protocol::{Body, Keys, MetaCode, MetaReply, ReplyKind};

#[derive(Debug, Clone)]
enum Step {
    Get(u8),
    Gets(u8),
    /// Of a key, with an expiry time.
    Gat(u8, u32),
    GetMany(Vec<u8>, Option<u32>),
    Set(u8),
    Cas(u8),
    MetaGet(u8),
    MetaSet(u8),
    MetaRun(Vec<u8>),
    Pause(u8),
}

fn steps() -> impl Strategy<Value = Vec<(Step, bool)>> {
    let step = prop_oneof![
        4 => any::<u8>().prop_map(Step::Get),
        1 => any::<u8>().prop_map(Step::Gets),
        3 => (any::<u8>(), 0u32..3).prop_map(|(number, exptime)| Step::Gat(number, exptime)),
        1 => (prop::collection::vec(any::<u8>(), 1..130), prop::option::of(0u32..3))
            .prop_map(|(numbers, touch)| Step::GetMany(numbers, touch)),
        1 => any::<u8>().prop_map(Step::Cas),
        2 => any::<u8>().prop_map(Step::Set),
        1 => any::<u8>().prop_map(Step::MetaGet),
        1 => any::<u8>().prop_map(Step::MetaSet),
        1 => prop::collection::vec(any::<u8>(), 1..20).prop_map(Step::MetaRun),
        2 => (0u8..4).prop_map(Step::Pause),
    ];
    prop::collection::vec((step, prop::bool::weighted(0.2)), 1..60)
}

/// A key. Their lengths differ widely, so that lines end at any key.
fn key(number: u8) -> String {
    format!("k{number}").repeat(1 + usize::from(number) % 40)
}

/// What the peer holds for a key: every third is a miss, and no two values are equal.
fn value(key: &str) -> Option<Bytes> {
    let number: usize = key.split('k').nth(1).unwrap().parse().unwrap();
    (!number.is_multiple_of(3)).then(|| Bytes::from(format!("{key}\r\nEND\r\n").repeat(number)))
}

/// Replies to every request, in pieces of the given sizes.
async fn serve(io: DuplexStream, sizes: Vec<usize>) {
    let (read, mut write) = tokio::io::split(io);
    let mut read = BufReader::new(read);
    let mut sizes = sizes.into_iter().cycle();
    loop {
        let mut line = String::new();
        if read.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        let mut words = line.split_whitespace();
        let (verb, mut out) = (words.next().unwrap(), Vec::new());
        let opaque = line.split_whitespace().find(|word| word.starts_with('O')).unwrap_or("");
        let mut reply = |header: String, body: &[u8]| {
            out.extend_from_slice(header.as_bytes());
            out.extend_from_slice(body);
            out.extend_from_slice(b"\r\n");
        };
        match verb {
            "set" | "cas" | "ms" => {
                let len: usize = words.nth(if verb == "ms" { 1 } else { 3 }).unwrap().parse().unwrap();
                read.read_exact(&mut vec![0; len + 2]).await.unwrap();
                reply(
                    if verb == "set" {
                        "STORED".into()
                    } else if verb == "cas" {
                        "EXISTS".into()
                    } else {
                        format!("HD {opaque}")
                    },
                    b"",
                );
            }
            "mg" => match value(words.next().unwrap()) {
                Some(value) => reply(format!("VA {} {opaque}\r\n", value.len()), &value),
                None if line.ends_with(" q\r\n") => {}
                None => reply(format!("EN {opaque}"), b""),
            },
            "mn" => reply("MN".to_owned(), b""),
            "version" => reply("VERSION 1.6.18".to_owned(), b""),
            _ => {
                if verb.starts_with("gat") {
                    assert!(line.len() < 1000, "{} bytes in {verb}", line.len());
                    words.next();
                }
                let unique = if verb.ends_with('s') { " 7" } else { "" };
                for key in words {
                    if let Some(value) = value(key) {
                        reply(format!("VALUE {key} 0 {}{unique}\r\n", value.len()), &value);
                    }
                }
                reply("END".to_owned(), b"");
            }
        }
        let mut rest = &out[..];
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(sizes.next().unwrap_or(1000).clamp(1, rest.len()));
            if write.write_all(piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
            rest = after;
        }
    }
}

async fn run(steps: Vec<(Step, bool)>, sizes: Vec<usize>) {
    let rig = Rig::new();
    let (ours, theirs) = tokio::io::duplex(2048);
    tokio::spawn(serve(theirs, sizes));
    let config = DriverConfig { silence_timeout: Duration::from_secs(60), ..driver_config(1) };
    spawn(Driver::new(ours, Arc::clone(&rig.queue), NodeMemory::default(), config));

    let mut waiting = Vec::new();
    for (step, is_dropped) in steps {
        let (request, keys) = match step {
            Step::Pause(ms) => {
                sleep(Duration::from_millis(u64::from(ms))).await;
                continue;
            }
            Step::Get(number) => (get(&key(number)), vec![key(number)]),
            Step::Gets(number) => (gets(&key(number)), vec![key(number)]),
            Step::Gat(number, exptime) => (gat(&key(number), exptime), vec![key(number)]),
            Step::Set(number) => (set(&key(number), "flush_all\r\n"), Vec::new()),
            Step::Cas(number) => (cas(&key(number), 6, "flush_all\r\n"), Vec::new()),
            Step::MetaGet(number) => (meta_get(&key(number), "v"), vec![key(number)]),
            Step::MetaSet(number) => (meta_set(&key(number), "mn\r\n", ""), Vec::new()),
            Step::MetaRun(numbers) => {
                let keys: Vec<_> = numbers.into_iter().map(key).collect();
                (meta_run(&keys), keys)
            }
            Step::GetMany(numbers, touch) => {
                let keys: Vec<_> = numbers.into_iter().map(key).collect();
                let parsed = keys.iter().map(|key| Key::new(key).unwrap()).collect();
                (Request::Get { keys: Keys::Many(parsed), cas: false, touch }, keys)
            }
        };
        let expected = if matches!(request.reply_kind(), ReplyKind::Swapped) { Reply::Exists } else { Reply::Stored };
        let call = rig.call_within(request, Duration::from_secs(30)).await;
        if is_dropped {
            // Half of the calls at once, half when they may be in flight.
            if keys.len().is_multiple_of(2) {
                tokio::task::yield_now().await;
            }
            drop(call);
        } else {
            waiting.push((call, keys, expected));
        }
    }
    for (call, keys, expected) in waiting {
        let response = timeout(Duration::from_secs(40), call.any()).await.expect("no response");
        let found: Vec<_> = match response {
            AnyResponse::Reply(reply) => match reply.unwrap() {
                Reply::Meta(reply) if reply.code != MetaCode::Done => vec![body(*reply)],
                Reply::Meta(_) => continue,
                reply => {
                    assert_eq!(reply, expected);
                    continue;
                }
            },
            AnyResponse::Get(result) => vec![result.unwrap().map(|item| item.value)],
            AnyResponse::GetMany(results) => {
                results.into_iter().map(|result| result.unwrap().map(|item| item.value)).collect()
            }
            AnyResponse::MetaRun(replies) => replies.into_iter().map(|reply| body(reply.unwrap())).collect(),
        };
        assert_eq!(found, keys.iter().map(|key| value(key)).collect::<Vec<_>>());
    }
}

fn body(reply: MetaReply) -> Option<Bytes> {
    match reply.value? {
        Body::Whole(value) => Some(value),
        Body::TooLarge { .. } => panic!("within the limit"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn each_caller_gets_its_own_response(steps in steps(), sizes in prop::collection::vec(1usize..700, 1..20)) {
        run_paused(run(steps, sizes));
    }
}
