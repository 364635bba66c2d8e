//! What runs: the ready task of the lowest priority whenever a slot is free.

use std::cmp::Reverse;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::failure::TaskFailure;
use crate::ids::{Attempt, TaskId, Time};
use crate::spec::Requirements;
use crate::wire::FromWorker;

use super::inputs::Value;
use super::{AssignedState, Effect, Execution, Outcome, Worker};

/// How many tasks are handed out at once at most for each thread, however short they are.
pub const HANDED_OUT_PER_THREAD_MAX: u32 = 256;

/// How much work is handed out before a thread is free for it.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Microseconds of each thread's time; 0 for none.
    pub(super) micros: u64,
    /// The running mean of what tasks take, in nanoseconds; `None` before the first.
    mean_ns: Option<u64>,
}

impl Ahead {
    fn measure(&mut self, run_us: u64) {
        // Times are whole microseconds: what takes less than one is taken for half of one.
        let run_ns = run_us.saturating_mul(1000).max(500);
        let mean_ns = self.mean_ns.map_or(run_ns, |mean| mean - mean / 8 + run_ns / 8);
        self.mean_ns = Some(mean_ns);
    }

    pub(super) fn mean_us(&self) -> Option<u64> {
        self.mean_ns.map(|mean_ns| mean_ns / 1000)
    }

    /// How many tasks are handed out at once: one a thread, and more if they are short.
    pub(super) fn tasks_max(&self, nthreads: u32) -> usize {
        let ahead = self.mean_ns.map_or(0, |mean| self.micros.saturating_mul(1000) / mean.max(1));
        nthreads as usize * (1 + ahead.min(u64::from(HANDED_OUT_PER_THREAD_MAX) - 1) as usize)
    }
}

/// A task on a thread.
#[derive(Debug)]
pub(super) struct Running {
    /// The attempt under which it was begun.
    pub(super) attempt: Attempt,
    pub(super) fate: Fate,
    /// Whether it waits inside, and has no slot.
    pub(super) is_suspended: bool,
    /// The attempt whose assignment the scheduler wants back, while the threads are asked whether it has begun.
    pub(super) asked_back: Option<Attempt>,
    /// How long it may run, in milliseconds; 0 for no limit.
    pub(super) timeout_ms: u32,
    /// When it has to have ended.
    pub(super) deadline: Option<Time>,
    /// What it takes of the worker's resources.
    pub(super) requirements: Option<Arc<Requirements>>,
}

/// What is to become of what a thread is computing.
#[derive(Debug)]
pub(super) enum Fate {
    /// There is an assignment, which has the inputs.
    Reported,
    /// The assignment was cancelled: the result is dropped.
    Dropped { inputs: SmallVec<[TaskId; 3]> },
    /// It ran out of time, and the thread has not been let go of. If the result came first, it is a copy like any other.
    Abandoned,
}

impl Running {
    /// The assignment was cancelled. The inputs stay here until the thread is done.
    pub(super) fn cancel(&mut self, inputs: SmallVec<[TaskId; 3]>) {
        self.fate = Fate::Dropped { inputs };
    }

    /// The task was assigned again: gives its inputs, if the result can still be used.
    pub(super) fn revive(&mut self) -> Option<SmallVec<[TaskId; 3]>> {
        match std::mem::replace(&mut self.fate, Fate::Reported) {
            Fate::Dropped { inputs } => Some(inputs),
            fate => {
                self.fate = fate;
                None
            }
        }
    }
}

impl Worker {
    pub(super) fn make_ready(&mut self, task: TaskId) {
        let Some(assigned) = self.assignments.get_mut(&task) else { return };
        assigned.state = AssignedState::Ready;
        self.ready.push(Reverse((assigned.priority, task, assigned.serial)));
    }

    /// How many tasks have a slot, those that were handed out before there is a free one included.
    pub(super) fn slots_taken(&self) -> usize {
        self.running.len() - self.suspended
    }

    /// Whether some of the tasks that were handed out still wait for a thread.
    pub(super) fn may_not_have_begun(&self) -> bool {
        self.slots_taken() > self.config.nthreads as usize
    }

    pub(super) fn start_executions(&mut self, effects: &mut Vec<Effect>) {
        let handed_out_max = self.ahead.tasks_max(self.config.nthreads);
        while !self.status.is_paused() && self.slots_taken() < handed_out_max {
            let Some(&Reverse(entry @ (_, task, serial))) = self.ready.peek() else { break };
            let assigned = self.assignments.get(&task);
            let assigned = assigned.filter(|it| it.serial == serial && it.state == AssignedState::Ready);
            let Some(assigned) = assigned else {
                self.ready.pop();
                continue;
            };
            if assigned.timeout_ms > 0 && self.slots_taken() >= self.config.nthreads as usize {
                break;
            }
            let has_room = self.has_room_for(&assigned.requirements);
            self.ready.pop();
            if has_room {
                self.hand_out(task, effects);
            } else {
                self.held_back.push(entry);
            }
        }
    }

