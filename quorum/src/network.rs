//! How requests get to other voters.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use openraft::error::{
    InstallSnapshotError, NetworkError, PayloadTooLarge, RPCError, RaftError, RemoteError, SnapshotMismatch,
    Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::{EmptyNode, SnapshotSegmentId};
use starling_core::ids::NodeId;
use tokio::time::{Instant, timeout};

use crate::error::TransportError;
use crate::lease::Lease;
use crate::raft::{AppendRequest, AppendResponse, SnapshotRequest, SnapshotResponse, Types, VoteRequest, VoteResponse};
use crate::store::Store;
use crate::wire::{self, Answer, Ask, Refusal};

/// How requests get to other nodes. The other end gives them to [`Quorum::answer`](crate::Quorum::answer), with the id of the
/// node that has sent them, and sends back what that says.
pub trait Transport: Send + Sync + 'static {
    /// Sends a request and waits for the answer. It need not give up on its own: who calls drops what takes too long.
    fn call(&self, to: NodeId, request: Bytes) -> BoxFuture<'static, Result<Bytes, TransportError>>;
}

/// Sends requests, and remembers what came of them.
pub(crate) struct Wire {
    pub(crate) store: Arc<Store>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) lease: Lease,
    /// For how long a small request may take.
    pub(crate) patience: Duration,
    /// How long to wait before a node is tried again that could not be reached.
    pub(crate) pause: Duration,
    /// What a person should know of the others.
    pub(crate) problem: Mutex<Option<(Instant, String)>>,
}

/// Why there is no answer.
pub(crate) enum CallError {
    TooLarge,
    TimedOut(Duration),
    Failed(String),
}

/// Bytes a second that a large request is given time for.
const RATE: u64 = 1024 * 1024;

impl Wire {
    /// Asks, and waits for as long as the size allows.
    pub(crate) async fn ask(&self, to: NodeId, ask: Ask) -> Result<Answer, CallError> {
        let cluster = self.store.promise().cluster;
        let cluster = cluster.ok_or_else(|| CallError::Failed("this node belongs to no cluster yet".to_owned()))?;
        let request = wire::encode_request(cluster, ask).ok_or(CallError::TooLarge)?;
        let patience = self.patience + Duration::from_secs(request.len() as u64 / RATE);
        let answer = timeout(patience, self.transport.call(to, request)).await;
        let answer = answer.map_err(|_| CallError::TimedOut(patience))?;
        let answer = answer.map_err(|error| CallError::Failed(error.to_string()))?;
        match wire::decode_answer(&answer) {
            Some(Answer::Refused(refusal)) => {
                self.note_refusal(to, &refusal);
                Err(CallError::Failed(format!("refused: {refusal:?}")))
            }
            Some(answer) => Ok(answer),
            None => Err(CallError::Failed("the answer cannot be read".to_owned())),
        }
    }

    fn note_refusal(&self, by: NodeId, refusal: &Refusal) {
        let text = match refusal {
            Refusal::OtherCluster => {
                format!("node {by} belongs to another cluster: start it with another --data-dir to have it in this one")
            }
            Refusal::Malformed => format!("node {by} does not understand this node: are they of the same version?"),
            Refusal::NoCluster | Refusal::Stopped => return,
        };
        self.note(text);
    }

    /// Remembers what a person should know.
    pub(crate) fn note(&self, text: String) {
        let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        if problem.as_ref().is_none_or(|(_, last)| *last != text) {
            tracing::warn!("{text}");
        }
        *problem = Some((Instant::now(), text));
    }
}

/// Makes a [`Peer`] of a node.
pub(crate) struct Peers(pub(crate) Arc<Wire>);

/// One other node.
pub(crate) struct Peer {
    wire: Arc<Wire>,
    node: NodeId,
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, node: NodeId, _: &EmptyNode) -> Peer {
        Peer { wire: Arc::clone(&self.0), node }
    }
}

type Rpc<E> = RPCError<NodeId, EmptyNode, RaftError<NodeId, E>>;

fn failed<E: std::error::Error>(error: CallError) -> Rpc<E> {
    let text = match error {
        CallError::TooLarge => "the request is too large".to_owned(),
        CallError::TimedOut(after) => format!("no answer in {after:?}"),
        CallError::Failed(text) => text,
    };
    // All of these are tried again after a pause, not at once.
    RPCError::Unreachable(Unreachable::new(&TransportError(text)))
}

fn odd<E: std::error::Error>() -> Rpc<E> {
    RPCError::Network(NetworkError::new(&TransportError("the answer is to another question".to_owned())))
}

impl RaftNetwork<Types> for Peer {
    fn append_entries(
        &mut self,
        request: AppendRequest,
        _: RPCOption,
    ) -> impl Future<Output = Result<AppendResponse, Rpc<openraft::error::Infallible>>> + Send {
        let (term, count, sent) = (request.vote.leader_id.term, request.entries.len() as u64, Instant::now());
        async move {
            let answer = match self.wire.ask(self.node, Ask::Append(request)).await {
                Ok(Answer::Append(answer)) => answer,
                Ok(_) => return Err(odd()),
                Err(CallError::TooLarge) if count > 1 => {
                    return Err(PayloadTooLarge::new_entries_hint(count / 2).into());
                }
                Err(error) => return Err(failed(error)),
            };
            if !matches!(answer, AppendResponse::HigherVote(_)) {
                self.wire.lease.answered(term, self.node, sent);
            }
            Ok(answer)
        }
    }

    async fn install_snapshot(
        &mut self,
        request: SnapshotRequest,
        _: RPCOption,
    ) -> Result<SnapshotResponse, Rpc<InstallSnapshotError>> {
        let (id, offset) = (request.meta.snapshot_id.clone(), request.offset);
        match self.wire.ask(self.node, Ask::Snapshot(request)).await {
            Ok(Answer::Snapshot(answer)) => Ok(answer),
            Ok(Answer::SnapshotMismatch) => {
                let at = |offset| SnapshotSegmentId { id: id.clone(), offset };
                let mismatch = SnapshotMismatch { expect: at(0), got: at(offset) };
                let source = RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch));
                Err(RPCError::RemoteError(RemoteError::new(self.node, source)))
            }
            Ok(_) => Err(odd()),
            Err(error) => Err(failed(error)),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest,
        _: RPCOption,
    ) -> Result<VoteResponse, Rpc<openraft::error::Infallible>> {
        match self.wire.ask(self.node, Ask::Vote(request)).await {
            Ok(Answer::Vote(answer)) => Ok(answer),
            Ok(_) => Err(odd()),
            Err(error) => Err(failed(error)),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(self.wire.pause))
    }
}
