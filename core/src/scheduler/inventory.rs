//! What workers have from before they registered: outputs, and tasks on their threads.
//!
//! Of a task that is known, the output is used if nobody else has one, and dropped if somebody has computed it meanwhile. What is
//! not known yet waits, as an orphan, for the client that may still want it; for a while after the scheduler has begun, and while
//! a client is saying again what its job consists of.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::ids::{Attempt, JobId, TaskId, Time, WorkerId};
use crate::wire::{Inventory, StillRunning, ToWorker};

use super::pool::{NBYTES_MAX, Slot};
use super::record::{NOBODY, State};
use super::{Effects, Scheduler};

/// How long orphans are kept after the recovery, in microseconds.
pub(super) const ORPHANS_US: u64 = 30_000_000;

/// How long those are not looked at that were kept longer, in microseconds.
const PAUSE_US: u64 = 1_000_000;

/// How many tasks there may be of which workers have something and that are not known.
const ORPHANS_MAX: usize = 20_000_000;

/// An output that nobody has asked for yet.
#[derive(Clone, Copy, Debug)]
struct Orphan {
    slot: Slot,
    attempt: Attempt,
    nbytes: u64,
}

/// What workers have of tasks that are not known.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    outputs: BTreeMap<TaskId, SmallVec<[Orphan; 1]>>,
    running: BTreeMap<TaskId, SmallVec<[(Slot, StillRunning); 1]>>,
    /// Old ones are not looked for before this time.
    look_at: Time,
}

impl Orphans {
    pub(super) fn is_empty(&self) -> bool {
        self.outputs.is_empty() && self.running.is_empty()
    }

    fn has_room(&self) -> bool {
        self.outputs.len() + self.running.len() < ORPHANS_MAX
    }

    /// A worker has one output of a task.
    fn add(&mut self, task: TaskId, orphan: Orphan) {
        let orphans = self.outputs.entry(task).or_default();
        orphans.retain(|other| other.slot != orphan.slot);
        orphans.push(orphan);
    }

    /// Whether a worker has an output of a task that waits here.
    pub(super) fn holds(&self, slot: Slot, task: TaskId) -> bool {
        self.outputs.get(&task).is_some_and(|orphans| orphans.iter().any(|orphan| orphan.slot == slot))
    }
}

/// What workers have of a task that is taken up.
#[derive(Debug)]
pub(super) enum Claim {
    Held { attempt: Attempt, nbytes: u64, holders: SmallVec<[Slot; 2]> },
    Running { slot: Slot, attempt: Attempt, is_suspended: bool },
}

impl Scheduler {
    pub(super) fn on_inventory(&mut self, slot: Slot, inventory: Inventory, effects: &mut Effects) {
        for (task, attempt, nbytes) in inventory.outputs {
            self.on_held(slot, task, attempt, nbytes.min(NBYTES_MAX), effects);
        }
        for running in inventory.running {
            self.on_still_running(slot, running, effects);
        }
    }

    /// Whether somebody may yet ask for a task that is not known.
    fn may_be_wanted(&self, task: TaskId) -> bool {
        if task.is_part() || !self.orphans.has_room() {
            return false;
        }
        let may_be_resumed = self.jobs.job(task.job).is_none_or(|job| job.client == NOBODY);
        self.recovery.awaits(task.job) || self.is_early() && may_be_resumed
    }

    /// Whether clients that were there before may still come.
    fn is_early(&self) -> bool {
        self.recovery.is_under_way || self.now < self.orphans_until
    }

    /// Values that a client has put on workers, and will say again.
    pub(super) fn orphan_values(&mut self, job: JobId, values: Vec<(u32, u64, Vec<WorkerId>)>) {
        for (index, nbytes, workers) in values {
            let task = TaskId::new(job, index);
            for slot in workers.into_iter().filter_map(|worker| self.pool.slot(worker)) {
                if self.jobs.get(task).is_none() && self.orphans.has_room() {
                    self.orphans.add(task, Orphan { slot, attempt: Attempt(0), nbytes: nbytes.min(NBYTES_MAX) });
                }
            }
        }
    }

