//! The address of an actor, wherever it is.

use std::any::type_name;
use std::cell::RefCell;
use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use actix::{Actor, Addr};
use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use starling_core::ids::NodeId;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

use crate::actors::Actors;
use crate::error::{Refused, RemoteError};
use crate::hosted::Hosted;
use crate::message::{Accepts, Delivered, RemoteMessage};
use crate::peer::{Answer, Lost, Target};
use crate::receipt::Receipt;
use crate::wire::{ActorId, MESSAGE_BYTES_MAX, NoReply, WINDOW};

/// How long an answer is waited for if nothing else is said.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long it takes until a name that nobody holds at the moment is looked up again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The address of an actor of type `A`, on this node or another. Cheap to clone. It can be part of a message and an argument of a
/// task, and then belongs to the node that the message or task comes to.
///
/// Messages of one sender reach the actor in the order in which they were sent, whatever their types. At most 4,096 of a node
/// are on their way to one actor. An address that was found by a name follows the name when another actor takes it.
///
/// ```no_run
/// # use actix::{Actor, Context, Handler, Message};
/// # use starling_remote::{Actors, RemoteMessage};
/// # #[derive(serde::Serialize, serde::Deserialize, Message, RemoteMessage)]
/// # #[rtype(result = "u64")]
/// # #[remote(Counter, crate = starling_remote)]
/// # struct Add(u64);
/// # struct Counter(u64);
/// # impl Actor for Counter {
/// #     type Context = Context<Counter>;
/// # }
/// # impl Handler<Add> for Counter {
/// #     type Result = u64;
/// #     fn handle(&mut self, Add(n): Add, _: &mut Context<Counter>) -> u64 {
/// #         self.0 += n;
/// #         self.0
/// #     }
/// # }
/// # async fn run(node: Actors) -> Result<(), Box<dyn std::error::Error>> {
/// let counter = node.lookup::<Counter>("hits").await?;
/// let total = counter.send(Add(1)).await?; // asks, and waits for the answer
/// counter.tell(Add(2)).await?; // waits only while too many are on their way
/// counter.do_send(Add(3))?; // never waits
/// counter.flush().await?; // all of them have been handled
/// # Ok(())
/// # }
/// ```
pub struct RemoteAddr<A: Actor> {
    inner: Arc<Inner>,
    actor: PhantomData<fn() -> A>,
}

struct Inner {
    /// The name by which it was found.
    name: Option<String>,
    /// Unset while it is known only from bytes.
    actors: OnceLock<Actors>,
    place: Mutex<Place>,
}

/// Where the actor is.
struct Place {
    node: NodeId,
    actor: ActorId,
    route: Route,
}

/// The way there.
#[derive(Clone)]
enum Route {
    Unknown,
    Here(Weak<Hosted>),
    There(Arc<Target>),
}

/// Why an actor ended, as far as those who watch it can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// It has ended, or is not registered any more.
    Stopped,
    /// Its node is gone.
    NodeLost,
}

impl<A: Actor> Clone for RemoteAddr<A> {
    fn clone(&self) -> RemoteAddr<A> {
        RemoteAddr { inner: self.inner.clone(), actor: PhantomData }
    }
}

impl<A: Actor> RemoteAddr<A> {
    pub(crate) fn new(actors: &Actors, name: Option<String>, node: NodeId, actor: ActorId) -> RemoteAddr<A> {
        let place = Place { node, actor, route: Route::Unknown };
        RemoteAddr::of(Some(actors), name, place)
    }

    pub(crate) fn local(actors: &Actors, name: Option<String>, hosted: &Arc<Hosted>) -> RemoteAddr<A> {
        let place = Place { node: actors.node(), actor: hosted.id, route: Route::Here(Arc::downgrade(hosted)) };
        RemoteAddr::of(Some(actors), name, place)
    }

    fn of(actors: Option<&Actors>, name: Option<String>, place: Place) -> RemoteAddr<A> {
        let actors = actors.map_or_else(OnceLock::new, |actors| OnceLock::from(actors.clone()));
        RemoteAddr { inner: Arc::new(Inner { name, actors, place: Mutex::new(place) }), actor: PhantomData }
    }

