//! A service whose pods come, move and leave, and a client that follows it through each DNS server. The pods are
//! embedded ones of the test kit.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use memring::testing::Service;
use memring::{Client, DiscoveryOptions, SrvDiscovery};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::RwLockReadGuard;
use tokio::task::block_in_place;

use crate::MACHINE;
use crate::server::{ALIAS, DnsServer, Listed, SERVICE, Software};

const MINUTE: Duration = Duration::from_secs(60);

/// The longest time from a DNS change until the client has followed it. The TTL of a second, the poll and its spacing
/// take two seconds, and the rest is for a loaded machine.
const FOLLOW_LIMIT: Duration = Duration::from_secs(10);

/// A service, and the DNS server that lists its pods.
struct Cluster {
    service: Service,
    dns: DnsServer,
    _machine: RwLockReadGuard<'static, ()>,
}

impl Cluster {
    async fn start(software: Software, pods: usize) -> Option<Self> {
        let machine = MACHINE.read().await;
        let service = Service::start(pods).await.unwrap();
        let dns = block_in_place(|| DnsServer::start_or_skip(software, &listed(&service)))?;
        Some(Self { service, dns, _machine: machine })
    }

    async fn scale(&mut self, pods: usize) -> Instant {
        self.service.scale(pods).await.unwrap();
        self.publish(&listed(&self.service))
    }

    fn publish(&mut self, pods: &[Listed]) -> Instant {
        block_in_place(|| self.dns.publish(pods))
    }

    async fn client(&self, name: &str) -> Client {
        let options = DiscoveryOptions::default()
            .poll_interval(Duration::from_millis(100), Duration::from_millis(300))
            .removal_grace(Duration::from_millis(500))
            .mass_removal_hold(Duration::from_millis(500));
        let source = SrvDiscovery::new(name).nameservers([self.dns.addr()]);
        Client::builder().service(source).discovery_options(options).connect().await.unwrap()
    }

    /// Asserts that the client uses all pods and no other, and that each stores its own keys.
    async fn assert_each_pod_serves(&self, cache: &Client) {
        let mut hosts: Vec<_> = cache.topology().nodes.iter().map(|node| node.id.host().to_owned()).collect();
        let mut pods = listed(&self.service);
        hosts.sort();
        pods.sort();
        assert!(hosts.iter().eq(pods.iter().map(|(host, _)| host)), "{hosts:?} {pods:?}");
        for (host, addr) in pods {
            eventually(&format!("{host} serves"), async || serves(cache, &host, addr).await).await;
        }
    }
}

fn listed(service: &Service) -> Vec<Listed> {
    service.pods().into_iter().filter(|pod| pod.ready).map(|pod| (pod.fqdn, pod.addr)).collect()
}

/// Returns whether a value that the client stores in this node is at this address.
async fn serves(cache: &Client, host: &str, addr: SocketAddr) -> bool {
    let mut keys = (0..).map(|n| format!("{host}-{n}"));
    let key = keys.find(|key| cache.node_for(key).unwrap().host() == host).unwrap();
    let value = format!("{:032x}", fastrand::u128(..));
    cache.set(&key, value.clone(), MINUTE).await.is_ok() && stored(addr, &key).await.contains(&value)
}

