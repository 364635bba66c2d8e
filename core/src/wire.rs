//! The messages between client, scheduler and worker.
//!
//! They cross in batches (`Vec` of these), postcard-encoded when they leave the process and as they are when they do
//! not. A peer's message is input: the machines ignore or refuse what they did not expect and never assert on it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::explain::Explanation;
use crate::failure::TaskFailure;
use crate::graph::GraphError;
use crate::ids::{Attempt, JobId, KindId, NodeId, TaskId, Term, WorkerId};
use crate::query::{Query, Report};
use crate::spec::{PartOf, Requirements, Resources, TaskSpec};
use crate::task_stream::StreamPage;

/// The version of every message in this module. Nodes of different versions refuse each other at admission.
pub const PROTOCOL_VERSION: u32 = 6;

/// The largest encoded result, in bytes, that rides in the completion instead of being fetched from its worker.
pub const INLINE_RESULT_BYTES_MAX: usize = 16 * 1024;

/// How many outputs, and how many tasks, one piece of an inventory names at most.
pub const INVENTORY_MAX: usize = 16 * 1024;

/// A function that a binary holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KindInfo {
    /// The hash of the other fields.
    pub kind: KindId,
    /// The function's path.
    pub name: String,
    /// The function's signature, as written.
    pub signature: String,
}

/// What a worker says of itself when it registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// The node that the worker runs on.
    pub node: NodeId,
    /// A name for people.
    pub name: String,
    /// The name of the machine that it runs on.
    pub host: String,
    /// How many tasks it runs at once, at least 1.
    pub nthreads: u32,
    /// How many bytes of outputs it may hold in memory; 0 for no limit.
    pub memory_limit: u64,
    /// Its abstract resources.
    pub resources: Resources,
}

