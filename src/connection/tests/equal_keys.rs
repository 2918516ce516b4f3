//! Gets of equal keys in one batch: the key is encoded once, and its value completes all of them.

use super::*;

const VALUE_A: &str = "VALUE a 3 1\r\nA\r\n";

async fn assert_a(call: TestCall) {
    assert_eq!(call.value().await.unwrap().as_deref(), Some(&b"A"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_value_completes_every_get_of_its_key() {
    let rig = Rig::new();
    let calls = rig.calls(["a", "b", "a", "a"].map(get)).await;
    let (_driver, mut peer) = rig.connect();
    peer.expect("get a b\r\n").await;
    // Not deduplicated, because the key in flight is written already.
    let late = rig.call(get("a")).await;
    peer.send(&format!("{VALUE_A}END\r\n")).await;
    for (call, value) in calls.into_iter().zip([Some(&b"A"[..]), None, Some(b"A"), Some(b"A")]) {
        assert_eq!(call.value().await.unwrap().as_deref(), value);
    }
    peer.expect("get a\r\n").await;
    peer.send("END\r\n").await;
    assert_eq!(late.value().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_miss_completes_every_get_of_its_key_wherever_it_stands() {
    let rig = Rig::new();
    let calls = rig.calls(["a", "b", "c", "c", "b", "a"].map(get)).await;
    let (_driver, mut peer) = rig.connect();
    peer.expect("get a b c\r\n").await;
    peer.send("VALUE b 0 1\r\nB\r\nEND\r\n").await;
    for (call, value) in calls.into_iter().zip([None, Some(&b"B"[..]), None, None, Some(b"B"), None]) {
        assert_eq!(call.value().await.unwrap().as_deref(), value);
    }
    rig.queue.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_get_of_many_keys_shares_them_with_other_gets_and_within_itself() {
    let rig = Rig::new();
    let one = rig.call(get("c")).await;
    let many = rig.call(get_many(&["a", "b", "a", "c", "d"])).await;
    let (_driver, mut peer) = rig.connect();
    peer.expect("get c a b d\r\n").await;
    peer.send(&format!("VALUE c 0 1\r\nC\r\n{VALUE_A}VALUE d 0 1\r\nD\r\nEND\r\n")).await;
    assert_eq!(one.value().await.unwrap().as_deref(), Some(&b"C"[..]));
    let results = many.results().await;
    let values: Vec<_> = results.into_iter().map(|result| result.unwrap().map(|item| item.value)).collect();
    assert_eq!(values, [Some("A".into()), None, Some("A".into()), Some("C".into()), Some("D".into())]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_get_does_not_affect_gets_of_the_same_key() {
    for dropped in 0..3 {
        let rig = Rig::new();
        let mut calls = rig.calls(["a", "a", "a"].map(get)).await;
        let (_driver, mut peer) = rig.connect();
        peer.expect("get a\r\n").await;
        drop(calls.remove(dropped));
        peer.send(&format!("{VALUE_A}END\r\n")).await;
        for call in calls {
            assert_a(call).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_get_has_its_own_deadline() {
    let rig = Rig::new();
    let patient = rig.call_within(get("a"), SILENCE_TIMEOUT / 2).await;
    let urgent = rig.call(get("a")).await;
    let (_driver, mut peer) = rig.connect();
    peer.expect("get a\r\n").await;
    let start = Instant::now();
    assert_failed(urgent.value().await, ErrorKind::Timeout, Delivery::Unknown);
    assert!(start.elapsed() <= DEADLINE + Duration::from_millis(2));
    peer.send(&format!("{VALUE_A}END\r\n")).await;
    assert_a(patient).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_fails_every_get_of_a_key() {
    let rig = Rig::new();
    let calls = rig.calls(["a", "a"].map(get)).await;
    let (_driver, mut peer) = rig.connect();
    peer.expect("get a\r\n").await;
    drop(peer);
    for call in calls {
        assert_failed(call.value().await, ErrorKind::Connection, Delivery::Unknown);
    }
}

#[tokio::test(start_paused = true)]
async fn unwritten_gets_of_equal_keys_are_requeued_together() {
    let rig = Rig::new();
    // The first line fills the pipe; nothing of the second is written.
    let long: Vec<String> = (0..100).map(|n| format!("{n:0>60}")).collect();
    let first = rig.call(get_many(&long)).await;
    let (a, again) = (rig.call(get("a")).await, rig.call(get("a")).await);
    let repeat_of_written = rig.call(get(&long[0])).await;
    let (_driver, mut peer) = rig.connect_over(1024);
    peer.expect("get ").await;
    drop(peer);
    assert!(first.results().await.iter().all(Result::is_err));
    assert_failed(repeat_of_written.value().await, ErrorKind::Connection, Delivery::Unknown);
    let (_driver, mut peer) = rig.connect();
    peer.expect("get a\r\n").await;
    peer.send(&format!("{VALUE_A}END\r\n")).await;
    assert_a(a).await;
    assert_a(again).await;
}

#[tokio::test(start_paused = true)]
async fn equal_keys_of_touching_gets_are_each_encoded() {
    let rig = Rig::new();
    let calls = rig.calls([get("a"), gat("a", 5), gat("a", 5)]).await;
    let (_driver, mut peer) = rig.connect();
    peer.expect("get a\r\ngat 5 a a\r\n").await;
    peer.send(&format!("{VALUE_A}END\r\n{VALUE_A}{VALUE_A}END\r\n")).await;
    for call in calls {
        assert_a(call).await;
    }
}
