//! What follows when a task's state changes.
//!
//! Everything here works on lists, never by recursion: a chain may be ten million tasks long.

use std::sync::Arc;

use crate::failure::{FailureCause, TaskFailure};
use crate::ids::TaskId;
use crate::wire::{ToClient, ToWorker};

use super::classes::ClassId;
use super::pool::Slot;
use super::record::{Jobs, Phase, QueuedAt, State};
use super::{Effects, Scheduler};

impl Scheduler {
    /// Puts a task into another state, and undoes what the old one meant elsewhere: a place in a queue, an assignment,
    /// copies in stores. What the new one means elsewhere is the caller's to do.
    pub(super) fn transition(&mut self, task: TaskId, next: State, effects: &mut Effects) {
        match self.jobs.set_state(task, next) {
            Some(State::Queued { at }) => self.leave_queue(at),
            Some(State::NoWorker) => {
                let jobs = &self.jobs;
                self.parked.forget_one(|task| is_parked(jobs, task));
            }
            Some(State::Processing { worker, position, expected_us, phase }) => {
                self.end_processing(task, worker, position, expected_us, phase);
                self.recall_dependents(task, effects);
                let attempt = self.jobs.get(task).map(|record| record.attempt);
                if let (Some(worker), Some(attempt)) = (self.pool.get(worker), attempt) {
                    effects.tell_worker(worker.id, ToWorker::Cancel { task, attempt });
                }
            }
            Some(State::Memory { nbytes, holders }) => {
                for slot in holders {
                    self.free(slot, task, nbytes, effects);
                }
                self.end_moves(task, effects);
                self.forget_copies(task);
            }
            Some(State::Released | State::Waiting { .. } | State::Erred { .. }) | None => {}
        }
    }

    /// A worker no longer has the task, which was at this position of its list.
    pub(super) fn end_processing(&mut self, task: TaskId, worker: Slot, position: u32, expected_us: u32, phase: Phase) {
        self.give_resources_back(task, worker);
        if let Some(moved) = self.pool.end(worker, position, expected_us, phase, self.now)
            && let Some(record) = self.jobs.get_mut(moved)
            && let State::Processing { position: at, .. } = &mut record.state
        {
            *at = position;
        }
        self.roomy.push(worker);
        self.look_ahead_later(worker);
    }

    fn give_resources_back(&mut self, task: TaskId, worker: Slot) {
        if self.classes.is_empty() {
            return;
        }
        let class = self.jobs.get(task).map_or(ClassId::ANY, |record| record.class);
        if let Some(class) = self.classes.get(class)
            && let Some(worker) = self.pool.get_mut(worker)
        {
            worker.give_resources_back(&class.requirements.resources);
        }
    }

    /// What waits to be sent ahead to this worker is looked at once there is room for much of it.
    fn look_ahead_later(&mut self, slot: Slot) {
        let waits = self.pool.get(slot).is_some_and(|worker| !worker.ahead_later.is_empty());
        if waits && self.pool.has_much_room_ahead(slot) {
            self.ahead_roomy.push(slot);
        }
    }

    fn leave_queue(&mut self, at: QueuedAt) {
        let jobs = &self.jobs;
        match at {
            QueuedAt::Roots => self.roots.forget_one(|task| is_queued(jobs, at, task)),
            QueuedAt::Class(class_id) => {
                if let Some(class) = self.classes.get_mut(class_id) {
                    class.queue.forget_one(|task| is_queued(jobs, at, task));
                }
                self.classes.queue_changed(class_id);
            }
            QueuedAt::Worker(slot) => {
                if let Some(worker) = self.pool.get_mut(slot) {
                    worker.queue.forget_one(|task| is_queued(jobs, at, task));
                }
                self.pool.queue_changed(slot);
            }
        }
    }

    /// A worker shall drop its copy of an output. The record does not name it any more.
    pub(super) fn free(&mut self, slot: Slot, task: TaskId, nbytes: u64, effects: &mut Effects) {
        self.unhold(slot, nbytes);
        self.tell_to_free(slot, task, effects);
    }

    /// A worker shall drop an output that it has, or may have.
    pub(super) fn tell_to_free(&mut self, slot: Slot, task: TaskId, effects: &mut Effects) {
        if let Some(worker) = self.pool.get_mut(slot) {
            worker.frees_said = worker.frees_said.wrapping_add(1);
            effects.tell_worker(worker.id, ToWorker::Free { task });
        }
    }

    /// A worker shall drop its copy of an output that others have. It may just have told that it has one.
    pub(super) fn take_copy_away(&mut self, slot: Slot, task: TaskId, effects: &mut Effects) {
        self.tell_to_free(slot, task, effects);
        if let Some(worker) = self.pool.get_mut(slot) {
            worker.take_away(task);
        }
    }

    fn unhold(&mut self, slot: Slot, nbytes: u64) {
        if self.pool.unhold(slot, nbytes) {
            let jobs = &self.jobs;
            self.pool.weed_held(slot, |task| match jobs.get(task).map(|record| &record.state) {
                Some(State::Memory { holders, .. }) => holders.contains(&slot),
                _ => false,
            });
        }
    }

