//! Who is measured.

mod memring;

use std::net::SocketAddr;

use tokio::runtime::Runtime;

use crate::Outcome;
use crate::meter::{self, Sample};
use crate::raw::{Epoll, Form, Tokio};
use crate::workload::{Work, drive};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// An epoll loop on one thread.
    RawEpoll,
    /// The same, whose gets are merged into one line per connection.
    RawEpollMerged,
    /// A tokio task for each connection.
    RawTokio,
    Memring,
}

impl Kind {
    pub(crate) const ALL: &[Self] = &[Self::RawEpoll, Self::RawEpollMerged, Self::RawTokio, Self::Memring];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RawEpoll => "raw-epoll",
            Self::RawEpollMerged => "raw-epoll-merged",
            Self::RawTokio => "raw-tokio",
            Self::Memring => "memring",
        }
    }
}

/// Connected and ready.
pub(crate) enum Contender {
    Epoll(Epoll, Form),
    Tokio(Tokio),
    Memring(memring::Memring),
}

impl Contender {
    pub(crate) fn connect(kind: Kind, nodes: &[SocketAddr], runtime: &Runtime) -> Outcome<Self> {
        Ok(match kind {
            Kind::RawEpoll => Self::Epoll(Epoll::connect(nodes)?, Form::Meta),
            Kind::RawEpollMerged => Self::Epoll(Epoll::connect(nodes)?, Form::Lines),
            Kind::RawTokio => Self::Tokio(runtime.block_on(Tokio::connect(nodes))?),
            Kind::Memring => Self::Memring(runtime.block_on(memring::Memring::connect(nodes))?),
        })
    }

    pub(crate) fn run(&mut self, work: &Work, runtime: &Runtime) -> Outcome<Sample> {
        work.latencies.take();
        let cpu = meter::cpu()?;
        let start = std::time::Instant::now();
        let ops = match self {
            Self::Epoll(epoll, form) => epoll.run(work, *form),
            Self::Tokio(tokio) => runtime.block_on(tokio.run(work, Form::Meta)),
            Self::Memring(memring) => runtime.block_on(drive(memring, work)),
        }?;
        let took = start.elapsed();
        Ok(Sample { ops, took, cpu: meter::cpu()?.saturating_sub(cpu), latency: work.latencies.take() })
    }
}
