//! The async client of memcache's module `exp`. It has connection pools and chooses the node itself.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use memcache::exp::{AsyncMemcache, Ttl};

use super::POOL_SIZE;
use crate::Outcome;
use crate::data::Key;
use crate::workload::Cache;

#[derive(Debug, Clone)]
pub(crate) struct MemcacheExp(AsyncMemcache);

impl MemcacheExp {
    pub(crate) async fn connect(nodes: &[SocketAddr]) -> Outcome<Self> {
        let builder = AsyncMemcache::builder().max_idle(POOL_SIZE).max_connections(POOL_SIZE);
        // The connect timeout also limits the wait for a pooled connection.
        let builder = builder.connect_timeout(Duration::from_secs(5)).timeout(Duration::from_secs(5));
        Ok(Self(builder.connect_async(nodes.iter().copied()).await?))
    }
}

impl Cache for MemcacheExp {
    async fn get(&self, key: &str) -> Outcome<Option<impl AsRef<[u8]> + Send>> {
        Ok(self.0.get::<Vec<u8>>(key).await?)
    }

    async fn set(&self, key: &str, value: &Bytes) -> Outcome<()> {
        Ok(self.0.set(key, &value[..], Ttl::NEVER).await?)
    }

    async fn get_many(&self, keys: &[Key], check: impl Fn(&str, &[u8]) -> bool + Send + Sync) -> Outcome<()> {
        let found = self.0.get_many::<Vec<u8>, _>(keys.iter().map(Key::as_str)).await?;
        if found.len() != keys.len() || !found.iter().all(|(key, value)| check(key, value)) {
            return Err("wrong or missing value".into());
        }
        Ok(())
    }

    async fn set_many(&self, keys: &[Key], values: &[Bytes]) -> Outcome<()> {
        Ok(self.0.set_many(keys.iter().map(Key::as_str).zip(values.iter().map(|value| &value[..])), Ttl::NEVER).await?)
    }
}
