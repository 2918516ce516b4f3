//! Which nodes there are, and where to dial them: the trait for a source of nodes, and the task that polls it.

mod address_book;
mod endpoint;
mod error;
mod handle;
mod host_addresses;
mod latest_answer;
mod listed_addresses;
mod locator;
mod lookups;
mod options;
mod panic_guard;
mod poll_requests;
mod refresh;
#[cfg(feature = "dns")]
mod srv;
mod static_nodes;
mod status;
mod time;
mod tracker;

use std::fmt;
use std::net::IpAddr;

pub use endpoint::{Endpoint, Membership};
pub use error::DiscoveryError;
pub(crate) use handle::DiscoveryHandle;
pub use host_addresses::HostAddresses;
pub(crate) use listed_addresses::ListedAddresses;
pub(crate) use locator::NodeLocator;
pub use options::{DiscoveryOptions, EmptyPolicy, Startup};
pub(crate) use refresh::start_refresh;
#[cfg(feature = "dns")]
pub use srv::{SrvDiscovery, WeightPolicy};
pub use static_nodes::StaticNodes;
pub(crate) use status::StatusReader;
pub use status::{DiscoveryState, DiscoveryStatus};
pub(crate) use tracker::Roster;

/// A source of nodes: DNS SRV records, a fixed list, or your own.
///
/// The client polls the source at the pace that its [options](DiscoveryOptions) set. It keeps the last good nodes after
/// an error or an empty answer, and gives nodes that vanish their removal grace. So a source keeps no state, and only
/// reports what it sees now. A panic of the source counts as an error.
///
/// # Cancel safety
/// The client drops both futures at any await, when a time limit passes or when the client itself is dropped.
///
/// # Examples
/// Nodes listed in a file, one a line:
/// ```
/// use std::path::PathBuf;
/// use memring::{Discovery, DiscoveryError, Endpoint, Membership};
///
/// #[derive(Debug)]
/// struct NodesFile(PathBuf);
///
/// impl Discovery for NodesFile {
///     async fn discover(&self) -> Result<Membership, DiscoveryError> {
///         let text = tokio::fs::read_to_string(&self.0)
///             .await
///             .map_err(|error| DiscoveryError::Transport(error.to_string()))?;
///         let mut endpoints = Vec::new();
///         for line in text.lines() {
///             let id = line.parse().map_err(|error| DiscoveryError::Config(format!("{line}: {error}")))?;
///             endpoints.push(Endpoint::new(id));
///         }
///         Ok(Membership::new(endpoints))
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let path = std::env::temp_dir().join(format!("memring-nodes-{}", std::process::id()));
/// # std::fs::write(&path, "cache-2\ncache-1:11212\n")?;
/// let found = NodesFile(path.clone()).discover().await?;
/// assert_eq!(found.endpoints()[0].id().to_string(), "cache-1:11212");
/// # std::fs::remove_file(path)?;
/// # Ok(())
/// # }
/// ```
pub trait Discovery: fmt::Debug + Send + Sync + 'static {
    /// Lists the nodes that exist now.
    ///
    /// # Errors
    /// [`DiscoveryError::Empty`] if the source answers that there are none. Any other error if it gives no answer.
    fn discover(&self) -> impl Future<Output = Result<Membership, DiscoveryError>> + Send;

    /// Finds the addresses of a node's host, in the order to dial them.
    ///
    /// Called when a node is dialed that the listing has no valid address for, except for IP literals, and now and then
    /// to check its address. Lookups of a host are at least a second apart. `host` is the
    /// [`lookup_name`](crate::NodeId::lookup_name) of the node: with a trailing dot if the name is absolute. A resolver
    /// tries the suffixes of its search list with other names.
    ///
    /// By default it asks the system's resolver, which does not distinguish a host that does not exist from a failed
    /// lookup: both are errors other than `NoSuchHost`.
    ///
    /// # Errors
    /// [`DiscoveryError::NoSuchHost`] if the host does not exist or has no address. The client then does not dial the
    /// host's old address, which may belong to another server by now. Any other error if the lookup failed.
    fn resolve(&self, host: &str) -> impl Future<Output = Result<HostAddresses, DiscoveryError>> + Send {
        resolve_by_system(host)
    }
}

async fn resolve_by_system(host: &str) -> Result<HostAddresses, DiscoveryError> {
    // The lookup ignores the port.
    let found =
        tokio::net::lookup_host((host, 0)).await.map_err(|error| DiscoveryError::Transport(error.to_string()))?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    Ok(HostAddresses::new(addresses))
}

/// Keeps the example of docs/discovery.md compiling.
#[cfg(all(doctest, feature = "dns"))]
#[doc = include_str!("../docs/discovery.md")]
struct DiscoveryPage;
