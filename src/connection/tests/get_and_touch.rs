//! Gets with a touch: they have lines of their own, and behave as other gets otherwise.

use super::*;
use crate::key::Key;
use crate::protocol::Keys;

fn get_many_and_touch(keys: &[String], cas: bool, touch: u32) -> Request {
    let keys = keys.iter().map(|key| Key::new(key).unwrap()).collect();
    Request::Get { keys: Keys::Many(keys), cas, touch: Some(touch) }
}

#[tokio::test(start_paused = true)]
async fn stores_go_first_then_plain_gets_then_touching_gets_then_all_others() {
    let rig = Rig::new();
    let stored = rig.call(set("s", "v")).await;
    let touched = [rig.call(gat("a", 60)).await, rig.call(gat("b", 60)).await, rig.call(gat("a", 0)).await];
    let plain = [rig.call(get("a")).await, rig.call(gets("b")).await];
    let counted = rig.call(incr("n", 1)).await;
    let swapped = rig.call(cas("c", 7, "w")).await;
    let (_driver, mut peer) = rig.connect();
    // Neighbors share a line if they set the same expiry time. That a plain get asks for the CAS unique changes
    // nothing.
    peer.expect("set s 0 0 1\r\nv\r\ncas c 0 0 1 7\r\nw\r\ngets a b\r\ngat 60 a b\r\ngat 0 a\r\nincr n 1\r\n").await;
    peer.send(
        "STORED\r\nEXISTS\r\nVALUE b 0 1 9\r\n1\r\nEND\r\nVALUE b 0 1\r\n2\r\nEND\r\nVALUE a 0 1\r\n3\r\nEND\r\n5\r\n",
    )
    .await;
    let [a, b] = plain;
    assert_eq!(a.value().await.unwrap(), None);
    assert_eq!(b.value().await.unwrap().as_deref(), Some(&b"1"[..]));
    let [a, b, again] = touched;
    assert_eq!(a.value().await.unwrap(), None);
    assert_eq!(b.value().await.unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(again.value().await.unwrap().as_deref(), Some(&b"3"[..]));
    assert_eq!(stored.reply().await.unwrap(), Reply::Stored);
    assert_eq!(swapped.reply().await.unwrap(), Reply::Exists);
    assert_eq!(counted.reply().await.unwrap(), Reply::Number(5));
}

#[tokio::test(start_paused = true)]
async fn no_line_is_longer_than_servers_accept_and_each_key_is_answered() {
    let rig = Rig::new();
    let exptime = i32::MAX as u32;
    let long = |index: usize| format!("{index:03}").repeat(10 + index % 73);
    let keys: Vec<String> =
        (0..97).map(|index| if index % 5 == 0 { format!("k{index}") } else { long(index) }).collect();
    let calls = [rig.call(get_many_and_touch(&keys, true, exptime)).await, rig.call(gat("last", exptime)).await];
    let longest = "l".repeat(250);
    let single = rig.call(gat(&longest, exptime)).await;
    let (_driver, mut peer) = rig.connect();
    let mut received: Vec<String> = Vec::new();
    let mut lines = 0;
    while received.len() < keys.len() + 2 {
        let line = peer.line().await;
        assert!(line.len() < 1000, "{} bytes", line.len());
        lines += 1;
        let words: Vec<&str> = line.trim_end().split(' ').collect();
        let with_cas = received.len() < keys.len();
        assert_eq!(words[..2], [if with_cas { "gats" } else { "gat" }, "2147483647"]);
        for key in &words[2..] {
            if !received.len().is_multiple_of(3) {
                let unique = if with_cas { " 5" } else { "" };
                peer.send(&format!("VALUE {key} 0 {}{unique}\r\n{key}\r\n", key.len())).await;
            }
            received.push((*key).to_owned());
        }
        peer.send("END\r\n").await;
    }
    assert!(lines > 8, "{lines}");
    assert_eq!(received[..97], keys);
    let [of_many, of_last] = calls;
    for (index, result) in of_many.results().await.into_iter().enumerate() {
        let found = result.unwrap().map(|item| (item.value, item.cas.map(|cas| cas.0)));
        assert_eq!(found, (!index.is_multiple_of(3)).then(|| (Bytes::from(keys[index].clone()), Some(5))));
    }
    assert_eq!(of_last.value().await.unwrap().as_deref(), Some(&b"last"[..]));
    assert_eq!(single.value().await.unwrap().as_deref(), Some(longest.as_bytes()));
}

#[tokio::test(start_paused = true)]
async fn an_error_line_or_an_unrequested_key_ends_the_connection() {
    for (reply, kind) in [
        ("STORED\r\nEND\r\nCLIENT_ERROR invalid exptime argument\r\n7\r\n", ErrorKind::Server),
        // As memcached before 1.5.3 replies.
        ("STORED\r\nEND\r\nERROR\r\n7\r\n", ErrorKind::Server),
        // The server drops earlier replies: the error stands in the place of the plain get's reply, or of the store's.
        ("STORED\r\nSERVER_ERROR out of memory\r\n", ErrorKind::Server),
        ("SERVER_ERROR out of memory writing get response\r\n", ErrorKind::Server),
        ("STORED\r\nEND\r\nVALUE other 0 1\r\nx\r\nEND\r\n", ErrorKind::Protocol),
        ("STORED\r\nEND\r\nTOUCHED\r\n", ErrorKind::Protocol),
    ] {
        let rig = Rig::new();
        let (plain, touched, stored, counted) = (
            rig.call(get("p")).await,
            rig.call(gat("t", 60)).await,
            rig.call(set("s", "v")).await,
            rig.call(incr("n", 1)).await,
        );
        let (driver, mut peer) = rig.connect();
        peer.expect("set s 0 0 1\r\nv\r\nget p\r\ngat 60 t\r\nincr n 1\r\n").await;
        peer.send(reply).await;
        lost(driver).await.expect(reply);
        assert_failed(touched.value().await, kind, Delivery::Unknown);
        assert_failed(counted.reply().await, kind, Delivery::Unknown);
        assert_eq!(plain.value().await.is_ok(), reply.starts_with("STORED\r\nEND"), "{reply:?}");
        let stored = stored.reply().await;
        if reply.starts_with("STORED") {
            assert_eq!(stored.unwrap(), Reply::Stored);
        } else {
            assert_failed(stored, kind, Delivery::Unknown);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_touching_get_affects_no_other_call_whether_written_or_queued() {
    let rig = Rig::new();
    let (_driver, mut peer) = rig.connect();
    let written = rig.call(gat("a", 5)).await;
    peer.expect("gat 5 a\r\n").await;
    let queued = rig.call(gat("never-sent", 5)).await;
    let other = rig.call(gat("b", 5)).await;
    drop((queued, written));
    peer.send("VALUE a 0 1\r\nA\r\nEND\r\n").await;
    peer.expect("gat 5 b\r\n").await;
    peer.send("VALUE b 0 1\r\nB\r\nEND\r\n").await;
    assert_eq!(other.value().await.unwrap().as_deref(), Some(&b"B"[..]));
}