/// Client to scheduler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromClient {
    /// Open a job. Answered by [`ToClient::JobOpened`].
    OpenJob {
        /// A name for people.
        name: String,
        /// Chosen by the client; comes back in the answer.
        token: u64,
    },
    /// Run these tasks. Answered by [`ToClient::Accepted`] or [`ToClient::Rejected`], all of them or none.
    Submit {
        /// The tasks' job.
        job: JobId,
        /// Chosen by the client; comes back in the answer.
        token: u64,
        /// Names of the kinds that this job has not named before.
        kinds: Vec<KindInfo>,
        /// The tasks, with increasing indices that continue the job's.
        tasks: Vec<TaskSpec>,
    },
    /// These values were put on workers by the client, as if tasks had computed them; they are wanted.
    Scattered {
        /// The values' job.
        job: JobId,
        /// Task index (continues the job's), size in bytes, holders.
        values: Vec<(u32, u64, Vec<WorkerId>)>,
    },
    /// The client holds these results no longer.
    Release {
        /// The tasks.
        tasks: Vec<TaskId>,
    },
    /// Who holds these outputs? Answered by [`ToClient::WhoHas`].
    WhoHas {
        /// Chosen by the client; comes back in the answer.
        token: u64,
        /// The tasks asked for.
        tasks: Vec<TaskId>,
    },
    /// Give these tasks up, and every task that needs one of them: whoever waits for one is told
    /// [`FailureCause::Cancelled`](crate::failure::FailureCause::Cancelled). What is done already stays.
    Cancel {
        /// The tasks.
        tasks: Vec<TaskId>,
    },
    /// Give everything up that this job has not finished, as [`FromClient::Cancel`] does.
    CancelJob {
        /// The job.
        job: JobId,
    },
    /// Run these tasks again that have failed, with all that they need and that has failed. What has not failed is passed over.
    /// Answered by [`ToClient::Done`] with how many run again: every failure that is told before that is an old one.
    Retry {
        /// Chosen by the client; comes back in the answer.
        token: u64,
        /// The tasks, of the client's own jobs.
        tasks: Vec<TaskId>,
    },
    /// How is it, as far as the scheduler knows? Any client may ask of everything. Answered by [`ToClient::Report`].
    Query {
        /// Chosen by the client; comes back in the answer.
        token: u64,
        /// What is asked.
        query: Query,
    },
    /// Why is this task where it is? Any client may ask of any task. Answered by [`ToClient::Explained`].
    Explain {
        /// Chosen by the client; comes back in the answer.
        token: u64,
        /// The task.
        task: TaskId,
    },
    /// Have copies of these outputs on so many workers. Answered by [`ToClient::Done`] once they are there, or cannot be.
    Replicate {
        /// Chosen by the client; comes back in the answer.
        token: u64,
        /// The outputs; those of other clients, and tasks that have none, are passed over.
        tasks: Vec<TaskId>,
        /// How many copies, the first included; every worker if there are fewer.
        copies: u32,
    },
    /// Move outputs from full workers to empty ones. Answered by [`ToClient::Done`].
    Rebalance {
        /// Chosen by the client; comes back in the answer.
        token: u64,
    },
    /// Let these workers leave, once what only they hold is elsewhere and their tasks are done. Answered by
    /// [`ToClient::Done`].
    Retire {
        /// Chosen by the client; comes back in the answer.
        token: u64,
        /// The workers.
        workers: Vec<WorkerId>,
    },
    /// This job was open at an earlier scheduler, or over an earlier link: it is this client's from now on, and what it
    /// consists of follows ([`FromClient::Restore`]). Answered by [`ToClient::JobOpened`].
    Resume {
        /// Chosen by the client; comes back in the answer.
        token: u64,
        /// The job.
        job: JobId,
        /// A name for people.
        name: String,
    },
    /// A piece of what a resumed job consists of: every task that the client may still need, in the order of their
    /// indices, with gaps where it needs none any more. Answered by [`ToClient::Accepted`] or [`ToClient::Rejected`].
    Restore {
        /// The tasks' job.
        job: JobId,
        /// Chosen by the client; comes back in the answer.
        token: u64,
        /// The tasks. An input that is neither among them nor in an earlier piece is not needed by anybody any more.
        tasks: Vec<TaskSpec>,
        /// Values that were scattered, with their sizes in bytes: workers tell who holds them.
        values: Vec<(u32, u64)>,
        /// Which of the tasks and values the client has been told to have failed: they are not run again.
        failed: Vec<(u32, TaskFailure)>,
        /// The index of the job's next task, once this was the last piece: what the job has beyond the pieces is released.
        end: Option<u32>,
    },
    /// Keep these tasks and their outputs, and what they need to be computed again, after this client has gone, and through
    /// the loss of the scheduler. Answered by [`ToClient::Done`] once that is certain.
    Keep {
        /// Chosen by the client; comes back in the answer.
        token: u64,
        /// What they are kept as.
        name: KeptName,
        /// The tasks' job.
        job: JobId,
        /// The indices of the tasks whose outputs are wanted.
        wanted: Vec<u32>,
    },
    /// Keep this no longer. Answered by [`ToClient::Done`].
    Forget {
        /// Chosen by the client; comes back in the answer.
        token: u64,
        /// What it is kept as.
        name: KeptName,
    },
    /// Which jobs are there? Answered by [`ToClient::Jobs`].
    Jobs {
        /// Chosen by the client; comes back in the answer.
        token: u64,
    },
    /// What is kept as this? Answered by [`ToClient::Kept`].
    Kept {
        /// Chosen by the client; comes back in the answer.
        token: u64,
        /// What it is kept as.
        name: KeptName,
    },
    /// Say of these kept tasks how they end, as if they were this client's.
    Watch {
        /// The tasks.
        tasks: Vec<TaskId>,
    },
    /// A fetch from these holders failed: the scheduler has the output computed again if nobody else has it
    /// ([`ToClient::Recomputing`]), and says where else it is if somebody has ([`ToClient::Finished`]).
    Unreachable {
        /// The output that could not be fetched.
        task: TaskId,
        /// Where it was not found.
        holders: Vec<WorkerId>,
    },
    /// What is remembered of the tasks that ended, from this number on? Answered by [`ToClient::TaskStream`]. They are remembered
    /// as long as a client asks: from now on until [`FromClient::EndTaskStream`], or until it goes.
    TaskStream {
        /// Chosen by the client; comes back in the answer.
        token: u64,
        /// The number of the first record that is wanted; one that is not there yet for those to come.
        since: u64,
    },
    /// This client does not ask any more what tasks ran.
    EndTaskStream,
}

