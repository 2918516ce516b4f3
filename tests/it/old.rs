//! Servers and proxies that know no meta commands of today: none is ever sent one, and everything else works on them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use memring::meta::{Arithmetic, Delete, Get, Set};
use memring::{CasOutcome, Client, Counter, Delivery, ErrorKind, FetchOptions, NodeId, Origin};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::support::{NO_HURRY, Version, eventually, key_on, memcached, peer, version_of};

const MINUTE: Duration = Duration::from_secs(60);

/// What becomes of whoever asks a scripted server for its version.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Says(&'static str),
    Closes,
    Silent,
}

/// A server with 1.5.22's answers, from a record of the real one's.
struct Old {
    addr: SocketAddr,
    heard: Arc<Mutex<Heard>>,
}

#[derive(Debug, Default)]
struct Heard {
    items: HashMap<String, Stored>,
    last_cas: u64,
    /// Meta commands that came.
    meta: Vec<String>,
    versions: usize,
}

#[derive(Debug, Clone)]
struct Stored {
    value: Vec<u8>,
    flags: String,
    cas: u64,
}

impl Heard {
    fn store(&mut self, key: &str, value: Vec<u8>, flags: &str) {
        self.last_cas += 1;
        self.items.insert(key.to_owned(), Stored { value, flags: flags.to_owned(), cas: self.last_cas });
    }

    fn stored(&mut self, words: &[&str], body: Vec<u8>) -> &'static str {
        let (key, flags, known) = (words[1], words[2], self.items.get(words[1]).cloned());
        match (words[0], known) {
            ("add", Some(_)) | ("replace" | "append" | "prepend", None) => return "NOT_STORED",
            ("cas", None) => return "NOT_FOUND",
            ("cas", Some(known)) if known.cas.to_string() != words[5] => return "EXISTS",
            ("append", Some(known)) => self.store(key, [known.value, body].concat(), &known.flags),
            ("prepend", Some(known)) => self.store(key, [body, known.value].concat(), &known.flags),
            _ => self.store(key, body, flags),
        }
        "STORED"
    }

    fn counted(&mut self, words: &[&str]) -> String {
        let Some(known) = self.items.get(words[1]).cloned() else { return "NOT_FOUND".into() };
        let Ok(number) = String::from_utf8_lossy(&known.value).trim_end().parse::<u64>() else {
            return "CLIENT_ERROR cannot increment or decrement non-numeric value".into();
        };
        let delta = words[2].parse().unwrap();
        let number = if words[0] == "incr" { number.wrapping_add(delta) } else { number.saturating_sub(delta) };
        self.store(words[1], number.to_string().into(), &known.flags);
        number.to_string()
    }

    fn found(&self, words: &[&str], out: &mut Vec<u8>) {
        let keys = if words[0].starts_with("gat") { 2 } else { 1 };
        for key in &words[keys..] {
            let Some(Stored { value, flags, cas }) = self.items.get(*key) else { continue };
            let cas = if words[0].ends_with('s') { format!(" {cas}") } else { String::new() };
            out.extend_from_slice(format!("VALUE {key} {flags} {}{cas}\r\n", value.len()).as_bytes());
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"END");
    }

    /// As it was before 1.6: without lengths, without tokens, and without swallowing what follows.
    fn meta(&mut self, words: &[&str], out: &mut Vec<u8>) {
        self.meta.push(words.join(" "));
        match (words, words.get(1).and_then(|key| self.items.get(*key))) {
            (["mg", _, "v"], Some(item)) => out.extend_from_slice(&[b"VA v\r\n", &item.value[..], b"\r\nEN"].concat()),
            (["mg", _, _, _, ..], _) => out.extend_from_slice(b"CLIENT_ERROR incorrect number of tokens supplied"),
            (["mg" | "me", ..] | ["mn"], _) => out.extend_from_slice(b"EN"),
            (["ma", ..], _) => out.extend_from_slice(b"ERROR"),
            _ => out.extend_from_slice(b"CLIENT_ERROR invalid or duplicate flag"),
        }
    }
}

