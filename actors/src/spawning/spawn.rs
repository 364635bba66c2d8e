//! How spawned actors are asked for, listed and stopped.

use std::any::type_name;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::future::BoxFuture;
use starling_core::directory::{ARGS_BYTES_MAX, ActorSpec, ActorStatus, Answer, Ask, Place, Restart};
use starling_core::ids::NodeId;
use starling_remote::{Actors, RemoteAddr};

use super::actor::{ActorEnv, RemoteActor};
use crate::cluster::Cluster;
use crate::node::Node;

/// Why an actor was not spawned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// Somebody holds the name.
    #[error("the name {name} is held by an actor on node {node}")]
    NameTaken {
        /// The name.
        name: String,
        /// Where its holder is.
        node: NodeId,
    },
    /// The arguments cannot be encoded with postcard.
    #[error("the arguments of {type_name} cannot be encoded: {message}")]
    Encode {
        /// The actor's type.
        type_name: &'static str,
        /// What postcard says.
        message: String,
    },
    /// The arguments are too large.
    #[error(
        "arguments of {size} bytes are larger than the limit of {max}: give a path or a key, and fetch them in `create`"
    )]
    TooLarge {
        /// Their size, encoded.
        size: usize,
        /// The limit.
        max: usize,
    },
    /// It cannot be made, or may not be spawned. Nothing is left of it.
    #[error("the actor {name} cannot be spawned: {problem}")]
    Refused {
        /// Its name.
        name: String,
        /// Why.
        problem: String,
    },
    /// There is no scheduler, or none that answers. The actor may be spawned yet.
    #[error("it is not known whether the actor {name} is spawned: {problem}")]
    NotKnown {
        /// Its name.
        name: String,
        /// Why.
        problem: String,
    },
}

/// Why actors could not be listed or stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ActorsError {
    /// It cannot be done; nothing has changed.
    #[error("{0}")]
    Refused(String),
    /// There is no scheduler, or none that answers. A stop may be heard yet.
    #[error("there is no answer about actors: {0}")]
    NotKnown(String),
}

/// An actor that is to be spawned: await it. Gives its address once it runs.
#[must_use = "the actor is spawned when this is awaited"]
pub struct Spawning<A: RemoteActor> {
    actors: Actors,
    name: String,
    args: A::Args,
    placement: Place,
    restart: Restart,
    actor: PhantomData<fn() -> A>,
}

impl<A: RemoteActor> Spawning<A> {
    pub(crate) fn new(actors: &Actors, name: String, args: A::Args) -> Spawning<A> {
        let (actors, placement, restart) = (actors.clone(), Place::default(), Restart::default());
        Spawning { actors, name, args, placement, restart, actor: PhantomData }
    }

    /// Where it may be; on any node if nothing is said.
    pub fn placement(self, placement: Place) -> Spawning<A> {
        Spawning { placement, ..self }
    }

    /// When it is made anew; when it fails, at most 5 times a minute, if nothing is said.
    pub fn restart(self, restart: Restart) -> Spawning<A> {
        Spawning { restart, ..self }
    }

    fn spec(&self) -> Result<ActorSpec, SpawnError> {
        let type_name = type_name::<A>();
        let args = postcard::to_stdvec(&self.args)
            .map_err(|error| SpawnError::Encode { type_name, message: error.to_string() })?;
        if args.len() > ARGS_BYTES_MAX {
            return Err(SpawnError::TooLarge { size: args.len(), max: ARGS_BYTES_MAX });
        }
        Ok(ActorSpec {
            name: self.name.clone(),
            id: rand::random(),
            type_name: type_name.to_owned(),
            args: args.into(),
            placement: self.placement.clone(),
            restart: self.restart,
        })
    }
}

