//! memring with its defaults, which are one connection per node.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use memring::{Client, Endpoint, NodeId, StaticNodes, Ttl};

use crate::Outcome;
use crate::data::Key;
use crate::workload::Cache;

#[derive(Debug, Clone)]
pub(crate) struct Memring(Client);

impl Memring {
    pub(crate) async fn connect(nodes: &[SocketAddr]) -> Outcome<Self> {
        let mut endpoints = Vec::new();
        for (at, node) in nodes.iter().enumerate() {
            let id: NodeId = node.to_string().parse()?;
            // The labels place the same keys on the same nodes in every run, whatever the ports.
            endpoints.push(Endpoint::new(id).with_label(format!("cache-{at}:11211")));
        }
        // A long timeout, so that a brief stall of the machine does not end the run.
        let builder = Client::builder().discovery(StaticNodes::new(endpoints)).request_timeout(Duration::from_secs(5));
        Ok(Self(builder.connect().await?))
    }
}

impl Cache for Memring {
    async fn get(&self, key: &str) -> Outcome<Option<impl AsRef<[u8]> + Send>> {
        Ok(self.0.get(key).await?.map(|item| item.value))
    }

    async fn set(&self, key: &str, value: &Bytes) -> Outcome<()> {
        Ok(self.0.set(key, value.clone(), Ttl::NEVER).await?)
    }

    async fn get_many(&self, keys: &[Key], check: impl Fn(&str, &[u8]) -> bool + Send + Sync) -> Outcome<()> {
        let found = self.0.get_many(keys.iter().map(Key::as_str)).await;
        if let Some(failed) = found.errors.into_iter().next() {
            return Err(failed.error.into());
        }
        if found.hits.len() != keys.len() || !found.hits.iter().all(|(key, item)| check(key, &item.value)) {
            return Err("wrong or missing value".into());
        }
        Ok(())
    }

    async fn set_many(&self, keys: &[Key], values: &[Bytes]) -> Outcome<()> {
        let written = self.0.set_many(keys.iter().map(Key::as_str).zip(values.iter().cloned()), Ttl::NEVER).await;
        match written.errors.into_iter().next() {
            Some(failed) => Err(failed.error.into()),
            None => Ok(()),
        }
    }
}
