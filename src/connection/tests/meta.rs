//! Meta commands: sent only once the server's version is known, and matched to replies by their opaque tokens.

use super::deadlines::SHORT;
use super::requests::{meta, meta_get, meta_run, meta_set};
use super::*;
use crate::protocol::{Body, MetaCode, MetaVerb, ServerVersion};

async fn code_of(call: TestCall) -> Result<MetaCode, Error> {
    match call.reply().await? {
        Reply::Meta(reply) => Ok(reply.code),
        other => panic!("not a meta reply: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn no_meta_command_is_sent_before_the_version_is_known_and_the_probe_is_sent_alone() {
    let rig = Rig::new();
    let calls = (rig.call(meta_get("m", "v")).await, rig.call(set("s", "1")).await, rig.call(get("g")).await);
    let (_driver, mut peer) = rig.connect();
    peer.expect("set s 0 0 1\r\n1\r\nget g\r\n").await;
    peer.expect_nothing().await;
    peer.send("STORED\r\n").await;
    peer.expect_nothing().await;
    peer.send("END\r\n").await;
    peer.expect("version\r\n").await;
    let late = rig.call(get("late")).await;
    peer.expect_nothing().await;
    peer.send("VERSION 1.6.18\r\n").await;
    peer.expect("get late\r\nmg m v O0\r\n").await;
    peer.send("END\r\nVA 1 O0\r\nx\r\n").await;
    assert_eq!(code_of(calls.0).await.unwrap(), MetaCode::Value);
    assert_eq!(calls.1.reply().await.unwrap(), Reply::Stored);
    assert_eq!((calls.2.value().await.unwrap(), late.value().await.unwrap()), (None, None));
    // The probe is sent once.
    let again = rig.call(meta_get("m", "v")).await;
    peer.expect("mg m v O1\r\n").await;
    peer.send("EN O1\r\n").await;
    assert_eq!(code_of(again).await.unwrap(), MetaCode::Miss);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_call_that_waits_for_the_version_is_kept() {
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect();
    rig.assert_serves(&mut peer).await;
    // The idle connection takes the call, so no task plans its deadline before the connection puts it back.
    let start = Instant::now();
    let call = rig.call_within(meta_get("m", "v"), SHORT).await;
    peer.expect("version\r\n").await;
    assert_failed(code_of(call).await, ErrorKind::Timeout, Delivery::NotSent);
    assert!(start.elapsed() <= SHORT + SHORT, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_too_old_is_sent_no_meta_command() {
    for (version, is_supported) in [("1.5.22", false), ("1.6.9", false), ("1.6.10", true), ("mcrouter 0.41", false)] {
        let rig = Rig::new();
        let (old, newest) = (rig.call(meta_get("m", "v")).await, {
            let mut request = meta(MetaVerb::Get, "n", "v", "");
            request.min_version = ServerVersion::META_CONDITIONAL_GET;
            rig.call(Request::Meta(Box::new(request))).await
        });
        let (_driver, mut peer) = rig.connect();
        peer.expect("version\r\n").await;
        peer.send(&format!("VERSION {version}\r\n")).await;
        let error = assert_failed(newest.reply().await, ErrorKind::Unsupported, Delivery::NotSent);
        assert!(error.to_string().contains("needs memcached 1.6.40"), "{error}");
        if is_supported {
            peer.expect("mg m v O0\r\n").await;
            peer.send("EN\r\n").await;
            assert_eq!(
                code_of(old).await.unwrap(),
                MetaCode::Miss,
                "servers before 1.6.18 do not echo the token with a miss"
            );
        } else {
            assert_failed(old.reply().await, ErrorKind::Unsupported, Delivery::NotSent);
            rig.assert_serves(&mut peer).await;
        }
        rig.queue.assert_empty();
    }
}

/// Sends these requests, which are these bytes on the wire, to a server whose version is known.
async fn send_all(requests: Vec<Request>, wire: &str) -> (Rig, Vec<TestCall>, JoinHandle<End>, Peer) {
    let rig = Rig::new();
    let calls = rig.calls(requests).await;
    let (driver, mut peer) = rig.connect();
    peer.expect("version\r\n").await;
    peer.send("VERSION 1.6.45\r\n").await;
    peer.expect(wire).await;
    (rig, calls, driver, peer)
}

#[tokio::test(start_paused = true)]
async fn a_wrong_opaque_token_ends_the_connection_and_completes_no_call() {
    for wrong in ["VA 1 O1\r\nx\r\n", "VA 1\r\nx\r\n", "HD O9\r\n", "EN O1\r\n", "HD\r\n", "HD Ox\r\n"] {
        let requests = vec![meta_get("a", "v"), meta_get("b", "v")];
        let (_rig, calls, driver, mut peer) = send_all(requests, "mg a v O0\r\nmg b v O1\r\n").await;
        peer.send(wrong).await;
        for call in calls {
            assert_failed(call.reply().await, ErrorKind::Protocol, Delivery::Unknown);
        }
        lost(driver).await.expect(wrong);
    }
}

#[tokio::test(start_paused = true)]
async fn replies_of_another_kind_end_the_connection() {
    for (request, sent, wrong) in [
        (meta_set("a", "x", ""), "ms a 1 O0\r\nx\r\n", "VA 1 O0\r\nx\r\n"),
        (meta_set("a", "x", ""), "ms a 1 O0\r\nx\r\n", "STORED\r\n"),
        (meta_set("a", "x", ""), "ms a 1 O0\r\nx\r\n", "EN O0\r\n"),
        (meta_get("a", "v"), "mg a v O0\r\n", "MN\r\n"),
        (meta_get("a", "v"), "mg a v O0\r\n", "END\r\n"),
        (meta_get("a", "v"), "mg a v O0\r\n", "VALUE a 0 1\r\nx\r\n"),
        (meta_get("a", "v"), "mg a v O0\r\n", "QQ O0\r\n"),
        (meta_get("a", "c"), "mg a c O0\r\n", "HD cx O0\r\n"),
        (meta_get("a", "v"), "mg a v O0\r\n", "VA x O0\r\n"),
        (meta_get("a", "v"), "mg a v O0\r\n", "VA 1 O0\r\nxyz\r\n"),
        (get("a"), "get a\r\n", "HD O0\r\n"),
        (set("a", "x"), "set a 0 0 1\r\nx\r\n", "HD\r\n"),
    ] {
        let primer = meta_get("primer", "v");
        let (rig, calls, driver, mut peer) = send_all(vec![primer], "mg primer v O0\r\n").await;
        peer.send("EN O0\r\n").await;
        for call in calls {
            code_of(call).await.unwrap();
        }
        let _ticket = rig.call(request).await;
        peer.expect(&sent.replace("O0", "O1")).await;
        peer.send(&wrong.replace("O0", "O1")).await;
        assert!(lost(driver).await.is_some(), "{wrong:?} to {sent:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_line_fails_only_its_own_command_unless_a_data_block_is_in_doubt() {
    let requests = vec![meta_get("a", "v"), meta_get("b", "v")];
    let (_rig, mut calls, _driver, mut peer) = send_all(requests, "mg a v O0\r\nmg b v O1\r\n").await;
    peer.send("CLIENT_ERROR invalid flag\r\nEN O1\r\n").await;
    assert_eq!(code_of(calls.pop().unwrap()).await.unwrap(), MetaCode::Miss);
    assert_failed(calls.pop().unwrap().reply().await, ErrorKind::Server, Delivery::Answered);

    for (line, survives) in [
        ("SERVER_ERROR object too large for cache", true),
        ("SERVER_ERROR out of memory storing object", true),
        ("CLIENT_ERROR invalid flag", true),
        ("CLIENT_ERROR bad command line format", false),
        ("ERROR", false),
    ] {
        let requests = vec![meta_set("a", "flush_all", "T60")];
        let wire = "ms a 9 T60 O0\r\nflush_all\r\n";
        let (rig, calls, driver, mut peer) = send_all(requests, wire).await;
        peer.send(&format!("{line}\r\n")).await;
        for call in calls {
            call.reply().await.unwrap_err();
        }
        if survives {
            rig.assert_serves(&mut peer).await;
        } else {
            lost(driver).await.expect(line);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_run_is_completed_by_its_replies_and_by_its_end() {
    let run = "mg a v O0 q\r\nmg b v O1 q\r\nmg c v O2 q\r\nmg d v O3 q\r\nmn\r\n";
    let (_rig, mut calls, _driver, mut peer) = send_all(vec![meta_run(&["a", "b", "c", "d"])], run).await;
    peer.send("VA 1 O1\r\nB\r\nVA 0 O2\r\n\r\nMN\r\n").await;
    let replies = calls.pop().unwrap().meta_run().await;
    let codes: Vec<_> = replies.iter().map(|reply| reply.as_ref().unwrap().code).collect();
    assert_eq!(codes, [MetaCode::Miss, MetaCode::Value, MetaCode::Value, MetaCode::Miss]);
    let body = replies[1].as_ref().unwrap().value.clone();
    assert_eq!(body, Some(Body::Whole(Bytes::from_static(b"B"))));
}

#[tokio::test(start_paused = true)]
async fn an_error_line_in_a_quiet_run_fails_its_incomplete_commands_and_the_run_goes_on() {
    let run = "mg a v O0 q\r\nmg b v O1 q\r\nmg c v O2 q\r\nmn\r\n";
    let (rig, mut calls, _driver, mut peer) = send_all(vec![meta_run(&["a", "b", "c"])], run).await;
    peer.send("VA 1 O0\r\nA\r\nSERVER_ERROR out of memory\r\nVA 1 O2\r\nC\r\nMN\r\n").await;
    let replies = calls.pop().unwrap().meta_run().await;
    assert!(replies[0].is_ok());
    for reply in &replies[1..] {
        assert_eq!(reply.as_ref().unwrap_err().kind(), ErrorKind::Server);
    }
    rig.assert_serves(&mut peer).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_out_of_order_or_cut_short_is_never_a_miss() {
    let run = "mg a v O0 q\r\nmg b v O1 q\r\nmg c v O2 q\r\nmn\r\n";
    for wrong in ["VA 1 O0\r\nA\r\nVA 1 O0\r\nA\r\n", "VA 1 O7\r\nx\r\n", "EN O0\r\n", "HD\r\n", "VA 1 O1\r\n", ""] {
        let (_rig, mut calls, driver, mut peer) = send_all(vec![meta_run(&["a", "b", "c"])], run).await;
        peer.send(wrong).await;
        drop(peer);
        let replies = calls.pop().unwrap().meta_run().await;
        assert!(replies[1].is_err() && replies[2].is_err(), "{wrong:?}: {replies:?}");
        lost(driver).await.expect(wrong);
    }
}

#[tokio::test(start_paused = true)]
async fn a_meta_value_over_the_limit_fails_only_its_own_call() {
    let requests = vec![meta_get("a", "v"), meta_get("b", "v")];
    let (_rig, mut calls, _driver, mut peer) = send_all(requests, "mg a v O0\r\nmg b v O1\r\n").await;
    let long = "x".repeat(MAX_VALUE + 1);
    tokio::spawn(async move {
        peer.send(&format!("VA {} O0\r\n{long}\r\nEN O1\r\n", long.len())).await;
        std::future::pending::<()>().await;
    });
    assert_eq!(code_of(calls.pop().unwrap()).await.unwrap(), MetaCode::Miss);
    assert_failed(calls.pop().unwrap().reply().await, ErrorKind::TooLarge, Delivery::Answered);
}

#[tokio::test(start_paused = true)]
async fn no_two_commands_of_a_connection_have_the_same_opaque_token() {
    let wire = "mg a v O0 q\r\nmg b v O1 q\r\nmn\r\nmg c v O2 q\r\nmg d v O3 q\r\nmn\r\nmg e v O4\r\n";
    let requests = vec![meta_run(&["a", "b"]), meta_run(&["c", "d"]), meta_get("e", "v")];
    let (_rig, _tickets, _driver, _peer) = send_all(requests, wire).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_needs_the_newest_version_that_any_of_its_commands_needs() {
    let rig = Rig::new();
    let mut run = vec![meta(MetaVerb::Get, "a", "v", ""), meta(MetaVerb::Get, "b", "v", "")];
    run[0].min_version = ServerVersion::META_CONDITIONAL_GET;
    let call = rig.call(Request::MetaRun(run)).await;
    let (_driver, mut peer) = rig.connect();
    peer.expect("version\r\n").await;
    peer.send("VERSION 1.6.18\r\n").await;
    for reply in call.meta_run().await {
        assert_failed(reply, ErrorKind::Unsupported, Delivery::NotSent);
    }
    peer.expect_nothing().await;
}
