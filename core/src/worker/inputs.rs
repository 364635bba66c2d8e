//! What is here, what is awaited, and by whom.

use smallvec::SmallVec;

use crate::failure::{FailureCause, TaskFailure};
use crate::ids::{Attempt, TaskId, WorkerId};
use crate::wire::{FromWorker, InputAt, Priority};

use super::{AssignedState, Effect, Worker};

/// A list of waiting assignments is searched for dropped ones only when it is longer than this.
const WAITING_COMPACTED_MIN: usize = 16;

/// What is known of a value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value {
    /// Of which try of its task it is, as the scheduler was told, or has told.
    pub(super) attempt: Attempt,
    pub(super) nbytes: u64,
}

/// An output, or a part of one, in the store.
#[derive(Debug)]
pub(super) struct Held {
    /// What was put there last.
    pub(super) value: Value,
    /// How many input edges of assignments, cancelled ones on a thread included, lead here.
    pub(super) users: u32,
    /// Whether it goes as soon as nothing needs or writes it. Every part does.
    pub(super) is_doomed: bool,
}

/// An output that is not here and is needed, or in flight.
#[derive(Debug)]
pub(super) struct Missing {
    pub(super) place: Place,
    /// The newest try of the task that was spoken of.
    pub(super) attempt: Attempt,
    pub(super) nbytes: u64,
    /// The lowest of those that wait for it.
    pub(super) priority: Priority,
    /// Who may have it and was not asked.
    pub(super) untried: SmallVec<[WorkerId; 2]>,
    /// Who was asked in vain, or cannot be asked.
    pub(super) tried: SmallVec<[WorkerId; 2]>,
    /// How many input edges of assignments wait for it; 0 only in flight, or if it is acquired.
    pub(super) users: u32,
    /// Whether the scheduler wants a copy here, and waits for the answer.
    pub(super) is_acquired: bool,
    /// The assignments that wait, with their serials, once an edge; some may have been dropped.
    waiting: SmallVec<[(TaskId, u64); 1]>,
}

/// Where an output that is not here is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Something stale of the same id is under way.
    Blocked,
    /// To be asked for: it is in the queue of every untried holder. There is one that is known, or it is assigned here.
    Fetch,
    /// Asked of this worker.
    Flight { from: WorkerId },
}

impl Missing {
    /// Whether it stays when it comes.
    pub(super) fn is_wanted(&self) -> bool {
        self.users > 0 || self.is_acquired
    }
}

impl Worker {
    /// An assignment waits for this input, named with its serial; or the scheduler wants a copy here.
    pub(super) fn await_input(&mut self, input: &InputAt, waiter: Option<(TaskId, u64)>, priority: Priority) {
        let is_blocked = self.stale.contains_key(&input.task);
        let is_new = !self.missing.contains_key(&input.task);
        let missing = self.missing.entry(input.task).or_insert_with(|| Missing {
            place: if is_blocked { Place::Blocked } else { Place::Fetch },
            attempt: input.attempt,
            nbytes: input.nbytes,
            priority,
            untried: SmallVec::new(),
            tried: SmallVec::new(),
            users: 0,
            is_acquired: false,
            waiting: SmallVec::new(),
        });
        match waiter {
            Some(waiter) => {
                missing.users += 1;
                missing.waiting.push(waiter);
            }
            None => missing.is_acquired = true,
        }
        let mut is_changed = is_new || priority < missing.priority;
        missing.priority = missing.priority.min(priority);
        missing.attempt = missing.attempt.max(input.attempt);
        for holder in &input.holders {
            // What the scheduler says now is newer than what an earlier try has shown.
            missing.tried.retain(|tried| tried != holder);
            if missing.place != (Place::Flight { from: *holder }) && !missing.untried.contains(holder) {
                missing.untried.push(*holder);
                is_changed = true;
            }
        }
        if is_changed {
            self.enqueue(input.task);
        }
    }

    /// An output is now in the store: assignments that waited for it come a step nearer.
    pub(super) fn take_in(&mut self, task: TaskId, value: Value, is_doomed: bool, effects: &mut Vec<Effect>) {
        let held = self.memory.entry(task).or_insert(Held { value, users: 0, is_doomed });
        held.value = value;
        held.is_doomed &= is_doomed;
        let Some(missing) = self.missing.get_mut(&task) else { return };
        let mut is_acquired = false;
        held.users += std::mem::take(&mut missing.users);
        if std::mem::take(&mut missing.is_acquired) {
            held.is_doomed = false;
            is_acquired = true;
        }
        let waiting = std::mem::take(&mut missing.waiting);
        if !matches!(missing.place, Place::Flight { .. }) {
            self.missing.remove(&task);
        }
        if is_acquired {
            self.tell_of_copy(task, effects);
        }
        for (waiter, serial) in waiting {
            self.come_nearer(waiter, Some(serial));
        }
    }