impl<A: RemoteActor> IntoFuture for Spawning<A> {
    type Output = Result<RemoteAddr<A>, SpawnError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let spec = self.spec();
        let Spawning { actors, name, .. } = self;
        Box::pin(async move {
            match actors.ask_directory(Ask::Spawn(Arc::new(spec?))).await {
                Ok(Answer::Held(Some(holder))) => Ok(actors.address(name, &holder)),
                Ok(Answer::Taken(node)) => Err(SpawnError::NameTaken { name, node }),
                Ok(Answer::Problem(problem)) => Err(SpawnError::Refused { name, problem }),
                Ok(other) => Err(SpawnError::NotKnown { name, problem: format!("the scheduler answers {other:?}") }),
                Err(problem) => Err(SpawnError::NotKnown { name, problem }),
            }
        })
    }
}

async fn stop(actors: &Actors, name: String) -> Result<(), ActorsError> {
    match actors.ask_directory(Ask::Stop(name)).await {
        Ok(Answer::Done) => Ok(()),
        Ok(Answer::Problem(problem)) => Err(ActorsError::Refused(problem)),
        Ok(other) => Err(ActorsError::NotKnown(format!("the scheduler answers {other:?}"))),
        Err(problem) => Err(ActorsError::NotKnown(problem)),
    }
}

async fn list(actors: &Actors) -> Result<Vec<ActorStatus>, ActorsError> {
    match actors.ask_directory(Ask::List).await {
        Ok(Answer::Listed(actors)) => Ok(actors),
        Ok(Answer::Problem(problem)) | Err(problem) => Err(ActorsError::NotKnown(problem)),
        Ok(other) => Err(ActorsError::NotKnown(format!("the scheduler answers {other:?}"))),
    }
}

impl Cluster {
    /// Has the cluster make an actor, on one of its nodes, on a thread of its own, and make it anew when it fails or its node is
    /// lost. It holds the name in the whole cluster, and is there until it ends by itself or is [stopped](Cluster::stop_actor): it
    /// needs no client.
    ///
    /// The nodes' programs must have the actor's type: start them from the program that spawns it.
    ///
    /// ```ignore
    /// let counter = cluster
    ///     .spawn::<Counter>("hits", 0)
    ///     .placement(Placement::Node("rack1-a".into()))
    ///     .restart(Restart::OnFailure { max: 3, within: Duration::from_secs(60) })
    ///     .await?;
    /// let total = counter.send(Add(1)).await?;
    /// ```
    ///
    /// # Errors
    /// [`SpawnError::NameTaken`] if an actor holds the name; [`SpawnError::Refused`] if no node may or can make it, or making it
    /// fails; the arguments are too large; there is no scheduler.
    pub fn spawn<A: RemoteActor>(&self, name: impl Into<String>, args: A::Args) -> Spawning<A> {
        Spawning::new(self.actors(), name.into(), args)
    }

    /// Ends the spawned actor of this name for good; its name is free then. Messages that it has not handled are told as lost.
    ///
    /// # Errors
    /// No actor of this name is spawned; there is no scheduler.
    pub async fn stop_actor(&self, name: impl Into<String>) -> Result<(), ActorsError> {
        stop(self.actors(), name.into()).await
    }

    /// The actors that hold names, registered or spawned, by name; at most 10,000.
    ///
    /// # Errors
    /// There is no scheduler, or none that answers.
    pub async fn actors_list(&self) -> Result<Vec<ActorStatus>, ActorsError> {
        list(self.actors()).await
    }
}

impl Node {
    /// As [`Cluster::spawn`].
    pub fn spawn<A: RemoteActor>(&self, name: impl Into<String>, args: A::Args) -> Spawning<A> {
        Spawning::new(self.actors(), name.into(), args)
    }

    /// As [`Cluster::stop_actor`].
    ///
    /// # Errors
    /// As there.
    pub async fn stop_actor(&self, name: impl Into<String>) -> Result<(), ActorsError> {
        stop(self.actors(), name.into()).await
    }

    /// As [`Cluster::actors_list`].
    ///
    /// # Errors
    /// As there.
    pub async fn actors_list(&self) -> Result<Vec<ActorStatus>, ActorsError> {
        list(self.actors()).await
    }
}

impl ActorEnv {
    /// As [`Cluster::spawn`].
    pub fn spawn<A: RemoteActor>(&self, name: impl Into<String>, args: A::Args) -> Spawning<A> {
        Spawning::new(self.actors(), name.into(), args)
    }
}
