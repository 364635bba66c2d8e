//! What stays when the scheduler is lost, and what the next one is told.

use crate::ids::{Attempt, TaskId};
use crate::wire::{FromWorker, INVENTORY_MAX, Inventory, StillRunning};

use super::{AssignedState, Effect, Worker};

impl Worker {
    pub(super) fn on_scheduler_lost(&mut self, effects: &mut Vec<Effect>) {
        self.is_registered = false;
        for batch in self.batches.values_mut().filter(|batch| !batch.is_stale) {
            batch.is_stale = true;
            for (task, _) in &batch.tasks {
                *self.stale.entry(*task).or_default() += 1;
            }
        }
        // What executes has its inputs, so that everything awaited is awaited by what goes.
        self.missing.clear();
        let not_begun = self.assignments.iter().filter(|entry| entry.1.state != AssignedState::Executing);
        let mut not_begun: Vec<TaskId> = not_begun.map(|entry| *entry.0).collect();
        not_begun.sort_unstable();
        for task in not_begun {
            if let Some(assigned) = self.assignments.remove(&task) {
                self.release_inputs(&assigned.inputs, effects);
            }
        }
        self.ready.clear();
        self.held_back.clear();
        self.peers.clear();
        self.askable.clear();
        self.own_id = None;
        self.running.values_mut().for_each(|running| running.asked_back = None);
        self.take_all_back(effects);
    }

    pub(super) fn on_registered(&mut self, effects: &mut Vec<Effect>) {
        if self.is_registered {
            self.on_scheduler_lost(effects);
        }
        self.is_registered = true;
        self.frees_heard = 0;
        effects.extend(self.inventory().into_iter().map(|piece| Effect::ToScheduler(FromWorker::Inventory(piece))));
        self.status.forget_told();
        self.tell_status(effects);
        if self.wants_to_leave {
            effects.push(Effect::ToScheduler(FromWorker::Leaving));
        }
    }

    /// What is here and what runs, in order and in pieces. What is told of by its completion is not told of as being here.
    fn inventory(&self) -> Vec<Inventory> {
        let outputs = self
            .memory
            .iter()
            .filter(|(task, held)| !held.is_doomed && !task.is_part() && !self.assignments.contains_key(*task));
        let mut outputs: Vec<_> = outputs.map(|(task, held)| (*task, held.value.attempt, held.value.nbytes)).collect();
        outputs.sort_unstable();
        let mut running: Vec<_> = self
            .running
            .iter()
            .filter_map(|(task, running)| {
                let attempt = self.assignments.get(task)?.attempt;
                Some(StillRunning { task: *task, attempt, is_suspended: running.is_suspended })
            })
            .collect();
        running.sort_unstable_by_key(|running| running.task);
        in_pieces(outputs, running)
    }
}

/// Always at least one piece, of which the last says that it is.
fn in_pieces(outputs: Vec<(TaskId, Attempt, u64)>, running: Vec<StillRunning>) -> Vec<Inventory> {
    let (mut pieces, mut piece) = (Vec::new(), Inventory::default());
    for output in outputs {
        turn_over_if_full(&mut piece, &mut pieces);
        piece.outputs.push(output);
    }
    for running in running {
        turn_over_if_full(&mut piece, &mut pieces);
        piece.running.push(running);
    }
    piece.is_last = true;
    pieces.push(piece);
    pieces
}

fn turn_over_if_full(piece: &mut Inventory, pieces: &mut Vec<Inventory>) {
    if piece.outputs.len() + piece.running.len() >= INVENTORY_MAX {
        pieces.push(std::mem::take(piece));
    }
}

/// Takes away what was to be said, of the effects from number `from` on: there is nobody to say it to.
pub(super) fn leave_unsaid(effects: &mut Vec<Effect>, from: usize) {
    let mut number = 0;
    effects.retain(|effect| {
        number += 1;
        number <= from || !matches!(effect, Effect::ToScheduler(_) | Effect::ToSchedulerSoon(_))
    });
}
