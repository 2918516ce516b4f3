//! When a connection is closed because the server sends no replies.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_server_that_sends_no_reply_while_one_is_pending_is_disconnected() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect();
    let start = Instant::now();
    let a = rig.call(get("a")).await;
    peer.expect("get a\r\n").await;
    // Bytes that are no whole reply are no sign of life.
    peer.send("VALUE a 0 10\r\n01").await;
    assert_failed(a.value().await, ErrorKind::Timeout, Delivery::Unknown);
    sleep(Duration::from_millis(500)).await;
    peer.send("23").await;
    let error = lost(driver).await.unwrap();
    assert_eq!(error.kind(), ErrorKind::Connection);
    assert!(start.elapsed() >= SILENCE_TIMEOUT && start.elapsed() < SILENCE_TIMEOUT + Duration::from_millis(50));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_accepts_a_large_value_slowly_stays_connected() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect_over(64);
    let body = "x".repeat(1000);
    let call = rig.call_within(set("k", &body), SILENCE_TIMEOUT * 10).await;
    let wire = format!("set k 0 0 1000\r\n{body}\r\n");
    for piece in wire.as_bytes().chunks(200) {
        sleep(SILENCE_TIMEOUT / 2).await;
        peer.expect(std::str::from_utf8(piece).unwrap()).await;
    }
    peer.send("STORED\r\n").await;
    assert_eq!(call.reply().await.unwrap(), Reply::Stored);
    assert!(!driver.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_pause_of_this_process_does_not_count_as_silence() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect();
    let a = rig.call(get("a")).await;
    peer.expect("get a\r\n").await;
    tokio::time::advance(SILENCE_TIMEOUT * 10).await;
    assert_failed(a.value().await, ErrorKind::Timeout, Delivery::Unknown);
    peer.send("END\r\n").await;
    rig.assert_serves(&mut peer).await;
    assert!(!driver.is_finished());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_stays_open() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect();
    rig.assert_serves(&mut peer).await;
    sleep(Duration::from_secs(3600)).await;
    assert!(!driver.is_finished());
    drop(peer);
    assert!(matches!(driver.await.unwrap(), End::Closed));
}
