//! Over a longer link a batch need not wait for the one before.

use super::peer::get_many;
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
    let c = rig.ask(get("c")).await;
    peer.expect("get c\r\n").await;
    let meta = rig.ask(peer::meta_get("k", "v")).await;
    peer.expect_nothing().await;
    peer.send("END\r\n").await;
    assert_eq!(value_of(a).await.unwrap(), None);
    peer.expect_nothing().await;
    peer.send("END\r\n").await;
    assert_eq!(value_of(c).await.unwrap(), None);
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

#[tokio::test(start_paused = true)]
async fn who_finds_the_link_full_is_timed_all_the_same() {
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect();
    exchange(&rig, &mut peer).await;
    // Nobody has promised to look at the queue any more.
    tokio::time::sleep(2 * DEADLINE).await;
    let owed = rig.ask(get_many(&["a", "b"])).await;
    peer.expect("get a b\r\n").await;
    // The link turns out to be short while something is under way that more could have followed until now.
    peer.send("VALUE a 0 1\r\nA\r\n").await;
    tokio::time::sleep(ROUND_TRIP).await;
    let begun = Instant::now();
    let late = rig.ask(get("c")).await;
    peer.expect_nothing().await;
    assert_failed(value_of(late).await, ErrorKind::Timeout, Delivery::NotSent);
    assert!(begun.elapsed() <= DEADLINE + Duration::from_millis(2), "{:?}", begun.elapsed());
    drop(owed);
}

#[tokio::test(start_paused = true)]
async fn who_finds_the_link_full_is_served_by_another_connection() {
    let rig = Rig::new();
    let connect = |task| {
        let (ours, theirs) = tokio::io::duplex(1024);
        let queue = Arc::clone(&rig.queue);
        let mut driver = Driver::new(ours, queue, "mc-0".parse().unwrap(), task, 1, PATIENCE, Arc::default());
        tokio::spawn(async move { driver.run().await });
        Peer::new(theirs)
    };
    let mut full = connect(0);
    exchange(&rig, &mut full).await;
    let owed = rig.ask(get_many(&["a", "b"])).await;
    full.expect("get a b\r\n").await;
    full.send("VALUE a 0 1\r\nA\r\n").await;
    let mut other = connect(1);
    tokio::time::sleep(ROUND_TRIP).await;
    let _late = rig.ask(get("c")).await;
    other.expect("get c\r\n").await;
    drop(owed);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_taken_that_would_only_wait_for_the_server_to_read() {
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect_with_room(1024);
    exchange(&rig, &mut peer).await;
    let body = "x".repeat(10_000);
    let stored = rig.ask(set("k", &body)).await;
    peer.expect("set k 0 0 10000\r\n").await;
    let patient = Arc::new(Call::new(get("b"), Instant::now() + PATIENCE / 2));
    let patient = rig.queue.enter(&patient).await.unwrap();
    // It is known not to have been sent.
    let hasty = rig.ask(get("a")).await;
    assert_failed(value_of(hasty).await, ErrorKind::Timeout, Delivery::NotSent);
    assert_failed(outcome(stored).await, ErrorKind::Timeout, Delivery::Unknown);
    // And goes out as soon as the server reads on, not when it answers.
    peer.expect(&format!("{body}\r\nget b\r\n")).await;
    peer.send("STORED\r\nVALUE b 0 1\r\nB\r\nEND\r\n").await;
    assert_eq!(value_of(patient).await.unwrap().as_deref(), Some(&b"B"[..]));
    rig.queue.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_line_is_waited_for_on_a_short_link() {
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect();
    let first = rig.ask(get("a")).await;
    peer.expect("get a\r\n").await;
    peer.send("VALUE a 0 1\r\nA\r\n").await;
    assert_eq!(value_of(first).await.unwrap().as_deref(), Some(&b"A"[..]));
    // Or a server that sends them apart would never be asked for its version, which is asked for alone.
    let second = rig.ask(get("b")).await;
    peer.expect_nothing().await;
    peer.send("END\r\n").await;
    peer.expect("get b\r\n").await;
    peer.send("END\r\n").await;
    assert_eq!(value_of(second).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_refused_here_leaves_the_connection_open_to_others() {
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect();
    exchange(&rig, &mut peer).await;
    let refused = rig.ask(peer::meta_get("k", "v")).await;
    peer.expect("version\r\n").await;
    tokio::time::sleep(ROUND_TRIP).await;
    peer.send("VERSION 1.4.39\r\n").await;
    assert_failed(outcome(refused).await, ErrorKind::Unsupported, Delivery::NotSent);
    let a = rig.ask(get("a")).await;
    peer.expect("get a\r\n").await;
    let refused = rig.ask(peer::meta_get("k", "v")).await;
    assert_failed(outcome(refused).await, ErrorKind::Unsupported, Delivery::NotSent);
    let begun = Instant::now();
    let b = rig.ask(get("b")).await;
    peer.expect("get b\r\n").await;
    assert!(begun.elapsed() < ROUND_TRIP, "{:?}", begun.elapsed());
    peer.send("END\r\nEND\r\n").await;
    assert_eq!(value_of(a).await.unwrap(), None);
    assert_eq!(value_of(b).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_later_batch_puts_off_no_deadline_of_an_earlier_one() {
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect();
    exchange(&rig, &mut peer).await;
    tokio::time::sleep(2 * DEADLINE).await;
    let begun = Instant::now();
    let hasty = rig.ask(get("a")).await;
    peer.expect("get a\r\n").await;
    let patient = Arc::new(Call::new(get("b"), Instant::now() + 3 * DEADLINE));
    let _patient = rig.queue.enter(&patient).await.unwrap();
    peer.expect("get b\r\n").await;
    assert_failed(value_of(hasty).await, ErrorKind::Timeout, Delivery::Unknown);
    assert!(begun.elapsed() <= DEADLINE + Duration::from_millis(2), "{:?}", begun.elapsed());
}
