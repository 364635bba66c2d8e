//! Who reads an output reads the same one as everybody else: in a term, those who consume it and the client that wants it
//! see the output of one execution, as long as the scheduler does not have the task run again because that was lost. The
//! scheduler of a new term goes on with the last attempt of those that survive.
//!
//! One case is let pass. An execution that is cancelled after it has begun still puts its output into the store of its node, also in
//! place of a copy that was fetched there meanwhile; tasks on that node may take that one.

use std::collections::{BTreeMap, BTreeSet};

use starling_core::ids::{Attempt, TaskId, WorkerId};
use starling_core::wire::FromWorker;

/// Which execution a value comes of: a try of a task may be executed twice. 0 of a value that a client has put somewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Origin(u64);

impl Origin {
    /// The thread of one life of a node.
    pub(crate) fn of(node: u8, life: u32, thread: u64) -> Origin {
        Origin(u64::from(node) << 56 | u64::from(life) << 40 | (thread + 1))
    }

    fn node(self) -> u64 {
        self.0 >> 40
    }
}

/// What was seen of one task in this term.
#[derive(Debug, Default)]
struct Seen {
    origins: BTreeSet<Origin>,
    /// How often it was run again after the scheduler had heard of an output, or lost the worker that ran it.
    losses: usize,
    /// Whether it is being run again.
    is_run_again: bool,
    /// Who was told last to run it.
    at: Option<WorkerId>,
}

impl Seen {
    /// Whether the outputs of no more executions may be seen.
    fn is_full(&self) -> bool {
        self.origins.len() > self.losses
    }
}

/// What was seen of every task in this term.
#[derive(Debug, Default)]
pub(crate) struct OneAttempt {
    seen: BTreeMap<TaskId, Seen>,
    /// Which try of its task the output is of that a worker has told of in this term.
    told: BTreeMap<TaskId, BTreeMap<WorkerId, Attempt>>,
    /// What an execution that has begun in this term has taken.
    taken: BTreeMap<Origin, Vec<(TaskId, Origin)>>,
}

impl OneAttempt {
    /// An execution begins, and takes these outputs.
    pub(crate) fn take(&mut self, execution: Origin, inputs: Vec<(TaskId, Origin)>) {
        self.taken.insert(execution, inputs);
    }

    /// The scheduler counts what this execution has put out. Gives how many inputs it has taken, and how many of those of an
    /// execution on its own node that does not count.
    pub(crate) fn count(&mut self, execution: Origin) -> Result<(u64, u64), String> {
        let inputs = self.taken.remove(&execution).unwrap_or_default();
        let mut own = 0;
        for (task, origin) in &inputs {
            let is_seen = self.seen.get(task).is_none_or(|seen| seen.origins.contains(origin) || !seen.is_full());
            if !is_seen && origin.node() == execution.node() {
                own += 1;
            } else {
                self.see(*task, *origin)?;
            }
        }
        Ok((inputs.len() as u64, own))
    }

    /// Somebody has this output of a task, and what follows from it counts.
    pub(crate) fn see(&mut self, task: TaskId, origin: Origin) -> Result<(), String> {
        let seen = self.seen.entry(task).or_default();
        if !seen.origins.contains(&origin) && seen.is_full() {
            return Err(format!("{task} is seen of another execution, {origin:?}: {seen:?}"));
        }
        seen.origins.insert(origin);
        Ok(())
    }

    /// A task that was to be run turns out to be there.
    pub(crate) fn take_in(&mut self, task: TaskId) {
        let seen = self.seen.entry(task).or_default();
        seen.losses += usize::from(!std::mem::replace(&mut seen.is_run_again, false));
    }

    /// A worker is told to run a task.
    pub(crate) fn assign(&mut self, task: TaskId, worker: WorkerId) {
        let is_told = self.told.contains_key(&task);
        let seen = self.seen.entry(task).or_default();
        seen.at = Some(worker);
        if is_told {
            seen.losses += usize::from(!std::mem::replace(&mut seen.is_run_again, true));
        }
    }

    /// The scheduler counts the task's output as there.
    pub(crate) fn finish(&mut self, task: TaskId) {
        if let Some(seen) = self.seen.get_mut(&task) {
            seen.is_run_again = false;
        }
    }

    /// The scheduler of the next term begins.
    pub(crate) fn begin_term(&mut self) {
        self.seen.clear();
        self.told.clear();
        self.taken.clear();
    }

    /// The scheduler is about to hear this of a worker.
    pub(crate) fn hear(&mut self, worker: WorkerId, message: &FromWorker) {
        match message {
            FromWorker::Finished { task, attempt, .. } => {
                self.told.entry(*task).or_default().insert(worker, *attempt);
            }
            FromWorker::Inventory(inventory) => {
                for (task, attempt, _) in &inventory.outputs {
                    self.told.entry(*task).or_default().insert(worker, *attempt);
                }
            }
            _ => {}
        }
    }

    /// A worker is told to drop an output, or is gone.
    pub(crate) fn drop_at(&mut self, worker: WorkerId, task: Option<TaskId>) {
        match task {
            Some(task) => {
                self.told.get_mut(&task).map(|told| told.remove(&worker));
            }
            None => {
                for (task, seen) in self.seen.iter_mut().filter(|(_, seen)| seen.at == Some(worker)) {
                    self.told.entry(*task).or_default();
                    (seen.at, seen.is_run_again) = (None, false);
                }
                for told in self.told.values_mut() {
                    told.remove(&worker);
                }
            }
        }
    }

    /// The last attempt of a task's outputs that workers have told of, and how many attempts those are of.
    pub(crate) fn last_told(&self, task: TaskId) -> Option<(Attempt, usize)> {
        let attempts: BTreeSet<Attempt> = self.told.get(&task)?.values().copied().collect();
        Some((*attempts.last()?, attempts.len()))
    }

    /// The tasks that workers have told of.
    pub(crate) fn told(&self) -> Vec<TaskId> {
        self.told.keys().copied().collect()
    }

    /// A task has just become known, and its output is said to be at these workers: whether it is of the last attempt.
    pub(crate) fn check_claimed(&self, task: TaskId, last: Attempt, holders: &[WorkerId]) -> Result<(), String> {
        let told = self.told.get(&task);
        let attempt_at = |worker: &WorkerId| told.and_then(|told| told.get(worker)).copied();
        match holders.iter().find(|worker| attempt_at(worker) != Some(last)) {
            Some(worker) => {
                Err(format!("{task} is taken from {worker:?}, of {:?} and not {last:?}", attempt_at(worker)))
            }
            None => Ok(()),
        }
    }
}
