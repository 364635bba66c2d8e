//! Workers that join, leave, and say things.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::failure::{FailureCause, TaskFailure};
use crate::ids::{Attempt, TaskId, WorkerId};
use crate::wire::{FromWorker, INLINE_RESULT_BYTES_MAX, ResultAt, ToClient, ToWorker, WorkerInfo};

use super::pool::{NBYTES_MAX, Slot};
use super::record::{QueuedAt, State};
use super::transitions::{is_parked, is_queued};
use super::{Effects, Scheduler};

impl Scheduler {
    pub(super) fn on_worker_joined(&mut self, worker: WorkerId, info: WorkerInfo, effects: &mut Effects) {
        if self.pool.slot(worker).is_some() {
            return;
        }
        // It is told of itself too: so it knows its own id among the holders that it will be told of.
        for (_, other) in self.pool.iter() {
            effects.tell_worker(other.id, ToWorker::Worker { worker, node: info.node });
            effects.tell_worker(worker, ToWorker::Worker { worker: other.id, node: other.info.node });
        }
        effects.tell_worker(worker, ToWorker::Worker { worker, node: info.node });
        for client in self.clients.keys() {
            effects.tell_client(*client, ToClient::Worker { worker, info: info.clone() });
        }
        self.pool.insert(worker, info);
        let jobs = &self.jobs;
        for task in self.parked.drain(|task| is_parked(jobs, task)) {
            self.make_ready(task);
        }
    }

    pub(super) fn on_worker_lost(&mut self, worker: WorkerId, effects: &mut Effects) {
        let Some(slot) = self.pool.slot(worker) else { return };
        let jobs = &self.jobs;
        let mut queued = match self.pool.get_mut(slot) {
            Some(entry) => entry.queue.drain(|task| is_queued(jobs, QueuedAt::Worker(slot), task)),
            None => Vec::new(),
        };
        let Some(gone) = self.pool.remove(slot) else { return };
        if self.pool.is_empty() {
            queued.extend(self.roots.drain(|task| is_queued(jobs, QueuedAt::Roots, task)));
        }
        for (_, other) in self.pool.iter() {
            effects.tell_worker(other.id, ToWorker::WorkerGone { worker });
        }
        for client in self.clients.keys() {
            effects.tell_client(*client, ToClient::WorkerGone { worker });
        }
        for task in queued {
            self.make_ready(task);
        }
        let mut given_up = Vec::new();
        for task in &gone.processing {
            self.make_ready(*task);
            if let Some(record) = self.jobs.get_mut(*task) {
                record.workers_lost = record.workers_lost.saturating_add(1);
                if u32::from(record.workers_lost) > self.allowed_failures {
                    given_up.push(*task);
                }
            }
        }
        let mut lost = Vec::new();
        for task in gone.held() {
            if self.drop_holder(*task, slot) == Some(true) {
                lost.push(*task);
            }
        }
        // What is given up goes first, so that nothing is computed again for it alone.
        for task in given_up {
            let Some(record) = self.jobs.get(task) else { continue };
            let failure = TaskFailure {
                task,
                name: self.kinds.name(record.kind),
                node: None,
                cause: FailureCause::WorkersLost { count: u32::from(record.workers_lost) },
            };
            self.fail(task, Arc::new(failure), effects);
        }
        self.recover(&lost, effects);
        self.pool.reuse(slot);
    }

    pub(super) fn on_worker_message(&mut self, worker: WorkerId, message: FromWorker, effects: &mut Effects) {
        let Some(slot) = self.pool.slot(worker) else { return };
        match message {
            FromWorker::Finished { task, attempt, nbytes, run_us, inline } => {
                self.on_finished(slot, task, attempt, nbytes, run_us, inline, effects);
            }
            FromWorker::Failed { task, attempt, failure } => self.on_failed(slot, task, attempt, failure, effects),
            FromWorker::InputsMissing { task, attempt, missing } => {
                self.on_inputs_missing(slot, task, attempt, missing, effects);
            }
            FromWorker::Replica { task } => self.on_replica(slot, task, effects),
            FromWorker::StealAnswer { .. }
            | FromWorker::Suspended { .. }
            | FromWorker::Resumed { .. }
            | FromWorker::NotAcquired { .. }
            | FromWorker::Status(_)
            | FromWorker::Leaving => {}
        }
    }

    /// Whether this worker runs the task, under this attempt.
    fn is_current(&self, slot: Slot, task: TaskId, attempt: Attempt) -> bool {
        self.jobs.get(task).is_some_and(|record| {
            record.attempt == attempt && matches!(record.state, State::Processing { worker, .. } if worker == slot)
        })
    }

