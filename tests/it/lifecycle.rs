//! Starting a client, and ending it.

use std::time::{Duration, Instant};

use memring::testing::DnsFault;
use memring::{
    Client, Discovery, DiscoveryError, DiscoveryOptions, DiscoveryState, EmptyPolicy, Endpoint, Error, ErrorKind,
    Membership, NodeId, Startup,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::scripted::{MovingNode, never_reply, scripted_server, serve_connections};
use crate::support::{
    LONG_TIMEOUT, MINUTE, TEST_TIMEOUT, alive_tasks, client_builder, connect_with_startup_wait, eventually,
    fast_polling, is_miss, node_hosts, service, service_client, service_client_builder, within,
};

/// `docs/discovery.md`, rows 2 to 5.
#[tokio::test]
async fn a_start_without_pods_waits_starts_empty_or_uses_bootstrap_nodes_as_configured() {
    let service = service(2).await;
    service.dns().set_fault(DnsFault::NxDomain);

    let start = Instant::now();
    let error = connect_with_startup_wait(&service).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoNodes);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("NXDOMAIN"), "{cause}");
    assert!(start.elapsed() >= Duration::from_millis(1_500));

    let empty = service_client(&service, fast_polling().startup(Startup::StartEmpty)).await;
    assert_eq!(empty.get("k").await.unwrap_err().kind(), ErrorKind::NoNodes);
    let found = empty.get_many(["a", "b"]).await;
    assert_eq!((found.errors.len(), found.errors[0].keys.len()), (1, 2));

    let pod = service.pods()[0].addr.to_string().parse::<NodeId>().unwrap();
    let bootstrap = Startup::Bootstrap(vec![Endpoint::new(pod.clone())]);
    let bootstrapped = service_client(&service, fast_polling().startup(bootstrap)).await;
    assert_eq!(bootstrapped.node_for("k").unwrap(), pod);
    bootstrapped.set("k", "v", MINUTE).await.unwrap();

    let waiting = tokio::spawn(service_client_builder(&service, fast_polling()).connect());
    tokio::time::sleep(Duration::from_millis(700)).await;
    service.dns().clear_faults();
    assert_eq!(node_hosts(&waiting.await.unwrap().unwrap()).len(), 2);
    eventually("both other clients have the two pods of the first answer", async || {
        node_hosts(&empty).len() == 2 && node_hosts(&bootstrapped).len() == 2
    })
    .await;
    empty.set("k", "v", MINUTE).await.unwrap();
}

#[tokio::test]
async fn connect_does_not_wait_for_bootstrap_nodes_that_discovery_removes_at_once() {
    #[derive(Debug)]
    struct NoNodes;
    impl Discovery for NoNodes {
        async fn discover(&self) -> Result<Membership, DiscoveryError> {
            Err(DiscoveryError::empty(true, None))
        }
    }
    let options = fast_polling().startup(Startup::Bootstrap(vec!["127.0.0.1:1".parse::<NodeId>().unwrap().into()]));
    let builder = Client::builder().discovery(NoNodes).discovery_options(options.empty(EmptyPolicy::ClearNow));
    let cache = timeout(TEST_TIMEOUT, builder.connect()).await.expect("connect must return").unwrap();
    eventually("the bootstrap nodes are removed", async || {
        cache.get("a").await.unwrap_err().kind() == ErrorKind::NoNodes
    })
    .await;
}

/// `docs/discovery.md`, row 45.
#[tokio::test]
async fn a_static_list_of_nodes_is_polled_only_once() {
    let service = service(2).await;
    let nodes: Vec<_> = service.pods().iter().map(|pod| pod.addr.to_string()).collect();
    let options = DiscoveryOptions::default().poll_interval(Duration::from_millis(20), Duration::from_millis(20));
    let cache = Client::builder().nodes(nodes).discovery_options(options).connect().await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(cache.discovery_status().polls, 1);
    cache.set("k", "v", MINUTE).await.unwrap();
}

