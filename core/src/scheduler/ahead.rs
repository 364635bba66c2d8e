//! Tasks that are sent before their inputs are there.
//!
//! A task whose missing inputs are all being computed by one worker is sent to that worker at once: then it begins as
//! soon as they are done, without a word from here. So a chain runs without a round trip a link. It goes back to waiting when
//! such an input is not computed there after all: it failed, was taken back, or was lost.

use crate::ids::TaskId;
use crate::wire::ToWorker;

use super::classes::ClassId;
use super::pool::Slot;
use super::record::{Phase, State};
use super::{Effects, Scheduler};

/// A task with more inputs is never sent ahead, so that looking at them costs little.
pub(super) const INPUTS_MAX: usize = 8;

/// The dependents of a task that has more of them are not looked at.
pub(super) const DEPENDENTS_MAX: usize = 16;

/// How many bytes of other inputs may be elsewhere: they are fetched while the task waits.
const BYTES_ELSEWHERE_MAX: u64 = 64 * 1024;

impl Scheduler {
    /// Sends what depends on tasks that were just sent after them, and takes up what could not be sent ahead for want of
    /// room.
    pub(super) fn send_ahead(&mut self, effects: &mut Effects) {
        self.follow_sent(effects);
        while let Some(slot) = self.ahead_roomy.pop() {
            while self.pool.has_room_ahead(slot) {
                let later = self.pool.get_mut(slot).and_then(|worker| worker.ahead_later.pop_front());
                let Some(task) = later else { break };
                self.try_ahead(task, slot, effects);
                self.follow_sent(effects);
            }
        }
    }

    fn follow_sent(&mut self, effects: &mut Effects) {
        while let Some((task, slot)) = self.ahead.pop() {
            let Some(record) = self.jobs.get(task) else { continue };
            if record.dependents.len() > DEPENDENTS_MAX {
                continue;
            }
            for dependent in record.dependents.clone() {
                self.try_ahead(TaskId::new(task.job, dependent), slot, effects);
            }
        }
    }

    /// Sends a waiting task to the worker that computes its missing inputs, if that computes all of them.
    fn try_ahead(&mut self, task: TaskId, slot: Slot, effects: &mut Effects) {
        if !self.may_send_ahead {
            return;
        }
        let Some(unfinished) = self.unfinished_at(task, slot) else { return };
        if self.pool.has_room_ahead(slot) {
            self.send(task, slot, unfinished, effects);
        } else if let Some(worker) = self.pool.get_mut(slot).filter(|worker| worker.is_open()) {
            worker.ahead_later.push_back(task);
        }
    }

    /// How many of a waiting task's input edges lead to what this worker computes, if all that are missing do.
    fn unfinished_at(&self, task: TaskId, slot: Slot) -> Option<u32> {
        let job = self.jobs.job(task.job)?;
        let record = job.get(task.index)?;
        let State::Waiting { unfinished } = record.state else { return None };
        if unfinished == 0 || record.inputs.len() > INPUTS_MAX || record.class != ClassId::ANY {
            return None;
        }
        let mut bytes_elsewhere = 0_u64;
        for (input, share) in record.shares() {
            match &job.get(input)?.state {
                State::Memory { nbytes, holders } if !holders.contains(&slot) => {
                    bytes_elsewhere = bytes_elsewhere.saturating_add(share(*nbytes));
                }
                State::Memory { .. } => {}
                State::Processing { worker, phase: Phase::Sent | Phase::Begun | Phase::Ahead { .. }, .. }
                    if *worker == slot => {}
                _ => return None,
            }
        }
        (bytes_elsewhere <= BYTES_ELSEWHERE_MAX).then_some(unfinished)
    }

    /// A task is not computed any more where it was: what was sent ahead of it is taken back, and so on.
    pub(super) fn recall_dependents(&mut self, task: TaskId, effects: &mut Effects) {
        let mut stack = vec![task];
        while let Some(task) = stack.pop() {
            let Some(job) = self.jobs.job(task.job) else { continue };
            let Some(record) = job.get(task.index) else { continue };
            let is_ahead = |index: &u32| {
                let state = job.get(*index).map(|record| &record.state);
                matches!(state, Some(State::Processing { phase: Phase::Ahead { .. }, .. }))
            };
            let ahead: Vec<u32> = record.dependents.iter().copied().filter(is_ahead).collect();
            for index in ahead {
                let dependent = TaskId::new(task.job, index);
                if self.recall(dependent, effects) {
                    stack.push(dependent);
                }
            }
        }
    }

    /// Takes a task that was sent ahead back to waiting for what is missing. Says whether it was one.
    fn recall(&mut self, task: TaskId, effects: &mut Effects) -> bool {
        let Some(record) = self.jobs.get(task) else { return false };
        let State::Processing { worker, position, expected_us, phase: phase @ Phase::Ahead { unfinished } } =
            record.state
        else {
            return false;
        };
        let attempt = record.attempt;
        self.jobs.set_state(task, State::Waiting { unfinished });
        self.end_processing(task, worker, position, expected_us, phase);
        if let Some(worker) = self.pool.get(worker) {
            effects.tell_worker(worker.id, ToWorker::Cancel { task, attempt });
        }
        true
    }
}
