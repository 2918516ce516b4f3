//! Unusual records: aliases, wrong glue, owners that were not asked for, orders, and TTLs. Several servers of one zone.

use super::*;

const ALIAS: &str = "cache.example.com.";
const POD: &str = "memcached-0.memcached.default.svc.cluster.local.";

/// Returns owner, type and data of each record.
fn described(records: &[Record]) -> Vec<String> {
    let text = |record: &Record| format!("{} {} {}", record.name, record.record_type(), record.data);
    records.iter().map(text).collect()
}

/// Returns the addresses of the A and AAAA records, in their order.
fn addresses(records: &[Record]) -> Vec<IpAddr> {
    records.iter().filter_map(|record| record.data.ip_addr()).collect()
}

fn loopback(last: u8) -> IpAddr {
    Ipv4Addr::new(127, 9, 9, last).into()
}

#[tokio::test]
async fn an_alias_is_answered_with_the_records_of_its_target() {
    let (service, _) = service(2).await;
    let dns = service.dns();
    let srv = described(&ask(dns.addr(), NAME, RecordType::SRV).await.answers);
    dns.set_alias(ALIAS, "second.example.com").unwrap();
    dns.set_alias("Second.example.com", NAME).unwrap();
    let reply = ask(dns.addr(), ALIAS, RecordType::SRV).await;
    assert_eq!(
        described(&reply.answers)[..2],
        [format!("{ALIAS} CNAME second.example.com."), format!("second.example.com. CNAME {NAME}")]
    );
    assert_eq!(described(&reply.answers)[2..], srv);
    assert_eq!(reply.additionals.len(), 2, "glue");

    // An alias of a pod, and the alias alone.
    dns.set_alias(ALIAS, POD).unwrap();
    let reply = ask(dns.addr(), ALIAS, RecordType::A).await;
    assert_eq!(addresses(&reply.answers), [service.pods()[0].addr.ip()]);
    dns.set_bare_aliases(true);
    for kind in [RecordType::A, RecordType::SRV, RecordType::CNAME] {
        assert_eq!(described(&ask(dns.addr(), ALIAS, kind).await.answers), [format!("{ALIAS} CNAME {POD}")]);
    }
    dns.set_bare_aliases(false);

    // An alias of nothing, of a name without records of the type, and of itself.
    dns.set_alias(ALIAS, "nothing.example.com").unwrap();
    let reply = ask(dns.addr(), ALIAS, RecordType::SRV).await;
    assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::NXDomain, 1));
    dns.set_alias(ALIAS, POD).unwrap();
    let reply = ask(dns.addr(), ALIAS, RecordType::SRV).await;
    let sections = (reply.answers.len(), reply.authorities.len());
    assert_eq!((reply.metadata.response_code, sections), (ResponseCode::NoError, (1, 1)));
    dns.set_alias("second.example.com", ALIAS).unwrap();
    dns.set_alias(ALIAS, "second.example.com").unwrap();
    let reply = ask(dns.addr(), ALIAS, RecordType::SRV).await;
    assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::NoError, 2));

    dns.clear_overrides();
    assert_eq!(ask(dns.addr(), ALIAS, RecordType::SRV).await.metadata.response_code, ResponseCode::NXDomain);
    assert!(dns.set_alias(ALIAS, &"x".repeat(64)).is_err());
}

#[tokio::test]
async fn glue_can_be_wrong_partial_or_unneeded() {
    let (service, resolver) = service(3).await;
    let dns = service.dns();
    let true_glue = ready_pods(&service);
    dns.set_glue_for(POD, [loopback(1), loopback(2)]).unwrap();
    let wrong = glue(&resolver.srv_lookup(NAME).await.unwrap());
    assert_eq!(wrong.intersection(&true_glue).count(), 2);
    assert!(wrong.contains(&(POD.to_owned(), loopback(1))) && wrong.contains(&(POD.to_owned(), loopback(2))));
    // The host's own address is right.
    assert_eq!(addresses(&ask(dns.addr(), POD, RecordType::A).await.answers), [service.pods()[0].addr.ip()]);

    dns.set_glue_for(POD, []).unwrap();
    let partial = glue(&resolver.srv_lookup(NAME).await.unwrap());
    assert_eq!((partial.len(), partial.is_subset(&true_glue)), (2, true));

    dns.set_glue(false);
    dns.set_glue_for("unneeded.example.com", [loopback(3)]).unwrap();
    let unneeded = glue(&resolver.srv_lookup(NAME).await.unwrap());
    assert_eq!(unneeded, BTreeSet::from([("unneeded.example.com.".to_owned(), loopback(3))]));
}

