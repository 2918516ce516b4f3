//! async-memcached. Its client is one connection, so each node gets a deadpool of clients, and a hash chooses the node.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;

use async_memcached::{AsciiProtocol, Client, Error};
use bytes::Bytes;
use deadpool::managed::{Manager, Metrics, Pool, RecycleError, RecycleResult};
use futures_util::future::try_join_all;

use super::POOL_SIZE;
use crate::Outcome;
use crate::data::Key;
use crate::workload::Cache;

#[derive(Clone)]
pub(crate) struct AsyncMemcached {
    nodes: Arc<[Pool<Connector>]>,
}

/// Opens connections for a pool.
pub(crate) struct Connector(SocketAddr);

impl Manager for Connector {
    type Type = Client;
    type Error = Error;

    async fn create(&self) -> Result<Client, Error> {
        Client::new(format!("tcp://{}", self.0)).await
    }

    async fn recycle(&self, client: &mut Client, _: &Metrics) -> RecycleResult<Error> {
        if client.is_closed() { Err(RecycleError::message("closed")) } else { Ok(()) }
    }
}

impl AsyncMemcached {
    pub(crate) fn connect(nodes: &[SocketAddr]) -> Outcome<Self> {
        let pool = |&node| Pool::builder(Connector(node)).max_size(POOL_SIZE).build();
        Ok(Self { nodes: nodes.iter().map(pool).collect::<Result<_, _>>()? })
    }

    fn node(&self, key: &str) -> usize {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        hasher.finish() as usize % self.nodes.len()
    }

    /// Returns the indices of each node's keys.
    fn by_node(&self, keys: &[Key]) -> Vec<Vec<usize>> {
        let mut parts = vec![Vec::new(); self.nodes.len()];
        for (at, key) in keys.iter().enumerate() {
            parts[self.node(key)].push(at);
        }
        parts
    }
}

impl Cache for AsyncMemcached {
    async fn get(&self, key: &str) -> Outcome<Option<impl AsRef<[u8]> + Send>> {
        let mut client = self.nodes[self.node(key)].get().await?;
        Ok(client.get(key).await?.and_then(|value| value.data))
    }

    async fn set(&self, key: &str, value: &Bytes) -> Outcome<()> {
        let mut client = self.nodes[self.node(key)].get().await?;
        Ok(client.set(key, &value[..], None, None).await?)
    }

    async fn get_many(&self, keys: &[Key], check: impl Fn(&str, &[u8]) -> bool + Send + Sync) -> Outcome<()> {
        let parts = self.by_node(keys);
        let requests = self.nodes.iter().zip(&parts).filter(|(_, part)| !part.is_empty());
        let responses = try_join_all(requests.map(|(node, part)| async move {
            let mut client = node.get().await?;
            let keys: Vec<&str> = part.iter().map(|&at| keys[at].as_str()).collect();
            Outcome::Ok(client.get_multi(keys).await?)
        }));
        let mut valid = 0;
        for value in responses.await?.into_iter().flatten() {
            let key = std::str::from_utf8(&value.key)?;
            valid += usize::from(value.data.is_some_and(|data| check(key, &data)));
        }
        if valid == keys.len() { Ok(()) } else { Err("wrong or missing value".into()) }
    }

    async fn set_many(&self, keys: &[Key], values: &[Bytes]) -> Outcome<()> {
        let parts = self.by_node(keys);
        let requests = self.nodes.iter().zip(&parts).filter(|(_, part)| !part.is_empty());
        let stored = try_join_all(requests.map(|(node, part)| async move {
            let items: Vec<(&str, &[u8])> = part.iter().map(|&at| (keys[at].as_str(), &values[at][..])).collect();
            let mut client = node.get().await?;
            let results = client.set_multi(&items, None, None).await?;
            Outcome::Ok(results.values().filter(|result| result.is_ok()).count())
        }));
        if stored.await?.into_iter().sum::<usize>() == keys.len() {
            Ok(())
        } else {
            Err("not all items were stored".into())
        }
    }
}
