//! Commands for every node at once, with a result for each node.

use std::time::Duration;

use super::Client;
use crate::error::{Error, ErrorKind};
use crate::node_id::NodeId;
use crate::protocol::{Reply, Request};
use crate::ttl::MAX_RELATIVE;

impl Client {
    /// Returns the version of every node, all by one deadline. Empty while no nodes are known, and after
    /// [`shutdown`](Self::shutdown).
    pub async fn versions(&self) -> Vec<(NodeId, Result<String, Error>)> {
        let replies = self.operations().dispatcher().broadcast(|| Request::Version, self.deadline()).await.into_iter();
        replies
            .map(|(id, reply)| {
                let version = reply.map(|reply| match reply {
                    Reply::Version(version) => version.into_string(),
                    _ => String::new(),
                });
                (id, version)
            })
            .collect()
    }

    /// Deletes all items of every node, in all [namespaces](Client::namespace). Returns a result for each node, all by
    /// one deadline.
    ///
    /// Deletes nothing, and returns no results, while no nodes are known and after [`shutdown`](Self::shutdown).
    pub async fn flush_all(&self) -> Vec<(NodeId, Result<(), Error>)> {
        self.broadcast(|| Request::FlushAll { delay: 0 }).await
    }

    /// Deletes all items of every node after `delay`, rounded up to whole seconds. Returns a result for each node.
    ///
    /// Items written after that time stay. A server keeps only the last such command. It counts whole seconds of its
    /// own clock and may be one second early. A delay of zero deletes at once.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidTtl`] if the delay is over 30 days, which memcached would take for a time in 1970. Nothing
    /// was sent.
    pub async fn flush_all_after(&self, delay: Duration) -> Result<Vec<(NodeId, Result<(), Error>)>, Error> {
        let seconds = delay.as_secs().saturating_add(u64::from(delay.subsec_nanos() > 0));
        let delay = u32::try_from(seconds)
            .ok()
            .filter(|_| seconds <= MAX_RELATIVE)
            .ok_or_else(|| Error::not_sent(ErrorKind::InvalidTtl).with_message("a delay of more than 30 days"))?;
        Ok(self.broadcast(|| Request::FlushAll { delay }).await)
    }

    /// Sets the log level of every node: 0 for nothing, 1 for errors, 2 and more for every command. Returns a result
    /// for each node, none while no nodes are known.
    pub async fn set_verbosity(&self, level: u32) -> Vec<(NodeId, Result<(), Error>)> {
        self.broadcast(|| Request::Verbosity { level }).await
    }

    /// Sets how much memory every node may use for items, in MiB, until it restarts. Returns a result for each node,
    /// none while no nodes are known.
    ///
    /// A limit below the memory in use evicts items as space is needed. The result is [`ErrorKind::Server`] from a node
    /// that preallocates its memory, for a limit below memcached's smallest (8 MiB), and from a node too old for the
    /// command.
    pub async fn cache_memlimit(&self, megabytes: u32) -> Vec<(NodeId, Result<(), Error>)> {
        self.broadcast(|| Request::CacheMemlimit { megabytes }).await
    }

    pub(super) async fn broadcast(&self, request: impl Fn() -> Request) -> Vec<(NodeId, Result<(), Error>)> {
        let replies = self.operations().dispatcher().broadcast(request, self.deadline()).await.into_iter();
        replies.map(|(id, reply)| (id, reply.map(|_| ()))).collect()
    }
}
