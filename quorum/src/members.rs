//! Who holds the log and who votes: what a leader changes about it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::{ChangeMembers, EmptyNode};
use starling_core::election::{Rank, Standing, next_voters};
use starling_core::ids::NodeId;
use tokio::time::timeout;

use crate::node::configs;
use crate::raft::{Metrics, Raft};

/// By how many entries a node may be behind and still become a voter.
pub(crate) const LAG_MAX: u64 = 8;

/// How many nodes hold the log at most.
const MEMBERS_MAX: usize = 32;

/// One step. The next one waits for its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// These vote, and nobody else.
    Voters(BTreeSet<NodeId>),
    /// These get the log.
    Add(BTreeSet<NodeId>),
    /// These no longer do.
    Remove(BTreeSet<NodeId>),
}

/// What to do next, if anything. Nothing is ever removed before the mesh has said who is there.
pub(crate) fn next_change(
    metrics: &Metrics,
    live: &[(NodeId, Rank)],
    is_ready: impl Fn(NodeId) -> bool,
    is_gone: impl Fn(NodeId) -> bool,
    voters_max: usize,
) -> Option<Change> {
    let voters = match configs(metrics) {
        [voters] => voters,
        // A leader has died in the middle of a change.
        [.., last] => return Some(Change::Voters(last.clone())),
        [] => return None,
    };
    let members: BTreeSet<NodeId> = metrics.membership_config.nodes().map(|(node, _)| *node).collect();
    let is_live = |node: &NodeId| live.iter().any(|(other, _)| other == node);

    let mut best: Vec<&(NodeId, Rank)> = live.iter().filter(|(node, _)| !members.contains(node)).collect();
    best.sort_by_key(|(node, rank)| (std::cmp::Reverse(*rank), *node));
    let new: BTreeSet<NodeId> =
        best.iter().map(|(node, _)| *node).take(MEMBERS_MAX.saturating_sub(members.len())).collect();
    if !new.is_empty() {
        return Some(Change::Add(new));
    }
    let standing = |(node, rank): &(NodeId, Rank)| Standing { node: *node, rank: *rank, is_ready: is_ready(*node) };
    let standings: Vec<Standing> = live.iter().filter(|(node, _)| members.contains(node)).map(standing).collect();
    let gone = members.iter().copied().filter(|node| is_gone(*node)).collect();
    if let Some(next) = next_voters(voters, &standings, &gone, voters_max) {
        return Some(Change::Voters(next));
    }
    let leaving: BTreeSet<NodeId> =
        gone.into_iter().filter(|node| !live.is_empty() && !voters.contains(node) && !is_live(node)).collect();
    (!leaving.is_empty()).then_some(Change::Remove(leaving))
}

/// Does it, or gives up after a while; the next look decides anew.
pub(crate) async fn carry_out(raft: &Raft, change: Change, patience: Duration) {
    let changes = match change {
        Change::Voters(voters) => ChangeMembers::ReplaceAllVoters(voters),
        Change::Add(nodes) => {
            ChangeMembers::AddNodes(nodes.into_iter().map(|node| (node, EmptyNode {})).collect::<BTreeMap<_, _>>())
        }
        Change::Remove(nodes) => ChangeMembers::RemoveNodes(nodes),
    };
    match timeout(patience, raft.change_membership(changes, true)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::info!(%error, "the quorum's members did not change"),
        Err(_) => tracing::info!("the quorum's members did not change: no quorum"),
    }
}
