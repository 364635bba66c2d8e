//! Which worker gets what.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::ids::{Attempt, TaskId};
use crate::wire::{Assignment, InputAt, Priority, ToWorker};

use super::ahead::DEPENDENTS_MAX;
use super::classes::ClassId;
use super::pool::{Room, Slot};
use super::record::{Phase, QueuedAt, State};
use super::transitions::is_queued;
use super::{Effects, Scheduler};

/// What it costs to fetch an input, in microseconds, apart from its bytes.
pub(super) const FETCH_US: u64 = 200;

/// How many bytes are fetched in a microsecond, taken low so that data is moved only where that pays.
pub(super) const FETCH_BYTES_PER_US: u64 = 500;

/// How many eligible workers, inputs and holders are looked at when a task with requirements is placed.
const LOOKED_AT_MAX: usize = 16;

impl Scheduler {
    /// Gives each task that has become ready to a worker, or puts it into a queue.
    pub(super) fn place_ready(&mut self, effects: &mut Effects) {
        // Nothing below makes further tasks ready.
        let mut ready = std::mem::take(&mut self.ready);
        for task in ready.drain(..) {
            self.place(task, effects);
        }
        if ready.capacity() <= 64 * 1024 {
            self.ready = ready;
        }
    }

    fn place(&mut self, task: TaskId, effects: &mut Effects) {
        let Some(record) = self.jobs.get(task) else { return };
        if !record.state.is_ready() {
            return;
        }
        let priority = record.priority;
        if record.class != ClassId::ANY {
            return self.place_restricted(task, effects);
        }
        if self.pool.is_empty() {
            self.jobs.set_state(task, State::NoWorker);
            self.parked.push(priority, task);
            return;
        }
        let best = if record.inputs.is_empty() { None } else { self.best_worker(task) };
        match best {
            None => {
                self.jobs.set_state(task, State::Queued { at: QueuedAt::Roots });
                self.roots.push(priority, task);
            }
            Some(slot) if self.may_go_at_once(slot, priority) => self.assign(task, slot, effects),
            Some(slot) => {
                self.jobs.set_state(task, State::Queued { at: QueuedAt::Worker(slot) });
                if let Some(worker) = self.pool.get_mut(slot) {
                    worker.queue.push(priority, task);
                }
                self.pool.queue_changed(slot);
                self.roomy.push(slot);
            }
        }
    }

    /// Whether a worker has room, and nothing that comes before a task of this priority is queued for it.
    fn may_go_at_once(&mut self, slot: Slot, priority: Priority) -> bool {
        let has_room = self.pool.get(slot).is_some_and(|worker| worker.room() != Room::Full && worker.queue.is_empty());
        has_room
            && self.first_root().is_none_or(|(root, _)| priority.user <= root.user)
            && self.first_class_for(slot).is_none_or(|(first, _)| priority.user <= first.user)
    }

    /// Gives a task with requirements to one of the workers that have them, or puts it into its class's queue.
    fn place_restricted(&mut self, task: TaskId, effects: &mut Effects) {
        let Some((class_id, priority)) = self.jobs.get(task).map(|record| (record.class, record.priority)) else {
            return;
        };
        let is_eligible_anywhere = self.classes.get(class_id).is_some_and(|class| !class.eligible().is_empty());
        if !is_eligible_anywhere {
            self.jobs.set_state(task, State::NoWorker);
            self.parked.push(priority, task);
            return;
        }
        let comes_first = self.first_queued_in(class_id).is_none_or(|(first, _)| priority < first);
        // As long as none of its kind waits, one with room may be among many without: then all are looked at.
        let waits_nobody = self.classes.get(class_id).is_none_or(|class| class.queue.is_empty());
        let best = match self.best_eligible(task, class_id, LOOKED_AT_MAX) {
            None if waits_nobody => self.best_eligible(task, class_id, usize::MAX),
            found => found,
        };
        match best {
            Some(slot) if comes_first => self.assign(task, slot, effects),
            may_go => {
                self.jobs.set_state(task, State::Queued { at: QueuedAt::Class(class_id) });
                if let Some(class) = self.classes.get_mut(class_id) {
                    class.queue.push(priority, task);
                }
                self.classes.queue_changed(class_id);
                self.roomy.extend(may_go);
            }
        }
    }

