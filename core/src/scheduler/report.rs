//! What clients may ask of the records, in pages.

use std::collections::BTreeMap;

use crate::ids::{JobId, TaskId, WorkerId};
use crate::query::{NbytesOf, Query, REPORT_MAX, Report, WorkerReport};

use super::Scheduler;
use super::pool::PoolWorker;
use super::record::{Job, State};

impl Scheduler {
    /// The answer to a query. Costs a pass over the worker's tasks or outputs, or over the job's tasks.
    pub(super) fn report(&self, query: &Query) -> Report {
        match *query {
            Query::HasWhat { worker, job, after } => {
                let (tasks, more) = page(self.has_what(worker).into_iter(), job, after);
                let outputs = tasks.into_iter().map(|task| (task, self.nbytes(task).unwrap_or(0))).collect();
                Report::Outputs { outputs, more }
            }
            Query::Processing { worker, job, after } => {
                let processing = self.pool.slot(worker).and_then(|slot| self.pool.get(slot));
                let processing = processing.map_or(&[][..], |worker| &worker.processing);
                let (tasks, more) = page(processing.iter().copied(), job, after);
                Report::Tasks { tasks: tasks.into_iter().map(|task| (task, self.name_of(task))).collect(), more }
            }
            Query::Nbytes { job } => Report::Nbytes(self.nbytes_by_name(job)),
            Query::Workers { after } => self.worker_reports(after),
        }
    }

    fn name_of(&self, task: TaskId) -> String {
        self.jobs.get(task).map_or_else(String::new, |record| self.kinds.name(record.kind))
    }

    fn nbytes_by_name(&self, job: Option<JobId>) -> Vec<NbytesOf> {
        let mut by_kind: BTreeMap<u32, NbytesOf> = BTreeMap::new();
        let mut count = |job: &Job| {
            for (_, record) in job.iter() {
                let State::Memory { nbytes, .. } = record.state else { continue };
                let sum = by_kind.entry(record.kind).or_default();
                sum.outputs += 1;
                sum.nbytes = sum.nbytes.saturating_add(nbytes);
            }
        };
        match job {
            Some(job) => self.jobs.job(job).into_iter().for_each(&mut count),
            None => self.jobs.iter().for_each(|(_, job)| count(job)),
        }
        let named = |(kind, sum): (u32, NbytesOf)| NbytesOf { name: self.kinds.name(kind), ..sum };
        let mut all: Vec<NbytesOf> = by_kind.into_iter().map(named).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    fn worker_reports(&self, after: Option<WorkerId>) -> Report {
        let mut workers: Vec<&PoolWorker> =
            self.pool.iter().map(|(_, worker)| worker).filter(|worker| Some(worker.id) > after).collect();
        workers.sort_by_key(|worker| worker.id);
        let more = workers.len() > REPORT_MAX;
        let workers = workers.into_iter().take(REPORT_MAX).map(report_of).collect();
        Report::Workers { workers, more }
    }
}

fn report_of(worker: &PoolWorker) -> WorkerReport {
    WorkerReport {
        worker: worker.id,
        info: worker.info.clone(),
        status: worker.status,
        processing: worker.processing.len() as u64,
        queued: worker.queue.len() as u64,
        outputs: worker.held_live as u64,
        nbytes: worker.nbytes,
        occupancy_us: worker.occupancy_us,
    }
}

/// The next page of these tasks, in their order; and whether there are more.
fn page(tasks: impl Iterator<Item = TaskId>, job: Option<JobId>, after: Option<TaskId>) -> (Vec<TaskId>, bool) {
    let is_meant = |task: &TaskId| job.is_none_or(|job| task.job == job) && Some(*task) > after;
    let mut tasks: Vec<TaskId> = tasks.filter(is_meant).collect();
    let more = tasks.len() > REPORT_MAX;
    if more {
        tasks.select_nth_unstable(REPORT_MAX);
        tasks.truncate(REPORT_MAX);
    }
    tasks.sort_unstable();
    (tasks, more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_answers_come_in_pages_that_follow_each_other() {
        let count = REPORT_MAX as u32 + 10;
        let all = || (0..count).rev().map(|index| TaskId::new(JobId(0), index));
        let (first, more) = page(all(), None, None);
        assert_eq!((first.len(), more), (REPORT_MAX, true));
        let (rest, more) = page(all(), None, first.last().copied());
        assert_eq!((rest.len(), more), (10, false));
        assert!(first.iter().chain(&rest).map(|task| task.index).eq(0..count));
        assert_eq!(page(all(), Some(JobId(1)), None), (Vec::new(), false));
    }
}