    fn on_finished(
        &mut self,
        slot: Slot,
        task: TaskId,
        attempt: Attempt,
        nbytes: u64,
        run_us: u64,
        inline: Option<Bytes>,
        effects: &mut Effects,
    ) {
        if !self.is_current(slot, task, attempt) {
            self.free_unexpected(slot, task, effects);
            return;
        }
        let nbytes = nbytes.min(NBYTES_MAX);
        self.finish(task, slot, nbytes);
        let Some(job) = self.jobs.job_mut(task.job) else { return };
        let client = job.client;
        let Some(record) = job.get_mut(task.index) else { return };
        self.kinds.observe(record.kind, run_us);
        if record.wanted {
            record.announced = true;
            let result = match inline.filter(|bytes| bytes.len() <= INLINE_RESULT_BYTES_MAX) {
                Some(bytes) => ResultAt::Inline(bytes),
                None => ResultAt::Workers(self.pool.get(slot).map(|worker| worker.id).into_iter().collect()),
            };
            effects.tell_client(client, ToClient::Finished { task, nbytes, result });
        }
    }

    /// A worker has an output that nobody asked it for, or not any more: it shall drop it, unless it will be counted.
    fn free_unexpected(&self, slot: Slot, task: TaskId, effects: &mut Effects) {
        let is_counted = match self.jobs.get(task).map(|record| &record.state) {
            // It was asked again, and will say under the new attempt that the output is there.
            Some(State::Processing { worker, .. }) => *worker == slot,
            Some(State::Memory { holders, .. }) => holders.contains(&slot),
            _ => false,
        };
        if let Some(worker) = self.pool.get(slot).filter(|_| !is_counted) {
            effects.tell_worker(worker.id, ToWorker::Free { task });
        }
    }

    fn on_failed(
        &mut self,
        slot: Slot,
        task: TaskId,
        attempt: Attempt,
        mut failure: TaskFailure,
        effects: &mut Effects,
    ) {
        if !self.is_current(slot, task, attempt) {
            return;
        }
        self.take_back(task);
        let Some(record) = self.jobs.get_mut(task) else { return };
        if record.retries_left > 0 {
            record.retries_left -= 1;
            return;
        }
        let kind = record.kind;
        // What the worker says of the cause is believed; which task and node it was is known better here.
        failure.task = task;
        failure.cause = failure.cause.shortened();
        if failure.name.is_empty() {
            failure.name = self.kinds.name(kind);
        }
        failure.node = self.pool.get(slot).map(|worker| worker.info.node);
        self.fail(task, Arc::new(failure), effects);
    }

    /// A worker has given a task back. It is ready again, if its inputs still are there.
    fn take_back(&mut self, task: TaskId) {
        if let Some(State::Processing { worker, position, expected_us }) =
            self.jobs.set_state(task, State::Waiting { unfinished: 0 })
        {
            self.end_processing(worker, position, expected_us);
        }
        self.ready.push(task);
    }

    fn on_inputs_missing(
        &mut self,
        slot: Slot,
        task: TaskId,
        attempt: Attempt,
        missing: Vec<(TaskId, SmallVec<[WorkerId; 2]>)>,
        effects: &mut Effects,
    ) {
        if !self.is_current(slot, task, attempt) {
            return;
        }
        self.take_back(task);
        let mut lost = Vec::new();
        for (input, holders) in missing {
            let is_input =
                input.job == task.job && self.jobs.get(task).is_some_and(|record| record.inputs.contains(&input.index));
            if is_input && self.drop_holders(input, &holders, effects) {
                lost.push(input);
            }
        }
        self.recover(&lost, effects);
    }

    /// These workers did not give the output: they count as holders no longer, and drop it in case they have it.
    /// Says whether nobody is left.
    pub(super) fn drop_holders(&mut self, task: TaskId, holders: &[WorkerId], effects: &mut Effects) -> bool {
        let mut is_lost = false;
        for worker in holders {
            let Some(slot) = self.pool.slot(*worker) else { continue };
            let Some(was_last) = self.drop_holder(task, slot) else { continue };
            is_lost |= was_last;
            effects.tell_worker(*worker, ToWorker::Free { task });
        }
        is_lost
    }

    fn on_replica(&mut self, slot: Slot, task: TaskId, effects: &mut Effects) {
        if let Some(State::Memory { nbytes, holders }) = self.jobs.get_mut(task).map(|record| &mut record.state) {
            if !holders.contains(&slot) {
                holders.push(slot);
                let nbytes = *nbytes;
                self.pool.hold(slot, task, nbytes);
            }
        } else {
            self.free_unexpected(slot, task, effects);
        }
    }
}
