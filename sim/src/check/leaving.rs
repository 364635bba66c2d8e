//! A worker that is let go takes nothing with it, unless nobody is there to take over, or a fault comes between.

use std::collections::{BTreeMap, BTreeSet};

use starling_core::ids::{TaskId, WorkerId};
use starling_core::scheduler::Scheduler;

/// The workers that have been let go, or may be about to.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    /// Those that the scheduler has heard shall leave.
    asked: BTreeSet<WorkerId>,
    /// Those that were let go, with the number of faults until then; `None` if they had to take something with them.
    granted: BTreeMap<WorkerId, Option<u64>>,
    /// Whether one was let go with something that nobody could take over.
    has_lost: bool,
}

impl Leaving {
    /// The scheduler is told that this worker shall leave.
    pub(crate) fn ask(&mut self, worker: WorkerId) {
        self.asked.insert(worker);
    }

    pub(crate) fn is_granted(&self, worker: WorkerId) -> bool {
        self.granted.contains_key(&worker)
    }

    /// Whether one was let go with something that nobody could take over.
    pub(crate) fn has_lost(&self) -> bool {
        self.has_lost
    }

    /// The scheduler lets a worker go.
    /// With `is_new` the scheduler may not know yet of what the worker has: a last one goes with it all the same.
    pub(crate) fn grant(
        &mut self,
        scheduler: &Scheduler,
        worker: WorkerId,
        faults: u64,
        is_new: bool,
    ) -> Result<(), String> {
        let Some(view) = scheduler.worker(worker) else { return Err(format!("{worker:?} is let go and not there")) };
        if !self.asked.contains(&worker) {
            return Err(format!("{worker:?} is let go and never was to leave"));
        }
        let is_clean = view.outputs == 0 && view.processing == 0;
        let is_alone =
            scheduler.workers().iter().all(|view| view.worker == worker || self.asked.contains(&view.worker));
        if !is_clean && !is_alone {
            return Err(format!("{worker:?} is let go with {} tasks and {} outputs", view.processing, view.outputs));
        }
        self.has_lost |= !is_clean;
        let takes_nothing = is_clean && !(is_new && is_alone);
        self.granted.insert(worker, takes_nothing.then_some(faults));
        Ok(())
    }

    /// A worker is about to be lost.
    pub(crate) fn check_lost(&self, scheduler: &Scheduler, worker: WorkerId, faults: u64) -> Result<(), String> {
        let Some(Some(faults_then)) = self.granted.get(&worker) else { return Ok(()) };
        if *faults_then != faults {
            return Ok(());
        }
        let only_here = |task: &TaskId| scheduler.who_has(*task).len() < 2;
        // What a client has put there just now is not the scheduler's to keep.
        let is_put = |task: &TaskId| scheduler.explain(*task).name == "scattered value";
        match scheduler.has_what(worker).into_iter().find(|task| only_here(task) && !is_put(task)) {
            Some(task) => Err(format!("{worker:?} was let go and takes the output of {task} with it")),
            None => Ok(()),
        }
    }
}
