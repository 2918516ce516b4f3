//! SRV discovery over real sockets.

mod names;
mod server;
mod transports;

use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Name, RData};

use super::*;
use server::{FakeDns, SERVICE, Zone};

fn names(membership: &Membership) -> Vec<&str> {
    membership.endpoints().iter().map(|endpoint| endpoint.id().host()).collect()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// docs/discovery.md, rows 1 and 11: with the TTL, and with addresses if the server adds them.
#[tokio::test]
async fn pods_are_listed() {
    let dns = FakeDns::with_pods(3).await;
    let discovery = dns.discovery();
    let found = discovery.discover().await.unwrap();
    let host = |pod: u8| format!("mc-{pod}.mc.default.svc.cluster.local");
    assert_eq!(names(&found), [host(0), host(1), host(2)]);
    assert_eq!(found.ttl(), Some(Duration::from_secs(5)));
    assert!(found.endpoints().iter().all(|endpoint| endpoint.addresses().is_empty()));

    dns.set(|zone| zone.glue = true);
    let found = discovery.discover().await.unwrap();
    assert_eq!(found.endpoints()[2].addresses(), ips(&["10.0.0.3"]), "there is no cache");
}

/// docs/discovery.md, rows 12 and 37: by an absolute name.
#[tokio::test]
async fn hosts_are_looked_up() {
    let dns = FakeDns::with_pods(2).await;
    let discovery = dns.discovery();
    let host = "mc-1.mc.default.svc.cluster.local";
    assert_eq!(discovery.resolve(host).await.unwrap().addresses(), ips(&["10.0.0.2"]));
    let mut queries = dns.take_queries();
    queries.sort();
    assert_eq!(queries, [format!("A {host}. udp"), format!("AAAA {host}. udp")]);
    discovery.resolve(host).await.unwrap();
    assert_eq!(dns.take_queries(), [format!("A {host}. udp")], "the host has no IPv6 address");
    dns.set(|zone| zone.v6_only = true);
    assert_eq!(discovery.resolve(host).await.unwrap().addresses(), ips(&["fd00::2"]));

    let error = discovery.resolve("mc-9.mc.default.svc.cluster.local").await.unwrap_err();
    assert!(error.is_no_such_host() && error.to_string().contains("mc-9.mc"), "{error}");
    let DiscoveryError::NoSuchHost { negative_ttl, .. } = error else { panic!("{error}") };
    assert_eq!(negative_ttl, Some(Duration::from_secs(7)), "the minimum of the SOA, which is less than its TTL");
}

/// docs/discovery.md, rows 3, 13 and 30.
#[tokio::test]
async fn a_missing_name_is_explained() {
    let dns = FakeDns::with_pods(0).await;
    let error = dns.discovery().discover().await.unwrap_err();
    assert!(matches!(error, DiscoveryError::Empty { nxdomain: true, .. }), "{error}");
    assert!(error.to_string().ends_with("is ready: SRV mc.default.svc.cluster.local."), "{error}");

    let error = dns.discovery().port_name("memcached").discover().await.unwrap_err();
    let text = error.to_string();
    assert!(error.is_empty() && text.contains("SRV _memcached._tcp.mc.default.svc.cluster.local."), "{text}");
    assert!(text.contains("port is named `memcached`") && text.contains("bare name"), "{text}");
}

/// docs/discovery.md, row 15: NODATA is not NXDOMAIN.
#[tokio::test]
async fn a_name_without_records_is_empty() {
    let dns = FakeDns::with_pods(2).await;
    let pod = SrvDiscovery::new(format!("mc-0.{SERVICE}")).nameservers([dns.address]);
    let error = pod.discover().await.unwrap_err();
    assert!(matches!(error, DiscoveryError::Empty { nxdomain: false, .. }), "{error}");
}

/// docs/discovery.md, rows 16 and 18.
#[tokio::test]
async fn dns_error_codes_are_errors_that_name_the_code() {
    let dns = FakeDns::with_pods(2).await;
    let discovery = dns.discovery();
    for (code, text) in [
        (ResponseCode::ServFail, "the DNS server answered SERVFAIL"),
        (ResponseCode::Refused, "the DNS server answered REFUSED: it may not serve this name, or not to this client"),
    ] {
        dns.set(|zone| zone.code = Some(code));
        assert_eq!(discovery.discover().await.unwrap_err().to_string(), text);
        assert!(!discovery.resolve("mc-0.mc.default.svc.cluster.local").await.unwrap_err().is_no_such_host());
    }
    dns.set(|zone| zone.code = None);
    assert_eq!(discovery.discover().await.unwrap().endpoints().len(), 2);
}

#[tokio::test]
async fn invalid_names_are_configuration_errors() {
    for name in ["", ".", "a..b", &"x".repeat(300)] {
        let discovery = SrvDiscovery::new(name).nameservers(["127.0.0.1:1".parse().unwrap()]);
        assert!(matches!(discovery.discover().await, Err(DiscoveryError::Config(_))), "{name:?}");
    }
}

#[derive(Debug, Clone, Default)]
struct Log(std::sync::Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// docs/discovery.md, rows 29, 38 and 58: not with every poll.
#[tokio::test]
async fn each_warning_is_logged_once() {
    let log = Log::default();
    let writer = {
        let log = log.clone();
        move || log.clone()
    };
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(writer).finish();
    // For this thread, and the test runs on one.
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut records: Vec<_> =
        (1..4).map(|pod| server::srv(SERVICE, 11211, &format!("10-0-0-{pod}.{SERVICE}"))).collect();
    records.push(server::srv(SERVICE, 9150, &format!("10-0-0-1.{SERVICE}")));
    records.push(server::srv(SERVICE, 11211, SERVICE));
    let mut invalid = server::srv(SERVICE, 11211, SERVICE);
    let target = Name::from_labels([&b"a b"[..]]).unwrap();
    invalid.data = RData::SRV(SRV::new(0, 0, 11211, target));
    records.push(invalid);
    let dns = FakeDns::new(Zone { records, ..Zone::default() }).await;
    let discovery = dns.discovery();
    for _ in 0..5 {
        assert_eq!(discovery.discover().await.unwrap().endpoints().len(), 4);
    }
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let warnings: Vec<_> = text.lines().filter(|line| line.contains("WARN")).collect();
    for warning in ["named after their addresses", "several ports, using 11211", "is not headless", "no host name"] {
        assert_eq!(warnings.iter().filter(|line| line.contains(warning)).count(), 1, "{warning}: {text}");
    }
    assert_eq!(warnings.len(), 4, "{text}");
}