    /// The eligible worker with room and resources left that has to fetch the fewest bytes, then the least busy. Of many,
    /// those that hold inputs and a sample are looked at.
    fn best_eligible(&mut self, task: TaskId, class_id: ClassId, looked_at_max: usize) -> Option<Slot> {
        let job = self.jobs.job(task.job)?;
        let record = job.get(task.index)?;
        let class = self.classes.get(class_id)?;
        let needs = &class.requirements.resources;
        let eligible = class.eligible();
        let mut there: SmallVec<[(Slot, u64); 8]> = SmallVec::new();
        for (input, share) in record.shares().take(LOOKED_AT_MAX) {
            let Some(State::Memory { nbytes, holders }) = job.get(input).map(|record| &record.state) else { continue };
            let bytes = share(*nbytes);
            for holder in holders.iter().take(LOOKED_AT_MAX) {
                match there.iter().position(|entry| entry.0 == *holder) {
                    Some(at) => there[at].1 = there[at].1.saturating_add(bytes),
                    None if there.len() < LOOKED_AT_MAX => there.push((*holder, bytes)),
                    None => {}
                }
            }
        }
        self.cursor = self.cursor.wrapping_add(LOOKED_AT_MAX);
        let sampled = (0..eligible.len().min(looked_at_max))
            .filter_map(|step| eligible.get((self.cursor.wrapping_add(step)) % eligible.len()).copied());
        let is_small = eligible.len() <= looked_at_max;
        let holding = there.iter().map(|entry| entry.0).filter(|slot| !is_small && class.is_eligible(*slot));
        let bytes_at = |slot: Slot| there.iter().find(|entry| entry.0 == slot).map_or(0, |entry| entry.1);
        sampled
            .chain(holding)
            .filter_map(|slot| self.pool.get(slot).map(|worker| (slot, worker)))
            .filter(|(_, worker)| worker.room() != Room::Full && worker.has_left(needs))
            .min_by_key(|(slot, worker)| (u64::MAX - bytes_at(*slot), worker.wait_us(), *slot))
            .map(|found| found.0)
    }

    fn first_queued_in(&mut self, class_id: ClassId) -> Option<(Priority, TaskId)> {
        let jobs = &self.jobs;
        self.classes.get_mut(class_id)?.queue.peek(|task| is_queued(jobs, QueuedAt::Class(class_id), task))
    }

    /// Of the classes whose tasks this worker could run now, the one with the first task.
    fn first_class_for(&mut self, slot: Slot) -> Option<(Priority, ClassId)> {
        if self.classes.waits_nobody() {
            return None;
        }
        let waiting: SmallVec<[ClassId; 8]> = self.classes.waiting().collect();
        let mut best = None;
        for class_id in waiting {
            let may_run = self.pool.get(slot).zip(self.classes.get(class_id)).is_some_and(|(worker, class)| {
                class.is_eligible(slot) && worker.has_left(&class.requirements.resources)
            });
            if may_run && let Some((priority, _)) = self.first_queued_in(class_id) {
                best = match best {
                    Some(found) if found <= (priority, class_id) => Some(found),
                    _ => Some((priority, class_id)),
                };
            }
        }
        best
    }

    fn take_from_class(&mut self, class_id: ClassId) -> Option<TaskId> {
        let jobs = &self.jobs;
        let class = self.classes.get_mut(class_id)?;
        let entry = class.queue.pop(|task| is_queued(jobs, QueuedAt::Class(class_id), task));
        self.classes.queue_changed(class_id);
        entry.map(|entry| entry.1)
    }

    fn first_root(&mut self) -> Option<(Priority, TaskId)> {
        let jobs = &self.jobs;
        self.roots.peek(|task| is_queued(jobs, QueuedAt::Roots, task))
    }

    fn first_queued_at(&mut self, slot: Slot) -> Option<(Priority, TaskId)> {
        let jobs = &self.jobs;
        self.pool.get_mut(slot)?.queue.peek(|task| is_queued(jobs, QueuedAt::Worker(slot), task))
    }

