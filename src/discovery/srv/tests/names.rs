//! Which name's records count: the search list, aliases, and other owners.

use std::time::Duration;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use tokio::time::timeout;

use super::server::{FakeDns, SERVICE, Zone, a, srv};
use super::{Resolver, ips, names};
use crate::discovery::{Discovery, DiscoveryError, SrvDiscovery};

const ALIAS: &str = "cache.example.";
const SEARCH: [&str; 3] = ["other.svc.cluster.local", "default.svc.cluster.local", "svc.cluster.local"];

/// docs/discovery.md, row 39: no other name is queried after that.
#[tokio::test]
async fn a_short_name_is_pinned_by_the_first_success() {
    let dns = FakeDns::with_pods(3).await;
    let search = ["other.svc.cluster.local", "default.svc.cluster.local", "svc.cluster.local"];
    let resolver = Resolver::with_search("mc", &[dns.address], &search, 5).unwrap();
    dns.set(|zone| zone.code = Some(ResponseCode::ServFail));
    assert!(!resolver.srv().await.unwrap_err().is_empty());
    dns.set(|zone| zone.code = Some(ResponseCode::NXDomain));
    assert!(resolver.srv().await.unwrap_err().is_empty());
    dns.set(|zone| zone.code = None);
    dns.take_queries();
    assert_eq!(resolver.srv().await.unwrap().records.len(), 3);
    assert!(dns.take_queries().len() >= 2);
    for code in [ResponseCode::ServFail, ResponseCode::NXDomain] {
        dns.set(|zone| zone.code = Some(code));
        assert!(resolver.srv().await.is_err());
        assert!(dns.take_queries().iter().all(|query| *query == format!("SRV {SERVICE} udp")));
    }
}

/// docs/discovery.md, row 48: whether the name that fails is the first or a later one, nothing is pinned.
#[tokio::test]
async fn a_name_found_behind_one_that_fails_is_not_used() {
    let dns = FakeDns::with_pods(3).await;
    let search = ["default.svc.cluster.local", "corp.example"];
    dns.set(|zone| zone.records.push(srv("mc.corp.example.", 11211, "wrong.corp.example.")));
    for code in [Some(ResponseCode::ServFail), None] {
        // Also a full name that is written without its dot.
        for query in ["mc", "mc.default.svc.cluster.local"] {
            let resolver = Resolver::with_search(query, &[dns.address], &search, 5).unwrap();
            dns.set(|zone| zone.name_code = Some((SERVICE.into(), code)));
            dns.set(|zone| zone.records.push(srv(&format!("{query}.corp.example."), 11211, "wrong.corp.example.")));
            match timeout(Duration::from_millis(700), resolver.srv()).await {
                Ok(Err(error)) => {
                    assert!(code.is_some() && !error.is_empty(), "{error}");
                    assert!(error.to_string().contains(&format!("SERVFAIL to SRV {SERVICE}")), "{error}");
                }
                Ok(Ok(answer)) => panic!("{answer:?}"),
                Err(_) => assert!(code.is_none()),
            }
            dns.set(|zone| zone.name_code = None);
            assert_eq!(resolver.srv().await.unwrap().records.len(), 3, "{query}");
        }
    }
}

/// docs/discovery.md, row 49: as a client that starts then does.
#[tokio::test]
async fn a_service_created_under_a_nearer_name_replaces_one_that_is_gone() {
    let dns = FakeDns::with_pods(3).await;
    let resolver = Resolver::with_search("mc", &[dns.address], &SEARCH, 5).unwrap();
    assert_eq!(resolver.srv().await.unwrap().records.len(), 3);
    dns.set(|zone| zone.pods.clear());
    // A farther name is not used: a service without ready pods looks like one that is gone.
    dns.set(|zone| zone.records.push(srv("mc.svc.cluster.local.", 11211, "far.svc.cluster.local.")));
    for _ in 0..3 {
        assert!(resolver.srv().await.unwrap_err().is_empty());
    }
    dns.set(|zone| zone.records.push(srv("mc.other.svc.cluster.local.", 11211, "near.svc.cluster.local.")));
    dns.take_queries();
    assert_eq!(resolver.srv().await.unwrap().records[0].target, "near.svc.cluster.local.");
    dns.take_queries();
    assert_eq!(resolver.srv().await.unwrap().records[0].target, "near.svc.cluster.local.");
    assert_eq!(dns.take_queries(), ["SRV mc.other.svc.cluster.local. udp"]);
}

/// docs/discovery.md, row 49: failures of the other names no longer matter once the full name is known.
#[tokio::test]
async fn a_nearer_name_that_fails_does_not_matter_later() {
    let dns = FakeDns::with_pods(3).await;
    let resolver = Resolver::with_search("mc", &[dns.address], &SEARCH, 5).unwrap();
    assert_eq!(resolver.srv().await.unwrap().records.len(), 3);
    let nearer = "mc.other.svc.cluster.local.";
    for code in [Some(ResponseCode::ServFail), None] {
        // The nearer names are queried after an answer without records.
        dns.set(|zone| zone.code = Some(ResponseCode::NXDomain));
        assert!(resolver.srv().await.unwrap_err().is_empty());
        dns.take_queries();
        dns.set(|zone| (zone.code, zone.name_code) = (None, Some((nearer.into(), code))));
        let found = timeout(Duration::from_secs(30), resolver.srv()).await.unwrap();
        assert_eq!(found.unwrap().records.len(), 3, "{code:?}");
        assert!(dns.take_queries().contains(&format!("SRV {nearer} udp")), "{code:?}");
        dns.set(|zone| zone.name_code = None);
    }
}

