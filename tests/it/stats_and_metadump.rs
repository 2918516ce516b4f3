//! Statistics of servers, and lists of their items.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use futures_util::future::join_all;
use memring::testing::{Memcached, Service};
use memring::{Client, ErrorKind, Metadump, MetadumpEntry, NodeId, SetOptions, Stats, StatsKind, Ttl};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::auth::PasswordFile;
use crate::scripted::{never_reply, scripted_server};
use crate::support::{
    DEFAULT_TIMEOUT, LONG_TIMEOUT, MINUTE, client_builder, eventually, fast_polling, is_miss, memcached,
    service_client, stat, within,
};

fn only_node(cache: &Client) -> NodeId {
    let [node] = &cache.topology().nodes[..] else { panic!("there must be one node") };
    node.id.clone()
}

async fn stats(cache: &Client, kind: StatsKind) -> Stats {
    cache.stats_of(&only_node(cache), kind).await.unwrap()
}

/// Lists all items of a node. Repeats the request if the server replies `BUSY` because its crawler is running already.
async fn list_items(cache: &Client, node: &NodeId) -> Vec<MetadumpEntry> {
    'request: loop {
        let mut items: Metadump = cache.metadump(node).await.unwrap();
        let mut entries = Vec::new();
        while let Some(entry) = items.next().await {
            match entry {
                Err(busy) if busy.to_string().contains("BUSY") => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue 'request;
                }
                entry => entries.push(entry.unwrap()),
            }
        }
        assert!(items.next().await.is_none());
        return entries;
    }
}

async fn send_command(server: &Memcached, command: &str, expected: &str) {
    let mut socket = TcpStream::connect(server.addr()).await.unwrap();
    socket.write_all(command.as_bytes()).await.unwrap();
    let mut reply = vec![0; expected.len()];
    socket.read_exact(&mut reply).await.unwrap();
    assert_eq!(String::from_utf8(reply).unwrap(), expected);
}

#[tokio::test]
async fn every_kind_of_statistics_is_returned() {
    let (server, cache) = memcached().await;
    cache.set("a", "v", MINUTE).await.unwrap();
    let outcomes = tokio::spawn({
        let cache = cache.clone();
        async move { cache.stats(StatsKind::General).await }
    });
    let [(node, Ok(general))] = &outcomes.await.unwrap()[..] else { panic!("the only node must answer") };
    assert_eq!(*node, only_node(&cache));
    assert_eq!(general.number("pid"), server.pid().map(u64::from));
    assert_eq!((general.number("curr_items"), general.number("version")), (Some(1), None));
    assert!(general.get("version").unwrap().starts_with("1.") && general.get("absent").is_none());
    assert!(general.len() > 20 && general.iter().count() == general.len());

    assert_eq!(stats(&cache, StatsKind::Items).await.number("items:1:number"), Some(1));
    assert_eq!(stats(&cache, StatsKind::Slabs).await.number("1:used_chunks"), Some(1));
    assert_eq!(stats(&cache, StatsKind::Settings).await.number("maxbytes"), Some(64 << 20));
    assert_eq!(stats(&cache, StatsKind::Sizes).await.get("sizes_status"), Some("disabled"));
    let conns = stats(&cache, StatsKind::Conns).await;
    assert!(conns.iter().any(|(name, value)| name.ends_with(":state") && value == "conn_listening"), "{conns:?}");
}

#[tokio::test]
async fn reset_stats_resets_the_counters() {
    let (server, cache) = memcached().await;
    for _ in 0..3 {
        assert!(is_miss(&cache.get("a").await));
    }
    assert_eq!(stat(server.addr(), "cmd_get").await, 3);
    let [(_, Ok(()))] = &cache.reset_stats().await[..] else { panic!("the only node must reset its counters") };
    assert_eq!(stats(&cache, StatsKind::General).await.number("cmd_get"), Some(0));
}