/// `docs/discovery.md`, row 75.
#[tokio::test]
async fn rediscover_returns_when_new_nodes_are_in_use() {
    let hour = Duration::from_secs(3600);
    let service = service(2).await;
    let cache = service_client(&service, DiscoveryOptions::default().poll_interval(hour, hour)).await;
    for pods in [3, 4] {
        service.scale(pods).await.unwrap();
        assert_eq!(cache.topology().nodes.len(), pods - 1);
        let status = timeout(TEST_TIMEOUT, cache.rediscover()).await.unwrap();
        assert_eq!((status.state, status.nodes), (DiscoveryState::Fresh, pods));
        assert_eq!(cache.topology().nodes.len(), pods);
    }
    service.dns().set_fault(DnsFault::ServFail);
    let status = timeout(TEST_TIMEOUT, cache.rediscover()).await.unwrap();
    assert_eq!((status.state, status.nodes, cache.topology().nodes.len()), (DiscoveryState::Stale, 4, 4));
    assert!(matches!(status.last_error, Some(DiscoveryError::ServerFailure(_))), "{status:?}");
    cache.shutdown().await;
    timeout(TEST_TIMEOUT, cache.rediscover()).await.unwrap();
}

#[tokio::test]
async fn invalid_options_fail_with_a_config_error() {
    let assert_config_error = |outcome: Result<Client, Error>| {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    };
    assert_config_error(Client::builder().connect().await);
    assert_config_error(Client::builder().nodes(["a b:1"]).connect().await);
    assert_config_error(Client::builder().nodes(["a:0"]).connect().await);
    assert_config_error(Client::builder().nodes(["a"]).request_timeout(Duration::ZERO).connect().await);
    assert_config_error(Client::builder().nodes(["a"]).connections_per_node(0).connect().await);
    assert_config_error(Client::builder().nodes(["a"]).connections_per_node(17).connect().await);
    assert_config_error(Client::builder().nodes(["a"]).connect_timeout(Duration::ZERO).connect().await);
    assert_config_error(Client::builder().nodes(["a"]).queue_limits(0, 1).connect().await);
    assert_config_error(Client::builder().nodes(["a"]).queue_limits(1, 0).connect().await);
    assert_config_error(Client::builder().nodes(["a"]).max_value_size((1 << 30) + 1).connect().await);
    assert_config_error(Client::builder().nodes(["a"]).redial_backoff(MINUTE, MINUTE / 2).connect().await);
    assert_config_error(Client::builder().nodes(["a"]).redial_backoff(Duration::ZERO, MINUTE).connect().await);
    let no_timeout = DiscoveryOptions::default().lookup_timeout(Duration::ZERO);
    assert_config_error(Client::builder().nodes(["a"]).discovery_options(no_timeout).connect().await);
    // A permanent error of the source is a config error, and not a temporary lack of nodes.
    assert_config_error(Client::builder().nodes(Vec::<String>::new()).connect().await);
    assert_config_error(Client::builder().service("a..b").connect().await);

    let error = Client::builder().nodes(["a:1", "b c:2", "d:3"]).connect().await.unwrap_err();
    assert!(error.to_string().contains("\"b c:2\""), "{error}");
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("host"));
}

/// A client that cannot be made leaves nothing behind (`docs/discovery.md`, row 3).
#[tokio::test]
async fn a_connect_that_fails_leaves_no_task() {
    let service = service(2).await;
    let before = alive_tasks();
    service.dns().set_fault(DnsFault::NxDomain);
    assert!(connect_with_startup_wait(&service).await.is_err());
    eventually("every task of a client without nodes has ended", async || alive_tasks() <= before).await;
    assert!(Client::builder().service("a..b").connect().await.is_err());
    assert!(Client::builder().nodes(Vec::<String>::new()).connect().await.is_err());
    eventually("every task of a misconfigured client has ended", async || alive_tasks() <= before).await;
    // Dropped while it waits for nodes, with a bootstrap node that it dials.
    let bootstrap = Startup::Bootstrap(vec![Endpoint::new("127.0.0.1:1".parse().unwrap())]);
    let connecting = service_client_builder(&service, fast_polling().startup(bootstrap)).connect();
    assert!(timeout(Duration::ZERO, connecting).await.is_err());
    eventually("every task of a dropped connect has ended", async || alive_tasks() <= before).await;
}

