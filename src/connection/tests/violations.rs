//! Replies that must not be believed, and error lines that leave the stream in doubt.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_value_without_the_requested_cas_unique_is_an_error() {
    let rig = Rig::new();
    let (item, number) = (rig.call(gets("a")).await, rig.call(incr("n", 1)).await);
    let (_driver, mut peer) = rig.connect();
    peer.expect("gets a\r\nincr n 1\r\n").await;
    peer.send("VALUE a 0 1\r\nx\r\nEND\r\n7\r\n").await;
    assert_failed(item.value().await, ErrorKind::Protocol, Delivery::Answered);
    assert_eq!(number.reply().await.unwrap(), Reply::Number(7));
}

#[tokio::test(start_paused = true)]
async fn a_value_for_another_key_is_neither_a_hit_nor_a_miss() {
    for reply in [
        "VALUE b 0 1\r\nB\r\nEND\r\n",
        // Requested, but out of order.
        "VALUE c 0 1\r\nC\r\nVALUE a 0 1\r\nA\r\nEND\r\n",
    ] {
        let rig = Rig::new();
        let (a, c) = (rig.call(get("a")).await, rig.call(get("c")).await);
        let (driver, mut peer) = rig.connect();
        peer.expect("get a c\r\n").await;
        let queued = rig.call(get("q")).await;
        peer.send(reply).await;
        let cause = lost(driver).await.unwrap();
        assert_eq!(cause.kind(), ErrorKind::Protocol);
        if reply.starts_with("VALUE b") {
            let (a, c) = (a.value().await, c.value().await);
            let a = assert_failed(a, ErrorKind::Protocol, Delivery::Unknown);
            let c = assert_failed(c, ErrorKind::Protocol, Delivery::Unknown);
            assert_eq!(
                (a.identity(), c.identity()),
                (cause.identity(), cause.identity()),
                "all calls fail with the same error"
            );
        }
        // The next connection serves the call that was not written.
        let (_driver, mut peer) = rig.connect();
        peer.expect("get q\r\n").await;
        peer.send("VALUE q 0 1\r\nQ\r\nEND\r\n").await;
        assert_eq!(queued.value().await.unwrap().as_deref(), Some(&b"Q"[..]));
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_of_input_is_neither_a_miss_nor_a_shorter_value() {
    for reply in
        ["", "VALUE a 0 10\r\nshor", "VALUE a 0 1\r\nA\r\n", "VALUE a 0 1\r\nA", "EN", "VALUE a 0 1\r\nA\r\nEND"]
    {
        let rig = Rig::new();
        let (a, b) = (rig.call(get("a")).await, rig.call(get("b")).await);
        let (driver, mut peer) = rig.connect();
        peer.expect("get a b\r\n").await;
        peer.send(reply).await;
        drop(peer);
        lost(driver).await.expect(reply);
        match a.value().await {
            Ok(found) => {
                assert!(reply.starts_with("VALUE a 0 1\r\nA\r\n"), "{reply:?}");
                assert_eq!(found.as_deref(), Some(&b"A"[..]));
            }
            failed => drop(assert_failed(failed, ErrorKind::Connection, Delivery::Unknown)),
        }
        assert_failed(b.value().await, ErrorKind::Connection, Delivery::Unknown);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unrequested_reply_ends_the_connection() {
    for (reply, text) in [("END\r\n", "protocol"), ("SERVER_ERROR shutting down\r\n", "shutting down")] {
        let rig = Rig::new();
        let (driver, mut peer) = rig.connect();
        peer.send(reply).await;
        let error = lost(driver).await.unwrap();
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(error.to_string().contains(text), "{error}");
    }
    // In one piece with a reply that was requested.
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect();
    let a = rig.call(get("a")).await;
    peer.expect("get a\r\n").await;
    peer.send("END\r\nVALUE b 0 1\r\nB\r\nEND\r\n").await;
    assert_eq!(a.value().await.unwrap(), None);
    lost(driver).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_at_its_connection_limit_has_read_nothing() {
    let line = "ERROR Too many open connections\r\n";
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect();
    peer.send(line).await;
    let error = lost(driver).await.unwrap();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Unavailable, Delivery::NotSent));
    // A request was written before the line arrived.
    for request in [get("k"), set("k", "v"), incr("k", 1)] {
        let rig = Rig::new();
        let call = rig.call(request).await;
        let (driver, mut peer) = rig.connect();
        assert!(peer.line().await.contains(" k"));
        peer.send(line).await;
        let error = match call.any().await {
            AnyResponse::Get(result) => result.unwrap_err(),
            AnyResponse::Reply(reply) => reply.unwrap_err(),
            other => panic!("{other:?}"),
        };
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Unavailable, Delivery::NotSent));
        assert!(error.to_string().ends_with(": ERROR Too many open connections"), "{error}");
        lost(driver).await.unwrap();
    }
    // A proxy passes on the line of the server behind it.
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect();
    rig.assert_serves(&mut peer).await;
    let call = rig.call(incr("k", 1)).await;
    peer.expect("incr k 1\r\n").await;
    peer.send(line).await;
    assert_failed(call.reply().await, ErrorKind::Server, Delivery::Answered);
    rig.assert_serves(&mut peer).await;
}

#[tokio::test(start_paused = true)]
async fn a_reply_to_an_unwritten_request_is_not_accepted() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect_over(64);
    let body = "x".repeat(1000);
    let (first, second) = (rig.call(set("first", &body)).await, rig.call(incr("second", 1)).await);
    peer.expect("set first 0 0 1000\r\n").await;
    // The server may reject the first request before it has read all of it; the second was not even begun.
    peer.send("SERVER_ERROR object too large for cache\r\n5\r\n").await;
    let cause = lost(driver).await.unwrap();
    assert_eq!(cause.kind(), ErrorKind::Protocol);
    assert_failed(first.reply().await, ErrorKind::TooLarge, Delivery::Answered);
    let (_driver, mut peer) = rig.connect();
    peer.expect("incr second 1\r\n").await;
    peer.send("7\r\n").await;
    assert_eq!(second.reply().await.unwrap(), Reply::Number(7));
}

