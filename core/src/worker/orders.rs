//! What the scheduler says.

use smallvec::SmallVec;

use crate::ids::{Attempt, TaskId};
use crate::wire::{Assignment, FromWorker, ToWorker};

use super::{Assigned, AssignedState, Effect, Worker};

impl Worker {
    pub(super) fn on_order(&mut self, message: ToWorker, effects: &mut Vec<Effect>) {
        match message {
            ToWorker::Worker { worker, node } => self.on_peer(worker, node),
            ToWorker::WorkerGone { worker } => self.on_peer_gone(worker, effects),
            ToWorker::Compute(assignment) => self.on_compute(assignment, effects),
            ToWorker::Cancel { task, attempt } => self.on_cancel(task, attempt, effects),
            ToWorker::Free { task } => self.on_free(task, effects),
            ToWorker::Steal { task, attempt } => self.on_steal(task, attempt, effects),
            ToWorker::Acquire { inputs } => {
                let none = inputs.into_iter().map(|input| FromWorker::NotAcquired { task: input.task });
                effects.extend(none.map(Effect::ToScheduler));
            }
            ToWorker::Leave => effects.push(Effect::Leave),
        }
    }

    fn on_compute(&mut self, assignment: Assignment, effects: &mut Vec<Effect>) {
        let (task, attempt) = (assignment.task, assignment.attempt);
        if let Some(assigned) = self.assignments.get_mut(&task) {
            if attempt <= assigned.attempt {
                return;
            }
            if assigned.state == AssignedState::Executing {
                assigned.attempt = attempt;
                assigned.inline_result = assignment.inline_result;
                return;
            }
            self.drop_assignment(task, effects);
        }
        if let Some(held) = self.memory.get_mut(&task) {
            held.is_doomed = false;
            let (nbytes, run_us) = (held.nbytes, 0);
            effects.push(Effect::ToScheduler(FromWorker::Finished { task, attempt, nbytes, run_us, inline: None }));
            return;
        }
        self.serial += 1;
        let mut assigned = Assigned {
            attempt,
            serial: self.serial,
            kind: assignment.kind,
            payload: assignment.payload,
            inputs: SmallVec::new(),
            priority: assignment.priority,
            inline_result: assignment.inline_result,
            state: AssignedState::Executing,
        };
        // The same task is still on a thread, from an assignment that was cancelled: it is wanted again.
        if let Some(inputs) = self.running.get_mut(&task).and_then(|running| running.revive()) {
            assigned.inputs = inputs;
            self.assignments.insert(task, assigned);
            return;
        }
        assigned.inputs = assignment.inputs.iter().map(|input| input.task).collect();
        let mut missing = u32::from(self.stale.contains_key(&task));
        for input in &assignment.inputs {
            if let Some(held) = self.memory.get_mut(&input.task) {
                held.users += 1;
            } else {
                self.await_input(input, task, assigned.serial, assigned.priority);
                missing += 1;
            }
        }
        assigned.state = AssignedState::Waiting { missing };
        let is_ready = missing == 0;
        self.assignments.insert(task, assigned);
        if is_ready {
            self.make_ready(task);
        }
        for input in assignment.inputs {
            self.give_up_if_nowhere(input.task, effects);
        }
    }

    fn on_cancel(&mut self, task: TaskId, attempt: Attempt, effects: &mut Vec<Effect>) {
        let Some(assigned) = self.assignments.get(&task).filter(|assigned| assigned.attempt == attempt) else { return };
        if assigned.state != AssignedState::Executing {
            self.drop_assignment(task, effects);
            return;
        }
        if let (Some(assigned), Some(running)) = (self.assignments.remove(&task), self.running.get_mut(&task)) {
            running.cancel(assigned.inputs);
        }
        // It was fetched while it was computed, and the scheduler was to hear of it by the completion.
        if self.memory.get(&task).is_some_and(|held| !held.is_doomed) {
            effects.push(Effect::ToScheduler(FromWorker::Replica { task }));
        }
    }

    fn on_steal(&mut self, task: TaskId, attempt: Attempt, effects: &mut Vec<Effect>) {
        let Some(assigned) = self.assignments.get(&task).filter(|assigned| assigned.attempt == attempt) else { return };
        let given = assigned.state != AssignedState::Executing;
        if given {
            self.drop_assignment(task, effects);
        }
        effects.push(Effect::ToScheduler(FromWorker::StealAnswer { task, attempt, given }));
    }

    fn on_free(&mut self, task: TaskId, effects: &mut Vec<Effect>) {
        if let Some(held) = self.memory.get_mut(&task) {
            held.is_doomed = true;
            self.free_if_doomed(task, effects);
        } else if !self.may_be_written(task) {
            // A value that came into the store without this machine's knowledge, if there is one at all. Not under the
            // feet of what may be writing it.
            effects.push(Effect::Free { task });
        }
    }

    /// Takes an assignment that is not on a thread away. What it alone waited for is not fetched any more.
    pub(super) fn drop_assignment(&mut self, task: TaskId, effects: &mut Vec<Effect>) {
        if let Some(assigned) = self.assignments.remove(&task) {
            self.release_inputs(&assigned.inputs, effects);
        }
    }
}
