//! Faults of some queries only, late replies, closed transports, and the log of queries.

use std::time::Instant;

use super::*;

const POD: &str = "memcached-0.memcached.default.svc.cluster.local.";

async fn code(addr: SocketAddr, name: &str, kind: RecordType) -> ResponseCode {
    ask(addr, name, kind).await.metadata.response_code
}

#[tokio::test]
async fn a_fault_of_one_name_or_type_leaves_the_others_alone() {
    let (service, _) = service(2).await;
    let dns = service.dns();
    let addr = dns.addr();
    dns.set_fault_for(DnsFilter::all().name(POD.to_uppercase()), DnsFault::NxDomain);
    assert_eq!(code(addr, POD, RecordType::A).await, ResponseCode::NXDomain);
    assert_eq!(code(addr, POD, RecordType::AAAA).await, ResponseCode::NXDomain);
    assert_eq!(ask(addr, &POD.replace("-0", "-1"), RecordType::A).await.answers.len(), 1);
    assert_eq!(ask(addr, NAME, RecordType::SRV).await.answers.len(), 2);

    // The last fault that matches decides.
    dns.set_fault_for(DnsFilter::all().record_type(DnsRecordType::A), DnsFault::ServFail);
    assert_eq!(code(addr, POD, RecordType::A).await, ResponseCode::ServFail);
    assert_eq!(code(addr, POD, RecordType::AAAA).await, ResponseCode::NXDomain);
    assert_eq!(ask(addr, NAME, RecordType::SRV).await.answers.len(), 2);
    dns.set_fault_for(DnsFilter::all().name(POD.trim_end_matches('.')), DnsFault::Silent);
    assert!(ask_udp(addr, POD, RecordType::A, NO_REPLY_WAIT).await.is_none());

    // A fault of all queries replaces them.
    dns.set_fault(DnsFault::Refused);
    for name in [POD, NAME] {
        assert_eq!(code(addr, name, RecordType::A).await, ResponseCode::Refused);
    }
    dns.clear_faults();
    assert_eq!(ask(addr, POD, RecordType::A).await.answers.len(), 1);
}

#[tokio::test]
async fn udp_is_dropped_while_tcp_works_and_the_other_way_round() {
    let (service, _) = service(2).await;
    let dns = service.dns();
    dns.set_fault_for(DnsFilter::all().udp(), DnsFault::Silent);
    assert!(ask_udp(dns.addr(), NAME, RecordType::SRV, NO_REPLY_WAIT).await.is_none());
    assert_eq!(ask_tcp(dns.addr(), NAME, RecordType::SRV, TEST_TIMEOUT).await.unwrap().answers.len(), 2);

    dns.clear_faults();
    dns.set_fault_for(DnsFilter::all().tcp(), DnsFault::Silent);
    assert!(ask_tcp(dns.addr(), NAME, RecordType::SRV, NO_REPLY_WAIT).await.is_none());
    assert_eq!(ask(dns.addr(), NAME, RecordType::SRV).await.answers.len(), 2);
}

#[tokio::test]
async fn only_the_first_datagrams_are_dropped() {
    let (service, _) = service(1).await;
    let dns = service.dns();
    dns.set_fault_for(DnsFilter::all().udp().first(2), DnsFault::Silent);
    // A query over TCP is none of them.
    assert!(ask_tcp(dns.addr(), NAME, RecordType::SRV, TEST_TIMEOUT).await.is_some());
    for _ in 0..2 {
        assert!(ask_udp(dns.addr(), NAME, RecordType::SRV, NO_REPLY_WAIT).await.is_none());
    }
    assert_eq!(ask(dns.addr(), NAME, RecordType::SRV).await.answers.len(), 1);
}

#[tokio::test]
async fn late_replies_do_not_hold_up_others_and_can_be_errors() {
    const DELAY: Duration = Duration::from_millis(600);
    let (service, _) = service(1).await;
    let dns = service.dns();
    dns.set_fault_for(DnsFilter::all().record_type(DnsRecordType::A), DnsFault::Delayed(DELAY));
    dns.set_fault_for(DnsFilter::all().name(POD), DnsFault::ServFail);
    let start = Instant::now();
    let late = async {
        let (over_udp, over_tcp) =
            tokio::join!(ask(dns.addr(), POD, RecordType::A), ask_tcp(dns.addr(), POD, RecordType::A, TEST_TIMEOUT));
        for reply in [over_udp, over_tcp.unwrap()] {
            assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
        }
        start.elapsed()
    };
    let prompt = async {
        ask(dns.addr(), NAME, RecordType::SRV).await;
        start.elapsed()
    };
    let (late, prompt) = tokio::join!(late, prompt);
    assert!(late >= DELAY && prompt < late, "{late:?} {prompt:?}");

    // The last delay decides, also without any delay.
    dns.set_fault_for(DnsFilter::all(), DnsFault::Delayed(Duration::ZERO));
    assert_eq!(code(dns.addr(), POD, RecordType::A).await, ResponseCode::ServFail);
}