    fn hand_out(&mut self, task: TaskId, effects: &mut Vec<Effect>) {
        let Some(assigned) = self.assignments.get_mut(&task) else { return };
        assigned.state = AssignedState::Executing;
        let timeout_us = u64::from(assigned.timeout_ms) * 1000;
        let running = Running {
            attempt: assigned.attempt,
            fate: Fate::Reported,
            is_suspended: false,
            asked_back: None,
            timeout_ms: assigned.timeout_ms,
            deadline: (timeout_us > 0).then(|| Time(self.now.0.saturating_add(timeout_us))),
            requirements: assigned.requirements.clone(),
        };
        effects.push(Effect::Execute(Execution {
            task,
            attempt: assigned.attempt,
            kind: assigned.kind,
            payload: std::mem::take(&mut assigned.payload),
            inputs: assigned.inputs.clone(),
            part: assigned.part,
            inline_result: assigned.inline_result,
            user_priority: assigned.priority.user.saturating_neg(),
        }));
        self.deadlines.extend(running.deadline.map(|deadline| (deadline, task)));
        self.take_resources(&running.requirements);
        self.running.insert(task, running);
    }

    /// The task of this attempt is not on a thread any more, nor will be: its slot, and what else it had, is free.
    fn take_off(&mut self, task: TaskId, attempt: Attempt) -> Option<Running> {
        if self.running.get(&task).is_none_or(|running| running.attempt != attempt) {
            return None;
        }
        let running = self.running.remove(&task)?;
        self.suspended -= usize::from(running.is_suspended);
        if let Some(deadline) = running.deadline {
            self.deadlines.remove(&(deadline, task));
        }
        self.give_resources_back(&running.requirements);
        Some(running)
    }

    pub(super) fn on_executed(
        &mut self,
        task: TaskId,
        attempt: Attempt,
        run_us: u64,
        outcome: Outcome,
        effects: &mut Vec<Effect>,
    ) {
        let Some(running) = self.take_off(task, attempt) else { return };
        // One that was let go of has no time of its own.
        if matches!(running.fate, Fate::Reported | Fate::Dropped { .. }) {
            self.ahead.measure(run_us);
        }
        match running.fate {
            Fate::Reported => self.on_result(task, run_us, outcome, effects),
            Fate::Dropped { inputs } => {
                self.release_inputs(&inputs, effects);
                self.drop_result(task, attempt, outcome, effects);
            }
            Fate::Abandoned => {
                if let Outcome::Stored { nbytes, .. } = outcome {
                    self.on_written(task, Value { attempt, nbytes }, effects);
                }
                self.end_stale(task, effects);
            }
        }
    }

    fn on_result(&mut self, task: TaskId, run_us: u64, outcome: Outcome, effects: &mut Vec<Effect>) {
        let Some(assigned) = self.assignments.remove(&task) else { return };
        self.release_inputs(&assigned.inputs, effects);
        let attempt = assigned.attempt;
        match outcome {
            Outcome::Stored { nbytes, inline } => {
                let inline = inline.filter(|_| assigned.inline_result);
                let finished = FromWorker::Finished { task, attempt, nbytes, run_us, inline };
                // While there is something else to do here, nobody is kept from anything by hearing of it later.
                let may_be_late = assigned.may_be_told_late && self.is_busy();
                effects.push(if may_be_late {
                    Effect::ToSchedulerSoon(finished)
                } else {
                    Effect::ToScheduler(finished)
                });
                self.take_in(task, Value { attempt, nbytes }, false, effects);
            }
            Outcome::Failed { name, cause } => {
                let failure = TaskFailure { task, name, node: Some(self.config.node), cause };
                effects.push(Effect::ToScheduler(FromWorker::Failed { task, attempt, failure }));
                self.withdrawn.push(task);
                self.report_copy(task, effects);
            }
        }
    }