    /// The worker that has to fetch the fewest bytes, then the least busy; an idle worker instead, if fetching takes
    /// less time than waiting. `None` if nobody holds an input.
    fn best_worker(&mut self, task: TaskId) -> Option<Slot> {
        let job = self.jobs.job(task.job)?;
        let record = job.get(task.index)?;
        if self.bytes_at.len() < self.pool.slots_len() {
            self.bytes_at.resize(self.pool.slots_len(), 0);
        }
        let mut candidates: SmallVec<[Slot; 8]> = SmallVec::new();
        let mut total: u64 = 0;
        for (input, share) in record.shares() {
            let Some(State::Memory { nbytes, holders }) = job.get(input).map(|record| &record.state) else { continue };
            // An empty output counts too, so that its holder is a candidate.
            let bytes = share(*nbytes).max(1);
            total = total.saturating_add(bytes);
            for slot in holders {
                let Some(at) = self.bytes_at.get_mut(slot.0 as usize) else { continue };
                if *at == 0 {
                    candidates.push(*slot);
                }
                *at = at.saturating_add(bytes);
            }
        }
        let bytes_at = &self.bytes_at;
        let pool = &self.pool;
        let there = |slot: Slot| bytes_at.get(slot.0 as usize).copied().unwrap_or(0);
        let wait_us = |slot: Slot| pool.get(slot).map_or(u64::MAX, |worker| worker.wait_us());
        // One that is paused or about to leave is taken only if there is no other; then somebody else will get it.
        let is_closed = |slot: Slot| pool.get(slot).is_none_or(|worker| !worker.is_open());
        let best = candidates
            .iter()
            .copied()
            .min_by_key(|slot| (is_closed(*slot), total.saturating_sub(there(*slot)), wait_us(*slot), *slot));
        let to_move = best.map_or(0, |slot| total.saturating_sub(there(slot)));
        let is_best_closed = best.is_some_and(is_closed);
        for slot in candidates {
            if let Some(at) = self.bytes_at.get_mut(slot.0 as usize) {
                *at = 0;
            }
        }
        let best = best?;
        let busy = self.pool.get(best).filter(|worker| worker.room() != Room::Idle);
        if let Some(wait_us) = busy.map(|worker| worker.wait_us())
            && let Some(idle) = self.pool.least_busy(Room::Idle)
        {
            // All inputs may have to move, where the best worker would have fetched only some.
            let fetch_us = FETCH_US + total.saturating_sub(to_move) / FETCH_BYTES_PER_US;
            if fetch_us < wait_us || is_best_closed {
                return Some(idle);
            }
        }
        if is_best_closed {
            return self.pool.least_busy(Room::Open).or(Some(best));
        }
        Some(best)
    }

    /// Gives queued tasks to the workers that have room.
    pub(super) fn fill(&mut self, effects: &mut Effects) {
        while let Some(slot) = self.roomy.pop() {
            self.refill(slot, effects);
        }
        // What others did not take goes to whoever has the most room.
        loop {
            let room = if self.roots.is_empty() { Room::Low } else { Room::Open };
            if self.roots.is_empty() && !self.pool.has_queues() {
                break;
            }
            let Some(slot) = self.pool.least_busy(room) else { break };
            let Some(task) = self.next_for(slot) else { break };
            self.assign(task, slot, effects);
        }
    }

    fn refill(&mut self, slot: Slot, effects: &mut Effects) {
        while self.pool.get(slot).is_some_and(|worker| worker.room() != Room::Full) {
            let Some(task) = self.next_for(slot) else { break };
            self.assign(task, slot, effects);
        }
        self.pool.update_room(slot);
    }

    /// Takes the next task for a worker out of the queues: its own, the roots, another's; or what is restricted to workers
    /// such as this one, if that comes before them.
    fn next_for(&mut self, slot: Slot) -> Option<TaskId> {
        let own = self.first_queued_at(slot);
        let root = self.first_root();
        if let Some((priority, class)) = self.first_class_for(slot) {
            let comes_after = |other: Option<(Priority, TaskId)>| other.is_none_or(|(other, _)| priority < other);
            if comes_after(own) && comes_after(root) {
                return self.take_from_class(class);
            }
        }
        match (own, root) {
            (Some((own, _)), Some((root, _))) if root.user < own.user => self.take_root(),
            (Some(_), _) => self.take_from(slot),
            (None, Some(_)) => self.take_root(),
            (None, None) => self.steal_for(slot),
        }
    }