/// Scheduler to client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToClient {
    /// A worker that outputs may be fetched from. Sent before the first mention of its id.
    Worker {
        /// The id that other messages use.
        worker: WorkerId,
        /// What the worker said of itself.
        info: WorkerInfo,
    },
    /// A worker is gone.
    WorkerGone {
        /// Its id.
        worker: WorkerId,
    },
    /// The job is open.
    JobOpened {
        /// From the request.
        token: u64,
        /// The new job.
        job: JobId,
        /// The scheduler's term.
        term: Term,
    },
    /// The tasks of this submission are known to the scheduler.
    Accepted {
        /// From the request.
        token: u64,
    },
    /// None of the tasks of this submission was taken.
    Rejected {
        /// From the request.
        token: u64,
        /// Why.
        error: SubmitError,
    },
    /// A wanted task has its output.
    Finished {
        /// The task.
        task: TaskId,
        /// The output's size in bytes.
        nbytes: u64,
        /// Where it is.
        result: ResultAt,
    },
    /// A wanted task has failed for good.
    Failed {
        /// The task.
        task: TaskId,
        /// Why.
        failure: TaskFailure,
    },
    /// A wanted output that was announced is lost and will be computed again.
    Recomputing {
        /// The task.
        task: TaskId,
    },
    /// The answer to [`FromClient::WhoHas`]: the tasks that have an output, with holders and size in bytes.
    WhoHas {
        /// From the request.
        token: u64,
        /// Task, holders, size in bytes.
        holders: Vec<(TaskId, Vec<WorkerId>, u64)>,
    },
    /// The answer to [`FromClient::Explain`].
    Explained {
        /// From the request.
        token: u64,
        /// Why the task is where it is.
        explanation: Explanation,
    },
    /// The answer to [`FromClient::Query`].
    Report {
        /// From the request.
        token: u64,
        /// How it is.
        report: Report,
    },
    /// The answer to [`FromClient::Jobs`].
    Jobs {
        /// From the request.
        token: u64,
        /// The jobs, by their ids.
        jobs: Vec<JobSummary>,
    },
    /// The answer to [`FromClient::Kept`].
    Kept {
        /// From the request.
        token: u64,
        /// The wanted tasks, in the order in which they were named; none if nothing is kept as that.
        tasks: Option<Vec<TaskId>>,
    },
    /// What was asked for with this token has ended.
    Done {
        /// From the request.
        token: u64,
        /// How many outputs were copied or moved.
        moved: u64,
        /// What could not be done, for a person; empty if everything was.
        problem: String,
    },
    /// The answer to [`FromClient::TaskStream`].
    TaskStream {
        /// From the request.
        token: u64,
        /// What is remembered.
        page: Box<StreamPage>,
    },
}

/// What tasks are kept as.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeptName {
    /// A job that runs without its client.
    Job(JobId),
    /// A data set, of at most [`NAME_BYTES_MAX`](crate::spec::NAME_BYTES_MAX) bytes.
    DataSet(String),
}

impl fmt::Display for KeptName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeptName::Job(job) => write!(f, "job {}", job.0),
            KeptName::DataSet(name) => write!(f, "data set {name}"),
        }
    }
}

/// A job, for a person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSummary {
    /// The job's id.
    pub job: JobId,
    /// Its client's name for it.
    pub name: String,
    /// Whether its client is there.
    pub has_client: bool,
    /// Whether it runs without its client.
    pub is_detached: bool,
    /// The data sets that are of it.
    pub data_sets: Vec<String>,
    /// How many of its tasks are known, by state.
    pub released: u64,
    /// Those that wait for inputs.
    pub waiting: u64,
    /// Those that wait for a worker.
    pub queued: u64,
    /// Those that no worker may run.
    pub no_worker: u64,
    /// Those that are on a worker.
    pub processing: u64,
    /// Those whose output is there.
    pub memory: u64,
    /// Those that have failed.
    pub erred: u64,
}