    /// The output of a task that was being computed is now in this worker's store.
    pub(super) fn finish(&mut self, task: TaskId, slot: Slot, nbytes: u64) {
        let Some(State::Processing { worker, position, expected_us, phase }) =
            self.jobs.set_state(task, State::Memory { nbytes, holders: [slot].into_iter().collect() })
        else {
            return;
        };
        self.end_processing(task, worker, position, expected_us, phase);
        self.pool.hold(slot, task, nbytes);
        self.come_into_memory(task);
    }

    /// The output of a task that was to be computed is now there: its dependents come a step nearer, its inputs may have become
    /// unneeded.
    pub(super) fn come_into_memory(&mut self, task: TaskId) {
        let Some(job) = self.jobs.job_mut(task.job) else { return };
        let Some(record) = job.get_mut(task.index) else { return };
        // Taken out for the loops and put back: nothing in them looks at this record's edges.
        let inputs = std::mem::take(&mut record.inputs);
        let dependents = std::mem::take(&mut record.dependents);
        let has_copies = record.replicas > 1;
        for input in &inputs {
            let Some(input_record) = job.get_mut(*input) else { continue };
            input_record.waiters -= 1;
            if !input_record.is_needed() {
                self.loose.push(TaskId::new(task.job, *input));
            }
        }
        for dependent in &dependents {
            match job.get_mut(*dependent).map(|record| &mut record.state) {
                Some(State::Waiting { unfinished }) => {
                    *unfinished -= 1;
                    if *unfinished == 0 {
                        self.ready.push(TaskId::new(task.job, *dependent));
                    }
                }
                Some(State::Processing { worker, expected_us, phase, .. }) => {
                    let Phase::Ahead { unfinished } = phase else { continue };
                    *unfinished -= 1;
                    if *unfinished == 0 {
                        self.pool.change_phase(*worker, (*phase, *expected_us), (Phase::Sent, *expected_us));
                        *phase = Phase::Sent;
                        if self.pool.has_much_room_ahead(*worker) {
                            self.ahead_roomy.push(*worker);
                        }
                    }
                }
                _ => {}
            }
        }
        if let Some(record) = job.get_mut(task.index) {
            record.inputs = inputs;
            record.dependents = dependents;
        }
        if has_copies {
            self.look_at_copies(task);
        }
    }

    /// Puts a task that is not being computed on its way again: it has no inputs left to wait for, as far as is known.
    pub(super) fn make_ready(&mut self, task: TaskId) {
        self.jobs.set_state(task, State::Waiting { unfinished: 0 });
        self.ready.push(task);
    }

    /// A released task is needed: it and, as far as they are gone, its inputs are to be computed again.
    pub(super) fn require(&mut self, task: TaskId, effects: &mut Effects) {
        let mut stack = vec![task];
        while let Some(task) = stack.pop() {
            let Some(job) = self.jobs.job_mut(task.job) else { continue };
            let Some(record) = job.get_mut(task.index) else { continue };
            if !matches!(record.state, State::Released) {
                continue;
            }
            if record.is_scattered() {
                self.fail(task, Arc::new(self.data_lost(task)), effects);
                continue;
            }
            let inputs = record.inputs.clone();
            let mut unfinished = 0;
            let mut failure = None;
            for input in inputs {
                let Some(input_record) = job.get_mut(input) else { continue };
                input_record.waiters += 1;
                match &input_record.state {
                    State::Memory { .. } => continue,
                    State::Erred { failure: why } => failure = Some(Arc::clone(why)),
                    State::Released => stack.push(TaskId::new(task.job, input)),
                    _ => {}
                }
                unfinished += 1;
            }
            job.set_state(task.index, State::Waiting { unfinished });
            if let Some(failure) = failure {
                self.fail(task, failure, effects);
            } else if unfinished == 0 {
                self.ready.push(task);
            }
        }
    }

    /// The task has failed for good, and with it every task that waits for it.
    pub(super) fn fail(&mut self, task: TaskId, failure: Arc<TaskFailure>, effects: &mut Effects) {
        let mut stack = vec![task];
        while let Some(task) = stack.pop() {
            let Some(job) = self.jobs.job(task.job) else { continue };
            let client = job.client;
            let Some(record) = job.get(task.index) else { continue };
            if matches!(record.state, State::Erred { .. }) {
                continue;
            }
            let inputs = if record.state.is_pending() { record.inputs.clone() } else { Default::default() };
            let waiting =
                record.dependents.iter().filter(|at| job.get(**at).is_some_and(|record| record.state.is_pending()));
            stack.extend(waiting.map(|at| TaskId::new(task.job, *at)));
            self.transition(task, State::Erred { failure: Arc::clone(&failure) }, effects);
            for input in inputs {
                self.drop_waiter(TaskId::new(task.job, input));
            }
            let Some(record) = self.jobs.get_mut(task) else { continue };
            record.announced = false;
            if record.wanted {
                effects.tell_client(client, ToClient::Failed { task, failure: (*failure).clone() });
            }
            if record.keeps > 0 {
                self.tell_watchers(task, &ToClient::Failed { task, failure: (*failure).clone() }, effects);
            }
            self.loose.push(task);
        }
    }

