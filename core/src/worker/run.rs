//! What runs: the ready task of the lowest priority whenever a thread is free.

use std::cmp::Reverse;

use smallvec::SmallVec;

use crate::failure::TaskFailure;
use crate::ids::{Attempt, TaskId};
use crate::wire::FromWorker;

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
    attempt: Attempt,
    pub(super) fate: Fate,
}

/// What is to become of what a thread is computing.
#[derive(Debug)]
pub(super) enum Fate {
    /// There is an assignment, which has the inputs.
    Reported,
    /// The assignment was cancelled: the result is dropped.
    Dropped { inputs: SmallVec<[TaskId; 3]> },
    /// It is from before the link to the scheduler was lost: the result is dropped, whatever its id means now.
    Stale,
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

    /// Says whether it was not stale before.
    pub(super) fn make_stale(&mut self) -> bool {
        !matches!(std::mem::replace(&mut self.fate, Fate::Stale), Fate::Stale)
    }
}

impl Worker {
    pub(super) fn make_ready(&mut self, task: TaskId) {
        let Some(assigned) = self.assignments.get_mut(&task) else { return };
        assigned.state = AssignedState::Ready;
        self.ready.push(Reverse((assigned.priority, task, assigned.serial)));
    }

    pub(super) fn start_executions(&mut self, effects: &mut Vec<Effect>) {
        let handed_out_max = self.ahead.tasks_max(self.config.nthreads);
        while self.running.len() < handed_out_max {
            let Some(Reverse((_, task, serial))) = self.ready.pop() else { break };
            let Some(assigned) = self.assignments.get_mut(&task) else { continue };
            if assigned.serial != serial || assigned.state != AssignedState::Ready {
                continue;
            }
            assigned.state = AssignedState::Executing;
            self.running.insert(task, Running { attempt: assigned.attempt, fate: Fate::Reported });
            effects.push(Effect::Execute(Execution {
                task,
                attempt: assigned.attempt,
                kind: assigned.kind,
                payload: std::mem::take(&mut assigned.payload),
                inputs: assigned.inputs.clone(),
                inline_result: assigned.inline_result,
                user_priority: assigned.priority.user.saturating_neg(),
            }));
        }
    }

    pub(super) fn on_executed(
        &mut self,
        task: TaskId,
        attempt: Attempt,
        run_us: u64,
        outcome: Outcome,
        effects: &mut Vec<Effect>,
    ) {
        if self.running.get(&task).is_none_or(|running| running.attempt != attempt) {
            return;
        }
        let Some(running) = self.running.remove(&task) else { return };
        self.ahead.measure(run_us);
        match running.fate {
            Fate::Reported => self.on_result(task, run_us, outcome, effects),
            Fate::Dropped { inputs } => {
                self.release_inputs(&inputs, effects);
                self.drop_result(task, outcome, effects);
            }
            Fate::Stale => {
                if matches!(outcome, Outcome::Stored { .. }) {
                    effects.push(Effect::Free { task });
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
                self.take_in(task, nbytes, false);
                let inline = inline.filter(|_| assigned.inline_result);
                effects.push(Effect::ToScheduler(FromWorker::Finished { task, attempt, nbytes, run_us, inline }));
            }
            Outcome::Failed { name, cause } => {
                let failure = TaskFailure { task, name, node: Some(self.config.node), cause };
                effects.push(Effect::ToScheduler(FromWorker::Failed { task, attempt, failure }));
                // It may have been fetched meanwhile, for another assignment or for none.
                match self.memory.get(&task).map(|held| held.is_doomed) {
                    Some(false) => effects.push(Effect::ToScheduler(FromWorker::Replica { task })),
                    Some(true) => self.free_if_doomed(task, effects),
                    None => {}
                }
            }
        }
    }

    /// A cancelled execution has ended.
    fn drop_result(&mut self, task: TaskId, outcome: Outcome, effects: &mut Vec<Effect>) {
        if let (Outcome::Stored { nbytes, .. }, false) = (outcome, self.memory.contains_key(&task)) {
            let is_needed = self.missing.get(&task).is_some_and(|missing| missing.users > 0);
            self.take_in(task, nbytes, !is_needed);
            if is_needed {
                effects.push(Effect::ToScheduler(FromWorker::Replica { task }));
            }
        }
        self.free_if_doomed(task, effects);
    }
}
