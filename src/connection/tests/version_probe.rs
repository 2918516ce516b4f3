//! What a connection makes of a server's reactions to `version`, and of none.

use super::requests::meta_get;
use super::*;
use crate::error::Feature;

const DELETE: &str = "delete memring:probe\r\n";
const FOLLOWED_PROBE: &str = "version\r\ndelete memring:probe\r\n";

/// Replies to the probe, and to `call`, a get of `m`, which is served then.
async fn state_version_and_serve(peer: &mut Peer, call: TestCall) {
    peer.send("VERSION 1.6.18\r\n").await;
    peer.expect("mg m v O0\r\n").await;
    peer.send("EN O0\r\n").await;
    call.reply().await.unwrap();
}

/// Asserts that the call failed because the server is known to have no meta commands.
async fn assert_known_to_lack_meta(call: TestCall) {
    let error = assert_failed(call.reply().await, ErrorKind::Unsupported, Delivery::NotSent);
    assert!(error.is_lack_of(Feature::MetaCommands), "{error}");
}

/// Asserts that the call failed, or fails, and that its error leaves open whether the server has meta commands.
async fn assert_not_known(call: TestCall) {
    let error = call.reply().await.unwrap_err();
    assert!(error.is_transient() && !error.is_lack_of(Feature::MetaCommands), "{error:?}");
    assert_eq!(error.delivery(), Delivery::NotSent);
}