#[tokio::test(start_paused = true)]
async fn a_reply_to_a_request_not_begun_is_neither_a_miss_nor_a_store() {
    let body = "x".repeat(100);
    let line = format!("set first 0 0 100\r\n{body}\r\n");
    for early in ["END\r\n", "VALUE k 0 1\r\nK\r\nEND\r\n", "STORED\r\n"] {
        let next = || if early == "STORED\r\n" { set("k", "") } else { get("k") };
        // The pipe holds less than the first request, or just that.
        for pipe_bytes in [line.len() - 1, line.len()] {
            let rig = Rig::new();
            let (first, _next) = (rig.call(set("first", &body)).await, rig.call(next()).await);
            let (driver, mut peer) = rig.connect_over(pipe_bytes);
            // The peer reads nothing.
            sleep(Duration::from_millis(1)).await;
            peer.send(&format!("STORED\r\n{early}")).await;
            let error = timeout(SILENCE_TIMEOUT / 2, lost(driver)).await.expect("the reply was accepted");
            assert!(error.is_some(), "{early:?} over a pipe of {pipe_bytes} bytes");
            assert_eq!(first.reply().await.unwrap(), Reply::Stored);
            let (_driver, mut peer) = rig.connect();
            assert!(peer.line().await.contains(" k"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_line_ends_the_connection_only_if_the_stream_is_in_doubt() {
    let too_large = "SERVER_ERROR object too large for cache\r\n";
    let limit = || Request::CacheMemlimit { megabytes: 1 };
    let cases = [
        (set("k", "v"), "set k 0 0 1\r\nv\r\n", too_large, ErrorKind::TooLarge, true),
        (
            set("k", "v"),
            "set k 0 0 1\r\nv\r\n",
            "SERVER_ERROR out of memory storing object\r\n",
            ErrorKind::Server,
            true,
        ),
        (
            incr("k", 1),
            "incr k 1\r\n",
            "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
            ErrorKind::Server,
            true,
        ),
        (incr("k", 1), "incr k 1\r\n", "ERROR\r\n", ErrorKind::Server, true),
        (
            add("k", "flush_all\r\n"),
            "add k 0 0 11\r\nflush_all\r\n\r\n",
            "CLIENT_ERROR bad data chunk\r\n",
            ErrorKind::Server,
            false,
        ),
        (set("k", "v"), "set k 0 0 1\r\nv\r\n", "ERROR\r\n", ErrorKind::Server, false),
        (get("k"), "get k\r\n", "SERVER_ERROR out of memory writing get response\r\n", ErrorKind::Server, false),
        (get("k"), "get k\r\n", "CLIENT_ERROR unauthenticated\r\n", ErrorKind::Auth, false),
        (cas("k", 7, "v"), "cas k 0 0 1 7\r\nv\r\n", too_large, ErrorKind::TooLarge, true),
        (cas("k", 7, "v"), "cas k 0 0 1 7\r\nv\r\n", "CLIENT_ERROR bad data chunk\r\n", ErrorKind::Server, false),
        (limit(), "cache_memlimit 1\r\n", "MEMLIMIT_TOO_SMALL cannot set maxbytes\r\n", ErrorKind::Server, true),
        (limit(), "cache_memlimit 1\r\n", "ERROR\r\n", ErrorKind::Server, true),
        (
            Request::Verbosity { level: 9 },
            "verbosity 9\r\n",
            "CLIENT_ERROR bad command line format\r\n",
            ErrorKind::Server,
            true,
        ),
        (Request::FlushAll { delay: 5 }, "flush_all 5\r\n", "ERROR\r\n", ErrorKind::Server, true),
        // A server with authentication takes the data block of a set as credentials.
        (
            set("k", "v"),
            "set k 0 0 1\r\nv\r\n",
            "CLIENT_ERROR bad authentication token format\r\n",
            ErrorKind::Auth,
            false,
        ),
        (set("k", "v w"), "set k 0 0 3\r\nv w\r\n", "CLIENT_ERROR authentication failure\r\n", ErrorKind::Auth, false),
        (incr("k", 1), "incr k 1\r\n", "CLIENT_ERROR unauthenticated\r\n", ErrorKind::Auth, false),
    ];
    for (request, wire, line, kind, survives) in cases {
        let rig = Rig::new();
        let (driver, mut peer) = rig.connect();
        let is_get = matches!(request, Request::Get { .. });
        let call = rig.call(request).await;
        peer.expect(wire).await;
        peer.send(line).await;
        let delivery = if survives { Delivery::Answered } else { Delivery::Unknown };
        let error = if is_get { call.value().await.map(|_| ()) } else { call.reply().await.map(|_| ()) };
        let error = assert_failed(error, kind, delivery);
        assert!(error.to_string().contains(line.trim_end()), "{error}");
        if survives {
            rig.assert_serves(&mut peer).await;
        } else {
            lost(driver).await.expect(line);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_line_to_a_shared_get_fails_the_whole_batch() {
    let rig = Rig::new();
    let calls = [rig.call(incr("n", 1)).await, rig.call(get("a")).await, rig.call(get("b")).await];
    let (driver, mut peer) = rig.connect();
    peer.expect("get a b\r\nincr n 1\r\n").await;
    peer.send("CLIENT_ERROR line too long\r\n5\r\nVALUE b 0 1\r\nB\r\nEND\r\n").await;
    let [n, a, b] = calls;
    assert_failed(n.reply().await, ErrorKind::Server, Delivery::Unknown);
    assert_failed(a.value().await, ErrorKind::Server, Delivery::Unknown);
    assert_failed(b.value().await, ErrorKind::Server, Delivery::Unknown);
    lost(driver).await.unwrap();
}
