//! Few keys, many callers, several batches in flight to a distant server, and connections that break at any byte: every
//! call completes by its deadline, and finds what the server held at some time since the call was made.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use super::super::lock;
use super::requests::meta_get;
use super::*;
use crate::protocol::Body;

/// One connection, from its dial to its end.
#[derive(Debug, Clone)]
struct Life {
    /// How many bytes the pipe holds.
    pipe_bytes: usize,
    /// The round trip, in milliseconds.
    lag: u64,
    /// Every so many replies there is no lag, so that the measured round trip changes.
    no_lag_every: usize,
    /// The connection ends after this many bytes of replies.
    bytes: usize,
    /// How long the server then neither reads nor writes before it ends, in milliseconds.
    hangs: u64,
    /// The size of the pieces in which replies are written.
    piece: usize,
}

#[derive(Debug, Clone)]
enum Command {
    Get(u8),
    Gets(u8),
    GetMany(Vec<u8>),
    Set(u8, usize),
    MetaGet(u8),
    Incr,
}

#[derive(Debug, Clone)]
struct Step {
    /// Before the call, in milliseconds.
    pause: u64,
    deadline: u64,
    /// When the caller drops the call, if it does.
    dropped_after: Option<u64>,
    command: Command,
}

const KEYS: u8 = 6;

fn lives() -> impl Strategy<Value = Vec<Life>> {
    let life =
        (64usize..4000, (1u64..5, 2usize..20), 0usize..4000, prop_oneof![1 => Just(0), 1 => 0u64..800], 1usize..400);
    let life = life.prop_map(|(pipe_bytes, (lag, no_lag_every), bytes, hangs, piece)| Life {
        pipe_bytes,
        lag,
        no_lag_every,
        bytes,
        hangs,
        piece,
    });
    prop::collection::vec(life, 1..5)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![3 => 0usize..40, 1 => 200usize..1500];
    let command = prop_oneof![
        6 => (0..KEYS).prop_map(Command::Get),
        1 => (0..KEYS).prop_map(Command::Gets),
        3 => prop::collection::vec(0..KEYS, 1..12).prop_map(Command::GetMany),
        3 => (0..KEYS, size).prop_map(|(key, size)| Command::Set(key, size)),
        1 => (0..KEYS).prop_map(Command::MetaGet),
        1 => Just(Command::Incr),
    ];
    let pause = prop_oneof![4 => Just(0), 2 => Just(1), 1 => 0u64..20];
    let step = (pause, 1u64..400, prop::option::weighted(0.2, 0u64..8), command);
    let step =
        step.prop_map(|(pause, deadline, dropped_after, command)| Step { pause, deadline, dropped_after, command });
    prop::collection::vec(step, 1..120)
}

fn key(number: u8) -> String {
    format!("key-{number}-").repeat(1 + usize::from(number))
}

/// When a store was sent, and when its reply arrived.
type Times = (u64, Option<u64>);

/// What was sent and answered, in the order of a counter.
#[derive(Debug, Default)]
struct History {
    clock: AtomicU64,
    /// By key and the serial number of the value.
    stores: Mutex<HashMap<(u8, u64), Times>>,
}

impl History {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    fn store_sent(&self, key: u8) -> u64 {
        let now = self.tick();
        lock(&self.stores).insert((key, now), (now, None));
        now
    }

    fn stored(&self, key: u8, serial: u64) {
        let now = self.tick();
        lock(&self.stores).get_mut(&(key, serial)).unwrap().1 = Some(now);
    }

    /// Asserts that a get sent at this time may find this value.
    fn check(&self, key: u8, found: Option<&Bytes>, sent: u64) {
        let stores = lock(&self.stores);
        let done_before = |time| {
            move |((of, _), (_, done)): &(&(u8, u64), &Times)| *of == key && done.is_some_and(|done| done < time)
        };
        let Some(found) = found else {
            assert!(!stores.iter().any(|store| done_before(sent)(&store)), "a miss, although it was stored");
            return;
        };
        let text = std::str::from_utf8(found).unwrap();
        let (found_key, rest) = text.split_once('=').unwrap();
        assert_eq!(found_key, self::key(key), "another key's value");
        let serial = rest.split(' ').next().unwrap().parse().unwrap();
        let (_, done) = stores.get(&(key, serial)).expect("a value that was never stored");
        if let Some(done) = *done {
            let outdated = stores.iter().filter(done_before(sent)).any(|(_, (later, _))| *later > done);
            assert!(!outdated, "an outdated value");
        }
    }
}

