//! Discovery by DNS: failures, large answers, names without an address.

use std::time::Duration;

use memring::testing::{DnsFault, DnsFilter, Service, SrvRecord};
use memring::{Client, DiscoveryState, ErrorKind};

use crate::support::{
    MINUTE, connect_with_startup_wait, eventually, fast_polling, is_miss, key_owned_by, service, service_client,
    srv_source,
};

/// The last good set of nodes stays (`docs/discovery.md`, rows 13 and 15 to 18).
#[tokio::test]
async fn no_failure_of_dns_removes_a_node() {
    let service = service(3).await;
    let cache = service_client(
        &service,
        fast_polling().removal_grace(Duration::ZERO).lookup_timeout(Duration::from_millis(300)),
    )
    .await;
    cache.set("k", "v", MINUTE).await.unwrap();
    for fault in [DnsFault::ServFail, DnsFault::Refused, DnsFault::NxDomain, DnsFault::NoData, DnsFault::Silent] {
        service.dns().set_fault(fault);
        let errors = cache.discovery_status().errors;
        eventually("two polls have failed", async || cache.discovery_status().errors >= errors + 2).await;
        assert!(cache.discovery_status().last_error.is_some());
        assert_eq!(cache.get("k").await.unwrap().unwrap().value, "v", "{fault:?}");
        service.dns().clear_faults();
        let polls = cache.discovery_status().polls;
        eventually("a poll has succeeded", async || {
            let status = cache.discovery_status();
            status.polls > polls && status.state == DiscoveryState::Fresh
        })
        .await;
    }
    service.dns().stop().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(cache.get("k").await.unwrap().unwrap().value, "v");
    service.dns().start().await.unwrap();
    assert_eq!(cache.topology().version, 1);
}

/// Connection and DNS fail at the same time (`docs/discovery.md`, row 42).
#[tokio::test]
async fn a_lost_connection_is_redialed_at_the_last_known_address_while_dns_fails() {
    let service = Service::builder().pods(1).ttl(Duration::from_secs(1)).memcached().start().await.unwrap();
    let cache = service_client(&service, fast_polling().lookup_timeout(Duration::from_millis(200))).await;
    cache.set("k", "v", MINUTE).await.unwrap();
    service.dns().set_fault(DnsFault::ServFail);
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    service.crash(0).await.unwrap();
    eventually("gets fail", async || cache.get("k").await.is_err()).await;
    service.restart(0).await.unwrap();
    eventually("the pod answers again", async || is_miss(&cache.get("k").await)).await;
}

/// The answer does not fit a datagram (`docs/discovery.md`, rows 22 and 23).
#[tokio::test]
async fn three_hundred_pods_are_found_over_tcp_and_none_without_tcp() {
    let service = Service::start(1).await.unwrap();
    let records = (0..300).map(|n| SrvRecord::new(0, 1, 11211, format!("memcached-{n}.{}.", service.name())));
    service.dns().set_srv(records).unwrap();
    let cache = Client::builder().service(srv_source(&service)).connect().await.unwrap();
    assert_eq!(cache.topology().nodes.len(), 300);
    // The client never uses the partial set of a truncated answer.
    service.dns().set_fault(DnsFault::Truncated);
    service.dns().set_fault_for(DnsFilter::all().tcp(), DnsFault::Silent);
    let outcome = connect_with_startup_wait(&service).await;
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::NoNodes);
}

/// One SRV target has no address (`docs/discovery.md`, row 37).
#[tokio::test]
async fn a_pod_without_an_address_does_not_affect_the_other_pods() {
    let service = Service::builder().pods(2).memcached().glue(false).start().await.unwrap();
    let pods = service.pods();
    let record = |host: &str| SrvRecord::new(0, 1, pods[0].addr.port(), format!("{host}."));
    let lost = format!("memcached-9.{}", service.name());
    service.dns().set_srv([record(&pods[0].fqdn), record(&pods[1].fqdn), record(&lost)]).unwrap();
    let cache = service_client(&service, fast_polling()).await;
    for node in cache.topology().nodes {
        let outcome = cache.set(key_owned_by(&cache, &node.id), "v", MINUTE).await;
        match outcome {
            Ok(()) => assert_ne!(node.id.host(), lost),
            Err(error) => {
                assert_eq!((node.id.host(), error.kind()), (&lost[..], ErrorKind::Unavailable));
            }
        }
    }
}
