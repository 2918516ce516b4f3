//! Servers and proxies without today's meta commands: they never receive one, and everything else works.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use memring::meta::{Arithmetic, Delete, Get, Set};
use memring::{CasOutcome, Client, Counter, Delivery, ErrorKind, FetchOptions, Origin};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::scripted::scripted_server;
use crate::support::{
    LONG_TIMEOUT, MINUTE, Version, client_builder, eventually, key_owned_by, memcached, node_id, server_version,
};

/// How a scripted server reacts to `version`.
#[derive(Debug, Clone, Copy)]
enum OnVersion {
    Reply(&'static str),
    Close,
    Ignore,
}

/// A server whose replies are those of memcached 1.5.22, taken from a recording.
struct OldServer {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    items: HashMap<String, StoredItem>,
    last_cas: u64,
    /// The meta commands received.
    meta_commands: Vec<String>,
    /// The number of `version` commands received.
    version_commands: usize,
}

#[derive(Debug, Clone)]
struct StoredItem {
    value: Vec<u8>,
    flags: String,
    cas: u64,
}

impl State {
    fn insert(&mut self, key: &str, value: Vec<u8>, flags: &str) {
        self.last_cas += 1;
        self.items.insert(key.to_owned(), StoredItem { value, flags: flags.to_owned(), cas: self.last_cas });
    }

    fn store(&mut self, words: &[&str], value: Vec<u8>) -> &'static str {
        let (key, flags, old) = (words[1], words[2], self.items.get(words[1]).cloned());
        match (words[0], old) {
            ("add", Some(_)) | ("replace" | "append" | "prepend", None) => return "NOT_STORED",
            ("cas", None) => return "NOT_FOUND",
            ("cas", Some(old)) if old.cas.to_string() != words[5] => return "EXISTS",
            ("append", Some(old)) => self.insert(key, [old.value, value].concat(), &old.flags),
            ("prepend", Some(old)) => self.insert(key, [value, old.value].concat(), &old.flags),
            _ => self.insert(key, value, flags),
        }
        "STORED"
    }

    fn count(&mut self, words: &[&str]) -> String {
        let Some(old) = self.items.get(words[1]).cloned() else { return "NOT_FOUND".into() };
        let Ok(number) = String::from_utf8_lossy(&old.value).trim_end().parse::<u64>() else {
            return "CLIENT_ERROR cannot increment or decrement non-numeric value".into();
        };
        let delta = words[2].parse().unwrap();
        let number = if words[0] == "incr" { number.wrapping_add(delta) } else { number.saturating_sub(delta) };
        self.insert(words[1], number.to_string().into(), &old.flags);
        number.to_string()
    }

    fn get(&self, words: &[&str], out: &mut Vec<u8>) {
        let keys = if words[0].starts_with("gat") { 2 } else { 1 };
        for key in &words[keys..] {
            let Some(StoredItem { value, flags, cas }) = self.items.get(*key) else { continue };
            let cas = if words[0].ends_with('s') { format!(" {cas}") } else { String::new() };
            out.extend_from_slice(format!("VALUE {key} {flags} {}{cas}\r\n", value.len()).as_bytes());
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"END");
    }

    /// The meta commands before 1.6: no lengths, no tokens, and the data block of a refused command is not discarded.
    fn meta(&mut self, words: &[&str], out: &mut Vec<u8>) {
        self.meta_commands.push(words.join(" "));
        match (words, words.get(1).and_then(|key| self.items.get(*key))) {
            (["mg", _, "v"], Some(item)) => out.extend_from_slice(&[b"VA v\r\n", &item.value[..], b"\r\nEN"].concat()),
            (["mg", _, _, _, ..], _) => out.extend_from_slice(b"CLIENT_ERROR incorrect number of tokens supplied"),
            (["mg" | "me", ..] | ["mn"], _) => out.extend_from_slice(b"EN"),
            (["ma", ..], _) => out.extend_from_slice(b"ERROR"),
            _ => out.extend_from_slice(b"CLIENT_ERROR invalid or duplicate flag"),
        }
    }
}

impl OldServer {
    async fn start(on_version: OnVersion) -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let addr = scripted_server({
            let state = Arc::clone(&state);
            move |socket| serve(socket, on_version, Arc::clone(&state))
        })
        .await;
        Self { addr, state }
    }

    async fn client(&self) -> Client {
        client_builder(self.addr).connect().await.unwrap()
    }

    fn assert_received_no_meta_command(&self) {
        assert_eq!(self.state.lock().unwrap().meta_commands, [] as [&str; 0]);
    }
}

