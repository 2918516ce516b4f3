//! All DNS servers, queried in turn.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::proto::op::{Message, Query};
use hickory_resolver::proto::rr::{Name, RecordType};
use tracing::debug;

use super::name_server::NameServer;
use super::race::Race;
use crate::discovery::DiscoveryError;

/// How long a server may take before the next one is queried as well.
const NEXT_SERVER_DELAY: Duration = Duration::from_millis(500);

/// The DNS servers in the order of the configuration.
#[derive(Debug)]
pub(super) struct NameServers {
    servers: Vec<NameServer>,
    in_turn: Race,
}

impl NameServers {
    pub(super) fn new(servers: &[SocketAddr], is_tcp_only: bool) -> Self {
        let servers = servers.iter().map(|server| NameServer::new(*server, is_tcp_only)).collect();
        Self { servers, in_turn: Race::default() }
    }

    /// Queries the servers in turn: the next one when those before it have failed or are slow.
    ///
    /// Returns the first reply that is an answer, also an empty one. Has no time limit: the caller sets it.
    pub(super) async fn query(&self, name: &Name, kind: RecordType) -> Result<Message, DiscoveryError> {
        let query = &Query::query(name.clone(), kind);
        let outcome = self.in_turn.run(self.servers.len(), NEXT_SERVER_DELAY, |number| async move {
            let server = &self.servers[number];
            let outcome = server.query(query).await;
            if let Err(error) = &outcome {
                debug!(target: "memring", server = %server.address(), %name, %kind, %error, "a DNS server failed");
            }
            outcome
        });
        outcome.await.unwrap_or_else(|| Err(DiscoveryError::Config("no DNS server is known".into())))
    }
}