    /// The node where the actor is, as far as this address knows.
    pub fn node(&self) -> NodeId {
        self.inner.place().node
    }

    /// The name by which the actor was found, if it was.
    pub fn name(&self) -> Option<&str> {
        self.inner.name.as_deref()
    }

    /// Has an address that came out of bytes belong to a node or client: messages to the actor go from there. One inside of a
    /// message, or an argument of a task, belongs to the node that it comes to without that. Does nothing to others.
    pub fn bind(self, actors: &Actors) -> RemoteAddr<A> {
        // Whoever bound it first has it.
        let _ = self.inner.actors.set(actors.clone());
        self
    }

    /// Sends a message and waits for the answer: `addr.send(message).await`, at most 30 s, or as
    /// [`deadline`](Asking::deadline) says. Waits for room in the actor's window as well. The message is sent when this is first
    /// polled. If nobody holds the address's name at the moment, the next holder is waited for.
    ///
    /// # Errors
    /// As [`RemoteError`] says for each: whether the message may have been handled.
    pub fn send<M: RemoteMessage>(&self, message: M) -> Asking<A, M>
    where
        A: Accepts<M>,
    {
        Asking { addr: self.clone(), message, deadline: DEADLINE }
    }

    /// Queues a message, and waits while too many are on their way. `Ok` does not say that it is handled: if it turns out that it
    /// was not, the next use of the address says so, and so does [`flush`](RemoteAddr::flush).
    ///
    /// # Errors
    /// [`RemoteError::Undelivered`] if earlier ones were lost; otherwise why this one cannot be queued.
    pub async fn tell<M: RemoteMessage>(&self, message: M) -> Result<(), RemoteError>
    where
        A: Accepts<M>,
    {
        let route = self.route().await?;
        self.inner.check_lost(&route)?;
        match &route {
            Route::Here(hosted) => {
                let hosted = hosted.upgrade().filter(|hosted| hosted.is_here()).ok_or_else(|| self.inner.stopped())?;
                hosted.local.take().await;
                self.hand_over(&hosted, message);
                Ok(())
            }
            Route::There(target) => {
                if target.is_congested() {
                    target.uncongested().await;
                }
                let permit = match target.room.acquire().await {
                    Ok(permit) => permit,
                    Err(_) => return Err(self.inner.lost(target)),
                };
                let told = encoded(&message, |payload| target.tell(&M::DEF, payload))?;
                told.map_err(|lost| self.inner.node_lost(lost))?;
                permit.forget();
                Ok(())
            }
            Route::Unknown => Err(RemoteError::NotBound),
        }
    }

    /// Queues a message if that can be done at once.
    ///
    /// # Errors
    /// Gives the message back: [`RemoteError::Full`] if too many are on their way, [`RemoteError::Undelivered`] if earlier ones
    /// were lost, [`RemoteError::Stopped`] if the actor has ended; otherwise why it cannot be queued.
    pub fn do_send<M: RemoteMessage>(&self, message: M) -> Result<(), Refused<M>>
    where
        A: Accepts<M>,
    {
        let route = match self.inner.route_now().and_then(|route| self.inner.check_lost(&route).map(|()| route)) {
            Ok(route) => route,
            Err(error) => return Err(Refused { message, error }),
        };
        match &route {
            Route::Here(hosted) => {
                let Some(hosted) = hosted.upgrade().filter(|hosted| hosted.is_here()) else {
                    return Err(Refused { message, error: self.inner.stopped() });
                };
                if !hosted.local.try_take() {
                    return Err(Refused { message, error: self.inner.full() });
                }
                self.hand_over(&hosted, message);
                Ok(())
            }
            Route::There(target) => {
                let told = match target.room.try_acquire() {
                    Ok(_) if target.is_congested() => Err(self.inner.full()),
                    Ok(permit) => encoded(&message, |payload| target.tell(&M::DEF, payload))
                        .and_then(|told| told.map_err(|lost| self.inner.node_lost(lost)))
                        .map(|()| permit.forget()),
                    Err(tokio::sync::TryAcquireError::NoPermits) => Err(self.inner.full()),
                    Err(tokio::sync::TryAcquireError::Closed) => Err(self.inner.lost(target)),
                };
                told.map_err(|error| Refused { message, error })
            }
            Route::Unknown => Err(Refused { message, error: RemoteError::NotBound }),
        }
    }

