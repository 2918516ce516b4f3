//! What servers tell of themselves and of their items.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use memring::testing::{Memcached, Service};
use memring::{Client, ErrorKind, Metadump, MetadumpEntry, NodeId, SetOptions, Stats, StatsKind, Ttl};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::auth::Users;
use crate::support::{DEADLINE, NO_HURRY, by, eventually, follow, is_miss, memcached, peer, quick, stat};

const MINUTE: Duration = Duration::from_secs(60);

fn only(cache: &Client) -> NodeId {
    let [node] = &cache.topology().nodes[..] else { panic!("one node") };
    node.id.clone()
}

async fn stats(cache: &Client, kind: StatsKind) -> Stats {
    cache.stats_of(&only(cache), kind).await.unwrap()
}

/// The whole list. A server that is walking its items for reasons of its own says that it is busy, and is asked again.
async fn all(cache: &Client, node: &NodeId) -> Vec<MetadumpEntry> {
    'ask: loop {
        let mut items: Metadump = cache.metadump(node).await.unwrap();
        let mut entries = Vec::new();
        while let Some(entry) = items.next().await {
            match entry {
                Err(busy) if busy.to_string().contains("BUSY") => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    continue 'ask;
                }
                entry => entries.push(entry.unwrap()),
            }
        }
        assert!(items.next().await.is_none());
        return entries;
    }
}

async fn tell(server: &Memcached, command: &str, answer: &str) {
    let mut socket = TcpStream::connect(server.addr()).await.unwrap();
    socket.write_all(command.as_bytes()).await.unwrap();
    let mut heard = vec![0; answer.len()];
    socket.read_exact(&mut heard).await.unwrap();
    assert_eq!(String::from_utf8(heard).unwrap(), answer);
}

