//! Commands that go to every node: versions, flushes, limits.

use std::time::Duration;

use memring::{Delivery, ErrorKind};

use crate::support::{MINUTE, connections_opened, eventually, memcached, stat, value_of};

#[tokio::test]
async fn versions_and_flush_all_return_an_outcome_for_each_node() {
    let (server, cache) = memcached().await;
    let versions = cache.versions().await;
    assert_eq!(versions.len(), 1);
    assert_eq!(versions[0].0.port(), server.addr().port());
    let version = versions[0].1.as_ref().unwrap();
    assert!(version.starts_with("1."), "{version}");
    cache.set("k", "v", MINUTE).await.unwrap();
    assert!(cache.flush_all().await.iter().all(|(_, outcome)| outcome.is_ok()));
    assert_eq!(cache.get("k").await.unwrap(), None);
}

#[tokio::test]
async fn a_delayed_flush_takes_effect_after_its_delay_and_an_impossible_delay_is_refused() {
    let (_server, cache) = memcached().await;
    cache.set("k", "v", MINUTE).await.unwrap();
    for delay in [
        Duration::from_secs(30 * 86_400 + 1),
        Duration::from_secs(30 * 86_400) + Duration::from_nanos(1),
        Duration::MAX,
    ] {
        let error = cache.flush_all_after(delay).await.unwrap_err();
        assert_eq!((error.kind(), error.delivery()), (ErrorKind::InvalidTtl, Delivery::NotSent));
    }
    for delay in [Duration::from_secs(30 * 86_400), Duration::from_secs(3600)] {
        let outcomes = cache.flush_all_after(delay).await.unwrap();
        assert!(outcomes.len() == 1 && outcomes[0].1.is_ok());
        assert!(value_of(&cache, "k").await.is_some(), "{delay:?}");
    }
    assert!(cache.flush_all_after(Duration::from_millis(1_100)).await.unwrap()[0].1.is_ok());
    eventually("the item is flushed", async || value_of(&cache, "k").await.is_none()).await;
    // Real servers also remove items written in the same second as the flush.
    eventually("an item written later stays", async || {
        cache.set("later", "v", MINUTE).await.unwrap();
        value_of(&cache, "later").await.is_some()
    })
    .await;
    assert!(cache.flush_all_after(Duration::ZERO).await.unwrap()[0].1.is_ok());
    assert_eq!(value_of(&cache, "later").await, None);
}

#[tokio::test]
async fn memory_limit_and_verbosity_are_set_on_every_node_and_a_refusal_keeps_the_connection() {
    let (server, cache) = memcached().await;
    let connections = connections_opened(&cache).await;
    let outcomes = cache.cache_memlimit(100).await;
    assert_eq!(outcomes.len(), 1);
    outcomes[0].1.as_ref().unwrap();
    assert_eq!(stat(server.addr(), "limit_maxbytes").await, 100 << 20);
    let refused = cache.cache_memlimit(1).await.remove(0).1.unwrap_err();
    assert_eq!((refused.kind(), refused.delivery()), (ErrorKind::Server, Delivery::Answered));
    assert!(refused.to_string().contains("MEMLIMIT_TOO_SMALL"), "{refused}");
    for level in [1, 0] {
        assert!(cache.set_verbosity(level).await.iter().all(|(_, outcome)| outcome.is_ok()));
    }
    cache.set("k", "v", MINUTE).await.unwrap();
    // The call of `stat` opened one more connection.
    assert_eq!(connections_opened(&cache).await, connections + 1);
}
