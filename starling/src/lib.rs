//! Starling: task graphs on a mesh of equal nodes.
//!
//! ```no_run
//! use starling::Cluster;
//!
//! #[starling::task]
//! fn square(x: i64) -> i64 {
//!     x * x
//! }
//!
//! #[starling::task]
//! fn total(parts: &[i64]) -> i64 {
//!     parts.iter().sum()
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let cluster = Cluster::local(2).await?; // or Cluster::connect("10.12.0.10:8786").await?
//! let parts = cluster.map((0..100).map(square::task));
//! let sum = cluster.submit(total::task(parts)).result().await?;
//! assert_eq!(sum, 328_350);
//! # Ok(())
//! # }
//! ```
//!
//! A task may submit tasks to the cluster that it runs on. While it waits for them it has no place on its worker, so that
//! recursion needs no more threads than the worker has:
//!
//! ```no_run
//! use starling::{Cluster, block_on};
//!
//! #[starling::task]
//! fn fibonacci(n: u64) -> Result<u64, Box<dyn std::error::Error + Send + Sync>> {
//!     if n < 2 {
//!         return Ok(n);
//!     }
//!     let cluster = Cluster::current()?;
//!     let parts = cluster.map([n - 1, n - 2].map(fibonacci::task));
//!     let parts = block_on(cluster.gather(&parts))?; // an `async` task awaits instead
//!     Ok(parts.iter().sum())
//! }
//! ```
//!
//! [`Cluster`] is the client: it submits [`Call`]s, which [`task`](macro@task) makes of functions, and gives typed
//! [`Future`]s. [`Bag`](bag::Bag) stands on it. [`Node`] embeds a node in a program of yours, and [`main`] makes your
//! program a full `node` that holds your tasks.

pub mod cli;

pub use starling_actors::blocking;
pub use starling_actors::{
    Cluster, ClusterError, ConnectOptions, DataDir, DataError, Detached, LocalOptions, MemberStatus, Node, NodeConfig,
    NodeError, NodeRole, NodeStatus, QuorumStatus, RecordConfig, ReportError, ScatterOptions, SchedulerInfo, Scope,
    Stopped, TaskRecording, TaskStream, coordination,
};

pub use starling_actors::{
    ActorEnv, ActorState, ActorStatus, ActorsError, BoxError, Placement, RemoteActor, Restart, Snapshot, SpawnError,
    Spawning,
};
#[doc(hidden)]
pub mod __spawn {
    pub use starling_actors::ActorDef;
}
/// The actor framework whose actors [`RemoteAddr`] reaches on other nodes.
pub use actix;
pub use starling_collections::{Bag, BagError, bag, csv, files, stackexchange};
#[cfg(feature = "frame")]
pub use starling_collections::{frame, functions};
pub use starling_core as core;
pub use starling_core::failure::{FailureCause, TaskFailure};
pub use starling_core::graph::GraphError;
pub use starling_core::ids::JobId;
pub use starling_core::query::{NbytesOf, WorkerReport};
pub use starling_core::task_stream::{StreamPage, StreamWorker, TaskOutcome, TaskRecord};
pub use starling_core::wire::JobSummary;
pub use starling_macros::{actor, task};
/// Everything about remote actors.
pub use starling_remote as remote;
#[doc(hidden)]
pub use starling_remote::__remote;
pub use starling_remote::{
    Accepts, Actors, Asking, Broadcast, Ended, Group, RegisterError, RemoteAddr, RemoteError, RemoteMessage, accept,
};
#[doc(hidden)]
pub use starling_runtime::__private;
pub use starling_runtime::executor::block_on;
pub use starling_runtime::mesh;
pub use starling_runtime::parts::Parts;
pub use starling_runtime::secret::ClusterSecret;
pub use starling_runtime::store::{MemoryConfig, MemoryConfigError};
pub use starling_runtime::task::{
    AsCompleted, Call, ClientError, Delayed, DrawError, Future, FutureStatus, Graph, GraphClient, JsonCallError,
    JsonResultError, Key, TaskDef, Wait, Waited, as_completed, delayed, key, wait,
};
pub use starling_runtime::value::{Buffer, Data, Value};

/// What a program that uses bags imports: `use starling::prelude::*`.
///
/// `task!` is here and not at the root, where the attribute `#[starling::task]` has the name.
pub mod prelude {
    pub use starling_collections::{Bag, BagError};
    pub use starling_macros::task_closure as task;

    pub use crate::{Cluster, Future};
}

/// Runs the `node` command with this program's tasks linked in: the whole `main` of a program whose nodes run tasks of
/// its own.
///
/// ```no_run
/// fn main() -> std::process::ExitCode {
///     starling::main()
/// }
/// ```
pub fn main() -> std::process::ExitCode {
    cli::run(std::env::args_os())
}
