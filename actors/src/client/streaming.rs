//! Which tasks ran: recorded by the scheduler while this client asks for it.

use std::sync::atomic::{AtomicUsize, Ordering};

use starling_core::task_stream::StreamPage;
use starling_core::wire::{FromClient, ToClient};
use starling_runtime::task::ClientError;
use tokio::sync::oneshot;

use super::asking::another_answer;
use super::sending::Queued;
use super::{Client, Question};

/// How many recordings of this client there are: the scheduler records as long as there is one.
#[derive(Default)]
pub(crate) struct Recordings(AtomicUsize);

/// A page that was asked for.
pub(crate) struct AskedPage {
    token: u64,
    answer: oneshot::Receiver<ToClient>,
}

impl Client {
    /// Asks for what is recorded from this number on. The question has its place among what is submitted; nothing waits.
    pub(crate) fn ask_task_stream(&self, since: u64) -> Result<AskedPage, ClientError> {
        let (answer, answered) = oneshot::channel();
        let mut state = self.lock();
        state.check_not_lost()?;
        let token = state.next_token();
        let message = FromClient::TaskStream { token, since };
        state.answers.insert(token, Question { message: message.clone(), answer });
        state.queue.push_back(Queued::Message(message));
        drop(state);
        self.queued.notify_one();
        Ok(AskedPage { token, answer: answered })
    }

    pub(crate) async fn task_stream_page(&self, asked: AskedPage) -> Result<StreamPage, ClientError> {
        match asked.answer.await.map_err(|_| self.lost_error())? {
            ToClient::TaskStream { page, .. } => Ok(*page),
            _ => Err(another_answer()),
        }
    }

    /// Nobody waits for this page any more.
    pub(crate) fn forget_page(&self, asked: &AskedPage) {
        self.lock().answers.remove(&asked.token);
    }

    pub(crate) fn begin_recording(&self) {
        self.slots().get_or_init(Recordings::default).0.fetch_add(1, Ordering::Relaxed);
    }

    /// When nobody records any more, the scheduler does not either.
    pub(crate) fn end_recording(&self) {
        if self.slots().get_or_init(Recordings::default).0.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.say([FromClient::EndTaskStream]);
        }
    }
}
