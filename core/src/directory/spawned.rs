//! Actors that the cluster makes: where, when anew, and when no more.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{
    ARGS_BYTES_MAX, ActorSpec, ActorState, Answer, Asker, Directory, Effects, GIVEN_UP_MAX, HeldName, Holder,
    Incarnation, Node, Place, Restart, SPAWNED_BYTES_MAX, SPAWNED_MAX, SPAWNED_ON_NODE_MAX, ToNode, check_name,
};
use crate::ids::{NodeId, Time};
use crate::ledger::Entry;

/// How long, in microseconds, an actor that has failed once waits; twice as long after each failure more, up to
/// [`BACKOFF_US_MAX`].
const BACKOFF_US: u64 = 100_000;
const BACKOFF_US_MAX: u64 = 12_800_000;
/// How long failures count if the policy does not say.
const FAILURES_US: u64 = 60_000_000;
/// How many of the last failures are remembered.
const FAILURES_MAX: usize = 1_024;
/// How long it takes, in microseconds, until a node is looked for again, or the ledger is asked again.
const AGAIN_US: u64 = 500_000;
/// How many digits of a node's id mean the node: less may be the name of one that is not there.
const ID_PREFIX_MIN: usize = 8;
/// How many may wait for one actor to run.
const ASKED_MAX: usize = 1_024;

/// An actor that is spawned.
#[derive(Debug)]
pub(super) struct Spawned {
    pub(super) spec: Arc<ActorSpec>,
    pub(super) phase: Phase,
    /// Who hears when it runs.
    asked: Vec<Asker>,
    /// When it has failed, as far as that counts.
    failures: VecDeque<Time>,
    /// The node that ran it last.
    last: Option<NodeId>,
    pub(super) restarts: u32,
    pub(super) problem: Option<String>,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// The ledger is being told of it.
    Logging,
    /// It is to be made on some node, not before this time.
    Waiting { from: Time },
    /// A node has been told to make it.
    Starting { node: NodeId, incarnation: Incarnation },
    /// It runs.
    Running { holder: Holder, incarnation: Incarnation },
    /// The ledger is being told to forget it; again at this time if that was not possible. Then its holder is to stop.
    Forgetting { holder: Option<(Holder, Incarnation)>, asked: Vec<Asker>, again: Option<Time> },
}

/// How an actor came to its end.
#[derive(Debug)]
pub(super) enum Ending {
    Stopped,
    Panicked,
    /// It could not be made.
    NotMade(String),
    /// On a node that was not linked.
    Unseen,
    /// With the node of this name.
    NodeLost(String),
}

impl Ending {
    fn describe(&self) -> String {
        match self {
            Ending::Stopped => "it ended by itself".to_owned(),
            Ending::Panicked => "it panicked".to_owned(),
            Ending::NotMade(problem) => format!("it could not be made: {problem}"),
            Ending::Unseen => "it ended while its node had no link to the scheduler's".to_owned(),
            Ending::NodeLost(name) => format!("its node {name} was lost"),
        }
    }
}

impl Spawned {
    pub(super) fn new(spec: Arc<ActorSpec>, phase: Phase) -> Spawned {
        let failures = VecDeque::new();
        Spawned { spec, phase, asked: Vec::new(), failures, last: None, restarts: 0, problem: None }
    }

    pub(super) fn holder(&self) -> Option<&Holder> {
        if let Phase::Running { holder, .. } = &self.phase { Some(holder) } else { None }
    }

    /// The node that runs or makes it.
    pub(super) fn on(&self) -> Option<NodeId> {
        match &self.phase {
            Phase::Starting { node, .. } => Some(*node),
            Phase::Running { holder, .. } | Phase::Forgetting { holder: Some((holder, _)), .. } => Some(holder.node),
            Phase::Logging | Phase::Waiting { .. } | Phase::Forgetting { holder: None, .. } => None,
        }
    }

    /// That node, or the last one that did.
    pub(super) fn node(&self) -> Option<NodeId> {
        self.on().or(self.last)
    }

    pub(super) fn state(&self) -> ActorState {
        match self.phase {
            Phase::Logging | Phase::Starting { .. } => ActorState::Starting,
            Phase::Waiting { .. } => ActorState::Waiting,
            Phase::Running { .. } => ActorState::Running,
            Phase::Forgetting { .. } => ActorState::Stopping,
        }
    }
}

