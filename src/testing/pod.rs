//! The public description of a pod, and the server that runs in it.

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::embedded::Embedded;
use super::memcached::Memcached;

/// A snapshot of one pod of a [`Service`](super::Service).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pod {
    /// The stable DNS name, without a trailing dot: `memcached-0.memcached.default.svc.cluster.local`.
    pub fqdn: String,
    /// The address the server listens on, or listened on before it was killed.
    pub addr: SocketAddr,
    /// Whether DNS lists the pod.
    pub ready: bool,
    /// Whether the server process or task exists, paused or not.
    pub running: bool,
    /// Whether the server is paused.
    pub paused: bool,
}

/// The kind of server that runs in the pods.
#[derive(Debug, Clone)]
pub(super) enum ServerKind {
    Embedded,
    Memcached { program: PathBuf, args: Vec<OsString> },
}

impl ServerKind {
    pub(super) async fn start(&self, addr: SocketAddr) -> io::Result<Server> {
        match self {
            Self::Embedded => Ok(Server::Embedded(Embedded::start(addr).await?)),
            Self::Memcached { program, args } => {
                Ok(Server::Memcached(Memcached::spawn(program, args, addr).await?.into()))
            }
        }
    }
}

/// A running server, which ends when this is dropped.
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
