//! The shared data-location registry: who holds which output, as far as this node has heard.
//!
//! Each node writes only its own entries and numbers its changes; everybody passes on what it knows of everybody. Two
//! registries that tell each other what the other's [`Digest`] lacks end up the same, in whatever order and however often
//! they hear it: merging is commutative, associative and idempotent. What a registry says is a hint, never a promise: a
//! node may have dropped an output, or died, a moment ago.
//!
//! The memory of withdrawn entries is bounded: a node keeps the last [`WITHDRAWN_MAX`] of each node, and gives a peer that
//! lacks older ones the whole of that node's entries instead of the changes.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{NodeId, TaskId};

/// How many withdrawn entries of each node are remembered.
pub const WITHDRAWN_MAX: usize = 4096;

/// How far a registry has heard each node: the number of the last change.
pub type Digest = BTreeMap<NodeId, u64>;

/// Some of a node's changes, as anybody may pass them on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// Whose entries these are.
    pub origin: NodeId,
    /// The changes follow upon this one of the origin's. Ignored by who lacks changes up to there.
    pub after: u64,
    /// The last change that is told; later ones may follow in another delta.
    pub upto: u64,
    /// Whether this begins a telling of everything, so that whatever it does not name is withdrawn.
    pub is_whole: bool,
    /// The changes, by their numbers.
    pub changes: Vec<Change>,
}

/// A node holds an output, or does so no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The task whose output it is.
    pub task: TaskId,
    /// The change's number, growing with each change of the origin's.
    pub number: u64,
    /// The output's size in bytes; `None` if it is withdrawn.
    pub nbytes: Option<u64>,
}

/// What one node knows of all.
#[derive(Debug)]
pub struct Registry {
    own: NodeId,
    /// This node and all and only the nodes that are up.
    nodes: BTreeMap<NodeId, Origin>,
    /// All and only the entries that are not withdrawn.
    holders: BTreeMap<TaskId, BTreeMap<NodeId, u64>>,
}

/// What is known of one node's entries.
#[derive(Debug, Default)]
struct Origin {
    /// The last change heard of.
    heard: u64,
    /// Changes up to here may be lacking that withdraw something.
    forgotten: u64,
    /// The last change of each task.
    latest: BTreeMap<TaskId, u64>,
    /// The same by number.
    changes: BTreeMap<u64, (TaskId, Option<u64>)>,
    /// The numbers of the changes that withdraw something.
    withdrawn: BTreeSet<u64>,
}

impl Registry {
    /// A registry that knows of nothing. `first` is larger than the number of any change that this node has made in an
    /// earlier life, such as the time; 0 for a node that is new.
    pub fn new(own: NodeId, first: u64) -> Registry {
        let origin = Origin { heard: first, forgotten: first, ..Origin::default() };
        Registry { own, nodes: BTreeMap::from([(own, origin)]), holders: BTreeMap::new() }
    }

    /// This node holds an output of so many bytes.
    pub fn publish(&mut self, task: TaskId, nbytes: u64) {
        self.change_own(task, Some(nbytes));
    }

    /// This node holds the output no more. Does nothing if it was not published.
    pub fn withdraw(&mut self, task: TaskId) {
        if self.holders.get(&task).is_some_and(|holders| holders.contains_key(&self.own)) {
            self.change_own(task, None);
        }
    }

    fn change_own(&mut self, task: TaskId, nbytes: Option<u64>) {
        let Some(origin) = self.nodes.get_mut(&self.own) else { return };
        origin.heard += 1;
        let change = Change { task, number: origin.heard, nbytes };
        self.apply(self.own, change);
    }

    /// A node is up: what is heard of it is kept from now on.
    pub fn node_up(&mut self, node: NodeId) {
        self.nodes.entry(node).or_default();
    }

    /// A node is down: what it held is gone, and late news of it is ignored.
    pub fn node_down(&mut self, node: NodeId) {
        if node == self.own {
            return;
        }
        if let Some(origin) = self.nodes.remove(&node) {
            for task in origin.latest.into_keys() {
                self.drop_holder(task, node);
            }
        }
    }

    /// Who holds an output, with its size in bytes.
    pub fn who_has(&self, task: TaskId) -> Vec<(NodeId, u64)> {
        let holders = self.holders.get(&task).into_iter().flatten();
        holders.map(|(&node, &nbytes)| (node, nbytes)).collect()
    }

    /// How many outputs somebody holds.
    pub fn len(&self) -> usize {
        self.holders.len()
    }

    /// Whether nobody holds anything.
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    /// How far this registry has heard each node.
    pub fn digest(&self) -> Digest {
        self.nodes.iter().map(|(&node, origin)| (node, origin.heard)).collect()
    }

