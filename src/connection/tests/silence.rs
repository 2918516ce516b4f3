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

/// The wire of a value of `announced` bytes, in pieces of `piece` bytes. The first has the line before it, too.
fn value_in_pieces(announced: usize, piece: usize) -> Vec<String> {
    let body = format!("{}\r\nEND\r\n", "x".repeat(announced));
    let mut pieces: Vec<_> =
        body.as_bytes().chunks(piece).map(|piece| String::from_utf8(piece.to_vec()).unwrap()).collect();
    pieces[0].insert_str(0, &format!("VALUE a 0 {announced}\r\n"));
    pieces
}

/// Sends the pieces of a value in equal intervals, and returns how long the connection lasted.
async fn trickle(pieces: Vec<String>, interval: Duration) -> (Duration, Result<usize, Error>) {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect();
    let start = Instant::now();
    let a = rig.call_within(get("a"), SILENCE_TIMEOUT * 1000).await;
    let behind = rig.call_within(get("b"), SILENCE_TIMEOUT * 1000).await;
    peer.expect("get a b\r\n").await;
    let sender = tokio::spawn(async move {
        for piece in pieces {
            sleep(interval).await;
            if !peer.try_send(&piece).await {
                return None;
            }
        }
        Some(peer)
    });
    // Without the time limit of other calls.
    let AnyResponse::Get(result) = a.any().await else { panic!("not the response to a get") };
    let lasted = start.elapsed();
    if let Some(mut peer) = sender.await.unwrap() {
        assert_eq!(behind.value().await.unwrap(), None);
        rig.assert_serves(&mut peer).await;
        assert!(!driver.is_finished());
    } else {
        lost(driver).await.unwrap();
        assert_failed(behind.value().await, ErrorKind::Connection, Delivery::Unknown);
    }
    (lasted, result.map(|item| item.map_or(0, |item| item.value.len())))
}

#[tokio::test(start_paused = true)]
async fn a_value_that_arrives_slowly_is_a_sign_of_life() {
    let second = SILENCE_TIMEOUT;
    // A megabyte, 50 KB each tenth of a second.
    let (lasted, value) = trickle(value_in_pieces(MAX_VALUE, 50_000), second / 10).await;
    assert_eq!(value.unwrap(), MAX_VALUE);
    assert!(lasted > second * 2);
    // The least that counts: 16 KiB, or a 32nd of a larger value, within the silence timeout.
    for (announced, least) in [(100_000, 16 * 1024), (MAX_VALUE, MAX_VALUE / 32)] {
        let (lasted, value) = trickle(value_in_pieces(announced, least / 4), second / 5).await;
        assert_eq!(value.unwrap(), announced);
        assert!(lasted > second * 4, "{lasted:?}");
        let (lasted, value) = trickle(value_in_pieces(announced, least / 8), second / 5).await;
        assert_failed(value, ErrorKind::Connection, Delivery::Unknown);
        assert!(lasted < second * 2, "{lasted:?}");
    }
    // A value over the client's limit is dropped as it arrives.
    let (lasted, value) = trickle(value_in_pieces(MAX_VALUE + 1, 50_000), second / 10).await;
    assert_failed(value, ErrorKind::TooLarge, Delivery::Answered);
    assert!(lasted > second * 2);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_trickles_is_given_up_within_a_bound() {
    for announced in [1_000, 10_000, 100_000, MAX_VALUE, 4 * MAX_VALUE] {
        // A byte each tenth of a second, after a good start.
        let start = value_in_pieces(announced, announced / 2).swap_remove(0);
        let pieces = [start].into_iter().chain((0..100).map(|_| "x".to_owned()));
        let (lasted, value) = trickle(pieces.collect(), SILENCE_TIMEOUT / 10).await;
        assert_failed(value, ErrorKind::Connection, Delivery::Unknown);
        assert!(lasted < SILENCE_TIMEOUT * 3 / 2, "{announced} bytes: {lasted:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn garbage_and_parts_of_lines_are_no_sign_of_life() {
    // Each is the beginning of a line that may go on.
    for piece in ["V", "VALUE a 0 0000000", "SERVER_ERROR ", "\0"] {
        let pieces = [piece.to_owned()].into_iter().chain((0..100).map(|_| "0".repeat(10)));
        let (lasted, value) = trickle(pieces.collect(), SILENCE_TIMEOUT / 10).await;
        assert_failed(value, ErrorKind::Connection, Delivery::Unknown);
        assert!(lasted < SILENCE_TIMEOUT * 3 / 2, "{piece:?}: {lasted:?}");
    }
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

/// Each timer fires a little late, here because tokio's count whole milliseconds.
#[tokio::test(start_paused = true)]
async fn many_different_deadlines_do_not_delay_the_silence_timeout() {
    let rig = Rig::new();
    let mut calls = Vec::new();
    for number in 0..900 {
        let limit = Duration::from_micros(1_000 * number + 1_100);
        calls.push(rig.call_within(get(&format!("key-{number}")), limit).await);
    }
    let start = Instant::now();
    let (driver, mut peer) = rig.connect();
    peer.expect("get key-0 ").await;
    for call in calls {
        assert_failed(call.value().await, ErrorKind::Timeout, Delivery::Unknown);
    }
    lost(driver).await.unwrap();
    let took = start.elapsed();
    assert!(took < SILENCE_TIMEOUT + Duration::from_millis(50), "{took:?}");
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