impl Directory {
    pub(super) fn insert(&mut self, spawned: Spawned) {
        self.spawned_bytes += spawned.spec.args.len();
        if let Some(before) = self.spawned.insert(spawned.spec.name.clone(), spawned) {
            self.spawned_bytes -= before.spec.args.len();
        }
    }

    /// Has nothing of it left but what the node that ran it does not know yet.
    fn remove(&mut self, name: &str) {
        self.leave_node(name);
        if let Some(spawned) = self.spawned.remove(name) {
            self.spawned_bytes -= spawned.spec.args.len();
        }
    }

    /// No node runs or makes it any more.
    fn leave_node(&mut self, name: &str) {
        if let Some(on) = self.spawned.get(name).and_then(Spawned::on)
            && let Some(node) = self.nodes.get_mut(&on)
        {
            node.spawned.remove(name);
        }
    }

    pub(super) fn on_spawn(&mut self, asker: Asker, spec: Arc<ActorSpec>, effects: &mut Effects) {
        let name = &spec.name;
        if let Some(spawned) = self.spawned.get_mut(name).filter(|spawned| spawned.spec.id == spec.id) {
            // Asked again, at a new link.
            match &spawned.phase {
                Phase::Running { holder, .. } => effects.answer(asker, Answer::Held(Some(holder.clone()))),
                _ if spawned.asked.len() < ASKED_MAX => spawned.asked.push(asker),
                _ => effects.answer(asker, Answer::Problem("too many wait for it".to_owned())),
            }
            return;
        }
        match self.check_spec(&spec) {
            Ok(()) => {}
            Err(answer) => return effects.answer(asker, answer),
        }
        self.given_up.retain(|(given_up, _)| given_up != name);
        effects.to_log.push(Entry::Actor(spec.clone()));
        self.insert(Spawned { asked: vec![asker], ..Spawned::new(spec, Phase::Logging) });
    }

    fn check_spec(&self, spec: &ActorSpec) -> Result<(), Answer> {
        let name = &spec.name;
        check_name(name).map_err(Answer::Problem)?;
        if let Some(holder) = self.registered.get(name) {
            return Err(Answer::Taken(holder.node));
        }
        if let Some(spawned) = self.spawned.get(name) {
            let problem = format!("an actor of the name {name} is spawned, and runs nowhere now");
            return Err(spawned.node().map_or(Answer::Problem(problem), Answer::Taken));
        }
        let problem = |text: String| Err(Answer::Problem(text));
        if spec.args.len() > ARGS_BYTES_MAX {
            return problem(format!("its arguments have {} bytes, and may have {ARGS_BYTES_MAX}", spec.args.len()));
        }
        if self.spawned.len() >= SPAWNED_MAX {
            return problem(format!("{SPAWNED_MAX} actors are spawned, which is as many as may be"));
        }
        if self.spawned_bytes + spec.args.len() > SPAWNED_BYTES_MAX {
            return problem(format!("the arguments of all spawned actors may have {SPAWNED_BYTES_MAX} bytes together"));
        }
        self.choose(spec, None).map(drop).map_err(Answer::Problem)
    }

    pub(super) fn on_stop(&mut self, asker: Asker, name: &str, effects: &mut Effects) {
        if !self.spawned.contains_key(name) {
            let problem = match self.registered.get(name) {
                Some(_) => format!("{name} was registered by its node, not spawned: the node takes it back"),
                None => format!("no actor of the name {name} is spawned"),
            };
            return effects.answer(asker, Answer::Problem(problem));
        }
        self.forget(name, "it was stopped", effects);
        if let Some(Spawned { phase: Phase::Forgetting { asked, .. }, .. }) = self.spawned.get_mut(name) {
            if asked.len() < ASKED_MAX {
                asked.push(asker);
            } else {
                effects.answer(asker, Answer::Problem("too many wait for it to stop".to_owned()));
            }
        }
    }

