//! What is said on a control link: how it opens, and batches of messages both ways, each frame with the term that it belongs to.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use starling_core::coordination::SessionId;
use starling_core::ids::{ClientId, NodeId, Term, WorkerId};
use starling_core::wire::{KindInfo, WorkerInfo};
use starling_runtime::mesh::{LinkReceiver, LinkSender};
use tokio::sync::Notify;

/// How many bytes of messages are gathered in one frame at most, unless one message is larger. Small against the caches, so
/// that a frame is read and decoded where it was just written.
const FRAME_BYTES: usize = 64 * 1024;

/// About how many bytes a message takes.
const MESSAGE_BYTES: usize = 64;

/// How many messages of a frame are decoded at a time.
const DECODED_MAX: usize = 256;

/// How many messages wait for a peer that does not read before its link is given up.
pub(crate) const OUTBOX_MESSAGES_MAX: usize = 4_000_000;

/// The first thing on a link, said by the one who opened it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Hello {
    /// To the scheduler: a worker wants to register. It must hold the same tasks as the scheduler.
    Worker { info: WorkerInfo, kinds: Vec<KindInfo> },
    /// To the scheduler: a client wants to submit.
    Client { name: String },
    /// To the scheduler: a client wants to coordinate with others. `is_new` unless it was ever told that its session is open.
    Session { session: SessionId, is_new: bool },
    /// To any node but a client: let us tell each other what we know of data locations. Has no answer.
    Registry,
    /// To a node that may hold the scheduler: requests of the quorum's follow, each answered.
    Quorum,
    /// To any node: this node holds the scheduler in this term. Has no answer.
    Leads { term: Term },
    /// To any node but a client: how is the cluster, as far as you know? Answered by [`NodeStatus`](crate::status::NodeStatus).
    Status,
    /// To any node but a client: messages to actors follow.
    Actors,
    /// To the scheduler's node: who holds which name, and questions about that.
    Directory,
}

/// The answer to a [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Welcome {
    Worker { worker: WorkerId, term: Term },
    Client { client: ClientId, term: Term, kinds: Vec<KindInfo> },
    Session { term: Term },
    Refused(Refusal),
    Directory { term: Term },
}

impl Welcome {
    /// The term of the scheduler that says it.
    pub(crate) fn term(&self) -> Option<Term> {
        match self {
            Welcome::Worker { term, .. }
            | Welcome::Client { term, .. }
            | Welcome::Session { term }
            | Welcome::Directory { term } => Some(*term),
            Welcome::Refused(_) => None,
        }
    }
}

/// Why a link was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The node holds no scheduler now.
    #[error("the node does not hold the scheduler")]
    NotScheduler {
        /// Who does, as far as it knows.
        leader: Option<(Term, NodeId)>,
    },
    /// Scheduler and worker were not built from the same source.
    #[error(
        "the worker's tasks differ from the scheduler's: only the worker has [{}], only the scheduler has [{}]; start \
         both from the same program and version",
        .only_worker.join(", "), .only_scheduler.join(", ")
    )]
    TasksDiffer {
        /// Names and signatures that the scheduler lacks.
        only_worker: Vec<String>,
        /// Names and signatures that the worker lacks.
        only_scheduler: Vec<String>,
    },
    /// The hello was not one, or said something of another node.
    #[error("the node did not introduce itself in a way that is understood here")]
    BadHello,
}

/// The difference between a worker's tasks and ours, if there is one.
pub(crate) fn compare_kinds(theirs: &[KindInfo], ours: &[KindInfo]) -> Result<(), Refusal> {
    let only_in = |these: &[KindInfo], those: &[KindInfo]| -> Vec<String> {
        let known: std::collections::BTreeSet<_> = those.iter().map(|kind| kind.kind).collect();
        let missing = these.iter().filter(|kind| !known.contains(&kind.kind));
        missing.map(|kind| format!("{} {}", kind.name, kind.signature)).collect()
    };
    let (only_worker, only_scheduler) = (only_in(theirs, ours), only_in(ours, theirs));
    if only_worker.is_empty() && only_scheduler.is_empty() {
        return Ok(());
    }
    Err(Refusal::TasksDiffer { only_worker, only_scheduler })
}

/// A message in a frame of its own.
pub(crate) fn encode_one<M: Serialize>(message: &M) -> Result<Bytes, postcard::Error> {
    postcard::to_stdvec(message).map(Bytes::from)
}

/// Reads frames of gathered messages.
pub(crate) struct MessageReceiver<M> {
    frames: LinkReceiver,
    term: Term,
    /// What is not decoded yet of the last frame.
    rest: Bytes,
    messages: PhantomData<fn() -> M>,
}

/// A peer sent what is not to be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadFrame {
    #[error("node {peer} sent a frame that is no message: {source}")]
    NoMessage { peer: NodeId, source: postcard::Error },
    #[error("node {peer} sent a frame of term {}, on a link of term {}", .said.number(), .term.number())]
    OtherTerm { peer: NodeId, said: Term, term: Term },
}

/// A frame's beginning: the term that its messages belong to.
fn frame_of(term: Term, capacity: usize) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_extend(&term, Vec::with_capacity(capacity))
}

/// A message of this term in a frame of its own.
pub(crate) fn frame_with<M: Serialize>(term: Term, message: &M) -> Result<Bytes, postcard::Error> {
    postcard::to_extend(message, frame_of(term, MESSAGE_BYTES)?).map(Bytes::from)
}