    /// Waits until the actor has handled every message that was sent by this address and its clones before.
    ///
    /// # Errors
    /// [`RemoteError::Undelivered`] if it has not, or if that cannot be known.
    pub async fn flush(&self) -> Result<(), RemoteError> {
        let route = self.inner.route_now()?;
        match &route {
            Route::Here(hosted) => {
                if let Some(hosted) = hosted.upgrade() {
                    hosted.local.flush().await;
                }
            }
            Route::There(target) => {
                if let Ok(permit) = target.room.acquire().await
                    && let Ok(marked) = target.mark()
                {
                    permit.forget();
                    // An actor that has ended, or a lost link, is told by what was lost with it.
                    let _ = marked.await;
                }
            }
            Route::Unknown => {}
        }
        self.inner.check_lost(&route)
    }

    /// Waits until the actor has ended, or its node is gone. Which actor that is, is decided when this is called: one that takes
    /// its name later is another. actix tells nobody when an actor ends, so it is noticed within about 100 ms.
    ///
    /// # Errors
    /// [`RemoteError::NotBound`].
    pub async fn ended(&self) -> Result<Ended, RemoteError> {
        let (node, actor) = {
            let place = self.inner.place();
            (place.node, place.actor)
        };
        loop {
            match self.inner.route_now() {
                Ok(Route::Here(hosted)) => {
                    let Some(is_gone) = hosted.upgrade().map(|hosted| hosted.is_gone.subscribe()) else {
                        return Ok(Ended::Stopped);
                    };
                    let mut is_gone = is_gone;
                    // An error says that it is gone as well.
                    let _ = is_gone.wait_for(|is_gone| *is_gone).await;
                    return Ok(Ended::Stopped);
                }
                Ok(Route::There(target)) => {
                    let mut changed = target.watch();
                    let gone = changed.wait_for(|is_gone| *is_gone || target.peer().lost().is_some()).await;
                    if gone.is_ok_and(|is_gone| *is_gone) {
                        return Ok(Ended::Stopped);
                    }
                }
                Ok(Route::Unknown) => return Err(RemoteError::NotBound),
                Err(RemoteError::Stopped { .. }) => return Ok(Ended::Stopped),
                Err(RemoteError::NodeLost { .. }) => {}
                Err(error) => return Err(error),
            }
            // The link alone may have broken.
            let actors = self.inner.actors()?;
            if !actors.is_member(node) {
                return Ok(Ended::NodeLost);
            }
            sleep(AGAIN_AFTER).await;
            let mut place = self.inner.place();
            if place.node != node || place.actor != actor {
                return Ok(Ended::Stopped);
            }
            place.route = Route::Unknown;
        }
    }

    /// Gives a message to an actor of this node. The caller has taken its place in the window.
    fn hand_over<M: RemoteMessage>(&self, hosted: &Hosted, message: M)
    where
        A: Accepts<M>,
    {
        let receipt = Receipt::new(hosted.local.clone());
        // A receipt that is dropped tells that nothing was handled.
        if let Some(addr) = hosted.addr.downcast_ref::<Addr<A>>() {
            addr.do_send(Delivered::tell(message, receipt));
        }
    }

    /// The way to the actor; to the one that holds the name now, if there is a name.
    async fn route(&self) -> Result<Route, RemoteError> {
        match self.inner.route_now() {
            Ok(route) => Ok(route),
            Err(RemoteError::Stopped { .. } | RemoteError::NodeLost { .. }) if self.inner.name.is_some() => {
                self.inner.look_up::<A>().await?;
                self.inner.route_now()
            }
            Err(error) => Err(error),
        }
    }