    /// Has the ledger forget it, unless it does already.
    fn forget(&mut self, name: &str, why: &str, effects: &mut Effects) {
        let Some(spawned) = self.spawned.get_mut(name) else { return };
        for asker in spawned.asked.drain(..) {
            effects.answer(asker, Answer::Problem(why.to_owned()));
        }
        let holder = match &spawned.phase {
            Phase::Forgetting { .. } => return,
            Phase::Running { holder, incarnation } => Some((holder.clone(), *incarnation)),
            // What it makes will be no actor of the directory's, and is told to stop then.
            Phase::Starting { .. } | Phase::Logging | Phase::Waiting { .. } => None,
        };
        if holder.is_none() {
            self.leave_node(name);
        }
        if let Some(spawned) = self.spawned.get_mut(name) {
            spawned.phase = Phase::Forgetting { holder, asked: Vec::new(), again: None };
            effects.to_log.push(Entry::ForgetActor(name.to_owned()));
        }
    }

    pub(super) fn on_logged(&mut self, now: Time, entry: &Entry, effects: &mut Effects) {
        match entry {
            Entry::Actor(spec) => {
                let of_it = self.spawned.get_mut(&spec.name).filter(|spawned| spawned.spec.id == spec.id);
                if let Some(spawned) = of_it
                    && matches!(spawned.phase, Phase::Logging)
                {
                    spawned.phase = Phase::Waiting { from: now };
                    self.place(now, &spec.name, effects);
                }
            }
            Entry::ForgetActor(name) => {
                let Some(Spawned { phase: Phase::Forgetting { holder, asked, .. }, .. }) = self.spawned.get_mut(name)
                else {
                    return;
                };
                let (holder, asked) = (holder.clone(), std::mem::take(asked));
                if let Some((holder, _)) = holder
                    && let Some(link) = self.nodes.get(&holder.node).and_then(|node| node.link)
                {
                    effects.tell(link, ToNode::Stop { name: name.clone(), actor: holder.actor, is_over: true });
                }
                self.remove(name);
                asked.into_iter().for_each(|asker| effects.answer(asker, Answer::Done));
            }
            _ => {}
        }
    }

    pub(super) fn on_not_logged(&mut self, now: Time, entry: &Entry, problem: &str, effects: &mut Effects) {
        match entry {
            Entry::Actor(spec) => {
                let of_it = self.spawned.get(&spec.name).filter(|spawned| spawned.spec.id == spec.id);
                if of_it.is_some_and(|spawned| matches!(spawned.phase, Phase::Logging)) {
                    // It may be in the ledger all the same.
                    self.forget(&spec.name, &format!("it could not be noted down: {problem}"), effects);
                }
            }
            Entry::ForgetActor(name) => {
                if let Some(Spawned { phase: Phase::Forgetting { again, .. }, .. }) = self.spawned.get_mut(name) {
                    *again = Some(Time(now.0 + AGAIN_US));
                }
            }
            _ => {}
        }
    }

    pub(super) fn on_started(
        &mut self,
        now: Time,
        node: NodeId,
        name: &str,
        incarnation: Incarnation,
        outcome: Result<u64, String>,
        effects: &mut Effects,
    ) {
        let is_awaited = self.spawned.get(name).is_some_and(|spawned| {
            matches!(spawned.phase, Phase::Starting { node: on, incarnation: of } if on == node && of == incarnation)
        });
        let link = self.nodes.get(&node).and_then(|node| node.link);
        match outcome {
            Ok(actor) if is_awaited => self.run(name, node, actor, incarnation, effects),
            Ok(_) if self.runs(node, name, incarnation) => {}
            // It was stopped, or made elsewhere, meanwhile.
            Ok(actor) => effects
                .to_nodes
                .extend(link.map(|link| (link, ToNode::Stop { name: name.to_owned(), actor, is_over: false }))),
            Err(problem) if is_awaited => self.ended(now, name, &Ending::NotMade(problem), effects),
            Err(_) => {}
        }
    }

    /// Whether the node runs this making of the actor, as far as the directory knows.
    pub(super) fn runs(&self, node: NodeId, name: &str, of: Incarnation) -> bool {
        match self.spawned.get(name).map(|spawned| &spawned.phase) {
            Some(
                Phase::Running { holder, incarnation } | Phase::Forgetting { holder: Some((holder, incarnation)), .. },
            ) => holder.node == node && *incarnation == of,
            _ => false,
        }
    }

