//! Waiting for outcomes, and fetching the outputs from their holders.

use bytes::Bytes;
use smallvec::SmallVec;
use starling_core::failure::{FailureCause, TaskFailure};
use starling_core::ids::{TaskId, WorkerId};
use starling_core::wire::{FromClient, ResultAt};
use starling_runtime::task::ClientError;
use starling_runtime::value::{Encoded, Value};
use tokio::sync::oneshot;

use super::sending::Queued;
use super::{Client, Entry, State};

/// As what a task's outcome is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// A task of the client's job.
    Own,
    /// A kept one, of whatever job.
    Kept,
}

impl State {
    fn held(&mut self, held: Held, task: TaskId) -> Option<&mut Entry> {
        match held {
            Held::Own => self.tasks.get_mut(&task.index),
            Held::Kept => self.watched.get_mut(&task).map(|watched| &mut watched.entry),
        }
    }
}

impl Client {
    /// Waits until the task is settled.
    pub(super) async fn settled(&self, held: Held, task: TaskId) -> Result<ResultAt, ClientError> {
        loop {
            let waiting = {
                let mut state = self.lock();
                let lost = state.check_not_lost();
                // Nobody holds it any more, and so nobody waits.
                let Some(entry) = state.held(held, task) else { return Err(ClientError::Unreachable(task)) };
                if let Some(outcome) = &entry.outcome {
                    return outcome.clone().map_err(|error| *error);
                }
                lost?;
                let (told, waiting) = oneshot::channel();
                // Those who have given up waiting are weeded out now and then.
                if entry.waiters.len() >= 8 && entry.waiters.len().is_power_of_two() {
                    entry.waiters.retain(|waiter| !waiter.is_closed());
                }
                entry.waiters.push(told);
                waiting
            };
            // An error says that the waiters were dropped, and then there is an outcome.
            let _ = waiting.await;
        }
    }

    pub(super) async fn fetch(&self, held: Held, task: TaskId) -> Result<Value, ClientError> {
        /// A result that moves from worker to worker this often is not going to be had.
        const TRIES: usize = 20;
        for _ in 0..TRIES {
            let holders = match self.settled(held, task).await? {
                ResultAt::Inline(bytes) => return decode_inline(task, &bytes),
                ResultAt::Workers(holders) => holders,
            };
            if let Some(encoded) = self.fetch_from(task, &holders).await {
                return Ok(Value::Encoded(encoded));
            }
            {
                let mut state = self.lock();
                state.check_not_lost()?;
                let Some(entry) = state.held(held, task) else { continue };
                // Unless the scheduler has said something newer meanwhile, what was tried is out of date: it is asked
                // for what is true instead.
                if !matches!(&entry.outcome, Some(Ok(ResultAt::Workers(now))) if *now == holders) {
                    continue;
                }
                entry.outcome = None;
                state.queue.push_back(Queued::Message(FromClient::Unreachable { task, holders: holders.to_vec() }));
                if held == Held::Kept {
                    // It may have been forgotten meanwhile: then this is answered, and that is not.
                    state.queue.push_back(Queued::Message(FromClient::Watch { tasks: vec![task] }));
                }
            }
            self.queued.notify_one();
        }
        Err(ClientError::Unreachable(task))
    }

    async fn fetch_from(&self, task: TaskId, holders: &SmallVec<[WorkerId; 2]>) -> Option<Encoded> {
        let workers = self.workers();
        for info in holders.iter().filter_map(|holder| workers.get(holder)) {
            let mut found = None;
            let fetched = self.mesh.fetch(info.node, &[task], &mut |_, block| found = block).await;
            if let Err(error) = fetched {
                tracing::warn!(%task, node = %info.node, %error, "a result could not be fetched");
            }
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

pub(super) fn decode_inline(task: TaskId, bytes: &Bytes) -> Result<Value, ClientError> {
    postcard::from_bytes::<Encoded>(bytes).map(Value::Encoded).map_err(|error| {
        let cause = FailureCause::Codec { message: format!("the result came damaged: {error}") };
        ClientError::Failed(TaskFailure { task, name: String::new(), node: None, cause })
    })
}
