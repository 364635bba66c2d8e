//! What is queued, on its way to the scheduler.

use std::sync::{Arc, Weak};

use starling_core::ids::{TaskId, WorkerId};
use starling_core::spec::TaskSpec;
use starling_core::wire::FromClient;
use starling_runtime::mesh::{LinkError, LinkSender};
use tokio::sync::oneshot;

use super::{Client, IDS_MAX, State};
use crate::link::encode_one;

/// How many tasks go in one submission.
const SUBMIT_TASKS: usize = 2048;
/// How many bytes of payloads go in one submission, unless one task has more.
const SUBMIT_BYTES: usize = 512 * 1024;

/// How many submitted tasks may be on their way, not accepted yet, before the rest of the queue waits: a scheduler that is
/// full answers late, and refuses a client that goes on nevertheless.
pub(super) const SENT_MAX: u32 = 256 * 1024;
/// How much of the queue is sent before it is looked at again.
pub(super) const TAKEN_MAX: usize = SUBMIT_TASKS;

/// What is still to be said.
pub(super) enum Queued {
    Task(TaskSpec),
    Release(TaskId),
    /// A value on its way to a worker. What was queued after it waits for it, since the scheduler must hear of tasks
    /// in the order of their numbers.
    Scatter {
        index: u32,
        placed: oneshot::Receiver<Option<(WorkerId, u64)>>,
    },
    Message(FromClient),
}

/// What [`Client::send_queued`] does next.
pub(super) enum Next {
    Send(Vec<Queued>),
    Wait,
    End,
}

impl State {
    /// Whether the scheduler has yet to accept so many tasks that it had better be sent no more.
    pub(super) fn is_far_ahead(&self) -> bool {
        self.sent.saturating_sub(self.accepted) >= SENT_MAX
    }
}

impl Client {
    /// Sends what is queued until the link or the client is gone. Holds the client only while it sends, so that
    /// dropping the client ends this.
    pub(crate) async fn send_queued(client: Weak<Client>, link: LinkSender) {
        loop {
            let Some(this) = client.upgrade() else { return };
            match this.next_to_send() {
                Next::End => return,
                Next::Wait => {
                    let queued = Arc::clone(&this.queued);
                    drop(this);
                    queued.notified().await;
                }
                Next::Send(queue) => {
                    if let Err(error) = this.send_all(queue, &link).await {
                        this.lose(&error.to_string());
                        return;
                    }
                }
            }
        }
    }

    /// What is to be sent now, a part of the queue at a time.
    pub(super) fn next_to_send(&self) -> Next {
        let mut state = self.lock();
        if state.lost.is_some() {
            return Next::End;
        }
        if let Some(message) = state.urgent.take() {
            return Next::Send(vec![Queued::Message(message)]);
        }
        if state.queue.is_empty() || state.is_far_ahead() {
            return Next::Wait;
        }
        let count = state.queue.len().min(TAKEN_MAX);
        Next::Send(state.queue.drain(..count).collect())
    }

    async fn send_all(&self, queue: Vec<Queued>, link: &LinkSender) -> Result<(), SendError> {
        let mut tasks: Vec<TaskSpec> = Vec::new();
        let mut bytes = 0;
        let mut released = Vec::new();
        for queued in queue {
            match queued {
                Queued::Task(spec) => {
                    self.send_released(&mut released, link).await?;
                    bytes += spec.payload.len();
                    tasks.push(spec);
                    if tasks.len() >= SUBMIT_TASKS || bytes >= SUBMIT_BYTES {
                        self.send_tasks(&mut tasks, link).await?;
                        bytes = 0;
                    }
                }
                Queued::Release(task) => {
                    self.send_tasks(&mut tasks, link).await?;
                    bytes = 0;
                    released.push(task);
                }
                Queued::Scatter { index, placed } => {
                    self.send_released(&mut released, link).await?;
                    self.send_tasks(&mut tasks, link).await?;
                    bytes = 0;
                    let at = placed.await.unwrap_or_default();
                    let (holders, nbytes) = at.map_or((Vec::new(), 0), |(worker, nbytes)| (vec![worker], nbytes));
                    let values = vec![(index, nbytes, holders)];
                    send(link, &FromClient::Scattered { job: self.job, values }).await?;
                }
                Queued::Message(message) => {
                    self.send_released(&mut released, link).await?;
                    self.send_tasks(&mut tasks, link).await?;
                    bytes = 0;
                    send(link, &message).await?;
                }
            }
        }
        self.send_released(&mut released, link).await?;
        self.send_tasks(&mut tasks, link).await
    }

    async fn send_tasks(&self, tasks: &mut Vec<TaskSpec>, link: &LinkSender) -> Result<(), SendError> {
        let Some(last) = tasks.last() else { return Ok(()) };
        let token = {
            let mut state = self.lock();
            let token = state.next_token();
            state.sent = last.task.index + 1;
            let sent = state.sent;
            state.submissions.insert(token, sent);
            token
        };
        let tasks = std::mem::take(tasks);
        send(link, &FromClient::Submit { job: self.job, token, kinds: Vec::new(), tasks }).await
    }

    async fn send_released(&self, released: &mut Vec<TaskId>, link: &LinkSender) -> Result<(), SendError> {
        for tasks in std::mem::take(released).chunks(IDS_MAX) {
            send(link, &FromClient::Release { tasks: tasks.to_vec() }).await?;
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("a message cannot be encoded: {0}")]
    Encode(#[from] postcard::Error),
}

async fn send(link: &LinkSender, message: &FromClient) -> Result<(), SendError> {
    Ok(link.send(encode_one(message)?).await?)
}
