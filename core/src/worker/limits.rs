//! What ends, or holds back, what runs: time, the worker's resources, and its memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::failure::{FailureCause, TaskFailure};
use crate::ids::{TaskId, Time};
use crate::spec::{Amount, Requirements, Resources};
use crate::wire::{FromWorker, WorkerStatus};

use super::run::Fate;
use super::{Effect, Worker};

/// How often the scheduler is told of a status that is much as before, in microseconds at least.
const STATUS_PAUSE_US: u64 = 1_000_000;

/// What running tasks take of the worker's resources.
#[derive(Debug, Default)]
pub(super) struct Taken(BTreeMap<String, Amount>);

impl Taken {
    /// Whether there is enough left. What a worker does not have at all, or not as much of, is given to one task alone: the
    /// scheduler has decided that it runs here, and it would wait for ever.
    fn has_room_for(&self, requirements: &Requirements, resources: &Resources) -> bool {
        requirements.resources.iter().all(|(name, amount)| {
            let taken = self.0.get(name).map_or(0, |taken| taken.0);
            let all = resources.get(name).map_or(0, |all| all.0);
            taken == 0 || amount.0 == 0 || taken.checked_add(amount.0).is_some_and(|sum| sum <= all)
        })
    }

    fn take(&mut self, requirements: &Requirements) {
        for (name, amount) in requirements.resources.iter().filter(|entry| entry.1.0 > 0) {
            let taken = self.0.entry(name.clone()).or_default();
            taken.0 = taken.0.saturating_add(amount.0);
        }
    }

    fn give_back(&mut self, requirements: &Requirements) {
        for (name, amount) in &requirements.resources {
            let Some(taken) = self.0.get_mut(name) else { continue };
            taken.0 = taken.0.saturating_sub(amount.0);
            if taken.0 == 0 {
                self.0.remove(name);
            }
        }
    }

    /// What is taken, for checking.
    pub(super) fn amounts(&self) -> &BTreeMap<String, Amount> {
        &self.0
    }
}

/// What is known of the worker's memory, and what the scheduler was told.
#[derive(Debug, Default)]
pub(super) struct Status {
    current: Option<WorkerStatus>,
    told: Option<(Time, WorkerStatus)>,
}

impl Status {
    pub(super) fn is_paused(&self) -> bool {
        self.current.is_some_and(|status| status.paused)
    }

    /// Another scheduler knows nothing.
    pub(super) fn forget_told(&mut self) {
        self.told = None;
    }

    /// What the scheduler is to be told now, if anything: at once when the worker pauses or goes on, else now and then.
    fn next(&mut self, now: Time) -> Option<WorkerStatus> {
        let current = self.current?;
        let is_due = match self.told {
            None => true,
            Some((_, told)) if told.paused != current.paused => true,
            // The one thing that matters is said again.
            Some((at, told)) => (told != current || current.paused) && now.micros_since(at) >= STATUS_PAUSE_US,
        };
        if !is_due {
            return None;
        }
        self.told = Some((now, current));
        Some(current)
    }
}

impl Worker {
    pub(super) fn has_room_for(&self, requirements: &Option<Arc<Requirements>>) -> bool {
        requirements.as_ref().is_none_or(|required| self.taken.has_room_for(required, &self.config.resources))
    }

    pub(super) fn take_resources(&mut self, requirements: &Option<Arc<Requirements>>) {
        if let Some(required) = requirements {
            self.taken.take(required);
        }
    }

    /// What was held back may fit now.
    pub(super) fn give_resources_back(&mut self, requirements: &Option<Arc<Requirements>>) {
        if let Some(required) = requirements.as_ref().filter(|required| !required.resources.is_empty()) {
            self.taken.give_back(required);
            self.ready.extend(self.held_back.drain(..).map(std::cmp::Reverse));
        }
    }

    pub(super) fn on_status(&mut self, status: WorkerStatus, effects: &mut Vec<Effect>) {
        let begins_pause = status.paused && !self.status.is_paused();
        self.status.current = Some(status);
        self.tell_status(effects);
        if begins_pause {
            self.take_all_back(effects);
        }
    }

    pub(super) fn tell_status(&mut self, effects: &mut Vec<Effect>) {
        if let Some(status) = self.status.next(self.now) {
            effects.push(Effect::ToScheduler(FromWorker::Status(status)));
        }
    }

    pub(super) fn on_tick(&mut self, effects: &mut Vec<Effect>) {
        self.tell_status(effects);
        while let Some(&(deadline, task)) = self.deadlines.first()
            && deadline <= self.now
        {
            self.deadlines.pop_first();
            self.abandon(task, effects);
        }
    }

    /// This task's time is over. Its slot and its resources are free as soon as its thread is let go of, which the end of
    /// the execution says.
    fn abandon(&mut self, task: TaskId, effects: &mut Vec<Effect>) {
        let Some(running) = self.running.get_mut(&task) else { return };
        effects.push(Effect::Abandon { task, attempt: running.attempt });
        let timeout_ms = running.timeout_ms;
        let inputs = match std::mem::replace(&mut running.fate, Fate::Abandoned) {
            Fate::Abandoned => return,
            Fate::Dropped { inputs } => inputs,
            Fate::Reported => {
                let Some(assigned) = self.assignments.remove(&task) else { return };
                let cause = FailureCause::TimedOut { timeout_ms };
                let failure = TaskFailure { task, name: String::new(), node: Some(self.config.node), cause };
                let attempt = assigned.attempt;
                effects.push(Effect::ToScheduler(FromWorker::Failed { task, attempt, failure }));
                self.withdrawn.push(task);
                self.report_copy(task, effects);
                assigned.inputs
            }
        };
        // Until the thread is let go of, nothing of the same id runs.
        *self.stale.entry(task).or_default() += 1;
        self.release_inputs(&inputs, effects);
    }
}
