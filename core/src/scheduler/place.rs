//! Which worker gets what.

use crate::ids::TaskId;
use crate::wire::{Assignment, InputAt, Priority, ToWorker};

use super::pool::{Room, Slot};
use super::record::{QueuedAt, State};
use super::transitions::is_queued;
use super::{Effects, Scheduler};

/// What it costs to fetch an input, in microseconds, apart from its bytes.
const FETCH_US: u64 = 200;

/// How many bytes are fetched in a microsecond, taken low so that data is moved only where that pays.
const FETCH_BYTES_PER_US: u64 = 500;

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
        has_room && self.first_root().is_none_or(|(root, _)| priority.user <= root.user)
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
        let mut candidates: smallvec::SmallVec<[Slot; 8]> = smallvec::SmallVec::new();
        let mut total: u64 = 0;
        for input in &record.inputs {
            let Some(State::Memory { nbytes, holders }) = job.get(*input).map(|record| &record.state) else { continue };
            // An empty output counts too, so that its holder is a candidate.
            let bytes = (*nbytes).max(1);
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
        let best =
            candidates.iter().copied().min_by_key(|slot| (total.saturating_sub(there(*slot)), wait_us(*slot), *slot));
        let to_move = best.map_or(0, |slot| total.saturating_sub(there(slot)));
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
            if fetch_us < wait_us {
                return Some(idle);
            }
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
    }

    /// Takes the next task for a worker out of the queues: its own, the roots, another's.
    fn next_for(&mut self, slot: Slot) -> Option<TaskId> {
        let own = self.first_queued_at(slot);
        let root = self.first_root();
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
    fn assign(&mut self, task: TaskId, slot: Slot, effects: &mut Effects) {
        let Some(job) = self.jobs.job_mut(task.job) else { return };
        let Some(record) = job.get(task.index) else { return };
        let inputs = record
            .inputs
            .iter()
            .map(|input| match job.get(*input).map(|record| &record.state) {
                Some(State::Memory { nbytes, holders }) => InputAt {
                    task: TaskId::new(task.job, *input),
                    nbytes: *nbytes,
                    holders: holders.iter().filter_map(|slot| self.pool.get(*slot).map(|worker| worker.id)).collect(),
                },
                // Cannot be: but a worker that is told of no holder says so, and then the input is looked at again.
                _ => InputAt { task: TaskId::new(task.job, *input), nbytes: 0, holders: Default::default() },
            })
            .collect();
        let Some(record) = job.get_mut(task.index) else { return };
        let Some(worker_id) = self.pool.get(slot).map(|worker| worker.id) else { return };
        record.attempt.0 = record.attempt.0.wrapping_add(1);
        let assignment = Assignment {
            task,
            attempt: record.attempt,
            kind: self.kinds.id(record.kind),
            payload: record.payload.clone(),
            inputs,
            priority: record.priority,
            inline_result: record.wanted,
            timeout_ms: 0,
            requirements: None,
        };
        let expected_us = self.kinds.expected_us(record.kind);
        let position = self.pool.begin(slot, task, expected_us);
        job.set_state(task.index, State::Processing { worker: slot, position, expected_us });
        effects.tell_worker(worker_id, ToWorker::Compute(assignment));
    }
}