    /// What the sender of a digest lacks, at most about so many changes of it. A node's entries are told whole where
    /// changes alone do not do, however many they are.
    pub fn lacking(&self, digest: &Digest, changes_max: usize) -> Vec<Delta> {
        let mut deltas = Vec::new();
        let mut room = changes_max;
        for (&origin, known) in &self.nodes {
            let heard = digest.get(&origin).copied().unwrap_or(0);
            if heard >= known.heard || room == 0 {
                continue;
            }
            // What withdraws something is lacking, so everything must be told, and at once.
            let is_whole = heard < known.forgotten;
            let (after, most) = if is_whole { (0, usize::MAX) } else { (heard, room) };
            let changes: Vec<Change> = known
                .changes
                .range(after + 1..)
                .take(most)
                .map(|(&number, &(task, nbytes))| Change { task, number, nbytes })
                .collect();
            let is_all = changes.last().is_none_or(|last| known.changes.range(last.number + 1..).next().is_none());
            let upto = if is_all { known.heard } else { changes.last().map_or(known.heard, |last| last.number) };
            room = room.saturating_sub(changes.len());
            deltas.push(Delta { origin, after, upto, is_whole, changes });
        }
        deltas
    }

    /// Takes what a peer has passed on. Says whether anything was new.
    pub fn merge(&mut self, delta: &Delta) -> bool {
        if delta.origin == self.own {
            return false;
        }
        let Some(origin) = self.nodes.get_mut(&delta.origin) else { return false };
        let follows = delta.is_whole || origin.heard >= delta.after;
        if delta.upto <= origin.heard || !follows {
            return false;
        }
        origin.heard = delta.upto;
        if delta.is_whole {
            self.begin_whole(delta);
        }
        for change in delta.changes.iter().filter(|change| change.number <= delta.upto) {
            self.apply(delta.origin, *change);
        }
        true
    }

    /// Drops what a telling of everything does not name.
    fn begin_whole(&mut self, delta: &Delta) {
        let Some(origin) = self.nodes.get_mut(&delta.origin) else { return };
        let old = std::mem::replace(origin, Origin { heard: delta.upto, forgotten: delta.upto, ..Origin::default() });
        for task in old.latest.into_keys() {
            self.drop_holder(task, delta.origin);
        }
    }

    /// Takes one change, unless a later one of the same task is known.
    fn apply(&mut self, node: NodeId, change: Change) {
        let Some(origin) = self.nodes.get_mut(&node) else { return };
        let Change { task, number, nbytes } = change;
        if origin.latest.get(&task).is_some_and(|&latest| latest >= number) {
            return;
        }
        if let Some(before) = origin.latest.insert(task, number)
            && origin.changes.remove(&before).is_some()
        {
            origin.withdrawn.remove(&before);
        }
        origin.changes.insert(number, (task, nbytes));
        match nbytes {
            Some(nbytes) => {
                self.holders.entry(task).or_default().insert(node, nbytes);
            }
            None => {
                origin.withdrawn.insert(number);
                origin.forget_withdrawn();
                self.drop_holder(task, node);
            }
        }
    }

    fn drop_holder(&mut self, task: TaskId, node: NodeId) {
        if let Some(holders) = self.holders.get_mut(&task) {
            holders.remove(&node);
            if holders.is_empty() {
                self.holders.remove(&task);
            }
        }
    }

    /// Checks what must hold between calls.
    ///
    /// # Panics
    /// If it does not, which is a fault of this module.
    pub fn check_invariants(&self) {
        for (node, origin) in &self.nodes {
            assert_eq!(origin.latest.len(), origin.changes.len(), "each task has one change");
            let withdrawn =
                origin.changes.iter().filter(|(_, (_, nbytes))| nbytes.is_none()).map(|(&number, _)| number);
            assert!(withdrawn.eq(origin.withdrawn.iter().copied()), "withdrawn entries are listed");
            assert!(origin.withdrawn.len() <= WITHDRAWN_MAX, "withdrawn entries are bounded");
            assert!(origin.changes.keys().all(|&number| number <= origin.heard), "no change is from the future");
            for (number, (task, nbytes)) in &origin.changes {
                assert_eq!(origin.latest.get(task), Some(number));
                let held = self.holders.get(task).and_then(|holders| holders.get(node));
                assert_eq!(held, nbytes.as_ref(), "holders are the entries that are not withdrawn");
            }
        }
    }
}

impl Origin {
    /// Forgets the oldest withdrawn entries over the bound.
    fn forget_withdrawn(&mut self) {
        while self.withdrawn.len() > WITHDRAWN_MAX {
            let Some(number) = self.withdrawn.pop_first() else { return };
            if let Some((task, _)) = self.changes.remove(&number) {
                self.latest.remove(&task);
            }
            self.forgotten = self.forgotten.max(number);
        }
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
