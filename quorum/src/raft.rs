//! What openraft is told about us.

use std::io::Cursor;

use starling_core::ids::NodeId;
use starling_core::ledger;

openraft::declare_raft_types!(
    /// The types of our Raft. One term has one leader (feature `single-term-leader`).
    pub(crate) Types:
        D = ledger::Entry,
        R = (),
        NodeId = NodeId,
        Node = openraft::EmptyNode,
        Entry = openraft::Entry<Types>,
        SnapshotData = Cursor<Vec<u8>>,
);

pub(crate) type Raft = openraft::Raft<Types>;
pub(crate) type Entry = openraft::Entry<Types>;
pub(crate) type Vote = openraft::Vote<NodeId>;
pub(crate) type LogId = openraft::LogId<NodeId>;
pub(crate) type StoredMembership = openraft::StoredMembership<NodeId, openraft::EmptyNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<NodeId, openraft::EmptyNode>;
pub(crate) type Snapshot = openraft::Snapshot<Types>;
pub(crate) type StorageError = openraft::StorageError<NodeId>;
pub(crate) type Metrics = openraft::RaftMetrics<NodeId, openraft::EmptyNode>;
pub(crate) type AppendRequest = openraft::raft::AppendEntriesRequest<Types>;
pub(crate) type AppendResponse = openraft::raft::AppendEntriesResponse<NodeId>;
pub(crate) type VoteRequest = openraft::raft::VoteRequest<NodeId>;
pub(crate) type VoteResponse = openraft::raft::VoteResponse<NodeId>;
pub(crate) type SnapshotRequest = openraft::raft::InstallSnapshotRequest<Types>;
pub(crate) type SnapshotResponse = openraft::raft::InstallSnapshotResponse<NodeId>;
