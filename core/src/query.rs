//! Questions about workers, tasks and outputs, and their answers, as they cross between client and scheduler.

use serde::{Deserialize, Serialize};

use crate::ids::{JobId, TaskId, WorkerId};
use crate::wire::{WorkerInfo, WorkerStatus};

/// How many tasks, or workers, one [`Report`] names at most.
pub const REPORT_MAX: usize = 64 * 1024;

/// What may be asked of the scheduler's records. Long answers come in pages of at most [`REPORT_MAX`] entries: the next page is
/// asked for by the last entry of the one before. Where a job is named, only its tasks count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// The outputs that a worker holds. Answered by [`Report::Outputs`].
    HasWhat {
        /// The worker.
        worker: WorkerId,
        /// Only those of this job.
        job: Option<JobId>,
        /// Only those behind this one.
        after: Option<TaskId>,
    },
    /// The tasks that a worker was given and that have not ended. Answered by [`Report::Tasks`].
    Processing {
        /// The worker.
        worker: WorkerId,
        /// Only those of this job.
        job: Option<JobId>,
        /// Only those behind this one.
        after: Option<TaskId>,
    },
    /// How many outputs of each function there are, and how large. Answered by [`Report::Nbytes`].
    Nbytes {
        /// Only those of this job.
        job: Option<JobId>,
    },
    /// The workers. Answered by [`Report::Workers`].
    Workers {
        /// Only those behind this one.
        after: Option<WorkerId>,
    },
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// Outputs with their sizes in bytes, in the order of their tasks.
    Outputs {
        /// The outputs.
        outputs: Vec<(TaskId, u64)>,
        /// Whether there are more behind them.
        more: bool,
    },
    /// Tasks with the names of their functions, in their order.
    Tasks {
        /// The tasks.
        tasks: Vec<(TaskId, String)>,
        /// Whether there are more behind them.
        more: bool,
    },
    /// By the functions' names.
    Nbytes(Vec<NbytesOf>),
    /// Workers, in the order of their ids.
    Workers {
        /// The workers.
        workers: Vec<WorkerReport>,
        /// Whether there are more behind them.
        more: bool,
    },
}

/// What the outputs of one function come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NbytesOf {
    /// The function's name; empty for values that clients have scattered.
    pub name: String,
    /// How many outputs there are.
    pub outputs: u64,
    /// Their bytes, each counted once, however many copies there are.
    pub nbytes: u64,
}

/// A worker, as the scheduler knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Its id.
    pub worker: WorkerId,
    /// What it has said of itself.
    pub info: WorkerInfo,
    /// How it was when it last said so.
    pub status: WorkerStatus,
    /// How many tasks it was given that have not ended.
    pub processing: u64,
    /// How many tasks wait at the scheduler for room there.
    pub queued: u64,
    /// How many outputs it holds.
    pub outputs: u64,
    /// Their bytes.
    pub nbytes: u64,
    /// How long what it was given is expected to take on one thread, in microseconds.
    pub occupancy_us: u64,
}