type Items = Arc<Mutex<HashMap<String, Vec<u8>>>>;

async fn execute(read: impl AsyncRead + Unpin, items: Items, life: Life, out: mpsc::Sender<(Instant, Vec<u8>)>) {
    let mut read = BufReader::new(read);
    let (mut count, mut replies) = (0, 0);
    loop {
        let mut line = String::new();
        // A line that is cut short is no request.
        if read.read_line(&mut line).await.unwrap_or(0) == 0 || !line.ends_with("\r\n") {
            return;
        }
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap();
        let mut reply = Vec::new();
        match verb {
            "set" => {
                let (key, len) = (words.next().unwrap().to_owned(), words.nth(2).unwrap().parse::<usize>().unwrap());
                let mut body = vec![0; len + 2];
                if read.read_exact(&mut body).await.is_err() {
                    return;
                }
                body.truncate(len);
                lock(&items).insert(key, body);
                reply.extend_from_slice(b"STORED\r\n");
            }
            "get" | "gets" => {
                for key in words {
                    if let Some(body) = lock(&items).get(key) {
                        let unique = if verb == "gets" { " 7" } else { "" };
                        reply.extend_from_slice(format!("VALUE {key} 0 {}{unique}\r\n", body.len()).as_bytes());
                        reply.extend_from_slice(body);
                        reply.extend_from_slice(b"\r\n");
                    }
                }
                reply.extend_from_slice(b"END\r\n");
            }
            "mg" => {
                let opaque = line.split_whitespace().find(|word| word.starts_with('O')).unwrap();
                match lock(&items).get(words.next().unwrap()) {
                    Some(body) => {
                        reply.extend_from_slice(format!("VA {} {opaque}\r\n", body.len()).as_bytes());
                        reply.extend_from_slice(body);
                        reply.extend_from_slice(b"\r\n");
                    }
                    None => reply.extend_from_slice(b"EN\r\n"),
                }
            }
            "version" => reply.extend_from_slice(b"VERSION 1.6.18\r\n"),
            "incr" => {
                count += 1;
                reply.extend_from_slice(format!("{count}\r\n").as_bytes());
            }
            other => panic!("unexpected command: {other}"),
        }
        replies += 1;
        let lag = if replies > WARM_UP && replies % life.no_lag_every == 0 { 0 } else { life.lag };
        if out.send((Instant::now() + Duration::from_millis(lag), reply)).await.is_err() {
            return;
        }
    }
}