/// Gets a key from a server, not through a client.
async fn stored(addr: SocketAddr, key: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(format!("get {key}\r\nquit\r\n").as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply
}

async fn eventually(condition: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < FOLLOW_LIMIT, "not within {FOLLOW_LIMIT:?}: {condition}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn pods_are_followed(software: Software) {
    let Some(mut cluster) = Cluster::start(software, 3).await else { return };
    let cache = cluster.client(SERVICE).await;
    cluster.assert_each_pod_serves(&cache).await;

    for pods in [5, 2] {
        let published = cluster.scale(pods).await;
        eventually(&format!("{pods} nodes"), async || cache.topology().nodes.len() == pods).await;
        eprintln!("{software:?}: {pods} nodes {:?} after the DNS change", published.elapsed());
        cluster.assert_each_pod_serves(&cache).await;
    }

    let Some(addr) = cluster.service.restart_at_new_address(1).await.unwrap() else { return };
    let published = cluster.publish(&listed(&cluster.service));
    let (host, _) = &listed(&cluster.service)[1];
    eventually("the moved pod serves", async || serves(&cache, host, addr).await).await;
    eprintln!("{software:?}: a moved pod serves {:?} after the DNS change", published.elapsed());
    cluster.assert_each_pod_serves(&cache).await;
}

/// The service is found by an alias, and followed by it.
async fn an_alias_is_followed(software: Software) {
    let Some(mut cluster) = Cluster::start(software, 2).await else { return };
    let cache = cluster.client(ALIAS).await;
    cluster.assert_each_pod_serves(&cache).await;
    cluster.scale(4).await;
    eventually("4 nodes", async || cache.topology().nodes.len() == 4).await;
    cluster.assert_each_pod_serves(&cache).await;
}

/// The answer needs TCP, and some servers send no glue with it.
async fn a_hundred_and_twenty_pods_are_used(software: Software) {
    let Some(mut cluster) = Cluster::start(software, 120).await else { return };
    let start = Instant::now();
    let cache = cluster.client(SERVICE).await;
    cluster.assert_each_pod_serves(&cache).await;
    eprintln!("{software:?}: 120 pods serve {:?} after the start", start.elapsed());

    let Some(addr) = cluster.service.restart_at_new_address(60).await.unwrap() else { return };
    let published = cluster.publish(&listed(&cluster.service));
    let (host, _) = &listed(&cluster.service)[60];
    eventually("the moved pod serves", async || serves(&cache, host, addr).await).await;
    eprintln!("{software:?}: one of 120 pods serves {:?} after the DNS change", published.elapsed());
    cluster.assert_each_pod_serves(&cache).await;
}

/// The old address of a moved pod belongs to another memcached now, which answers.
async fn a_reused_address_is_left(software: Software) {
    let Some(mut cluster) = Cluster::start(software, 3).await else { return };
    let cache = cluster.client(SERVICE).await;
    cluster.assert_each_pod_serves(&cache).await;
    let other = Service::start(1).await.unwrap();
    let mut pods = listed(&cluster.service);
    pods[1].1 = other.pods()[0].addr;
    if pods[1].1.port() != pods[0].1.port() {
        return eprintln!("SKIPPED: a reused address: another process listens on the port at all addresses");
    }
    let published = cluster.publish(&pods);
    let (host, addr) = &pods[1];
    eventually("the moved pod serves", async || serves(&cache, host, *addr).await).await;
    eprintln!("{software:?}: a pod with a reused address serves {:?} after the DNS change", published.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_followed_through_knot() {
    pods_are_followed(Software::Knot).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_followed_through_bind() {
    pods_are_followed(Software::Bind).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_followed_through_unbound() {
    pods_are_followed(Software::Unbound).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_followed_through_dnsmasq() {
    pods_are_followed(Software::Dnsmasq).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alias_is_followed_through_knot() {
    an_alias_is_followed(Software::Knot).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alias_is_followed_through_bind() {
    an_alias_is_followed(Software::Bind).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alias_is_followed_through_unbound() {
    an_alias_is_followed(Software::Unbound).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alias_is_followed_through_dnsmasq() {
    an_alias_is_followed(Software::Dnsmasq).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_and_twenty_pods_are_used_through_knot() {
    a_hundred_and_twenty_pods_are_used(Software::Knot).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_and_twenty_pods_are_used_through_bind() {
    a_hundred_and_twenty_pods_are_used(Software::Bind).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_and_twenty_pods_are_used_through_unbound() {
    a_hundred_and_twenty_pods_are_used(Software::Unbound).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_and_twenty_pods_are_used_through_dnsmasq() {
    a_hundred_and_twenty_pods_are_used(Software::Dnsmasq).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reused_address_is_left_through_knot() {
    a_reused_address_is_left(Software::Knot).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reused_address_is_left_through_bind() {
    a_reused_address_is_left(Software::Bind).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reused_address_is_left_through_unbound() {
    a_reused_address_is_left(Software::Unbound).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reused_address_is_left_through_dnsmasq() {
    a_reused_address_is_left(Software::Dnsmasq).await;
}
