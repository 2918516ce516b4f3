//! Changes of the topology: scaling, pods that move, nodes that leave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use memring::testing::Service;
use memring::{Client, Delivery, DiscoveryOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::scripted::{
    LeavingNode, MovingNode, NodeList, always_miss, never_reply, request_server, scripted_server, serve_connections,
};
use crate::support::{
    LONG_TIMEOUT, MINUTE, TEST_TIMEOUT, default_client, eventually, fast_polling, is_miss, key_owned_by, node_hosts,
    node_id, service, service_client, service_client_builder, srv_source, value_of, within,
};

#[tokio::test]
async fn a_client_with_a_service_name_finds_every_pod_and_places_keys_on_their_owners() {
    let service = service(3).await;
    let cache = service_client(&service, fast_polling()).await;
    let pods: Vec<_> = service.pods().into_iter().map(|pod| pod.fqdn).collect();
    assert_eq!(node_hosts(&cache), pods);
    let shares: f64 = cache.topology().nodes.iter().map(|node| node.share).sum();
    assert!((shares - 1.0).abs() < 1e-9);
    for n in 0..1_000 {
        cache.set(format!("key-{n}"), format!("value-{n}"), MINUTE).await.unwrap();
    }
    for pod in service.pods() {
        let pod_client = default_client(pod.addr).await;
        let found = pod_client.get_many((0..1_000).map(|n| format!("key-{n}"))).await;
        assert!(found.hits.len() > 200);
        assert!(found.hits.iter().all(|(key, _)| cache.node_for(key).unwrap().host() == pod.fqdn));
    }
}

#[tokio::test]
async fn a_client_with_a_port_name_finds_the_same_pods() {
    let service = service(2).await;
    let source = srv_source(&service).port_name("memcached");
    let cache = Client::builder().service(source).connect().await.unwrap();
    assert_eq!(node_hosts(&cache).len(), 2);
}

#[tokio::test]
async fn scaling_up_moves_only_the_share_of_the_new_pod_after_it_is_connected() {
    let service = service(3).await;
    let cache = service_client(&service, fast_polling()).await;
    let mut watch = cache.watch_topology();
    let keys: Vec<_> = (0..2_000).map(|n| format!("key-{n}")).collect();
    let before: Vec<_> = keys.iter().map(|key| cache.node_for(key).unwrap()).collect();
    service.scale(4).await.unwrap();
    let change = tokio::time::timeout(TEST_TIMEOUT, watch.changed()).await.unwrap().unwrap();
    assert_eq!((change.version, change.nodes.len(), change.removed.len()), (2, 4, 0));
    assert_eq!(change.added.len(), 1);
    assert_eq!(change.added[0].host(), service.pods()[3].fqdn);
    assert!((change.moved - 0.25).abs() < 0.05, "{}", change.moved);
    assert!(cache.topology().nodes.iter().all(|node| node.address.is_some()));
    let moved = keys.iter().zip(&before).filter(|(key, owner)| &cache.node_for(key).unwrap() != *owner);
    let moved: Vec<_> = moved.map(|(key, _)| cache.node_for(key).unwrap()).collect();
    assert!(moved.iter().all(|owner| *owner == change.added[0]), "keys moved between pods that stayed");
    assert!((moved.len() as f64 / 2_000.0 - change.moved).abs() < 0.05);
}

#[tokio::test]
async fn scaling_down_moves_only_the_share_of_the_removed_pod_after_the_removal_grace() {
    let service = service(4).await;
    let cache = service_client(&service, fast_polling().removal_grace(Duration::from_millis(800))).await;
    let mut watch = cache.watch_topology();
    let start = Instant::now();
    service.scale(3).await.unwrap();
    let change = tokio::time::timeout(TEST_TIMEOUT, watch.changed()).await.unwrap().unwrap();
    assert!(start.elapsed() >= Duration::from_millis(800));
    assert_eq!((change.added.len(), change.removed.len(), change.nodes.len()), (0, 1, 3));
    assert!((change.moved - 0.25).abs() < 0.05);
}

/// docs/discovery.md, row 46: this cannot be prevented.
#[tokio::test]
async fn a_pod_that_returns_without_a_restart_serves_its_old_values() {
    let service = service(3).await;
    let cache = service_client(&service, fast_polling().removal_grace(Duration::ZERO)).await;
    let node = cache.topology().nodes[1].id.clone();
    let key = key_owned_by(&cache, &node);
    let nodes = async |count: usize| {
        eventually("the topology has changed", async || cache.topology().nodes.len() == count).await;
    };
    cache.set(&key, "old", MINUTE).await.unwrap();
    for is_restarted in [false, true] {
        service.unready(1).await.unwrap();
        nodes(2).await;
        cache.set(&key, "new", MINUTE).await.unwrap();
        if is_restarted {
            service.kill(1).await.unwrap();
            service.restart(1).await.unwrap();
        } else {
            service.ready(1).await.unwrap();
        }
        nodes(3).await;
        let expected = if is_restarted { None } else { Some(b"old".to_vec()) };
        assert_eq!(value_of(&cache, &key).await, expected);
    }
}

#[tokio::test]
async fn commands_succeed_or_fail_transiently_while_pods_start_and_stop() {
    let service = service(3).await;
    let cache = service_client(&service, fast_polling().removal_grace(Duration::ZERO)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..8)
        .map(|worker| {
            let (cache, stop) = (cache.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let (mut ops, mut errors) = (0u64, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("key-{worker}-{}", ops % 100);
                    let outcome = match ops % 2 {
                        0 => within(LONG_TIMEOUT, cache.set(&key, key.clone(), MINUTE)).await.map(|()| None),
                        _ => within(LONG_TIMEOUT, cache.get(&key)).await,
                    };
                    match outcome {
                        Ok(Some(item)) => assert_eq!(item.value, key),
                        Ok(None) => {}
                        Err(error) => errors.push(error),
                    }
                    ops += 1;
                }
                (ops, errors)
            })
        })
        .collect();
    for pods in [4, 5, 3, 2, 4, 3] {
        service.scale(pods).await.unwrap();
        eventually("the topology has the new number of pods", async || cache.topology().nodes.len() == pods).await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        let (ops, errors) = task.await.unwrap();
        assert!(ops > 100);
        // Requests fail only if they were in flight to a pod when it was killed.
        assert!(errors.iter().all(memring::Error::is_transient), "{errors:?}");
    }
}

