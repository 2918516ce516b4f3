//! An async memcached client for services on Kubernetes and OpenShift.

mod discovery;
mod error;
mod item;
mod key;
mod node_id;
#[cfg(feature = "testing")]
pub mod testing;
mod ttl;

// The public interface is:
pub use crate::discovery::{Discovery, DiscoveryError, Endpoint, Membership};
pub use crate::error::{Delivery, Error, ErrorKind};
pub use crate::item::{Cas, Item, SetOptions};
pub use crate::key::{InvalidKey, Key};
pub use crate::node_id::{DEFAULT_PORT, InvalidNodeId, NodeId};
pub use crate::ttl::{InvalidTtl, Ttl};