/// Where a finished output is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResultAt {
    /// Here: the encoded value.
    Inline(Bytes),
    /// In the stores of these workers.
    Workers(SmallVec<[WorkerId; 2]>),
}

/// Why a submission was not taken. Nothing of it was kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SubmitError {
    /// The job is not this client's, or not open.
    #[error("job {0:?} is not open: connect again")]
    UnknownJob(JobId),
    /// The tasks do not form a graph.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The scheduler's binary does not hold these functions.
    #[error(
        "the cluster does not know {}: start its nodes from the program that submits them",
        .0.iter().map(|kind| kind.name.as_str()).collect::<Vec<_>>().join(", ")
    )]
    UnknownKinds(Vec<KindInfo>),
    /// The scheduler keeps no more tasks.
    #[error(
        "the scheduler knows {tasks_max} tasks and keeps no more of this client's: wait for some to end before submitting \
         more"
    )]
    TooManyTasks {
        /// How many tasks it knows at most.
        tasks_max: u64,
    },
    /// A task's options are out of their bounds.
    #[error("task {task} cannot be taken: {problem}")]
    BadOptions {
        /// The task.
        task: TaskId,
        /// Which bound, for a person.
        problem: String,
    },
}

/// Scheduler to worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Another worker that inputs may be fetched from. Sent before the first mention of its id.
    Worker {
        /// The id that other messages use.
        worker: WorkerId,
        /// Its node.
        node: NodeId,
    },
    /// A worker is gone: fetches from it will fail.
    WorkerGone {
        /// Its id.
        worker: WorkerId,
    },
    /// Run this.
    Compute(Assignment),
    /// Do not run this, if it has not begun; its completion will be ignored.
    Cancel {
        /// The task.
        task: TaskId,
        /// Which assignment of it.
        attempt: Attempt,
    },
    /// Nobody needs this output any more.
    Free {
        /// The task whose output it is.
        task: TaskId,
    },
    /// Another worker could run this: give it back if it has not begun. Answered by [`FromWorker::StealAnswer`], unless
    /// the assignment has ended.
    Steal {
        /// The task.
        task: TaskId,
        /// Which assignment of it.
        attempt: Attempt,
    },
    /// Fetch copies of these outputs. Answered, each, by [`FromWorker::Replica`] or [`FromWorker::NotAcquired`].
    Acquire {
        /// The outputs.
        inputs: Vec<InputAt>,
    },
    /// What this worker held is elsewhere, and it has no tasks: it may leave.
    Leave,
}

/// A task given to a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The task.
    pub task: TaskId,
    /// Which try of it this is.
    pub attempt: Attempt,
    /// The function.
    pub kind: KindId,
    /// The encoded arguments.
    pub payload: Bytes,
    /// The outputs that are arguments, in the order in which the payload refers to them.
    pub inputs: Vec<InputAt>,
    /// Lower runs first.
    pub priority: Priority,
    /// Whether a small result shall ride in the completion, because a client waits for it.
    pub inline_result: bool,
    /// Whether its completion may be told some milliseconds late, with others: no task with few inputs waits for it.
    pub may_be_told_late: bool,
    /// How long it may run, in milliseconds; 0 for no limit.
    pub timeout_ms: u32,
    /// What it takes of the worker's resources.
    pub requirements: Option<Arc<Requirements>>,
    /// Which part it takes of its inputs, if not all of each.
    pub part: Option<PartOf>,
}

/// An input and where it was when the task was assigned. A location is a hint. A task may be sent ahead of its inputs:
/// then the receiver itself is named as the holder of an input that it was given to compute earlier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputAt {
    /// The task whose output it is.
    pub task: TaskId,
    /// Its size in bytes; of an input that is taken in part, about that of the part.
    pub nbytes: u64,
    /// Which try of the task it came of; 0 of a value that a client put there.
    pub attempt: Attempt,
    /// Who holds it.
    pub holders: SmallVec<[WorkerId; 2]>,
}

