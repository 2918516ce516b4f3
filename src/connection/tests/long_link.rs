//! Over a longer link a batch need not wait for the one before.

use super::*;

const ROUND_TRIP: Duration = Duration::from_millis(1);

/// Enough exchanges for the link to be known.
async fn exchange(rig: &Rig, peer: &mut Peer) {
    for _ in 0..16 {
        let ticket = rig.ask(get("a")).await;
        peer.expect("get a\r\n").await;
        tokio::time::sleep(ROUND_TRIP).await;
        peer.send("END\r\n").await;
        assert_eq!(value_of(ticket).await.unwrap(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn gets_and_stores_follow_each_other_and_nothing_follows_what_is_neither() {
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect();
    exchange(&rig, &mut peer).await;
    let a = rig.ask(get("a")).await;
    peer.expect("get a\r\n").await;
    let b = rig.ask(get("b")).await;
    peer.expect("get b\r\n").await;
    let stored = rig.ask(set("k", "v")).await;
    peer.expect("set k 0 0 1\r\nv\r\n").await;
    let counted = rig.ask(incr("n", 1)).await;
    peer.expect("incr n 1\r\n").await;
    // Should it be answered with an error, that might take the place of the number.
    let late = rig.ask(get("c")).await;
    peer.expect_nothing().await;
    peer.send("VALUE a 0 1\r\nA\r\nEND\r\nVALUE b 0 1\r\nB\r\nEND\r\n").await;
    assert_eq!(value_of(a).await.unwrap().as_deref(), Some(&b"A"[..]));
    assert_eq!(value_of(b).await.unwrap().as_deref(), Some(&b"B"[..]));
    peer.expect_nothing().await;
    peer.send("STORED\r\n").await;
    assert_eq!(outcome(stored).await.unwrap(), Reply::Stored);
    peer.expect_nothing().await;
    peer.send("3\r\n").await;
    assert_eq!(outcome(counted).await.unwrap(), Reply::Number(3));
    peer.expect("get c\r\n").await;
    peer.send("END\r\n").await;
    assert_eq!(value_of(late).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_key_under_way_is_asked_for_again() {
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect();
    exchange(&rig, &mut peer).await;
    let first = rig.ask(get("a")).await;
    peer.expect("get a\r\n").await;
    // The server may have read the item already, and it may have changed since.
    let second = rig.ask(get("a")).await;
    peer.expect("get a\r\n").await;
    peer.send("VALUE a 0 1\r\n1\r\nEND\r\nVALUE a 0 1\r\n2\r\nEND\r\n").await;
    assert_eq!(value_of(first).await.unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(value_of(second).await.unwrap().as_deref(), Some(&b"2"[..]));
}

#[tokio::test(start_paused = true)]
async fn the_servers_version_is_asked_for_alone_all_the_same() {
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect();
    exchange(&rig, &mut peer).await;
    let a = rig.ask(get("a")).await;
    peer.expect("get a\r\n").await;
    let meta = rig.ask(peer::meta_get("k", "v")).await;
    peer.expect_nothing().await;
    peer.send("END\r\n").await;
    assert_eq!(value_of(a).await.unwrap(), None);
    peer.expect("version\r\n").await;
    let b = rig.ask(get("b")).await;
    peer.expect_nothing().await;
    peer.send("VERSION 1.6.18\r\n").await;
    peer.expect("get b\r\nmg k v O0\r\n").await;
    peer.send("END\r\nEN\r\n").await;
    assert_eq!(value_of(b).await.unwrap(), None);
    drop(meta);
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up_as_soon_as_on_a_short_link() {
    let rig = Rig::new();
    let (driver, mut peer) = rig.connect();
    exchange(&rig, &mut peer).await;
    let begun = Instant::now();
    // Something is sent again and again, and nothing comes.
    let mut tickets = Vec::new();
    for _ in 0..10 {
        tickets.push(rig.ask(get("a")).await);
        tokio::time::sleep(PATIENCE / 12).await;
    }
    let end = timeout(PATIENCE, driver).await.unwrap().unwrap();
    assert!(matches!(end, End::Lost(_)), "{end:?}");
    assert!(begun.elapsed() <= PATIENCE + PATIENCE / 100, "{:?}", begun.elapsed());
}
