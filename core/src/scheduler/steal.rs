//! Work that was given to one worker and is better done by another.
//!
//! A worker that has nothing to do, while nothing is queued here, is given what waits behind a busy worker's threads: that one
//! is asked to give the tasks back that it has not begun. It also happens when a task takes much longer than expected, and so
//! everything behind it. A worker that is paused, or about to leave, is asked for everything.

use smallvec::SmallVec;

use crate::ids::{Attempt, TaskId};
use crate::wire::ToWorker;

use super::classes::ClassId;
use super::place::{FETCH_BYTES_PER_US, FETCH_US};
use super::pool::{Room, Slot};
use super::record::{Phase, State};
use super::{Effects, Scheduler};

/// What it costs to ask a task back and send it elsewhere, in microseconds.
const STEAL_US: u64 = 500;

/// How many tasks are asked of a worker at a time.
const ASKED_MAX: usize = 32;

/// How many of a worker's tasks are looked at for that.
const LOOKED_AT_MAX: usize = 128;

/// For how many idle workers it is looked at whether one task is worth moving to them, which costs its number of inputs.
const THIEVES_MAX: usize = 4;

/// How many workers are asked in one event.
const VICTIMS_MAX: usize = 4;

/// How long nobody is asked after it was found that there is nothing to steal, in microseconds.
const PAUSE_US: u64 = 1_000;

impl Scheduler {
    /// Asks busy workers for what idle ones could do.
    pub(super) fn steal(&mut self, effects: &mut Effects) {
        if !self.may_steal || !self.pool.is_uneven() || self.now < self.steal_at {
            return;
        }
        for _ in 0..VICTIMS_MAX {
            let has_asked = match self.pool.busiest() {
                Some(victim) if self.pool.is_uneven() => self.ask_back(victim, effects),
                _ => false,
            };
            if !has_asked {
                self.steal_at.0 = self.now.0.saturating_add(PAUSE_US);
                return;
            }
        }
    }

    /// Asks for half of what waits at the victim, as far as moving it pays, for one idle worker after the other. Says
    /// whether anything was asked for.
    fn ask_back(&mut self, victim: Slot, effects: &mut Effects) -> bool {
        let Some(worker) = self.pool.get(victim) else { return false };
        let spare = worker.in_flight().saturating_sub(worker.nthreads() as usize);
        // A task that has run for longer than expected may go on for as long again.
        let wait_us = worker.wait_us().max(self.now.micros_since(worker.progress_at));
        let wanted = spare.div_ceil(2).min(ASKED_MAX);
        let thieves = self.pool.idle();
        let mut next = 0;
        let mut thief_for = |task: TaskId| {
            let is_worth = |at: &usize| {
                let fetch_us = self.fetch_us(task, thieves[at % thieves.len()]);
                fetch_us.saturating_add(STEAL_US) < wait_us
            };
            let able = (next..next + thieves.len()).filter(|at| self.may_move(task, thieves[at % thieves.len()]));
            let found = able.take(THIEVES_MAX).find(is_worth)?;
            next = (found + 1) % thieves.len();
            Some((task, thieves[found % thieves.len()]))
        };
        // The last ones that were sent are the last ones that will be begun.
        let last = worker.processing.iter().rev().take(LOOKED_AT_MAX).copied();
        let is_new = |task: &TaskId| matches!(self.phase_of(*task), Some(Phase::Sent));
        let tasks: SmallVec<[(TaskId, Slot); ASKED_MAX]> =
            last.filter(is_new).filter_map(&mut thief_for).take(wanted).collect();
        for (task, thief) in &tasks {
            self.ask_for(*task, victim, *thief, effects);
        }
        !tasks.is_empty()
    }

    /// Asks a worker for everything that it has not begun.
    pub(super) fn ask_back_all(&mut self, slot: Slot, effects: &mut Effects) {
        let Some(worker) = self.pool.get(slot) else { return };
        for task in worker.processing.clone() {
            if self.phase_of(task) == Some(Phase::Sent) {
                self.ask_for(task, slot, slot, effects);
            }
        }
    }

    fn ask_for(&mut self, task: TaskId, slot: Slot, thief: Slot, effects: &mut Effects) {
        let Some(record) = self.jobs.get(task) else { return };
        let State::Processing { expected_us, .. } = record.state else { return };
        let attempt = record.attempt;
        self.change_phase(task, Phase::Asked { thief }, expected_us);
        if let Some(worker) = self.pool.get(slot) {
            effects.tell_worker(worker.id, ToWorker::Steal { task, attempt });
        }
    }

    pub(super) fn phase_of(&self, task: TaskId) -> Option<Phase> {
        match self.jobs.get(task)?.state {
            State::Processing { phase, .. } => Some(phase),
            _ => None,
        }
    }

    /// Whether a worker may run a task that another was given. Resources are not moved: they are in use where the task is.
    fn may_move(&self, task: TaskId, to: Slot) -> bool {
        let class_id = self.jobs.get(task).map_or(ClassId::ANY, |record| record.class);
        match self.classes.get(class_id) {
            None => true,
            Some(class) => class.requirements.resources.is_empty() && class.is_eligible(to),
        }
    }

    /// How long a worker would take to fetch what it lacks of a task's inputs, in microseconds.
    fn fetch_us(&self, task: TaskId, slot: Slot) -> u64 {
        let Some(job) = self.jobs.job(task.job) else { return 0 };
        let Some(record) = job.get(task.index) else { return 0 };
        let missing = record.shares().map(|(input, share)| match job.get(input).map(|record| &record.state) {
            Some(State::Memory { nbytes, holders }) if !holders.contains(&slot) => share(*nbytes).max(1),
            _ => 0,
        });
        match missing.fold(0_u64, u64::saturating_add) {
            0 => 0,
            bytes => FETCH_US + bytes / FETCH_BYTES_PER_US,
        }
    }

    /// A worker has given a task back, or keeps it because it has begun.
    pub(super) fn on_steal_answer(
        &mut self,
        slot: Slot,
        task: TaskId,
        attempt: Attempt,
        given: bool,
        effects: &mut Effects,
    ) {
        if !self.is_current(slot, task, attempt) {
            return;
        }
        let phase = self.phase_of(task);
        if given {
            self.take_back(task, effects);
            self.steal_at = self.now;
            if let Some(Phase::Asked { thief }) = phase {
                self.hand_over(task, slot, thief, effects);
            }
        } else if matches!(phase, Some(Phase::Asked { .. })) {
            let kind = self.jobs.get(task).map_or(0, |record| record.kind);
            self.change_phase(task, Phase::Begun, self.kinds.expected_us(kind));
            // It may be expected to take less time than when it was sent.
            self.roomy.push(slot);
        }
    }

    /// Gives a task that was taken back to the worker that it was asked for. Left to the usual order it would go where the
    /// most room is, or the most bytes are: to the one that has just given it.
    fn hand_over(&mut self, task: TaskId, from: Slot, thief: Slot, effects: &mut Effects) {
        let is_ready = self.jobs.get(task).is_some_and(|record| record.state.is_ready());
        let has_room = self.pool.get(thief).is_some_and(|worker| worker.is_open() && worker.room() != Room::Full);
        if is_ready && has_room && thief != from && self.may_move(task, thief) {
            self.assign(task, thief, effects);
        }
    }
}
