//! What a type has to be for the cluster to make actors of it.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context};
use serde::Serialize;
use serde::de::DeserializeOwned;
use starling_core::directory::Holder;
use starling_core::ids::NodeId;
use starling_remote::{Actors, RemoteAddr};

use crate::cluster::{Cluster, ClusterError};
use crate::connect::Nested;

/// Any error.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// An actor that the cluster can make on any of its nodes: [`Cluster::spawn`](crate::Cluster::spawn). The `impl` is marked with
/// `#[starling::actor]`.
///
/// ```ignore
/// #[starling::actor]
/// impl RemoteActor for Counter {
///     type Args = u64;
///
///     fn create(from: u64, _: &ActorEnv) -> Result<Counter, BoxError> {
///         Ok(Counter { total: from })
///     }
/// }
/// ```
pub trait RemoteActor: Actor<Context = Context<Self>> {
    /// What it is made from: encoded with postcard, and kept by the cluster, at most 1 MiB.
    type Args: Serialize + DeserializeOwned + Send;

    /// Makes the actor, on the thread where it will run. It may be made more often than once from the same arguments.
    ///
    /// # Errors
    /// Why it cannot be made. That fails whoever spawns it, and counts as a failure when it is made anew.
    fn create(args: Self::Args, env: &ActorEnv) -> Result<Self, BoxError>;
}

/// An actor whose state is kept on other nodes, so that it goes on where it was when it is made anew: `#[starling::actor(snapshot)]`.
///
/// What was handled after the last state is lost: a message that must not be lost is answered after a state that has it, or is
/// sent again.
pub trait Snapshot: RemoteActor {
    /// The state: encoded with postcard, at most 8 MiB.
    type State: Serialize + DeserializeOwned;

    /// How often a state is taken. One that is what it was before is not sent. One more is taken when the node leaves.
    const EVERY: Duration;

    /// The state as it is now.
    fn snapshot(&self) -> Self::State;

    /// As [`RemoteActor::create`], from the last state that is known.
    ///
    /// # Errors
    /// As there.
    fn restore(args: Self::Args, state: Self::State, env: &ActorEnv) -> Result<Self, BoxError>;
}

/// Where a spawned actor is.
#[derive(Clone)]
pub struct ActorEnv {
    pub(super) actors: Actors,
    pub(super) nested: Arc<Nested>,
    pub(super) name: Arc<str>,
    pub(super) actor: u64,
}

impl ActorEnv {
    /// The node's id.
    pub fn node(&self) -> NodeId {
        self.actors.node()
    }

    /// The node's name, for people.
    pub fn node_name(&self) -> &str {
        self.nested.name()
    }

    /// The name that the actor holds.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The actor's own address, for others. It follows the name when the actor is made anew.
    pub fn address<A: Actor>(&self) -> RemoteAddr<A> {
        let (node, type_name) = (self.node(), String::new());
        self.actors.address(self.name.to_string(), &Holder { node, actor: self.actor, type_name })
    }

    /// Remote actors, as the node sees them.
    pub fn actors(&self) -> &Actors {
        &self.actors
    }

    /// The cluster, for actors that submit tasks: a client that all actors and tasks of the node share. It connects when it is asked
    /// for the first time.
    ///
    /// # Errors
    /// The mesh has no scheduler, or none that answers.
    pub async fn cluster(&self) -> Result<Cluster, ClusterError> {
        self.nested.cluster().await
    }
}
