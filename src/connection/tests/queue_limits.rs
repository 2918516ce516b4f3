//! The limits of a queue, and the callers that wait for space in it.

use super::super::queue::Availability;
use super::deadlines::{LONG, SHORT};
use super::*;

/// A caller that waits for space in the queue for at most `limit`.
fn spawn_caller(rig: &Rig, request: Request, limit: Duration) -> JoinHandle<Result<TestCall, Error>> {
    let queue = Arc::clone(&rig.queue);
    tokio::spawn(async move { TestCall::queue(&queue, request, Instant::now() + limit).await })
}

#[tokio::test(start_paused = true)]
async fn bytes_are_limited_as_calls_are() {
    let rig = Rig::with_limits(4096, 1000);
    let body = "x".repeat(600);
    let _first = rig.call(set("first", &body)).await;
    assert_failed(rig.try_call(set("second", &body)).await, ErrorKind::Overloaded, Delivery::NotSent);
    rig.call(get("small")).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_larger_than_the_whole_queue_is_queued_alone() {
    let rig = Rig::with_limits(4096, 1000);
    let body = "x".repeat(5000);
    let _heavy = rig.call(set("heavy", &body)).await;
    assert_failed(rig.try_call(get("light")).await, ErrorKind::Overloaded, Delivery::NotSent);
}

#[tokio::test(start_paused = true)]
async fn callers_waiting_for_space_fail_when_the_node_becomes_unavailable() {
    let rig = Rig::with_limits(1, 1 << 20);
    let _queued = rig.call_within(get("a"), LONG).await;
    let start = Instant::now();
    let waiting = spawn_caller(&rig, get("b"), LONG);
    sleep(SHORT).await;
    rig.queue.mark_unavailable(&Error::not_sent(ErrorKind::Unavailable));
    assert_failed(waiting.await.unwrap(), ErrorKind::Unavailable, Delivery::NotSent);
    assert!(start.elapsed() <= SHORT + SHORT, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_in_the_queue_frees_space() {
    let rig = Rig::with_limits(1, 1 << 20);
    let start = Instant::now();
    let _late = rig.call_within(get("a"), SHORT).await;
    spawn_caller(&rig, get("b"), LONG).await.unwrap().unwrap();
    assert!(start.elapsed() <= SHORT + SHORT, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn callers_waiting_for_space_get_it_at_once() {
    let rig = Rig::with_limits(1, 1 << 20);
    let (_driver, mut peer) = rig.connect();
    let first = rig.call(get("a")).await;
    peer.expect("get a\r\n").await;
    let second = rig.call(get("b")).await;
    let third = spawn_caller(&rig, get("c"), DEADLINE);
    sleep(Duration::from_millis(10)).await;
    assert!(!third.is_finished());
    // Dropping a queued call frees its space.
    drop(second);
    let third = third.await.unwrap().unwrap();
    peer.send("END\r\n").await;
    peer.expect("get c\r\n").await;
    peer.send("END\r\n").await;
    assert_eq!(first.value().await.unwrap(), None);
    assert_eq!(third.value().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_node_fails_queued_and_new_calls() {
    let rig = Rig::new();
    let waiting = rig.call(get("a")).await;
    let error = Error::not_sent(ErrorKind::Unavailable);
    rig.queue.mark_unavailable(&error);
    assert_failed(waiting.value().await, ErrorKind::Unavailable, Delivery::NotSent);
    assert_failed(rig.try_call(get("b")).await, ErrorKind::Unavailable, Delivery::NotSent);
    rig.queue.mark_available();
    rig.call(get("c")).await;
}

#[tokio::test(start_paused = true)]
async fn callers_waiting_for_space_get_it_when_a_connection_takes_a_batch() {
    let rig = Rig::with_limits(1, 1 << 20);
    let first = rig.call_within(get("a"), LONG).await;
    let second = spawn_caller(&rig, get("b"), LONG);
    sleep(SHORT).await;
    assert!(!second.is_finished());
    let (_driver, mut peer) = rig.connect();
    peer.expect("get a\r\n").await;
    // Queued without a reply to the first call.
    let second = timeout(SHORT, second).await.unwrap().unwrap().unwrap();
    peer.send("END\r\n").await;
    peer.expect("get b\r\n").await;
    peer.send("END\r\n").await;
    assert_eq!((first.value().await.unwrap(), second.value().await.unwrap()), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_closed_queue_stays_closed() {
    let rig = Rig::new();
    rig.queue.close(CloseReason::NodeLeft);
    rig.queue.mark_available();
    assert!(matches!(rig.queue.availability(), Availability::Closed(_)));
    rig.queue.mark_unavailable(&Error::not_sent(ErrorKind::Auth));
    assert!(matches!(rig.queue.availability(), Availability::Closed(_)));
    assert_failed(rig.try_call(get("a")).await, ErrorKind::Unavailable, Delivery::NotSent);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_calls_of_a_long_queue_takes_constant_time_each() {
    let rig = Rig::with_limits(50_000, usize::MAX);
    let mut calls = rig.calls((0..50_000).map(|_| get("k"))).await;
    fastrand::shuffle(&mut calls);
    let start = std::time::Instant::now();
    drop(calls);
    let took = start.elapsed();
    // A search of the queue for each call takes ten times as long.
    assert!(took < Duration::from_secs(2), "{took:?}");
    rig.queue.assert_empty();
}
