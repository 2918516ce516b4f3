//! An async memcached client for services on Kubernetes and OpenShift.

mod client;
mod config;
mod connection;
mod discovery;
mod error;
mod item;
mod key;
mod node;
mod node_id;
mod protocol;
mod ring;
#[cfg(feature = "testing")]
pub mod testing;
mod topology;
mod ttl;

// The public interface is:
pub use crate::client::{Client, ClientBuilder, GetMany, KeysFailed};
pub use crate::discovery::{
    Discovery, DiscoveryError, DiscoveryOptions, DiscoveryState, DiscoveryStatus, EmptyPolicy, Endpoint, Membership,
    Startup, StaticNodes,
};
#[cfg(feature = "dns")]
pub use crate::discovery::{SrvDiscovery, WeightPolicy};
pub use crate::error::{Delivery, Error, ErrorKind};
pub use crate::item::{Cas, Item, SetOptions};
pub use crate::key::{InvalidKey, Key};
pub use crate::node::NodeState;
pub use crate::node_id::{DEFAULT_PORT, InvalidNodeId, NodeId};
pub use crate::ring::{InvalidRing, Ring, RingNode};
pub use crate::topology::{NodeInfo, Topology, TopologyChange, TopologyWatch};
pub use crate::ttl::{InvalidTtl, Ttl};