    async fn ask<M: RemoteMessage>(&self, message: M, deadline: Duration) -> Result<M::Result, RemoteError>
    where
        A: Accepts<M>,
    {
        let until = Instant::now() + deadline;
        let mut message = Some(message);
        loop {
            let asked = timeout_at(until, self.ask_once(&mut message)).await;
            match asked {
                Ok(Err(RemoteError::NotHeld { .. } | RemoteError::Stopped { .. } | RemoteError::NodeLost { .. }))
                    if self.inner.name.is_some() && message.is_some() && Instant::now() + AGAIN_AFTER < until =>
                {
                    // It was not sent: whoever holds the name next gets it.
                    sleep(AGAIN_AFTER).await;
                }
                Ok(outcome) => return outcome,
                Err(_) => return Err(RemoteError::Deadline { actor: self.inner.label(), deadline }),
            }
        }
    }

    /// Takes the message once it may reach the actor.
    async fn ask_once<M: RemoteMessage>(&self, message: &mut Option<M>) -> Result<M::Result, RemoteError>
    where
        A: Accepts<M>,
    {
        let route = self.route().await?;
        self.inner.check_lost(&route)?;
        match &route {
            Route::Here(hosted) => {
                let hosted = hosted.upgrade().filter(|hosted| hosted.is_here()).ok_or_else(|| self.inner.stopped())?;
                hosted.local.take().await;
                let Some(message) = message.take() else { return Err(self.inner.stopped()) };
                let (result, waiting) = oneshot::channel();
                let receipt = Receipt::new(hosted.local.clone());
                if let Some(addr) = hosted.addr.downcast_ref::<Addr<A>>() {
                    addr.do_send(Delivered::here(message, result, receipt));
                }
                drop(hosted);
                waiting.await.map_err(|_| self.inner.stopped())
            }
            Route::There(target) => {
                let permit = target.room.acquire().await.map_err(|_| self.inner.lost(target))?;
                let Some(taken) = message.take() else { return Err(self.inner.stopped()) };
                let asked = encoded(&taken, |payload| target.ask(&M::DEF, payload))?;
                let waiting = match asked {
                    Ok(waiting) => waiting,
                    Err(lost) => {
                        *message = Some(taken);
                        return Err(self.inner.node_lost(lost));
                    }
                };
                permit.forget();
                let Ok(answer) = target.peer().pace.wait(waiting).await else {
                    if !target.peer().was_open() {
                        *message = Some(taken);
                    }
                    return Err(self.inner.lost(target));
                };
                if answer == Err(NoReply::NoActor) {
                    *message = Some(taken);
                }
                self.inner.result::<M>(answer)
            }
            Route::Unknown => Err(RemoteError::NotBound),
        }
    }
}

impl Inner {
    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn actors(&self) -> Result<&Actors, RemoteError> {
        if let Some(actors) = self.actors.get() {
            return Ok(actors);
        }
        let current = Actors::current().ok_or(RemoteError::NotBound)?;
        Ok(self.actors.get_or_init(|| current))
    }

