//! What the cluster keeps without this client: what there is, and the outcomes of kept tasks, whoever has submitted them.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use starling_core::failure::{FailureCause, TaskFailure};
use starling_core::ids::TaskId;
use starling_core::wire::{FromClient, JobSummary, KeptName, ResultAt, ToClient};
use starling_runtime::task::{ClientError, FutureStatus, ResultSource};
use starling_runtime::value::Value;

use super::asking::another_answer;
use super::fetching::Held;
use super::sending::Queued;
use super::{Client, Entry, IDS_MAX, State, UNSENT_FROM};

/// A kept task.
#[derive(Default)]
pub(super) struct Watched {
    pub(super) entry: Entry,
    /// How many futures there are of it that were asked for apart.
    holds: usize,
    /// The task of the client's own job that has its output, for those that take it as an argument.
    pub(super) borrowed: Option<u32>,
}

/// Where futures of kept tasks get their results. Not the client itself, so that they are told from those of its own job.
pub(crate) struct KeptResults(pub(crate) Arc<Client>);

impl ResultSource for KeptResults {
    fn release(&self, task: TaskId) {
        let mut state = self.0.lock();
        let Some(watched) = state.watched.get_mut(&task) else { return };
        watched.holds = watched.holds.saturating_sub(1);
        if watched.holds == 0
            && let Some(borrowed) = state.watched.remove(&task).and_then(|watched| watched.borrowed)
        {
            state.let_go(TaskId::new(self.0.job, borrowed));
            drop(state);
            self.0.queued.notify_one();
        }
    }

    fn cancel(&self, task: TaskId) {
        tracing::debug!(%task, "a kept task is not given up by those who only watch it");
    }

    fn result(&self, task: TaskId) -> BoxFuture<'static, Result<Value, ClientError>> {
        let client = Arc::clone(&self.0);
        async move { client.fetch(Held::Kept, task).await }.boxed()
    }

    fn finished(&self, task: TaskId) -> BoxFuture<'static, Result<(), ClientError>> {
        let client = Arc::clone(&self.0);
        async move { client.settled(Held::Kept, task).await.map(drop) }.boxed()
    }

    fn accepted(&self, _: TaskId) -> BoxFuture<'static, Result<(), ClientError>> {
        std::future::ready(Ok(())).boxed()
    }

    fn status(&self, task: TaskId) -> FutureStatus {
        let state = self.0.lock();
        let outcome = state.watched.get(&task).and_then(|watched| watched.entry.outcome.as_ref());
        FutureStatus::of(outcome.map(|outcome| outcome.as_ref().map_err(AsRef::as_ref)))
    }

    fn keeper(&self) -> Option<usize> {
        Some(Arc::as_ptr(&self.0).addr())
    }
}

impl Client {
    /// All jobs, by their ids.
    pub(crate) async fn jobs(&self) -> Result<Vec<JobSummary>, ClientError> {
        match self.ask(|token| FromClient::Jobs { token }).await? {
            ToClient::Jobs { jobs, .. } => Ok(jobs),
            _ => Err(another_answer()),
        }
    }

    /// The wanted tasks of what is kept as this, if anything is.
    pub(crate) async fn kept(&self, name: KeptName) -> Result<Option<Vec<TaskId>>, ClientError> {
        match self.ask(|token| FromClient::Kept { token, name }).await? {
            ToClient::Kept { tasks, .. } => Ok(tasks),
            _ => Err(another_answer()),
        }
    }

    /// Has tasks of this client's job kept.
    pub(crate) async fn keep_tasks(&self, name: KeptName, tasks: &[TaskId]) -> Result<(), ClientError> {
        for task in tasks {
            if task.index >= UNSENT_FROM {
                return Err(self.unsent_failure_of(*task).unwrap_or(ClientError::ForeignFuture(*task)));
            }
            // What the scheduler does not know yet, it cannot keep.
            self.accepted(*task).await?;
        }
        let wanted = tasks.iter().map(|task| task.index).collect();
        let problem = self.done(|token| FromClient::Keep { token, name, job: self.job, wanted }).await?;
        if problem.is_empty() { Ok(()) } else { Err(ClientError::NotKept(problem)) }
    }

    /// Has nothing kept as this any longer; tells whether anything was.
    pub(crate) async fn forget(&self, name: KeptName) -> Result<bool, ClientError> {
        if self.kept(name.clone()).await?.is_none() {
            return Ok(false);
        }
        let forget = name.clone();
        let problem = self.done(|token| FromClient::Forget { token, name: forget }).await?;
        // When it has to be asked twice, because a scheduler was lost, it may be gone by the second time.
        if problem.is_empty() || self.kept(name).await?.is_none() {
            return Ok(true);
        }
        Err(ClientError::NotForgotten(problem))
    }

    /// Asks for something to be done; gives what could not be.
    async fn done(&self, message: impl FnOnce(u64) -> FromClient) -> Result<String, ClientError> {
        match self.ask(message).await? {
            ToClient::Done { problem, .. } => Ok(problem),
            _ => Err(another_answer()),
        }
    }

    /// Hears of these tasks' outcomes from now on, until as many futures of each are released.
    pub(crate) fn watch(&self, tasks: &[TaskId]) -> Result<(), ClientError> {
        let mut state = self.lock();
        state.check_not_lost()?;
        for task in tasks {
            state.watched.entry(*task).or_default().holds += 1;
        }
        let messages = tasks.chunks(IDS_MAX).map(|tasks| FromClient::Watch { tasks: tasks.to_vec() });
        state.queue.extend(messages.map(Queued::Message));
        drop(state);
        self.queued.notify_one();
        Ok(())
    }
}

impl State {
    pub(super) fn settle_watched(&mut self, task: TaskId, outcome: &Result<ResultAt, ClientError>) {
        if let Some(watched) = self.watched.get_mut(&task) {
            watched.entry.settle(outcome.clone());
        }
    }

    /// Whether this answers that a task was to be watched which is not kept any more, and so says nothing of one of this
    /// client's own job. A value that is lost is told once more.
    pub(super) fn has_asked_in_vain(&self, failure: &TaskFailure) -> bool {
        let is_unsettled = self.watched.get(&failure.task).is_some_and(|watched| watched.entry.outcome.is_none());
        is_unsettled && failure.cause == FailureCause::DataLost { input: failure.task }
    }

    pub(super) fn lose_watched(&mut self, error: &ClientError) {
        for watched in self.watched.values_mut().filter(|watched| watched.entry.outcome.is_none()) {
            watched.entry.settle(Err(error.clone()));
        }
    }

    /// What is watched and not settled is to be told by another scheduler, or over another link.
    pub(super) fn watch_again(&mut self) -> Vec<FromClient> {
        self.queue.retain(|queued| !matches!(queued, Queued::Message(FromClient::Watch { .. })));
        let open = self.watched.iter().filter(|(_, watched)| watched.entry.outcome.is_none());
        let open: Vec<TaskId> = open.map(|(task, _)| *task).collect();
        open.chunks(IDS_MAX).map(|tasks| FromClient::Watch { tasks: tasks.to_vec() }).collect()
    }
}
