//! Who gets into the queue, who is told that there is room, and who goes back into it.

use super::deadlines::{LONG, SHORT, ask_within};
use super::*;

/// One who waits at the door for `limit`.
fn knock(rig: &Rig, request: Request, limit: Duration) -> tokio::task::JoinHandle<Result<ResponseFuture, Error>> {
    let queue = Arc::clone(&rig.queue);
    tokio::spawn(async move { queue.enter(&Arc::new(Call::new(request, Instant::now() + limit))).await })
}

#[tokio::test(start_paused = true)]
async fn bytes_are_bounded_as_calls_are() {
    let rig = Rig::with_limits(4096, 1000);
    let body = "x".repeat(600);
    let _first = rig.ask(set("first", &body)).await;
    assert_failed(rig.try_ask(set("second", &body)).await, ErrorKind::Overloaded, Delivery::NotSent);
    rig.ask(get("small")).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_heavier_than_the_whole_queue_passes_alone() {
    let rig = Rig::with_limits(4096, 1000);
    let body = "x".repeat(5000);
    let _heavy = rig.ask(set("heavy", &body)).await;
    assert_failed(rig.try_ask(get("light")).await, ErrorKind::Overloaded, Delivery::NotSent);
}

#[tokio::test(start_paused = true)]
async fn those_at_the_door_of_an_unreachable_node_are_told() {
    let rig = Rig::with_limits(1, 1 << 20);
    let _inside = ask_within(&rig.queue, get("a"), LONG).await;
    let start = Instant::now();
    let outside = knock(&rig, get("b"), LONG);
    tokio::time::sleep(SHORT).await;
    rig.queue.mark_unavailable(&Error::not_sent(ErrorKind::Unavailable));
    assert_failed(outside.await.unwrap(), ErrorKind::Unavailable, Delivery::NotSent);
    assert!(start.elapsed() <= SHORT + SHORT, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_in_the_queue_makes_room() {
    let rig = Rig::with_limits(1, 1 << 20);
    let start = Instant::now();
    let _late = ask_within(&rig.queue, get("a"), SHORT).await;
    knock(&rig, get("b"), LONG).await.unwrap().unwrap();
    assert!(start.elapsed() <= SHORT + SHORT, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_any_more_is_not_sent_a_second_time() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect_with_room(64);
    let body = "x".repeat(1000);
    let _first = rig.ask(set("first", &body)).await;
    let second = rig.ask(set("second", &body)).await;
    let third = rig.ask(incr("third", 1)).await;
    peer.expect("set first 0 0 1000\r\n").await;
    // Taken by the connection, and not yet written.
    drop(second);
    drop(peer);
    assert!(matches!(driver.await.unwrap(), End::Lost(_)));
    let (_driver, mut peer) = rig.connect();
    peer.expect("incr third 1\r\n").await;
    peer.send("NOT_FOUND\r\n").await;
    assert_eq!(outcome(third).await.unwrap(), Reply::NotFound);
}

#[tokio::test(start_paused = true)]
async fn keys_in_several_lines_go_back_as_the_one_call_they_are() {
    let many = |prefix: &str, count: usize| {
        let keys: Vec<String> = (0..count).map(|index| format!("{prefix}-{index}")).collect();
        let asked = keys.iter().map(|key| crate::key::Key::new(key).unwrap()).collect();
        (keys, Request::Get { keys: Keys::Many(asked), cas: false, touch: None })
    };
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect_with_room(64);
    let ((_, first), (keys, second)) = (many("first", 100), many("second", 250));
    let (first, second) = (rig.ask(first).await, rig.ask(second).await);
    peer.expect("get first-0 ").await;
    drop(peer);
    assert!(matches!(driver.await.unwrap(), End::Lost(_)));
    let Answer::Many(lookups) = first.await else { panic!("not many") };
    for lookup in lookups {
        assert_failed(lookup, ErrorKind::Connection, Delivery::Unknown);
    }
    let (_driver, mut peer) = rig.connect();
    for line in keys.chunks(100) {
        peer.expect(&format!("get {}\r\n", line.join(" "))).await;
    }
    peer.expect_nothing().await;
    peer.send("END\r\nEND\r\nEND\r\n").await;
    let Answer::Many(lookups) = second.await else { panic!("not many") };
    assert!(lookups.len() == 250 && lookups.into_iter().all(|lookup| lookup.unwrap().is_none()));
}