    /// The way to the actor where it was last known to be.
    fn route_now(&self) -> Result<Route, RemoteError> {
        let mut place = self.place();
        match &place.route {
            Route::Here(hosted) => {
                let is_here = hosted.upgrade().is_some_and(|hosted| hosted.is_here());
                return if is_here { Ok(place.route.clone()) } else { Err(self.stopped()) };
            }
            Route::There(target) if target.is_usable() => return Ok(place.route.clone()),
            // What was lost with the link is told first.
            Route::There(target) if *target.is_gone.borrow() => {
                let lost = target.take_lost();
                drop(place);
                return Err(lost.map_or_else(|| self.stopped(), |(messages, why)| self.undelivered(messages, &why)));
            }
            Route::There(target) => {
                if let Some((messages, why)) = target.take_lost() {
                    drop(place);
                    return Err(self.undelivered(messages, &why));
                }
            }
            Route::Unknown => {}
        }
        let actors = self.actors()?;
        let (node, actor) = (place.node, place.actor);
        if node == actors.node() {
            let hosted = actors.hosted(actor);
            place.route = hosted.map_or(Route::Unknown, |hosted| Route::Here(Arc::downgrade(&hosted)));
            let is_there = matches!(place.route, Route::Here(_));
            return if is_there { Ok(place.route.clone()) } else { Err(self.stopped()) };
        }
        if !actors.is_member(node) {
            let reason = "it has left the mesh, or does not answer".to_owned();
            return Err(RemoteError::NodeLost { actor: self.label_in(&place), node, reason });
        }
        let target = actors.target(node, actor).map_err(|Lost(reason)| RemoteError::NodeLost {
            actor: self.label_in(&place),
            node,
            reason: reason.to_string(),
        })?;
        place.route = Route::There(target);
        Ok(place.route.clone())
    }

    /// Finds who holds the name now.
    async fn look_up<A: Actor>(&self) -> Result<(), RemoteError> {
        let Some(name) = &self.name else { return Ok(()) };
        let holder = self.actors()?.find(name).await?;
        if holder.type_name != type_name::<A>() {
            let (held, wanted) = (holder.type_name, type_name::<A>().to_owned());
            return Err(RemoteError::WrongActor { name: name.clone(), held, wanted });
        }
        let mut place = self.place();
        *place = Place { node: holder.node, actor: holder.actor, route: Route::Unknown };
        Ok(())
    }

    /// Tells of messages that were lost since this was last asked.
    fn check_lost(&self, route: &Route) -> Result<(), RemoteError> {
        match route {
            Route::Here(hosted) => match hosted.upgrade().map_or(0, |hosted| hosted.local.take_dropped()) {
                0 => Ok(()),
                messages => Err(self.undelivered(messages, &NoReply::Stopped)),
            },
            Route::There(target) => {
                target.take_lost().map_or(Ok(()), |(messages, why)| Err(self.undelivered(messages, &why)))
            }
            Route::Unknown => Ok(()),
        }
    }

    fn result<M: RemoteMessage>(&self, answer: Answer) -> Result<M::Result, RemoteError> {
        let type_name = type_name::<M>();
        match answer {
            Ok(payload) => self.decode::<M>(&payload),
            Err(NoReply::Stopped | NoReply::NoActor) => Err(self.stopped()),
            Err(NoReply::UnknownMessage { known }) => {
                let (message, version) = (M::DEF.name, M::DEF.version);
                Err(RemoteError::UnknownMessage { actor: self.label(), message, version, known })
            }
            Err(NoReply::Decode(message)) => Err(RemoteError::Decode { type_name, message }),
            Err(NoReply::Encode(message)) => {
                Err(RemoteError::Encode { type_name: std::any::type_name::<M::Result>(), message })
            }
            Err(NoReply::TooLarge { size }) => Err(RemoteError::TooLarge { size, max: MESSAGE_BYTES_MAX as u64 }),
        }
    }

    /// Addresses inside of the answer belong where this one does.
    fn decode<M: RemoteMessage>(&self, payload: &Bytes) -> Result<M::Result, RemoteError> {
        let decoded = crate::actors::scope(self.actors()?, || postcard::from_bytes(payload));
        decoded.map_err(|error| RemoteError::Decode { type_name: type_name::<M>(), message: error.to_string() })
    }

    /// What the actor is called in errors.
    fn label(&self) -> String {
        let place = self.place();
        self.label_in(&place)
    }

    fn label_in(&self, place: &Place) -> String {
        self.name.clone().unwrap_or_else(|| format!("{:x} on node {}", place.actor, place.node))
    }

    fn stopped(&self) -> RemoteError {
        RemoteError::Stopped { actor: self.name.clone().unwrap_or_else(|| "of this address".to_owned()) }
    }

    fn full(&self) -> RemoteError {
        RemoteError::Full { actor: self.label(), window: WINDOW }
    }