/// The most frequent event of all: a pod is rescheduled (`docs/discovery.md`, row 9).
#[tokio::test]
async fn a_pod_that_restarts_at_a_new_address_keeps_its_keys() {
    let service = service(3).await;
    let cache = service_client(&service, fast_polling()).await;
    let node = cache.topology().nodes[1].id.clone();
    let key = key_owned_by(&cache, &node);
    cache.set(&key, "v", MINUTE).await.unwrap();
    let mut watch = cache.watch_topology();
    let Some(address) = service.restart_at_new_address(1).await.unwrap() else { return };
    // It takes a poll and a second, but a loaded machine may be slower. tests/dns_servers measures it.
    eventually("the restarted pod answers", async || is_miss(&cache.get(&key).await)).await;
    let change = tokio::time::timeout(TEST_TIMEOUT, watch.changed()).await.unwrap().unwrap();
    assert_eq!((change.version, &change.readdressed[..], change.moved), (1, &[node.clone()][..], 0.0));
    assert_eq!(cache.node_for(&key).unwrap(), node);
    eventually("the topology has the new address", async || cache.topology().nodes[1].address == Some(address)).await;
    assert_eq!(cache.topology().version, 1);
}

#[tokio::test]
async fn a_pod_that_dns_lists_again_is_dialed_at_once_whatever_the_backoff() {
    let service = service(2).await;
    let hour = Duration::from_secs(3600);
    let client =
        service_client_builder(&service, fast_polling()).redial_backoff(hour, hour).request_timeout(LONG_TIMEOUT);
    let cache = client.connect().await.unwrap();
    let key = key_owned_by(&cache, &cache.topology().nodes[0].id);
    cache.set(&key, "v", MINUTE).await.unwrap();
    service.kill(0).await.unwrap();
    eventually("the pod has vanished from DNS", async || cache.discovery_status().vanished == 1).await;
    service.restart(0).await.unwrap();
    eventually("the pod is dialed", async || is_miss(&cache.get(&key).await)).await;
}

