//! Leases and renewals whose holder fails, and leases that other clients touch.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use memring::meta::{Get, Set, TimeLeft};
use memring::testing::Memcached;
use memring::{Client, ErrorKind, FetchError, FetchOptions, OnWaitTimeout, Origin};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::sync::Notify;

use crate::scripted::scripted_server;
use crate::support::{
    MINUTE, TEST_TIMEOUT, Version, client_builder, client_of, eventually, memcached_at_least, value_of,
};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// The default of [`FetchOptions::lease`].
const USUAL_LEASE: TimeLeft = TimeLeft::Finite(Duration::from_secs(10));

/// Leaves a lease on an item, as a process that dies while it computes.
pub(crate) async fn leave_lease(cache: &Client, key: &[u8], lease: Duration) {
    let item = cache.meta_get(key, Get::new().value().vivify(lease)).await.unwrap().unwrap();
    assert!(item.won && item.is_lease());
}

pub(crate) async fn time_left(cache: &Client, key: &[u8]) -> TimeLeft {
    cache.meta_get(key, Get::new().size().ttl_left()).await.unwrap().unwrap().ttl_left.unwrap()
}

async fn store_stale_item(cache: &Client) {
    cache.set("k", "stale", HOUR).await.unwrap();
    assert!(cache.invalidate("k", HOUR).await.unwrap());
}

/// Waits until the server asks a reader to renew the item, or a late write has done so.
async fn assert_renewal_is_given_back(cache: &Client) {
    eventually("the renewal is given back", async || {
        let item = cache.meta_get("k", Get::new().value()).await.unwrap().unwrap();
        item.won || !item.stale
    })
    .await;
}

/// Starts a server that replies to each meta command as `reply` says, with the command's opaque token. Returns its
/// address, and the commands without their tokens.
pub(crate) async fn meta_server(reply: fn(&str) -> &'static str) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let commands = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&commands);
    let addr = scripted_server(move |socket| {
        let log = Arc::clone(&log);
        async move {
            let mut socket = BufReader::new(socket);
            let mut line = String::new();
            while let Ok(1..) = socket.read_line(&mut line).await {
                let (tokens, words): (Vec<_>, Vec<_>) = line.split_whitespace().partition(|word| word.starts_with('O'));
                if words[0] == "ms" {
                    let len: usize = words[2].parse().unwrap();
                    socket.read_exact(&mut vec![0; len + 2]).await.unwrap();
                }
                let command = words.join(" ");
                // Before the reply, so that a command without one is in the log.
                log.lock().unwrap().push(command.clone());
                let (head, rest) = reply(&command).split_once("\r\n").unwrap();
                let token = tokens.first().map_or_else(String::new, |token| format!(" {token}"));
                socket.write_all(format!("{head}{token}\r\n{rest}").as_bytes()).await.unwrap();
                line.clear();
            }
        }
    })
    .await;
    (addr, commands)
}

