//! The actors that a node has been told to make.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use starling_core::directory::{ActorSpec, End, FromNode, Incarnation, Restart, SPAWNED_ON_NODE_MAX};
use starling_core::ids::NodeId;
use starling_remote::{Actors, Version};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::def::{ActorDef, Beginning, Begun};
use crate::connect::Nested;
use crate::directory_link::DirectoryLink;
use crate::host::Arbiters;

/// How long an actor may take to end when it is told to, before it is left alone.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes actors on its node, each with an arbiter of its own.
pub(crate) struct Spawner {
    arbiters: Arbiters,
    runtime: Handle,
    nested: Arc<Nested>,
    state: Mutex<State>,
    /// How many there are; for those who wait for one to go.
    count: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    slots: BTreeMap<String, Slot>,
    is_leaving: bool,
}

/// An actor that is being made, or runs.
struct Slot {
    incarnation: Incarnation,
    /// Set once it is made.
    actor: Option<u64>,
    stop: watch::Sender<bool>,
    /// Set if it is not made anew anywhere.
    is_over: bool,
}

/// One making of an actor.
struct Making {
    actors: Actors,
    directory: DirectoryLink,
    spec: Arc<ActorSpec>,
    incarnation: Incarnation,
    stop: watch::Receiver<bool>,
}

