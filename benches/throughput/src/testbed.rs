//! The servers of a run: directly, through a relay, and those of another memcached.

use std::net::SocketAddr;

use crate::Outcome;
use crate::cells::{Part, Route};
use crate::data::Dataset;
use crate::options::Options;
use crate::relay::Relay;
use crate::servers::Servers;

#[derive(Debug)]
pub(crate) struct Testbed {
    servers: Servers,
    direct: Vec<SocketAddr>,
    relay: Option<Relay>,
    /// The servers of `--against`, and their addresses.
    against: Option<(Servers, Vec<SocketAddr>)>,
}

impl Testbed {
    pub(crate) fn new(options: &Options) -> Outcome<Self> {
        let servers = Servers::start(&options.memcached)?;
        let direct = servers.addrs();
        let relay = options.wants(Part::Relay).then(|| Relay::start(&direct)).transpose()?;
        let against = match options.against.as_ref().filter(|_| options.wants(Part::Against)) {
            Some(program) => {
                let others = Servers::start(program)?;
                let addrs = others.addrs();
                Some((others, addrs))
            }
            None => None,
        };
        Ok(Self { servers, direct, relay, against })
    }

    /// Returns the version of the servers, and of the servers of `--against`.
    pub(crate) fn versions(&self) -> Outcome<(String, Option<String>)> {
        let against = self.against.as_ref().map(|(others, _)| others.version()).transpose()?;
        Ok((self.servers.version()?, against))
    }

    /// Stores the items on every server.
    pub(crate) fn fill(&self, data: &Dataset) -> Outcome<()> {
        self.servers.fill(data)?;
        self.against.as_ref().map_or(Ok(()), |(others, _)| others.fill(data))
    }

    pub(crate) fn nodes(&self, route: Route) -> &[SocketAddr] {
        match route {
            Route::Direct => &self.direct,
            Route::Relayed => self.relay.as_ref().map_or(&[], Relay::addrs),
            Route::Against => self.against.as_ref().map_or(&[], |(_, addrs)| addrs),
        }
    }
}
