//! What voters say to one another, and what is believed of it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use starling_core::ids::NodeId;

use crate::raft::{
    AppendRequest, AppendResponse, LogId, SnapshotRequest, SnapshotResponse, Vote, VoteRequest, VoteResponse,
};
use crate::store::ClusterId;

/// How many bytes a request or an answer may have.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How many bytes a ledger may have that is taken over from another node.
pub(crate) const SNAPSHOT_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// The version of these messages. Another one is refused.
const PROTOCOL: u32 = 2;

#[derive(Serialize, Deserialize)]
pub(crate) struct Request {
    protocol: u32,
    pub(crate) cluster: ClusterId,
    pub(crate) ask: Ask,
}

#[derive(Serialize, Deserialize)]
pub(crate) enum Ask {
    /// Entries for the log.
    Append(AppendRequest),
    /// Vote for me.
    Vote(VoteRequest),
    /// A piece of a snapshot.
    Snapshot(SnapshotRequest),
    /// The leader of this vote leads, as long as a quorum answers.
    Beat {
        vote: Vote,
        /// Whether one has, lately.
        has_quorum: bool,
    },
    /// Would I get your vote? My log ends here. Nothing changes by it.
    Poll(Option<LogId>),
}

#[derive(Serialize, Deserialize)]
pub(crate) enum Answer {
    Append(AppendResponse),
    Vote(VoteResponse),
    Snapshot(SnapshotResponse),
    /// The pieces must come again from the first one.
    SnapshotMismatch,
    Beat(AppendResponse),
    Poll(bool),
    Refused(Refusal),
}

/// Why there is no other answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Refusal {
    /// The request could not be read, or says what cannot be.
    Malformed,
    /// The node belongs to another cluster.
    OtherCluster,
    /// The node belongs to none yet and is not asked to join this one.
    NoCluster,
    /// The node has stopped.
    Stopped,
}

/// The request's bytes; `None` if it is too large.
pub(crate) fn encode_request(cluster: ClusterId, ask: Ask) -> Option<Bytes> {
    encode(&Request { protocol: PROTOCOL, cluster, ask })
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Option<Bytes> {
    let bytes = postcard::to_stdvec(value).ok()?;
    (bytes.len() <= REQUEST_BYTES_MAX).then(|| Bytes::from(bytes))
}

/// The answer; `None` if it cannot be read.
pub(crate) fn decode_answer(bytes: &[u8]) -> Option<Answer> {
    (bytes.len() <= REQUEST_BYTES_MAX).then(|| postcard::from_bytes(bytes).ok())?
}

/// The request of this node; `None` if it cannot be read or says what a sound node does not say.
pub(crate) fn decode_request(from: NodeId, bytes: &[u8]) -> Option<Request> {
    if bytes.len() > REQUEST_BYTES_MAX {
        return None;
    }
    let request: Request = postcard::from_bytes(bytes).ok()?;
    let is_sound = request.protocol == PROTOCOL
        && match &request.ask {
            Ask::Append(append) => is_leaders(&append.vote, from) && is_consecutive(append),
            Ask::Vote(ask) => !ask.vote.committed && ask.vote.leader_id.voted_for == Some(from),
            Ask::Snapshot(piece) => {
                let end = piece.offset.checked_add(piece.data.len() as u64);
                is_leaders(&piece.vote, from) && end.is_some_and(|end| end <= SNAPSHOT_BYTES_MAX)
            }
            Ask::Beat { vote, .. } => is_leaders(vote, from),
            Ask::Poll(_) => true,
        };
    is_sound.then_some(request)
}

/// Only a leader speaks as one.
fn is_leaders(vote: &Vote, from: NodeId) -> bool {
    vote.committed && vote.leader_id.term > 0 && vote.leader_id.voted_for == Some(from)
}

/// The entries follow on one another and on what is before them, and none is of a term to come.
fn is_consecutive(append: &AppendRequest) -> bool {
    let term = append.vote.leader_id.term;
    let mut next = append.prev_log_id.map_or(Some(0), |id| id.index.checked_add(1));
    let mut term_before = append.prev_log_id.map_or(0, |id| id.leader_id.term);
    let follow = append.entries.iter().all(|entry| {
        let id = entry.log_id;
        let follows = next == Some(id.index) && id.leader_id.term >= term_before && id.leader_id.term <= term;
        (next, term_before) = (id.index.checked_add(1), id.leader_id.term);
        follows
    });
    follow && term_before <= term && append.leader_commit.is_none_or(|id| id.leader_id.term <= term)
}
