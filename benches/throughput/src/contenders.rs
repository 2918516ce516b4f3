//! The contenders: the raw ceilings, memring, and other clients.

#[cfg(feature = "peers")]
mod async_memcached;
#[cfg(feature = "peers")]
mod memcache_exp;
mod memring;
#[cfg(feature = "peers")]
mod mtop;

use std::net::SocketAddr;

use tokio::runtime::Runtime;

use crate::Outcome;
use crate::meter::{self, Sample};
use crate::raw::{Epoll, Form, Tokio};
use crate::workload::{Op, Work, drive};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// An epoll loop on one thread.
    RawEpoll,
    /// An epoll loop that merges gets into one line per connection.
    RawEpollMerged,
    /// A tokio task per connection.
    RawTokio,
    Memring,
    #[cfg(feature = "peers")]
    AsyncMemcached,
    #[cfg(feature = "peers")]
    MemcacheExp,
    #[cfg(feature = "peers")]
    Mtop,
}

/// The number of connections that a pooling client may keep to each node.
#[cfg(feature = "peers")]
const POOL_SIZE: usize = 16;

impl Kind {
    pub(crate) const ALL: &[Self] = &[
        Self::RawEpoll,
        Self::RawEpollMerged,
        Self::RawTokio,
        Self::Memring,
        #[cfg(feature = "peers")]
        Self::AsyncMemcached,
        #[cfg(feature = "peers")]
        Self::MemcacheExp,
        #[cfg(feature = "peers")]
        Self::Mtop,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RawEpoll => "raw-epoll",
            Self::RawEpollMerged => "raw-epoll-merged",
            Self::RawTokio => "raw-tokio",
            Self::Memring => "memring",
            #[cfg(feature = "peers")]
            Self::AsyncMemcached => "async-memcached",
            #[cfg(feature = "peers")]
            Self::MemcacheExp => "memcache-exp",
            #[cfg(feature = "peers")]
            Self::Mtop => "mtop-client",
        }
    }

    pub(crate) fn is_raw(self) -> bool {
        matches!(self, Self::RawEpoll | Self::RawEpollMerged | Self::RawTokio)
    }

    /// Whether the contender has this operation.
    pub(crate) fn supports(self, op: Op) -> bool {
        match self {
            Self::RawEpollMerged => op == Op::Get,
            #[cfg(feature = "peers")]
            Self::Mtop => op != Op::SetMany,
            _ => true,
        }
    }
}

/// A connected contender.
pub(crate) enum Contender {
    Epoll(Epoll, Form),
    Tokio(Tokio),
    Memring(memring::Memring),
    #[cfg(feature = "peers")]
    AsyncMemcached(async_memcached::AsyncMemcached),
    #[cfg(feature = "peers")]
    MemcacheExp(memcache_exp::MemcacheExp),
    #[cfg(feature = "peers")]
    Mtop(mtop::Mtop),
}

impl Contender {
    pub(crate) fn connect(kind: Kind, nodes: &[SocketAddr], runtime: &Runtime) -> Outcome<Self> {
        Ok(match kind {
            Kind::RawEpoll => Self::Epoll(Epoll::connect(nodes)?, Form::Meta),
            Kind::RawEpollMerged => Self::Epoll(Epoll::connect(nodes)?, Form::Lines),
            Kind::RawTokio => Self::Tokio(runtime.block_on(Tokio::connect(nodes))?),
            Kind::Memring => Self::Memring(runtime.block_on(memring::Memring::connect(nodes))?),
            #[cfg(feature = "peers")]
            Kind::AsyncMemcached => Self::AsyncMemcached(async_memcached::AsyncMemcached::connect(nodes)?),
            #[cfg(feature = "peers")]
            Kind::MemcacheExp => Self::MemcacheExp(runtime.block_on(memcache_exp::MemcacheExp::connect(nodes))?),
            #[cfg(feature = "peers")]
            Kind::Mtop => Self::Mtop(mtop::Mtop::connect(nodes, runtime.handle())),
        })
    }

    pub(crate) fn run(&mut self, work: &Work, runtime: &Runtime) -> Outcome<Sample> {
        work.latencies.take();
        let cpu = meter::cpu()?;
        let start = std::time::Instant::now();
        let ops = match self {
            Self::Epoll(epoll, form) => epoll.run(work, *form),
            Self::Tokio(tokio) => runtime.block_on(tokio.run(work, Form::Meta)),
            Self::Memring(client) => runtime.block_on(drive(client, work)),
            #[cfg(feature = "peers")]
            Self::AsyncMemcached(client) => runtime.block_on(drive(client, work)),
            #[cfg(feature = "peers")]
            Self::MemcacheExp(client) => runtime.block_on(drive(client, work)),
            #[cfg(feature = "peers")]
            Self::Mtop(client) => runtime.block_on(drive(client, work)),
        }?;
        let duration = start.elapsed();
        Ok(Sample { ops, duration, cpu: meter::cpu()?.saturating_sub(cpu), latency: work.latencies.take() })
    }
}