    fn on_held(&mut self, slot: Slot, task: TaskId, attempt: Attempt, nbytes: u64, effects: &mut Effects) {
        if self.jobs.get(task).is_none() && self.may_be_wanted(task) {
            return self.orphans.add(task, Orphan { slot, attempt, nbytes });
        }
        let Some(record) = self.jobs.get_mut(task) else { return self.tell_to_free(slot, task, effects) };
        match &mut record.state {
            State::Memory { holders, .. } if holders.contains(&slot) => {}
            State::Memory { nbytes, holders } if record.attempt == attempt => {
                holders.push(slot);
                let nbytes = *nbytes;
                self.pool.hold(slot, task, nbytes);
                self.move_away_if_retiring(slot, task, effects);
            }
            state if state.is_pending() => self.take_in(task, slot, attempt, nbytes, effects),
            _ => self.tell_to_free(slot, task, effects),
        }
    }

    /// The output of a task that was to be computed turns out to be there, from an earlier attempt.
    fn take_in(&mut self, task: TaskId, slot: Slot, attempt: Attempt, nbytes: u64, effects: &mut Effects) {
        self.transition(task, State::Memory { nbytes, holders: [slot].into_iter().collect() }, effects);
        if let Some(record) = self.jobs.get_mut(task) {
            // The record says of which attempt the output is; none that was given out is given out again.
            self.attempts_after = self.attempts_after.max(record.attempt);
            record.attempt = attempt;
        }
        self.pool.hold(slot, task, nbytes);
        self.come_into_memory(task);
        self.announce(task, effects);
        self.tell_watchers_where(task, effects);
        self.move_away_if_retiring(slot, task, effects);
    }

    fn on_still_running(&mut self, slot: Slot, running: StillRunning, effects: &mut Effects) {
        let StillRunning { task, attempt, is_suspended } = running;
        let Some(record) = self.jobs.get(task) else {
            if self.may_be_wanted(task) {
                let orphans = self.orphans.running.entry(task).or_default();
                orphans.retain(|orphan| orphan.0 != slot);
                orphans.push((slot, running));
            } else {
                self.tell_to_cancel(slot, task, attempt, effects);
            }
            return;
        };
        // In a queue, all inputs are there, and nobody else runs it.
        let is_queued = matches!(record.state, State::Queued { .. } | State::NoWorker);
        if is_queued && record.attempt <= attempt && self.may_run_at(record.class, slot) {
            self.transition(task, State::Waiting { unfinished: 0 }, effects);
            self.take_up_running(task, slot, attempt, is_suspended);
        } else if !matches!(record.state, State::Processing { worker, .. } if worker == slot) {
            self.tell_to_cancel(slot, task, attempt, effects);
        }
    }

    /// What workers have of a task that is about to be known, which is from now on accounted for. Of several outputs that of
    /// the last try is taken, since that is the one that others may have seen.
    pub(super) fn claim(&mut self, task: TaskId, effects: &mut Effects) -> Option<Claim> {
        if self.orphans.is_empty() {
            return None;
        }
        let running = self.orphans.running.remove(&task).unwrap_or_default();
        if let Some(outputs) = self.orphans.outputs.remove(&task) {
            let attempt = outputs.iter().map(|orphan| orphan.attempt).max()?;
            let mut holders = SmallVec::new();
            let mut nbytes = 0;
            for orphan in outputs {
                if orphan.attempt == attempt {
                    holders.push(orphan.slot);
                    nbytes = orphan.nbytes;
                } else {
                    self.tell_to_free(orphan.slot, task, effects);
                }
            }
            for (slot, running) in running {
                self.tell_to_cancel(slot, task, running.attempt, effects);
            }
            return Some(Claim::Held { attempt, nbytes, holders });
        }
        let last = running.iter().max_by_key(|(slot, running)| (running.attempt, *slot)).copied();
        for (slot, other) in running {
            if last.is_some_and(|last| last.0 != slot) {
                self.tell_to_cancel(slot, task, other.attempt, effects);
            }
        }
        last.map(|(slot, running)| Claim::Running {
            slot,
            attempt: running.attempt,
            is_suspended: running.is_suspended,
        })
    }