    fn run(&mut self, name: &str, node: NodeId, actor: u64, incarnation: Incarnation, effects: &mut Effects) {
        self.leave_node(name);
        let Some((spawned, at)) = self.spawned.get_mut(name).zip(self.nodes.get_mut(&node)) else { return };
        at.spawned.insert(name.to_owned());
        let holder = Holder { node, actor, type_name: spawned.spec.type_name.clone() };
        for asker in spawned.asked.drain(..) {
            effects.answer(asker, Answer::Held(Some(holder.clone())));
        }
        spawned.last = Some(node);
        spawned.phase = Phase::Running { holder, incarnation };
    }

    /// A node says that it runs an actor; whether it is to go on with that.
    pub(super) fn adopt(
        &mut self,
        node: NodeId,
        held: &HeldName,
        id: u64,
        incarnation: Incarnation,
        effects: &mut Effects,
    ) -> bool {
        let Some(spawned) = self.spawned.get(&held.name).filter(|spawned| spawned.spec.id == id) else { return false };
        if incarnation.term == self.term {
            self.made = self.made.max(incarnation.number);
        }
        match &spawned.phase {
            Phase::Logging | Phase::Forgetting { holder: None, .. } => return false,
            Phase::Forgetting { holder: Some((holder, _)), .. } => return holder.node == node,
            Phase::Waiting { .. } => {}
            Phase::Starting { incarnation: later, .. } if *later > incarnation => return false,
            // It has not heard yet that it is made.
            Phase::Starting { .. } => {}
            Phase::Running { incarnation: later, .. } if *later > incarnation => return false,
            Phase::Running { holder, .. } if holder.node == node => {}
            Phase::Running { holder, .. } => {
                // That one was thought to be lost, or is: what was made later counts.
                if let Some(link) = self.nodes.get(&holder.node).and_then(|node| node.link) {
                    effects.tell(link, ToNode::Stop { name: held.name.clone(), actor: holder.actor, is_over: false });
                }
            }
        }
        self.run(&held.name, node, held.actor, incarnation, effects);
        true
    }

    /// It has ended: its policy says what follows.
    pub(super) fn ended(&mut self, now: Time, name: &str, ending: &Ending, effects: &mut Effects) {
        self.leave_node(name);
        let Some(spawned) = self.spawned.get_mut(name) else { return };
        if let Phase::Forgetting { holder, .. } = &mut spawned.phase {
            *holder = None;
            return;
        }
        spawned.last = spawned.on().or(spawned.last);
        spawned.phase = Phase::Waiting { from: now };
        spawned.problem = Some(ending.describe());
        // Somebody waits for its first making.
        if let (Ending::NotMade(problem), false) = (ending, spawned.asked.is_empty()) {
            let problem = problem.clone();
            return self.forget(name, &problem, effects);
        }
        let is_failure = !matches!(ending, Ending::Stopped);
        match spawned.spec.restart {
            Restart::Never if is_failure => return self.give_up(name, &ending.describe(), effects),
            Restart::Never => return self.forget(name, "it ended", effects),
            Restart::OnFailure { .. } if !is_failure => return self.forget(name, "it ended", effects),
            Restart::OnFailure { .. } | Restart::Always => {}
        }
        spawned.restarts = spawned.restarts.saturating_add(1);
        if matches!(ending, Ending::NodeLost(_)) {
            return;
        }
        let (max, within) = match spawned.spec.restart {
            Restart::OnFailure { max, within } => (Some(max), u64::try_from(within.as_micros()).unwrap_or(u64::MAX)),
            Restart::Never | Restart::Always => (None, FAILURES_US),
        };
        spawned.failures.push_back(now);
        spawned.failures.retain(|at| now.micros_since(*at) <= within);
        let failures = spawned.failures.len();
        if failures > FAILURES_MAX {
            spawned.failures.pop_front();
        }
        if max.is_some_and(|max| failures > max as usize) {
            let why = format!(
                "it failed {failures} times within {} s, the last time because {}",
                within / 1_000_000,
                ending.describe()
            );
            return self.give_up(name, &why, effects);
        }
        let backoff = BACKOFF_US.saturating_mul(1 << (failures - 1).min(7)).min(BACKOFF_US_MAX);
        spawned.phase = Phase::Waiting { from: Time(now.0 + backoff) };
    }