/// Reads the delete before a probe, replies to it, and reads the probe.
async fn expect_doubtful_probe(peer: &mut Peer) {
    peer.expect(DELETE).await;
    peer.send("NOT_FOUND\r\n").await;
    peer.expect(FOLLOWED_PROBE).await;
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_closes_or_replies_nonsense_to_version_is_known_after_three_more_probes_for_a_minute() {
    for reaction in [None, Some("OK\r\n"), Some("VERSION\r\n"), Some("SERVER_ERROR unsupported\r\n")] {
        let rig = Rig::new();
        let (mut driver, mut peer) = rig.connect();
        for attempt in 0..4 {
            let waiting = rig.call(meta_get("m", "v")).await;
            match attempt {
                0 => peer.expect("version\r\n").await,
                _ => expect_doubtful_probe(&mut peer).await,
            }
            if let Some(reaction) = reaction {
                peer.send(reaction).await;
            }
            drop(waiting);
            if reaction.is_none_or(|line| !line.starts_with("SERVER_ERROR")) {
                drop(peer);
                lost(driver).await.unwrap();
                (driver, peer) = rig.connect();
                rig.assert_serves(&mut peer).await;
            } else if attempt > 0 {
                peer.send("NOT_FOUND\r\n").await;
            }
        }
        assert_known_to_lack_meta(rig.call(meta_get("m", "v")).await).await;
        peer.expect_nothing().await;
        // A minute later another server may be there.
        sleep(Duration::from_secs(61)).await;
        let waiting = rig.call(meta_get("m", "v")).await;
        expect_doubtful_probe(&mut peer).await;
        peer.send("ERROR\r\nNOT_FOUND\r\n").await;
        assert_known_to_lack_meta(waiting).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_never_replies_to_version_is_known_by_the_reply_to_the_next_command() {
    for reply in ["NOT_FOUND\r\n", "DELETED\r\n"] {
        let rig = Rig::new();
        let waiting = rig.call_within(meta_get("m", "v"), SILENCE_TIMEOUT).await;
        let (driver, mut peer) = rig.connect();
        peer.expect("version\r\n").await;
        let classic = rig.call(get("k")).await;
        let error = lost(driver).await.unwrap();
        assert!(error.to_string().contains("no reply to `version`"), "{error}");
        let (driver, mut peer) = rig.connect();
        peer.expect("get k\r\n").await;
        peer.send("END\r\n").await;
        assert_eq!(classic.value().await.unwrap(), None, "other calls must not be delayed");
        expect_doubtful_probe(&mut peer).await;
        peer.send(reply).await;
        lost(driver).await.unwrap();
        let (_driver, mut peer) = rig.connect();
        assert_known_to_lack_meta(waiting).await;
        rig.assert_serves(&mut peer).await;
        rig.queue.assert_empty();
    }
}

#[tokio::test(start_paused = true)]
async fn silence_and_closed_connections_do_not_show_that_a_server_lacks_meta_commands() {
    for (replies_before, closes) in [(false, false), (true, false), (false, true)] {
        let (rig, start, mut connections) = (Rig::new(), Instant::now(), 0);
        while start.elapsed() < Duration::from_secs(300) {
            let (driver, mut peer) = rig.connect();
            connections += 1;
            tokio::spawn(async move {
                if replies_before {
                    peer.block_on_version().await;
                } else if closes {
                    let _ = timeout(Duration::from_secs(1), peer.line()).await;
                } else {
                    std::future::pending().await
                }
            });
            while !driver.is_finished() {
                assert_not_known(rig.call(meta_get("m", "v")).await).await;
                sleep(Duration::from_secs(1)).await;
            }
        }
        // A server that replies to other commands does not lose its connections forever.
        assert!(!replies_before || connections < 30, "{connections} connections in 300 s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_on_a_slow_link_states_its_version() {
    for round_trip in [100, 125, 200, 300, 500, 700, 900].map(Duration::from_millis) {
        let rig = Rig::new();
        let call = rig.call_within(meta_get("m", "v"), 10 * SILENCE_TIMEOUT).await;
        let reply = tokio::spawn(call.reply());
        while !reply.is_finished() {
            let (driver, mut peer) = rig.connect();
            tokio::select! {
                _ = driver => {}
                () = async {
                    loop {
                        let answer = match peer.line().await.as_str() {
                            "version\r\n" => "VERSION 1.6.18\r\n",
                            DELETE => "NOT_FOUND\r\n",
                            "mg m v O0\r\n" => "EN O0\r\n",
                            other => panic!("{other:?}"),
                        };
                        sleep(round_trip).await;
                        peer.send(answer).await;
                    }
                } => {}
                () = async { while !reply.is_finished() { sleep(round_trip).await } } => {}
            }
        }
        reply.await.unwrap().expect("the server has meta commands");
    }
}

#[tokio::test(start_paused = true)]
async fn only_error_lines_that_reject_the_command_show_that_a_server_lacks_it() {
    for (line, is_rejection) in
        [("ERROR", true), ("CLIENT_ERROR unknown command", true), ("SERVER_ERROR out of memory writing stats", false)]
    {
        let rig = Rig::new();
        let waiting = rig.call(meta_get("m", "v")).await;
        let (_driver, mut peer) = rig.connect();
        peer.expect("version\r\n").await;
        peer.send(&format!("{line}\r\n")).await;
        if is_rejection {
            assert_known_to_lack_meta(waiting).await;
        } else {
            expect_doubtful_probe(&mut peer).await;
            peer.send("VERSION 1.6.18\r\nNOT_FOUND\r\n").await;
            peer.expect("mg m v O0\r\n").await;
            peer.send("EN O0\r\n").await;
            waiting.reply().await.unwrap();
        }
        rig.assert_serves(&mut peer).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_once_stated_its_version_is_probed_after_any_number_of_failures() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect();
    let first = rig.call(meta_get("m", "v")).await;
    peer.expect("version\r\n").await;
    state_version_and_serve(&mut peer, first).await;
    drop(peer);
    driver.await.unwrap();
    for _ in 0..20 {
        let waiting = rig.call_within(meta_get("m", "v"), 10 * SILENCE_TIMEOUT).await;
        let (driver, mut peer) = rig.connect();
        rig.assert_serves(&mut peer).await;
        peer.expect("version\r\n").await;
        drop((peer, waiting));
        driver.await.unwrap();
        sleep(Duration::from_secs(2)).await;
    }
    let (_driver, mut peer) = rig.connect();
    let last = rig.call(meta_get("m", "v")).await;
    peer.expect("version\r\n").await;
    state_version_and_serve(&mut peer, last).await;
}

#[tokio::test(start_paused = true)]
async fn connections_lost_together_while_probing_count_as_one_failure() {
    let rig = Rig::new();
    let waiting = rig.call_within(meta_get("m", "v"), 10 * SILENCE_TIMEOUT).await;
    let mut connections = Vec::new();
    for n in 0..8 {
        let (driver, mut peer) = rig.connect();
        let own = if n > 0 { Some(rig.call_within(meta_get("n", "v"), SILENCE_TIMEOUT).await) } else { None };
        peer.expect("version\r\n").await;
        connections.push((driver, peer, own));
    }
    sleep(Duration::from_millis(1)).await;
    for (driver, peer, own) in connections {
        drop((peer, own));
        driver.await.unwrap();
    }
    let (_driver, mut peer) = rig.connect();
    expect_doubtful_probe(&mut peer).await;
    peer.send("VERSION 1.6.18\r\nNOT_FOUND\r\n").await;
    peer.expect("mg m v O0\r\n").await;
    peer.send("EN O0\r\n").await;
    waiting.reply().await.unwrap();
}

/// As a server at its connection limit does. It has leases.
#[tokio::test(start_paused = true)]
async fn connections_that_end_after_an_error_line_do_not_show_that_a_server_lacks_meta_commands() {
    let rig = Rig::new();
    for _ in 0..20 {
        let waiting = rig.call(meta_get("m", "v")).await;
        let (driver, mut peer) = rig.connect();
        let peer = tokio::spawn(async move {
            let _ = timeout(Duration::from_millis(100), peer.line()).await;
            peer.send("ERROR Too many open connections\r\n").await;
        });
        assert_not_known(waiting).await;
        peer.await.unwrap();
        driver.await.unwrap();
    }
}
