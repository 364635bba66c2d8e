//! What a person or a dashboard may ask of the scheduler. Nothing here changes anything.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::failure::TaskFailure;
use crate::ids::{Attempt, ClientId, JobId, TaskId, WorkerId};
use crate::wire::WorkerInfo;

use super::Scheduler;
use super::pool::{PoolWorker, Slot};
use super::record::State;

/// A task's state, without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaskState {
    /// Known, neither computed nor needed now.
    Released,
    /// An input is not there yet.
    Waiting,
    /// Ready, and no worker has room.
    Queued,
    /// Ready, and there is no worker.
    NoWorker,
    /// Assigned to a worker.
    Processing,
    /// Its output is in some store.
    Memory,
    /// Failed for good.
    Erred,
    /// Not known, or not any more.
    Forgotten,
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TaskState::Released => "released",
            TaskState::Waiting => "waiting",
            TaskState::Queued => "queued",
            TaskState::NoWorker => "no-worker",
            TaskState::Processing => "processing",
            TaskState::Memory => "memory",
            TaskState::Erred => "erred",
            TaskState::Forgotten => "forgotten",
        })
    }
}

/// How many tasks are in each state. Forgotten ones are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateCounts {
    by_state: [u64; 7],
}

impl StateCounts {
    /// How many tasks are in `state`; 0 for forgotten ones.
    pub fn get(&self, state: TaskState) -> u64 {
        self.by_state.get(state as usize).copied().unwrap_or(0)
    }

    /// How many tasks there are.
    pub fn total(&self) -> u64 {
        self.by_state.iter().sum()
    }

    pub(super) fn add(&mut self, state: TaskState, count: u64) {
        if let Some(slot) = self.by_state.get_mut(state as usize) {
            *slot += count;
        }
    }

    pub(super) fn remove(&mut self, state: TaskState, count: u64) {
        if let Some(slot) = self.by_state.get_mut(state as usize) {
            *slot -= count;
        }
    }
}

/// A worker as the scheduler sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerView {
    /// Its id.
    pub worker: WorkerId,
    /// What it said of itself.
    pub info: WorkerInfo,
    /// How many tasks are assigned to it.
    pub processing: usize,
    /// How many tasks with inputs there wait at the scheduler for room.
    pub queued: usize,
    /// How many outputs it holds.
    pub outputs: usize,
    /// Their bytes.
    pub nbytes: u64,
    /// How long what is assigned to it is expected to take on one thread, in microseconds.
    pub occupancy_us: u64,
}

/// A job as the scheduler sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobView {
    /// Its id.
    pub job: JobId,
    /// Whose it is.
    pub client: ClientId,
    /// Its name for people.
    pub name: String,
    /// How many tasks were ever submitted to it.
    pub submitted: u32,
    /// How many tasks are in each state.
    pub counts: StateCounts,
}

impl Scheduler {
    /// A task's state.
    pub fn state(&self, task: TaskId) -> TaskState {
        self.jobs.get(task).map_or(TaskState::Forgotten, |record| record.state.view())
    }

    /// Who holds a task's output, in no particular order; empty if there is none.
    pub fn who_has(&self, task: TaskId) -> Vec<WorkerId> {
        match self.jobs.get(task).map(|record| &record.state) {
            Some(State::Memory { holders, .. }) => self.worker_ids(holders).collect(),
            _ => Vec::new(),
        }
    }

    /// The outputs that a worker holds, in order; empty if there is no such worker. Costs its number of outputs.
    pub fn has_what(&self, worker: WorkerId) -> Vec<TaskId> {
        let Some(slot) = self.pool.slot(worker) else { return Vec::new() };
        let Some(entry) = self.pool.get(slot) else { return Vec::new() };
        let mut held: Vec<TaskId> = entry.held().iter().copied().filter(|task| self.is_held(slot, *task)).collect();
        held.sort_unstable();
        held.dedup();
        held
    }

    /// The size of a task's output in bytes, if it is in some store.
    pub fn nbytes(&self, task: TaskId) -> Option<u64> {
        match self.jobs.get(task)?.state {
            State::Memory { nbytes, .. } => Some(nbytes),
            _ => None,
        }
    }

    /// Where a task is being run, and under which attempt.
    pub fn processing_on(&self, task: TaskId) -> Option<(WorkerId, Attempt)> {
        let record = self.jobs.get(task)?;
        match record.state {
            State::Processing { worker, .. } => Some((self.pool.get(worker)?.id, record.attempt)),
            _ => None,
        }
    }

    /// Why a task has failed.
    pub fn failure(&self, task: TaskId) -> Option<&TaskFailure> {
        match &self.jobs.get(task)?.state {
            State::Erred { failure } => Some(failure),
            _ => None,
        }
    }

    /// How many tasks are in each state, over all jobs.
    pub fn counts(&self) -> StateCounts {
        let mut sum = StateCounts::default();
        for (_, job) in self.jobs.iter() {
            for (total, count) in sum.by_state.iter_mut().zip(job.counts.by_state) {
                *total += count;
            }
        }
        sum
    }

    /// The open jobs, in order of their ids.
    pub fn jobs(&self) -> Vec<JobView> {
        self.jobs
            .iter()
            .map(|(id, job)| JobView {
                job: id,
                client: job.client,
                name: job.name.clone(),
                submitted: job.next_index,
                counts: job.counts,
            })
            .collect()
    }

    /// One worker.
    pub fn worker(&self, worker: WorkerId) -> Option<WorkerView> {
        self.pool.get(self.pool.slot(worker)?).map(view_worker)
    }

    /// The workers, in order of their ids.
    pub fn workers(&self) -> Vec<WorkerView> {
        self.pool.iter().map(|(_, worker)| view_worker(worker)).collect()
    }

    pub(super) fn worker_ids<'a>(&'a self, holders: &'a [Slot]) -> impl Iterator<Item = WorkerId> + 'a {
        holders.iter().filter_map(|slot| self.pool.get(*slot).map(|worker| worker.id))
    }

    pub(super) fn is_held(&self, slot: Slot, task: TaskId) -> bool {
        match self.jobs.get(task).map(|record| &record.state) {
            Some(State::Memory { holders, .. }) => holders.contains(&slot),
            _ => false,
        }
    }
}

fn view_worker(worker: &PoolWorker) -> WorkerView {
    WorkerView {
        worker: worker.id,
        info: worker.info.clone(),
        processing: worker.processing.len(),
        queued: worker.queue.len(),
        outputs: worker.held_live,
        nbytes: worker.nbytes,
        occupancy_us: worker.occupancy_us,
    }
}
