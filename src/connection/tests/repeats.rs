//! A key asked for again while it waits to be written is asked for once, and answers everybody.

use super::peer::{gat, get_many};
use super::*;

const VALUE_A: &str = "VALUE a 3 1\r\nA\r\n";

async fn assert_a(ticket: ResponseFuture) {
    assert_eq!(value_of(ticket).await.unwrap().as_deref(), Some(&b"A"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_value_answers_everybody_who_waits_for_it() {
    let rig = Rig::new();
    let tickets = [rig.ask(get("a")).await, rig.ask(get("b")).await, rig.ask(get("a")).await, rig.ask(get("a")).await];
    let (_driver, mut peer) = rig.connect();
    peer.expect("get a b\r\n").await;
    // What comes now is not written yet, but what it repeats is.
    let late = rig.ask(get("a")).await;
    peer.send(&format!("{VALUE_A}END\r\n")).await;
    let [first, missing, second, third] = tickets;
    for ticket in [first, second, third] {
        assert_a(ticket).await;
    }
    assert_eq!(value_of(missing).await.unwrap(), None);
    peer.expect("get a\r\n").await;
    peer.send("END\r\n").await;
    assert_eq!(value_of(late).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_miss_answers_everybody_too_wherever_it_stands() {
    let rig = Rig::new();
    let mut tickets = Vec::new();
    for key in ["a", "b", "c", "c", "b", "a"] {
        tickets.push(rig.ask(get(key)).await);
    }
    let (_driver, mut peer) = rig.connect();
    peer.expect("get a b c\r\n").await;
    peer.send("VALUE b 0 1\r\nB\r\nEND\r\n").await;
    for (ticket, found) in tickets.into_iter().zip([None, Some(&b"B"[..]), None, None, Some(b"B"), None]) {
        assert_eq!(value_of(ticket).await.unwrap().as_deref(), found);
    }
    rig.queue.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn gets_of_many_keys_share_them_with_others_and_with_themselves() {
    let rig = Rig::new();
    let one = rig.ask(get("c")).await;
    let many = rig.ask(get_many(&["a", "b", "a", "c", "d"])).await;
    let (_driver, mut peer) = rig.connect();
    peer.expect("get c a b d\r\n").await;
    peer.send(&format!("VALUE c 0 1\r\nC\r\n{VALUE_A}VALUE d 0 1\r\nD\r\nEND\r\n")).await;
    assert_eq!(value_of(one).await.unwrap().as_deref(), Some(&b"C"[..]));
    let Answer::Many(lookups) = many.await else { panic!("another shape") };
    let values: Vec<_> = lookups.into_iter().map(|lookup| lookup.unwrap().map(|item| item.value)).collect();
    assert_eq!(values, [Some("A".into()), None, Some("A".into()), Some("C".into()), Some("D".into())]);
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_away_takes_no_answer_from_the_others() {
    for gone in 0..3 {
        let rig = Rig::new();
        let mut tickets = vec![rig.ask(get("a")).await, rig.ask(get("a")).await, rig.ask(get("a")).await];
        let (_driver, mut peer) = rig.connect();
        peer.expect("get a\r\n").await;
        drop(tickets.remove(gone));
        peer.send(&format!("{VALUE_A}END\r\n")).await;
        for ticket in tickets {
            assert_a(ticket).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_keeps_its_own_deadline() {
    let rig = Rig::new();
    let patient = Arc::new(Call::new(get("a"), Instant::now() + PATIENCE / 2));
    let patient = rig.queue.enter(&patient).await.unwrap();
    let hasty = rig.ask(get("a")).await;
    let (_driver, mut peer) = rig.connect();
    peer.expect("get a\r\n").await;
    let begun = Instant::now();
    assert_failed(value_of(hasty).await, ErrorKind::Timeout, Delivery::Unknown);
    assert!(begun.elapsed() <= DEADLINE + Duration::from_millis(2));
    peer.send(&format!("{VALUE_A}END\r\n")).await;
    assert_a(patient).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_fails_them_all_with_one_cause() {
    let rig = Rig::new();
    let tickets = [rig.ask(get("a")).await, rig.ask(get("a")).await];
    let (_driver, mut peer) = rig.connect();
    peer.expect("get a\r\n").await;
    drop(peer);
    for ticket in tickets {
        assert_failed(value_of(ticket).await, ErrorKind::Connection, Delivery::Unknown);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_not_written_goes_back_with_what_it_repeats() {
    let rig = Rig::new();
    // The first line fills the pipe; nothing of the second is written.
    let long: Vec<String> = (0..100).map(|n| format!("{n:0>60}")).collect();
    let long: Vec<&str> = long.iter().map(String::as_str).collect();
    let first = rig.ask(get_many(&long)).await;
    let others = [rig.ask(get("a")).await, rig.ask(get("a")).await, rig.ask(get(long[0])).await];
    let (_driver, mut peer) = rig.connect_with_room(1024);
    peer.expect("get ").await;
    drop(peer);
    let Answer::Many(lookups) = first.await else { panic!("another shape") };
    assert!(lookups.iter().all(Result::is_err));
    let [a, again, repeat] = others;
    // It repeats a key that was written.
    assert_failed(value_of(repeat).await, ErrorKind::Connection, Delivery::Unknown);
    let (_driver, mut peer) = rig.connect();
    peer.expect("get a\r\n").await;
    peer.send(&format!("{VALUE_A}END\r\n")).await;
    assert_a(a).await;
    assert_a(again).await;
}

#[tokio::test(start_paused = true)]
async fn a_get_that_touches_is_a_command_of_its_own() {
    let rig = Rig::new();
    let tickets = [rig.ask(get("a")).await, rig.ask(gat("a", 5)).await, rig.ask(gat("a", 5)).await];
    let (_driver, mut peer) = rig.connect();
    peer.expect("get a\r\ngat 5 a a\r\n").await;
    peer.send(&format!("{VALUE_A}END\r\n{VALUE_A}{VALUE_A}END\r\n")).await;
    for ticket in tickets {
        assert_a(ticket).await;
    }
}