/// docs/discovery.md, row 47: with and without the records in the same answer.
#[tokio::test]
async fn an_alias_of_a_service_is_followed_at_every_poll() {
    let dns = FakeDns::with_pods(3).await;
    dns.set(|zone| {
        zone.aliases = vec![(ALIAS.into(), "middle.example.".into()), ("middle.example.".into(), SERVICE.into())]
    });
    let discovery = SrvDiscovery::new(ALIAS).nameservers([dns.address]);
    for only_alias in [false, true] {
        dns.set(|zone| zone.only_alias = only_alias);
        let found = discovery.discover().await.unwrap();
        assert_eq!(names(&found).len(), 3);
        assert_eq!(found.ttl(), Some(Duration::from_secs(5)));
        assert!(dns.take_queries().iter().all(|query| !query.contains("mc-")));
    }
    dns.set(|zone| {
        zone.aliases = vec![(ALIAS.into(), "moved.example.".into())];
        zone.records.push(srv("moved.example.", 11211, "mc-7.moved.example."));
    });
    assert_eq!(names(&discovery.discover().await.unwrap()), ["mc-7.moved.example"]);
}

/// docs/discovery.md, row 47.
#[tokio::test]
async fn aliases_that_lead_nowhere_are_errors() {
    let dns = FakeDns::with_pods(3).await;
    let discovery = SrvDiscovery::new(ALIAS).nameservers([dns.address]);
    dns.set(|zone| zone.aliases = vec![(ALIAS.into(), "gone.example.".into())]);
    assert!(discovery.discover().await.unwrap_err().is_empty());
    for only_alias in [false, true] {
        dns.set(|zone| {
            zone.only_alias = only_alias;
            zone.aliases = vec![(ALIAS.into(), "loop.example.".into()), ("loop.example.".into(), ALIAS.into())];
        });
        let error = discovery.discover().await.unwrap_err();
        assert!(matches!(error, DiscoveryError::Transport(_)), "{error}");
        assert!(error.to_string().contains("cache.example. form a loop"), "{error}");
    }
}

/// docs/discovery.md, row 51: neither as nodes nor as addresses.
#[tokio::test]
async fn records_of_other_names_are_ignored() {
    let dns = FakeDns::with_pods(3).await;
    dns.set(|zone| {
        zone.records.push(srv("stranger.example.", 11211, "stranger-0.example."));
        zone.records.push(a("stranger-0.example.", 99));
        (zone.foreign, zone.glue) = (true, true);
    });
    let discovery = dns.discovery();
    let found = discovery.discover().await.unwrap();
    assert_eq!(names(&found).len(), 3);
    assert_eq!(found.endpoints()[1].addresses(), ips(&["10.0.0.2"]));
    let host = discovery.resolve("mc-1.mc.default.svc.cluster.local").await.unwrap();
    assert_eq!(host.addresses(), ips(&["10.0.0.2"]));
    assert!(discovery.resolve("mc-9.mc.default.svc.cluster.local").await.unwrap_err().is_no_such_host());
}

/// docs/discovery.md, row 52: IPv4 first; one of both is enough.
#[tokio::test]
async fn both_families_of_a_host_are_looked_up() {
    let dns = FakeDns::with_pods(2).await;
    let (discovery, host) = (dns.discovery(), "mc-1.mc.default.svc.cluster.local");
    dns.set(|zone| zone.dual_stack = true);
    let mut found = discovery.resolve(host).await.unwrap();
    for _ in 0..20 {
        // On a busy machine one family may come too late.
        if found.addresses().len() == 2 {
            break;
        }
        found = discovery.resolve(host).await.unwrap();
    }
    assert_eq!(found.addresses(), ips(&["10.0.0.2", "fd00::2"]));
    assert_eq!(found.ttl(), Some(Duration::from_secs(5)));
    for code in [Some(ResponseCode::ServFail), Some(ResponseCode::NotImp), None] {
        dns.set(|zone| zone.type_code = Some((RecordType::AAAA, code)));
        assert_eq!(discovery.resolve(host).await.unwrap().addresses(), ips(&["10.0.0.2"]), "{code:?}");
    }
    for code in [Some(ResponseCode::ServFail), Some(ResponseCode::NoError), None] {
        dns.set(|zone| zone.type_code = Some((RecordType::A, code)));
        assert_eq!(discovery.resolve(host).await.unwrap().addresses(), ips(&["fd00::2"]), "{code:?}");
    }
}

/// docs/discovery.md, row 56.
#[tokio::test]
async fn a_domain_that_does_not_offer_the_service_is_named() {
    let dns = FakeDns::new(Zone { records: vec![srv(SERVICE, 0, ".")], ..Zone::default() }).await;
    let error = dns.discovery().discover().await.unwrap_err();
    assert!(matches!(error, DiscoveryError::Empty { nxdomain: false, .. }), "{error}");
    assert!(error.to_string().contains(&format!("SRV {SERVICE}: the only target is `.`")), "{error}");
}
