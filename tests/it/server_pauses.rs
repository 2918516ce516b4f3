//! A server that stalls at the moment at which a client sends its first meta command. The client does not know
//! yet whether the server has leases, so an empty item may be one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use memring::meta::Get;
use memring::{Client, Error, FetchOptions, Item};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::support::{MINUTE, TEST_TIMEOUT, Version, client_of, default_client, memcached_at_least};

/// The lengths of the pauses, in milliseconds.
const PAUSES: [u64; 10] = [100, 200, 300, 400, 600, 800, 1_000, 1_300, 1_600, 2_000];

/// How long after the end of the pause the clients go on.
const AFTERWARDS: Duration = Duration::from_millis(700);

/// What a value is computed from.
#[derive(Debug, Default)]
struct Source {
    version: AtomicUsize,
    /// The newest version before which the item was deleted, as the server has acknowledged.
    deleted: AtomicUsize,
}

impl Source {
    fn assert_is_recent(&self, value: &[u8], oldest: usize) {
        let version: usize = std::str::from_utf8(value).unwrap().parse().expect("no value is a lease");
        assert!(version >= oldest, "version {version} after the delete of {oldest}");
    }

    fn assert_is_no_lease(item: Option<&Item>) {
        assert!(item.is_none_or(|item| !item.value.is_empty()), "an update was shown a lease");
    }

    /// Reads the item in every way, and computes it.
    async fn use_item(&self, cache: &Client) {
        let oldest = self.deleted.load(Ordering::SeqCst);
        let check = |outcome: Result<Option<Item>, Error>| match outcome {
            Ok(item) => item.into_iter().for_each(|item| self.assert_is_recent(&item.value, oldest)),
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        };
        check(cache.get("k").await);
        cache.get_each(["k", "absent"]).await.into_iter().for_each(|(_, outcome)| check(outcome));
        cache.get_many(["k", "absent"]).await.hits.into_iter().for_each(|(_, item)| check(Ok(Some(item))));
        let declined = cache.update("k", MINUTE, |old| {
            Self::assert_is_no_lease(old);
            None::<&str>
        });
        assert!(declined.await.is_ok_or_transient());
        let taken = cache.take("absent").await;
        assert!(taken.is_ok_or_transient(), "{taken:?}");
        self.fetch(cache).await;
    }

    async fn fetch(&self, cache: &Client) {
        let oldest = self.deleted.load(Ordering::SeqCst);
        let options = FetchOptions::from(MINUTE).wait_timeout(Duration::from_millis(20));
        let compute = || async {
            let version = self.version.load(Ordering::SeqCst);
            sleep(Duration::from_millis(20)).await;
            Ok::<_, &'static str>(version.to_string())
        };
        self.assert_is_recent(&cache.fetch("k", options, compute).await.unwrap().value, oldest);
    }

    /// Changes the source and deletes the item, then takes a lease on it in place of the value.
    async fn delete(&self, cache: &Client) {
        let version = self.version.fetch_add(1, Ordering::SeqCst) + 1;
        if cache.delete("k").await.is_ok() {
            self.deleted.fetch_max(version, Ordering::SeqCst);
        }
        let _ = cache.meta_get("k", Get::new().value().vivify(MINUTE)).await;
    }
}

trait OkOrTransient {
    fn is_ok_or_transient(&self) -> bool;
}

impl<T> OkOrTransient for Result<T, Error> {
    fn is_ok_or_transient(&self) -> bool {
        self.as_ref().err().is_none_or(Error::is_transient)
    }
}

/// Pauses a server for so long while `newcomer`, which has sent no meta command yet, uses an item on which there is a
/// lease. The newcomer begins this much before the pause, or in it.
async fn use_item_during_pause(pause: Duration, begins_before: Option<Duration>) {
    let Some((server, known)) = memcached_at_least(Version::META).await else { return };
    let (source, newcomer) = (Arc::new(Source::default()), default_client(server.addr()).await);
    source.delete(&known).await;
    assert_eq!(newcomer.get("absent").await.unwrap(), None);
    let mut tasks = JoinSet::new();
    if begins_before.is_none() {
        server.pause().await.unwrap();
    }
    let start = Instant::now();
    let goes_on = move || start.elapsed() < begins_before.unwrap_or_default() + pause + AFTERWARDS;
    for _ in 0..2 {
        let (source, newcomer) = (Arc::clone(&source), newcomer.clone());
        tasks.spawn(async move {
            while goes_on() {
                source.use_item(&newcomer).await;
                sleep(Duration::from_millis(2)).await;
            }
        });
    }
    let (deleting_source, deleting_client) = (Arc::clone(&source), client_of(&server).await);
    tasks.spawn(async move {
        while goes_on() {
            deleting_source.delete(&deleting_client).await;
            sleep(Duration::from_millis(30)).await;
        }
    });
    if let Some(before) = begins_before {
        sleep(before).await;
        server.pause().await.unwrap();
    }
    sleep(pause).await;
    server.resume().await.unwrap();
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    // Soon the newcomer knows that the server has meta commands. (`eventually` is not `Send` here.)
    while let Err(error) = newcomer.meta_get("absent", Get::new().value()).await {
        assert!(start.elapsed() < TEST_TIMEOUT, "{error}");
    }
    let oldest = source.deleted.load(Ordering::SeqCst);
    if let Some(item) = newcomer.get("k").await.unwrap() {
        source.assert_is_recent(&item.value, oldest);
    }
}

#[tokio::test]
async fn no_lease_is_a_value_and_no_outdated_value_is_stored_if_a_server_stalls_at_the_first_meta_command() {
    let mut pauses = JoinSet::new();
    for pause in PAUSES.map(Duration::from_millis) {
        let at_random = Duration::from_micros(fastrand::u64(..20_000));
        for begins_before in [None, Some(Duration::ZERO), Some(at_random)] {
            pauses.spawn(use_item_during_pause(pause, begins_before));
        }
    }
    while let Some(done) = pauses.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_fetch_on_a_server_that_stalls_stores_nothing_by_a_lock() {
    let Some((server, known)) = memcached_at_least(Version::META).await else { return };
    let newcomer = default_client(server.addr()).await;
    server.pause().await.unwrap();
    let source = Source::default();
    for _ in 0..3 {
        source.fetch(&newcomer).await;
    }
    server.resume().await.unwrap();
    sleep(Duration::from_millis(300)).await;
    let stored = known.meta_get("k", Get::new().value().no_bump()).await.unwrap();
    assert!(stored.is_none_or(|item| item.is_lease()), "a value was stored without a lease");
}
