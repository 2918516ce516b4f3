//! Gets that touch what they find: lines of their own, and everything else as for other gets.

use super::peer::{cas, gat, get, gets, outcome, set, value_of};
use super::*;
use crate::key::Key;

fn many(keys: &[String], cas: bool, touch: u32) -> Request {
    let keys = keys.iter().map(|key| Key::new(key).unwrap()).collect();
    Request::Get { keys: Keys::Many(keys), cas, touch: Some(touch) }
}

#[tokio::test(start_paused = true)]
async fn stores_go_first_then_plain_gets_then_touching_ones_then_all_others() {
    let rig = Rig::new();
    let stored = rig.ask(set("s", "v")).await;
    let touched = [rig.ask(gat("a", 60)).await, rig.ask(gat("b", 60)).await, rig.ask(gat("a", 0)).await];
    let plain = [rig.ask(get("a")).await, rig.ask(gets("b")).await];
    let counted = rig.ask(incr("n", 1)).await;
    let swapped = rig.ask(cas("c", 7, "w")).await;
    let (_driver, mut peer) = rig.connect();
    // Neighbours share a line if they give the same time; a version asked for elsewhere is none of theirs.
    peer.expect("set s 0 0 1\r\nv\r\ncas c 0 0 1 7\r\nw\r\ngets a b\r\ngat 60 a b\r\ngat 0 a\r\nincr n 1\r\n").await;
    peer.send(
        "STORED\r\nEXISTS\r\nVALUE b 0 1 9\r\n1\r\nEND\r\nVALUE b 0 1\r\n2\r\nEND\r\nVALUE a 0 1\r\n3\r\nEND\r\n5\r\n",
    )
    .await;
    let [a, b] = plain;
    assert_eq!(value_of(a).await.unwrap(), None);
    assert_eq!(value_of(b).await.unwrap().as_deref(), Some(&b"1"[..]));
    let [a, b, again] = touched;
    assert_eq!(value_of(a).await.unwrap(), None);
    assert_eq!(value_of(b).await.unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(value_of(again).await.unwrap().as_deref(), Some(&b"3"[..]));
    assert_eq!(outcome(stored).await.unwrap(), Reply::Stored);
    assert_eq!(outcome(swapped).await.unwrap(), Reply::Exists);
    assert_eq!(outcome(counted).await.unwrap(), Reply::Number(5));
}

#[tokio::test(start_paused = true)]
async fn no_line_is_as_long_as_a_server_may_refuse_and_each_key_is_answered() {
    let rig = Rig::new();
    let exptime = i32::MAX as u32;
    let long = |index: usize| format!("{index:03}").repeat(10 + index % 73);
    let keys: Vec<String> =
        (0..97).map(|index| if index % 5 == 0 { format!("k{index}") } else { long(index) }).collect();
    let tickets = [rig.ask(many(&keys, true, exptime)).await, rig.ask(gat("last", exptime)).await];
    let longest = "l".repeat(250);
    let single = rig.ask(gat(&longest, exptime)).await;
    let (_driver, mut peer) = rig.connect();
    let mut asked: Vec<String> = Vec::new();
    let mut lines = 0;
    while asked.len() < keys.len() + 2 {
        let line = peer.line().await;
        assert!(line.len() < 1000, "{} bytes", line.len());
        lines += 1;
        let words: Vec<&str> = line.trim_end().split(' ').collect();
        let with_version = asked.len() < keys.len();
        assert_eq!(words[..2], [if with_version { "gats" } else { "gat" }, "2147483647"]);
        for key in &words[2..] {
            if !asked.len().is_multiple_of(3) {
                let unique = if with_version { " 5" } else { "" };
                peer.send(&format!("VALUE {key} 0 {}{unique}\r\n{key}\r\n", key.len())).await;
            }
            asked.push((*key).to_owned());
        }
        peer.send("END\r\n").await;
    }
    assert!(lines > 8, "{lines}");
    assert_eq!(asked[..97], keys);
    let [of_many, of_last] = tickets;
    let Answer::Many(lookups) = of_many.await else { panic!("not many") };
    for (index, lookup) in lookups.into_iter().enumerate() {
        let found = lookup.unwrap().map(|item| (item.value, item.cas.map(|cas| cas.0)));
        assert_eq!(found, (!index.is_multiple_of(3)).then(|| (Bytes::from(keys[index].clone()), Some(5))));
    }
    assert_eq!(value_of(of_last).await.unwrap().as_deref(), Some(&b"last"[..]));
    assert_eq!(value_of(single).await.unwrap().as_deref(), Some(longest.as_bytes()));
}

#[tokio::test(start_paused = true)]
async fn an_error_or_a_foreign_key_ends_the_connection_for_everybody() {
    for (reply, kind) in [
        ("STORED\r\nEND\r\nCLIENT_ERROR invalid exptime argument\r\n7\r\n", ErrorKind::Server),
        // As memcached before 1.5.3 has it.
        ("STORED\r\nEND\r\nERROR\r\n7\r\n", ErrorKind::Server),
        // The replies before are dropped: the error stands where that to the plain get should, or that to the store.
        ("STORED\r\nSERVER_ERROR out of memory\r\n", ErrorKind::Server),
        ("SERVER_ERROR out of memory writing get response\r\n", ErrorKind::Server),
        ("STORED\r\nEND\r\nVALUE other 0 1\r\nx\r\nEND\r\n", ErrorKind::Protocol),
        ("STORED\r\nEND\r\nTOUCHED\r\n", ErrorKind::Protocol),
    ] {
        let rig = Rig::new();
        let (plain, touched, stored, counted) = (
            rig.ask(get("p")).await,
            rig.ask(gat("t", 60)).await,
            rig.ask(set("s", "v")).await,
            rig.ask(incr("n", 1)).await,
        );
        let (driver, mut peer) = rig.connect();
        peer.expect("set s 0 0 1\r\nv\r\nget p\r\ngat 60 t\r\nincr n 1\r\n").await;
        peer.send(reply).await;
        assert!(matches!(driver.await.unwrap(), End::Lost(_)), "{reply:?}");
        assert_failed(value_of(touched).await, kind, Delivery::Unknown);
        assert_failed(outcome(counted).await, kind, Delivery::Unknown);
        assert_eq!(value_of(plain).await.is_ok(), reply.starts_with("STORED\r\nEND"), "{reply:?}");
        let stored = outcome(stored).await;
        if reply.starts_with("STORED") {
            assert_eq!(stored.unwrap(), Reply::Stored);
        } else {
            assert_failed(stored, kind, Delivery::Unknown);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_one_disturbs_nobody_whether_it_was_written_or_not() {
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect();
    let written = rig.ask(gat("a", 5)).await;
    peer.expect("gat 5 a\r\n").await;
    let queued = rig.ask(gat("never-sent", 5)).await;
    let other = rig.ask(gat("b", 5)).await;
    drop((queued, written));
    peer.send("VALUE a 0 1\r\nA\r\nEND\r\n").await;
    peer.expect("gat 5 b\r\n").await;
    peer.send("VALUE b 0 1\r\nB\r\nEND\r\n").await;
    assert_eq!(value_of(other).await.unwrap().as_deref(), Some(&b"B"[..]));
}
