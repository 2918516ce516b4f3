//! mtop-client. It has connection pools and chooses the node itself, and has no command that stores several items.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use mtop_client::{MemcachedClient, MemcachedClientConfig, RendezvousSelector, Server, ServerID, TcpClientFactory};
use tokio::runtime::Handle;

use super::POOL_SIZE;
use crate::Outcome;
use crate::data::Key;
use crate::workload::Cache;

#[derive(Clone)]
pub(crate) struct Mtop(Arc<MemcachedClient>);

impl Mtop {
    pub(crate) fn connect(nodes: &[SocketAddr], handle: &Handle) -> Self {
        let servers = nodes.iter().map(|&node| Server::without_name(ServerID::from(node))).collect();
        let config = MemcachedClientConfig { pool_max_idle: POOL_SIZE as u64, pool_name: "throughput".to_owned() };
        let selector = RendezvousSelector::new(servers);
        Self(Arc::new(MemcachedClient::new(config, handle.clone(), selector, TcpClientFactory)))
    }
}

impl Cache for Mtop {
    async fn get(&self, key: &str) -> Outcome<Option<impl AsRef<[u8]> + Send>> {
        let mut found = self.0.get([key]).await?;
        match found.errors.into_values().next() {
            Some(error) => Err(error.into()),
            None => Ok(found.values.remove(key).map(|value| value.data)),
        }
    }

    async fn set(&self, key: &str, value: &Bytes) -> Outcome<()> {
        Ok(self.0.set(key, 0, 0, value).await?)
    }

    async fn get_many(&self, keys: &[Key], check: impl Fn(&str, &[u8]) -> bool + Send + Sync) -> Outcome<()> {
        let found = self.0.get(keys.iter().map(Key::as_str)).await?;
        if found.values.len() != keys.len() || !found.values.iter().all(|(key, value)| check(key, &value.data)) {
            return Err("wrong or missing value".into());
        }
        Ok(())
    }

    async fn set_many(&self, _: &[Key], _: &[Bytes]) -> Outcome<()> {
        Err("mtop-client cannot store several items at once".into())
    }
}
