//! Workers that join, leave, and say things.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::failure::{FailureCause, TaskFailure};
use crate::ids::{Attempt, TaskId, WorkerId};
use crate::task_stream::TaskOutcome;
use crate::wire::{FromWorker, INLINE_RESULT_BYTES_MAX, ResultAt, ToClient, ToWorker, WorkerInfo, WorkerStatus};

use super::classes::ClassId;
use super::pool::{NBYTES_MAX, Slot};
use super::record::{Phase, QueuedAt, State};
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
        let slot = self.pool.insert(worker, info.clone(), self.now);
        self.classes.add_worker(slot, &info);
        self.copies.look_at_starved();
        self.roomy.push(slot);
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
        self.classes.remove_worker(slot);
        queued.extend(self.drain_orphaned_classes());
        for task in queued {
            self.make_ready(task);
        }
        let mut given_up = Vec::new();
        for task in &gone.processing {
            let Some(State::Processing { phase, .. }) = self.jobs.get(*task).map(|record| &record.state) else {
                continue;
            };
            // What was sent ahead waits, like its inputs, which were here too; it cannot be at fault.
            if let Phase::Ahead { unfinished } = *phase {
                self.jobs.set_state(*task, State::Waiting { unfinished });
                continue;
            }
            self.make_ready(*task);
            if let Some(record) = self.jobs.get_mut(*task) {
                record.workers_lost = record.workers_lost.saturating_add(1);
                if u32::from(record.workers_lost) > self.allowed_failures {
                    given_up.push(*task);
                }
            }
        }
        self.drop_orphans_at(slot);
        self.end_moves_of(slot, effects);
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
        self.keep_last_workers(effects);
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
            FromWorker::Inventory(inventory) => self.on_inventory(slot, inventory, effects),
            FromWorker::Replica { task, attempt, frees_heard } => {
                self.on_replica(slot, task, attempt, frees_heard, effects);
            }
            FromWorker::StealAnswer { task, attempt, given } => {
                self.on_steal_answer(slot, task, attempt, given, effects);
            }
            FromWorker::Suspended { task, attempt } => self.on_suspended(slot, task, attempt),
            FromWorker::Resumed { task, attempt } => self.on_resumed(slot, task, attempt),
            FromWorker::NotAcquired { task } => self.on_not_acquired(slot, task, effects),
            FromWorker::Status(status) => self.on_status(slot, status, effects),
            FromWorker::Leaving => self.on_leaving(slot, effects),
        }
    }

    /// A task of this worker waits for tasks that it has submitted itself: it counts no longer against the threads.
    fn on_suspended(&mut self, slot: Slot, task: TaskId, attempt: Attempt) {
        if self.is_current(slot, task, attempt) {
            self.change_phase(task, Phase::Suspended, 0);
            self.roomy.push(slot);
        } else {
            self.orphan_is_suspended(slot, task, attempt, true);
        }
    }

    fn on_resumed(&mut self, slot: Slot, task: TaskId, attempt: Attempt) {
        if !self.is_current(slot, task, attempt) {
            return self.orphan_is_suspended(slot, task, attempt, false);
        }
        let Some(record) = self.jobs.get(task) else { return };
        if matches!(record.state, State::Processing { phase: Phase::Suspended, .. }) {
            let expected_us = self.kinds.expected_us(record.kind);
            self.change_phase(task, Phase::Begun, expected_us);
        }
    }

    /// Puts a task that a worker has begun into another phase.
    pub(super) fn change_phase(&mut self, task: TaskId, next: Phase, next_us: u32) {
        let Some(record) = self.jobs.get_mut(task) else { return };
        let State::Processing { worker, expected_us, phase, .. } = &mut record.state else { return };
        // One that was sent ahead has not begun, whatever its worker says.
        if matches!(phase, Phase::Ahead { .. }) {
            return;
        }
        let slot = *worker;
        self.pool.change_phase(slot, (*phase, *expected_us), (next, next_us));
        (*phase, *expected_us) = (next, next_us);
    }

    /// A worker says how it is. What is queued for one that is paused goes elsewhere.
    fn on_status(&mut self, slot: Slot, status: WorkerStatus, effects: &mut Effects) {
        if self.pool.set_status(slot, status) {
            self.drain_queue_of(slot);
            self.roomy.push(slot);
            if status.paused {
                self.ask_back_all(slot, effects);
            } else {
                self.copies.look_at_starved();
            }
        }
    }

    /// What is queued for a worker is looked at anew.
    pub(super) fn drain_queue_of(&mut self, slot: Slot) {
        let jobs = &self.jobs;
        let Some(worker) = self.pool.get_mut(slot) else { return };
        let queued = worker.queue.drain(|task| is_queued(jobs, QueuedAt::Worker(slot), task));
        self.pool.queue_changed(slot);
        for task in queued {
            self.make_ready(task);
        }
    }

    /// The tasks that are queued for workers none of which is left, or that others may have now.
    fn drain_orphaned_classes(&mut self) -> Vec<TaskId> {
        let orphaned: Vec<ClassId> = self
            .classes
            .waiting()
            .filter(|id| {
                let class = self.classes.get(*id);
                class.is_some_and(|class| class.eligible().is_empty() || class.requirements.allow_other_workers)
            })
            .collect();
        let mut tasks = Vec::new();
        for id in orphaned {
            let jobs = &self.jobs;
            if let Some(class) = self.classes.get_mut(id) {
                tasks.extend(class.queue.drain(|task| is_queued(jobs, QueuedAt::Class(id), task)));
            }
            self.classes.queue_changed(id);
        }
        tasks
    }

    /// Whether this worker runs the task, under this attempt.
    pub(super) fn is_current(&self, slot: Slot, task: TaskId, attempt: Attempt) -> bool {
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
        let nbytes = nbytes.min(NBYTES_MAX);
        if !self.is_current(slot, task, attempt) {
            if !self.orphan_has_ended(slot, task, attempt, Some(nbytes)) {
                self.free_unexpected(slot, task, effects);
            }
            return;
        }
        if run_us > 0 {
            self.record_task((task, attempt), slot, run_us, nbytes, TaskOutcome::Finished);
        }
        self.finish(task, slot, nbytes);
        self.move_away_if_retiring(slot, task, effects);
        let Some(job) = self.jobs.job_mut(task.job) else { return };
        let client = job.client;
        let Some(record) = job.get_mut(task.index) else { return };
        // 0 says that it was there already.
        if run_us > 0 {
            self.kinds.observe(record.kind, run_us);
        }
        if record.wanted {
            record.announced = true;
            let result = match inline.filter(|bytes| bytes.len() <= INLINE_RESULT_BYTES_MAX) {
                Some(bytes) => ResultAt::Inline(bytes),
                None => ResultAt::Workers(self.pool.get(slot).map(|worker| worker.id).into_iter().collect()),
            };
            effects.tell_client(client, ToClient::Finished { task, nbytes, result });
        }
        self.tell_watchers_where(task, effects);
    }

    /// A worker has an output that nobody asked it for, or not any more: it shall drop it, unless it will be counted.
    fn free_unexpected(&mut self, slot: Slot, task: TaskId, effects: &mut Effects) {
        let is_counted = match self.jobs.get(task).map(|record| &record.state) {
            // It was asked again, and will say under the new attempt that the output is there.
            Some(State::Processing { worker, .. }) => *worker == slot,
            Some(State::Memory { holders, .. }) => holders.contains(&slot),
            Some(_) => false,
            None => self.orphans.holds(slot, task),
        };
        if !is_counted {
            self.tell_to_free(slot, task, effects);
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
            self.orphan_has_ended(slot, task, attempt, None);
            return;
        }
        self.take_back(task, effects);
        let Some(record) = self.jobs.get_mut(task) else { return };
        if record.retries_left > 0 {
            record.retries_left -= 1;
            self.record_task((task, attempt), slot, 0, 0, TaskOutcome::Retried);
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
        self.record_task((task, attempt), slot, 0, 0, TaskOutcome::Failed);
        self.record_failure(&failure);
        self.fail(task, Arc::new(failure), effects);
    }

    /// A worker has given a task back. It is ready again, if its inputs still are there.
    pub(super) fn take_back(&mut self, task: TaskId, effects: &mut Effects) {
        let Some(State::Processing { worker, position, expected_us, phase }) =
            self.jobs.get(task).map(|record| &record.state)
        else {
            return;
        };
        let (worker, position, expected_us, phase) = (*worker, *position, *expected_us, *phase);
        let unfinished = if let Phase::Ahead { unfinished } = phase { unfinished } else { 0 };
        self.jobs.set_state(task, State::Waiting { unfinished });
        self.end_processing(task, worker, position, expected_us, phase);
        self.recall_dependents(task, effects);
        if unfinished == 0 {
            self.ready.push(task);
        }
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
        self.take_back(task, effects);
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
            self.take_copy_away(slot, task, effects);
        }
        is_lost
    }

    fn on_replica(&mut self, slot: Slot, task: TaskId, attempt: Attempt, frees_heard: u32, effects: &mut Effects) {
        let is_taken_away = self.pool.get_mut(slot).is_some_and(|worker| worker.is_taken_away(task, frees_heard));
        let Some(record) = self.jobs.get_mut(task) else { return self.free_unexpected(slot, task, effects) };
        let is_other = record.attempt != attempt;
        if let State::Memory { nbytes, holders } = &mut record.state {
            if !holders.contains(&slot) {
                // A worker that drops it, or has that of another try, has not got what it was asked for.
                if is_taken_away || is_other {
                    if !is_taken_away {
                        self.tell_to_free(slot, task, effects);
                    }
                    return self.on_not_acquired(slot, task, effects);
                }
                holders.push(slot);
                let nbytes = *nbytes;
                self.pool.hold(slot, task, nbytes);
            }
            self.on_moved(slot, task, effects);
            // It may have come to one that is about to leave.
            self.look_at_copies(task);
            self.move_away_if_retiring(slot, task, effects);
        } else {
            self.free_unexpected(slot, task, effects);
        }
    }
}
