//! Several connections to one queue that fail, hang and come back: every call completes by its deadline, and correctly.

use proptest::prelude::*;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};

use super::*;

/// One connection, from its dial to its end.
#[derive(Debug, Clone)]
struct Life {
    /// How long the dial takes, in milliseconds.
    dial: u64,
    /// How many bytes the pipe holds.
    pipe_bytes: usize,
    /// How long the reply to each line takes, in milliseconds.
    lag: u64,
    /// How many lines are answered before the connection ends.
    lines: usize,
    /// The server falls silent then, and does not close the connection.
    hangs: bool,
}

#[derive(Debug, Clone)]
struct Step {
    /// Before the call, in milliseconds.
    pause: u64,
    deadline: u64,
    is_set: bool,
    size: usize,
}

fn lives() -> impl Strategy<Value = Vec<Life>> {
    let life = (0u64..300, 16usize..3000, 0u64..40, 0usize..6, prop::bool::weighted(0.3));
    let life = life.prop_map(|(dial, pipe_bytes, lag, lines, hangs)| Life { dial, pipe_bytes, lag, lines, hangs });
    prop::collection::vec(life, 1..8)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pause = prop_oneof![3 => Just(0), 2 => 0u64..60];
    let step = (pause, 1u64..600, any::<bool>(), 0usize..2000);
    let step = step.prop_map(|(pause, deadline, is_set, size)| Step { pause, deadline, is_set, size });
    prop::collection::vec(step, 1..60)
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

/// Opens one connection after another, as a reconnector does.
async fn reconnect(queue: Arc<Queue>, task: usize, lives: Vec<Life>) {
    for life in lives.iter().cycle() {
        // At least 1 ms, because in a loop without a wait the paused time would not advance.
        sleep(Duration::from_millis(life.dial + 1)).await;
        let (ours, theirs) = tokio::io::duplex(life.pipe_bytes);
        let _server = tokio::spawn(serve(theirs, life.clone()));
        new_driver(ours, &queue, task).run().await;
    }
}

async fn run(steps: Vec<Step>, connections: Vec<Vec<Life>>, limits: QueueLimits) {
    let queue = swept_queue(limits, connections.len());
    let mut reconnectors = JoinSet::new();
    for (task, lives) in connections.into_iter().enumerate() {
        reconnectors.spawn(reconnect(Arc::clone(&queue), task, lives));
    }
    let mut callers = JoinSet::new();
    for (index, step) in steps.into_iter().enumerate() {
        sleep(Duration::from_millis(step.pause)).await;
        let queue = Arc::clone(&queue);
        callers.spawn(async move {
            let key = format!("key-{index}");
            let request = if step.is_set { set(&key, &"x".repeat(step.size)) } else { get(&key) };
            let (start, limit) = (Instant::now(), Duration::from_millis(step.deadline));
            let response = async {
                match TestCall::queue(&queue, request, start + limit).await {
                    Ok(call) => match call.any().await {
                        AnyResponse::Get(Ok(found)) => assert_eq!(found.expect("a miss").value, key),
                        AnyResponse::Reply(reply) => assert!(reply.is_err() || reply.unwrap() == Reply::Stored),
                        AnyResponse::Get(Err(_)) | AnyResponse::GetMany(_) | AnyResponse::MetaRun(_) => {}
                    },
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Overloaded),
                }
            };
            timeout(limit + Duration::from_millis(50), response).await.expect("a deadline was not kept");
        });
    }
    join_all(callers).await;
    queue.assert_empty();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn every_call_completes_by_its_deadline(
        steps in steps(),
        connections in prop::collection::vec(lives(), 1..4),
        calls in prop_oneof![Just(3), Just(4096)],
    ) {
        run_paused(run(steps, connections, QueueLimits { calls, bytes: 1 << 20 }));
    }
}
