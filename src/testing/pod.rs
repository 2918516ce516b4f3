//! A pod as the tests see it, and the server that runs in it.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::embedded::Embedded;
use super::memcached::Memcached;

/// One pod of a [`Service`](super::Service), as it was when asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pod {
    /// Its stable name, without a trailing dot: `memcached-0.memcached.default.svc.cluster.local`.
    pub fqdn: String,
    /// Where its server listens, or did before it was killed.
    pub addr: SocketAddr,
    /// Whether DNS lists it.
    pub ready: bool,
    /// Whether its server runs, if only paused.
    pub running: bool,
    /// Whether its server is paused.
    pub paused: bool,
}

/// What runs in the pods.
#[derive(Debug, Clone)]
pub(super) enum Engine {
    Embedded,
    Memcached { program: PathBuf, args: Vec<OsString> },
}

impl Engine {
    pub(super) async fn start(&self, addr: SocketAddr) -> io::Result<Server> {
        match self {
            Self::Embedded => Ok(Server::Embedded(Embedded::start(addr).await?)),
            Self::Memcached { program, args } => {
                Ok(Server::Memcached(Memcached::spawn(program, args, addr).await?.into()))
            }
        }
    }
}

/// A running server; dropping it ends it.
#[derive(Debug)]
pub(super) enum Server {
    Embedded(Embedded),
    Memcached(Box<Memcached>),
}

impl Server {
    pub(super) async fn kill(self) -> io::Result<()> {
        match self {
            Self::Embedded(server) => {
                server.kill().await;
                Ok(())
            }
            Self::Memcached(mut server) => server.kill().await,
        }
    }

    pub(super) async fn pause(&self) -> io::Result<()> {
        match self {
            Self::Embedded(server) => {
                server.pause();
                Ok(())
            }
            Self::Memcached(server) => server.pause().await,
        }
    }

    pub(super) async fn resume(&self) -> io::Result<()> {
        match self {
            Self::Embedded(server) => {
                server.resume();
                Ok(())
            }
            Self::Memcached(server) => server.resume().await,
        }
    }
}
