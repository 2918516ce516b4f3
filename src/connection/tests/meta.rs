//! Meta commands on the wire: never before the server has said what it is, and every reply by its opaque token.

use bytes::Bytes;

use super::peer::{get, meta, meta_get, meta_run, meta_set, outcome, run_of, set, value_of};
use super::*;
use crate::protocol::{MetaCode, MetaVerb, ServerVersion};

async fn code_of(ticket: ResponseFuture) -> Result<MetaCode, Error> {
    match outcome(ticket).await? {
        Reply::Meta(reply) => Ok(reply.code),
        other => panic!("not a meta reply: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn no_meta_byte_leaves_before_the_version_is_known_and_the_question_goes_out_alone() {
    let rig = Rig::new();
    let tickets = (rig.ask(meta_get("m", "v")).await, rig.ask(set("s", "1")).await, rig.ask(get("g")).await);
    let (_driver, mut peer) = rig.connect();
    peer.expect("set s 0 0 1\r\n1\r\nget g\r\n").await;
    peer.expect_nothing().await;
    peer.send("STORED\r\n").await;
    peer.expect_nothing().await;
    peer.send("END\r\n").await;
    peer.expect("version\r\n").await;
    let late = rig.ask(get("late")).await;
    peer.expect_nothing().await;
    peer.send("VERSION 1.6.18\r\n").await;
    peer.expect("get late\r\nmg m v O0\r\n").await;
    peer.send("END\r\nVA 1 O0\r\nx\r\n").await;
    assert_eq!(code_of(tickets.0).await.unwrap(), MetaCode::Value);
    assert_eq!(outcome(tickets.1).await.unwrap(), Reply::Stored);
    assert_eq!((value_of(tickets.2).await.unwrap(), value_of(late).await.unwrap()), (None, None));
    // It is asked once.
    let again = rig.ask(meta_get("m", "v")).await;
    peer.expect("mg m v O1\r\n").await;
    peer.send("EN O1\r\n").await;
    assert_eq!(code_of(again).await.unwrap(), MetaCode::Miss);
}

#[tokio::test(start_paused = true)]
async fn a_server_too_old_is_never_sent_one() {
    for (version, suited) in [("1.5.22", false), ("1.6.9", false), ("1.6.10", true), ("mcrouter 0.41", false)] {
        let rig = Rig::new();
        let (old, newest) = (rig.ask(meta_get("m", "v")).await, {
            let mut request = meta(MetaVerb::Get, "n", "v", "");
            request.needs = ServerVersion::META_CONDITIONAL_GET;
            rig.ask(Request::Meta(Box::new(request))).await
        });
        let (_driver, mut peer) = rig.connect();
        peer.expect("version\r\n").await;
        peer.send(&format!("VERSION {version}\r\n")).await;
        let error = assert_failed(outcome(newest).await, ErrorKind::Unsupported, Delivery::NotSent);
        assert!(error.to_string().contains("needs memcached 1.6.40"), "{error}");
        if suited {
            peer.expect("mg m v O0\r\n").await;
            peer.send("EN\r\n").await;
            assert_eq!(code_of(old).await.unwrap(), MetaCode::Miss, "misses are not echoed before 1.6.18");
        } else {
            assert_failed(outcome(old).await, ErrorKind::Unsupported, Delivery::NotSent);
            let classic = rig.ask(get("k")).await;
            peer.expect("get k\r\n").await;
            peer.send("END\r\n").await;
            assert_eq!(value_of(classic).await.unwrap(), None);
        }
        rig.queue.assert_empty();
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_closes_on_version_is_asked_twice_and_then_left_alone() {
    let rig = Rig::new();
    let asking = rig.ask(meta_get("m", "v")).await;
    for _ in 0..2 {
        let classic = rig.ask(get("k")).await;
        let (driver, mut peer) = rig.connect();
        peer.expect("get k\r\n").await;
        peer.send("END\r\n").await;
        assert_eq!(value_of(classic).await.unwrap(), None);
        peer.expect("version\r\n").await;
        drop(peer);
        assert!(matches!(driver.await.unwrap(), End::Lost(_)));
    }
    let (_driver, mut peer) = rig.connect();
    let classic = rig.ask(get("k")).await;
    peer.expect("get k\r\n").await;
    peer.send("END\r\n").await;
    assert_eq!(value_of(classic).await.unwrap(), None);
    assert_failed(outcome(asking).await, ErrorKind::Unsupported, Delivery::NotSent);
    peer.expect_nothing().await;
    // A minute later it may be another server.
    tokio::time::sleep(Duration::from_secs(61)).await;
    let asking = rig.ask(meta_get("m", "v")).await;
    peer.expect("version\r\n").await;
    peer.send("ERROR\r\n").await;
    assert_failed(outcome(asking).await, ErrorKind::Unsupported, Delivery::NotSent);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_never_answers_version_costs_nobody_their_deadline() {
    let rig = Rig::new();
    let asking = rig.ask(meta_get("m", "v")).await;
    let (driver, mut peer) = rig.connect();
    peer.expect("version\r\n").await;
    let classic = rig.ask(get("k")).await;
    let End::Lost(error) = driver.await.unwrap() else { panic!("still there") };
    assert!(error.to_string().contains("does not answer `version`"), "{error}");
    let (_driver, mut peer) = rig.connect();
    peer.expect("get k\r\n").await;
    peer.send("END\r\n").await;
    assert_eq!(value_of(classic).await.unwrap(), None);
    peer.expect("version\r\n").await;
    assert_failed(outcome(asking).await, ErrorKind::Timeout, Delivery::NotSent);
    rig.queue.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_once_said_what_it_is_is_asked_as_often_as_it_takes() {
    let rig = Rig::new();
    let mut asking = rig.ask(meta_get("m", "v")).await;
    let (driver, mut peer) = rig.connect();
    peer.expect("version\r\n").await;
    peer.send("VERSION 1.6.18\r\n").await;
    peer.expect("mg m v O0\r\n").await;
    peer.send("EN O0\r\n").await;
    assert_eq!(code_of(asking).await.unwrap(), MetaCode::Miss);
    drop(peer);
    driver.await.unwrap();
    asking = rig.ask(meta_get("m", "v")).await;
    for _ in 0..3 {
        let (driver, mut peer) = rig.connect();
        peer.expect("version\r\n").await;
        drop(peer);
        driver.await.unwrap();
    }
    let (_driver, mut peer) = rig.connect();
    peer.expect("version\r\n").await;
    peer.send("VERSION 1.6.18\r\n").await;
    peer.expect("mg m v O0\r\n").await;
    peer.send("EN O0\r\n").await;
    assert_eq!(code_of(asking).await.unwrap(), MetaCode::Miss);
}

#[tokio::test(start_paused = true)]
async fn connections_lost_together_over_the_question_count_as_one() {
    let rig = Rig::new();
    let asking = rig.ask(meta_get("m", "v")).await;
    let (one, mut peer) = rig.connect();
    peer.expect("version\r\n").await;
    let (two, mut other_peer) = rig.connect();
    other_peer.expect("version\r\n").await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop((peer, other_peer));
    one.await.unwrap();
    two.await.unwrap();
    let (_driver, mut peer) = rig.connect();
    peer.expect("version\r\n").await;
    peer.send("VERSION 1.6.18\r\n").await;
    peer.expect("mg m v O0\r\n").await;
    peer.send("EN O0\r\n").await;
    assert_eq!(code_of(asking).await.unwrap(), MetaCode::Miss);
}

async fn on_a_known_server(
    requests: Vec<Request>,
    wire: &str,
) -> (Rig, Vec<ResponseFuture>, tokio::task::JoinHandle<End>, Peer) {
    let rig = Rig::new();
    let mut tickets = Vec::new();
    for request in requests {
        tickets.push(rig.ask(request).await);
    }
    let (driver, mut peer) = rig.connect();
    peer.expect("version\r\n").await;
    peer.send("VERSION 1.6.45\r\n").await;
    peer.expect(wire).await;
    (rig, tickets, driver, peer)
}

#[tokio::test(start_paused = true)]
async fn a_wrong_opaque_token_ends_the_connection_and_is_nobodys_answer() {
    for wrong in ["VA 1 O1\r\nx\r\n", "VA 1\r\nx\r\n", "HD O9\r\n", "EN O1\r\n", "HD\r\n", "HD Ox\r\n"] {
        let requests = vec![meta_get("a", "v"), meta_get("b", "v")];
        let (_rig, tickets, driver, mut peer) = on_a_known_server(requests, "mg a v O0\r\nmg b v O1\r\n").await;
        peer.send(wrong).await;
        for ticket in tickets {
            assert_failed(outcome(ticket).await, ErrorKind::Protocol, Delivery::Unknown);
        }
        assert!(matches!(driver.await.unwrap(), End::Lost(_)), "{wrong:?}");
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
        let (rig, tickets, driver, mut peer) = on_a_known_server(vec![primer], "mg primer v O0\r\n").await;
        peer.send("EN O0\r\n").await;
        for ticket in tickets {
            code_of(ticket).await.unwrap();
        }
        let _ticket = rig.ask(request).await;
        peer.expect(&sent.replace("O0", "O1")).await;
        peer.send(&wrong.replace("O0", "O1")).await;
        assert!(matches!(driver.await.unwrap(), End::Lost(_)), "{wrong:?} to {sent:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_line_fails_its_own_command_only_unless_a_data_block_is_in_doubt() {
    let requests = vec![meta_get("a", "v"), meta_get("b", "v")];
    let (_rig, mut tickets, _driver, mut peer) = on_a_known_server(requests, "mg a v O0\r\nmg b v O1\r\n").await;
    peer.send("CLIENT_ERROR invalid flag\r\nEN O1\r\n").await;
    assert_eq!(code_of(tickets.pop().unwrap()).await.unwrap(), MetaCode::Miss);
    assert_failed(outcome(tickets.pop().unwrap()).await, ErrorKind::Server, Delivery::Answered);

    for (line, survives) in [
        ("SERVER_ERROR object too large for cache", true),
        ("SERVER_ERROR out of memory storing object", true),
        ("CLIENT_ERROR invalid flag", true),
        ("CLIENT_ERROR bad command line format", false),
        ("ERROR", false),
    ] {
        let requests = vec![meta_set("a", "flush_all", "T60")];
        let wire = "ms a 9 T60 O0\r\nflush_all\r\n";
        let (rig, tickets, driver, mut peer) = on_a_known_server(requests, wire).await;
        peer.send(&format!("{line}\r\n")).await;
        for ticket in tickets {
            outcome(ticket).await.unwrap_err();
        }
        let next = rig.ask(get("k")).await;
        if survives {
            peer.expect("get k\r\n").await;
            peer.send("END\r\n").await;
            assert_eq!(value_of(next).await.unwrap(), None, "{line}");
        } else {
            assert!(matches!(driver.await.unwrap(), End::Lost(_)), "{line}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_run_is_settled_by_the_replies_that_come_and_by_its_end() {
    let run = "mg a v O0 q\r\nmg b v O1 q\r\nmg c v O2 q\r\nmg d v O3 q\r\nmn\r\n";
    let (_rig, mut tickets, _driver, mut peer) = on_a_known_server(vec![meta_run(&["a", "b", "c", "d"])], run).await;
    peer.send("VA 1 O1\r\nB\r\nVA 0 O2\r\n\r\nMN\r\n").await;
    let replies = run_of(tickets.pop().unwrap()).await;
    let codes: Vec<_> = replies.iter().map(|reply| reply.as_ref().unwrap().code).collect();
    assert_eq!(codes, [MetaCode::Miss, MetaCode::Value, MetaCode::Value, MetaCode::Miss]);
    let body = replies[1].as_ref().unwrap().value.clone();
    assert_eq!(body, Some(crate::protocol::Body::Whole(Bytes::from_static(b"B"))));
}

#[tokio::test(start_paused = true)]
async fn an_error_line_in_a_quiet_run_fails_what_is_not_yet_answered_and_the_run_goes_on() {
    let run = "mg a v O0 q\r\nmg b v O1 q\r\nmg c v O2 q\r\nmn\r\n";
    let (rig, mut tickets, _driver, mut peer) = on_a_known_server(vec![meta_run(&["a", "b", "c"])], run).await;
    peer.send("VA 1 O0\r\nA\r\nSERVER_ERROR out of memory\r\nVA 1 O2\r\nC\r\nMN\r\n").await;
    let replies = run_of(tickets.pop().unwrap()).await;
    assert!(replies[0].is_ok());
    for reply in &replies[1..] {
        assert_eq!(reply.as_ref().unwrap_err().kind(), ErrorKind::Server);
    }
    let next = rig.ask(get("k")).await;
    peer.expect("get k\r\n").await;
    peer.send("END\r\n").await;
    assert_eq!(value_of(next).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_run_out_of_order_or_cut_short_is_never_a_miss() {
    let run = "mg a v O0 q\r\nmg b v O1 q\r\nmg c v O2 q\r\nmn\r\n";
    for wrong in ["VA 1 O0\r\nA\r\nVA 1 O0\r\nA\r\n", "VA 1 O7\r\nx\r\n", "EN O0\r\n", "HD\r\n", "VA 1 O1\r\n", ""] {
        let (_rig, mut tickets, driver, mut peer) = on_a_known_server(vec![meta_run(&["a", "b", "c"])], run).await;
        peer.send(wrong).await;
        drop(peer);
        let replies = run_of(tickets.pop().unwrap()).await;
        assert!(replies[1].is_err() && replies[2].is_err(), "{wrong:?}: {replies:?}");
        assert!(matches!(driver.await.unwrap(), End::Lost(_)), "{wrong:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_value_over_the_limit_fails_alone() {
    let requests = vec![meta_get("a", "v"), meta_get("b", "v")];
    let (_rig, mut tickets, _driver, mut peer) = on_a_known_server(requests, "mg a v O0\r\nmg b v O1\r\n").await;
    let long = "x".repeat((1 << 20) + 1);
    tokio::spawn(async move {
        peer.send(&format!("VA {} O0\r\n{long}\r\nEN O1\r\n", long.len())).await;
        std::future::pending::<()>().await;
    });
    assert_eq!(code_of(tickets.pop().unwrap()).await.unwrap(), MetaCode::Miss);
    assert_failed(outcome(tickets.pop().unwrap()).await, ErrorKind::TooLarge, Delivery::Answered);
}

#[tokio::test(start_paused = true)]
async fn no_two_commands_of_a_connection_have_the_same_token() {
    let wire = "mg a v O0 q\r\nmg b v O1 q\r\nmn\r\nmg c v O2 q\r\nmg d v O3 q\r\nmn\r\nmg e v O4\r\n";
    let requests = vec![meta_run(&["a", "b"]), meta_run(&["c", "d"]), meta_get("e", "v")];
    let (_rig, _tickets, _driver, _peer) = on_a_known_server(requests, wire).await;
}

#[tokio::test(start_paused = true)]
async fn a_run_needs_what_the_most_demanding_of_it_needs() {
    let rig = Rig::new();
    let mut run = vec![meta(MetaVerb::Get, "a", "v", ""), meta(MetaVerb::Get, "b", "v", "")];
    run[0].needs = ServerVersion::META_CONDITIONAL_GET;
    let ticket = rig.ask(Request::MetaRun(run)).await;
    let (_driver, mut peer) = rig.connect();
    peer.expect("version\r\n").await;
    peer.send("VERSION 1.6.18\r\n").await;
    for reply in run_of(ticket).await {
        assert_failed(reply, ErrorKind::Unsupported, Delivery::NotSent);
    }
    peer.expect_nothing().await;
}
