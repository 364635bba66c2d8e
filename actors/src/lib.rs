//! Thin actix actors around the pure machines, the node that hosts them, and the client.
//!
//! An actor turns what comes over a link into events, gives them to its machine, and performs the effects; it decides
//! nothing. [`Node`] is one node of a cluster; [`Cluster`] is the client's handle.

pub mod blocking;
mod client;
mod cluster;
mod connect;
pub mod coordination;
mod data_dir;
mod desk;
mod directory_actor;
mod directory_link;
mod host;
mod leaders;
mod link;
mod node;
mod office;
mod quorum_link;
mod registry_actor;
mod report;
mod scheduler_actor;
mod served;
mod spawning;
mod status;
mod worker_actor;
mod worker_loop;

pub use cluster::{
    Cluster, ClusterError, ConnectOptions, Detached, LocalOptions, ScatterOptions, SchedulerInfo, Scope, TaskRecording,
    TaskStream, WeakCluster,
};
pub use connect::CurrentNode;
pub use data_dir::{DataDir, DataError};
pub use node::{Node, NodeConfig, NodeError, NodeRole, RecordConfig, Stopped};
pub use report::ReportError;
pub use spawning::{ActorDef, ActorEnv, ActorsError, BoxError, RemoteActor, Snapshot, SpawnError, Spawning};
pub use starling_core::directory::{ActorState, ActorStatus, Place as Placement, Restart};
pub use status::{MemberStatus, NodeStatus, QuorumStatus};