impl Spawner {
    /// On the current tokio runtime.
    pub(crate) fn new(arbiters: Arbiters, nested: Arc<Nested>) -> Spawner {
        let (runtime, count) = (Handle::current(), watch::Sender::new(0));
        Spawner { arbiters, runtime, nested, state: Mutex::default(), count }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes an actor, and tells the directory what came of it. One that is there already is told of again.
    pub(crate) fn start(
        self: &Arc<Spawner>,
        actors: &Actors,
        directory: &DirectoryLink,
        spec: Arc<ActorSpec>,
        incarnation: Incarnation,
    ) {
        let name = spec.name.clone();
        let started = |outcome| directory.report(FromNode::Started { name: name.clone(), incarnation, outcome });
        let mut state = self.lock();
        if state.is_leaving {
            return;
        }
        if let Some(slot) = state.slots.get(&name) {
            if slot.incarnation == incarnation {
                slot.actor.into_iter().for_each(|actor| started(Ok(actor)));
                return;
            }
            if slot.incarnation < incarnation {
                slot.stop.send_replace(true);
                drop(state);
                started(Err("an earlier one has not ended yet on this node".to_owned()));
            }
            return;
        }
        if state.slots.len() >= SPAWNED_ON_NODE_MAX {
            drop(state);
            let problem = format!("{SPAWNED_ON_NODE_MAX} actors are spawned on this node, which is as many as may be");
            return started(Err(problem));
        }
        let (stop, stopped) = watch::channel(false);
        state.slots.insert(name, Slot { incarnation, actor: None, stop, is_over: false });
        self.count.send_replace(state.slots.len());
        drop(state);
        let (actors, directory) = (actors.clone(), directory.clone());
        let making = Making { actors, directory, spec, incarnation, stop: stopped };
        self.runtime.spawn(Arc::clone(self).make(making));
    }

    /// Has an actor end; says whether there is one of this hosting.
    pub(crate) fn stop(&self, name: &str, actor: u64, is_over: bool) -> bool {
        let mut state = self.lock();
        let Some(slot) = state.slots.get_mut(name).filter(|slot| slot.actor == Some(actor)) else { return false };
        slot.is_over = is_over;
        slot.stop.send_replace(true);
        true
    }

    /// Has all of them end, and waits until they have, and their last states are kept elsewhere. None is made any more.
    pub(crate) async fn leave(&self) {
        {
            let mut state = self.lock();
            state.is_leaving = true;
            for slot in state.slots.values() {
                slot.stop.send_replace(true);
            }
        }
        let mut count = self.count.subscribe();
        if timeout(END_TIMEOUT, count.wait_for(|count| *count == 0)).await.is_err() {
            tracing::warn!("not all spawned actors have ended in time");
        }
    }

    /// An actor's whole life.
    async fn make(self: Arc<Spawner>, making: Making) {
        let (name, spec, incarnation) = (making.spec.name.clone(), making.spec.clone(), making.incarnation);
        let lived = self.live(&making).await;
        let (slot, is_leaving) = {
            let mut state = self.lock();
            (state.slots.remove(&name), state.is_leaving)
        };
        let is_over = match &lived {
            Ok(end) => {
                tracing::info!(actor = name, ?end, "a spawned actor has ended");
                let is_last = *end == End::Stopped && spec.restart != Restart::Always;
                // One that was told to end is not missed.
                let was_told = *making.stop.borrow();
                if !was_told {
                    making.directory.report(FromNode::Ended { name: name.clone(), incarnation, end: end.clone() });
                }
                slot.is_some_and(|slot| slot.is_over) || is_last && !was_told
            }
            Err(problem) => {
                tracing::warn!(actor = name, problem, "an actor could not be made");
                if !is_leaving {
                    let outcome = Err(problem.clone());
                    making.directory.report(FromNode::Started { name: name.clone(), incarnation, outcome });
                }
                false
            }
        };
        if is_over && !is_leaving && ActorDef::find(&spec.type_name).is_some_and(|def| def.has_snapshots) {
            making.actors.drop_snapshots(&name, spec.id).await;
        }
        let count = self.lock().slots.len();
        self.count.send_replace(count);
    }

    /// Makes the actor and waits for its end; or why it could not be made.
    async fn live(&self, making: &Making) -> Result<End, String> {
        let Making { actors, directory, spec, incarnation, stop } = making;
        let (name, incarnation) = (&spec.name, *incarnation);
        let def = ActorDef::find(&spec.type_name)
            .ok_or_else(|| format!("the program of this node cannot make actors of type {}", spec.type_name))?;
        let state = if def.has_snapshots { actors.latest_snapshot(name, spec.id).await } else { None };
        let arbiter = self.arbiters.make().await.ok_or("the node is shutting down")?;
        let states = watch::Sender::new(None);
        let beginning = Beginning {
            actors: actors.clone(),
            nested: self.nested.clone(),
            spec: spec.clone(),
            incarnation,
            state: state.map(|snapshot| snapshot.state),
            stop: stop.clone(),
            states: states.clone(),
        };
        let (made, is_made) = oneshot::channel();
        let (ended, has_ended) = oneshot::channel();
        arbiter.spawn_fn(move || drop(actix::spawn(run(def, beginning, made, ended))));
        let outcome = is_made.await.unwrap_or_else(|_| Err("the node is shutting down".to_owned()));
        let actor = match outcome {
            Ok(actor) => actor,
            Err(problem) => {
                arbiter.stop();
                return Err(problem);
            }
        };
        if let Some(slot) = self.lock().slots.get_mut(name) {
            slot.actor = Some(actor);
        }
        tracing::info!(actor = name, type_name = spec.type_name, "a spawned actor runs");
        directory.report(FromNode::Started { name: name.clone(), incarnation, outcome: Ok(actor) });
        let keeping = Keeping { actors, name, spec: spec.id, incarnation, kept: None };
        // The sender goes with the arbiter.
        let end = keeping.until(states.subscribe(), has_ended).await.unwrap_or(End::Panicked);
        actors.let_go(actor);
        arbiter.stop();
        Ok(end)
    }
}

/// Makes the actor and runs it to its end, on its arbiter.
async fn run(
    def: &'static ActorDef,
    beginning: Beginning,
    made: oneshot::Sender<Result<u64, String>>,
    ended: oneshot::Sender<End>,
) {
    let begun = catch_unwind(AssertUnwindSafe(|| def.begin(beginning)));
    // Nobody waits for any of it once the node has stopped.
    match begun {
        Ok(Ok(Begun { actor, running })) => {
            let _ = made.send(Ok(actor));
            let outcome = AssertUnwindSafe(running).catch_unwind().await;
            let _ = ended.send(if outcome.is_err() { End::Panicked } else { End::Stopped });
        }
        Ok(Err(error)) => drop(made.send(Err(describe(&*error)))),
        Err(_) => drop(made.send(Err("it panicked".to_owned()))),
    }
}

/// An error with its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// Has other nodes keep the states of an actor.
struct Keeping<'a> {
    actors: &'a Actors,
    name: &'a str,
    spec: u64,
    incarnation: Incarnation,
    /// The number of the last state that is kept, and where.
    kept: Option<(u64, Vec<NodeId>)>,
}

impl Keeping<'_> {
    /// Until the actor has ended; its last state too.
    async fn until(
        mut self,
        mut states: watch::Receiver<Option<(u64, Bytes)>>,
        mut has_ended: oneshot::Receiver<End>,
    ) -> Option<End> {
        let end = loop {
            tokio::select! {
                end = &mut has_ended => break end.ok(),
                changed = states.changed() => match changed {
                    Ok(()) => self.keep(&mut states).await,
                    Err(_) => break has_ended.await.ok(),
                },
            }
        };
        self.keep(&mut states).await;
        end
    }

    async fn keep(&mut self, states: &mut watch::Receiver<Option<(u64, Bytes)>>) {
        let Some((number, state)) = states.borrow_and_update().clone() else { return };
        let keepers = self.actors.keepers(self.name);
        // The same state is sent again when the nodes that are to keep it are others.
        if self.kept.as_ref().is_some_and(|(kept, at)| *kept == number && keepers.iter().all(|node| at.contains(node)))
        {
            return;
        }
        let version = Version { spec: self.spec, incarnation: self.incarnation, number };
        let at = self.actors.keep_snapshot(self.name, version, state).await;
        self.kept = Some((number, at));
    }
}
