//! Few keys, many callers, several batches under way to a server some way off, and a connection that breaks at any byte:
//! whoever asks is answered by the deadline, with what was there at some time since.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::super::lock;
use super::peer::{get_many, meta_get};
use super::*;

/// One life of a connection.
#[derive(Debug, Clone)]
struct Life {
    /// How much the pipe holds.
    room: usize,
    /// How long the way is, in milliseconds.
    lag: u64,
    /// Every so many replies it is none: how far away the server is, is never certain.
    quick: usize,
    /// It dies when it has sent so much.
    bytes: usize,
    /// Nothing is written for that long, and nothing more is read.
    hangs: u64,
    /// In pieces of that size.
    piece: usize,
}

#[derive(Debug, Clone)]
enum Expected {
    Get(u8),
    Gets(u8),
    GetMany(Vec<u8>),
    Set(u8, usize),
    MetaGet(u8),
    Incr,
}

#[derive(Debug, Clone)]
struct Ask {
    pause: u64,
    deadline: u64,
    /// The caller goes away after so long.
    leaves: Option<u64>,
    what: Expected,
}

const KEYS: u8 = 6;

fn lives() -> impl Strategy<Value = Vec<Life>> {
    let life =
        (64usize..4000, (1u64..5, 2usize..20), 0usize..4000, prop_oneof![1 => Just(0), 1 => 0u64..800], 1usize..400);
    let life =
        life.prop_map(|(room, (lag, quick), bytes, hangs, piece)| Life { room, lag, quick, bytes, hangs, piece });
    prop::collection::vec(life, 1..5)
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let what = prop_oneof![
        6 => (0..KEYS).prop_map(Expected::Get),
        1 => (0..KEYS).prop_map(Expected::Gets),
        3 => prop::collection::vec(0..KEYS, 1..12).prop_map(Expected::GetMany),
        3 => (0..KEYS, prop_oneof![3 => 0usize..40, 1 => 200usize..1500]).prop_map(|(key, size)| Expected::Set(key, size)),
        1 => (0..KEYS).prop_map(Expected::MetaGet),
        1 => Just(Expected::Incr),
    ];
    let pause = prop_oneof![4 => Just(0), 2 => Just(1), 1 => 0u64..20];
    let ask = (pause, 1u64..400, prop::option::weighted(0.2, 0u64..8), what);
    let ask = ask.prop_map(|(pause, deadline, leaves, what)| Ask { pause, deadline, leaves, what });
    prop::collection::vec(ask, 1..120)
}

fn key(number: u8) -> String {
    format!("key-{number}-").repeat(1 + usize::from(number))
}

/// When a store was asked for, and when it was known to be done.
type Times = (u64, Option<u64>);

/// When what was asked and answered, told by counting.
#[derive(Debug, Default)]
struct History {
    clock: AtomicU64,
    /// Of each store, by key and the serial number of its value.
    stores: Mutex<HashMap<(u8, u64), Times>>,
}

impl History {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    fn asked_to_store(&self, key: u8) -> u64 {
        let now = self.tick();
        lock(&self.stores).insert((key, now), (now, None));
        now
    }

    fn stored(&self, key: u8, serial: u64) {
        let now = self.tick();
        lock(&self.stores).get_mut(&(key, serial)).unwrap().1 = Some(now);
    }

    /// Whether who asked at that time may have found this.
    fn check(&self, key: u8, found: Option<&Bytes>, asked: u64) {
        let stores = lock(&self.stores);
        let done_before = |time| {
            move |((of, _), (_, done)): &(&(u8, u64), &Times)| *of == key && done.is_some_and(|done| done < time)
        };
        let Some(found) = found else {
            assert!(!stores.iter().any(|store| done_before(asked)(&store)), "not there though it was stored");
            return;
        };
        let text = std::str::from_utf8(found).unwrap();
        let (its_key, rest) = text.split_once('=').unwrap();
        assert_eq!(its_key, self::key(key), "another key's value");
        let serial = rest.split(' ').next().unwrap().parse().unwrap();
        let (_, done) = stores.get(&(key, serial)).expect("a value nobody stored");
        if let Some(done) = *done {
            let outdated = stores.iter().filter(done_before(asked)).any(|(_, (later_asked, _))| *later_asked > done);
            assert!(!outdated, "an outdated value");
        }
    }
}

type Items = Arc<Mutex<HashMap<String, Vec<u8>>>>;

async fn execute(
    read: impl tokio::io::AsyncRead + Unpin,
    items: Items,
    life: Life,
    out: mpsc::Sender<(Instant, Vec<u8>)>,
) {
    let mut read = BufReader::new(read);
    let (mut count, mut replies) = (0, 0);
    loop {
        let mut line = String::new();
        // A line cut short was not sent.
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
            other => panic!("not asked for: {other}"),
        }
        replies += 1;
        let lag = if replies > WARM_UP && replies % life.quick == 0 { 0 } else { life.lag };
        if out.send((Instant::now() + Duration::from_millis(lag), reply)).await.is_err() {
            return;
        }
    }
}

