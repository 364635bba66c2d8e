//! Actors that are reached together.

use std::fmt;
use std::marker::PhantomData;

use actix::Actor;

use crate::actors::Actors;
use crate::addr::RemoteAddr;
use crate::error::RemoteError;
use crate::message::{Accepts, RemoteMessage};

/// The actors of type `A` that have joined a group, on all nodes.
pub struct Group<A> {
    actors: Actors,
    name: String,
    actor: PhantomData<fn() -> A>,
}

impl<A> Clone for Group<A> {
    fn clone(&self) -> Group<A> {
        Group { actors: self.actors.clone(), name: self.name.clone(), actor: PhantomData }
    }
}

impl<A: Actor> Group<A> {
    pub(crate) fn new(actors: Actors, name: String) -> Group<A> {
        Group { actors, name, actor: PhantomData }
    }

    /// The members that are there now. Every node is asked, so keep them for as long as that will do. Members of another type are
    /// left out.
    pub async fn members(&self) -> Vec<RemoteAddr<A>> {
        let members = self.actors.members(&self.name).await;
        let of_type = members.into_iter().filter(|member| member.type_name == std::any::type_name::<A>());
        of_type.map(|member| RemoteAddr::new(&self.actors, None, member.node, member.actor)).collect()
    }

    /// Queues a message to each member that is there now, as [`RemoteAddr::tell`] does.
    pub async fn broadcast<M: RemoteMessage + Clone>(&self, message: M) -> Broadcast<A>
    where
        A: Accepts<M>,
    {
        let mut broadcast = Broadcast { reached: Vec::new(), failed: Vec::new() };
        for member in self.members().await {
            match member.tell(message.clone()).await {
                Ok(()) => broadcast.reached.push(member),
                Err(error) => broadcast.failed.push((member, error)),
            }
        }
        broadcast
    }
}

impl<A> fmt::Debug for Group<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({})", self.name)
    }
}

/// What became of a message to a group.
#[derive(Debug)]
pub struct Broadcast<A: Actor> {
    /// The members for whom it is queued.
    pub reached: Vec<RemoteAddr<A>>,
    /// Those for whom it could not be, and why.
    pub failed: Vec<(RemoteAddr<A>, RemoteError)>,
}