    /// A task that waited for this one does so no longer.
    fn drop_waiter(&mut self, task: TaskId) {
        let Some(record) = self.jobs.get_mut(task) else { return };
        record.waiters -= 1;
        if !record.is_needed() {
            self.loose.push(task);
        }
    }

    /// The last holders of these outputs are gone. What needs them waits for them again, and they are computed again.
    pub(super) fn recover(&mut self, lost: &[TaskId], effects: &mut Effects) {
        for task in lost {
            self.lose(*task, effects);
        }
        for task in lost {
            if self.jobs.get(*task).is_some_and(|record| record.is_needed()) {
                self.require(*task, effects);
            }
        }
    }

    fn lose(&mut self, task: TaskId, effects: &mut Effects) {
        self.transition(task, State::Released, effects);
        let Some(job) = self.jobs.job_mut(task.job) else { return };
        let client = job.client;
        let Some(record) = job.get_mut(task.index) else { return };
        // A scattered value cannot come back: its client is told of the failure instead.
        if record.announced && record.wanted && !record.is_scattered() {
            effects.tell_client(client, ToClient::Recomputing { task });
        }
        record.announced = false;
        let dependents = record.dependents.clone();
        if record.keeps > 0 && !record.is_scattered() {
            self.tell_watchers(task, &ToClient::Recomputing { task }, effects);
        }
        // What is not needed is looked at once more, in case nothing names it either.
        self.loose.push(task);
        for dependent in dependents {
            let dependent = TaskId::new(task.job, dependent);
            match self.jobs.get_mut(dependent).map(|record| &mut record.state) {
                Some(State::Waiting { unfinished }) => *unfinished += 1,
                Some(State::Processing { phase: Phase::Ahead { unfinished }, .. }) => {
                    let unfinished = *unfinished + 1;
                    self.transition(dependent, State::Waiting { unfinished }, effects);
                }
                Some(State::Queued { .. } | State::NoWorker | State::Processing { .. }) => {
                    self.transition(dependent, State::Waiting { unfinished: 1 }, effects);
                }
                _ => {}
            }
        }
    }

    /// Drops what nobody needs any more, and forgets what nobody knows any more, beginning with the loose tasks.
    pub(super) fn settle(&mut self, effects: &mut Effects) {
        while let Some(task) = self.loose.pop() {
            let Some(record) = self.jobs.get(task) else { continue };
            if record.is_needed() {
                continue;
            }
            let is_pending = record.state.is_pending();
            let is_forgotten = record.dependents_live == 0;
            if is_forgotten || is_pending || record.state.is_memory() {
                let inputs = if is_pending && !is_forgotten { record.inputs.clone() } else { Default::default() };
                self.transition(task, State::Released, effects);
                for input in inputs {
                    self.drop_waiter(TaskId::new(task.job, input));
                }
            }
            if is_forgotten {
                self.forget(task, is_pending);
            }
        }
    }

    /// Drops a task's record. It is in no queue, store or list any more.
    fn forget(&mut self, task: TaskId, was_pending: bool) {
        let Some(job) = self.jobs.job_mut(task.job) else { return };
        let Some(record) = job.remove(task.index) else { return };
        self.live -= 1;
        self.classes.leave(record.class);
        for input in record.inputs {
            job.drop_dependent(input);
            let Some(input_record) = job.get_mut(input) else { continue };
            if was_pending {
                input_record.waiters -= 1;
            }
            if !input_record.is_needed() {
                self.loose.push(TaskId::new(task.job, input));
            }
        }
    }

    /// The failure of a scattered value that nobody holds any more.
    pub(super) fn data_lost(&self, task: TaskId) -> TaskFailure {
        let name = self.jobs.get(task).map_or_else(String::new, |record| self.kinds.name(record.kind));
        TaskFailure { task, name, node: None, cause: FailureCause::DataLost { input: task } }
    }

    /// Takes a worker out of an output's holders, without telling it. Says whether it was the last one.
    pub(super) fn drop_holder(&mut self, task: TaskId, slot: Slot) -> Option<bool> {
        let record = self.jobs.get_mut(task)?;
        let has_copies = record.replicas > 1;
        let State::Memory { nbytes, holders } = &mut record.state else { return None };
        let position = holders.iter().position(|holder| *holder == slot)?;
        holders.remove(position);
        let (nbytes, was_last) = (*nbytes, holders.is_empty());
        self.unhold(slot, nbytes);
        if has_copies {
            self.look_at_copies(task);
        }
        Some(was_last)
    }
}

/// Whether the task is queued there.
pub(super) fn is_queued(jobs: &Jobs, at: QueuedAt, task: TaskId) -> bool {
    matches!(jobs.get(task).map(|record| &record.state), Some(State::Queued { at: where_ }) if *where_ == at)
}

/// Whether the task waits for a first worker.
pub(super) fn is_parked(jobs: &Jobs, task: TaskId) -> bool {
    matches!(jobs.get(task).map(|record| &record.state), Some(State::NoWorker))
}
