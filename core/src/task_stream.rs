//! What the scheduler tells of the tasks that ran: which, where, when, and how they ended.

use serde::{Deserialize, Serialize};

use crate::ids::{Attempt, KindId, TaskId, Term, Time, WorkerId};

/// How a try of a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TaskOutcome {
    /// It has its output.
    Finished,
    /// It failed, and is tried again.
    Retried,
    /// It failed for good.
    Failed,
}

/// A try of a task that a worker has told the end of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// The task.
    pub task: TaskId,
    /// Its function.
    pub kind: KindId,
    /// Where it ran.
    pub worker: WorkerId,
    /// Which try of it this was.
    pub attempt: Attempt,
    /// When the scheduler heard of its end, by its own clock. Short tasks are told together, up to some milliseconds late.
    pub ended: Time,
    /// How long it ran, in microseconds, by the worker's clock; 0 of one that failed, since workers do not tell it.
    pub run_us: u64,
    /// The size of its output in bytes; 0 if there is none.
    pub nbytes: u64,
    /// How it ended.
    pub outcome: TaskOutcome,
}

/// A worker of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamWorker {
    /// Its id.
    pub worker: WorkerId,
    /// Its name for people.
    pub name: String,
    /// How many tasks it runs at once.
    pub nthreads: u32,
}

/// Why a recorded task failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamFailure {
    /// The number of its record.
    pub number: u64,
    /// For a person; cut if it is long.
    pub message: String,
}

/// A piece of what the scheduler remembers of the tasks that ended. Records are numbered in the order in which it heard of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamPage {
    /// The scheduler's term: another one counts anew, and by another clock.
    pub term: Term,
    /// The scheduler's time at the answer.
    pub now: Time,
    /// The number of the first record here.
    pub first: u64,
    /// The number of the next record that will be made.
    pub end: u64,
    /// How many of those that were asked for are forgotten.
    pub forgotten: u64,
    /// The records, at most [`PAGE_RECORDS_MAX`](crate::scheduler::PAGE_RECORDS_MAX): ask again from `first` and their number on.
    pub records: Vec<TaskRecord>,
    /// The names of their functions.
    pub kinds: Vec<(KindId, String)>,
    /// Where they ran, if that worker is gone, and the workers that are there.
    pub workers: Vec<StreamWorker>,
    /// Why those failed that did; only of the last of all failures.
    pub failures: Vec<StreamFailure>,
}
