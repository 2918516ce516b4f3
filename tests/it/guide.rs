//! The transcripts of the guide, played to a real server: what it answers must be what is written there.

use std::collections::HashMap;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{SOON, Version, memcached, version_of};

const GUIDE: &str = include_str!("../../docs/protocol.md");

#[tokio::test]
async fn servers_answer_as_the_guide_says() {
    let (server, cache) = memcached().await;
    // The first that answers a miss with the token.
    let has_all = version_of(server.addr()).await >= Version(1, 6, 18);
    let mut played = 0;
    for transcript in GUIDE.split("```text\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        if transcript.contains(" mg ") && !has_all {
            eprintln!("skipped: needs memcached 1.6.18");
            continue;
        }
        for key in ["greeting", "report"] {
            cache.delete(key).await.unwrap();
        }
        timeout(SOON, play(transcript, server.addr())).await.unwrap();
        played += 1;
    }
    assert!(played == if has_all { 6 } else { 1 }, "{played} transcripts");
}

/// Lines are `A > sent` or `A < answered`, with a remark after two spaces; without an `A` if there is one client only.
async fn play(transcript: &str, server: SocketAddr) {
    let mut clients = HashMap::new();
    // Versions as they are written, and as the server counts.
    let mut versions = HashMap::new();
    for line in transcript.lines() {
        let said = line.split("  ").next().unwrap();
        let at = said.find(['<', '>']).unwrap();
        let (who, text) = (&said[..at], said[at + 1..].trim_start());
        if !clients.contains_key(who) {
            clients.insert(who, BufStream::new(TcpStream::connect(server).await.unwrap()));
        }
        let client = clients.get_mut(who).unwrap();
        if said[at..].starts_with('>') {
            let sent: Vec<_> = text.split(' ').map(|word| in_the_servers_count(word, &versions)).collect();
            client.write_all(format!("{}\r\n", sent.join(" ")).as_bytes()).await.unwrap();
            client.flush().await.unwrap();
        } else {
            let mut answer = String::new();
            client.read_line(&mut answer).await.unwrap();
            let answer = answer.strip_suffix("\r\n").unwrap();
            assert!(is_as_written(answer, text, &mut versions), "{answer:?} instead of {text:?} in:\n{transcript}");
        }
    }
}

fn in_the_servers_count(word: &str, versions: &HashMap<String, String>) -> String {
    let version = word.strip_prefix('C').and_then(|written| versions.get(written));
    version.map_or_else(|| word.to_owned(), |version| format!("C{version}"))
}

fn is_as_written(answer: &str, written: &str, versions: &mut HashMap<String, String>) -> bool {
    let (mut answers, mut expected) = (answer.split(' '), written.split(' '));
    let same = |(answer, written): (&str, &str)| match (answer.strip_prefix('c'), written.strip_prefix('c')) {
        (Some(version), Some(written)) => {
            versions.entry(written.to_owned()).or_insert_with(|| version.to_owned()) == version
        }
        // A second may have passed.
        _ if written.starts_with('t') && answer.starts_with('t') => true,
        _ => answer == written,
    };
    let pairs_agree = answers.by_ref().zip(expected.by_ref()).all(same);
    pairs_agree && answer.split(' ').count() == written.split(' ').count()
}
