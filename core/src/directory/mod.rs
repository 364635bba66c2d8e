//! The one place in a term that knows which actor holds which name, and that has spawned actors made and made anew.
//!
//! It begins with what the ledger says is spawned, and hears from the nodes what they hold. Until those that it expects have said
//! so, or [`RECOVERY_US`] are over, it decides nothing new.
//!
//! ```text
//! spawn: Logging -> Starting -> Running -> Waiting -> Starting ...      ended, or its node is lost; as its policy says
//!                                   \-> Forgetting -> (free)            stopped, or given up
//! ```
//!
//! What holds: in a term a name has one holder, and whoever else says that it holds it is told to stop. It never starts an actor
//! that the ledger does not know, and never runs one itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::ids::{NodeId, Term, Time};
use crate::ledger::Entry;

mod spawned;
#[cfg(test)]
mod tests;
mod wire;

use self::spawned::{Ending, Phase, Spawned};
pub use self::wire::{
    ARGS_BYTES_MAX, ActorSpec, ActorState, ActorStatus, Answer, Ask, End, FromNode, HeldName, Holder, Incarnation,
    LISTED_MAX, NAME_BYTES_MAX, NodeInfo, Place, Restart, ToNode,
};

/// How long a new directory waits, in microseconds, for nodes to say what they hold.
pub const RECOVERY_US: u64 = 2_000_000;
/// How long, in microseconds, a node whose link is lost keeps its names.
pub const GRACE_US: u64 = 5_000_000;
/// How many names there are at most.
pub const NAMES_MAX: usize = 100_000;
/// How many actors are spawned at most, and on one node.
pub const SPAWNED_MAX: usize = 10_000;
/// As [`SPAWNED_MAX`], on one node.
pub const SPAWNED_ON_NODE_MAX: usize = 1_024;
/// How many bytes the arguments of all spawned actors take at most: they are in the ledger.
pub const SPAWNED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How many questions wait for the end of the recovery.
const PENDING_MAX: usize = 65_536;
/// How many types one program has.
const TYPES_MAX: usize = 4_096;
/// Of how many actors that were given up the reason is known.
const GIVEN_UP_MAX: usize = 1_024;

/// A link of a node or client to the directory. A number is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What the directory hears.
#[derive(Clone, Debug)]
pub enum Event {
    /// The ledger has this actor. Comes before all others.
    Restored(Arc<ActorSpec>),
    /// A node or client has opened a link. It takes the place of an earlier one of the same node.
    Linked {
        /// The link.
        link: LinkId,
        /// Whose.
        node: NodeId,
    },
    /// A link is closed.
    Unlinked {
        /// The link.
        link: LinkId,
    },
    /// A node is dead, or has left.
    NodeDown {
        /// The node.
        node: NodeId,
    },
    /// A message came over a link.
    FromNode {
        /// The link.
        link: LinkId,
        /// The message.
        message: FromNode,
    },
    /// An entry is in the ledger.
    Logged(Entry),
    /// An entry could not be taken into the ledger, or it is not known whether it was.
    NotLogged {
        /// The entry.
        entry: Entry,
        /// Why.
        problem: String,
    },
    /// Time has passed.
    Tick,
}

/// What the directory wants done.
#[derive(Debug, Default)]
pub struct Effects {
    /// Messages, in order for each link.
    pub to_nodes: Vec<(LinkId, ToNode)>,
    /// Entries for the ledger, in this order.
    pub to_log: Vec<Entry>,
    /// Links that are to be closed.
    pub to_close: Vec<LinkId>,
}

/// Who asked, and the number of the question.
type Asker = (LinkId, u64);

/// The machine.
#[derive(Debug)]
pub struct Directory {
    term: Term,
    /// Which nodes have not said what they hold, and when that does not matter any more; while it gathers.
    recovery: Option<(BTreeSet<NodeId>, Time)>,
    nodes: BTreeMap<NodeId, Node>,
    links: BTreeMap<LinkId, NodeId>,
    /// All and only names that are held by actors that were not spawned.
    registered: BTreeMap<String, Holder>,
    /// All and only names of actors that are spawned.
    spawned: BTreeMap<String, Spawned>,
    /// How many bytes of arguments these have.
    spawned_bytes: usize,
    /// Of the last makings, which number it had.
    made: u64,
    given_up: VecDeque<(String, String)>,
    /// Questions that are answered after the recovery.
    pending: Vec<(Asker, Ask)>,
}

