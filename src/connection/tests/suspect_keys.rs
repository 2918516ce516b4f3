//! Calls with keys that the server rejected by an error line are sent apart from those of other callers.

use super::*;

const ERROR_LINE: &str = "SERVER_ERROR connection refused\r\n";

/// Sends requests in one batch, which the server rejects.
async fn reject(rig: &Rig, requests: impl IntoIterator<Item = Request>, wire: &str) {
    let calls = rig.calls(requests).await;
    let (driver, mut peer) = rig.connect();
    peer.expect(wire).await;
    peer.send(ERROR_LINE).await;
    for call in calls {
        assert_rejected(call).await;
    }
    assert!(matches!(driver.await.unwrap(), End::Rejected(_)));
}

async fn assert_rejected(call: TestCall) {
    let errors = match call.any().await {
        AnyResponse::Get(result) => vec![result.unwrap_err()],
        AnyResponse::GetMany(results) => results.into_iter().map(Result::unwrap_err).collect(),
        AnyResponse::Reply(reply) => vec![reply.unwrap_err()],
        other => panic!("{other:?}"),
    };
    for error in errors {
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Server, Delivery::Unknown), "{error:?}");
    }
}

async fn assert_misses(call: TestCall) {
    assert_eq!(call.value().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn the_keys_of_a_rejected_line_travel_alone_until_each_is_answered() {
    let rig = Rig::new();
    reject(&rig, ["a", "bad", "b"].map(get), "get a bad b\r\n").await;
    let (a, b, bad) = (rig.call(get("a")).await, rig.call(get("b")).await, rig.call(get("bad")).await);
    let (c, n) = (rig.call(get("c")).await, rig.call(incr("a", 1)).await);
    let (driver, mut peer) = rig.connect();
    // A command whose error line does not end the connection needs no care.
    peer.expect("get c\r\nincr a 1\r\n").await;
    peer.expect_nothing().await;
    peer.send("END\r\n2\r\n").await;
    assert_misses(c).await;
    assert_eq!(n.reply().await.unwrap(), Reply::Number(2));
    for (call, wire) in [(a, "get a\r\n"), (b, "get b\r\n")] {
        peer.expect(wire).await;
        peer.expect_nothing().await;
        peer.send("END\r\n").await;
        assert_misses(call).await;
    }
    peer.expect("get bad\r\n").await;
    let calls = rig.calls(["a", "b", "c"].map(get)).await;
    peer.expect_nothing().await;
    peer.send(ERROR_LINE).await;
    assert_rejected(bad).await;
    lost(driver).await.unwrap();
    let bad = rig.call(get("bad")).await;
    let (_driver, mut peer) = rig.connect();
    peer.expect("get a b c\r\n").await;
    peer.expect_nothing().await;
    peer.send("END\r\n").await;
    for call in calls {
        assert_misses(call).await;
    }
    peer.expect("get bad\r\n").await;
    drop(bad);
}

#[tokio::test(start_paused = true)]
async fn once_the_bad_key_is_known_it_alone_travels_alone_for_a_while() {
    let rig = Rig::new();
    reject(&rig, ["a", "bad", "b"].map(get), "get a bad b\r\n").await;
    // The calls of the one key share a line.
    reject(&rig, ["bad", "bad"].map(get), "get bad\r\n").await;
    let calls = rig.calls(["a", "bad", "b"].map(get)).await;
    let (_driver, mut peer) = rig.connect();
    peer.expect("get a b\r\n").await;
    peer.expect_nothing().await;
    peer.send("END\r\n").await;
    peer.expect("get bad\r\n").await;
    peer.send("END\r\n").await;
    for call in calls {
        assert_misses(call).await;
    }
    // One proper reply is no proof that the next is proper, too.
    sleep(Duration::from_secs(30)).await;
    let calls = rig.calls(["bad", "a"].map(get)).await;
    peer.expect("get a\r\n").await;
    peer.send("END\r\n").await;
    peer.expect("get bad\r\n").await;
    peer.send("END\r\n").await;
    for call in calls {
        assert_misses(call).await;
    }
    sleep(Duration::from_secs(31)).await;
    let _calls = rig.calls(["bad", "a"].map(get)).await;
    peer.expect("get bad a\r\n").await;
}

#[tokio::test(start_paused = true)]
async fn the_other_keys_of_the_same_call_are_answered_before_the_bad_key() {
    for touch in [None, Some(60)] {
        let verb = if touch.is_some() { "gat 60" } else { "get" };
        let many = |keys: &[&str]| match get_many(keys) {
            Request::Get { keys, cas, .. } => Request::Get { keys, cas, touch },
            other => other,
        };
        let rig = Rig::new();
        reject(&rig, [many(&["a", "bad", "b"])], &format!("{verb} a bad b\r\n")).await;
        // Which of them is bad is not known yet.
        let call = rig.call(many(&["a", "bad", "b", "c"])).await;
        let (driver, mut peer) = rig.connect();
        peer.expect(&format!("{verb} c\r\n{verb} a\r\n{verb} bad\r\n{verb} b\r\n")).await;
        peer.send(&format!("END\r\nVALUE a 0 1\r\nA\r\nEND\r\n{ERROR_LINE}")).await;
        let results: Vec<_> = call.results().await.into_iter().map(|result| result.is_ok()).collect();
        assert_eq!(results, [true, false, false, true]);
        lost(driver).await.unwrap();
        let (call, other) = (rig.call(many(&["a", "bad", "b"])).await, rig.call(get("x")).await);
        let (_driver, mut peer) = rig.connect();
        peer.expect("get x\r\n").await;
        peer.expect_nothing().await;
        peer.send("END\r\n").await;
        assert_misses(other).await;
        peer.expect(&format!("{verb} a b\r\n{verb} bad\r\n")).await;
        peer.send(&format!("VALUE b 0 1\r\nB\r\nEND\r\n{ERROR_LINE}")).await;
        let results = call.results().await;
        assert_eq!(results[0].as_ref().unwrap(), &None);
        assert_eq!(results[1].as_ref().unwrap_err().kind(), ErrorKind::Server);
        assert_eq!(results[2].as_ref().unwrap().as_ref().unwrap().value, "B");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_rejected_in_a_store_is_stored_alone_and_read_with_others() {
    let rig = Rig::new();
    reject(&rig, [set("bad", "v"), get("a")], "set bad 0 0 1\r\nv\r\nget a\r\n").await;
    let calls = rig.calls([set("bad", "v"), set("k", "v"), get("bad"), get("a")]).await;
    let (driver, mut peer) = rig.connect();
    peer.expect("set k 0 0 1\r\nv\r\nget bad a\r\n").await;
    peer.expect_nothing().await;
    peer.send("STORED\r\nEND\r\n").await;
    peer.expect("set bad 0 0 1\r\nv\r\n").await;
    peer.send(ERROR_LINE).await;
    lost(driver).await.unwrap();
    let mut calls = calls.into_iter();
    assert_rejected(calls.next().unwrap()).await;
    assert_eq!(calls.next().unwrap().reply().await.unwrap(), Reply::Stored);
    for call in calls {
        assert_misses(call).await;
    }
}

#[tokio::test(start_paused = true)]
async fn over_a_longer_link_a_suspect_call_is_not_starved_and_no_call_follows_it() {
    let rig = Rig::new();
    reject(&rig, [get("bad")], "get bad\r\n").await;
    let (_driver, mut peer) = rig.connect();
    for _ in 0..16 {
        let call = rig.call(get("a")).await;
        peer.expect("get a\r\n").await;
        sleep(Duration::from_millis(1)).await;
        peer.send("END\r\n").await;
        assert_misses(call).await;
    }
    let _in_flight = rig.calls(["a"].map(get)).await;
    peer.expect("get a\r\n").await;
    let _next = rig.call(get("b")).await;
    peer.expect("get b\r\n").await;
    let bad = rig.call(get("bad")).await;
    peer.expect_nothing().await;
    let later = rig.call(get("c")).await;
    peer.expect_nothing().await;
    peer.send("END\r\nEND\r\n").await;
    peer.expect("get bad\r\n").await;
    peer.expect_nothing().await;
    peer.send("END\r\n").await;
    assert_misses(bad).await;
    peer.expect("get c\r\n").await;
    // Nothing waits any more, so batches follow each other again.
    let _last = rig.call(get("d")).await;
    peer.expect("get d\r\n").await;
    drop(later);
}

#[tokio::test(start_paused = true)]
async fn a_suspect_call_that_waits_and_is_dropped_delays_no_other() {
    let rig = Rig::new();
    reject(&rig, [get("bad")], "get bad\r\n").await;
    let (_driver, mut peer) = rig.connect();
    let first = rig.call(get("a")).await;
    peer.expect("get a\r\n").await;
    let bad = rig.call(get("bad")).await;
    let second = rig.call(get("b")).await;
    peer.expect_nothing().await;
    drop(bad);
    peer.send("END\r\n").await;
    assert_misses(first).await;
    peer.expect("get b\r\n").await;
    peer.send("END\r\n").await;
    assert_misses(second).await;
    rig.queue.assert_empty();
}
