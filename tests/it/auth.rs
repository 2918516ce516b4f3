//! Servers that ask for a user and a password, and what is said to them first.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use memring::testing::Memcached;
use memring::{Client, ClientBuilder, Delivery, ErrorKind, NodeState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{DEADLINE, NO_HURRY, by, eventually, is_miss, peer, stat};

const MINUTE: Duration = Duration::from_secs(60);
const SHOWN: &[u8] = b"set memring:auth 0 -1 11\r\nuser secret\r\n";

/// A file of users, removed when dropped.
pub(crate) struct Users(PathBuf);

impl Users {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("memring-{}-{name}", std::process::id()));
        std::fs::write(&path, "other:words\nuser:secret\n").unwrap();
        Self(path)
    }

    pub(crate) async fn server(&self) -> Memcached {
        let args = ["-Y".into(), self.0.clone().into_os_string()];
        Memcached::start_with(args).await.expect("memcached 1.5.15 or later must be installed: see scripts/test")
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn of(server: impl ToString) -> ClientBuilder {
    // Slow at nothing: whatever is waited for here, is waited for however loaded the machine is.
    Client::builder().nodes([server.to_string()]).request_timeout(NO_HURRY).connect_timeout(NO_HURRY)
}

#[tokio::test]
async fn the_right_credentials_open_every_connection() {
    let users = Users::new("right");
    let server = users.server().await;
    let cache = of(server.addr()).credentials("user", "secret").connections_per_node(3).connect().await.unwrap();
    for n in 0..30 {
        let key = format!("key-{n}");
        let (set, _) = tokio::join!(cache.set(&key, "v", MINUTE), cache.get("other"));
        set.unwrap();
        assert_eq!(cache.get(&key).await.unwrap().unwrap().value, "v");
    }
    assert!(cache.versions().await[0].1.is_ok());
}

#[tokio::test]
async fn wrong_credentials_fail_at_once_and_say_why_but_not_what() {
    let users = Users::new("wrong");
    let server = users.server().await;
    let cache = of(server.addr()).credentials("user", "sesame").connect().await.unwrap();
    for _ in 0..3 {
        let errors = [cache.get("a").await.unwrap_err(), cache.set("a", "v", MINUTE).await.unwrap_err()];
        for error in errors {
            assert_eq!((error.kind(), error.delivery()), (ErrorKind::Auth, Delivery::NotSent), "{error:?}");
            assert!(error.to_string().contains("CLIENT_ERROR authentication failure"), "{error}");
            assert!(!format!("{error} {error:?}").contains("sesame"));
        }
    }
    assert_eq!(cache.topology().nodes[0].state, NodeState::Unreachable);
}

#[tokio::test]
async fn without_credentials_every_command_is_told_so() {
    let users = Users::new("none");
    let server = users.server().await;
    // What is asked first on a connection decides what it is told.
    for value in ["v", "two words"] {
        let cache = of(server.addr()).connect().await.unwrap();
        let error = cache.set("a", value, MINUTE).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
    }
    let cache = of(server.addr()).connect().await.unwrap();
    for _ in 0..5 {
        assert_eq!(cache.get("a").await.unwrap_err().kind(), ErrorKind::Auth);
        assert_eq!(cache.set("a", "v", MINUTE).await.unwrap_err().kind(), ErrorKind::Auth);
        assert_eq!(cache.incr("a", 1).await.unwrap_err().kind(), ErrorKind::Auth);
    }
}

#[tokio::test]
async fn a_server_that_asks_for_none_takes_them_and_keeps_nothing() {
    let server = Memcached::start().await.unwrap();
    let cache = of(server.addr()).credentials("user", "secret").connect().await.unwrap();
    cache.set("a", "v", MINUTE).await.unwrap();
    assert_eq!(cache.get("a").await.unwrap().unwrap().value, "v");
    assert!(is_miss(&cache.get("memring:auth").await));
    assert_eq!(stat(server.addr(), "curr_items").await, 1);
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_before_anything_is() {
    for (user, password) in [("", "p"), ("a b", "p"), ("a", "p\r\nflush_all"), ("a", &*"x".repeat(2000))] {
        let refused = of("127.0.0.1:1").credentials(user, password).connect().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Config);
    }
}

#[tokio::test]
async fn credentials_are_shown_to_nobody_else() {
    let builder = of("127.0.0.1:1").credentials("Aladdin", "sesame");
    let shown = format!("{builder:?} {builder:#?}");
    let cache = builder.connect().await.unwrap();
    let shown = format!("{shown} {cache:?} {:?} {:?}", cache.topology(), cache.get("a").await);
    assert!(!shown.contains("sesame") && !shown.contains("Aladdin"), "{shown}");
}

/// Reads until all of `wire` has come; false if anything else did.
async fn hears(socket: &mut TcpStream, wire: &[u8]) -> bool {
    let mut heard = vec![0; wire.len()];
    socket.read_exact(&mut heard).await.is_ok() && heard == wire
}

#[tokio::test]
async fn nothing_is_sent_before_the_credentials_are_accepted() {
    let (early, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let addr = peer({
        let (early, served) = (Arc::clone(&early), Arc::clone(&served));
        move |mut socket| {
            let (early, served) = (Arc::clone(&early), Arc::clone(&served));
            async move {
                if !hears(&mut socket, SHOWN).await {
                    return early.store(true, Ordering::Relaxed);
                }
                // Whoever does not wait is heard now.
                let mut byte = [0];
                let more = tokio::time::timeout(Duration::from_millis(300), socket.read(&mut byte)).await;
                early.fetch_or(more.is_ok(), Ordering::Relaxed);
                socket.write_all(b"STORED\r\n").await.unwrap();
                while hears(&mut socket, b"set a 0 60 1\r\nv\r\n").await {
                    served.fetch_add(1, Ordering::Relaxed);
                    socket.write_all(b"STORED\r\n").await.unwrap();
                }
            }
        }
    })
    .await;
    let cache = of(addr).credentials("user", "secret").connect().await.unwrap();
    cache.set("a", "v", MINUTE).await.unwrap();
    cache.set("a", "v", MINUTE).await.unwrap();
    assert_eq!((early.load(Ordering::Relaxed), served.load(Ordering::Relaxed)), (false, 2));
}

#[tokio::test]
async fn refusals_are_not_dialled_in_a_hot_loop_and_end_when_the_server_thinks_better() {
    let (dials, accepts) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let addr = peer({
        let (dials, accepts) = (Arc::clone(&dials), Arc::clone(&accepts));
        move |mut socket| {
            dials.fetch_add(1, Ordering::Relaxed);
            let accepts = Arc::clone(&accepts);
            async move {
                if !hears(&mut socket, SHOWN).await {
                    return;
                }
                let accepts = accepts.load(Ordering::Relaxed);
                let answer: &[u8] = if accepts { b"STORED\r\n" } else { b"CLIENT_ERROR authentication failure\r\n" };
                let _ = socket.write_all(answer).await;
                while accepts && hears(&mut socket, b"get a\r\n").await {
                    let _ = socket.write_all(b"END\r\n").await;
                }
            }
        }
    })
    .await;
    let cache = of(addr).credentials("user", "secret").connect().await.unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1_500) {
        assert_eq!(by(Duration::ZERO, cache.get("a")).await.unwrap_err().kind(), ErrorKind::Auth);
    }
    let dialled = dials.load(Ordering::Relaxed);
    assert!((2..=12).contains(&dialled), "{dialled} dials in 1.5 s");
    accepts.store(true, Ordering::Relaxed);
    eventually("the node is back", async || is_miss(&cache.get("a").await)).await;
}

#[tokio::test]
async fn a_server_that_asks_for_what_it_was_not_given_is_not_dialled_in_a_hot_loop() {
    let dials = Arc::new(AtomicUsize::new(0));
    let addr = peer({
        let dials = Arc::clone(&dials);
        move |mut socket| {
            dials.fetch_add(1, Ordering::Relaxed);
            async move {
                let mut sink = [0; 4096];
                while socket.read(&mut sink).await.is_ok_and(|count| count > 0) {
                    let _ = socket.write_all(b"CLIENT_ERROR unauthenticated\r\n").await;
                }
            }
        }
    })
    .await;
    let cache = of(addr).connect().await.unwrap();
    let start = Instant::now();
    let mut at_once = 0;
    while start.elapsed() < Duration::from_millis(1_500) {
        let error = cache.get("a").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth);
        at_once += usize::from(error.delivery() == Delivery::NotSent);
    }
    assert!(at_once > 0, "nobody needs to wait for a connection that will be told the same");
    let dials = dials.load(Ordering::Relaxed);
    assert!((2..=12).contains(&dials), "{dials} dials in 1.5 s");
}

#[tokio::test]
async fn a_server_that_does_not_answer_the_credentials_is_given_up() {
    let addr = peer(|mut socket| async move {
        let mut sink = [0; 4096];
        while socket.read(&mut sink).await.is_ok_and(|count| count > 0) {}
    })
    .await;
    let builder = of(addr).credentials("user", "secret").connect_timeout(DEADLINE);
    let cache = builder.redial_backoff(NO_HURRY, NO_HURRY).connect().await.unwrap();
    let error = cache.get("a").await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Unavailable, Delivery::NotSent));
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("credentials"), "{error:?}");
}