impl Old {
    async fn start(asked: Asked) -> Self {
        let heard: Arc<Mutex<Heard>> = Arc::default();
        let addr = peer({
            let heard = Arc::clone(&heard);
            move |socket| serve(socket, asked, Arc::clone(&heard))
        })
        .await;
        Self { addr, heard }
    }

    async fn client(&self) -> Client {
        builder([self.addr]).connect().await.unwrap()
    }

    fn assert_heard_no_meta(&self) {
        assert_eq!(self.heard.lock().unwrap().meta, [] as [&str; 0]);
    }
}

async fn serve(socket: TcpStream, asked: Asked, heard: Arc<Mutex<Heard>>) {
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
                let mut body = vec![0; words[4].parse::<usize>().unwrap() + 2];
                socket.read_exact(&mut body).await.unwrap();
                body.truncate(body.len() - 2);
                out.extend_from_slice(heard.lock().unwrap().stored(&words, body).as_bytes());
            }
            "get" | "gets" | "gat" | "gats" => heard.lock().unwrap().found(&words, &mut out),
            "incr" | "decr" => out = heard.lock().unwrap().counted(&words).into_bytes(),
            verb @ ("delete" | "touch") => {
                let mut heard = heard.lock().unwrap();
                let is_there = heard.items.contains_key(words[1]);
                let done = if verb == "touch" { "TOUCHED" } else { "DELETED" };
                if verb == "delete" {
                    heard.items.remove(words[1]);
                }
                out.extend_from_slice(if is_there { done } else { "NOT_FOUND" }.as_bytes());
            }
            "flush_all" | "verbosity" => {
                heard.lock().unwrap().items.clear();
                out.extend_from_slice(b"OK");
            }
            "version" => {
                heard.lock().unwrap().versions += 1;
                match asked {
                    Asked::Says(version) => out.extend_from_slice(version.as_bytes()),
                    Asked::Closes => return,
                    Asked::Silent => continue,
                }
            }
            "mg" | "ms" | "md" | "ma" | "me" | "mn" => heard.lock().unwrap().meta(&words, &mut out),
            _ => out.extend_from_slice(b"ERROR"),
        }
        out.extend_from_slice(b"\r\n");
        if socket.get_mut().write_all(&out).await.is_err() {
            return;
        }
    }
}

fn builder(nodes: impl IntoIterator<Item = SocketAddr>) -> memring::ClientBuilder {
    let nodes: Vec<String> = nodes.into_iter().map(|addr| addr.to_string()).collect();
    Client::builder().nodes(nodes).request_timeout(NO_HURRY)
}

/// What the script says is what the real one says, where that is at hand.
#[tokio::test]
async fn the_script_is_what_the_old_server_says() {
    let asked = b"set a 7 0 1\r\nx\r\nmg a v\r\nmg absent v\r\nmn\r\nmg a v O1\r\nma a\r\nms a T0 3\r\nmn\r\n\
        version\r\nms a 9 !\r\nflush_all\r\nget a\r\n";
    let answered = "STORED\r\nVA v\r\nx\r\nEN\r\nEN\r\nEN\r\nCLIENT_ERROR incorrect number of tokens supplied\r\nERROR\r\n\
        CLIENT_ERROR invalid or duplicate flag\r\nEN\r\nVERSION 1.5.22\r\n\
        CLIENT_ERROR invalid or duplicate flag\r\nOK\r\nEND\r\n";
    let old = Old::start(Asked::Says("VERSION 1.5.22")).await;
    let (real, _) = memcached().await;
    let real_one = (version_of(real.addr()).await == Version(1, 5, 22)).then_some(real.addr());
    for addr in [Some(old.addr), real_one].into_iter().flatten() {
        let mut socket = TcpStream::connect(addr).await.unwrap();
        socket.write_all(asked).await.unwrap();
        let mut answer = vec![0; answered.len()];
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), answered, "{addr}");
    }
    assert!(!old.heard.lock().unwrap().meta.is_empty(), "it hears what comes");
}

