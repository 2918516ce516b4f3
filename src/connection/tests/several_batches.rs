//! Over a longer link several batches are in flight.

use super::requests::meta_get;
use super::*;

const ROUND_TRIP: Duration = Duration::from_millis(1);

/// Exchanges as many batches as it takes to measure the round trip.
async fn measure_round_trip(rig: &Rig, peer: &mut Peer) {
    for _ in 0..16 {
        let call = rig.call(get("a")).await;
        peer.expect("get a\r\n").await;
        sleep(ROUND_TRIP).await;
        peer.send("END\r\n").await;
        assert_eq!(call.value().await.unwrap(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn batches_follow_gets_and_stores_and_no_other_command() {
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect();
    measure_round_trip(&rig, &mut peer).await;
    let a = rig.call(get("a")).await;
    peer.expect("get a\r\n").await;
    let b = rig.call(get("b")).await;
    peer.expect("get b\r\n").await;
    let stored = rig.call(set("k", "v")).await;
    peer.expect("set k 0 0 1\r\nv\r\n").await;
    let counted = rig.call(incr("n", 1)).await;
    peer.expect("incr n 1\r\n").await;
    // An error to this get might take the place of the number.
    let late = rig.call(get("c")).await;
    peer.expect_nothing().await;
    peer.send("VALUE a 0 1\r\nA\r\nEND\r\nVALUE b 0 1\r\nB\r\nEND\r\n").await;
    assert_eq!(a.value().await.unwrap().as_deref(), Some(&b"A"[..]));
    assert_eq!(b.value().await.unwrap().as_deref(), Some(&b"B"[..]));
    peer.expect_nothing().await;
    peer.send("STORED\r\n").await;
    assert_eq!(stored.reply().await.unwrap(), Reply::Stored);
    peer.expect_nothing().await;
    peer.send("3\r\n").await;
    assert_eq!(counted.reply().await.unwrap(), Reply::Number(3));
    peer.expect("get c\r\n").await;
    peer.send("END\r\n").await;
    assert_eq!(late.value().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_key_in_flight_is_requested_again() {
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect();
    measure_round_trip(&rig, &mut peer).await;
    let first = rig.call(get("a")).await;
    peer.expect("get a\r\n").await;
    // The server may have read the item already, and it may have changed since.
    let second = rig.call(get("a")).await;
    peer.expect("get a\r\n").await;
    peer.send("VALUE a 0 1\r\n1\r\nEND\r\nVALUE a 0 1\r\n2\r\nEND\r\n").await;
    assert_eq!(first.value().await.unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(second.value().await.unwrap().as_deref(), Some(&b"2"[..]));
}

#[tokio::test(start_paused = true)]
async fn the_version_probe_is_sent_alone() {
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect();
    measure_round_trip(&rig, &mut peer).await;
    let a = rig.call(get("a")).await;
    peer.expect("get a\r\n").await;
    let c = rig.call(get("c")).await;
    peer.expect("get c\r\n").await;
    let meta = rig.call(meta_get("k", "v")).await;
    peer.expect_nothing().await;
    peer.send("END\r\n").await;
    assert_eq!(a.value().await.unwrap(), None);
    peer.expect_nothing().await;
    peer.send("END\r\n").await;
    assert_eq!(c.value().await.unwrap(), None);
    peer.expect("version\r\n").await;
    let b = rig.call(get("b")).await;
    peer.expect_nothing().await;
    peer.send("VERSION 1.6.18\r\n").await;
    peer.expect("get b\r\nmg k v O0\r\n").await;
    peer.send("END\r\nEN\r\n").await;
    assert_eq!(b.value().await.unwrap(), None);
    drop(meta);
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_disconnected_as_soon_as_on_a_short_link() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect();
    measure_round_trip(&rig, &mut peer).await;
    let start = Instant::now();
    // Requests are sent again and again, and no reply arrives.
    let mut calls = Vec::new();
    for _ in 0..10 {
        calls.push(rig.call(get("a")).await);
        sleep(SILENCE_TIMEOUT / 12).await;
    }
    timeout(SILENCE_TIMEOUT, lost(driver)).await.unwrap().unwrap();
    assert!(start.elapsed() <= SILENCE_TIMEOUT + SILENCE_TIMEOUT / 100, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_finds_the_window_full_has_its_deadline_kept() {
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect();
    measure_round_trip(&rig, &mut peer).await;
    // No sweep is due any more.
    sleep(2 * DEADLINE).await;
    let in_flight = rig.call(get_many(&["a", "b"])).await;
    peer.expect("get a b\r\n").await;
    // This first reply shortens the round trip, and so the window: until now another batch could have followed.
    peer.send("VALUE a 0 1\r\nA\r\n").await;
    sleep(ROUND_TRIP).await;
    let start = Instant::now();
    let late = rig.call(get("c")).await;
    peer.expect_nothing().await;
    assert_failed(late.value().await, ErrorKind::Timeout, Delivery::NotSent);
    assert!(start.elapsed() <= DEADLINE + Duration::from_millis(2), "{:?}", start.elapsed());
    drop(in_flight);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_finds_the_window_full_is_served_by_another_connection() {
    let rig = Rig::new();
    let connect = |task| {
        let (ours, theirs) = tokio::io::duplex(1024);
        spawn(new_driver(ours, &rig.queue, task));
        Peer::new(theirs)
    };
    let mut full = connect(0);
    measure_round_trip(&rig, &mut full).await;
    let in_flight = rig.call(get_many(&["a", "b"])).await;
    full.expect("get a b\r\n").await;
    full.send("VALUE a 0 1\r\nA\r\n").await;
    let mut other = connect(1);
    sleep(ROUND_TRIP).await;
    let _late = rig.call(get("c")).await;
    other.expect("get c\r\n").await;
    drop(in_flight);
}

#[tokio::test(start_paused = true)]
async fn no_call_is_taken_from_the_queue_while_a_write_is_blocked() {
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect_over(1024);
    measure_round_trip(&rig, &mut peer).await;
    let body = "x".repeat(10_000);
    let stored = rig.call(set("k", &body)).await;
    peer.expect("set k 0 0 10000\r\n").await;
    let patient = rig.call_within(get("b"), SILENCE_TIMEOUT / 2).await;
    // This call fails as not sent.
    let urgent = rig.call(get("a")).await;
    assert_failed(urgent.value().await, ErrorKind::Timeout, Delivery::NotSent);
    assert_failed(stored.reply().await, ErrorKind::Timeout, Delivery::Unknown);
    // The other is sent as soon as the server reads on, and not only when it replies.
    peer.expect(&format!("{body}\r\nget b\r\n")).await;
    peer.send("STORED\r\nVALUE b 0 1\r\nB\r\nEND\r\n").await;
    assert_eq!(patient.value().await.unwrap().as_deref(), Some(&b"B"[..]));
    rig.queue.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn on_a_short_link_the_next_batch_waits_for_the_end_of_a_retrieval() {
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect();
    let first = rig.call(get("a")).await;
    peer.expect("get a\r\n").await;
    peer.send("VALUE a 0 1\r\nA\r\n").await;
    assert_eq!(first.value().await.unwrap().as_deref(), Some(&b"A"[..]));
    // Otherwise no version probe, which is sent alone, could be sent to a server that sends `END` apart.
    let second = rig.call(get("b")).await;
    peer.expect_nothing().await;
    peer.send("END\r\n").await;
    peer.expect("get b\r\n").await;
    peer.send("END\r\n").await;
    assert_eq!(second.value().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_call_refused_for_the_servers_version_does_not_delay_others() {
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect();
    measure_round_trip(&rig, &mut peer).await;
    let refused = rig.call(meta_get("k", "v")).await;
    peer.expect("version\r\n").await;
    sleep(ROUND_TRIP).await;
    peer.send("VERSION 1.4.39\r\n").await;
    assert_failed(refused.reply().await, ErrorKind::Unsupported, Delivery::NotSent);
    let a = rig.call(get("a")).await;
    peer.expect("get a\r\n").await;
    let refused = rig.call(meta_get("k", "v")).await;
    assert_failed(refused.reply().await, ErrorKind::Unsupported, Delivery::NotSent);
    let start = Instant::now();
    let b = rig.call(get("b")).await;
    peer.expect("get b\r\n").await;
    assert!(start.elapsed() < ROUND_TRIP, "{:?}", start.elapsed());
    peer.send("END\r\nEND\r\n").await;
    assert_eq!(a.value().await.unwrap(), None);
    assert_eq!(b.value().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_later_batch_does_not_delay_the_deadlines_of_an_earlier_one() {
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect();
    measure_round_trip(&rig, &mut peer).await;
    sleep(2 * DEADLINE).await;
    let start = Instant::now();
    let urgent = rig.call(get("a")).await;
    peer.expect("get a\r\n").await;
    let _patient = rig.call_within(get("b"), 3 * DEADLINE).await;
    peer.expect("get b\r\n").await;
    assert_failed(urgent.value().await, ErrorKind::Timeout, Delivery::Unknown);
    assert!(start.elapsed() <= DEADLINE + Duration::from_millis(2), "{:?}", start.elapsed());
}