    fn lost(&self, target: &Target) -> RemoteError {
        if let Some((messages, why)) = target.take_lost() {
            return self.undelivered(messages, &why);
        }
        self.node_lost(target.peer().lost().unwrap_or_else(|| Lost("the link to it is closed".into())))
    }

    fn node_lost(&self, Lost(reason): Lost) -> RemoteError {
        let place = self.place();
        RemoteError::NodeLost { actor: self.label_in(&place), node: place.node, reason: reason.to_string() }
    }

    fn undelivered(&self, messages: u64, why: &NoReply) -> RemoteError {
        let reason = match why {
            NoReply::Stopped | NoReply::NoActor => "the actor has ended, or its node is lost".to_owned(),
            NoReply::UnknownMessage { known } => {
                format!("the actor's program does not take such a message; it knows versions {known:?} of it")
            }
            NoReply::Decode(message) => format!("the actor's node cannot decode them: {message}"),
            other => format!("{other:?}"),
        };
        RemoteError::Undelivered { actor: self.label(), messages, reason }
    }
}

/// A message that is being sent and whose answer is waited for: await it.
#[must_use = "the message is sent when this is awaited"]
pub struct Asking<A: Actor, M> {
    addr: RemoteAddr<A>,
    message: M,
    deadline: Duration,
}

impl<A: Actor, M> Asking<A, M> {
    /// Waits so long for the answer at most.
    pub fn deadline(self, deadline: Duration) -> Asking<A, M> {
        Asking { deadline, ..self }
    }
}

impl<A: Accepts<M>, M: RemoteMessage> IntoFuture for Asking<A, M> {
    type Output = Result<M::Result, RemoteError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.addr.ask(self.message, self.deadline).await })
    }
}

/// Encodes a message, and gives the bytes on, unless they are too many.
fn encoded<M: RemoteMessage, R>(message: &M, send: impl FnOnce(&[u8]) -> R) -> Result<R, RemoteError> {
    thread_local! {
        /// Reused from message to message.
        static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    /// A longer one is not kept.
    const KEPT_MAX: usize = 64 * 1024;

    // Encoding may send in turn.
    let mut buffer = SCRATCH.take();
    buffer.clear();
    let buffer = match postcard::to_extend(message, buffer) {
        Ok(buffer) => buffer,
        Err(error) => {
            return Err(RemoteError::Encode { type_name: type_name::<M>(), message: error.to_string() });
        }
    };
    if buffer.len() > MESSAGE_BYTES_MAX {
        return Err(RemoteError::TooLarge { size: buffer.len() as u64, max: MESSAGE_BYTES_MAX as u64 });
    }
    let sent = send(&buffer);
    if buffer.capacity() <= KEPT_MAX {
        SCRATCH.set(buffer);
    }
    Ok(sent)
}

impl<A: Actor> fmt::Debug for RemoteAddr<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteAddr<{}>({})", type_name::<A>(), self.inner.label())
    }
}

/// Equal if they lead to the same actor now.
impl<A: Actor> PartialEq for RemoteAddr<A> {
    fn eq(&self, other: &RemoteAddr<A>) -> bool {
        let key = |inner: &Inner| {
            let place = inner.place();
            (place.node, place.actor)
        };
        key(&self.inner) == key(&other.inner)
    }
}

impl<A: Actor> Eq for RemoteAddr<A> {}

#[derive(Serialize, Deserialize)]
struct Written {
    name: Option<String>,
    node: NodeId,
    actor: ActorId,
}

impl<A: Actor> Serialize for RemoteAddr<A> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (node, actor) = {
            let place = self.inner.place();
            (place.node, place.actor)
        };
        Written { name: self.inner.name.clone(), node, actor }.serialize(serializer)
    }
}

impl<'de, A: Actor> Deserialize<'de> for RemoteAddr<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RemoteAddr<A>, D::Error> {
        let Written { name, node, actor } = Written::deserialize(deserializer)?;
        Ok(RemoteAddr::of(Actors::current().as_ref(), name, Place { node, actor, route: Route::Unknown }))
    }
}
