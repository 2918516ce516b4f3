//! Whatever is asked, in whatever order, however split, whoever goes away: each caller gets its own answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::{Instant, sleep};

use super::super::call::Call;
use super::Rig;
use super::any_response::Answer;
use super::peer::{cas, gat, get, gets, meta_get, meta_run, meta_set, set};
use crate::key::Key;
use crate::protocol::{Body, Expect, Keys, MetaCode, MetaReply, Reply, Request};

#[derive(Debug, Clone)]
enum Step {
    Get(u8),
    Gets(u8),
    /// With an expiry time.
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

/// Of very different lengths, so that lines end at any key.
fn key(number: u8) -> String {
    format!("k{number}").repeat(1 + usize::from(number) % 40)
}

/// What the peer answers to a get of a key: every third is not there, and no two values are alike.
fn value(key: &str) -> Option<Bytes> {
    let number: usize = key.split('k').nth(1).unwrap().parse().unwrap();
    (!number.is_multiple_of(3)).then(|| Bytes::from(format!("{key}\r\nEND\r\n").repeat(number)))
}

/// ResponseSlot what it reads, in pieces of the given sizes.
async fn serve(io: tokio::io::DuplexStream, sizes: Vec<usize>) {
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
    let node = "mc-0".parse().unwrap();
    let mut driver =
        super::Driver::new(ours, Arc::clone(&rig.queue), node, 1, 1 << 20, Duration::from_secs(60), Arc::default());
    tokio::spawn(async move { driver.run().await });

    let mut waiting = Vec::new();
    for (step, goes_away) in steps {
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
                let asked: Vec<_> = keys.iter().map(String::as_str).collect();
                (meta_run(&asked), keys)
            }
            Step::GetMany(numbers, touch) => {
                let keys: Vec<_> = numbers.into_iter().map(key).collect();
                let asked = keys.iter().map(|key| Key::new(key).unwrap()).collect();
                (Request::Get { keys: Keys::Many(asked), cas: false, touch }, keys)
            }
        };
        let expected = if matches!(request.expect(), Expect::Swapped) { Reply::Exists } else { Reply::Stored };
        let call = Arc::new(Call::new(request, Instant::now() + Duration::from_secs(30)));
        let ticket = rig.queue.enter(&call).await.unwrap();
        if goes_away {
            // Half of them at once, half when they may be on the wire.
            if keys.len().is_multiple_of(2) {
                tokio::task::yield_now().await;
            }
            drop(ticket);
        } else {
            waiting.push((ticket, keys, expected));
        }
    }
    for (ticket, keys, expected) in waiting {
        let answer = tokio::time::timeout(Duration::from_secs(40), ticket).await.expect("a hang");
        let found: Vec<_> = match answer {
            Answer::Reply(reply) => match reply.unwrap() {
                Reply::Meta(reply) if reply.code != MetaCode::Done => vec![body(*reply)],
                Reply::Meta(_) => continue,
                reply => {
                    assert_eq!(reply, expected);
                    continue;
                }
            },
            Answer::One(lookup) => vec![lookup.unwrap().map(|item| item.value)],
            Answer::Many(lookups) => lookups.into_iter().map(|lookup| lookup.unwrap().map(|item| item.value)).collect(),
            Answer::Run(replies) => replies.into_iter().map(|reply| body(reply.unwrap())).collect(),
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
    fn each_caller_gets_its_own_answer(steps in steps(), sizes in prop::collection::vec(1usize..700, 1..20)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(run(steps, sizes));
    }
}
