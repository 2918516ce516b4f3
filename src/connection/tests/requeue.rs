//! What becomes of the calls of a connection that ends.

use super::*;

#[tokio::test(start_paused = true)]
async fn unwritten_calls_go_to_the_next_connection() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect_over(64);
    let body = "x".repeat(1000);
    let (first, second) = (rig.call(set("first", &body)).await, rig.call(set("second", &body)).await);
    let third = rig.call(incr("third", 1)).await;
    peer.expect("set first 0 0 1000\r\n").await;
    drop(peer);
    lost(driver).await.unwrap();
    assert_failed(first.reply().await, ErrorKind::Connection, Delivery::Unknown);
    let (_driver, mut peer) = rig.connect();
    peer.expect(&format!("set second 0 0 1000\r\n{body}\r\nincr third 1\r\n")).await;
    peer.send("STORED\r\nNOT_FOUND\r\n").await;
    assert_eq!(second.reply().await.unwrap(), Reply::Stored);
    assert_eq!(third.reply().await.unwrap(), Reply::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_is_not_requeued() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect_over(64);
    let body = "x".repeat(1000);
    let _first = rig.call(set("first", &body)).await;
    let second = rig.call(set("second", &body)).await;
    let third = rig.call(incr("third", 1)).await;
    peer.expect("set first 0 0 1000\r\n").await;
    // The connection has taken the call, and not written it yet.
    drop(second);
    drop(peer);
    lost(driver).await.unwrap();
    let (_driver, mut peer) = rig.connect();
    peer.expect("incr third 1\r\n").await;
    peer.send("NOT_FOUND\r\n").await;
    assert_eq!(third.reply().await.unwrap(), Reply::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_keys_span_several_lines_is_requeued_once() {
    let keys = |prefix: &str, count: usize| (0..count).map(|n| format!("{prefix}-{n}")).collect::<Vec<_>>();
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect_over(64);
    let keys_of_second = keys("second", 250);
    let first = rig.call(get_many(&keys("first", 100))).await;
    let second = rig.call(get_many(&keys_of_second)).await;
    peer.expect("get first-0 ").await;
    drop(peer);
    lost(driver).await.unwrap();
    for result in first.results().await {
        assert_failed(result, ErrorKind::Connection, Delivery::Unknown);
    }
    let (_driver, mut peer) = rig.connect();
    for line in keys_of_second.chunks(100) {
        peer.expect(&format!("get {}\r\n", line.join(" "))).await;
    }
    peer.expect_nothing().await;
    peer.send("END\r\nEND\r\nEND\r\n").await;
    let results = second.results().await;
    assert!(results.len() == 250 && results.into_iter().all(|result| result.unwrap().is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_driver_fails_its_calls() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect();
    let a = rig.call(get("a")).await;
    peer.expect("get a\r\n").await;
    driver.abort();
    assert_failed(a.value().await, ErrorKind::Connection, Delivery::Unknown);
}