    /// It is not made anew, and whoever asks for it hears why.
    fn give_up(&mut self, name: &str, why: &str, effects: &mut Effects) {
        self.forget(name, why, effects);
        if self.given_up.len() >= GIVEN_UP_MAX {
            self.given_up.pop_front();
        }
        self.given_up.push_back((name.to_owned(), why.to_owned()));
    }

    /// Makes what is due to be made.
    pub(super) fn place_all(&mut self, now: Time, effects: &mut Effects) {
        if self.recovery.is_some() {
            return;
        }
        let mut due = Vec::new();
        for (name, spawned) in &mut self.spawned {
            match &mut spawned.phase {
                Phase::Waiting { from } if *from <= now => due.push(name.clone()),
                Phase::Forgetting { again, .. } if again.is_some_and(|again| again <= now) => {
                    *again = None;
                    effects.to_log.push(Entry::ForgetActor(name.clone()));
                }
                _ => {}
            }
        }
        due.into_iter().for_each(|name| self.place(now, &name, effects));
    }

    /// Has a node make it, or waits for one that can.
    fn place(&mut self, now: Time, name: &str, effects: &mut Effects) {
        let Some(spawned) = self.spawned.get(name) else { return };
        let (spec, chosen) = (spawned.spec.clone(), self.choose(&spawned.spec, spawned.last));
        let Some(spawned) = self.spawned.get_mut(name) else { return };
        match chosen {
            Ok(node) => {
                let Some(at) = self.nodes.get_mut(&node) else { return };
                self.made += 1;
                let incarnation = Incarnation { term: self.term, number: self.made };
                at.spawned.insert(name.to_owned());
                effects.to_nodes.extend(at.link.map(|link| (link, ToNode::Start { spec, incarnation })));
                spawned.phase = Phase::Starting { node, incarnation };
            }
            Err(problem) => {
                spawned.problem = Some(problem);
                spawned.phase = Phase::Waiting { from: Time(now.0 + AGAIN_US) };
            }
        }
    }

    /// The node that is to make it: the one that ran it last, if it may; or why there is none.
    fn choose(&self, spec: &ActorSpec, last: Option<NodeId>) -> Result<NodeId, String> {
        let mut lacking = Vec::new();
        let mut full = Vec::new();
        let mut best: Option<(usize, NodeId)> = None;
        let mut fitting = 0;
        for (&id, node) in self.nodes.iter().filter(|(_, node)| node.link.is_some() && node.info.can_host) {
            let is_meant = match &spec.placement {
                Place::Node(name) => {
                    node.info.name == *name || (name.len() >= ID_PREFIX_MIN && id.hex().starts_with(name.as_str()))
                }
                Place::Any | Place::Near(_) => true,
            };
            if !is_meant {
                continue;
            }
            fitting += 1;
            if !has_type(node, &spec.type_name) {
                lacking.push(node.info.name.clone());
                continue;
            }
            if node.spawned.len() >= SPAWNED_ON_NODE_MAX {
                full.push(node.info.name.clone());
                continue;
            }
            if last == Some(id) || spec.placement == Place::Near(id) && last.is_none() {
                return Ok(id);
            }
            let candidate = (node.spawned.len(), id);
            best = Some(best.map_or(candidate, |best| best.min(candidate)));
        }
        if let (Place::Node(name), true) = (&spec.placement, fitting > 1) {
            return Err(format!("{name} means {fitting} nodes: give more of the id"));
        }
        best.map(|(_, node)| node).ok_or_else(|| {
            let type_name = &spec.type_name;
            match &spec.placement {
                _ if !full.is_empty() => format!(
                    "{SPAWNED_ON_NODE_MAX} actors are spawned on each of the nodes [{}], which is as many as may be",
                    full.join(", ")
                ),
                _ if !lacking.is_empty() => format!(
                    "the programs of the nodes [{}] cannot make actors of type {type_name}: start them from the program that has \
                     `#[starling::actor] impl RemoteActor for` it",
                    lacking.join(", ")
                ),
                Place::Node(name) => format!("no node that hosts actors is called {name}"),
                Place::Any | Place::Near(_) => "no node hosts actors: start one that is a worker, `auto` or a service".to_owned(),
            }
        })
    }
}

fn has_type(node: &Node, type_name: &str) -> bool {
    node.info.types.iter().any(|known| known == type_name)
}