/// SRV answers have no addresses, and the old address accepts connections silently (`docs/discovery.md`, row 12).
#[tokio::test]
async fn without_glue_the_address_of_a_silent_pod_is_looked_up_again() {
    let builder = || Service::builder().pods(1).ttl(Duration::from_secs(1)).memcached();
    let (service, other) = (builder().glue(false).start().await.unwrap(), builder().start().await.unwrap());
    let cache = service_client_builder(&service, fast_polling()).connect().await.unwrap();
    eventually("the pod answers", async || cache.set("k", "v", MINUTE).await.is_ok()).await;
    let address = other.pods()[0].addr;
    if address.port() != service.pods()[0].addr.port() {
        return eprintln!("skipped: this machine has no second loopback address");
    }
    service.dns().set_host(&service.pods()[0].fqdn, [address.ip()]).unwrap();
    service.pause(0).await.unwrap();
    eventually("the new address answers", async || is_miss(&cache.get("k").await)).await;
    assert_eq!(cache.topology().nodes[0].address, Some(address));
    assert_eq!(cache.topology().version, 1);
}

/// Without it, the client would wait an hour for the next regular poll (`docs/discovery.md`, rows 12 and 26).
#[tokio::test]
async fn a_lost_connection_triggers_a_poll() {
    let hour = Duration::from_secs(3600);
    let service = Service::builder().pods(2).ttl(hour).memcached().start().await.unwrap();
    let cache = service_client(&service, DiscoveryOptions::default().poll_interval(hour, hour)).await;
    let node = cache.topology().nodes[0].id.clone();
    let key = key_owned_by(&cache, &node);
    cache.set(&key, "v", MINUTE).await.unwrap();
    let Some(address) = service.restart_at_new_address(0).await.unwrap() else { return };
    eventually("the new address answers", async || is_miss(&cache.get(&key).await)).await;
    assert_eq!(cache.topology().nodes[0].address, Some(address));
}

/// Connects a client of one node that is polled once an hour, except on request.
async fn client_polled_hourly(node: SocketAddr) -> Client {
    let hour = Duration::from_secs(3600);
    let options = DiscoveryOptions::default().poll_interval(hour, hour);
    let builder = Client::builder().discovery(NodeList::new([node])).discovery_options(options);
    builder.request_timeout(LONG_TIMEOUT).connect().await.unwrap()
}

/// The next dial succeeds, so no failed dial can request the poll (`docs/discovery.md`, row 26).
#[tokio::test]
async fn a_lost_connection_alone_requests_a_poll() {
    let addr = scripted_server(|mut socket| async move {
        if socket.read(&mut [0; 4096]).await.is_ok_and(|count| count > 0) {
            let _ = socket.write_all(b"END\r\n").await;
        }
    })
    .await;
    let cache = client_polled_hourly(addr).await;
    assert!(is_miss(&cache.get("a").await));
    eventually("the source is polled again", async || cache.discovery_status().polls == 2).await;
}

/// There never was a connection that could be lost (`docs/discovery.md`, row 26).
#[tokio::test]
async fn a_failed_dial_alone_requests_a_poll() {
    // Nothing listens there.
    let cache = client_polled_hourly(([127, 0, 0, 1], 1).into()).await;
    eventually("the source is polled again", async || cache.discovery_status().polls == 2).await;
}

#[tokio::test]
async fn a_pod_that_is_unready_for_less_than_the_removal_grace_serves_throughout() {
    let service = service(3).await;
    let cache = service_client(&service, fast_polling()).await;
    let node = cache.topology().nodes[2].id.clone();
    let key = key_owned_by(&cache, &node);
    cache.set(&key, "v", MINUTE).await.unwrap();
    let four_polls = async || {
        let polls = cache.discovery_status().polls;
        eventually("four polls have ended", async || cache.discovery_status().polls > polls + 3).await;
    };
    service.unready(2).await.unwrap();
    four_polls().await;
    assert_eq!(cache.get(&key).await.unwrap().unwrap().value, "v");
    service.ready(2).await.unwrap();
    four_polls().await;
    assert_eq!(cache.get(&key).await.unwrap().unwrap().value, "v");
    assert_eq!(cache.topology().version, 1);
}

