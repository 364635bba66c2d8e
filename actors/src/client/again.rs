//! What a client does with its own tasks besides giving them up: to run failed ones again, to let some run to their end though
//! nobody holds them, and to forget all of them.

use starling_core::failure::{FailureCause, TaskFailure};
use starling_core::ids::TaskId;
use starling_core::wire::{FromClient, ResultAt, ToClient};
use starling_runtime::task::ClientError;
use tokio::sync::oneshot;

use super::asking::another_answer;
use super::sending::Queued;
use super::{Client, IDS_MAX, Question, State, UNSENT_FROM};

impl Client {
    /// Runs those of these tasks of this job again that have failed. Does not wait: from now on they have not ended.
    pub(crate) fn retry(&self, tasks: impl IntoIterator<Item = TaskId>) -> Result<(), ClientError> {
        let mut state = self.lock();
        state.check_not_lost()?;
        let failed: Vec<TaskId> = tasks.into_iter().filter(|task| state.may_be_retried(*task)).collect();
        for tasks in failed.chunks(IDS_MAX) {
            let token = state.next_token();
            for task in tasks {
                state.retrying.insert(task.index, token);
                if let Some(entry) = state.tasks.get_mut(&task.index) {
                    entry.outcome = None;
                }
            }
            let message = FromClient::Retry { token, tasks: tasks.to_vec() };
            // Nobody waits for the answer, but until it comes it is asked again over every other link.
            let (answer, _) = oneshot::channel();
            state.answers.insert(token, Question { message: message.clone(), answer });
            state.queue.push_back(Queued::Message(message));
        }
        drop(state);
        self.queued.notify_one();
        Ok(())
    }

    /// Lets a task of this job run to its end although its futures are dropped.
    pub(crate) fn fire_and_forget(&self, task: TaskId) {
        let mut state = self.lock();
        match state.tasks.get(&task.index).map(|entry| &entry.outcome) {
            Some(None) => {
                state.fired.insert(task.index, (task, false));
            }
            Some(Some(Err(error))) => tracing::error!(%task, %error, "a task that was fired and forgotten has failed"),
            Some(Some(Ok(_))) | None => {}
        }
    }

    /// Gives everything up that this client has submitted, and has the cluster forget the outputs too. Resolves when it has.
    pub(crate) async fn restart(&self) -> Result<(), ClientError> {
        self.cancel_job();
        {
            let mut state = self.lock();
            state.check_not_lost()?;
            let is_kept_on = |index: &u32| *index < UNSENT_FROM && !state.forgotten.contains(index);
            let all: Vec<u32> = state.tasks.keys().copied().filter(is_kept_on).collect();
            for index in all {
                let task = TaskId::new(self.job, index);
                let failure = TaskFailure { task, name: String::new(), node: None, cause: FailureCause::Cancelled };
                state.retrying.remove(&index);
                state.settle(index, Err(ClientError::Failed(failure)));
                // A task that was fired is gone with that.
                if state.tasks.contains_key(&index) {
                    state.forgotten.insert(index);
                    state.queue.push_back(Queued::Release(task));
                }
            }
            state.watched.values_mut().for_each(|watched| watched.borrowed = None);
        }
        self.queued.notify_one();
        // Whatever is answered is answered after all that was said before.
        match self.ask(|token| FromClient::WhoHas { token, tasks: Vec::new() }).await? {
            ToClient::WhoHas { .. } => Ok(()),
            _ => Err(another_answer()),
        }
    }
}

impl State {
    /// Why a task cannot be an argument: it was never sent, or is forgotten.
    pub(super) fn unusable(&self, task: TaskId) -> Option<ClientError> {
        if self.forgotten.contains(&task.index) {
            return self.failure_of(task);
        }
        self.unsent_failure(task)
    }

    fn failure_of(&self, task: TaskId) -> Option<ClientError> {
        self.tasks.get(&task.index)?.outcome.as_ref()?.as_ref().err().map(|error| (**error).clone())
    }

    fn may_be_retried(&self, task: TaskId) -> bool {
        let is_known = task.index < UNSENT_FROM && !self.forgotten.contains(&task.index);
        is_known && matches!(self.failure_of(task), Some(ClientError::Failed(_)))
    }

    /// The scheduler has had tasks run again: what is told from now on is new.
    pub(super) fn is_retried(&mut self, token: u64) {
        if !self.retrying.is_empty() {
            self.retrying.retain(|_, of| *of != token);
        }
    }

    /// Whether a task whose futures are dropped is to run on nevertheless.
    pub(super) fn runs_on(&mut self, index: u32) -> bool {
        self.fired.get_mut(&index).map(|(_, is_dropped)| *is_dropped = true).is_some()
    }

    /// A task has ended: if it was fired and forgotten, nothing holds it any more.
    pub(super) fn fired_has_ended(&mut self, index: u32, outcome: &Result<ResultAt, ClientError>) {
        let Some((task, is_dropped)) = self.fired.remove(&index) else { return };
        if let Err(error) = outcome {
            tracing::error!(%task, %error, "a task that was fired and forgotten has failed");
        }
        if is_dropped {
            self.let_go(task);
        }
    }

    /// Nobody holds this task's result any more. Says whether there is something to send.
    pub(super) fn let_go(&mut self, task: TaskId) -> bool {
        self.tasks.remove(&task.index);
        self.cancelled.remove(&task.index);
        self.retrying.remove(&task.index);
        let is_forgotten = self.forgotten.remove(&task.index);
        let is_said = task.index < UNSENT_FROM && self.lost.is_none() && !is_forgotten;
        if is_said {
            self.queue.push_back(Queued::Release(task));
        }
        is_said
    }
}