async fn serve(socket: TcpStream, on_version: OnVersion, state: Arc<Mutex<State>>) {
    let mut socket = BufReader::new(socket);
    loop {
        let mut line = String::new();
        if socket.read_line(&mut line).await.unwrap_or(0) == 0 {
            return;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut out = Vec::new();
        match words[0] {
            "set" | "add" | "replace" | "append" | "prepend" | "cas" => {
                let mut value = vec![0; words[4].parse::<usize>().unwrap() + 2];
                socket.read_exact(&mut value).await.unwrap();
                value.truncate(value.len() - 2);
                out.extend_from_slice(state.lock().unwrap().store(&words, value).as_bytes());
            }
            "get" | "gets" | "gat" | "gats" => state.lock().unwrap().get(&words, &mut out),
            "incr" | "decr" => out = state.lock().unwrap().count(&words).into_bytes(),
            verb @ ("delete" | "touch") => {
                let mut state = state.lock().unwrap();
                let exists = state.items.contains_key(words[1]);
                let done = if verb == "touch" { "TOUCHED" } else { "DELETED" };
                if verb == "delete" {
                    state.items.remove(words[1]);
                }
                out.extend_from_slice(if exists { done } else { "NOT_FOUND" }.as_bytes());
            }
            "flush_all" | "verbosity" => {
                state.lock().unwrap().items.clear();
                out.extend_from_slice(b"OK");
            }
            "version" => {
                state.lock().unwrap().version_commands += 1;
                match on_version {
                    OnVersion::Reply(version) => out.extend_from_slice(version.as_bytes()),
                    OnVersion::Close => return,
                    OnVersion::Ignore => continue,
                }
            }
            "mg" | "ms" | "md" | "ma" | "me" | "mn" => state.lock().unwrap().meta(&words, &mut out),
            _ => out.extend_from_slice(b"ERROR"),
        }
        out.extend_from_slice(b"\r\n");
        if socket.get_mut().write_all(&out).await.is_err() {
            return;
        }
    }
}

/// The real server is tested too if its version is 1.5.22.
#[tokio::test]
async fn the_scripted_server_replies_as_memcached_1_5_22() {
    let input = b"set a 7 0 1\r\nx\r\nmg a v\r\nmg absent v\r\nmn\r\nmg a v O1\r\nma a\r\nms a T0 3\r\nmn\r\n\
        version\r\nms a 9 !\r\nflush_all\r\nget a\r\n";
    let expected = "STORED\r\nVA v\r\nx\r\nEN\r\nEN\r\nEN\r\nCLIENT_ERROR incorrect number of tokens supplied\r\n\
        ERROR\r\n\
        CLIENT_ERROR invalid or duplicate flag\r\nEN\r\nVERSION 1.5.22\r\n\
        CLIENT_ERROR invalid or duplicate flag\r\nOK\r\nEND\r\n";
    let scripted = OldServer::start(OnVersion::Reply("VERSION 1.5.22")).await;
    let (real, _) = memcached().await;
    let real_addr = (server_version(real.addr()).await == Version(1, 5, 22)).then_some(real.addr());
    for addr in [Some(scripted.addr), real_addr].into_iter().flatten() {
        let mut socket = TcpStream::connect(addr).await.unwrap();
        socket.write_all(input).await.unwrap();
        let mut replies = vec![0; expected.len()];
        socket.read_exact(&mut replies).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&replies), expected, "{addr}");
    }
    assert!(!scripted.state.lock().unwrap().meta_commands.is_empty(), "the script must record meta commands");
}

async fn assert_classic_commands_work(cache: &Client, key: &str) {
    cache.set(key, "1", MINUTE).await.unwrap();
    assert_eq!(cache.get(key).await.unwrap().unwrap().value, "1");
    assert!(!cache.add(key, "2", MINUTE).await.unwrap() && cache.replace(key, "2", MINUTE).await.unwrap());
    assert!(cache.append(key, "3").await.unwrap() && cache.prepend(key, "1").await.unwrap());
    assert_eq!((cache.incr(key, 7).await.unwrap(), cache.decr(key, 10).await.unwrap()), (Some(130), Some(120)));
    assert!(cache.touch(key, MINUTE).await.unwrap());
    let unique = cache.gets_and_touch(key, MINUTE).await.unwrap().unwrap().cas.unwrap();
    assert_eq!(cache.cas(key, unique, "x", MINUTE).await.unwrap(), CasOutcome::Stored);
    assert_eq!(cache.cas(key, unique, "y", MINUTE).await.unwrap(), CasOutcome::Changed);
    let found = cache.gets_many([key, "absent"]).await;
    assert_eq!((found.hits.len(), found.is_complete()), (1, true));
    // On a server with leases, the client would need a meta command to distinguish an empty value from a lease.
    cache.set(key, "", MINUTE).await.unwrap();
    assert!(cache.get(key).await.unwrap().unwrap().value.is_empty());
    assert_eq!(cache.get_many([key]).await.hits.len(), 1);
    assert!(cache.delete(key).await.unwrap() && cache.get(key).await.unwrap().is_none());
}

