//! Responses of many lines from a scripted peer: cut short, endless, or not even a line.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::super::LineReader;
use super::*;
use crate::inspect::Stats;
use crate::protocol::{METADUMP_COMMAND, RESET_STATS_COMMAND, stats_command};

const ITEM: &str = "key=a%20b exp=-1 la=1795464173 cas=1 fetch=yes cls=1 size=65\n";

async fn open(command: &str) -> (LineReader<DuplexStream>, DuplexStream) {
    let (ours, mut theirs) = duplex(64 * 1024);
    let reader = LineReader::open(ours, node(), SILENCE_TIMEOUT, command).await.unwrap();
    let mut received = vec![0; command.len()];
    theirs.read_exact(&mut received).await.unwrap();
    assert_eq!(String::from_utf8(received).unwrap(), command);
    (reader, theirs)
}

async fn stats_from(response: &str) -> Result<Stats, Error> {
    let (reader, mut peer) = open(stats_command(crate::StatsKind::General)).await;
    peer.write_all(response.as_bytes()).await.unwrap();
    drop(peer);
    timeout(Duration::from_secs(10), reader.read_stats()).await.expect("no response")
}

/// The keys of all items, and how the list ended.
async fn dump_from(response: &[u8], step: usize) -> (Vec<Vec<u8>>, Result<(), Error>) {
    let (mut reader, mut peer) = open(METADUMP_COMMAND).await;
    let server = async move {
        for piece in response.chunks(step) {
            if peer.write_all(piece).await.is_err() {
                return;
            }
        }
    };
    let read = async {
        let mut keys = Vec::new();
        loop {
            match reader.entry(!keys.is_empty()).await {
                Ok(Some(entry)) => keys.push(entry.key.to_vec()),
                Ok(None) => return (keys, Ok(())),
                Err(error) => return (keys, Err(error)),
            }
        }
    };
    tokio::join!(read, server).0
}