#[tokio::test]
async fn records_of_another_owner_come_with_every_answer_of_their_type() {
    let (service, _) = service(1).await;
    let dns = service.dns();
    dns.add_foreign_srv("other.example.com", [SrvRecord::new(0, 1, 11211, "stranger.example.com")]).unwrap();
    dns.add_foreign_addresses("other.example.com", [loopback(1)]).unwrap();
    let srv = described(&ask(dns.addr(), NAME, RecordType::SRV).await.answers);
    assert_eq!((srv.len(), &*srv[1]), (2, "other.example.com. SRV 0 1 11211 stranger.example.com."));
    let a = described(&ask(dns.addr(), POD, RecordType::A).await.answers);
    assert_eq!((a.len(), &*a[1]), (2, "other.example.com. A 127.9.9.1"));
    // Also if there are no other records, but not if the name does not exist.
    dns.set_srv([]).unwrap();
    assert_eq!(ask(dns.addr(), NAME, RecordType::SRV).await.answers.len(), 1);
    assert!(ask(dns.addr(), ALIAS, RecordType::SRV).await.answers.is_empty());
}

#[tokio::test]
async fn the_order_of_records_and_addresses_changes_as_set() {
    let (service, _) = service(1).await;
    let dns = service.dns();
    let hosts: Vec<_> = (0..4).map(|host| format!("host-{host}.example.com.")).collect();
    dns.set_srv(hosts.iter().map(|host| SrvRecord::new(0, 1, 11211, host))).unwrap();
    for host in &hosts {
        dns.set_host(host, (1..=2).map(loopback)).unwrap();
    }
    let answer = async || {
        let reply = ask(dns.addr(), NAME, RecordType::SRV).await;
        (described(&reply.answers), addresses(&reply.additionals))
    };
    let fixed = answer().await;
    assert_eq!(answer().await, fixed);

    dns.set_order(DnsOrder::Rotated);
    let rotated = [answer().await, answer().await, answer().await, answer().await];
    let firsts: BTreeSet<_> = rotated.iter().map(|(records, _)| records[0].clone()).collect();
    assert_eq!(firsts, fixed.0.iter().cloned().collect());
    for pair in rotated.windows(2) {
        assert_eq!(pair[0].0[1..], pair[1].0[..3]);
        assert_eq!(pair[0].1[..2], [pair[1].1[1], pair[1].1[0]], "the addresses of one host swap");
    }

    dns.set_order(DnsOrder::Shuffled);
    let mut seen = BTreeSet::new();
    let some_orders = async {
        while seen.len() < 5 {
            let (mut records, addresses) = answer().await;
            seen.insert((records.clone(), addresses));
            records.sort();
            assert_eq!(records, fixed.0);
        }
    };
    timeout(TEST_TIMEOUT, some_orders).await.unwrap();
}

#[tokio::test]
async fn each_kind_of_record_can_have_a_ttl_of_its_own() {
    let (service, _) = service(1).await;
    let dns = service.dns();
    dns.set_alias(ALIAS, NAME).unwrap();
    dns.set_ttl(Duration::from_secs(30));
    dns.set_address_ttl(Duration::from_secs(5));
    dns.set_alias_ttl(Duration::from_secs(60));
    dns.set_negative_ttl(Duration::from_secs(2));
    let ttls = |records: &[Record]| records.iter().map(|record| record.ttl).collect::<Vec<_>>();
    let reply = ask(dns.addr(), ALIAS, RecordType::SRV).await;
    assert_eq!((ttls(&reply.answers), ttls(&reply.additionals)), (vec![60, 30], vec![5]));
    assert_eq!(ttls(&ask(dns.addr(), POD, RecordType::A).await.answers), [5]);
    for (name, kind) in [(POD, RecordType::SRV), ("nothing.example.com.", RecordType::SRV)] {
        let reply = ask(dns.addr(), name, kind).await;
        assert_eq!(ttls(&reply.authorities), [2]);
        assert!(matches!(&reply.authorities[0].data, RData::SOA(soa) if soa.minimum == 2));
    }
    dns.set_ttl(Duration::from_secs(7));
    let reply = ask(dns.addr(), ALIAS, RecordType::SRV).await;
    assert_eq!((ttls(&reply.answers), ttls(&reply.additionals)), (vec![7, 7], vec![7]));
}

#[tokio::test]
async fn another_server_has_the_same_zone_and_faults_of_its_own() {
    let (service, _) = service(2).await;
    let dns = service.dns();
    let other = dns.start_another().await.unwrap();
    assert_ne!(dns.addr(), other.addr());
    other.set_fault(DnsFault::ServFail);
    assert_eq!(ask(other.addr(), NAME, RecordType::SRV).await.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(ask(dns.addr(), NAME, RecordType::SRV).await.answers.len(), 2);
    other.clear_faults();
    service.scale(3).await.unwrap();
    other.set_glue(false);
    for server in [dns, &other] {
        let reply = ask(server.addr(), NAME, RecordType::SRV).await;
        assert_eq!((reply.answers.len(), reply.additionals.len()), (3, 0));
    }
    assert_eq!((dns.queries().total, other.queries().total), (2, 2));
    dns.stop().await;
    assert_eq!(ask(other.addr(), NAME, RecordType::SRV).await.answers.len(), 3);
}
