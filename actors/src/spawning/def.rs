//! How an actor is made from bytes, for each type that is marked with `#[starling::actor]`.

use std::any::type_name;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix::fut::{ActorFutureExt, wrap_future};
use actix::{ActorContext, AsyncContext, Context};
use bytes::Bytes;
use futures::future::LocalBoxFuture;
use starling_core::directory::{ActorSpec, Incarnation};
use starling_remote::{Actors, SNAPSHOT_BYTES_MAX};
use tokio::sync::watch;

use super::actor::{ActorEnv, BoxError, RemoteActor, Snapshot};
use crate::connect::Nested;

/// The shortest time between two states.
const EVERY_MIN: Duration = Duration::from_millis(10);

/// A type of which the cluster can make actors.
pub struct ActorDef {
    type_name: fn() -> &'static str,
    pub(super) has_snapshots: bool,
    begin: fn(Beginning) -> Result<Begun, BoxError>,
}

inventory::collect!(ActorDef);

/// What an actor is made from.
pub(super) struct Beginning {
    pub(super) actors: Actors,
    pub(super) nested: Arc<Nested>,
    pub(super) spec: Arc<ActorSpec>,
    pub(super) incarnation: Incarnation,
    pub(super) state: Option<Bytes>,
    /// Turns to `true` when it is to end.
    pub(super) stop: watch::Receiver<bool>,
    /// The last state, with its number.
    pub(super) states: watch::Sender<Option<(u64, Bytes)>>,
}

/// An actor that is hosted, and runs while its future is polled.
pub(super) struct Begun {
    pub(super) actor: u64,
    pub(super) running: LocalBoxFuture<'static, ()>,
}

impl ActorDef {
    /// For actors that are made from their arguments.
    pub const fn of<A: RemoteActor>() -> ActorDef {
        ActorDef { type_name: type_name::<A>, has_snapshots: false, begin: begin_anew::<A> }
    }

    /// For actors whose state is kept.
    pub const fn with_snapshots<A: Snapshot>() -> ActorDef {
        ActorDef { type_name: type_name::<A>, has_snapshots: true, begin: begin_from_state::<A> }
    }

    fn linked() -> &'static BTreeMap<&'static str, &'static ActorDef> {
        static LINKED: OnceLock<BTreeMap<&'static str, &'static ActorDef>> = OnceLock::new();
        LINKED.get_or_init(|| inventory::iter::<ActorDef>().map(|def| ((def.type_name)(), def)).collect())
    }

    /// That of a type of this program.
    pub(super) fn find(type_name: &str) -> Option<&'static ActorDef> {
        ActorDef::linked().get(type_name).copied()
    }

    /// The types of this program.
    pub(crate) fn types() -> Vec<String> {
        ActorDef::linked().keys().map(|&name| name.to_owned()).collect()
    }

    /// Makes an actor, on the thread where it is to run.
    pub(super) fn begin(&self, beginning: Beginning) -> Result<Begun, BoxError> {
        (self.begin)(beginning)
    }
}

fn begin_anew<A: RemoteActor>(beginning: Beginning) -> Result<Begun, BoxError> {
    let args = beginning.actors.decode(&beginning.spec.args)?;
    begin(beginning, |env| <A as RemoteActor>::create(args, env), |_| {}, |_| {})
}

fn begin_from_state<A: Snapshot>(mut beginning: Beginning) -> Result<Begun, BoxError> {
    let args = beginning.actors.decode(&beginning.spec.args)?;
    let state = beginning.state.take();
    let state = state.map(|state| beginning.actors.decode::<A::State>(&state)).transpose()?;
    let states = States { name: beginning.spec.name.clone(), last: None, told: beginning.states.clone() };
    let states = Rc::new(RefCell::new(states));
    let at_last = states.clone();
    begin(
        beginning,
        |env| match state {
            Some(state) => A::restore(args, state, env),
            None => <A as RemoteActor>::create(args, env),
        },
        |context: &mut Context<A>| {
            context.run_interval(A::EVERY.max(EVERY_MIN), move |actor, _| states.borrow_mut().take(actor));
        },
        move |actor| at_last.borrow_mut().take(actor),
    )
}

/// Hosts an actor, makes it, and has it end when it is told to.
fn begin<A: RemoteActor>(
    beginning: Beginning,
    create: impl FnOnce(&ActorEnv) -> Result<A, BoxError>,
    install: impl FnOnce(&mut Context<A>),
    at_last: impl FnOnce(&A) + 'static,
) -> Result<Begun, BoxError> {
    let Beginning { actors, nested, spec, incarnation, mut stop, .. } = beginning;
    let mut context = Context::<A>::new();
    let actor = actors.host(&spec.name, context.address(), spec.id, incarnation)?;
    let hosting = Hosting { actors: &actors, actor, is_made: false };
    let env = ActorEnv { actors: actors.clone(), nested, name: spec.name.as_str().into(), actor };
    let made = create(&env)?;
    hosting.keep();
    install(&mut context);
    let stopped = async move {
        // Whoever could tell it is gone: so is the node.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    context.spawn(wrap_future::<_, A>(stopped).map(|(), actor, context: &mut Context<A>| {
        at_last(actor);
        context.stop();
    }));
    Ok(Begun { actor, running: Box::pin(context.into_future(made)) })
}

/// An actor that is hosted already, while it is made.
struct Hosting<'a> {
    actors: &'a Actors,
    actor: u64,
    is_made: bool,
}

impl Hosting<'_> {
    fn keep(mut self) {
        self.is_made = true;
    }
}

impl Drop for Hosting<'_> {
    /// It could not be made.
    fn drop(&mut self) {
        if !self.is_made {
            self.actors.let_go(self.actor);
        }
    }
}

/// The states of one actor.
struct States {
    name: String,
    last: Option<(u64, Bytes)>,
    told: watch::Sender<Option<(u64, Bytes)>>,
}

impl States {
    fn take<A: Snapshot>(&mut self, actor: &A) {
        let state = match postcard::to_stdvec(&actor.snapshot()) {
            Ok(state) if state.len() <= SNAPSHOT_BYTES_MAX => Bytes::from(state),
            Ok(state) => {
                let (bytes, max) = (state.len(), SNAPSHOT_BYTES_MAX);
                return tracing::error!(actor = self.name, bytes, max, "the state of an actor is too large to be kept");
            }
            Err(error) => {
                return tracing::error!(actor = self.name, %error, "the state of an actor cannot be encoded");
            }
        };
        let number = match &self.last {
            Some((number, last)) if *last == state => *number,
            Some((number, _)) => number + 1,
            None => 1,
        };
        self.last = Some((number, state));
        self.told.send_replace(self.last.clone());
    }
}
