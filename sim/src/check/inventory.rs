//! What a worker says to have when it registers is what its node has.

use std::collections::{BTreeMap, BTreeSet};

use starling_core::ids::{Attempt, TaskId};
use starling_core::wire::{FromWorker, Inventory, ToWorker};

use crate::work;

/// What is to become of what was handed out to the threads, as far as the node can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Wanted,
    /// The scheduler has said so. It may have meant an earlier try.
    MaybeCancelled,
    Abandoned,
}

/// What a node must have, by what was said and done there.
#[derive(Debug, Default)]
pub(crate) struct Having {
    /// The outputs that a scheduler knows to be here, or knew, and has not freed.
    told: BTreeSet<TaskId>,
    /// What the threads have, or have just ended, and from which try on.
    running: BTreeMap<TaskId, (Attempt, Fate)>,
    /// What the pieces of an inventory have told so far.
    pieces: Inventory,
}

impl Having {
    /// The node's machine is about to hear this from the scheduler.
    pub(crate) fn hear(&mut self, message: &ToWorker) {
        match message {
            ToWorker::Free { task } => drop(self.told.remove(task)),
            ToWorker::Cancel { task, .. } => self.set_fate(*task, Fate::MaybeCancelled),
            ToWorker::Compute(given) => self.set_fate(given.task, Fate::Wanted),
            _ => {}
        }
    }

    /// A client has put a value here, and the machine has taken it.
    pub(crate) fn put(&mut self, task: TaskId) {
        self.told.insert(task);
    }

    pub(crate) fn hand_out(&mut self, task: TaskId, attempt: Attempt) {
        self.running.insert(task, (attempt, Fate::Wanted));
    }

    pub(crate) fn abandon(&mut self, task: TaskId) {
        self.set_fate(task, Fate::Abandoned);
    }

    /// The machine has heard that this is on no thread any more.
    pub(crate) fn end(&mut self, task: TaskId) {
        self.running.remove(&task);
    }

    fn set_fate(&mut self, task: TaskId, fate: Fate) {
        if let Some((_, known)) = self.running.get_mut(&task).filter(|it| it.1 != Fate::Abandoned) {
            *known = fate;
        }
    }

    /// The machine says this to the scheduler.
    pub(crate) fn say(&mut self, message: &FromWorker, store: &BTreeMap<TaskId, u64>) -> Result<(), String> {
        match message {
            FromWorker::Finished { task, .. } | FromWorker::Replica { task, .. } => drop(self.told.insert(*task)),
            FromWorker::Inventory(piece) => {
                self.pieces.outputs.extend(&piece.outputs);
                self.pieces.running.extend(&piece.running);
                if piece.is_last {
                    let inventory = std::mem::take(&mut self.pieces);
                    self.check(&inventory, store)?;
                    self.told = inventory.outputs.iter().map(|output| output.0).collect();
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn check(&self, inventory: &Inventory, store: &BTreeMap<TaskId, u64>) -> Result<(), String> {
        for (task, attempt, nbytes) in &inventory.outputs {
            let stored = store.get(task).map(|value| work::nbytes(*value));
            if stored != Some(*nbytes) {
                return Err(format!("{task}, attempt {attempt:?}, is said to have {nbytes} bytes, and has {stored:?}"));
            }
        }
        for running in &inventory.running {
            let is_so = |it: &&(Attempt, Fate)| it.0 <= running.attempt && it.1 != Fate::Abandoned;
            if self.running.get(&running.task).filter(is_so).is_none() {
                return Err(format!("{running:?} is said to run, and does not"));
            }
        }
        let outputs: BTreeSet<TaskId> = inventory.outputs.iter().map(|output| output.0).collect();
        let running: BTreeSet<TaskId> = inventory.running.iter().map(|running| running.task).collect();
        if let Some(task) = outputs.intersection(&running).next() {
            return Err(format!("{task} is said to be here and to run"));
        }
        if let Some(task) = self.told.iter().find(|task| !outputs.contains(*task) && !running.contains(*task)) {
            return Err(format!("{task} is here, and is not said to be"));
        }
        let mut wanted = self.running.iter().filter(|it| it.1.1 == Fate::Wanted);
        match wanted.find(|it| !running.contains(it.0)) {
            Some((task, _)) => Err(format!("{task} runs, and is not said to")),
            None => Ok(()),
        }
    }
}