    /// A cancelled execution has ended.
    fn drop_result(&mut self, task: TaskId, attempt: Attempt, outcome: Outcome, effects: &mut Vec<Effect>) {
        let Outcome::Stored { nbytes, .. } = outcome else { return self.free_if_doomed(task, effects) };
        let value = Value { attempt, nbytes };
        if let Some(held) = self.memory.get_mut(&task) {
            held.value = value;
        } else {
            let missing = self.missing.get(&task);
            let is_needed = missing.is_some_and(|missing| missing.users > 0);
            let is_told = missing.is_some_and(|missing| missing.is_acquired);
            self.take_in(task, value, !is_needed, effects);
            if is_needed && !is_told {
                self.tell_of_copy(task, effects);
            }
        }
        self.free_if_doomed(task, effects);
    }

    /// The task has given its slot up.
    pub(super) fn on_suspended(&mut self, task: TaskId, attempt: Attempt, effects: &mut Vec<Effect>) {
        let running = self.running.get_mut(&task).filter(|it| it.attempt == attempt && !it.is_suspended);
        let Some(running) = running else { return };
        running.is_suspended = true;
        self.suspended += 1;
        self.tell_if_suspended(task, effects);
    }

    /// The scheduler has to know whether what is assigned has a slot.
    pub(super) fn tell_if_suspended(&mut self, task: TaskId, effects: &mut Vec<Effect>) {
        if self.running.get(&task).is_some_and(|it| it.is_suspended && matches!(it.fate, Fate::Reported))
            && let Some(assigned) = self.assignments.get(&task)
        {
            effects.push(Effect::ToScheduler(FromWorker::Suspended { task, attempt: assigned.attempt }));
        }
    }

    /// The task has its slot again, whether or not there is a free one.
    pub(super) fn on_resumed(&mut self, task: TaskId, attempt: Attempt, effects: &mut Vec<Effect>) {
        let running = self.running.get_mut(&task).filter(|it| it.attempt == attempt && it.is_suspended);
        let Some(running) = running else { return };
        running.is_suspended = false;
        self.suspended -= 1;
        if matches!(running.fate, Fate::Reported)
            && let Some(assigned) = self.assignments.get(&task)
        {
            effects.push(Effect::ToScheduler(FromWorker::Resumed { task, attempt: assigned.attempt }));
        }
    }

    /// Asks for everything back that has not begun, in order.
    pub(super) fn take_all_back(&self, effects: &mut Vec<Effect>) {
        if !self.may_not_have_begun() {
            return;
        }
        let mut handed_out: Vec<_> = self.running.iter().map(|(task, running)| (*task, running.attempt)).collect();
        handed_out.sort_unstable();
        effects.extend(handed_out.into_iter().map(|(task, attempt)| Effect::TakeBack { task, attempt }));
    }

    /// The threads have said whether a task had begun. What happens to one that had not depends on what it is by now.
    pub(super) fn on_taken_back(
        &mut self,
        task: TaskId,
        attempt: Attempt,
        execution: Option<Execution>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(execution) = execution else { return self.on_not_taken_back(task, attempt, effects) };
        let Some(running) = self.take_off(task, attempt) else { return };
        match running.fate {
            Fate::Reported => self.on_not_begun(task, running.asked_back, execution, effects),
            Fate::Dropped { inputs } => {
                self.release_inputs(&inputs, effects);
                self.free_if_doomed(task, effects);
            }
            Fate::Abandoned => self.end_stale(task, effects),
        }
    }

    fn on_not_taken_back(&mut self, task: TaskId, attempt: Attempt, effects: &mut Vec<Effect>) {
        let Some(running) = self.running.get_mut(&task).filter(|running| running.attempt == attempt) else { return };
        let asked_back = running.asked_back.take();
        if let Some(assigned) = self.assignments.get(&task).filter(|it| Some(it.attempt) == asked_back) {
            let attempt = assigned.attempt;
            effects.push(Effect::ToScheduler(FromWorker::StealAnswer { task, attempt, given: false }));
        }
    }

    /// It is given to the scheduler if that still wants it back, and dropped if there is none; otherwise it is ready as before.
    fn on_not_begun(
        &mut self,
        task: TaskId,
        asked_back: Option<Attempt>,
        execution: Execution,
        effects: &mut Vec<Effect>,
    ) {
        let Some(assigned) = self.assignments.get_mut(&task) else { return };
        let attempt = assigned.attempt;
        if asked_back == Some(attempt) || !self.is_registered {
            self.drop_assignment(task, effects);
            effects.push(Effect::ToScheduler(FromWorker::StealAnswer { task, attempt, given: true }));
            self.report_copy(task, effects);
            return;
        }
        assigned.payload = execution.payload;
        self.make_ready(task);
        // It may have been fetched meanwhile.
        if let Some(value) = self.memory.get(&task).map(|held| held.value) {
            self.on_written(task, value, effects);
        }
    }
}
