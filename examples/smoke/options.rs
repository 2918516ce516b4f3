//! The command line.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lexopt::prelude::*;
use memring::{DiscoveryOptions, NodeId};

pub(crate) const HELP: &str = "\
Tries memring out: finds the pods of a memcached service, writes and reads keys on them, and checks every value.

Usage: smoke [OPTIONS]

Without --service or --nodes it starts a service of its own, three pods and a DNS server in this process, and takes it
through what happens to one: pods are added, restarted elsewhere, not ready, removed, and DNS fails. Each step says what
is expected and what was seen.

What to try:
      --memcached               the pods of the service started are memcached processes (MEMCACHED names the program)
      --service NAME            the pods of this headless service, as in memcached.default.svc.cluster.local
      --nameserver IP[:PORT]    ask this DNS server instead of the system's; may be given several times
      --port-name NAME          the service's port of this name
      --nodes HOST:PORT,...     these servers, without discovery

How:
      --keys N                  how many keys are used [10000]
      --value-size BYTES        how long each value is, if that has room for the key and a number [100]
      --concurrency N           how many operations are under way at a time [16]
      --timeout MS              the deadline of each operation [250; 1000 with a service of its own]
      --removal-grace MS        how long a pod that has vanished keeps its keys [120000; 3000]
      --poll-min MS             DNS is asked at most that often [5000; 200]
      --poll-max MS             and at least that often [15000; 500]
      --prefix TEXT             what keys begin with, which must be used by nobody else [one that no other run has]
      --watch SECONDS           then keep up a load, nine gets to a set, a line for each second; Ctrl-C ends it
      --rate N                  at most so many operations per second under --watch [as many as it takes]

Output:
      --json                    one JSON object per line
      --log FILTER              log to standard error, as in memring=info (or set RUST_LOG)
  -h, --help                    this text

A service of its own that did badly while this machine stood still is gone through again, three times at the most.

Keys are stored for an hour. Exit status: 0 if all went as it should, 1 if not, 2 if the arguments make no sense. With
--watch, 0 if no wrong value was returned and no second was without an operation (and each step went as expected).";

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) target: Target,
    pub(crate) keys: usize,
    pub(crate) value_size: usize,
    pub(crate) concurrency: usize,
    pub(crate) timeout: Duration,
    pub(crate) removal_grace: Duration,
    pub(crate) poll_min: Duration,
    pub(crate) poll_max: Duration,
    pub(crate) prefix: String,
    pub(crate) watch: Option<u64>,
    pub(crate) rate: Option<u32>,
    pub(crate) json: bool,
    pub(crate) log: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// A service of our own.
    Own {
        memcached: bool,
    },
    Service {
        name: String,
        nameservers: Vec<SocketAddr>,
        port_name: Option<String>,
    },
    Nodes(Vec<String>),
}

impl Target {
    pub(crate) fn is_own(&self) -> bool {
        matches!(self, Self::Own { .. })
    }
}

impl Options {
    /// `None` if help was asked for.
    pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Option<Self>, lexopt::Error> {
        let mut given = Given::default();
        let mut parser = lexopt::Parser::from_args(args);
        while let Some(argument) = parser.next()? {
            match argument {
                Short('h') | Long("help") => return Ok(None),
                Long("memcached") => given.memcached = true,
                Long("service") => given.service = Some(service(&parser.value()?.string()?)?),
                Long("nameserver") => given.nameservers.push(parser.value()?.parse_with(nameserver)?),
                Long("port-name") => given.port_name = Some(parser.value()?.string()?),
                Long("nodes") => given.nodes = Some(nodes(&parser.value()?.string()?)?),
                Long("keys") => given.keys = Some(count(&mut parser, "--keys", 10_000_000)?),
                Long("value-size") => given.value_size = Some(count(&mut parser, "--value-size", 1 << 30)?),
                Long("concurrency") => given.concurrency = Some(count(&mut parser, "--concurrency", 100_000)?),
                Long("timeout") => given.timeout = Some(millis(&mut parser, "--timeout", 1)?),
                Long("removal-grace") => given.removal_grace = Some(millis(&mut parser, "--removal-grace", 0)?),
                Long("poll-min") => given.poll_min = Some(millis(&mut parser, "--poll-min", 1)?),
                Long("poll-max") => given.poll_max = Some(millis(&mut parser, "--poll-max", 1)?),
                Long("prefix") => given.prefix = Some(prefix(parser.value()?.string()?)?),
                Long("watch") => given.watch = Some(count(&mut parser, "--watch", 1_000_000_000)?),
                Long("rate") => given.rate = Some(count(&mut parser, "--rate", 1_000_000_000)?),
                Long("json") => given.json = true,
                Long("log") => given.log = Some(parser.value()?.string()?),
                other => return Err(other.unexpected()),
            }
        }
        given.settle().map(Some)
    }

    pub(crate) fn discovery(&self) -> DiscoveryOptions {
        DiscoveryOptions::default().poll_interval(self.poll_min, self.poll_max).removal_grace(self.removal_grace)
    }

    /// The longest time between two polls that answer: intervals get up to a tenth longer at random.
    pub(crate) fn longest_poll(&self) -> Duration {
        self.poll_max.mul_f64(1.1)
    }
}