    /// The scheduler shall know that an output is here.
    pub(super) fn tell_of_copy(&self, task: TaskId, effects: &mut Vec<Effect>) {
        if let Some(held) = self.memory.get(&task) {
            let (attempt, frees_heard) = (held.value.attempt, self.frees_heard);
            effects.push(Effect::ToScheduler(FromWorker::Replica { task, attempt, frees_heard }));
        }
    }

    /// An assignment has one thing less to wait for. The serial says which assignment of the task is meant.
    pub(super) fn come_nearer(&mut self, task: TaskId, serial: Option<u64>) {
        let Some(assigned) = self.assignments.get_mut(&task) else { return };
        if serial.is_some_and(|serial| serial != assigned.serial) {
            return;
        }
        if let AssignedState::Waiting { missing } = &mut assigned.state {
            *missing -= 1;
            if *missing == 0 {
                self.make_ready(task);
            }
        }
    }

    /// These inputs are not needed any more by one assignment.
    pub(super) fn release_inputs(&mut self, inputs: &[TaskId], effects: &mut Vec<Effect>) {
        for input in inputs {
            if let Some(held) = self.memory.get_mut(input) {
                held.users -= 1;
                self.free_if_doomed(*input, effects);
            } else if let Some(missing) = self.missing.get_mut(input) {
                missing.users -= 1;
                if !missing.is_wanted() && !matches!(missing.place, Place::Flight { .. }) {
                    self.missing.remove(input);
                } else if missing.waiting.len() > WAITING_COMPACTED_MIN + 2 * missing.users as usize {
                    let assignments = &self.assignments;
                    missing.waiting.retain(|(task, serial)| {
                        assignments.get(task).is_some_and(|assigned| assigned.serial == *serial)
                    });
                }
            }
        }
    }

    /// Whether a fetch or an execution may put this output into the store at any moment: then it must not be freed, or
    /// what they have just put there would go.
    pub(super) fn may_be_written(&self, task: TaskId) -> bool {
        self.running.contains_key(&task)
            || self.stale.contains_key(&task)
            || self.missing.get(&task).is_some_and(|missing| matches!(missing.place, Place::Flight { .. }))
    }

    pub(super) fn free_if_doomed(&mut self, task: TaskId, effects: &mut Vec<Effect>) {
        let is_due = self.memory.get(&task).is_some_and(|held| held.is_doomed && held.users == 0);
        if is_due && !self.may_be_written(task) {
            self.memory.remove(&task);
            effects.push(Effect::Free { task });
        }
    }

    /// The scheduler's wish for a copy here, if there is one, cannot be granted, or is no more.
    pub(super) fn end_acquisition(&mut self, task: TaskId, effects: &mut Vec<Effect>) {
        let Some(missing) = self.missing.get_mut(&task) else { return };
        if !std::mem::take(&mut missing.is_acquired) {
            return;
        }
        if missing.users == 0 && !matches!(missing.place, Place::Flight { .. }) {
            self.missing.remove(&task);
        }
        effects.push(Effect::ToScheduler(FromWorker::NotAcquired { task }));
    }

    /// Fails the assignments that wait for an output which cannot be stored here. Its holders have it still, so that
    /// asking others, or computing it again, would be of no use.
    pub(super) fn on_no_room(&mut self, input: TaskId, message: &str, effects: &mut Vec<Effect>) {
        self.end_acquisition(input, effects);
        let Some(missing) = self.missing.get_mut(&input) else { return };
        for (task, serial) in std::mem::take(&mut missing.waiting) {
            let Some(assigned) = self.assignments.get(&task).filter(|assigned| assigned.serial == serial) else {
                continue;
            };
            let attempt = assigned.attempt;
            self.drop_assignment(task, effects);
            let cause = FailureCause::Store { message: format!("its input {input}: {message}") };
            let failure = TaskFailure { task, name: String::new(), node: Some(self.config.node), cause };
            effects.push(Effect::ToScheduler(FromWorker::Failed { task, attempt, failure }));
        }
    }

    /// Gives the assignments back that wait for an output which nobody is left to be asked for, and which is not to be
    /// computed here either.
    pub(super) fn give_up_if_nowhere(&mut self, input: TaskId, effects: &mut Vec<Effect>) {
        let Some(missing) = self.missing.get_mut(&input).filter(|missing| missing.place == Place::Fetch) else {
            return;
        };
        let peers = &self.peers;
        if missing.untried.iter().any(|holder| peers.contains_key(holder)) || self.assignments.contains_key(&input) {
            return;
        }
        let Some(mut missing) = self.missing.remove(&input) else { return };
        if missing.is_acquired {
            effects.push(Effect::ToScheduler(FromWorker::NotAcquired { task: input }));
        }
        missing.tried.append(&mut missing.untried);
        for (task, serial) in missing.waiting {
            let Some(assigned) = self.assignments.get(&task).filter(|assigned| assigned.serial == serial) else {
                continue;
            };
            let attempt = assigned.attempt;
            self.drop_assignment(task, effects);
            effects.push(Effect::ToScheduler(FromWorker::InputsMissing {
                task,
                attempt,
                missing: vec![(input.whole(), missing.tried.clone())],
            }));
        }
    }
}