#[tokio::test]
async fn a_closed_transport_refuses_at_once_while_the_other_works() {
    let (service, _) = service(1).await;
    let dns = service.dns();
    dns.stop_tcp().await;
    assert_eq!(TcpStream::connect(dns.addr()).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(ask(dns.addr(), NAME, RecordType::SRV).await.answers.len(), 1);
    dns.start().await.unwrap();
    dns.stop_udp().await;
    assert!(ask_udp(dns.addr(), NAME, RecordType::SRV, NO_REPLY_WAIT).await.is_none());
    assert!(ask_tcp(dns.addr(), NAME, RecordType::SRV, TEST_TIMEOUT).await.is_some());
    dns.start().await.unwrap();
    assert_eq!(ask(dns.addr(), NAME, RecordType::SRV).await.answers.len(), 1);

    // The server may also accept a connection and then close it.
    dns.set_fault_for(DnsFilter::all().tcp(), DnsFault::Closed);
    let start = Instant::now();
    assert!(ask_tcp(dns.addr(), NAME, RecordType::SRV, TEST_TIMEOUT).await.is_none());
    assert!(start.elapsed() < TEST_TIMEOUT);
}

#[tokio::test]
async fn the_log_tells_when_which_name_was_asked_for() {
    let (service, _) = service(1).await;
    let dns = service.dns();
    let start = Instant::now();
    dns.set_fault_for(DnsFilter::all().udp().first(1), DnsFault::Silent);
    ask_udp(dns.addr(), NAME, RecordType::SRV, NO_REPLY_WAIT).await;
    ask(dns.addr(), &POD.to_uppercase(), RecordType::A).await;
    ask_tcp(dns.addr(), POD, RecordType::AAAA, TEST_TIMEOUT).await;

    let (service_name, pod) = (service.name(), &*service.pods()[0].fqdn);
    let log = dns.query_log();
    let logged: Vec<_> = log.iter().map(|query| (&*query.name, query.record_type, query.tcp)).collect();
    let (srv, a, aaaa) = (DnsRecordType::Srv, DnsRecordType::A, DnsRecordType::Aaaa);
    assert_eq!(logged, [(service_name, srv, false), (pod, a, false), (pod, aaaa, true)]);
    assert!(log.is_sorted_by_key(|query| query.at));
    assert!(log.iter().all(|query| query.at >= start && query.at <= Instant::now()));
    let of_pod = dns.queries_for(POD);
    assert_eq!((of_pod.total, of_pod.a, of_pod.aaaa, of_pod.tcp), (2, 1, 1, 1));
    assert_eq!((dns.queries_for("other").total, dns.queries().total), (0, 3));
}

#[tokio::test]
async fn a_reply_over_64_kib_is_truncated_over_tcp_as_well() {
    let (service, _) = service(1).await;
    let dns = service.dns();
    // The names cannot be compressed, because they have no suffix in common.
    let target = |pod: usize| format!("{}.{pod}", "x".repeat(60));
    dns.set_srv((0..900).map(|pod| SrvRecord::new(0, 1, 11211, target(pod)))).unwrap();
    let reply = ask_tcp(dns.addr(), NAME, RecordType::SRV, TEST_TIMEOUT).await.unwrap();
    assert!(reply.metadata.truncation);
    assert!((100..900).contains(&reply.answers.len()), "{}", reply.answers.len());

    // Glue counts as well: all records fit, and their addresses do not.
    dns.set_srv((0..400).map(|pod| SrvRecord::new(0, 1, 11211, target(pod)))).unwrap();
    for pod in 0..400 {
        dns.set_host(&target(pod), (1..5).map(|last| Ipv4Addr::new(127, 9, 9, last).into())).unwrap();
    }
    let reply = ask_tcp(dns.addr(), NAME, RecordType::SRV, TEST_TIMEOUT).await.unwrap();
    assert_eq!((reply.metadata.truncation, reply.answers.len()), (true, 400));
}
