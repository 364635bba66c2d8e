//! Thin actix actors around the pure machines, the node that hosts them, and the client.
//!
//! An actor turns what comes over a link into events, gives them to its machine, and performs the effects; it decides
//! nothing. [`Node`] is one node of a cluster; [`Cluster`] is the client's handle.

mod client;
mod cluster;
mod connect;
mod host;
mod link;
mod node;
mod registry_actor;
mod scheduler_actor;
mod served;
mod worker_actor;

pub use cluster::{Cluster, ClusterError, ConnectOptions, LocalOptions, WeakCluster};
pub use connect::CurrentNode;
pub use node::{Node, NodeConfig, NodeError, NodeRole, RecordConfig, Stopped};
