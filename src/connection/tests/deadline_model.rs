//! A model of a node: its queue, the sweeper, and connections that come and go in every order. No queued call outlives
//! its deadline, not even if no connection ever acts on a wake-up.
//!
//! The queue and the sweeper are the real ones. Connections are reduced to what they do to the queue.

use std::collections::VecDeque;
use std::task::Waker;

use proptest::prelude::*;
use tokio::task::yield_now;
use tokio::time::advance;

use super::super::call::Call;
use super::test_call::new_call;
use super::*;

const SLACK: Duration = Duration::from_millis(50);
const TICK: Duration = Duration::from_millis(20);
const DEADLINES: [Duration; 2] = [Duration::from_millis(30), Duration::from_millis(90)];

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A caller queues a call with the deadline of this index.
    Push(usize),
    /// The oldest caller that waits drops its future.
    Cancel,
    /// A connection takes what is queued, or finds nothing and is idle.
    Take(usize),
    /// A connection has replies to all that it took.
    Complete(usize),
    /// A connection is opened, or else it is lost after half of what it took was written.
    Toggle(usize),
    /// The last dial failed.
    Refuse,
    /// The next dial comes at once.
    Accept,
    /// The node leaves: connections that are down end, the others serve the queue.
    Retire,
    Tick,
}

fn steps_with(connections: usize) -> Vec<Step> {
    let each = (0..connections).flat_map(|index| [Step::Take(index), Step::Complete(index), Step::Toggle(index)]);
    let others = [Step::Push(0), Step::Push(1), Step::Cancel, Step::Refuse, Step::Accept, Step::Retire, Step::Tick];
    each.chain(others).collect()
}

#[derive(Debug)]
enum Connection {
    Down,
    Up(VecDeque<Arc<Call>>),
    /// Its reconnector has ended, because the node is retired.
    Ended,
}

/// A node with paused time. Wakers of connections do nothing, because the steps decide when a connection acts.
struct Model {
    queue: Arc<Queue>,
    sweeper: JoinHandle<()>,
    connections: Vec<Connection>,
    is_retired: bool,
    /// The calls whose callers wait.
    waiting: VecDeque<Arc<Call>>,
}

impl Model {
    fn new(connections: usize) -> Self {
        let queue = Arc::new(Queue::new(node(), QueueLimits { calls: 4096, bytes: 1 << 20 }, connections));
        let sweeper = tokio::spawn(DeadlineSweeper::new(Arc::clone(&queue)).run());
        let connections = std::iter::repeat_with(|| Connection::Down).take(connections).collect();
        Self { queue, sweeper, connections, is_retired: false, waiting: VecDeque::new() }
    }

    async fn apply(&mut self, step: Step) {
        match step {
            Step::Push(index) => {
                let call = new_call(get("a"), Instant::now() + DEADLINES[index]);
                if self.queue.push(&call).is_ok() {
                    self.waiting.push_back(call);
                }
            }
            Step::Cancel => {
                if let Some(call) = self.waiting.pop_front() {
                    self.queue.cancel(&call);
                    call.abandon();
                }
            }
            Step::Take(index) => self.take(index),
            Step::Complete(index) => {
                if let Connection::Up(taken) = &mut self.connections[index] {
                    taken.drain(..).for_each(|call| drop(call.settle(0, Ok(None))));
                }
            }
            Step::Toggle(index) => self.toggle(index),
            Step::Refuse => self.queue.mark_unavailable(&Error::not_sent(ErrorKind::Unavailable)),
            Step::Accept => self.queue.mark_available(),
            Step::Retire => self.retire(),
            Step::Tick => advance(TICK).await,
        }
        // The tasks that were woken run: the sweeper, and nothing else.
        for _ in 0..3 {
            yield_now().await;
        }
        self.assert_deadlines_kept();
    }

    fn take(&mut self, index: usize) {
        let Connection::Up(taken) = &mut self.connections[index] else { return };
        if !taken.is_empty() {
            return;
        }
        self.queue.take_batch(index, Waker::noop(), taken);
        if taken.is_empty() && self.is_retired {
            self.queue.close(CloseReason::NodeLeft);
            self.connections[index] = Connection::Ended;
            self.queue.leave(index);
        }
    }

    fn toggle(&mut self, index: usize) {
        self.connections[index] = match std::mem::replace(&mut self.connections[index], Connection::Down) {
            Connection::Down => {
                self.queue.mark_available();
                Connection::Up(VecDeque::new())
            }
            Connection::Up(mut taken) => {
                let unsent = taken.split_off(taken.len() / 2);
                let error = Error::new(ErrorKind::Connection, Delivery::Unknown);
                taken.into_iter().for_each(|call| drop(call.fail(&error)));
                self.queue.requeue(unsent.into_iter());
                self.queue.leave(index);
                if self.is_retired { Connection::Ended } else { Connection::Down }
            }
            Connection::Ended => Connection::Ended,
        };
        self.close_after_last();
    }

    fn retire(&mut self) {
        self.is_retired = true;
        let down = self.connections.iter_mut().filter(|connection| matches!(connection, Connection::Down));
        down.for_each(|connection| *connection = Connection::Ended);
        self.close_after_last();
    }

    fn close_after_last(&self) {
        if self.connections.iter().all(|connection| matches!(connection, Connection::Ended)) {
            self.queue.close(CloseReason::NodeLeft);
        }
    }

    /// A connection keeps the deadlines of the calls that it took itself.
    fn is_taken(&self, call: &Arc<Call>) -> bool {
        self.connections.iter().any(|connection| match connection {
            Connection::Up(taken) => taken.iter().any(|other| Arc::ptr_eq(other, call)),
            Connection::Down | Connection::Ended => false,
        })
    }

    fn assert_deadlines_kept(&mut self) {
        self.waiting.retain(|call| !call.is_over());
        let now = Instant::now();
        let late = self.waiting.iter().find(|call| now > call.deadline() + SLACK && !self.is_taken(call));
        assert!(late.is_none(), "queued {:?} after its deadline", late.map(|call| now - call.deadline()));
    }

    /// Lets every deadline pass.
    async fn finish(mut self) {
        for _ in 0..8 {
            self.apply(Step::Tick).await;
        }
        self.sweeper.abort();
        let _ = self.sweeper.await;
        assert!(self.queue.push(&new_call(get("a"), Instant::now())).is_err(), "open without a sweeper");
    }
}

/// Runs every sequence of `length` steps on a node with so many connections.
fn run_every_sequence(connections: usize, length: u32) {
    run_paused(async {
        let steps = steps_with(connections);
        for number in 0..steps.len().pow(length) {
            let sequence = (0..length).map(|place| steps[number / steps.len().pow(place) % steps.len()]);
            let mut model = Model::new(connections);
            for step in sequence {
                model.apply(step).await;
            }
            model.finish().await;
        }
    });
}

#[test]
fn no_order_of_a_few_events_breaks_a_deadline() {
    run_every_sequence(1, 4);
    run_every_sequence(2, 4);
    run_every_sequence(3, 3);
}

fn step(connections: usize) -> impl Strategy<Value = Step> {
    prop::sample::select(steps_with(connections))
}

proptest! {
    #[test]
    fn no_long_sequence_of_events_breaks_a_deadline(
        (connections, sequence) in (1usize..4).prop_flat_map(|connections| {
            (Just(connections), prop::collection::vec(step(connections), 0..100))
        }),
    ) {
        run_paused(async {
            let mut model = Model::new(connections);
            for step in sequence {
                model.apply(step).await;
            }
            model.finish().await;
        });
    }
}