async fn assert_read_modify_write_works_with_classic_commands(cache: &Client, key: &str) {
    let compute = |value: &'static str| move || async move { Ok::<_, &'static str>(value) };
    let options = || FetchOptions::from(MINUTE).recache_within(MINUTE * 2);
    assert_eq!(cache.fetch(key, options(), compute("5")).await.unwrap().origin, Origin::Computed);
    let fetched = cache.fetch(key, options(), compute("6")).await.unwrap();
    assert_eq!((&fetched.value[..], fetched.origin), (&b"5"[..], Origin::Cached));
    let longer = cache.update(key, MINUTE, |old| Some([&old.unwrap().value[..], b"0"].concat())).await.unwrap();
    assert_eq!(longer.unwrap(), "50");
    assert_eq!(cache.count_up(key, 2, Counter::new(9, MINUTE)).await.unwrap(), 52);
    assert!(cache.invalidate(key, MINUTE).await.unwrap() && !cache.invalidate(key, MINUTE).await.unwrap());
    assert_eq!(cache.count_down(key, 2, Counter::new(9, MINUTE)).await.unwrap(), 9);
    assert_eq!(cache.count_down(key, 10, Counter::new(9, MINUTE)).await.unwrap(), 0);
    assert_eq!(cache.update(key, MINUTE, |_| None::<&str>).await.unwrap(), None);
    cache.delete(key).await.unwrap();
    assert_eq!(cache.update(key, MINUTE, |old| old.is_none().then_some("new")).await.unwrap().unwrap(), "new");
    cache.delete(key).await.unwrap();
}