#[tokio::test]
async fn dropping_the_last_clone_ends_every_task() {
    let service = service(3).await;
    let before = alive_tasks();
    let cache = service_client(&service, fast_polling()).await;
    let (clone, mut watch) = (cache.clone(), cache.watch_topology());
    drop(cache);
    clone.set("k", "v", MINUTE).await.unwrap();
    drop(clone);
    assert_eq!(timeout(TEST_TIMEOUT, watch.changed()).await.unwrap(), None);
    eventually("every task has ended", async || alive_tasks() <= before).await;
}

#[tokio::test]
async fn shutdown_ends_requests_in_flight_and_refuses_new_ones() {
    let service = service(2).await;
    let before = alive_tasks();
    let cache = service_client(&service, fast_polling()).await;
    let tasks: Vec<_> = (0..100)
        .map(|n| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.set(format!("key-{n}"), "v", MINUTE).await })
        })
        .collect();
    tokio::task::yield_now().await;
    cache.shutdown().await;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}"),
        }
    }
    assert_eq!(cache.get("k").await.unwrap_err().kind(), ErrorKind::Closed);
    eventually("every task has ended", async || alive_tasks() <= before).await;
}

#[tokio::test]
async fn shutdown_waits_for_replies_on_a_connection_that_has_been_replaced() {
    let Some((node, old, new)) = MovingNode::bind().await else { return };
    serve_connections(old, |mut socket| async move {
        let _ = socket.read(&mut [0; 4096]).await;
        tokio::time::sleep(Duration::from_millis(800)).await;
        let _ = socket.write_all(b"END\r\n").await;
    });
    serve_connections(new, |mut socket| async move {
        let _ = socket.read(&mut [0; 4096]).await;
    });
    let cache = node.client_builder().request_timeout(Duration::from_secs(2)).connect().await.unwrap();
    let (outcome, ()) = tokio::join!(cache.get("a"), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        node.move_to_new_address();
        eventually("the client uses the new address", async || node.is_followed_by(&cache)).await;
        cache.shutdown().await;
    });
    assert!(is_miss(&outcome), "{outcome:?}");
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_redial() {
    // Closes each connection after a request.
    let addr = scripted_server(|mut socket| async move {
        let _ = socket.read(&mut [0; 4096]).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    })
    .await;
    let builder = Client::builder().nodes([addr.to_string()]).redial_backoff(LONG_TIMEOUT, LONG_TIMEOUT);
    let cache = builder.connect().await.unwrap();
    let (outcome, ()) = tokio::join!(cache.get("a"), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        within(Duration::from_millis(500), cache.shutdown()).await;
    });
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Connection);
}

#[test]
fn callers_on_another_runtime_fail_at_once_when_the_clients_runtime_ends() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (first, second) = (runtime(), runtime());
    let cache = first.block_on(async {
        let addr = scripted_server(never_reply).await;
        client_builder(addr).connections_per_node(2).connect().await.unwrap()
    });
    let callers: Vec<_> = (0..10)
        .map(|n| {
            let cache = cache.clone();
            second.spawn(async move { cache.get(format!("key-{n}")).await })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    drop(first);
    second.block_on(async {
        for caller in callers {
            let error = caller.await.unwrap().unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Connection | ErrorKind::Closed), "{error:?}");
        }
        assert_eq!(cache.get("a").await.unwrap_err().kind(), ErrorKind::Closed);
        cache.shutdown().await;
    });
    assert!(start.elapsed() < LONG_TIMEOUT / 2, "callers waited {:?} for their deadlines", start.elapsed());
}