async fn serve(io: DuplexStream, items: Items, life: Life, is_first: bool) {
    let (read, mut write) = tokio::io::split(io);
    let (out, mut replies) = mpsc::channel::<(Instant, Vec<u8>)>(1000);
    let write_replies = async {
        let mut left = life.bytes + if is_first { WARM_UP * "END\r\n".len() } else { 0 };
        while let Some((due, reply)) = replies.recv().await {
            sleep_until(due).await;
            for piece in reply.chunks(life.piece) {
                let piece = &piece[..piece.len().min(left)];
                if write.write_all(piece).await.is_err() {
                    return;
                }
                left -= piece.len();
                if left == 0 {
                    sleep(Duration::from_millis(life.hangs)).await;
                    return;
                }
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::select! {
        () = write_replies => {}
        () = async { execute(read, items, life.clone(), out).await; std::future::pending().await } => {}
    }
}

/// Opens one connection after another, as a reconnector does.
async fn reconnect(queue: Arc<Queue>, task: usize, lives: Vec<Life>, items: Items) {
    for (number, life) in lives.iter().cycle().enumerate() {
        // In a loop without a wait the paused time would not advance.
        sleep(Duration::from_millis(1)).await;
        let (ours, theirs) = tokio::io::duplex(life.pipe_bytes);
        let server = tokio::spawn(serve(theirs, Arc::clone(&items), life.clone(), number == 0));
        new_driver(ours, &queue, task).run().await;
        // A store that it executed later would look like one of an earlier time.
        server.abort();
        drop(server.await);
    }
}

/// How many batches it takes to measure the round trip.
const WARM_UP: usize = 16;

async fn call(queue: &Arc<Queue>, history: &History, command: Command, deadline: Instant) {
    let (request, keys, store) = match command {
        Command::Get(number) => (get(&key(number)), vec![number], None),
        Command::Gets(number) => (gets(&key(number)), vec![number], None),
        Command::MetaGet(number) => (meta_get(&key(number), "v"), vec![number], None),
        Command::GetMany(numbers) => {
            (get_many(&numbers.iter().map(|&number| key(number)).collect::<Vec<_>>()), numbers, None)
        }
        Command::Set(number, size) => {
            let serial = history.store_sent(number);
            let value = format!("{}={serial} {}", key(number), "\r\nEND\r\n".repeat(size / 7));
            (set(&key(number), &value), Vec::new(), Some((number, serial)))
        }
        Command::Incr => (incr("n", 1), Vec::new(), None),
    };
    let sent = history.tick();
    let Ok(call) = TestCall::queue(queue, request, deadline).await else { return };
    let results = match call.any().await {
        AnyResponse::Get(result) => vec![result],
        AnyResponse::GetMany(results) => results,
        AnyResponse::Reply(Ok(Reply::Stored)) => {
            let (key, serial) = store.unwrap();
            return history.stored(key, serial);
        }
        AnyResponse::Reply(Ok(Reply::Meta(reply))) => {
            let value = reply.value.map(|body| match body {
                Body::Whole(value) => value,
                other => panic!("{other:?}"),
            });
            return history.check(keys[0], value.as_ref(), sent);
        }
        AnyResponse::Reply(Ok(Reply::Number(_))) => return assert!(keys.is_empty() && store.is_none()),
        AnyResponse::Reply(Err(error)) => vec![Err(error)],
        other => panic!("{other:?}"),
    };
    for (index, result) in results.into_iter().enumerate() {
        match result {
            Ok(found) => history.check(keys[index], found.map(|item| item.value).as_ref(), sent),
            Err(error) => assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Connection), "{error:?}"),
        }
    }
}

async fn run(steps: Vec<Step>, connections: Vec<Vec<Life>>) {
    let limits = QueueLimits { calls: 4096, bytes: 1 << 20 };
    let queue = swept_queue(limits, connections.len());
    let (history, items) = (Arc::new(History::default()), Items::default());
    let mut reconnectors = JoinSet::new();
    for (task, lives) in connections.into_iter().enumerate() {
        reconnectors.spawn(reconnect(Arc::clone(&queue), task, lives, Arc::clone(&items)));
        if task == 0 {
            for _ in 0..WARM_UP {
                let call = TestCall::queue(&queue, get("a"), Instant::now() + SILENCE_TIMEOUT).await.unwrap();
                assert_eq!(call.value().await.unwrap(), None);
            }
        }
    }
    let mut callers = JoinSet::new();
    for step in steps {
        sleep(Duration::from_millis(step.pause)).await;
        let (queue, history) = (Arc::clone(&queue), Arc::clone(&history));
        callers.spawn(async move {
            let limit = Duration::from_millis(step.deadline);
            let checked = call(&queue, &history, step.command, Instant::now() + limit);
            match step.dropped_after {
                Some(ms) => drop(timeout(Duration::from_millis(ms), checked).await),
                None => timeout(limit + Duration::from_millis(5), checked).await.expect("a deadline was not kept"),
            }
        });
    }
    join_all(callers).await;
    queue.assert_empty();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn every_call_completes_in_time_and_finds_what_the_server_held(
        steps in steps(),
        connections in prop::collection::vec(lives(), 1..3),
    ) {
        run_paused(run(steps, connections));
    }
}
