//! Which nodes there are, and where to dial them: the trait for a source of nodes, and the task that polls it.

mod address_book;
mod dyn_discovery;
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
mod source_changes;
#[cfg(feature = "dns")]
mod srv;
mod static_nodes;
mod status;
mod time;
mod tracker;

use std::fmt;
use std::net::IpAddr;

pub use dyn_discovery::DynDiscovery;
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
pub use status::{DiscoveryState, DiscoveryStatus};
pub(crate) use tracker::Roster;

/// A source of nodes: DNS SRV records, a fixed list, or your own.
///
/// The client polls the source at the pace that its [options](DiscoveryOptions) set, and at once when the source
/// reports a [change](Self::changed). It keeps the last good nodes after an error or an empty answer, and gives nodes
/// that vanish their removal grace. So a source keeps no state, and only reports what it sees now.
///
/// | outcome of `discover` | what the client does |
/// |---|---|
/// | nodes with a TTL | uses them and their addresses; polls again when the TTL ends, within the [poll interval] |
/// | nodes without a TTL | polls again after the shortest interval; their addresses are valid until the next answer |
/// | nodes with a TTL of [`Duration::MAX`] | polls again only after a change or [`rediscover`] |
/// | no nodes, or [`Empty`] | keeps the nodes, as [`DiscoveryOptions::empty`] says; their listed addresses expire |
/// | [`Config`] | `connect` fails if it waits for nodes; later the same as for any other error |
/// | any other error, a panic, or no answer in time | keeps the nodes and their addresses; polls again with a growing delay |
///
/// | outcome of `resolve` | what the client does |
/// |---|---|
/// | addresses with a TTL | dials them in their order; they are valid until the TTL ends |
/// | addresses without a TTL | the same; they are valid until the next answer of `discover` |
/// | no addresses, or [`NoSuchHost`] | does not dial the node, forgets its old addresses, and polls soon |
/// | any other error, a panic, or no answer in time | dials the addresses that were good in the last 5 minutes, if any |
///
/// "In time" means within the [lookup timeout](DiscoveryOptions::lookup_timeout). [`Empty`] is an answer to `discover`,
/// and [`NoSuchHost`] to `resolve`. From the other method each is an error like any other.
///
/// [poll interval]: DiscoveryOptions::poll_interval
/// [`Duration::MAX`]: std::time::Duration::MAX
/// [`rediscover`]: crate::Client::rediscover
/// [`Empty`]: DiscoveryError::Empty
/// [`Config`]: DiscoveryError::Config
/// [`NoSuchHost`]: DiscoveryError::NoSuchHost
///
/// `Box<D>` and `Arc<D>` of a source are sources, so an application can keep an `Arc` of its own.
/// [`DynDiscovery`] is the object-safe form.
///
/// # Cancel safety
/// The client drops all futures at any await, when a time limit passes or when the client itself is dropped.
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
    /// [`DiscoveryError::Empty`] if the source answers that there are none. [`DiscoveryError::Config`] if polling again
    /// does not help. Any other error if it gives no answer.
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

    /// Completes when the nodes have changed, so that the client polls before its interval is over.
    ///
    /// By default it never completes. The poll comes at once, but at least a second after the last one, or the shortest
    /// [poll interval](DiscoveryOptions::poll_interval) if that is less. Changes until then share it. It comes also if
    /// polls fail, and if the last answer is valid forever: an answer with a TTL of [`Duration::MAX`] and this method
    /// make a source that is polled after changes only.
    ///
    /// No change is lost if the future completes after each change since it was first polled. The client keeps one
    /// future across polls until it completes. It takes the next one when it polls the source, and polls this future
    /// before it calls [`discover`](Self::discover). So there is a poll, or a future, for each change.
    ///
    /// A future that completes at once, each time, makes the client poll once a second. After a panic the client calls
    /// this again with the next poll, which then comes after the longest poll interval at the latest.
    ///
    /// [`Duration::MAX`]: std::time::Duration::MAX
    ///
    /// # Examples
    /// Nodes that another part of the application pushes:
    /// ```
    /// use std::sync::Arc;
    /// use std::time::Duration;
    /// use memring::{Client, Discovery, DiscoveryError, Membership, NodeId};
    /// use tokio::sync::watch;
    ///
    /// #[derive(Debug)]
    /// struct Pushed(watch::Sender<Membership>);
    ///
    /// impl Pushed {
    ///     fn push(&self, nodes: impl IntoIterator<Item = NodeId>) {
    ///         let nodes = nodes.into_iter().map(Into::into);
    ///         self.0.send_replace(Membership::new(nodes).with_ttl(Duration::MAX));
    ///     }
    /// }
    ///
    /// impl Discovery for Pushed {
    ///     async fn discover(&self) -> Result<Membership, DiscoveryError> {
    ///         Ok(self.0.borrow().clone())
    ///     }
    ///
    ///     async fn changed(&self) {
    ///         // A new receiver completes at the first change after this line.
    ///         let _ = self.0.subscribe().changed().await;
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let nodes = Arc::new(Pushed(watch::Sender::default()));
    /// nodes.push(["127.0.0.1:1".parse()?]);
    /// let cache = Client::builder().discovery(Arc::clone(&nodes)).connect().await?;
    ///
    /// let mut topology = cache.watch_topology();
    /// nodes.push(["127.0.0.1:1".parse()?, "127.0.0.1:2".parse()?]);
    /// let change = topology.changed().await.expect("the client is alive");
    /// assert_eq!(change.added, ["127.0.0.1:2".parse::<NodeId>()?]);
    /// # Ok(())
    /// # }
    /// ```
    fn changed(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
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