/// The order in which tasks run: lower first. User priority, then order of submission, then order in the graph.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Priority {
    /// The user's priority, negated.
    pub user: i32,
    /// The number of the submission.
    pub submission: u32,
    /// The place in the submission.
    pub order: u32,
}

/// What a worker has from before it registered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// The outputs in its store: the task, which try of it the output came of, its size in bytes.
    pub outputs: Vec<(TaskId, Attempt, u64)>,
    /// What is on its threads.
    pub running: Vec<StillRunning>,
    /// Whether this was the last piece.
    pub is_last: bool,
}

/// A task that a worker began for an earlier scheduler, or over an earlier link, and still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StillRunning {
    /// The task.
    pub task: TaskId,
    /// Which try of it.
    pub attempt: Attempt,
    /// Whether it waits for tasks that it has submitted.
    pub is_suspended: bool,
}

/// Worker to scheduler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// The first that is said after registering, in pieces of at most [`INVENTORY_MAX`] entries: what is here already.
    /// What nobody turns out to need is freed or cancelled.
    Inventory(Inventory),
    /// The task has run, and its output is in this worker's store.
    Finished {
        /// The task.
        task: TaskId,
        /// Which try of it.
        attempt: Attempt,
        /// The output's size in bytes.
        nbytes: u64,
        /// How long it ran, in microseconds.
        run_us: u64,
        /// The encoded output, when it was asked for and is at most [`INLINE_RESULT_BYTES_MAX`].
        inline: Option<Bytes>,
    },
    /// The task has failed.
    Failed {
        /// The task.
        task: TaskId,
        /// Which try of it.
        attempt: Attempt,
        /// Why.
        failure: TaskFailure,
    },
    /// The task cannot run: these inputs were not where they were said to be. The worker has dropped the assignment.
    InputsMissing {
        /// The task.
        task: TaskId,
        /// Which try of it.
        attempt: Attempt,
        /// The inputs, each with the holders that were tried.
        missing: Vec<(TaskId, SmallVec<[WorkerId; 2]>)>,
    },
    /// This worker now holds a copy of an output that it fetched.
    Replica {
        /// The task whose output it is.
        task: TaskId,
        /// Which try of the task it came of.
        attempt: Attempt,
        /// How many [`ToWorker::Free`] this worker has heard since it registered: what a later one takes away is no copy.
        frees_heard: u32,
    },
    /// The answer to [`ToWorker::Steal`].
    StealAnswer {
        /// The task.
        task: TaskId,
        /// Which assignment of it.
        attempt: Attempt,
        /// Whether the assignment was dropped here; otherwise it has begun, and goes on.
        given: bool,
    },
    /// The task waits for others that it has submitted, and does not count against this worker's threads until
    /// [`FromWorker::Resumed`] or its end.
    Suspended {
        /// The task.
        task: TaskId,
        /// Which try of it.
        attempt: Attempt,
    },
    /// The task goes on.
    Resumed {
        /// The task.
        task: TaskId,
        /// Which try of it.
        attempt: Attempt,
    },
    /// The copy that was asked for by [`ToWorker::Acquire`] could not be had, or cannot be stored here.
    NotAcquired {
        /// The task whose output it is.
        task: TaskId,
    },
    /// How this worker is. Said when `paused` changes, and now and then.
    Status(WorkerStatus),
    /// This worker wants to leave: answered by [`ToWorker::Leave`] once nothing would be lost.
    Leaving,
}

/// How a worker is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Whether it begins nothing and takes nothing, because its memory is short.
    pub paused: bool,
    /// Bytes of outputs in memory.
    pub memory_bytes: u64,
    /// Bytes of outputs on disk.
    pub spilled_bytes: u64,
    /// How many threads still run tasks that were given up for their time.
    pub threads_abandoned: u32,
}