#[tokio::test]
async fn statistics_of_every_kind() {
    let (server, cache) = memcached().await;
    cache.set("a", "v", MINUTE).await.unwrap();
    let everywhere = tokio::spawn({
        let cache = cache.clone();
        async move { cache.stats(StatsKind::General).await }
    });
    let [(node, Ok(general))] = &everywhere.await.unwrap()[..] else { panic!("one node, and it answers") };
    assert_eq!(*node, only(&cache));
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
async fn counters_are_reset() {
    let (server, cache) = memcached().await;
    for _ in 0..3 {
        assert!(is_miss(&cache.get("a").await));
    }
    assert_eq!(stat(server.addr(), "cmd_get").await, 3);
    let [(_, Ok(()))] = &cache.reset_stats().await[..] else { panic!("one node, and it does") };
    assert_eq!(stats(&cache, StatsKind::General).await.number("cmd_get"), Some(0));
}

/// The pipelines are not used for it, nor are they in the way.
#[tokio::test]
async fn a_node_that_cannot_answer_has_an_error_of_its_own_by_the_deadline() {
    let (server, _) = memcached().await;
    let mute = peer(|mut socket| async move {
        let mut sink = [0; 4096];
        while socket.read(&mut sink).await.is_ok_and(|count| count > 0) {}
    });
    let mute = mute.await.to_string();
    let nodes = [server.addr().to_string(), mute.clone(), "127.0.0.1:1".to_owned()];
    let cache = Client::builder().nodes(&nodes).connect().await.unwrap();
    eventually("who can answer does, and by the deadline", async || {
        let answers = by(DEADLINE, cache.stats(StatsKind::General)).await;
        assert_eq!(answers.len(), 3);
        let of = |node: &str| &answers.iter().find(|(id, _)| id.to_string() == node).unwrap().1;
        assert_eq!(of(&mute).as_ref().unwrap_err().kind(), ErrorKind::Timeout);
        let refused = of("127.0.0.1:1").as_ref().unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{refused:?}");
        of(&nodes[0]).is_ok()
    })
    .await;
    let resets = by(DEADLINE, cache.reset_stats()).await;
    let (_, outcome) = resets.iter().find(|(id, _)| id.to_string() == mute).unwrap();
    assert_eq!(outcome.as_ref().unwrap_err().kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn nodes_the_client_does_not_have_are_not_asked() {
    let (server, cache) = memcached().await;
    let node = only(&cache);
    let stranger: NodeId = "127.0.0.1:1".parse().unwrap();
    let error = cache.metadump(&stranger).await.unwrap_err();
    assert_eq!((error.kind(), error.node()), (ErrorKind::NoNodes, Some(&stranger)));
    assert_eq!(cache.stats_of(&stranger, StatsKind::General).await.unwrap_err().kind(), ErrorKind::NoNodes);
    cache.shutdown().await;
    assert_eq!(cache.metadump(&node).await.unwrap_err().kind(), ErrorKind::Closed);
    assert!(cache.stats(StatsKind::General).await.is_empty());
    drop(server);
}

#[tokio::test]
async fn items_are_listed_with_all_that_is_known_of_them() {
    let (server, cache) = memcached().await;
    let node = only(&cache);
    assert!(all(&cache, &node).await.is_empty());

    let odd = "a%20b=c/\u{e9}+&%";
    cache.set(odd, "value", SetOptions::from(Duration::from_secs(1_000)).flags(7)).await.unwrap();
    cache.set("kept", "v", Ttl::NEVER).await.unwrap();
    let kept = cache.gets("kept").await.unwrap().unwrap();
    let entries = tokio::spawn({
        let (cache, node) = (cache.clone(), node.clone());
        async move { all(&cache, &node).await }
    });
    let mut entries = entries.await.unwrap();
    entries.sort_by_key(|entry| entry.key.len());
    let [first, second] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!((&first.key[..], &second.key[..]), (&b"kept"[..], odd.as_bytes()));
    assert_eq!((first.exp, first.fetched, second.fetched), (None, true, false));
    assert_eq!(format!("{:?}", kept.cas.unwrap()), format!("Cas({})", first.cas));
    // By the server's clock, which is ours, however slow the machine.
    let left = second.exp.unwrap().duration_since(SystemTime::now()).unwrap();
    assert!((800..=1_005).contains(&left.as_secs()), "{left:?}");
    assert!(second.last_access <= SystemTime::now() + Duration::from_secs(5));
    assert!(second.slab_class.is_some() && second.size.unwrap() > 5 + odd.len() as u64);
    // The newest servers only.
    assert!(second.flags.is_none_or(|flags| flags == 7), "{second:?}");
    assert!(!format!("{entries:?}").contains("kept"));
    drop(server);
}

#[tokio::test]
async fn a_long_list_is_whole_and_holds_nobody_up() {
    let (server, cache) = memcached().await;
    let node = only(&cache);
    let keys: HashSet<String> = (0..20_000).map(|n| format!("a-key-of-some-length-{n}")).collect();
    futures_util::future::join_all(keys.iter().map(|key| cache.set(key, "v", MINUTE * 60))).await;
    // Items that move between the server's queues while it lists them are missed; soon none does.
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

    // One that is left in the middle is closed.
    let before = stat(server.addr(), "curr_connections").await;
    let mut items = cache.metadump(&node).await.unwrap();
    assert!(items.next().await.unwrap().is_ok());
    drop(items);
    eventually("its connection is gone", async || stat(server.addr(), "curr_connections").await <= before).await;
    assert!(cache.get("a-key-of-some-length-1").await.unwrap().is_some());
}

#[tokio::test]
async fn a_server_that_does_not_list_says_so() {
    let (server, cache) = memcached().await;
    tell(&server, "lru_crawler disable\r\n", "OK\r\n").await;
    let mut items = cache.metadump(&only(&cache)).await.unwrap();
    let error = items.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server);
    // One that has only just been told so may say that it does not know what is wrong.
    let told = ["lru crawler disabled", "failed to start lru crawler", "an unknown error"];
    assert!(told.iter().any(|words| error.to_string().contains(words)), "{error}");
    assert!(items.next().await.is_none());

    let service = Service::start(1).await.unwrap();
    let cache = follow(&service, quick()).await;
    let mut items = cache.metadump(&only(&cache)).await.unwrap();
    assert_eq!(items.next().await.unwrap().unwrap_err().kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn embedded_pods_tell_a_little() {
    let service = Service::start(2).await.unwrap();
    let cache = follow(&service, quick()).await;
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
async fn these_connections_show_the_credentials_too() {
    let users = Users::new("streams");
    let server = users.server().await;
    let builder = || Client::builder().nodes([server.addr().to_string()]).request_timeout(NO_HURRY);
    let cache = builder().connect_timeout(NO_HURRY).credentials("user", "secret").connect().await.unwrap();
    cache.set("a", "v", MINUTE).await.unwrap();
    assert_eq!(stats(&cache, StatsKind::General).await.number("curr_items"), Some(1));
    assert_eq!(all(&cache, &only(&cache)).await.len(), 1);

    let stranger = builder().connect().await.unwrap();
    let refused = stranger.stats_of(&only(&stranger), StatsKind::General).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Auth);
    let mut items = stranger.metadump(&only(&stranger)).await.unwrap();
    assert_eq!(items.next().await.unwrap().unwrap_err().kind(), ErrorKind::Auth);
    let wrong = builder().credentials("user", "words").connect().await.unwrap();
    assert_eq!(wrong.metadump(&only(&wrong)).await.unwrap_err().kind(), ErrorKind::Auth);
}
