//! The command line.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lexopt::prelude::*;
use memring::{DiscoveryOptions, NodeId};

pub(crate) const HELP: &str = "\
Tests a memcached service through memring: finds its nodes, writes and reads keys, and checks every value.

Usage: smoke [OPTIONS]

Without --service or --nodes, smoke starts a service of its own: three pods and a DNS server in this process. It adds a
pod, restarts one at another address, makes one unready, stops DNS and removes a pod. Each step prints the expected and
the actual results.

Service:
      --memcached               use memcached processes as the pods of the own service (MEMCACHED is the program)
      --service NAME            test this headless service, for example memcached.default.svc.cluster.local
      --nameserver IP[:PORT]    query this DNS server instead of the system's; can be repeated
      --port-name NAME          use the service port of this name
      --nodes HOST:PORT,...     test these servers, without discovery

Load (the second default is for the own service):
      --keys N                  number of keys [10000]
      --value-size BYTES        size of each value; at least the key and a number [100]
      --concurrency N           number of concurrent operations [16]
      --timeout MS              timeout of each operation [250; 1000]
      --removal-grace MS        how long a node keeps its keys after DNS stops listing it [120000; 3000]
      --poll-min MS             shortest interval between DNS polls [5000; 200]
      --poll-max MS             longest interval between DNS polls [15000; 500]
      --prefix TEXT             prefix of all keys; no other program may use it [unique to this run]
      --watch SECONDS           then run a load of nine gets to one set and print a line per second; Ctrl-C ends it
      --rate N                  limit of operations per second under --watch [none]

Output:
      --json                    print one JSON object per line
      --log FILTER              log to standard error, for example memring=info (or set RUST_LOG)
  -h, --help                    print this text

If this machine stalls while a run against the own service fails, smoke repeats the run, up to three runs in all.

Items expire after an hour. Exit status: 0 on success, 1 on failure, 2 for invalid arguments. With --watch, success
means no wrong value and no second without an operation; on the own service, all steps must pass too.";

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
    /// A service that this process starts.
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
    /// Parses the arguments. Returns `None` for `--help`.
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
        given.resolve().map(Some)
    }

    pub(crate) fn discovery(&self) -> DiscoveryOptions {
        DiscoveryOptions::default().poll_interval(self.poll_min, self.poll_max).removal_grace(self.removal_grace)
    }

    /// Returns the longest interval between two successful polls. Jitter adds up to a tenth.
    pub(crate) fn longest_poll(&self) -> Duration {
        self.poll_max.mul_f64(1.1)
    }
}

/// The options as given, before defaults.
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
    /// Checks the options against each other, and fills in the defaults.
    fn resolve(self) -> Result<Options, lexopt::Error> {
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
            _ => return Err("--service, --nodes and --memcached exclude each other".into()),
        };
        // Our own service changes quickly, and may share a small machine with all of its pods.
        let ms = |own, real| Duration::from_millis(if target.is_own() { own } else { real });
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
            prefix: self.prefix.unwrap_or_else(unique_prefix),
            watch: self.watch,
            rate: self.rate,
            json: self.json,
            log: self.log.or_else(|| std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty())),
            target,
        })
    }
}

/// Returns a prefix that no other run uses, so that a read never finds the value of another run.
fn unique_prefix() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("smoke:{:x}-{:x}", now.as_millis(), std::process::id())
}

fn count<T: FromStr + TryFrom<u64>>(parser: &mut lexopt::Parser, option: &str, max: u64) -> Result<T, lexopt::Error> {
    let value = parser.value()?.string()?;
    let number: Option<u64> = value.parse().ok().filter(|number| (1..=max).contains(number));
    let number = number.and_then(|number| T::try_from(number).ok());
    number.ok_or_else(|| format!("{option} {value}: not a number from 1 to {max}").into())
}

fn millis(parser: &mut lexopt::Parser, option: &str, min: u64) -> Result<Duration, lexopt::Error> {
    // Ten years, so that no sum of durations overflows.
    const MAX: u64 = 10 * 365 * 86_400_000;
    let value = parser.value()?.string()?;
    let number = value.parse().ok().filter(|number| (min..=MAX).contains(number));
    let number = number.ok_or_else(|| format!("{option} {value}: not a number of milliseconds of at least {min}"))?;
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
    if nodes.is_empty() { Err("--nodes: no nodes in the list".into()) } else { Ok(nodes) }
}

fn prefix(prefix: String) -> Result<String, lexopt::Error> {
    // Keys are the prefix, a colon and a number.
    match memring::Key::new(format!("{prefix}:12345678")) {
        Ok(_) => Ok(prefix),
        Err(error) => Err(format!("--prefix {prefix}: not a valid key prefix: {error}").into()),
    }
}