/// What was said on the command line, before anything is made of it.
#[derive(Debug, Default)]
struct Given {
    memcached: bool,
    service: Option<String>,
    nameservers: Vec<SocketAddr>,
    port_name: Option<String>,
    nodes: Option<Vec<String>>,
    keys: Option<usize>,
    value_size: Option<usize>,
    concurrency: Option<usize>,
    timeout: Option<Duration>,
    removal_grace: Option<Duration>,
    poll_min: Option<Duration>,
    poll_max: Option<Duration>,
    prefix: Option<String>,
    watch: Option<u64>,
    rate: Option<u32>,
    json: bool,
    log: Option<String>,
}

impl Given {
    fn settle(self) -> Result<Options, lexopt::Error> {
        if self.service.is_none() && (!self.nameservers.is_empty() || self.port_name.is_some()) {
            return Err("--nameserver and --port-name need --service".into());
        }
        if self.rate.is_some() && self.watch.is_none() {
            return Err("--rate needs --watch".into());
        }
        let target = match (self.service, self.nodes, self.memcached) {
            (None, None, memcached) => Target::Own { memcached },
            (Some(name), None, false) => {
                Target::Service { name, nameservers: self.nameservers, port_name: self.port_name }
            }
            (None, Some(nodes), false) => Target::Nodes(nodes),
            _ => return Err("only one of --service, --nodes and --memcached can be tried".into()),
        };
        // A service of its own changes as fast as it is told to, and may share a small machine with all of its pods.
        let ms = |of_its_own, else_| Duration::from_millis(if target.is_own() { of_its_own } else { else_ });
        let (poll_min, poll_max) = match (self.poll_min, self.poll_max) {
            (Some(min), Some(max)) if min > max => return Err("--poll-min is over --poll-max".into()),
            (Some(min), max) => (min, max.unwrap_or_else(|| ms(500, 15_000).max(min))),
            (None, Some(max)) => (ms(200, 5_000).min(max), max),
            (None, None) => (ms(200, 5_000), ms(500, 15_000)),
        };
        Ok(Options {
            keys: self.keys.unwrap_or(10_000),
            value_size: self.value_size.unwrap_or(100),
            concurrency: self.concurrency.unwrap_or(16),
            timeout: self.timeout.unwrap_or_else(|| ms(1_000, 250)),
            removal_grace: self.removal_grace.unwrap_or_else(|| ms(3_000, 120_000)),
            poll_min,
            poll_max,
            prefix: self.prefix.unwrap_or_else(unheard_of),
            watch: self.watch,
            rate: self.rate,
            json: self.json,
            log: self.log.or_else(|| std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty())),
            target,
        })
    }
}

/// Values that another run has left behind are never to be met.
fn unheard_of() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("smoke:{:x}-{:x}", now.as_millis(), std::process::id())
}

fn count<T: FromStr + TryFrom<u64>>(parser: &mut lexopt::Parser, option: &str, most: u64) -> Result<T, lexopt::Error> {
    let value = parser.value()?.string()?;
    let number: Option<u64> = value.parse().ok().filter(|number| (1..=most).contains(number));
    let number = number.and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| format!("{option} {value}: not a number from 1 to {most}").into())
}

fn millis(parser: &mut lexopt::Parser, option: &str, least: u64) -> Result<Duration, lexopt::Error> {
    // Ten years are as good as for ever, and no sum overflows.
    const MOST: u64 = 10 * 365 * 86_400_000;
    let value = parser.value()?.string()?;
    let number = value.parse().ok().filter(|number| (least..=MOST).contains(number));
    let number = number.ok_or_else(|| format!("{option} {value}: not a number of milliseconds from {least} up"))?;
    Ok(Duration::from_millis(number))
}

fn nameserver(text: &str) -> Result<SocketAddr, &'static str> {
    let bare = |text: &str| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
    text.parse().or_else(|_| bare(text)).map_err(|_| "not an IP address, alone or with a port")
}

fn service(name: &str) -> Result<String, lexopt::Error> {
    match NodeId::new(name, 1) {
        Ok(id) if id.ip().is_none() => Ok(name.to_owned()),
        _ => Err(format!("--service {name}: not a DNS name").into()),
    }
}

fn nodes(list: &str) -> Result<Vec<String>, lexopt::Error> {
    let nodes = list.split(',').map(str::trim).filter(|node| !node.is_empty());
    let checked = nodes.map(|node| match node.parse::<NodeId>() {
        Ok(_) => Ok(node.to_owned()),
        Err(error) => Err(lexopt::Error::from(format!("--nodes {node}: {error}"))),
    });
    let nodes: Vec<String> = checked.collect::<Result<_, _>>()?;
    if nodes.is_empty() { Err("--nodes names none".into()) } else { Ok(nodes) }
}

fn prefix(prefix: String) -> Result<String, lexopt::Error> {
    // A colon and a number are yet to come.
    match memring::Key::new(format!("{prefix}:12345678")) {
        Ok(_) => Ok(prefix),
        Err(error) => Err(format!("--prefix {prefix}: makes no key: {error}").into()),
    }
}