/// The client follows a new address at once, even if the old one still answers (`docs/discovery.md`, rows 9 and 11).
#[tokio::test]
async fn a_node_listed_at_a_new_address_is_followed_although_the_old_address_still_answers() {
    let Some((node, old, new)) = MovingNode::bind().await else { return };
    serve_connections(old, always_miss);
    serve_connections(new, always_miss);
    let cache = node.client_builder().request_timeout(LONG_TIMEOUT).connect().await.unwrap();
    assert!(is_miss(&cache.get("a").await));
    node.move_to_new_address();
    eventually("the client uses the new address", async || {
        assert!(is_miss(&cache.get("a").await));
        node.is_followed_by(&cache)
    })
    .await;
    assert_eq!((cache.topology().version, cache.topology().addr_epoch), (1, 1));
}

#[tokio::test]
async fn a_request_to_a_node_that_moves_to_a_server_without_service_ends_by_its_deadline() {
    let Some((node, old, new)) = MovingNode::bind().await else { return };
    serve_connections(old, never_reply);
    serve_connections(new, |socket| async move { drop(socket) });
    let cache = node.client_builder().redial_backoff(LONG_TIMEOUT, LONG_TIMEOUT).connect().await.unwrap();
    let deadline = Duration::from_millis(800);
    let slow_cache = cache.with_request_timeout(deadline);
    let (outcome, ()) = tokio::join!(within(deadline, slow_cache.get("a")), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        node.move_to_new_address();
    });
    assert_eq!(outcome.unwrap_err().delivery(), Delivery::Unknown);
}

#[tokio::test]
async fn a_request_in_flight_to_a_leaving_node_is_still_answered() {
    let other = scripted_server(never_reply).await;
    let node = LeavingNode::start(b"END\r\n", other, |builder| builder).await;
    let cache = &node.cache;
    let key = key_owned_by(cache, &node_id(node.addr));
    let (outcome, ()) = tokio::join!(cache.get(&key), async {
        node.wait_for_request().await;
        node.leave().await;
    });
    assert!(is_miss(&outcome), "{outcome:?}");
    assert_eq!(cache.node_for(&key).unwrap(), node_id(other));
}

#[tokio::test]
async fn a_get_that_waits_for_queue_space_of_a_leaving_node_goes_to_the_next_owner() {
    let other = scripted_server(always_miss).await;
    let node = LeavingNode::start(b"", other, |builder| builder.queue_limits(1, 1 << 20)).await;
    let cache = &node.cache;
    let key = key_owned_by(cache, &node_id(node.addr));
    let get_after = async |millis: u64| {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        cache.get(&key).await
    };
    let (in_flight, queued, waiting, ()) = tokio::join!(get_after(0), get_after(100), get_after(200), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        node.leave().await;
    });
    assert_eq!(in_flight.unwrap_err().delivery(), Delivery::Unknown);
    assert_eq!(queued.unwrap_err().delivery(), Delivery::NotSent);
    assert!(is_miss(&waiting), "{waiting:?}");
}

#[tokio::test]
async fn writes_of_a_batch_that_wait_for_queue_space_of_a_leaving_node_go_to_the_next_owner() {
    let other = request_server(|_| "STORED\r\n").await;
    let node = LeavingNode::start(b"", other, |builder| builder.queue_limits(1, 1 << 20)).await;
    let cache = &node.cache;
    let keys = (0..).map(|n| format!("key-{n}"));
    let keys: Vec<String> = keys.filter(|key| cache.node_for(key).unwrap() == node_id(node.addr)).take(5).collect();
    let (written, ()) = tokio::join!(cache.set_many(keys.iter().map(|key| (key, "v")), MINUTE), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        node.leave().await;
    });
    assert_eq!(written.done, keys[2..].iter().collect::<Vec<_>>());
    let deliveries: Vec<_> = written.errors.iter().map(|failed| failed.error.delivery()).collect();
    assert_eq!(deliveries, [Delivery::Unknown, Delivery::NotSent], "the first in flight, the second queued");
}
