//! Actors that the cluster makes: on which node, when anew, and from what, the scheduler's node decides
//! ([`starling_core::directory`]); here a node makes them, and a program says what they are made from.
//!
//! - `actor`: [`RemoteActor`], [`Snapshot`], [`ActorEnv`]; `def`: how an actor is made from bytes.
//! - `spawner`: a node's spawned actors; `spawn`: how they are asked for.

mod actor;
mod def;
mod spawn;
mod spawner;

pub use actor::{ActorEnv, BoxError, RemoteActor, Snapshot};
pub use def::ActorDef;
pub use spawn::{ActorsError, SpawnError, Spawning};
pub(crate) use spawner::Spawner;
