//! A submitted task's result, to come.

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;
use std::sync::Arc;

use futures::future::BoxFuture;
use starling_core::failure::{FailureCause, TaskFailure};
use starling_core::graph::GraphError;
use starling_core::ids::{JobId, TaskId};
use starling_core::wire::SubmitError;

use crate::value::{CodecError, Data, Value};

/// Why a client does not get what it asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The task failed, or one that it needs. Submitting it again may help.
    #[error(transparent)]
    Failed(#[from] TaskFailure),
    /// The cluster did not take the task. Nothing of the submission was kept.
    #[error(transparent)]
    Rejected(#[from] SubmitError),
    /// An argument or result could not be encoded or decoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The link to the scheduler is lost, and the job with it. Connect again and submit again.
    #[error("the scheduler is gone: {0}; connect again and submit again")]
    SchedulerLost(String),
    /// The call's arguments are too large to go through the scheduler. Scatter them and pass the futures.
    #[error(
        "the arguments of {name} have {nbytes} bytes, which is too much to go through the scheduler: scatter large values \
         and pass their futures"
    )]
    TooLarge {
        /// The task's name.
        name: &'static str,
        /// The arguments' size in bytes.
        nbytes: usize,
    },
    /// An option of the call is out of its bounds. Nothing was submitted.
    #[error("the call of {name} cannot be submitted: {problem}")]
    BadOptions {
        /// The task's name.
        name: &'static str,
        /// Which bound, and what to do.
        problem: String,
    },
    /// Something that was asked for could be done only in part.
    #[error("not all of it could be done: {problem} ({moved} outputs were copied or moved)")]
    NotDone {
        /// How many outputs were copied or moved nevertheless.
        moved: u64,
        /// What was in the way.
        problem: String,
    },
    /// No worker has this name.
    #[error("there is no worker {name}: the cluster has {known}")]
    NoSuchWorker {
        /// The name.
        name: String,
        /// The workers that there are.
        known: String,
    },
    /// Several workers have this name.
    #[error("{name} may be any of {matching}: say which by the beginning of its node's id")]
    AmbiguousWorker {
        /// The name.
        name: String,
        /// The workers that it fits.
        matching: String,
    },
    /// The future is of another client, or, where only futures of this client's own job serve, of a detached job or a data
    /// set.
    #[error("{0} is a future of another client or of another job: get its result and use that")]
    ForeignFuture(TaskId),
    /// A call of a detached job takes a future, which is of another job. Nothing was submitted.
    #[error(
        "a detached job cannot take the future {0}, which is of another job: put both calls into one graph, or get the result \
         and pass that"
    )]
    FutureInDetached(TaskId),
    /// The cluster does not keep it, or may not: it goes when this client goes.
    #[error("it is not kept: {0}")]
    NotKept(String),
    /// The cluster may still keep it. Forget it again.
    #[error("it may still be kept: {0}")]
    NotForgotten(String),
    /// No detached job has this id: there never was one, or it was forgotten.
    #[error("there is no detached job {}", .0.0)]
    NoSuchJob(JobId),
    /// No data set has this name: none was published, or it was taken back.
    #[error("there is no data set {0}")]
    NoSuchDataSet(String),
    /// The tasks do not form a graph. Nothing was submitted.
    #[error(transparent)]
    Graph(GraphError),
    /// The output that was asked for is of no task of the graph. Nothing was submitted.
    #[error("the graph has no task {0}: add it, or correct the name")]
    NoSuchKey(String),
    /// An argument names a task of a graph, but the call is submitted by itself.
    #[error("the argument names the task {0} of a graph: add the call to the graph")]
    KeyOutsideGraph(String),
    /// A call of a detached job takes a delayed call. Nothing was submitted.
    #[error("the argument is the delayed call of {0}: put both into a graph, by `Graph::add`, and detach that")]
    DelayedOutsideGraph(String),
    /// A scattered value was taken by no worker.
    #[error("no worker took the value: {0}")]
    NotPlaced(String),
    /// The result's holders cannot be reached, nor can it be computed again.
    #[error("the result of task {0} could not be fetched from any of its holders")]
    Unreachable(TaskId),
}

/// How a future is, as far as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FutureStatus {
    /// Its task has not ended.
    Pending,
    /// Its output is there.
    Finished,
    /// Its task has failed, or was not taken.
    Error,
    /// Its task was given up.
    Cancelled,
    /// The client has lost its scheduler for good, so that nothing more will be known.
    Lost,
}

impl FutureStatus {
    /// The status of a task with this outcome, if there is one.
    pub fn of<T>(outcome: Option<Result<T, &ClientError>>) -> FutureStatus {
        match outcome {
            None => FutureStatus::Pending,
            Some(Ok(_)) => FutureStatus::Finished,
            Some(Err(ClientError::Failed(failure))) if failure.cause == FailureCause::Cancelled => {
                FutureStatus::Cancelled
            }
            Some(Err(ClientError::SchedulerLost(_))) => FutureStatus::Lost,
            Some(Err(_)) => FutureStatus::Error,
        }
    }

    /// Whether the task has ended, well or not.
    pub fn is_done(self) -> bool {
        self != FutureStatus::Pending
    }
}

impl fmt::Display for FutureStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FutureStatus::Pending => "pending",
            FutureStatus::Finished => "finished",
            FutureStatus::Error => "error",
            FutureStatus::Cancelled => "cancelled",
            FutureStatus::Lost => "lost",
        })
    }
}