async fn everything_classic_works(cache: &Client, key: &str) {
    cache.set(key, "1", MINUTE).await.unwrap();
    assert_eq!(cache.get(key).await.unwrap().unwrap().value, "1");
    assert!(!cache.add(key, "2", MINUTE).await.unwrap() && cache.replace(key, "2", MINUTE).await.unwrap());
    assert!(cache.append(key, "3").await.unwrap() && cache.prepend(key, "1").await.unwrap());
    assert_eq!((cache.incr(key, 7).await.unwrap(), cache.decr(key, 10).await.unwrap()), (Some(130), Some(120)));
    assert!(cache.touch(key, MINUTE).await.unwrap());
    let version = cache.gets_and_touch(key, MINUTE).await.unwrap().unwrap().cas.unwrap();
    assert_eq!(cache.cas(key, version, "x", MINUTE).await.unwrap(), CasOutcome::Stored);
    assert_eq!(cache.cas(key, version, "y", MINUTE).await.unwrap(), CasOutcome::Changed);
    let found = cache.gets_many([key, "absent"]).await;
    assert_eq!((found.hits.len(), found.is_complete()), (1, true));
    // An empty value may be a lease, where there are any: to tell, a meta command would be needed.
    cache.set(key, "", MINUTE).await.unwrap();
    assert!(cache.get(key).await.unwrap().unwrap().value.is_empty());
    assert_eq!(cache.get_many([key]).await.hits.len(), 1);
    assert!(cache.delete(key).await.unwrap() && cache.get(key).await.unwrap().is_none());
}

async fn recipes_work_by_their_classic_ways(cache: &Client, key: &str) {
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
    let made = cache.update(key, MINUTE, |_| None::<&str>).await.unwrap();
    assert_eq!(made, None);
    cache.delete(key).await.unwrap();
    assert_eq!(cache.update(key, MINUTE, |old| old.is_none().then_some("new")).await.unwrap().unwrap(), "new");
    cache.delete(key).await.unwrap();
}

async fn meta_is_unsupported(cache: &Client, key: &str, saying: &str) {
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
        assert!(error.to_string().contains(saying), "{error}");
    }
}