/// A node or client that has, or had, a link.
#[derive(Debug, Default)]
struct Node {
    link: Option<LinkId>,
    /// Since when there is no link.
    lost_at: Option<Time>,
    info: NodeInfo,
    /// All and only names that its actors hold, of those that were registered.
    registered: BTreeSet<String>,
    /// All and only names of spawned actors that it runs or makes.
    spawned: BTreeSet<String>,
    /// Those of both that it has not said it holds since its link was opened; unset once it has said all.
    unsaid: Option<BTreeSet<String>>,
}

impl Effects {
    fn tell(&mut self, link: LinkId, message: ToNode) {
        self.to_nodes.push((link, message));
    }

    fn answer(&mut self, (link, ask): Asker, answer: Answer) {
        self.tell(link, ToNode::Answer { ask, answer });
    }
}

impl Directory {
    /// The directory of a term, which hears from these nodes first.
    pub fn new(term: Term, now: Time, expected: impl IntoIterator<Item = NodeId>) -> Directory {
        Directory {
            term,
            recovery: Some((expected.into_iter().collect(), Time(now.0 + RECOVERY_US))),
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            registered: BTreeMap::new(),
            spawned: BTreeMap::new(),
            spawned_bytes: 0,
            made: 0,
            given_up: VecDeque::new(),
            pending: Vec::new(),
        }
    }

    /// Takes an event.
    pub fn handle(&mut self, now: Time, event: Event, effects: &mut Effects) {
        match event {
            Event::Restored(spec) => self.insert(Spawned::new(spec, Phase::Waiting { from: Time(0) })),
            Event::Linked { link, node } => self.on_linked(link, node, effects),
            Event::Unlinked { link } => self.on_unlinked(now, link),
            Event::NodeDown { node } => self.on_node_gone(now, node, effects),
            Event::FromNode { link, message } => self.on_message(now, link, message, effects),
            Event::Logged(entry) => self.on_logged(now, &entry, effects),
            Event::NotLogged { entry, problem } => self.on_not_logged(now, &entry, &problem, effects),
            Event::Tick => self.on_tick(now, effects),
        }
        self.end_recovery(now, effects);
    }

    fn on_linked(&mut self, link: LinkId, node: NodeId, effects: &mut Effects) {
        let entry = self.nodes.entry(node).or_default();
        if let Some(before) = entry.link.replace(link) {
            self.links.remove(&before);
            effects.to_close.push(before);
        }
        entry.lost_at = None;
        entry.unsaid = Some(entry.registered.union(&entry.spawned).cloned().collect());
        self.links.insert(link, node);
    }

    fn on_unlinked(&mut self, now: Time, link: LinkId) {
        let Some(node) = self.links.remove(&link) else { return };
        if let Some(node) = self.nodes.get_mut(&node) {
            node.link = None;
            node.lost_at = Some(now);
        }
    }

    /// Nothing that is on the node holds a name any more.
    fn on_node_gone(&mut self, now: Time, node: NodeId, effects: &mut Effects) {
        if let Some((expected, _)) = &mut self.recovery {
            expected.remove(&node);
        }
        let Some(gone) = self.nodes.remove(&node) else { return };
        if let Some(link) = gone.link {
            self.links.remove(&link);
            effects.to_close.push(link);
        }
        gone.registered.iter().for_each(|name| drop(self.registered.remove(name)));
        for name in gone.spawned {
            self.ended(now, &name, &Ending::NodeLost(gone.info.name.clone()), effects);
        }
    }

    fn on_message(&mut self, now: Time, link: LinkId, message: FromNode, effects: &mut Effects) {
        // What comes over a link that was replaced is old.
        let Some(&node) = self.links.get(&link) else { return };
        match message {
            FromNode::Introduce(mut info) => {
                info.types.truncate(TYPES_MAX);
                if let Some(node) = self.nodes.get_mut(&node) {
                    node.info = info;
                }
            }
            FromNode::Names { names, is_last } => {
                names.into_iter().for_each(|held| self.on_held(link, node, held, effects));
                if is_last {
                    self.on_all_said(now, link, node, effects);
                }
            }
            FromNode::Ask { ask, question } => self.on_ask((link, ask), node, question, effects),
            FromNode::Released { name, actor } => {
                let is_its = |holder: &Holder| holder.node == node && holder.actor == actor;
                if self.registered.get(&name).is_some_and(is_its) {
                    self.release(&name);
                }
            }
            FromNode::Started { name, incarnation, outcome } => {
                self.on_started(now, node, &name, incarnation, outcome, effects);
            }
            FromNode::Ended { name, incarnation, end } => {
                if self.runs(node, &name, incarnation) {
                    let ending = if end == End::Stopped { Ending::Stopped } else { Ending::Panicked };
                    self.ended(now, &name, &ending, effects);
                }
            }
        }
    }

