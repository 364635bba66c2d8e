//! Which messages an actor takes from other nodes, and how it gets them.
//!
//! An actix actor handles any message type for which it has a [`Handler`]. From other nodes it takes only those that say so
//! (`#[remote(Actor)]` on the message, or [`accept!`](crate::accept)); each such pair writes a [`Handling`] into the binary.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::OnceLock;

use actix::dev::MessageResponse;
use actix::{Actor, Addr, Context, Handler, Message};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use crate::receipt::{Receipt, Reply};

/// A message that may be sent to an actor on another node: `#[derive(RemoteMessage)]`.
///
/// It and its result are encoded with postcard, so a self-describing type such as `serde_json::Value` must be turned into text.
pub trait RemoteMessage:
    Message<Result: Serialize + DeserializeOwned + Send> + Serialize + DeserializeOwned + Send + 'static
{
    /// What it is called on the wire.
    const DEF: MessageDef;
}

/// What a message type is called on the wire. Two nodes mean the same by a message only if all of it is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageDef {
    /// Its path.
    pub name: &'static str,
    /// Its version, which is raised for a change of meaning that its fields do not show.
    pub version: u32,
    /// A hash of its fields and its result, as they are written in the source.
    pub schema: u64,
}

/// An actor that takes messages of type `M` from other nodes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not take `{M}` from other nodes",
    note = "list the actor on the message: `#[derive(RemoteMessage)] #[remote({Self})]`, or use `starling::accept!`"
)]
pub trait Accepts<M: RemoteMessage>: Actor<Context = Context<Self>> + Handler<M> + Handler<Delivered<M>> {}

/// A message on its way into an actor, with whoever waits to hear what became of it.
pub struct Delivered<M: RemoteMessage>(Item<M>);

enum Item<M: RemoteMessage> {
    /// A message that nobody waits for the result of.
    Tell(M, Receipt),
    /// A message whose result is waited for on another node.
    Ask(M, Reply),
    /// A message whose result is waited for on this node.
    Here(M, oneshot::Sender<M::Result>, Receipt),
    /// Nothing but the question whether all before it has been handled.
    Mark(Reply),
}

impl<M: RemoteMessage> Message for Delivered<M> {
    type Result = ();
}

impl<M: RemoteMessage> Delivered<M> {
    pub(crate) fn tell(message: M, receipt: Receipt) -> Delivered<M> {
        Delivered(Item::Tell(message, receipt))
    }

    pub(crate) fn here(message: M, result: oneshot::Sender<M::Result>, receipt: Receipt) -> Delivered<M> {
        Delivered(Item::Here(message, result, receipt))
    }

    /// Has the actor handle it. For the generated [`Handler`] only.
    #[doc(hidden)]
    pub fn hand_to<A: Accepts<M>>(self, actor: &mut A, context: &mut Context<A>) {
        match self.0 {
            Item::Tell(message, receipt) => {
                <A as Handler<M>>::handle(actor, message, context).handle(context, None);
                receipt.handled();
            }
            Item::Here(message, result, receipt) => {
                <A as Handler<M>>::handle(actor, message, context).handle(context, Some(result));
                receipt.handled();
            }
            Item::Ask(message, reply) => {
                let (tx, mut rx) = oneshot::channel();
                <A as Handler<M>>::handle(actor, message, context).handle(context, Some(tx));
                match rx.try_recv() {
                    Ok(result) => reply.send(&result),
                    // An asynchronous handler.
                    Err(TryRecvError::Empty) => drop(actix::spawn(async move {
                        if let Ok(result) = rx.await {
                            reply.send(&result);
                        }
                    })),
                    // Dropped, which says that there is no answer.
                    Err(TryRecvError::Closed) => {}
                }
            }
            Item::Mark(reply) => reply.send(&()),
        }
    }
}

/// What is delivered over a link.
pub(crate) enum Arrival {
    Tell(Receipt),
    Ask(Reply),
}

type Deliver = fn(&(dyn Any + Send + Sync), &[u8], Arrival) -> Result<(), (postcard::Error, Arrival)>;
type Mark = fn(&(dyn Any + Send + Sync), Reply);

/// That an actor takes a message from other nodes.
#[derive(Clone, Copy)]
pub struct Handling {
    actor: fn() -> TypeId,
    message: MessageDef,
    deliver: Deliver,
    mark: Mark,
}

inventory::collect!(Handling);

