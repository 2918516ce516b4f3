//! How queued calls become batches, and how replies complete them.

use super::*;

#[tokio::test(start_paused = true)]
async fn queued_gets_share_one_line_and_each_caller_gets_its_own_value() {
    let rig = Rig::new();
    let calls = rig.calls(["a", "b", "c", "d"].map(get)).await;
    let (_driver, mut peer) = rig.connect();
    peer.expect("get a b c d\r\n").await;
    // The value of a later key completes b, and the end of the line completes d.
    peer.send("VALUE a 1 2\r\nAA\r\nVALUE c 3 0\r\n\r\nEND\r\n").await;
    for (call, value) in calls.into_iter().zip([Some(&b"AA"[..]), None, Some(b""), None]) {
        assert_eq!(call.value().await.unwrap().as_deref(), value);
    }
}

#[tokio::test(start_paused = true)]
async fn one_batch_is_in_flight_and_later_calls_form_the_next() {
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect();
    let first = rig.call(get("a")).await;
    peer.expect("get a\r\n").await;
    let second = rig.call(get("b")).await;
    let third = rig.call(set("k", "v")).await;
    let fourth = rig.call(get("c")).await;
    peer.expect_nothing().await;
    peer.send("END\r\n").await;
    peer.expect("set k 0 0 1\r\nv\r\nget b c\r\n").await;
    peer.send("STORED\r\nVALUE b 0 1\r\nB\r\nEND\r\n").await;
    assert_eq!(first.value().await.unwrap(), None);
    assert_eq!(second.value().await.unwrap().as_deref(), Some(&b"B"[..]));
    assert_eq!(third.reply().await.unwrap(), Reply::Stored);
    assert_eq!(fourth.value().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn only_callers_that_asked_for_it_get_the_cas_unique_of_a_shared_line() {
    let rig = Rig::new();
    // Once with a key of its own, once with one that is encoded already.
    let calls = rig.calls([get("a"), gets("a"), gets("b"), get("b")]).await;
    let (_driver, mut peer) = rig.connect();
    peer.expect("gets a b\r\n").await;
    peer.send("VALUE a 0 1 77\r\nx\r\nVALUE b 0 1 78\r\nx\r\nEND\r\n").await;
    for (call, cas) in calls.into_iter().zip([None, Some(77), Some(78), None]) {
        assert_eq!(call.result().await.unwrap().unwrap().cas.map(|cas| cas.0), cas);
    }
}

#[tokio::test(start_paused = true)]
async fn keys_beyond_the_limit_of_a_line_go_into_the_next() {
    let rig = Rig::new();
    let keys: Vec<String> = (0..250).map(|index| format!("key-{index}")).collect();
    let call = rig.call(get_many(&keys)).await;
    let (_driver, mut peer) = rig.connect();
    for line in keys.chunks(100) {
        peer.expect(&format!("get {}\r\n", line.join(" "))).await;
    }
    for line in keys.chunks(100) {
        // The last key of each line is a miss.
        for key in &line[..line.len() - 1] {
            peer.send(&format!("VALUE {key} 0 {}\r\n{key}\r\n", key.len())).await;
        }
        peer.send("END\r\n").await;
    }
    let results = call.results().await;
    assert_eq!(results.len(), 250);
    for (index, result) in results.into_iter().enumerate() {
        let expected = (![99, 199, 249].contains(&index)).then(|| Bytes::from(keys[index].clone()));
        assert_eq!(result.unwrap().map(|item| item.value), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_split_at_any_byte_is_the_same_reply() {
    let reply = "VALUE a 5 10\r\nEND\r\nEND\r\n\r\nVALUE b 0 1\r\nB\r\nEND\r\n";
    for at in 1..reply.len() {
        let rig = Rig::new();
        let calls = [rig.call(get("a")).await, rig.call(get("b")).await];
        let (_driver, mut peer) = rig.connect();
        peer.expect("get a b\r\n").await;
        peer.send(&reply[..at]).await;
        sleep(Duration::from_millis(1)).await;
        peer.send(&reply[at..]).await;
        let [a, b] = calls;
        assert_eq!(a.value().await.unwrap().as_deref(), Some(&b"END\r\nEND\r\n"[..]), "split at {at}");
        assert_eq!(b.value().await.unwrap().as_deref(), Some(&b"B"[..]), "split at {at}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_received_in_parts_does_not_affect_the_next() {
    // The next line is shorter than what was searched of the first.
    for (reply, rest) in
        [("END\r", "\n5\r\n"), ("VALUE a 0 1\r\nA\r\nEND\r", "\n5\r\n"), ("VALUE a 0 1\r", "\nA\r\nEND\r\n5\r\n")]
    {
        let rig = Rig::new();
        let (a, number) = (rig.call(get("a")).await, rig.call(incr("n", 1)).await);
        let (_driver, mut peer) = rig.connect();
        peer.expect("get a\r\nincr n 1\r\n").await;
        peer.send(reply).await;
        sleep(Duration::from_millis(1)).await;
        peer.send(rest).await;
        assert_eq!(number.reply().await.unwrap(), Reply::Number(5), "{reply:?}");
        a.value().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_get_affects_no_other_call_whether_written_or_queued() {
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect();
    let written = rig.call(get("a")).await;
    peer.expect("get a\r\n").await;
    let queued = rig.call(get("never-sent")).await;
    let other = rig.call(get("b")).await;
    drop(queued);
    drop(written);
    peer.send("VALUE a 0 1\r\nA\r\nEND\r\n").await;
    peer.expect("get b\r\n").await;
    peer.send("VALUE b 0 1\r\nB\r\nEND\r\n").await;
    assert_eq!(other.value().await.unwrap().as_deref(), Some(&b"B"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_value_over_the_limit_fails_only_its_own_call() {
    let rig = Rig::new();
    let (a, b) = (rig.call(get("a")).await, rig.call(get("b")).await);
    let (_driver, mut peer) = rig.connect();
    peer.expect("get a b\r\n").await;
    let len = MAX_VALUE + 1;
    peer.send(&format!("VALUE a 0 {len}\r\n{}\r\nVALUE b 0 1\r\nB\r\nEND\r\n", "x".repeat(len))).await;
    assert_failed(a.value().await, ErrorKind::TooLarge, Delivery::Answered);
    assert_eq!(b.value().await.unwrap().as_deref(), Some(&b"B"[..]));
}

#[tokio::test(start_paused = true)]
async fn reading_goes_on_while_a_write_is_blocked() {
    // Far more bytes in both directions than the pipe holds: the peer replies as it reads, and stops reading when it
    // cannot write.
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect_over(4096);
    let body = "x".repeat(40_000);
    let mut calls = Vec::new();
    for index in 0..100 {
        calls.push(rig.call(set(&format!("key-{index}"), &body)).await);
        calls.push(rig.call(get(&format!("key-{index}"))).await);
    }
    tokio::spawn(async move { peer.serve_like_memcached().await });
    for call in calls {
        match timeout(Duration::from_secs(5), call.any()).await.expect("a deadlock") {
            AnyResponse::Reply(reply) => assert_eq!(reply.unwrap(), Reply::Stored),
            AnyResponse::Get(found) => assert!(found.unwrap().is_none_or(|item| item.value.len() == body.len())),
            other => panic!("{other:?}"),
        }
    }
}