    /// A node says that its actor holds a name.
    fn on_held(&mut self, link: LinkId, node: NodeId, held: HeldName, effects: &mut Effects) {
        if let Some(unsaid) = self.nodes.get_mut(&node).and_then(|node| node.unsaid.as_mut()) {
            unsaid.remove(&held.name);
        }
        let is_its = match held.spawned {
            Some((id, incarnation)) => self.adopt(node, &held, id, incarnation, effects),
            None => self.register(node, &held.name, held.actor, &held.type_name).is_ok(),
        };
        if !is_its {
            effects.tell(link, ToNode::Stop { name: held.name, actor: held.actor, is_over: false });
        }
    }

    /// A node has said all that it holds: what else it was known to hold has ended while it had no link.
    fn on_all_said(&mut self, now: Time, link: LinkId, node: NodeId, effects: &mut Effects) {
        let unsaid = self.nodes.get_mut(&node).and_then(|node| node.unsaid.take()).unwrap_or_default();
        for name in unsaid {
            if self.registered.contains_key(&name) {
                self.release(&name);
            } else if let Some(Spawned { spec, phase: Phase::Starting { incarnation, .. }, .. }) =
                self.spawned.get(&name)
            {
                // It may not have heard of it.
                effects.tell(link, ToNode::Start { spec: spec.clone(), incarnation: *incarnation });
            } else {
                self.ended(now, &name, &Ending::Unseen, effects);
            }
        }
        effects.tell(link, ToNode::Confirmed);
        if let Some((expected, _)) = &mut self.recovery {
            expected.remove(&node);
        }
    }

    /// Has a node's actor hold a name; `Err` with what is to be answered if it cannot.
    fn register(&mut self, node: NodeId, name: &str, actor: u64, type_name: &str) -> Result<(), Answer> {
        if let Some(spawned) = self.spawned.get(name) {
            let holder = spawned.node().map(Answer::Taken);
            let problem = format!("an actor of the name {name} is spawned, and runs nowhere now");
            return Err(holder.unwrap_or(Answer::Problem(problem)));
        }
        // An earlier actor of the same node has ended: the node knows that best.
        if let Some(holder) = self.registered.get(name).filter(|holder| holder.node != node) {
            return Err(Answer::Taken(holder.node));
        }
        check_name(name).map_err(Answer::Problem)?;
        if self.registered.len() + self.spawned.len() >= NAMES_MAX {
            return Err(Answer::Problem(format!("{NAMES_MAX} names are held, which is as many as may be")));
        }
        let Some(at) = self.nodes.get_mut(&node) else { return Err(Answer::Problem("its link is closed".to_owned())) };
        at.registered.insert(name.to_owned());
        self.registered.insert(name.to_owned(), Holder { node, actor, type_name: type_name.to_owned() });
        self.given_up.retain(|(given_up, _)| given_up != name);
        Ok(())
    }

    fn release(&mut self, name: &str) {
        if let Some(holder) = self.registered.remove(name)
            && let Some(node) = self.nodes.get_mut(&holder.node)
        {
            node.registered.remove(name);
        }
    }

    fn on_ask(&mut self, asker: Asker, node: NodeId, question: Ask, effects: &mut Effects) {
        let is_known = matches!(&question, Ask::Find(name) if self.holder(name).is_some());
        if self.recovery.is_some() && !is_known {
            if self.pending.len() < PENDING_MAX {
                return self.pending.push((asker, question));
            }
            let problem = "too many wait for the nodes to say what they hold: try again later";
            return effects.answer(asker, Answer::Problem(problem.to_owned()));
        }
        match question {
            Ask::Find(name) => effects.answer(asker, self.find(&name)),
            Ask::Claim { name, actor, type_name } => {
                let claimed = self.register(node, &name, actor, &type_name);
                effects.answer(asker, claimed.err().unwrap_or(Answer::Done));
            }
            Ask::Spawn(spec) => self.on_spawn(asker, spec, effects),
            Ask::Stop(name) => self.on_stop(asker, &name, effects),
            Ask::List => effects.answer(asker, Answer::Listed(self.list())),
        }
    }

