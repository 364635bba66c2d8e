//! What is queued, on its way to the scheduler.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use starling_core::ids::{TaskId, Term, WorkerId};
use starling_core::spec::TaskSpec;
use starling_core::wire::FromClient;
use starling_runtime::mesh::{LinkError, LinkSender};
use tokio::sync::oneshot;

use super::{Client, IDS_MAX, State};
use crate::link::frame_with;

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
        placed: oneshot::Receiver<Option<(Vec<WorkerId>, u64)>>,
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
    /// Sends what is queued over a link of this term, until the link or the client is gone. Holds the client only while it sends,
    /// so that dropping the client ends this.
    pub(crate) async fn send_queued(client: Weak<Client>, link: LinkSender, term: Term) {
        loop {
            let Some(this) = client.upgrade() else { return };
            if link.is_closed() {
                return;
            }
            match this.next_to_send() {
                Next::End => return,
                Next::Wait => {
                    let queued = Arc::clone(&this.queued);
                    drop(this);
                    tokio::select! {
                        () = queued.notified() => {}
                        () = link.closed() => return,
                    }
                }
                Next::Send(queue) => {
                    let mut sending = Sending { client: &this, link: &link, term, failure: None };
                    sending.send_all(queue).await;
                    if let Some(failure) = sending.failure {
                        return this.could_not_send(&failure);
                    }
                    this.tidy();
                }
            }
        }
    }

    /// A link that is gone is opened anew; what cannot be said at all is a fault of ours.
    fn could_not_send(&self, failure: &SendError) {
        match failure {
            SendError::Link(LinkError::Closed) => {}
            failure => self.lose(&failure.to_string()),
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
}

/// A part of the queue on its way. All of it is accounted for, even if the link fails in the middle: then what was to be sent will
/// be said again.
struct Sending<'a> {
    client: &'a Client,
    link: &'a LinkSender,
    term: Term,
    failure: Option<SendError>,
}

impl Sending<'_> {
    async fn send_all(&mut self, queue: Vec<Queued>) {
        let mut tasks: Vec<TaskSpec> = Vec::new();
        let mut bytes = 0;
        let mut released = Vec::new();
        for queued in queue {
            match queued {
                Queued::Task(spec) => {
                    self.send_released(&mut released).await;
                    bytes += spec.payload.len();
                    tasks.push(spec);
                    if tasks.len() >= SUBMIT_TASKS || bytes >= SUBMIT_BYTES {
                        self.send_tasks(&mut tasks).await;
                        bytes = 0;
                    }
                }
                Queued::Release(task) => {
                    self.send_tasks(&mut tasks).await;
                    bytes = 0;
                    released.push(task);
                }
                Queued::Scatter { index, placed } => {
                    self.send_released(&mut released).await;
                    self.send_tasks(&mut tasks).await;
                    bytes = 0;
                    let (holders, nbytes) = placed.await.unwrap_or_default().unwrap_or_default();
                    let values = vec![(index, nbytes, holders)];
                    self.send_kept(&FromClient::Scattered { job: self.client.job, values }, index + 1).await;
                }
                Queued::Message(message) => {
                    self.send_released(&mut released).await;
                    self.send_tasks(&mut tasks).await;
                    bytes = 0;
                    self.send(&message).await;
                }
            }
        }
        self.send_released(&mut released).await;
        self.send_tasks(&mut tasks).await;
    }

    async fn send_tasks(&mut self, tasks: &mut Vec<TaskSpec>) {
        let Some(last) = tasks.last() else { return };
        let end = last.task.index + 1;
        let token = {
            let mut state = self.client.lock();
            let token = state.next_token();
            state.sent = end;
            state.submissions.insert(token, end);
            token
        };
        let (job, tasks) = (self.client.job, std::mem::take(tasks));
        self.send_kept(&FromClient::Submit { job, token, kinds: Vec::new(), tasks }, end).await;
    }

    async fn send_released(&mut self, released: &mut Vec<TaskId>) {
        for tasks in std::mem::take(released).chunks(IDS_MAX) {
            self.send(&FromClient::Release { tasks: tasks.to_vec() }).await;
        }
    }

    /// Sends what may have to be said again. With it, all numbers below `end` have been said.
    async fn send_kept(&mut self, message: &FromClient, end: u32) {
        match frame_with(self.term, message) {
            Ok(frame) => {
                self.client.lock().has_said(frame.clone(), end);
                self.send_frame(frame).await;
            }
            Err(error) => self.fail(error.into()),
        }
    }

    async fn send(&mut self, message: &FromClient) {
        match frame_with(self.term, message) {
            Ok(frame) => self.send_frame(frame).await,
            Err(error) => self.fail(error.into()),
        }
    }

    async fn send_frame(&mut self, frame: Bytes) {
        if self.failure.is_none()
            && let Err(error) = self.link.send(frame).await
        {
            self.fail(error.into());
        }
    }

    fn fail(&mut self, failure: SendError) {
        self.failure.get_or_insert(failure);
    }
}

#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("a message cannot be encoded: {0}")]
    Encode(#[from] postcard::Error),
}