/// Where a [`Future`] gets its result: the client that submitted the task.
pub trait ResultSource: Send + Sync + 'static {
    /// Nobody holds the future any more.
    fn release(&self, task: TaskId);
    /// The task is to be given up.
    fn cancel(&self, task: TaskId);
    /// The result, once there is one.
    fn result(&self, task: TaskId) -> BoxFuture<'static, Result<Value, ClientError>>;
    /// Resolves when the task has its output, without fetching it.
    fn finished(&self, task: TaskId) -> BoxFuture<'static, Result<(), ClientError>>;
    /// Resolves when the scheduler has taken the task.
    fn accepted(&self, task: TaskId) -> BoxFuture<'static, Result<(), ClientError>>;
    /// How the task is, as far as is known here.
    fn status(&self, task: TaskId) -> FutureStatus;
    /// If these are outputs that the cluster keeps, of whatever job: the address of the client that sees them.
    fn keeper(&self) -> Option<usize> {
        None
    }
}

/// A hold on a task's output: when the last one drops, the cluster may forget the output.
pub struct FutureInner {
    task: TaskId,
    source: Arc<dyn ResultSource>,
}

impl FutureInner {
    /// The task.
    pub fn task(&self) -> TaskId {
        self.task
    }

    /// Whether the result is to come from this client.
    pub fn is_of<S: ResultSource>(&self, source: &S) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(&self.source), source)
    }

    /// Whether it is an output that the cluster keeps, as this client sees it.
    pub fn is_kept_for<S: ResultSource>(&self, client: &S) -> bool {
        self.source.keeper() == Some(std::ptr::from_ref(client).addr())
    }
}

impl fmt::Debug for FutureInner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FutureInner({})", self.task)
    }
}

impl Drop for FutureInner {
    fn drop(&mut self) {
        self.source.release(self.task);
    }
}

/// The result of a submitted task, to come. It may be an argument of further calls before it is there.
///
/// The cluster keeps the output as long as a clone of the future is held; dropping the last one releases it, and
/// cancels the task if nothing else needs it. Awaiting the future itself waits until the scheduler has taken the task
/// and gives the future back; [`result`](Future::result) waits for the output.
pub struct Future<T> {
    pub(super) inner: Arc<FutureInner>,
    result: PhantomData<fn() -> T>,
}

impl<T> Future<T> {
    /// A hold on `task`, whose output is a `T`. Called by the client.
    pub fn new(task: TaskId, source: Arc<dyn ResultSource>) -> Future<T> {
        Future { inner: Arc::new(FutureInner { task, source }), result: PhantomData }
    }

    /// The task's id.
    pub fn task(&self) -> TaskId {
        self.inner.task
    }

    /// Whether the result is to come from this client.
    pub fn is_of<S: ResultSource>(&self, source: &S) -> bool {
        self.inner.is_of(source)
    }

    /// Whether it is an output that the cluster keeps, as this client sees it.
    pub fn is_kept_for<S: ResultSource>(&self, client: &S) -> bool {
        self.inner.is_kept_for(client)
    }

    /// How the task is, as far as its client has heard. Neither asks nor waits.
    pub fn status(&self) -> FutureStatus {
        self.inner.source.status(self.inner.task)
    }

    /// Whether the task has ended, well or not, as far as its client has heard.
    pub fn is_done(&self) -> bool {
        self.status().is_done()
    }

    /// Gives the task up, and every task that needs it, however many futures of them are held: each of those without an
    /// output by then fails with [`FailureCause::Cancelled`](starling_core::failure::FailureCause::Cancelled). Does not wait. A task
    /// that runs is not stopped; what it returns is dropped.
    pub fn cancel(&self) {
        self.inner.source.cancel(self.inner.task);
    }

    /// Waits until the task has its output, without fetching it. May be called often, and from several tasks.
    pub async fn wait(&self) -> Result<(), ClientError> {
        self.inner.source.finished(self.inner.task).await
    }

    /// The same result, for what does not know its type.
    pub fn untyped(&self) -> Future<Value> {
        Future { inner: Arc::clone(&self.inner), result: PhantomData }
    }

    /// The output as it comes, live or encoded: for who does not know its type, such as of a call that
    /// [`Call::from_json`](super::Call::from_json) has made.
    pub async fn value(&self) -> Result<Value, ClientError> {
        self.inner.source.result(self.inner.task).await
    }
}

impl<T: Data> Future<T> {
    /// The output: waits for it and fetches it. May be called often. Dropping the returned future gives up waiting, not the task.
    pub async fn result(&self) -> Result<T, ClientError> {
        self.shared().await.map(Arc::unwrap_or_clone)
    }

    /// The output, shared instead of copied when it is in this process.
    pub async fn shared(&self) -> Result<Arc<T>, ClientError> {
        Ok(self.value().await?.get()?)
    }
}

impl<T> Clone for Future<T> {
    fn clone(&self) -> Future<T> {
        Future { inner: Arc::clone(&self.inner), result: PhantomData }
    }
}

impl<T> fmt::Debug for Future<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Future({})", self.inner.task)
    }
}

impl<T: 'static> IntoFuture for Future<T> {
    type Output = Result<Future<T>, ClientError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            self.inner.source.accepted(self.inner.task).await?;
            Ok(self)
        })
    }
}
