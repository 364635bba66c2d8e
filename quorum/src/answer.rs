//! What this node says to requests of others. They are input: whatever they hold, this node goes on.

use std::io::Cursor;

use bytes::Bytes;
use starling_core::ids::NodeId;
use starling_core::ledger::Ledger;
use tokio::time::Instant;

use crate::raft::{AppendRequest, AppendResponse, LogId, Snapshot, SnapshotRequest, SnapshotResponse, Vote};
use crate::shared::Shared;
use crate::store::ClusterId;
use crate::wire::{self, Answer, Ask, Refusal};

/// A snapshot of which pieces have come.
#[derive(Default)]
pub(crate) struct Incoming {
    id: String,
    bytes: Vec<u8>,
}

impl Shared {
    pub(crate) async fn answer(&self, from: NodeId, request: &[u8]) -> Bytes {
        let answer = self.answer_to(from, request).await.unwrap_or_else(Answer::Refused);
        self.wake.notify_one();
        wire::encode(&answer).unwrap_or_default()
    }

    async fn answer_to(&self, from: NodeId, request: &[u8]) -> Result<Answer, Refusal> {
        if self.problem().is_some() {
            return Err(Refusal::Stopped);
        }
        let request = wire::decode_request(from, request).ok_or(Refusal::Malformed)?;
        self.belong(from, request.cluster, &request.ask).await?;
        match request.ask {
            Ask::Append(append) => Ok(Answer::Append(self.append(append).await?)),
            Ask::Beat { vote, has_quorum } => {
                // It says nothing about the log, and so holds for every log.
                let append = AppendRequest { vote, prev_log_id: None, entries: Vec::new(), leader_commit: None };
                let answer = self.append(append).await?;
                if has_quorum && !matches!(answer, AppendResponse::HigherVote(_)) {
                    self.wire.lease.led(Instant::now());
                }
                Ok(Answer::Beat(answer))
            }
            Ask::Vote(ask) => {
                let term = ask.vote.leader_id.term;
                let answer = self.raft.vote(ask).await.map_err(|_| Refusal::Stopped)?;
                if answer.vote_granted {
                    self.wire.lease.promise(term);
                }
                Ok(Answer::Vote(answer))
            }
            Ask::Snapshot(piece) => self.snapshot(piece).await,
            Ask::Poll(last) => Ok(Answer::Poll(self.would_vote(last, Instant::now()))),
        }
    }

    /// Makes sure that the request is of this node's cluster. A node without a log joins the first that asks it to.
    async fn belong(&self, from: NodeId, cluster: ClusterId, ask: &Ask) -> Result<(), Refusal> {
        let own = self.store.promise().cluster;
        if own == Some(cluster) {
            return Ok(());
        }
        let _founding = self.founding.lock().await;
        let own = self.store.promise().cluster;
        if own == Some(cluster) {
            return Ok(());
        }
        if self.store.is_new() {
            let is_asked = matches!(ask, Ask::Append(_) | Ask::Snapshot(_) | Ask::Beat { .. });
            if !is_asked {
                return Err(Refusal::NoCluster);
            }
            tracing::info!(leader = %from, "joining the quorum's log");
            return self.store.save_cluster(cluster).await.map_err(|_| Refusal::Stopped);
        }
        let place = self.store.place();
        self.wire.note(format!(
            "this node's data directory {place} belongs to another cluster than node {from}: start one of them with another \
             --data-dir"
        ));
        Err(Refusal::OtherCluster)
    }

    async fn append(&self, append: AppendRequest) -> Result<AppendResponse, Refusal> {
        let vote = append.vote;
        self.check_leader(&vote)?;
        let hearing = self.wire.lease.hear();
        let answer = self.raft.append_entries(append).await.map_err(|_| Refusal::Stopped)?;
        if matches!(answer, AppendResponse::HigherVote(_)) {
            hearing.refused();
        } else {
            hearing.heard();
            self.wire.lease.promise(vote.leader_id.term);
        }
        Ok(answer)
    }

    /// Openraft holds two leaders of one term for impossible. They are, unless a node lies.
    fn check_leader(&self, vote: &Vote) -> Result<(), Refusal> {
        let known = self.metrics.borrow().vote;
        let same_term = known.committed && known.leader_id.term == vote.leader_id.term;
        if same_term && known.leader_id.voted_for != vote.leader_id.voted_for {
            tracing::error!(term = known.leader_id.term, "two nodes say that they lead in this term");
            return Err(Refusal::Malformed);
        }
        Ok(())
    }

    async fn snapshot(&self, piece: SnapshotRequest) -> Result<Answer, Refusal> {
        self.check_leader(&piece.vote)?;
        let known = self.metrics.borrow().vote;
        if known > piece.vote {
            return Ok(Answer::Snapshot(SnapshotResponse { vote: known }));
        }
        let mut incoming = self.incoming.lock().await;
        let offset = usize::try_from(piece.offset).unwrap_or(usize::MAX);
        if offset == 0 {
            *incoming = Incoming { id: piece.meta.snapshot_id.clone(), bytes: Vec::new() };
        }
        if incoming.id != piece.meta.snapshot_id || offset > incoming.bytes.len() {
            return Ok(Answer::SnapshotMismatch);
        }
        incoming.bytes.truncate(offset);
        incoming.bytes.extend_from_slice(&piece.data);
        if !piece.done {
            return Ok(Answer::Snapshot(SnapshotResponse { vote: piece.vote }));
        }
        let bytes = std::mem::take(&mut *incoming).bytes;
        if postcard::from_bytes::<Ledger>(&bytes).is_err() {
            return Err(Refusal::Malformed);
        }
        let snapshot = Snapshot { meta: piece.meta, snapshot: Box::new(Cursor::new(bytes)) };
        let hearing = self.wire.lease.hear();
        let done = self.raft.install_full_snapshot(piece.vote, snapshot).await;
        let done = done.map_err(|_| Refusal::Stopped)?;
        if done.vote == piece.vote {
            hearing.heard();
            self.wire.lease.promise(piece.vote.leader_id.term);
        } else {
            hearing.refused();
        }
        Ok(Answer::Snapshot(done.into()))
    }

    /// Whether this node would vote for who has the log up to `last`: nobody leads as far as it knows.
    fn would_vote(&self, last: Option<LogId>, now: Instant) -> bool {
        let metrics = self.metrics();
        !self.follows(&metrics, now) && self.still_leads(now).is_none() && last >= self.store.last()
    }
}
