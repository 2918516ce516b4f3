//! Connections that die, hang and come back, several to a queue: whoever asks is answered by the deadline, and rightly.

use proptest::prelude::*;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::time::sleep;

use super::*;

/// One life of a connection.
#[derive(Debug, Clone)]
struct Life {
    /// Before it is there.
    dial: u64,
    /// How much the pipe holds.
    room: usize,
    /// How long each line takes to be answered.
    lag: u64,
    /// How many lines are answered before it dies.
    lines: usize,
    /// It does not die then, but falls silent.
    hangs: bool,
}

#[derive(Debug, Clone)]
struct Ask {
    pause: u64,
    deadline: u64,
    is_set: bool,
    size: usize,
}

fn lives() -> impl Strategy<Value = Vec<Life>> {
    let life = (0u64..300, 16usize..3000, 0u64..40, 0usize..6, prop::bool::weighted(0.3));
    let life = life.prop_map(|(dial, room, lag, lines, hangs)| Life { dial, room, lag, lines, hangs });
    prop::collection::vec(life, 1..8)
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let pause = prop_oneof![3 => Just(0), 2 => 0u64..60];
    let ask = (pause, 1u64..600, any::<bool>(), 0usize..2000);
    let ask = ask.prop_map(|(pause, deadline, is_set, size)| Ask { pause, deadline, is_set, size });
    prop::collection::vec(ask, 1..60)
}

async fn serve(io: DuplexStream, life: Life) {
    let mut io = BufReader::new(io);
    for _ in 0..life.lines {
        let mut line = String::new();
        if io.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        let mut words = line.split_whitespace();
        let mut out = String::new();
        if words.next() == Some("set") {
            let len: usize = words.nth(3).unwrap().parse().unwrap();
            if io.read_exact(&mut vec![0; len + 2]).await.is_err() {
                return;
            }
            out.push_str("STORED\r\n");
        } else {
            words.for_each(|key| out.push_str(&format!("VALUE {key} 0 {}\r\n{key}\r\n", key.len())));
            out.push_str("END\r\n");
        }
        sleep(Duration::from_millis(life.lag)).await;
        if io.get_mut().write_all(out.as_bytes()).await.is_err() {
            return;
        }
    }
    if life.hangs {
        sleep(Duration::from_secs(60)).await;
    }
}

/// As a node keeps each of its connections, the first of which times the queue.
async fn keep(queue: Arc<Queue>, task: usize, lives: Vec<Life>) {
    let mut sweeper = (task == 0).then(|| DeadlineSweeper::new(Arc::clone(&queue)));
    let keep = async {
        for life in lives.iter().cycle() {
            // Never in a hot loop, or time would not pass.
            sleep(Duration::from_millis(life.dial + 1)).await;
            let (ours, theirs) = tokio::io::duplex(life.room);
            let mut driver =
                Driver::new(ours, Arc::clone(&queue), "mc-0".parse().unwrap(), task, 1 << 20, PATIENCE, Arc::default());
            let _server = tokio::spawn(serve(theirs, life.clone()));
            driver.run().await;
        }
    };
    match &mut sweeper {
        Some(sweeper) => tokio::select! { biased; () = keep => {}, () = sweeper.run() => {} },
        None => keep.await,
    }
}

async fn run(asks: Vec<Ask>, connections: Vec<Vec<Life>>, limits: QueueLimits) {
    let queue = Arc::new(Queue::new("mc-0".parse().unwrap(), limits, connections.len()));
    let mut reconnectors = tokio::task::JoinSet::new();
    for (task, lives) in connections.into_iter().enumerate() {
        reconnectors.spawn(keep(Arc::clone(&queue), task, lives));
    }
    let mut callers = tokio::task::JoinSet::new();
    for (index, ask) in asks.into_iter().enumerate() {
        sleep(Duration::from_millis(ask.pause)).await;
        let queue = Arc::clone(&queue);
        callers.spawn(async move {
            let key = format!("key-{index}");
            let request = if ask.is_set { set(&key, &"x".repeat(ask.size)) } else { get(&key) };
            let (start, limit) = (Instant::now(), Duration::from_millis(ask.deadline));
            let answered = async {
                match queue.enter(&Arc::new(Call::new(request, start + limit))).await {
                    Ok(ticket) => match ticket.await {
                        Answer::One(Ok(found)) => assert_eq!(found.expect("a miss").value, key),
                        Answer::Reply(reply) => assert!(reply.is_err() || reply.unwrap() == Reply::Stored),
                        Answer::One(Err(_)) | Answer::Many(_) | Answer::Run(_) => {}
                    },
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Overloaded),
                }
            };
            timeout(limit + Duration::from_millis(50), answered).await.expect("a deadline was not kept");
        });
    }
    while let Some(outcome) = callers.join_next().await {
        outcome.unwrap();
    }
    // Nothing is left that would be counted for ever.
    queue.assert_empty();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn everybody_is_answered_by_the_deadline(
        asks in asks(),
        connections in prop::collection::vec(lives(), 1..4),
        calls in prop_oneof![Just(3), Just(4096)],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(run(asks, connections, QueueLimits { calls, bytes: 1 << 20 }));
    }
}
