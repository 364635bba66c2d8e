//! What programs on a cluster coordinate with: [`Lock`], [`Semaphore`], [`Event`], [`Queue`], [`Variable`], [`Barrier`],
//! [`Metadata`], and topics of events.
//!
//! All of it is agreed on by the quorum of nodes that vote, and so survives the node that holds the scheduler. Each thing is made by
//! its name when it is first used, is the same for all clients and tasks of the cluster, and is forgotten when nothing is left in
//! it. Whoever waits is served in the order in which the scheduler has heard of them; when another node takes over, in the order in
//! which that one does.
//!
//! Inside of a task, use [`Cluster::current`](crate::Cluster::current), and wait by `starling::block_on` or in an `async` task: then the
//! task gives its place on the worker to others while it waits.
//!
//! A client is heard by the scheduler as long as it is there. What it holds in locks and semaphores is leased: it ends when the
//! client was not heard for the length of the lease ([`LEASE_DEFAULT`]), or has taken leave. A request that is said again after a
//! fail-over is done once.
//!
//! - `actor`: the coordinator at the node in office; `session`, `keeper`: a client's side; the rest is what users see.

mod actor;
mod barrier;
mod event;
mod keeper;
mod lease;
mod metadata;
mod queue;
mod session;
mod topics;
mod variable;

use starling_runtime::value::CodecError;

pub(crate) use self::actor::{CoordinationActor, Input, serve};
pub use self::barrier::{Barrier, Passed};
pub use self::event::Event;
pub use self::lease::{LEASE_DEFAULT, Lock, LockGuard, Semaphore};
pub use self::metadata::{IntoPath, Metadata};
pub use self::queue::Queue;
pub(crate) use self::session::{Session, Sessions, Way};
pub use self::topics::{LoggedEvent, Subscription};
pub(crate) use self::topics::{events, log_event, subscribe, topics};
pub use self::variable::Variable;
pub use starling_core::coordination::Refused;

/// Why something that coordinates did not come about.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CoordinationError {
    /// It was refused. Nothing has changed, but for [`Refused::Expired`], which leaves that open.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// No scheduler was found for as long as the client has patience. Whether it was done is not known.
    #[error("no scheduler could be reached: {0}; it is not known whether this was done")]
    SchedulerLost(String),
    /// The value cannot be encoded, or what was found is of another type.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The value cannot be said in JSON, or what was found is not of the type.
    #[error("the value is no JSON, or not of the type that was asked for: {0}")]
    Json(String),
}