    /// What was claimed is of no use.
    pub(super) fn give_up_claim(&mut self, task: TaskId, claim: Option<Claim>, effects: &mut Effects) {
        match claim {
            Some(Claim::Held { holders, .. }) => {
                holders.into_iter().for_each(|slot| self.tell_to_free(slot, task, effects));
            }
            Some(Claim::Running { slot, attempt, .. }) => self.tell_to_cancel(slot, task, attempt, effects),
            None => {}
        }
    }

    /// A worker has ended what it was said to be still running; says whether that is of a task that is not known yet.
    pub(super) fn orphan_has_ended(&mut self, slot: Slot, task: TaskId, attempt: Attempt, nbytes: Option<u64>) -> bool {
        let Some(running) = self.orphans.running.get_mut(&task) else { return false };
        let before = running.len();
        running.retain(|(at, running)| *at != slot || running.attempt != attempt);
        let has_ended = running.len() < before;
        if running.is_empty() {
            self.orphans.running.remove(&task);
        }
        if let Some(nbytes) = nbytes.filter(|_| has_ended) {
            self.orphans.add(task, Orphan { slot, attempt, nbytes });
        }
        has_ended
    }

    /// A task that is not known yet waits for tasks that it has submitted, or goes on.
    pub(super) fn orphan_is_suspended(&mut self, slot: Slot, task: TaskId, attempt: Attempt, is_suspended: bool) {
        for (at, running) in self.orphans.running.get_mut(&task).into_iter().flatten() {
            if *at == slot && running.attempt == attempt {
                running.is_suspended = is_suspended;
            }
        }
    }

    /// A worker is gone, and what it had with it.
    pub(super) fn drop_orphans_at(&mut self, slot: Slot) {
        self.orphans.outputs.retain(|_, orphans| {
            orphans.retain(|orphan| orphan.slot != slot);
            !orphans.is_empty()
        });
        self.orphans.running.retain(|_, orphans| {
            orphans.retain(|orphan| orphan.0 != slot);
            !orphans.is_empty()
        });
    }

    /// A job is closed: if its client may come again, what workers have of it waits as long as that of others.
    pub(super) fn leave_orphans_of(&mut self, job: JobId, effects: &mut Effects) {
        if !self.is_early() {
            self.drop_orphans_of(job, effects);
        }
    }

    /// Nobody will ask for more of this job.
    pub(super) fn drop_orphans_of(&mut self, job: JobId, effects: &mut Effects) {
        if self.orphans.is_empty() {
            return;
        }
        let all = TaskId::new(job, 0)..=TaskId::new(job, u32::MAX);
        let outputs: Vec<TaskId> = self.orphans.outputs.range(all.clone()).map(|(task, _)| *task).collect();
        let running: Vec<TaskId> = self.orphans.running.range(all).map(|(task, _)| *task).collect();
        self.drop_orphans(outputs, running, effects);
    }

    /// Nobody has asked for what is left in a long time.
    pub(super) fn drop_old_orphans(&mut self, effects: &mut Effects) {
        if self.orphans.is_empty() || self.is_early() || self.now < self.orphans.look_at {
            return;
        }
        self.orphans.look_at.0 = self.now.0.saturating_add(PAUSE_US);
        let recovery = &self.recovery;
        let is_old = |task: &TaskId| !recovery.awaits(task.job);
        let outputs: Vec<TaskId> = self.orphans.outputs.keys().copied().filter(is_old).collect();
        let running: Vec<TaskId> = self.orphans.running.keys().copied().filter(is_old).collect();
        self.drop_orphans(outputs, running, effects);
    }

    fn drop_orphans(&mut self, outputs: Vec<TaskId>, running: Vec<TaskId>, effects: &mut Effects) {
        for task in outputs {
            for orphan in self.orphans.outputs.remove(&task).unwrap_or_default() {
                self.tell_to_free(orphan.slot, task, effects);
            }
        }
        for task in running {
            for (slot, running) in self.orphans.running.remove(&task).unwrap_or_default() {
                self.tell_to_cancel(slot, task, running.attempt, effects);
            }
        }
    }

    fn tell_to_cancel(&self, slot: Slot, task: TaskId, attempt: Attempt, effects: &mut Effects) {
        if let Some(worker) = self.pool.get(slot) {
            effects.tell_worker(worker.id, ToWorker::Cancel { task, attempt });
        }
    }
}