impl<M: DeserializeOwned> MessageReceiver<M> {
    /// Reads what belongs to this term: a frame of another one is of a scheduler that is deposed, or for one.
    pub(crate) fn new(frames: LinkReceiver, term: Term) -> MessageReceiver<M> {
        MessageReceiver { frames, term, rest: Bytes::new(), messages: PhantomData }
    }

    /// The next messages; `None` when the link is closed. Cancel safe.
    pub(crate) async fn recv(&mut self, peer: NodeId) -> Result<Option<Vec<M>>, BadFrame> {
        if self.rest.is_empty() {
            let Some(frame) = self.frames.recv().await else { return Ok(None) };
            let (said, messages) =
                postcard::take_from_bytes::<Term>(&frame).map_err(|source| BadFrame::NoMessage { peer, source })?;
            if said != self.term {
                return Err(BadFrame::OtherTerm { peer, said, term: self.term });
            }
            self.rest = frame.slice_ref(messages);
        }
        let mut messages = Vec::with_capacity(DECODED_MAX.min(self.rest.len()));
        let mut rest: &[u8] = &self.rest;
        while !rest.is_empty() && messages.len() < DECODED_MAX {
            let (message, after) =
                postcard::take_from_bytes(rest).map_err(|source| BadFrame::NoMessage { peer, source })?;
            messages.push(message);
            rest = after;
        }
        let decoded = self.rest.len() - rest.len();
        self.rest.advance(decoded);
        Ok(Some(messages))
    }
}

/// Messages on their way to a peer. What gathers while a frame is written goes into the next frame.
pub(crate) struct Outbox<M> {
    shared: Arc<OutboxShared<M>>,
}

struct OutboxShared<M> {
    state: Mutex<OutboxState<M>>,
    changed: Notify,
}

struct OutboxState<M> {
    gathered: Vec<M>,
    open: bool,
}

/// The peer is gone, or does not read. Nothing more will reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer is gone, or does not read what it is sent")]
pub(crate) struct OutboxClosed;

impl<M: Serialize + Send + 'static> Outbox<M> {
    /// An outbox that only gathers until it is started.
    pub(crate) fn new() -> Outbox<M> {
        let state = OutboxState { gathered: Vec::new(), open: true };
        Outbox { shared: Arc::new(OutboxShared { state: Mutex::new(state), changed: Notify::new() }) }
    }

    /// Writes to `link` in a task of its own, on the current tokio runtime, until the outbox is closed.
    pub(crate) fn start(&self, link: LinkSender, term: Term) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            if let Err(error) = write(&shared, &link, term).await {
                tracing::debug!(%error, "an outbox ends");
            }
            shared.close();
        });
    }

    /// Adds messages. Fails, and closes the outbox, if the peer has let too many gather.
    pub(crate) fn send(&self, messages: impl IntoIterator<Item = M>) -> Result<(), OutboxClosed> {
        let mut state = self.shared.lock();
        if !state.open {
            return Err(OutboxClosed);
        }
        let was_empty = state.gathered.is_empty();
        state.gathered.extend(messages);
        let overfull = state.gathered.len() > OUTBOX_MESSAGES_MAX;
        drop(state);
        if overfull {
            tracing::warn!("a peer does not read: its link is given up");
            self.shared.close();
            return Err(OutboxClosed);
        }
        if was_empty {
            self.shared.changed.notify_one();
        }
        Ok(())
    }

    /// Ends the writing; what is gathered is dropped.
    pub(crate) fn close(&self) {
        self.shared.close();
    }
}

impl<M> Clone for Outbox<M> {
    fn clone(&self) -> Outbox<M> {
        Outbox { shared: Arc::clone(&self.shared) }
    }
}

impl<M> OutboxShared<M> {
    fn lock(&self) -> std::sync::MutexGuard<'_, OutboxState<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        let mut state = self.lock();
        state.open = false;
        state.gathered = Vec::new();
        drop(state);
        self.changed.notify_one();
    }
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("the link is closed")]
    Closed,
    #[error("a message cannot be encoded: {0}")]
    Encode(#[from] postcard::Error),
}

async fn write<M: Serialize>(shared: &OutboxShared<M>, link: &LinkSender, term: Term) -> Result<(), WriteError> {
    let mut batch = Vec::new();
    loop {
        {
            let mut state = shared.lock();
            if !state.open {
                return Ok(());
            }
            std::mem::swap(&mut state.gathered, &mut batch);
        }
        if batch.is_empty() {
            shared.changed.notified().await;
            continue;
        }
        let mut frame = frame_of(term, FRAME_BYTES.min(batch.len() * MESSAGE_BYTES))?;
        let mut is_empty = true;
        for message in batch.drain(..) {
            frame = postcard::to_extend(&message, frame)?;
            is_empty = frame.len() >= FRAME_BYTES;
            if is_empty {
                let full = std::mem::replace(&mut frame, frame_of(term, FRAME_BYTES)?);
                link.send(full.into()).await.map_err(|_| WriteError::Closed)?;
            }
        }
        if !is_empty {
            link.send(frame.into()).await.map_err(|_| WriteError::Closed)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use starling_core::ids::KindId;

    use super::*;

    fn kind(number: u64, name: &str) -> KindInfo {
        KindInfo { kind: KindId(number), name: name.into(), signature: "() -> ()".into() }
    }

    #[test]
    fn differing_tasks_are_named_on_both_sides() {
        let refusal = compare_kinds(&[kind(1, "a"), kind(2, "b")], &[kind(2, "b"), kind(3, "c")]).unwrap_err();
        assert!(refusal.to_string().contains("only the worker has [a () -> ()], only the scheduler has [c () -> ()]"));
        assert_eq!(compare_kinds(&[kind(1, "a")], &[kind(1, "a")]), Ok(()));
    }
}