impl Handling {
    /// For actors of type `A` and messages of type `M`.
    pub const fn of<A: Accepts<M>, M: RemoteMessage>() -> Handling {
        Handling { actor: TypeId::of::<A>, message: M::DEF, deliver: deliver::<A, M>, mark: mark::<A, M> }
    }

    /// Decodes a message and gives it to the actor at `addr`, which is an `Addr<A>`. What is no message comes back.
    pub(crate) fn deliver(
        &self,
        addr: &(dyn Any + Send + Sync),
        payload: &[u8],
        arrival: Arrival,
    ) -> Result<(), (postcard::Error, Arrival)> {
        (self.deliver)(addr, payload, arrival)
    }

    /// Has the actor answer once it has handled what came before.
    pub(crate) fn mark(&self, addr: &(dyn Any + Send + Sync), reply: Reply) {
        (self.mark)(addr, reply);
    }
}

fn deliver<A: Accepts<M>, M: RemoteMessage>(
    addr: &(dyn Any + Send + Sync),
    payload: &[u8],
    arrival: Arrival,
) -> Result<(), (postcard::Error, Arrival)> {
    // What is registered for `A` is an `Addr<A>`; a receipt that is dropped says that nothing was handled.
    let Some(addr) = addr.downcast_ref::<Addr<A>>() else { return Ok(()) };
    let message: M = match postcard::from_bytes(payload) {
        Ok(message) => message,
        Err(error) => return Err((error, arrival)),
    };
    // Past the mailbox's own bound: the sender's window is the bound.
    addr.do_send(Delivered(match arrival {
        Arrival::Tell(receipt) => Item::Tell(message, receipt),
        Arrival::Ask(reply) => Item::Ask(message, reply),
    }));
    Ok(())
}

fn mark<A: Accepts<M>, M: RemoteMessage>(addr: &(dyn Any + Send + Sync), reply: Reply) {
    if let Some(addr) = addr.downcast_ref::<Addr<A>>() {
        addr.do_send(Delivered::<M>(Item::Mark(reply)));
    }
}

/// What the actors of one type take.
#[derive(Default)]
pub(crate) struct Handlings {
    by_name: HashMap<&'static str, Vec<Handling>>,
}

impl Handlings {
    /// Those of an actor type, as they are linked into this program.
    pub(crate) fn of(actor: TypeId) -> &'static Handlings {
        static LINKED: OnceLock<HashMap<TypeId, Handlings>> = OnceLock::new();
        static NONE: OnceLock<Handlings> = OnceLock::new();
        let linked = LINKED.get_or_init(|| {
            let mut linked: HashMap<TypeId, Handlings> = HashMap::new();
            for handling in inventory::iter::<Handling> {
                let of_actor = linked.entry((handling.actor)()).or_default();
                of_actor.by_name.entry(handling.message.name).or_default().push(*handling);
            }
            linked
        });
        linked.get(&actor).unwrap_or_else(|| NONE.get_or_init(Handlings::default))
    }

    /// How a message is handled; the versions that are known of its name if it is not this one.
    pub(crate) fn find(&self, name: &str, version: u32, schema: u64) -> Result<&Handling, Vec<u32>> {
        let named = self.by_name.get(name).map_or(&[][..], Vec::as_slice);
        named
            .iter()
            .find(|handling| handling.message.version == version && handling.message.schema == schema)
            .ok_or_else(|| named.iter().map(|handling| handling.message.version).collect())
    }

    /// Any of them.
    pub(crate) fn any(&self) -> Option<&Handling> {
        self.by_name.values().flatten().next()
    }
}

/// Has an actor take messages from other nodes: `accept!(Counter: Add, Get)`. For an actor in another crate than its messages;
/// in the same crate `#[remote(Counter)]` on the message does the same.
#[macro_export]
macro_rules! accept {
    ($actor:ty : $($message:ty),+ $(,)?) => {$(
        impl $crate::__remote::actix::Handler<$crate::__remote::Delivered<$message>> for $actor {
            type Result = ();

            fn handle(
                &mut self,
                message: $crate::__remote::Delivered<$message>,
                context: &mut <$actor as $crate::__remote::actix::Actor>::Context,
            ) {
                message.hand_to(self, context);
            }
        }

        impl $crate::__remote::Accepts<$message> for $actor {}

        $crate::__remote::inventory::submit! { $crate::__remote::Handling::of::<$actor, $message>() }
    )+};
}
