//! What the scheduler says.

use smallvec::SmallVec;

use crate::ids::{Attempt, TaskId};
use crate::spec::PartOf;
use crate::wire::{Assignment, FromWorker, InputAt, Priority, ToWorker};

use super::{Assigned, AssignedState, Effect, Worker};

/// Copies that no assignment waits for are fetched when nothing else is to be.
const ACQUIRED_PRIORITY: Priority = Priority { user: i32::MAX, submission: u32::MAX, order: u32::MAX };

impl Worker {
    pub(super) fn on_order(&mut self, message: ToWorker, effects: &mut Vec<Effect>) {
        match message {
            ToWorker::Worker { worker, node } => self.on_peer(worker, node),
            ToWorker::WorkerGone { worker } => self.on_peer_gone(worker, effects),
            ToWorker::Compute(assignment) if names_parts(&assignment) => {}
            ToWorker::Compute(assignment) => self.on_compute(assignment, effects),
            ToWorker::Cancel { task, attempt } => self.on_cancel(task, attempt, effects),
            ToWorker::Free { task } => self.on_free(task, effects),
            ToWorker::Steal { task, attempt } => self.on_steal(task, attempt, effects),
            ToWorker::Acquire { inputs } => {
                let wholes = inputs.iter().filter(|input| !input.task.is_part());
                wholes.for_each(|input| self.on_acquire(input, effects));
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
                assigned.may_be_told_late = assignment.may_be_told_late;
                self.tell_if_suspended(task, effects);
                return;
            }
            self.drop_assignment(task, effects);
        }
        if let Some(held) = self.memory.get_mut(&task) {
            held.is_doomed = false;
            held.value.attempt = attempt;
            let (nbytes, run_us) = (held.value.nbytes, 0);
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
            may_be_told_late: assignment.may_be_told_late,
            timeout_ms: assignment.timeout_ms,
            requirements: assignment.requirements,
            part: assignment.part,
            state: AssignedState::Executing,
        };
        // The same task is still on a thread, from an assignment that was cancelled: it is wanted again.
        if let Some(inputs) = self.running.get_mut(&task).and_then(|running| running.revive()) {
            assigned.inputs = inputs;
            self.assignments.insert(task, assigned);
            self.tell_if_suspended(task, effects);
            return;
        }
        let mut inputs = assignment.inputs;
        self.name_parts(assignment.part, &mut inputs);
        assigned.inputs = inputs.iter().map(|input| input.task).collect();
        let mut missing = u32::from(self.stale.contains_key(&task));
        for input in &inputs {
            if let Some(held) = self.memory.get_mut(&input.task) {
                held.users += 1;
            } else {
                self.await_input(input, Some((task, assigned.serial)), assigned.priority);
                missing += 1;
            }
        }
        assigned.state = AssignedState::Waiting { missing };
        let is_ready = missing == 0;
        self.assignments.insert(task, assigned);
        if is_ready {
            self.make_ready(task);
        }
        for input in inputs {
            self.give_up_if_nowhere(input.task, effects);
        }
    }

    /// Of the inputs that are taken in part, names the part where the whole is neither here nor on its way here.
    fn name_parts(&self, part: Option<PartOf>, inputs: &mut [InputAt]) {
        let Some(part) = part else { return };
        for input in inputs.iter_mut().skip(part.from as usize) {
            let is_here = self.memory.contains_key(&input.task)
                || self.assignments.contains_key(&input.task)
                || self.own_id.is_some_and(|own| input.holders.contains(&own));
            if !is_here {
                input.task = input.task.part(part.index);
            }
        }
    }

    fn on_cancel(&mut self, task: TaskId, attempt: Attempt, effects: &mut Vec<Effect>) {
        let Some(assigned) = self.assignments.get(&task).filter(|assigned| assigned.attempt == attempt) else { return };
        if assigned.state != AssignedState::Executing {
            self.drop_assignment(task, effects);
            return;
        }
        let may_be_taken_back = self.may_not_have_begun();
        if let (Some(assigned), Some(running)) = (self.assignments.remove(&task), self.running.get_mut(&task)) {
            running.cancel(assigned.inputs);
            if may_be_taken_back {
                effects.push(Effect::TakeBack { task, attempt: running.attempt });
            }
        }
        self.withdrawn.push(task);
        self.report_copy(task, effects);
    }

    /// The assignment of this task has gone. It may have been fetched while it was computed, and then the scheduler was to
    /// hear of it by the completion.
    pub(super) fn report_copy(&mut self, task: TaskId, effects: &mut Vec<Effect>) {
        match self.memory.get(&task).map(|held| held.is_doomed) {
            Some(false) => self.tell_of_copy(task, effects),
            Some(true) => self.free_if_doomed(task, effects),
            None => {}
        }
    }

    fn on_steal(&mut self, task: TaskId, attempt: Attempt, effects: &mut Vec<Effect>) {
        let Some(assigned) = self.assignments.get(&task).filter(|assigned| assigned.attempt == attempt) else { return };
        let given = assigned.state != AssignedState::Executing;
        if given {
            self.drop_assignment(task, effects);
        } else if self.may_not_have_begun()
            && let Some(running) = self.running.get_mut(&task)
        {
            // The answer is given once the threads have said whether it has begun.
            running.asked_back = Some(attempt);
            effects.push(Effect::TakeBack { task, attempt: running.attempt });
            return;
        }
        effects.push(Effect::ToScheduler(FromWorker::StealAnswer { task, attempt, given }));
    }

    /// A copy is wanted here. What is asked for again while it is under way is answered once.
    fn on_acquire(&mut self, input: &InputAt, effects: &mut Vec<Effect>) {
        let task = input.task;
        if let Some(held) = self.memory.get_mut(&task) {
            held.is_doomed = false;
            self.tell_of_copy(task, effects);
            return;
        }
        self.await_input(input, None, ACQUIRED_PRIORITY);
        self.give_up_if_nowhere(task, effects);
    }

    fn on_free(&mut self, task: TaskId, effects: &mut Vec<Effect>) {
        self.frees_heard = self.frees_heard.wrapping_add(1);
        self.end_acquisition(task, effects);
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
            self.withdrawn.push(task);
            self.release_inputs(&assigned.inputs, effects);
        }
    }
}

/// Whether an assignment speaks of parts as if they were tasks, which no scheduler does.
fn names_parts(assignment: &Assignment) -> bool {
    assignment.task.is_part() || assignment.inputs.iter().any(|input| input.task.is_part())
}
