//! Servers that require a user and a password.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use memring::testing::Memcached;
use memring::{ClientBuilder, Delivery, ErrorKind, NodeState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::scripted::{always_reply, assert_dials_backed_off, counting_server, never_reply, scripted_server};
use crate::support::{
    DEFAULT_TIMEOUT, LONG_TIMEOUT, MINUTE, client_builder, eventually, is_miss, repeat_for, stat, within,
};

/// What the client sends to authenticate as `user` with the password `secret`.
const AUTH_REQUEST: &[u8] = b"set memring:auth 0 -1 11\r\nuser secret\r\n";

/// A file of users and passwords for memcached, deleted when this is dropped.
pub(crate) struct PasswordFile(PathBuf);

impl PasswordFile {
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

impl Drop for PasswordFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Returns a builder whose timeouts only a broken server exceeds.
fn slow_client_builder(node: impl ToString) -> ClientBuilder {
    client_builder(node).connect_timeout(LONG_TIMEOUT)
}

#[tokio::test]
async fn right_credentials_authenticate_every_connection() {
    let users = PasswordFile::new("right");
    let server = users.server().await;
    let cache = slow_client_builder(server.addr())
        .credentials("user", "secret")
        .connections_per_node(3)
        .connect()
        .await
        .unwrap();
    for n in 0..30 {
        let key = format!("key-{n}");
        let (set, _) = tokio::join!(cache.set(&key, "v", MINUTE), cache.get("other"));
        set.unwrap();
        assert_eq!(cache.get(&key).await.unwrap().unwrap().value, "v");
    }
    assert!(cache.versions().await[0].1.is_ok());
}

#[tokio::test]
async fn wrong_credentials_fail_at_once_with_the_servers_reason_and_without_the_password() {
    let users = PasswordFile::new("wrong");
    let server = users.server().await;
    let cache = slow_client_builder(server.addr()).credentials("user", "sesame").connect().await.unwrap();
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
async fn without_credentials_every_command_fails_with_an_auth_error() {
    let users = PasswordFile::new("none");
    let server = users.server().await;
    // The server's error line depends on the first command of a connection.
    for value in ["v", "two words"] {
        let cache = slow_client_builder(server.addr()).connect().await.unwrap();
        let error = cache.set("a", value, MINUTE).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
    }
    let cache = slow_client_builder(server.addr()).connect().await.unwrap();
    for _ in 0..5 {
        assert_eq!(cache.get("a").await.unwrap_err().kind(), ErrorKind::Auth);
        assert_eq!(cache.set("a", "v", MINUTE).await.unwrap_err().kind(), ErrorKind::Auth);
        assert_eq!(cache.incr("a", 1).await.unwrap_err().kind(), ErrorKind::Auth);
    }
}

#[tokio::test]
async fn a_server_without_authentication_accepts_credentials_and_stores_no_item_for_them() {
    let server = Memcached::start().await.unwrap();
    let cache = slow_client_builder(server.addr()).credentials("user", "secret").connect().await.unwrap();
    cache.set("a", "v", MINUTE).await.unwrap();
    assert_eq!(cache.get("a").await.unwrap().unwrap().value, "v");
    assert!(is_miss(&cache.get("memring:auth").await));
    assert_eq!(stat(server.addr(), "curr_items").await, 1);
}

#[tokio::test]
async fn credentials_that_the_protocol_cannot_express_are_a_config_error() {
    for (user, password) in [("", "p"), ("a b", "p"), ("a", "p\r\nflush_all"), ("a", &*"x".repeat(2000))] {
        let refused = slow_client_builder("127.0.0.1:1").credentials(user, password).connect().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Config);
    }
}

#[tokio::test]
async fn debug_output_never_contains_credentials() {
    let builder = slow_client_builder("127.0.0.1:1").credentials("Aladdin", "sesame");
    let output = format!("{builder:?} {builder:#?}");
    let cache = builder.connect().await.unwrap();
    let output = format!("{output} {cache:?} {:?} {:?}", cache.topology(), cache.get("a").await);
    assert!(!output.contains("sesame") && !output.contains("Aladdin"), "{output}");
}

/// Reads as many bytes as `expected` has, and returns whether they are the same.
async fn receives(socket: &mut TcpStream, expected: &[u8]) -> bool {
    let mut received = vec![0; expected.len()];
    socket.read_exact(&mut received).await.is_ok() && received == expected
}

#[tokio::test]
async fn nothing_is_sent_before_the_credentials_are_accepted() {
    let (early, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let addr = scripted_server({
        let (early, served) = (Arc::clone(&early), Arc::clone(&served));
        move |mut socket| {
            let (early, served) = (Arc::clone(&early), Arc::clone(&served));
            async move {
                if !receives(&mut socket, AUTH_REQUEST).await {
                    return early.store(true, Ordering::Relaxed);
                }
                // A client that does not wait for the reply sends its next command now.
                let more = timeout(Duration::from_millis(300), socket.read(&mut [0])).await;
                early.fetch_or(more.is_ok(), Ordering::Relaxed);
                socket.write_all(b"STORED\r\n").await.unwrap();
                while receives(&mut socket, b"set a 0 60 1\r\nv\r\n").await {
                    served.fetch_add(1, Ordering::Relaxed);
                    socket.write_all(b"STORED\r\n").await.unwrap();
                }
            }
        }
    })
    .await;
    let cache = slow_client_builder(addr).credentials("user", "secret").connect().await.unwrap();
    cache.set("a", "v", MINUTE).await.unwrap();
    cache.set("a", "v", MINUTE).await.unwrap();
    assert_eq!((early.load(Ordering::Relaxed), served.load(Ordering::Relaxed)), (false, 2));
}

#[tokio::test]
async fn refused_credentials_are_sent_again_with_backoff_until_the_server_accepts_them() {
    let accepts = Arc::new(AtomicBool::new(false));
    let (addr, dials) = counting_server({
        let accepts = Arc::clone(&accepts);
        move |mut socket, _| {
            let accepts = Arc::clone(&accepts);
            async move {
                if !receives(&mut socket, AUTH_REQUEST).await {
                    return;
                }
                let accepts = accepts.load(Ordering::Relaxed);
                let reply: &[u8] = if accepts { b"STORED\r\n" } else { b"CLIENT_ERROR authentication failure\r\n" };
                let _ = socket.write_all(reply).await;
                while accepts && receives(&mut socket, b"get a\r\n").await {
                    let _ = socket.write_all(b"END\r\n").await;
                }
            }
        }
    })
    .await;
    let cache = slow_client_builder(addr).credentials("user", "secret").connect().await.unwrap();
    repeat_for(Duration::from_millis(1_500), async || {
        assert_eq!(within(Duration::ZERO, cache.get("a")).await.unwrap_err().kind(), ErrorKind::Auth);
    })
    .await;
    assert_dials_backed_off(&dials);
    accepts.store(true, Ordering::Relaxed);
    eventually("the node answers", async || is_miss(&cache.get("a").await)).await;
}

#[tokio::test]
async fn a_server_that_requires_credentials_the_client_does_not_have_is_dialed_with_backoff() {
    let (addr, dials) = counting_server(|socket, _| always_reply(socket, b"CLIENT_ERROR unauthenticated\r\n")).await;
    let cache = slow_client_builder(addr).connect().await.unwrap();
    let mut failed_unsent = 0;
    repeat_for(Duration::from_millis(1_500), async || {
        let error = cache.get("a").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth);
        failed_unsent += usize::from(error.delivery() == Delivery::NotSent);
    })
    .await;
    assert!(failed_unsent > 0, "some requests must fail at once, because a new connection would be refused too");
    assert_dials_backed_off(&dials);
}

#[tokio::test]
async fn a_server_that_does_not_reply_to_the_credentials_is_unavailable() {
    let addr = scripted_server(never_reply).await;
    let builder = slow_client_builder(addr).credentials("user", "secret").connect_timeout(DEFAULT_TIMEOUT);
    let cache = builder.redial_backoff(LONG_TIMEOUT, LONG_TIMEOUT).connect().await.unwrap();
    let error = cache.get("a").await.unwrap_err();
    assert_eq!((error.kind(), error.delivery()), (ErrorKind::Unavailable, Delivery::NotSent));
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("credentials"), "{error:?}");
}
