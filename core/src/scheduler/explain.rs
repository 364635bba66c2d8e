//! Why a task is where it is.

use crate::explain::{Awaited, Explanation, NAMED_MAX, Obstacle, ObstacleKind, Why};
use crate::ids::TaskId;

use super::Scheduler;
use super::classes::ClassId;
use super::pool::{PoolWorker, Room, Slot};
use super::queue::ReadyQueue;
use super::record::{Phase, QueuedAt, Record, State};
use super::transitions::is_queued;

impl Scheduler {
    /// Why a task is where it is: what it waits for, who is in its way, or where it is. Costs its inputs, and the number of
    /// workers if it is queued.
    pub fn explain(&self, task: TaskId) -> Explanation {
        let Some(record) = self.jobs.get(task) else {
            let is_kept = self.kept.values().any(|kept| kept.holds(task));
            let why = if is_kept { Why::Kept { tasks_max: self.tasks_max } } else { Why::Forgotten };
            return Explanation { task, name: String::new(), why };
        };
        let why = match &record.state {
            State::Released => Why::Released,
            State::Waiting { .. } => {
                let (inputs, more) = self.missing_inputs(task, record);
                Why::Waiting { inputs, more }
            }
            State::Queued { at } => {
                let (obstacles, more) = self.obstacles(record);
                let queue_len = self.queue(*at).map_or(0, |queue| queue.len() as u32);
                Why::Queued { queue_len, next: self.next_in(*at), obstacles, more }
            }
            State::NoWorker => {
                let (obstacles, more) = self.obstacles(record);
                Why::NoWorker { obstacles, more }
            }
            State::Processing { worker, phase, .. } => self.explain_processing(task, record, *worker, *phase),
            State::Memory { nbytes, holders } => {
                let names =
                    holders.iter().filter_map(|slot| self.pool.get(*slot)).map(|worker| worker.info.name.clone());
                Why::Memory { workers: names.collect(), nbytes: *nbytes }
            }
            State::Erred { failure } => Why::Erred((**failure).clone()),
        };
        Explanation { task, name: self.kinds.name(record.kind), why }
    }

    fn explain_processing(&self, task: TaskId, record: &Record, slot: Slot, phase: Phase) -> Why {
        let worker = self.pool.get(slot);
        Why::Processing {
            worker: worker.map_or_else(String::new, |worker| worker.info.name.clone()),
            attempt: record.attempt,
            processing: worker.map_or(0, |worker| worker.processing.len() as u32),
            nthreads: worker.map_or(0, PoolWorker::nthreads),
            inputs: self.missing_inputs(task, record).0,
            is_suspended: phase == Phase::Suspended,
            is_stolen: matches!(phase, Phase::Asked { .. }),
        }
    }

    fn awaited(&self, task: TaskId) -> Option<Awaited> {
        let record = self.jobs.get(task)?;
        Some(Awaited { task, name: self.kinds.name(record.kind), state: record.state.view() })
    }

    /// The inputs that are not in memory, and how many more there are.
    fn missing_inputs(&self, task: TaskId, record: &Record) -> (Vec<Awaited>, u32) {
        let mut missing: Vec<u32> = record.inputs.to_vec();
        missing.sort_unstable();
        missing.dedup();
        let is_missing =
            |index: &u32| self.jobs.get(TaskId::new(task.job, *index)).is_none_or(|record| !record.state.is_memory());
        missing.retain(is_missing);
        let named = missing.iter().take(NAMED_MAX).filter_map(|index| self.awaited(TaskId::new(task.job, *index)));
        (named.collect(), missing.len().saturating_sub(NAMED_MAX) as u32)
    }

    fn queue(&self, at: QueuedAt) -> Option<&ReadyQueue> {
        match at {
            QueuedAt::Roots => Some(&self.roots),
            QueuedAt::Worker(slot) => self.pool.get(slot).map(|worker| &worker.queue),
            QueuedAt::Class(class) => self.classes.get(class).map(|class| &class.queue),
        }
    }

    fn next_in(&self, at: QueuedAt) -> Option<Awaited> {
        self.awaited(self.queue(at)?.first(|task| is_queued(&self.jobs, at, task))?)
    }

    /// What stands between a ready task and each worker: first the workers that it could have.
    fn obstacles(&self, record: &Record) -> (Vec<Obstacle>, u32) {
        let mut obstacles: Vec<Obstacle> = self
            .pool
            .iter()
            .map(|(slot, worker)| Obstacle {
                worker: worker.info.name.clone(),
                what: self.obstacle(record.class, slot, worker),
            })
            .collect();
        obstacles.sort_by_key(|obstacle| {
            matches!(obstacle.what, ObstacleKind::Restricted | ObstacleKind::Lacks { .. } | ObstacleKind::Retiring)
        });
        let more = obstacles.len().saturating_sub(NAMED_MAX) as u32;
        obstacles.truncate(NAMED_MAX);
        (obstacles, more)
    }

    fn obstacle(&self, class_id: ClassId, slot: Slot, worker: &PoolWorker) -> ObstacleKind {
        let class = self.classes.get(class_id);
        if let Some(class) = class {
            for (name, needed) in &class.requirements.resources {
                let total = worker.info.resources.get(name).copied().unwrap_or_default();
                if total < *needed {
                    return ObstacleKind::Lacks { resource: name.clone(), needed: needed.0, total: total.0 };
                }
            }
            if !class.is_eligible(slot) {
                return ObstacleKind::Restricted;
            }
        }
        if worker.is_retiring {
            return ObstacleKind::Retiring;
        }
        if worker.status.paused {
            return ObstacleKind::Paused;
        }
        if let Some(class) = class {
            for (name, needed) in &class.requirements.resources {
                let left = worker.left(name);
                if left < *needed {
                    return ObstacleKind::InUse { resource: name.clone(), needed: needed.0, left: left.0 };
                }
            }
        }
        if worker.room() == Room::Idle {
            return ObstacleKind::Free;
        }
        ObstacleKind::Full { processing: worker.processing.len() as u32, occupancy_us: worker.occupancy_us }
    }
}