async fn serve(io: DuplexStream, items: Items, life: Life, is_first: bool) {
    let (read, mut write) = tokio::io::split(io);
    let (out, mut replies) = mpsc::channel::<(Instant, Vec<u8>)>(1000);
    let answer = async {
        let mut left = life.bytes + if is_first { WARM_UP * "END\r\n".len() } else { 0 };
        while let Some((due, reply)) = replies.recv().await {
            tokio::time::sleep_until(due).await;
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
        () = answer => {}
        () = async { execute(read, items, life.clone(), out).await; std::future::pending().await } => {}
    }
}

/// As a node keeps each of its connections, the first of which times the queue.
async fn keep(queue: Arc<Queue>, task: usize, lives: Vec<Life>, items: Items) {
    let mut sweeper = (task == 0).then(|| DeadlineSweeper::new(Arc::clone(&queue)));
    let keep = async {
        for (number, life) in lives.iter().cycle().enumerate() {
            // Never in a hot loop, or time would not pass.
            sleep(Duration::from_millis(1)).await;
            let (ours, theirs) = tokio::io::duplex(life.room);
            let mut driver =
                Driver::new(ours, Arc::clone(&queue), "mc-0".parse().unwrap(), task, 1 << 20, PATIENCE, Arc::default());
            let server = tokio::spawn(serve(theirs, Arc::clone(&items), life.clone(), number == 0));
            driver.run().await;
            // What it still does could not be told from what it did before.
            server.abort();
            drop(server.await);
        }
    };
    match &mut sweeper {
        Some(sweeper) => tokio::select! { biased; () = keep => {}, () = sweeper.run() => {} },
        None => keep.await,
    }
}

/// So many exchanges make a link known.
const WARM_UP: usize = 16;

async fn call(queue: &Arc<Queue>, history: &History, what: Expected, deadline: Instant) {
    let (request, keys, store) = match what {
        Expected::Get(number) => (get(&key(number)), vec![number], None),
        Expected::Gets(number) => (gets(&key(number)), vec![number], None),
        Expected::MetaGet(number) => (meta_get(&key(number), "v"), vec![number], None),
        Expected::GetMany(numbers) => {
            let keys: Vec<_> = numbers.iter().map(|&number| key(number)).collect();
            (get_many(&keys.iter().map(String::as_str).collect::<Vec<_>>()), numbers, None)
        }
        Expected::Set(number, size) => {
            let serial = history.asked_to_store(number);
            let value = format!("{}={serial} {}", key(number), "\r\nEND\r\n".repeat(size / 7));
            (set(&key(number), &value), Vec::new(), Some((number, serial)))
        }
        Expected::Incr => (incr("n", 1), Vec::new(), None),
    };
    let asked = history.tick();
    let Ok(ticket) = queue.enter(&Arc::new(Call::new(request, deadline))).await else { return };
    let lookups = match ticket.await {
        Answer::One(lookup) => vec![lookup],
        Answer::Many(lookups) => lookups,
        Answer::Reply(Ok(Reply::Stored)) => {
            let (key, serial) = store.unwrap();
            return history.stored(key, serial);
        }
        Answer::Reply(Ok(Reply::Meta(reply))) => {
            let value = reply.value.map(|body| match body {
                crate::protocol::Body::Whole(value) => value,
                other => panic!("{other:?}"),
            });
            return history.check(keys[0], value.as_ref(), asked);
        }
        Answer::Reply(Ok(Reply::Number(_))) => return assert!(keys.is_empty() && store.is_none()),
        Answer::Reply(Err(error)) => vec![Err(error)],
        other => panic!("{other:?}"),
    };
    for (place, lookup) in lookups.into_iter().enumerate() {
        match lookup {
            Ok(found) => history.check(keys[place], found.map(|item| item.value).as_ref(), asked),
            Err(error) => assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Connection), "{error:?}"),
        }
    }
}

async fn run(asks: Vec<Ask>, connections: Vec<Vec<Life>>) {
    let limits = QueueLimits { calls: 4096, bytes: 1 << 20 };
    let queue = Arc::new(Queue::new("mc-0".parse().unwrap(), limits, connections.len()));
    let (history, items) = (Arc::new(History::default()), Items::default());
    let mut reconnectors = tokio::task::JoinSet::new();
    for (task, lives) in connections.into_iter().enumerate() {
        reconnectors.spawn(keep(Arc::clone(&queue), task, lives, Arc::clone(&items)));
        if task == 0 {
            for _ in 0..WARM_UP {
                let ticket = queue.enter(&Arc::new(Call::new(get("a"), Instant::now() + PATIENCE))).await.unwrap();
                assert_eq!(value_of(ticket).await.unwrap(), None);
            }
        }
    }
    let mut callers = tokio::task::JoinSet::new();
    for ask in asks {
        sleep(Duration::from_millis(ask.pause)).await;
        let (queue, history) = (Arc::clone(&queue), Arc::clone(&history));
        callers.spawn(async move {
            let limit = Duration::from_millis(ask.deadline);
            let answered = call(&queue, &history, ask.what, Instant::now() + limit);
            match ask.leaves {
                Some(leaves) => drop(timeout(Duration::from_millis(leaves), answered).await),
                None => timeout(limit + Duration::from_millis(5), answered).await.expect("a deadline was not kept"),
            }
        });
    }
    while let Some(outcome) = callers.join_next().await {
        outcome.unwrap();
    }
    queue.assert_empty();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn whoever_asks_is_answered_in_time_with_what_was_there(
        asks in asks(),
        connections in prop::collection::vec(lives(), 1..3),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(run(asks, connections));
    }
}