async fn assert_meta_is_unsupported(cache: &Client, key: &str, message: &str) {
    let outcomes = [
        cache.meta_get(key, Get::new().value()).await.map(drop),
        cache.meta_set(key, "flush_all", Set::new(MINUTE)).await.map(drop),
        cache.meta_delete(key, Delete::new()).await.map(drop),
        cache.meta_arithmetic(key, Arithmetic::incr(1).create(1, MINUTE)).await.map(drop),
        cache.meta_debug(key).await.map(drop),
        cache.meta_get_many([key], Get::new().value()).await.remove(0).1.map(drop),
    ];
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::Unsupported, Delivery::NotSent), "{error}");
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[tokio::test]
async fn everything_but_meta_works_on_an_old_server_which_never_receives_a_meta_command() {
    let old = OldServer::start(OnVersion::Reply("VERSION 1.5.22")).await;
    let cache = old.client().await;
    assert_classic_commands_work(&cache, "k").await;
    cache.set("k", "here", MINUTE).await.unwrap();
    assert_meta_is_unsupported(&cache, "k", "the server is 1.5.22").await;
    let noop = cache.meta_noop().await.remove(0).1.unwrap_err();
    assert_eq!(noop.kind(), ErrorKind::Unsupported);
    assert_eq!(cache.take("k").await.unwrap_err().kind(), ErrorKind::Unsupported);
    let binary = client_builder(old.addr).binary_keys(true).connect().await.unwrap();
    assert_eq!(binary.set("two words", "flush_all", MINUTE).await.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(cache.get("k").await.unwrap().unwrap().value, "here", "no value may run as `flush_all`");
    cache.delete("k").await.unwrap();
    assert_read_modify_write_works_with_classic_commands(&cache, "k").await;
    assert_classic_commands_work(&cache, "k").await;
    old.assert_received_no_meta_command();
}

#[tokio::test]
async fn among_nodes_of_mixed_versions_each_key_uses_the_commands_of_its_node() {
    let old = OldServer::start(OnVersion::Reply("VERSION 1.5.22")).await;
    let (one, _) = memcached().await;
    let (two, _) = memcached().await;
    let has_meta = server_version(one.addr()).await >= Version::META;
    let nodes = [old.addr, one.addr(), two.addr()];
    let builder = Client::builder().nodes(nodes.map(|addr| addr.to_string()));
    let cache = builder.request_timeout(LONG_TIMEOUT).connect().await.unwrap();
    let keys: Vec<String> = nodes.map(|addr| key_owned_by(&cache, &node_id(addr))).into();
    for key in &keys {
        assert_classic_commands_work(&cache, key).await;
        let compute = || async { Ok::<_, &'static str>("value") };
        assert_eq!(cache.fetch(key, MINUTE, compute).await.unwrap().origin, Origin::Computed);
        assert_eq!(cache.fetch(key, MINUTE, compute).await.unwrap().origin, Origin::Cached);
    }
    // Empty values need a second request on servers with leases.
    cache.set(&keys[0], "", MINUTE).await.unwrap();
    cache.set(&keys[1], "", MINUTE).await.unwrap();
    let found = cache.get_many(&keys).await;
    assert!(found.is_complete());
    assert_eq!(found.hits.iter().map(|(_, item)| item.value.len()).collect::<Vec<_>>(), [0, 0, 5]);
    let outcomes = cache.meta_get_many(&keys, Get::new().size()).await;
    for (at, (key, outcome)) in outcomes.into_iter().enumerate() {
        assert_eq!(key, &keys[at]);
        match outcome {
            Ok(item) => assert!(has_meta && at > 0 && item.unwrap().size == Some([0, 0, 5][at])),
            Err(error) => {
                assert!(!has_meta || at == 0, "{error}");
                assert_eq!((error.kind(), error.delivery()), (ErrorKind::Unsupported, Delivery::NotSent));
            }
        }
    }
    let outcomes = cache.meta_noop().await;
    assert_eq!(outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).count(), if has_meta { 2 } else { 0 });
    // An invalidated item is stale on the new servers and deleted on the old one, and computed again in both cases.
    for (at, key) in keys.iter().enumerate() {
        cache.set(key, "old", MINUTE).await.unwrap();
        assert!(cache.invalidate(key, MINUTE).await.unwrap());
        assert_eq!(cache.get(key).await.unwrap().is_some(), has_meta && at > 0);
        let fetched = cache.fetch(key, MINUTE, || async { Ok::<_, &'static str>("new") }).await.unwrap();
        assert_eq!((&fetched.value[..], fetched.origin), (&b"new"[..], Origin::Computed));
    }
    old.assert_received_no_meta_command();
}

#[tokio::test]
async fn classic_commands_work_through_proxies_that_do_not_report_a_version() {
    let unknown = OnVersion::Reply("VERSION mcrouter 0.41");
    for on_version in [OnVersion::Reply("ERROR"), unknown, OnVersion::Close, OnVersion::Ignore] {
        let proxy = OldServer::start(on_version).await;
        let cache = proxy.client().await;
        let short_timeout = cache.with_request_timeout(Duration::from_millis(200));
        assert_classic_commands_work(&cache.namespace("before:").unwrap(), "k").await;
        // The probe for meta commands may fail, but it does not affect other callers.
        let (meta, ()) = tokio::join!(short_timeout.meta_get("k", Get::new().value()), async {
            for n in 0..20 {
                cache.set(format!("k{n}"), "v", MINUTE).await.unwrap();
                assert!(cache.get(format!("k{n}")).await.unwrap().is_some());
            }
        });
        assert!(meta.is_err(), "{on_version:?}");
        eventually("the client stops probing", async || {
            let error = short_timeout.meta_get("k", Get::new().value()).await.unwrap_err();
            error.kind() == ErrorKind::Unsupported
        })
        .await;
        let before = proxy.state.lock().unwrap().version_commands;
        assert_meta_is_unsupported(&cache, "k", "the server states no version of memcached").await;
        assert_classic_commands_work(&cache, "k").await;
        assert_read_modify_write_works_with_classic_commands(&cache, "k").await;
        assert_eq!(proxy.state.lock().unwrap().version_commands, before, "{on_version:?}");
        proxy.assert_received_no_meta_command();
    }
}

#[tokio::test]
async fn versions_fails_if_the_reply_is_an_error_line_or_not_a_version() {
    for (reply, kind) in [
        ("ERROR", ErrorKind::Server),
        ("SERVER_ERROR out of memory", ErrorKind::Server),
        ("CLIENT_ERROR no", ErrorKind::Server),
        ("VERSION", ErrorKind::Protocol),
        ("OK", ErrorKind::Protocol),
    ] {
        let server = OldServer::start(OnVersion::Reply(reply)).await;
        let cache = server.client().await;
        let error = cache.versions().await.remove(0).1.unwrap_err();
        assert_eq!(error.kind(), kind, "{reply}: {error}");
        assert_classic_commands_work(&cache, "k").await;
    }
}
