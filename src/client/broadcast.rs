//! Commands for every node at once: each answers for itself.

use std::time::Duration;

use super::Client;
use crate::error::{Error, ErrorKind};
use crate::node_id::NodeId;
use crate::protocol::{Reply, Request};
use crate::ttl::MAX_RELATIVE;

impl Client {
    /// Asks every node for its version; each answers for itself, by the one deadline. Empty while no nodes are known, and
    /// after [`shutdown`](Self::shutdown).
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

    /// Deletes every item on every node, whatever its [namespace](Client::namespace); each answers for itself, by the one
    /// deadline. Empty while no nodes are known, and
    /// after [`shutdown`](Self::shutdown): nothing is deleted then.
    pub async fn flush_all(&self) -> Vec<(NodeId, Result<(), Error>)> {
        self.done_on_every_node(|| Request::FlushAll { delay: 0 }).await
    }

    /// Deletes what every node holds once `delay` is over, rounded up to whole seconds (at once if it is zero); each
    /// answers for itself. What is written after that moment stays. A server keeps one such order, the last one given; it
    /// counts whole seconds of its own clock, and may be one early.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidTtl`] if the delay is over 30 days, which memcached takes for a moment in 1970. Nothing was sent.
    pub async fn flush_all_after(&self, delay: Duration) -> Result<Vec<(NodeId, Result<(), Error>)>, Error> {
        let seconds = delay.as_secs().saturating_add(u64::from(delay.subsec_nanos() > 0));
        let delay = u32::try_from(seconds)
            .ok()
            .filter(|_| seconds <= MAX_RELATIVE)
            .ok_or_else(|| Error::not_sent(ErrorKind::InvalidTtl).with_message("a delay of more than 30 days"))?;
        Ok(self.done_on_every_node(|| Request::FlushAll { delay }).await)
    }

    /// Sets how much every node writes to its own log: 0 for nothing, 1 for errors, 2 and more for every command; each
    /// answers for itself. Empty while no nodes are known.
    pub async fn set_verbosity(&self, level: u32) -> Vec<(NodeId, Result<(), Error>)> {
        self.done_on_every_node(|| Request::Verbosity { level }).await
    }

    /// Sets how much memory every node may use for items, in MiB, until it restarts; each answers for itself. Empty while
    /// no nodes are known. A limit below what is in use drops items as room is needed. A node that was started with its
    /// memory preallocated refuses, and so does one that is asked for less than its smallest (8 MiB), as one from before
    /// the command does: [`ErrorKind::Server`].
    pub async fn cache_memlimit(&self, megabytes: u32) -> Vec<(NodeId, Result<(), Error>)> {
        self.done_on_every_node(|| Request::CacheMemlimit { megabytes }).await
    }

    pub(super) async fn done_on_every_node(&self, request: impl Fn() -> Request) -> Vec<(NodeId, Result<(), Error>)> {
        let replies = self.operations().dispatcher().broadcast(request, self.deadline()).await.into_iter();
        replies.map(|(id, reply)| (id, reply.map(|_| ()))).collect()
    }
}