    fn holder(&self, name: &str) -> Option<&Holder> {
        self.registered.get(name).or_else(|| self.spawned.get(name)?.holder())
    }

    fn find(&self, name: &str) -> Answer {
        let given_up = || self.given_up.iter().find(|(given_up, _)| given_up == name);
        match self.holder(name) {
            None if let Some((_, why)) = given_up() => Answer::GivenUp(why.clone()),
            holder => Answer::Held(holder.cloned()),
        }
    }

    fn list(&self) -> Vec<ActorStatus> {
        let name_of = |node: Option<NodeId>| Some(self.nodes.get(&node?)?.info.name.clone());
        let registered = self.registered.iter().map(|(name, holder)| ActorStatus {
            name: name.clone(),
            type_name: holder.type_name.clone(),
            node: Some(holder.node),
            node_name: name_of(Some(holder.node)),
            state: ActorState::Registered,
            restarts: 0,
            problem: None,
        });
        let spawned = self.spawned.iter().map(|(name, spawned)| ActorStatus {
            name: name.clone(),
            type_name: spawned.spec.type_name.clone(),
            node: spawned.node(),
            node_name: name_of(spawned.node()),
            state: spawned.state(),
            restarts: spawned.restarts,
            problem: spawned.problem.clone(),
        });
        let mut listed: Vec<ActorStatus> = registered.chain(spawned).collect();
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        listed.truncate(LISTED_MAX);
        listed
    }

    fn on_tick(&mut self, now: Time, effects: &mut Effects) {
        let is_over = |node: &Node| node.lost_at.is_some_and(|at| now.micros_since(at) >= GRACE_US);
        let gone: Vec<NodeId> = self.nodes.iter().filter(|(_, node)| is_over(node)).map(|(node, _)| *node).collect();
        gone.into_iter().for_each(|node| self.on_node_gone(now, node, effects));
        self.place_all(now, effects);
    }

    /// Whoever was expected has said what it holds, or has had the time for it.
    fn end_recovery(&mut self, now: Time, effects: &mut Effects) {
        let Some((expected, until)) = &self.recovery else { return };
        if !expected.is_empty() && now < *until {
            return;
        }
        // A node that has not come may run what nobody has said that he runs: it has its grace.
        let from = if expected.is_empty() { now } else { Time(now.0 + GRACE_US - RECOVERY_US) };
        self.recovery = None;
        for spawned in self.spawned.values_mut() {
            if let Phase::Waiting { from: at } = &mut spawned.phase {
                *at = from.max(*at);
            }
        }
        for ((link, ask), question) in std::mem::take(&mut self.pending) {
            if let Some(&node) = self.links.get(&link) {
                self.on_ask((link, ask), node, question, effects);
            }
        }
        self.place_all(now, effects);
    }

    /// Panics if the machine contradicts itself: for tests and simulations.
    pub fn check(&self) {
        assert!(self.registered.keys().all(|name| !self.spawned.contains_key(name)), "a name is held twice");
        for (name, holder) in &self.registered {
            assert!(self.nodes[&holder.node].registered.contains(name), "{name} is held by a node that does not know");
        }
        for (name, spawned) in &self.spawned {
            let on: Vec<&NodeId> =
                self.nodes.iter().filter(|(_, node)| node.spawned.contains(name)).map(|(node, _)| node).collect();
            assert_eq!(spawned.on().iter().collect::<Vec<_>>(), on, "{name} is where it is not");
        }
        let held = |node: &Node| node.registered.len();
        assert_eq!(self.nodes.values().map(held).sum::<usize>(), self.registered.len());
        assert_eq!(self.spawned.values().map(|spawned| spawned.spec.args.len()).sum::<usize>(), self.spawned_bytes);
        assert!(self.links.iter().all(|(link, node)| self.nodes[node].link == Some(*link)));
    }
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(format!("a name has 1 to {NAME_BYTES_MAX} bytes, and this one has {}", name.len()));
    }
    Ok(())
}
