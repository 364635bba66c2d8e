//! How a node sees the quorum: [`View`].

use starling_core::ids::{NodeId, Term};

/// How a node sees the quorum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The latest term that this node knows of; 0 before the first.
    pub term: Term,
    /// Who leads, as far as this node can know: itself if it does, or the leader that it has heard within a lease.
    pub leader: Option<NodeId>,
    /// This node leads: it was elected, a quorum has answered within the lease, and it has applied all entries of its
    /// predecessors.
    pub is_leader: bool,
    /// Entries can be agreed on, as far as this node can know.
    pub has_quorum: bool,
    /// Who votes, in order of ids. During a change, all of the old and the new ones.
    pub voters: Vec<NodeId>,
    /// Who else holds the log.
    pub learners: Vec<NodeId>,
    /// What a person should know.
    pub problem: Option<String>,
}