#[tokio::test(start_paused = true)]
async fn statistics_end_at_the_end_line() {
    let stats = stats_from("STAT pid 1\r\n96 2\r\nSTAT path a b \r\nSTAT empty \r\nSTAT pid 2\r\nEND\r\nSTAT x 1\r\n")
        .await
        .unwrap();
    let pairs: Vec<_> = stats.iter().collect();
    assert_eq!(pairs, [("pid", "1"), ("path", "a b "), ("empty", ""), ("pid", "2")]);
    assert_eq!((stats.get("path"), stats.get("x")), (Some("a b "), None));
    assert_eq!((stats.number("pid"), stats.number("path"), stats.number("empty")), (Some(1), None, None));
    assert!(stats_from("END\r\n").await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn statistics_that_are_cut_short_or_rejected_are_errors() {
    let long = format!("STAT {}", "x".repeat(17_000));
    for (response, kind) in [
        ("STAT pid 1\r\n", ErrorKind::Connection),
        ("STAT pid 1\r\nEND", ErrorKind::Connection),
        ("", ErrorKind::Connection),
        ("ERROR\r\n", ErrorKind::Unsupported),
        ("ERROR not now\r\n", ErrorKind::Server),
        ("STAT pid 1\r\nSERVER_ERROR out of memory\r\n", ErrorKind::Server),
        ("CLIENT_ERROR unauthenticated\r\n", ErrorKind::Auth),
        ("RESET\r\n", ErrorKind::Protocol),
        (&*long, ErrorKind::Protocol),
        (&*format!("{long}\r\nEND\r\n"), ErrorKind::Protocol),
    ] {
        assert_eq!(stats_from(response).await.unwrap_err().kind(), kind, "{response:.50}");
    }
}

#[tokio::test(start_paused = true)]
async fn statistics_without_an_end_are_an_error() {
    let (reader, mut peer) = open("stats\r\n").await;
    let flood = tokio::spawn(async move {
        let lines = format!("STAT x {}\r\n", "y".repeat(8_000)).repeat(8);
        while peer.write_all(lines.as_bytes()).await.is_ok() {}
    });
    let error = timeout(Duration::from_secs(3600), reader.read_stats()).await.expect("no response").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    flood.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_reset_must_be_confirmed() {
    for (response, kind) in [
        ("RESET\r\n", None),
        ("END\r\n", Some(ErrorKind::Protocol)),
        ("OK\r\n", Some(ErrorKind::Protocol)),
        ("ERROR\r\n", Some(ErrorKind::Unsupported)),
        ("RESE", Some(ErrorKind::Connection)),
    ] {
        let (reader, mut peer) = open(RESET_STATS_COMMAND).await;
        peer.write_all(response.as_bytes()).await.unwrap();
        drop(peer);
        assert_eq!(reader.read_reset().await.err().map(|error| error.kind()), kind, "{response}");
    }
}

#[tokio::test(start_paused = true)]
async fn items_are_read_however_they_are_split() {
    let response =
        format!("OK\r\n{ITEM}{}key=b exp=1 la=1 cas=1 fetch=no new=x \nEND\r\n", ITEM.replace('\n', " \r\n"));
    for step in [1, 2, 3, 7, 100, 10_000] {
        let (keys, end) = dump_from(response.as_bytes(), step).await;
        end.unwrap();
        assert_eq!(keys, [&b"a b"[..], b"a b", b"b"], "in pieces of {step}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_cut_short_never_looks_complete() {
    let whole = format!("OK\r\n{ITEM}{ITEM}END\r\n");
    for cut in 0..whole.len() {
        let (keys, end) = dump_from(&whole.as_bytes()[..cut], 1000).await;
        assert!(keys.len() <= 2);
        assert_eq!(end.unwrap_err().kind(), ErrorKind::Connection, "cut at {cut}");
    }
    dump_from(whole.as_bytes(), 1000).await.1.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_no_list_is_an_error() {
    for (response, kind, items) in [
        ("BUSY currently processing crawler request\r\n", ErrorKind::Server, 0),
        ("ERROR\r\n", ErrorKind::Unsupported, 0),
        ("ERROR metadump not allowed\r\n", ErrorKind::Server, 0),
        ("CLIENT_ERROR lru crawler disabled\r\n", ErrorKind::Server, 0),
        ("CLIENT_ERROR unauthenticated\r\n", ErrorKind::Auth, 0),
        (&*format!("{ITEM}OK\r\n"), ErrorKind::Protocol, 1),
        ("OK\r\nOK\r\n", ErrorKind::Protocol, 0),
        (&*format!("{ITEM}key=b\n{ITEM}END\r\n"), ErrorKind::Protocol, 1),
        (&*format!("{ITEM}VALUE a 0 1\r\n"), ErrorKind::Protocol, 1),
        (&*format!("{ITEM}{}", "x".repeat(20_000)), ErrorKind::Protocol, 1),
    ] {
        let (keys, end) = dump_from(response.as_bytes(), 1000).await;
        assert_eq!((end.unwrap_err().kind(), keys.len()), (kind, items), "{response:.80}");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_has_a_time_limit_and_counts_only_while_the_caller_waits() {
    let (mut reader, mut peer) = open(METADUMP_COMMAND).await;
    peer.write_all(format!("{ITEM}{ITEM}{}", &ITEM[..10]).as_bytes()).await.unwrap();
    // The time that the caller takes over an item does not count.
    assert!(reader.entry(false).await.unwrap().is_some());
    sleep(SILENCE_TIMEOUT * 10).await;
    assert!(reader.entry(true).await.unwrap().is_some());
    // No item is lost when the caller drops the future.
    assert!(timeout(SILENCE_TIMEOUT / 2, reader.entry(true)).await.is_err());
    peer.write_all(&ITEM.as_bytes()[10..]).await.unwrap();
    assert!(reader.entry(true).await.unwrap().is_some());

    // A byte now and then makes no line.
    let dribble = tokio::spawn(async move {
        while peer.write_all(b"k").await.is_ok() {
            sleep(SILENCE_TIMEOUT / 3).await;
        }
    });
    let start = Instant::now();
    assert_eq!(reader.entry(true).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(start.elapsed(), SILENCE_TIMEOUT);
    drop(reader);
    dribble.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_read_the_command_is_a_timeout() {
    let (ours, _theirs) = duplex(4);
    let outcome = LineReader::open(ours, node(), SILENCE_TIMEOUT, METADUMP_COMMAND).await;
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_before_the_caller_asks_for_it() {
    let (mut reader, mut peer) = open(METADUMP_COMMAND).await;
    let written = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let flood = tokio::spawn({
        let written = Arc::clone(&written);
        async move {
            while peer.write_all(ITEM.as_bytes()).await.is_ok() {
                written.fetch_add(ITEM.len(), std::sync::atomic::Ordering::Relaxed);
            }
        }
    });
    assert!(reader.entry(false).await.unwrap().is_some());
    sleep(Duration::from_secs(10)).await;
    let held = written.load(std::sync::atomic::Ordering::Relaxed);
    assert!(held < 256 * 1024, "{held} bytes were read for one item");
    drop(reader);
    flood.await.unwrap();
}