    fn take_root(&mut self) -> Option<TaskId> {
        let jobs = &self.jobs;
        self.roots.pop(|task| is_queued(jobs, QueuedAt::Roots, task)).map(|entry| entry.1)
    }

    fn take_from(&mut self, slot: Slot) -> Option<TaskId> {
        let jobs = &self.jobs;
        let entry = self.pool.get_mut(slot)?.queue.pop(|task| is_queued(jobs, QueuedAt::Worker(slot), task));
        self.pool.queue_changed(slot);
        entry.map(|entry| entry.1)
    }

    /// A worker that runs dry takes what is queued elsewhere; one that has some work only from a much longer queue.
    fn steal_for(&mut self, slot: Slot) -> Option<TaskId> {
        let victim = self.pool.longest_queue()?;
        let thief = self.pool.get(slot)?;
        let queued = self.pool.get(victim)?.queue.len();
        if thief.room() > Room::Low && queued <= thief.processing.len() {
            return None;
        }
        self.take_from(victim)
    }

    /// Sends a task to a worker, under a new attempt. The task is in no queue any more.
    pub(super) fn assign(&mut self, task: TaskId, slot: Slot, effects: &mut Effects) {
        self.send(task, slot, 0, effects);
    }

    /// Sends a task to a worker, under a new attempt, when `unfinished` of its input edges are still being computed there.
    pub(super) fn send(&mut self, task: TaskId, slot: Slot, unfinished: u32, effects: &mut Effects) {
        let Some(job) = self.jobs.job_mut(task.job) else { return };
        let Some(record) = job.get(task.index) else { return };
        let Some(worker_id) = self.pool.get(slot).map(|worker| worker.id) else { return };
        let inputs = record
            .shares()
            .map(|(input, share)| {
                let record = job.get(input);
                let (nbytes, holders) = match record.map(|record| &record.state) {
                    Some(State::Memory { nbytes, holders }) => {
                        let ids = holders.iter().filter_map(|slot| self.pool.get(*slot).map(|worker| worker.id));
                        (share(*nbytes), ids.collect())
                    }
                    // Computed by the receiver itself, which was told of it before.
                    _ => (0, [worker_id].into_iter().collect()),
                };
                let attempt = record.map_or(Attempt(0), |record| record.attempt);
                InputAt { task: TaskId::new(task.job, input), nbytes, attempt, holders }
            })
            .collect();
        let Some(record) = job.get_mut(task.index) else { return };
        record.attempt.0 = record.attempt.max(self.attempts_after).0.wrapping_add(1);
        let class = self.classes.get(record.class);
        let assignment = Assignment {
            task,
            attempt: record.attempt,
            kind: self.kinds.id(record.kind),
            payload: record.payload.clone(),
            inputs,
            priority: record.priority,
            inline_result: record.wanted,
            may_be_told_late: !record.leads,
            timeout_ms: record.timeout_ms,
            requirements: class.map(|class| Arc::clone(&class.requirements)),
            part: record.part,
        };
        if let Some((class, worker)) = class.zip(self.pool.get_mut(slot)) {
            worker.take_resources(&class.requirements.resources);
        }
        let expected_us = self.kinds.expected_us(record.kind);
        let may_be_followed = record.leads && record.dependents.len() <= DEPENDENTS_MAX;
        let phase = if unfinished > 0 { Phase::Ahead { unfinished } } else { Phase::Sent };
        let position = self.pool.begin(slot, task, expected_us, phase, self.now);
        job.set_state(task.index, State::Processing { worker: slot, position, expected_us, phase });
        effects.tell_worker(worker_id, ToWorker::Compute(assignment));
        if may_be_followed {
            self.ahead.push((task, slot));
        }
    }
}
