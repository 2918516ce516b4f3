//! Plays the transcripts of docs/protocol.md to a real server and compares its replies.

use std::collections::HashMap;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{TEST_TIMEOUT, Version, memcached, server_version};

const GUIDE: &str = include_str!("../../docs/protocol.md");

#[tokio::test]
async fn a_real_server_replies_as_in_the_transcripts() {
    let (server, cache) = memcached().await;
    // The first version that returns the opaque token of a miss.
    let has_all = server_version(server.addr()).await >= Version(1, 6, 18);
    let mut played = 0;
    for transcript in GUIDE.split("```text\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        if transcript.contains(" mg ") && !has_all {
            eprintln!("skipped: needs memcached 1.6.18");
            continue;
        }
        for key in ["greeting", "report"] {
            cache.delete(key).await.unwrap();
        }
        timeout(TEST_TIMEOUT, play(transcript, server.addr())).await.unwrap();
        played += 1;
    }
    assert!(played == if has_all { 8 } else { 1 }, "{played} transcripts");
}

/// Plays one transcript.
///
/// Its lines are `A > request` or `A < reply`, with a remark after two spaces. `A` names the client, and is left out if
/// there is only one.
async fn play(transcript: &str, server: SocketAddr) {
    let mut clients = HashMap::new();
    // The real CAS unique for each CAS unique in the transcript.
    let mut uniques = HashMap::new();
    for line in transcript.lines() {
        let line = line.split("  ").next().unwrap();
        let direction = line.find(['<', '>']).unwrap();
        let (name, text) = (&line[..direction], line[direction + 1..].trim_start());
        if !clients.contains_key(name) {
            clients.insert(name, BufStream::new(TcpStream::connect(server).await.unwrap()));
        }
        let client = clients.get_mut(name).unwrap();
        if line[direction..].starts_with('>') {
            let request: Vec<_> = text.split(' ').map(|word| with_real_unique(word, &uniques)).collect();
            client.write_all(format!("{}\r\n", request.join(" ")).as_bytes()).await.unwrap();
            client.flush().await.unwrap();
        } else {
            let mut reply = String::new();
            client.read_line(&mut reply).await.unwrap();
            let reply = reply.strip_suffix("\r\n").unwrap();
            assert!(is_expected(reply, text, &mut uniques), "{reply:?} instead of {text:?} in:\n{transcript}");
        }
    }
}

/// Replaces the CAS unique of a `C` flag.
fn with_real_unique(word: &str, uniques: &HashMap<String, String>) -> String {
    let unique = word.strip_prefix('C').and_then(|written| uniques.get(written));
    unique.map_or_else(|| word.to_owned(), |unique| format!("C{unique}"))
}

fn is_expected(reply: &str, expected: &str, uniques: &mut HashMap<String, String>) -> bool {
    let is_same = |(word, expected): (&str, &str)| match (word.strip_prefix('c'), expected.strip_prefix('c')) {
        (Some(unique), Some(written)) => {
            uniques.entry(written.to_owned()).or_insert_with(|| unique.to_owned()) == unique
        }
        // A second may have passed.
        _ if expected.starts_with('t') && word.starts_with('t') => true,
        _ => word == expected,
    };
    let words_agree = reply.split(' ').zip(expected.split(' ')).all(is_same);
    words_agree && reply.split(' ').count() == expected.split(' ').count()
}