#[tokio::test]
async fn an_update_that_fails_gives_back_the_renewal_of_a_stale_item() {
    let Some((server, cache)) = memcached_at_least(Version::META).await else { return };
    let small = client_builder(server.addr()).max_value_size(10).connect().await.unwrap();
    store_stale_item(&cache).await;
    let error = small.update("k", MINUTE, |_| Some([0; 11].to_vec())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert_renewal_is_given_back(&cache).await;

    store_stale_item(&cache).await;
    let panicking = cache.clone();
    let update = tokio::spawn(async move {
        let change = |_: Option<&_>| -> Option<&str> { panic!("as the test says") };
        panicking.update("k", MINUTE, change).await
    });
    assert!(update.await.unwrap_err().is_panic());
    assert_renewal_is_given_back(&cache).await;

    store_stale_item(&cache).await;
    let changed = Notify::new();
    let update = cache.update("k", MINUTE, |_| {
        changed.notify_one();
        Some("new")
    });
    // Dropped after it has read the item.
    tokio::select! {
        biased;
        outcome = update => panic!("{outcome:?}"),
        () = changed.notified() => {}
    }
    assert_renewal_is_given_back(&cache).await;
}

#[tokio::test]
async fn an_update_or_a_take_that_the_server_refuses_gives_back_the_renewal() {
    let (addr, commands) = meta_server(|command| match &command[..2] {
        "ve" => "VERSION 1.6.18\r\n",
        "mg" => "VA 3 f0 c8 X W\r\nold\r\n",
        "md" if command.contains(" I") => "HD\r\n",
        _ => "SERVER_ERROR out of memory storing object\r\n",
    })
    .await;
    let cache = client_builder(addr).connect().await.unwrap();
    let is_given_back = async || {
        eventually("the renewal is given back", async || commands.lock().unwrap().contains(&"md k C8 I".to_owned()))
            .await;
        commands.lock().unwrap().clear();
    };
    assert_eq!(cache.update("k", MINUTE, |_| Some("new")).await.unwrap_err().kind(), ErrorKind::Server);
    is_given_back().await;
    assert_eq!(cache.take("k").await.unwrap_err().kind(), ErrorKind::Server);
    is_given_back().await;
}

#[tokio::test]
async fn a_get_and_touch_does_not_prolong_a_lease() {
    let Some((server, cache)) = memcached_at_least(Version::META).await else { return };
    leave_lease(&cache, b"k", Duration::from_secs(1)).await;
    assert_eq!(cache.get_and_touch("k", HOUR).await.unwrap(), None);
    assert!(time_left(&cache, b"k").await <= USUAL_LEASE);
    leave_lease(&cache, b"many", Duration::from_secs(1)).await;
    assert!(cache.get_and_touch_many(["many"], memring::Ttl::NEVER).await.hits.is_empty());
    assert!(time_left(&cache, b"many").await <= USUAL_LEASE);

    // Binary keys are touched by a command that tells what was left.
    let cache = client_builder(server.addr()).binary_keys(true).connect().await.unwrap();
    let (key, lease) = (b"\0", TimeLeft::Finite(MINUTE));
    leave_lease(&cache, key, MINUTE).await;
    assert_eq!(cache.gets_and_touch(key, HOUR).await.unwrap(), None);
    assert!((USUAL_LEASE..=lease).contains(&time_left(&cache, key).await));
    cache.touch(key, HOUR).await.unwrap();
    assert!((USUAL_LEASE..=lease).contains(&time_left(&cache, key).await));
}

#[tokio::test]
async fn an_item_that_is_filled_while_a_lease_is_touched_has_its_own_ttl() {
    let (addr, commands) = meta_server(|command| match command {
        "version" => "VERSION 1.6.18\r\n",
        "gat 7200 k" => "VALUE k 0 0\r\n\r\nEND\r\n",
        "mg k t v f c" => "VA 0 t7200 f0 c8 Z\r\n\r\n",
        // The leader has stored the value between these two.
        "mg k c s t T10" => "HD c9 s5 t3600\r\n",
        "mg k c s t T3600" => "HD c9 s5 t10\r\n",
        other => panic!("{other}"),
    })
    .await;
    let cache = client_builder(addr).connect().await.unwrap();
    assert_eq!(cache.get_and_touch("k", 2 * HOUR).await.unwrap(), None);
    assert_eq!(commands.lock().unwrap().last().unwrap(), "mg k c s t T3600");
}

#[tokio::test]
async fn a_fetch_does_not_wait_longer_for_a_lease_that_was_touched() {
    let Some((_server, cache)) = memcached_at_least(Version::META).await else { return };
    leave_lease(&cache, b"k", Duration::from_secs(1)).await;
    assert!(cache.touch("k", HOUR).await.unwrap());
    let options = FetchOptions::from(MINUTE).lease(Duration::from_secs(1)).wait_timeout(TEST_TIMEOUT);
    let options = options.on_wait_timeout(OnWaitTimeout::Fail);
    let fetched = cache.fetch("k", options, || async { Ok::<_, &str>("value") }).await.unwrap();
    assert_eq!((&fetched.value[..], fetched.origin), (&b"value"[..], Origin::Computed));
    assert!(time_left(&cache, b"k").await > USUAL_LEASE, "the value has its own TTL");
}

#[tokio::test]
async fn a_lease_that_is_touched_again_and_again_is_filled() {
    let Some((server, cache)) = memcached_at_least(Version::META).await else { return };
    leave_lease(&cache, b"k", Duration::from_secs(1)).await;
    let touch = touch_repeatedly(&server).await;
    let options = FetchOptions::from(MINUTE).lease(Duration::from_secs(1)).wait_timeout(Duration::from_millis(50));
    eventually("a value is stored", async || {
        let fetched = cache.fetch("k", options, || async { Ok::<_, &str>("value") }).await.unwrap();
        fetched.origin == Origin::Computed
    })
    .await;
    touch.abort();
    assert_eq!(value_of(&cache, "k").await.unwrap(), b"value");
}

async fn touch_repeatedly(server: &Memcached) -> tokio::task::JoinHandle<()> {
    let cache = client_of(server).await;
    assert!(cache.touch("k", HOUR).await.unwrap());
    tokio::spawn(async move {
        loop {
            let _ = cache.touch("k", HOUR).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
}

#[tokio::test]
async fn a_fetch_that_does_not_compute_leaves_the_lease_of_another_process() {
    let Some((_server, cache)) = memcached_at_least(Version::META).await else { return };
    let lease = cache.meta_get("k", Get::new().value().cas().vivify(MINUTE)).await.unwrap().unwrap();
    let options = FetchOptions::from(MINUTE).lease(MINUTE).wait_timeout(Duration::from_millis(50));
    let options = options.on_wait_timeout(OnWaitTimeout::Fail);
    let outcome = cache.fetch("k", options, || async { Ok::<_, &str>("value") }).await;
    assert!(matches!(outcome, Err(FetchError::WaitTimeout)), "{outcome:?}");
    assert!(time_left(&cache, b"k").await > USUAL_LEASE);
    assert!(cache.meta_set("k", "filled", Set::new(MINUTE).compare(lease.cas.unwrap())).await.unwrap().is_done());
}
