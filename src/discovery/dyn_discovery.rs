//! Sources whose type is chosen at run time.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use crate::discovery::{Discovery, DiscoveryError, HostAddresses, Membership};

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The object-safe form of [`Discovery`], for sources whose type is chosen at run time.
///
/// Every [`Discovery`] has it. `Box<dyn DynDiscovery>` and `Arc<dyn DynDiscovery>` are sources, too, so
/// [`ClientBuilder::discovery`](crate::ClientBuilder::discovery) takes them.
///
/// ```
/// use memring::{Client, ClientBuilder, Discovery, DynDiscovery, Membership, NodeId, StaticNodes};
///
/// # #[derive(Debug)]
/// # struct Registry;
/// # impl Discovery for Registry {
/// #     async fn discover(&self) -> Result<Membership, memring::DiscoveryError> {
/// #         Ok(Membership::new([]))
/// #     }
/// # }
/// // `Registry` is a source of your own.
/// fn source(nodes: &[NodeId]) -> Box<dyn DynDiscovery> {
///     if nodes.is_empty() { Box::new(Registry) } else { Box::new(StaticNodes::new(nodes.iter().cloned())) }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let source = source(&["cache-1".parse()?]);
/// assert_eq!(source.discover().await?.endpoints().len(), 1);
/// let builder: ClientBuilder = Client::builder().discovery(source);
/// # let _ = builder;
/// # Ok(())
/// # }
/// ```
pub trait DynDiscovery: fmt::Debug + Send + Sync + 'static {
    /// Calls [`Discovery::discover`].
    fn dyn_discover(&self) -> BoxFuture<'_, Result<Membership, DiscoveryError>>;

    /// Calls [`Discovery::resolve`].
    fn dyn_resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<HostAddresses, DiscoveryError>>;

    /// Calls [`Discovery::changed`].
    fn dyn_changed(&self) -> BoxFuture<'_, ()>;
}

impl<D: Discovery> DynDiscovery for D {
    fn dyn_discover(&self) -> BoxFuture<'_, Result<Membership, DiscoveryError>> {
        Box::pin(self.discover())
    }

    fn dyn_resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<HostAddresses, DiscoveryError>> {
        Box::pin(self.resolve(host))
    }

    fn dyn_changed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.changed())
    }
}

impl Discovery for dyn DynDiscovery {
    async fn discover(&self) -> Result<Membership, DiscoveryError> {
        self.dyn_discover().await
    }

    async fn resolve(&self, host: &str) -> Result<HostAddresses, DiscoveryError> {
        self.dyn_resolve(host).await
    }

    async fn changed(&self) {
        self.dyn_changed().await;
    }
}

impl<D: Discovery + ?Sized> Discovery for Box<D> {
    async fn discover(&self) -> Result<Membership, DiscoveryError> {
        (**self).discover().await
    }

    async fn resolve(&self, host: &str) -> Result<HostAddresses, DiscoveryError> {
        (**self).resolve(host).await
    }

    async fn changed(&self) {
        (**self).changed().await;
    }
}

impl<D: Discovery + ?Sized> Discovery for Arc<D> {
    async fn discover(&self) -> Result<Membership, DiscoveryError> {
        (**self).discover().await
    }

    async fn resolve(&self, host: &str) -> Result<HostAddresses, DiscoveryError> {
        (**self).resolve(host).await
    }

    async fn changed(&self) {
        (**self).changed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Marked;

    impl Discovery for Marked {
        async fn discover(&self) -> Result<Membership, DiscoveryError> {
            Err(DiscoveryError::Truncated)
        }

        async fn resolve(&self, host: &str) -> Result<HostAddresses, DiscoveryError> {
            Err(DiscoveryError::no_such_host(host, None))
        }

        async fn changed(&self) {}
    }

    async fn assert_marked(source: impl Discovery) {
        assert_eq!(source.discover().await, Err(DiscoveryError::Truncated));
        assert!(source.resolve("a").await.unwrap_err().is_no_such_host());
        // Pending forever by default.
        source.changed().await;
    }

    #[tokio::test]
    async fn every_form_of_a_source_passes_every_method_on() {
        assert_marked(Box::new(Marked)).await;
        assert_marked(Arc::new(Marked)).await;
        assert_marked(Box::new(Marked) as Box<dyn DynDiscovery>).await;
        assert_marked(Arc::new(Marked) as Arc<dyn DynDiscovery>).await;
        assert_marked(Box::new(Box::new(Marked) as Box<dyn DynDiscovery>) as Box<dyn DynDiscovery>).await;
    }
}