#[tokio::test]
async fn everything_but_meta_works_on_an_old_server_and_no_meta_byte_is_sent_to_it() {
    let old = Old::start(Asked::Says("VERSION 1.5.22")).await;
    let cache = old.client().await;
    everything_classic_works(&cache, "k").await;
    cache.set("k", "here", MINUTE).await.unwrap();
    meta_is_unsupported(&cache, "k", "the server is 1.5.22").await;
    let noop = cache.meta_noop().await.remove(0).1.unwrap_err();
    assert_eq!(noop.kind(), ErrorKind::Unsupported);
    assert_eq!(cache.take("k").await.unwrap_err().kind(), ErrorKind::Unsupported);
    let binary = builder([old.addr]).binary_keys(true).connect().await.unwrap();
    assert_eq!(binary.set("two words", "flush_all", MINUTE).await.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(cache.get("k").await.unwrap().unwrap().value, "here", "nothing was flushed");
    cache.delete("k").await.unwrap();
    recipes_work_by_their_classic_ways(&cache, "k").await;
    everything_classic_works(&cache, "k").await;
    old.assert_heard_no_meta();
}

#[tokio::test]
async fn in_a_fleet_that_is_being_upgraded_each_key_is_given_what_its_node_can_do() {
    let old = Old::start(Asked::Says("VERSION 1.5.22")).await;
    let (one, _) = memcached().await;
    let (two, _) = memcached().await;
    let can = version_of(one.addr()).await >= Version::META;
    let cache = builder([old.addr, one.addr(), two.addr()]).connect().await.unwrap();
    let id = |addr: SocketAddr| addr.to_string().parse::<NodeId>().unwrap();
    let keys: Vec<String> = [old.addr, one.addr(), two.addr()].map(|addr| key_on(&cache, &id(addr))).into();
    for key in &keys {
        everything_classic_works(&cache, key).await;
        let compute = || async { Ok::<_, &'static str>("value") };
        assert_eq!(cache.fetch(key, MINUTE, compute).await.unwrap().origin, Origin::Computed);
        assert_eq!(cache.fetch(key, MINUTE, compute).await.unwrap().origin, Origin::Cached);
    }
    // Empty values too, which have to be looked at twice where leases are.
    cache.set(&keys[0], "", MINUTE).await.unwrap();
    cache.set(&keys[1], "", MINUTE).await.unwrap();
    let found = cache.get_many(&keys).await;
    assert!(found.is_complete());
    assert_eq!(found.hits.iter().map(|(_, item)| item.value.len()).collect::<Vec<_>>(), [0, 0, 5]);
    let outcomes = cache.meta_get_many(&keys, Get::new().size()).await;
    for (at, (key, outcome)) in outcomes.into_iter().enumerate() {
        assert_eq!(key, &keys[at]);
        match outcome {
            Ok(item) => assert!(can && at > 0 && item.unwrap().size == Some([0, 0, 5][at])),
            Err(error) => {
                assert!(!can || at == 0, "{error}");
                assert_eq!((error.kind(), error.delivery()), (ErrorKind::Unsupported, Delivery::NotSent));
            }
        }
    }
    let alive = cache.meta_noop().await;
    assert_eq!(alive.iter().filter(|(_, outcome)| outcome.is_ok()).count(), if can { 2 } else { 0 });
    // Stale on the new ones, gone on the old one: computed anew by either.
    for (at, key) in keys.iter().enumerate() {
        cache.set(key, "old", MINUTE).await.unwrap();
        assert!(cache.invalidate(key, MINUTE).await.unwrap());
        assert_eq!(cache.get(key).await.unwrap().is_some(), can && at > 0);
        let fetched = cache.fetch(key, MINUTE, || async { Ok::<_, &'static str>("new") }).await.unwrap();
        assert_eq!((&fetched.value[..], fetched.origin), (&b"new"[..], Origin::Computed));
    }
    old.assert_heard_no_meta();
}

/// Neither what they say nor what they do not say of themselves costs a classic command anything.
#[tokio::test]
async fn proxies_that_will_not_say_what_they_are_pass_on_everything_classic() {
    for asked in [Asked::Says("ERROR"), Asked::Says("VERSION mcrouter 0.41"), Asked::Closes, Asked::Silent] {
        let proxy = Old::start(asked).await;
        let cache = proxy.client().await;
        let hasty = cache.with_request_timeout(Duration::from_millis(200));
        everything_classic_works(&hasty.with_request_timeout(NO_HURRY).namespace("before:").unwrap(), "k").await;
        // Whoever asks for more may fail, and takes nobody with it.
        let (meta, ()) = tokio::join!(hasty.meta_get("k", Get::new().value()), async {
            for n in 0..20 {
                cache.set(format!("k{n}"), "v", MINUTE).await.unwrap();
                assert!(cache.get(format!("k{n}")).await.unwrap().is_some());
            }
        });
        assert!(meta.is_err(), "{asked:?}");
        eventually("nobody asks any more", async || {
            let error = hasty.meta_get("k", Get::new().value()).await.unwrap_err();
            error.kind() == ErrorKind::Unsupported
        })
        .await;
        let before = proxy.heard.lock().unwrap().versions;
        meta_is_unsupported(&cache, "k", "the server's version is unknown").await;
        everything_classic_works(&cache, "k").await;
        recipes_work_by_their_classic_ways(&cache, "k").await;
        assert_eq!(proxy.heard.lock().unwrap().versions, before, "{asked:?}");
        proxy.assert_heard_no_meta();
    }
}

/// `version` is a command like any other to whoever asks for it: what is no version is no answer.
#[tokio::test]
async fn an_error_line_is_no_version() {
    for (says, kind) in [
        ("ERROR", ErrorKind::Server),
        ("SERVER_ERROR out of memory", ErrorKind::Server),
        ("CLIENT_ERROR no", ErrorKind::Server),
        ("VERSION", ErrorKind::Protocol),
        ("OK", ErrorKind::Protocol),
    ] {
        let server = Old::start(Asked::Says(says)).await;
        let cache = server.client().await;
        let error = cache.versions().await.remove(0).1.unwrap_err();
        assert_eq!(error.kind(), kind, "{says}: {error}");
        everything_classic_works(&cache, "k").await;
    }
}
