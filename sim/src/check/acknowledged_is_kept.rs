//! What a client was told of, and holds, is still to be had: in the end somebody has it, with the right value.
//!
//! Counted, and not yet demanded: that nobody is told to drop the last copy of it, and that it is not given up or computed again
//! while somebody is known to have it. A few seeds in two thousand do so, and it is not known yet whether they may.
//!
//! Who is known to have a copy is noted from what the scheduler hears, not from what it believes. A copy that somebody
//! has complained of does not count, nor does one of a job that the ledger keeps and whose client has not come yet: that may be
//! computed again when it comes.

use std::collections::{BTreeMap, BTreeSet};

use starling_core::ids::{JobId, TaskId, WorkerId};
use starling_core::scheduler::Scheduler;
use starling_core::wire::{FromClient, FromWorker, ToClient};

use crate::client::Client;
use crate::node::SimNode;

/// What clients were told of, and where it is as far as the scheduler has heard.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    /// What was said to be there, and not since then to have failed or to be lost.
    told: BTreeSet<TaskId>,
    holders: BTreeMap<TaskId, BTreeSet<WorkerId>>,
}

impl Acknowledged {
    /// The scheduler is about to hear this of a worker. `is_there` says what that worker's node really has.
    pub(crate) fn hear_worker(&mut self, worker: WorkerId, message: &FromWorker, is_there: impl Fn(TaskId) -> bool) {
        match message {
            FromWorker::Finished { task, .. } | FromWorker::Replica { task, .. } if is_there(*task) => {
                self.add(*task, worker);
            }
            FromWorker::Inventory(inventory) => {
                let outputs = inventory.outputs.iter().map(|output| output.0);
                outputs.filter(|task| is_there(*task)).for_each(|task| self.add(task, worker));
            }
            FromWorker::InputsMissing { missing, .. } => {
                missing.iter().for_each(|(task, holders)| self.complain(*task, holders));
            }
            _ => {}
        }
    }

    /// The scheduler is about to hear this of a client. `is_there` says what a worker's node really has.
    pub(crate) fn hear_client(&mut self, message: &FromClient, is_there: impl Fn(WorkerId, TaskId) -> bool) {
        match message {
            FromClient::Scattered { job, values } => {
                for (index, _, workers) in values {
                    let task = TaskId::new(*job, *index);
                    for worker in workers.iter().filter(|worker| is_there(**worker, task)) {
                        self.add(task, *worker);
                    }
                }
            }
            FromClient::Unreachable { task, holders } => self.complain(*task, holders),
            _ => {}
        }
    }

    /// The scheduler has taken a value that a client has put somewhere.
    pub(crate) fn take_value(&mut self, task: TaskId) {
        self.told.insert(task);
    }

    fn add(&mut self, task: TaskId, worker: WorkerId) {
        self.holders.entry(task).or_default().insert(worker);
    }

    fn complain(&mut self, task: TaskId, holders: &[WorkerId]) {
        holders.iter().for_each(|worker| self.drop_holder(task, *worker));
    }

    pub(crate) fn drop_holder(&mut self, task: TaskId, worker: WorkerId) {
        if let Some(known) = self.holders.get_mut(&task) {
            known.remove(&worker);
            if known.is_empty() {
                self.holders.remove(&task);
            }
        }
    }

    /// The scheduler is about to hear that a worker is gone.
    pub(crate) fn lose_worker(&mut self, worker: WorkerId) {
        for task in self.holders.keys().copied().collect::<Vec<_>>() {
            self.drop_holder(task, worker);
        }
    }

    /// The next scheduler has heard of nothing.
    pub(crate) fn lose_scheduler(&mut self) {
        self.holders.clear();
    }

    /// The scheduler is about to hear that the client of this job is gone.
    pub(crate) fn leave(&mut self, job: JobId) {
        self.told.retain(|task| task.job != job);
    }

    /// A worker is told to drop its copy. Says whether that was the last one of something that a client was told of and,
    /// by `is_held`, holds.
    pub(crate) fn free(&mut self, task: TaskId, worker: WorkerId, is_held: impl Fn(TaskId) -> bool) -> bool {
        let is_last = self.holders.get(&task).is_some_and(|known| known.len() == 1 && known.contains(&worker));
        let is_early = is_last && self.told.contains(&task) && is_held(task);
        self.drop_holder(task, worker);
        is_early
    }

    /// A job's client is told this. Names what comes of it for the report.
    pub(crate) fn tell_client(&mut self, message: &ToClient) -> Option<&'static str> {
        match message {
            ToClient::Finished { task, .. } => {
                self.told.insert(*task);
                None
            }
            ToClient::Failed { task, .. } | ToClient::Recomputing { task } if self.told.remove(task) => {
                let is_there = self.holders.contains_key(task);
                Some(if is_there { "acknowledged-given-up-early" } else { "acknowledged-lost" })
            }
            _ => None,
        }
    }
}

/// Whether everything that clients hold a value of is to be had, in a store where the scheduler says that it is. Gives how
/// many results that are.
pub(crate) fn check<'a>(
    scheduler: &Scheduler,
    clients: impl Iterator<Item = &'a Client>,
    node_of: impl Fn(WorkerId) -> Option<&'a SimNode>,
) -> Result<u64, String> {
    let mut checked = 0;
    for client in clients {
        let Some(job) = client.job() else { continue };
        for (index, value) in client.values.acknowledged() {
            let task = TaskId::new(job, index);
            let holders = scheduler.who_has(task);
            let has_it = |worker: &WorkerId| node_of(*worker).is_some_and(|node| node.store.get(&task) == Some(&value));
            if !holders.iter().any(has_it) {
                let state = scheduler.state(task);
                return Err(format!("{task} was acknowledged, and nobody has it: it is {state:?}, at {holders:?}"));
            }
            checked += 1;
        }
    }
    Ok(checked)
}