/// The request opens its own connection, and does not wait for the commands in the node's queue.
#[tokio::test]
async fn a_node_that_does_not_answer_has_its_own_error_by_the_deadline() {
    let (server, _) = memcached().await;
    let silent = scripted_server(never_reply).await.to_string();
    let nodes = [server.addr().to_string(), silent.clone(), "127.0.0.1:1".to_owned()];
    let cache = Client::builder().nodes(&nodes).connect().await.unwrap();
    eventually("the real server answers by the deadline", async || {
        let outcomes = within(DEFAULT_TIMEOUT, cache.stats(StatsKind::General)).await;
        assert_eq!(outcomes.len(), 3);
        let of = |node: &str| &outcomes.iter().find(|(id, _)| id.to_string() == node).unwrap().1;
        assert_eq!(of(&silent).as_ref().unwrap_err().kind(), ErrorKind::Timeout);
        let refused = of("127.0.0.1:1").as_ref().unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{refused:?}");
        of(&nodes[0]).is_ok()
    })
    .await;
    let resets = within(DEFAULT_TIMEOUT, cache.reset_stats()).await;
    let (_, outcome) = resets.iter().find(|(id, _)| id.to_string() == silent).unwrap();
    assert_eq!(outcome.as_ref().unwrap_err().kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn requests_to_a_node_outside_the_topology_or_after_shutdown_fail() {
    let (server, cache) = memcached().await;
    let node = only_node(&cache);
    let unknown: NodeId = "127.0.0.1:1".parse().unwrap();
    let error = cache.metadump(&unknown).await.unwrap_err();
    assert_eq!((error.kind(), error.node()), (ErrorKind::NoNodes, Some(&unknown)));
    assert_eq!(cache.stats_of(&unknown, StatsKind::General).await.unwrap_err().kind(), ErrorKind::NoNodes);
    cache.shutdown().await;
    assert_eq!(cache.metadump(&node).await.unwrap_err().kind(), ErrorKind::Closed);
    assert!(cache.stats(StatsKind::General).await.is_empty());
    drop(server);
}

#[tokio::test]
async fn metadump_lists_every_item_with_its_metadata() {
    let (server, cache) = memcached().await;
    let node = only_node(&cache);
    assert!(list_items(&cache, &node).await.is_empty());

    let escaped_key = "a%20b=c/\u{e9}+&%";
    cache.set(escaped_key, "value", SetOptions::from(Duration::from_secs(1_000)).flags(7)).await.unwrap();
    cache.set("kept", "v", Ttl::NEVER).await.unwrap();
    let kept = cache.gets("kept").await.unwrap().unwrap();
    let entries = tokio::spawn({
        let (cache, node) = (cache.clone(), node.clone());
        async move { list_items(&cache, &node).await }
    });
    let mut entries = entries.await.unwrap();
    entries.sort_by_key(|entry| entry.key.len());
    let [first, second] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!((&first.key[..], &second.key[..]), (&b"kept"[..], escaped_key.as_bytes()));
    assert_eq!((first.exp, first.fetched, second.fetched), (None, true, false));
    assert_eq!(format!("{:?}", kept.cas.unwrap()), format!("Cas({})", first.cas));
    // The server uses the same clock; the lower limit is for a slow machine.
    let left = second.exp.unwrap().duration_since(SystemTime::now()).unwrap();
    assert!((800..=1_005).contains(&left.as_secs()), "{left:?}");
    assert!(second.last_access <= SystemTime::now() + Duration::from_secs(5));
    assert!(second.slab_class.is_some() && second.size.unwrap() > 5 + escaped_key.len() as u64);
    // Only the newest servers list the flags.
    assert!(second.flags.is_none_or(|flags| flags == 7), "{second:?}");
    assert!(!format!("{entries:?}").contains("kept"));
    drop(server);
}

#[tokio::test]
async fn metadump_lists_twenty_thousand_items_while_gets_are_answered() {
    let (server, cache) = memcached().await;
    let node = only_node(&cache);
    let keys: HashSet<String> = (0..20_000).map(|n| format!("a-key-of-some-length-{n}")).collect();
    join_all(keys.iter().map(|key| cache.set(key, "v", MINUTE * 60))).await;
    // The server misses items that move between its LRU queues during the listing, which soon stops.
    eventually("every item is listed", async || {
        let mut items = cache.metadump(&node).await.unwrap();
        let mut listed = HashSet::new();
        while let Some(entry) = items.next().await {
            match entry {
                Ok(entry) => listed.insert(String::from_utf8(entry.key.to_vec()).unwrap()),
                Err(error) => panic!("{error:?}"),
            };
            if listed.len() % 5_000 == 1 {
                assert!(cache.get("a-key-of-some-length-1").await.unwrap().is_some());
            }
        }
        assert!(listed.is_subset(&keys));
        listed == keys
    })
    .await;

    // Dropping an unfinished listing closes its connection.
    let before = stat(server.addr(), "curr_connections").await;
    let mut items = cache.metadump(&node).await.unwrap();
    assert!(items.next().await.unwrap().is_ok());
    drop(items);
    eventually("the connection of the listing is closed", async || {
        stat(server.addr(), "curr_connections").await <= before
    })
    .await;
    assert!(cache.get("a-key-of-some-length-1").await.unwrap().is_some());
}

#[tokio::test]
async fn metadump_fails_on_servers_that_do_not_support_it() {
    let (server, cache) = memcached().await;
    send_command(&server, "lru_crawler disable\r\n", "OK\r\n").await;
    let mut items = cache.metadump(&only_node(&cache)).await.unwrap();
    let error = items.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server);
    // Right after the command above, a server may report an unknown error.
    let messages = ["lru crawler disabled", "failed to start lru crawler", "an unknown error"];
    assert!(messages.iter().any(|message| error.to_string().contains(message)), "{error}");
    assert!(items.next().await.is_none());

    let service = Service::start(1).await.unwrap();
    let cache = service_client(&service, fast_polling()).await;
    let mut items = cache.metadump(&only_node(&cache)).await.unwrap();
    assert_eq!(items.next().await.unwrap().unwrap_err().kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn embedded_pods_have_general_statistics_only() {
    let service = Service::start(2).await.unwrap();
    let cache = service_client(&service, fast_polling()).await;
    cache.set("a", "v", MINUTE).await.unwrap();
    let mut items = 0;
    for (_, stats) in cache.stats(StatsKind::General).await {
        items += stats.unwrap().number("curr_items").unwrap();
    }
    assert_eq!(items, 1);
    assert!(cache.reset_stats().await.iter().all(|(_, outcome)| outcome.is_ok()));
    for (_, stats) in cache.stats(StatsKind::Slabs).await {
        assert_eq!(stats.unwrap_err().kind(), ErrorKind::Unsupported);
    }
}

#[tokio::test]
async fn connections_for_stats_and_metadump_authenticate_too() {
    let users = PasswordFile::new("streams");
    let server = users.server().await;
    let builder = || client_builder(server.addr());
    let cache = builder().connect_timeout(LONG_TIMEOUT).credentials("user", "secret").connect().await.unwrap();
    cache.set("a", "v", MINUTE).await.unwrap();
    assert_eq!(stats(&cache, StatsKind::General).await.number("curr_items"), Some(1));
    assert_eq!(list_items(&cache, &only_node(&cache)).await.len(), 1);

    let without = builder().connect().await.unwrap();
    let refused = without.stats_of(&only_node(&without), StatsKind::General).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Auth);
    let mut items = without.metadump(&only_node(&without)).await.unwrap();
    assert_eq!(items.next().await.unwrap().unwrap_err().kind(), ErrorKind::Auth);
    let wrong = builder().credentials("user", "words").connect().await.unwrap();
    assert_eq!(wrong.metadump(&only_node(&wrong)).await.unwrap_err().kind(), ErrorKind::Auth);
}
