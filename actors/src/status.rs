//! How a cluster is, as one of its nodes sees it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use starling_core::ids::{NodeId, Term};
use starling_runtime::mesh::{Link, Member, Mesh, MeshError, Role};
use tokio::time::timeout;

use crate::leaders::Leaders;
use crate::link::{Hello, encode_one};
use crate::office::Candidacy;

/// How long a node may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How a cluster is, as one of its nodes sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node that says it.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// The latest term that it has heard of.
    pub term: Option<Term>,
    /// Who holds the scheduler in it.
    pub leader: Option<NodeId>,
    /// What it knows of the quorum, if it is a part of it.
    pub quorum: Option<QuorumStatus>,
    /// The live members of the mesh.
    pub members: Vec<MemberStatus>,
}

/// How the quorum is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuorumStatus {
    /// Whether anything can be decided, as far as the node knows.
    pub has_quorum: bool,
    /// Who votes.
    pub voters: Vec<NodeId>,
    /// Who else has the log.
    pub learners: Vec<NodeId>,
    /// Those of the voters that are not there, as they were last seen.
    pub away: Vec<MemberStatus>,
    /// What is in the way, for a person.
    pub problem: Option<String>,
}

/// A member of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Whether it comes back as the same node when it is started again, with what it had agreed to.
    pub keeps: bool,
    /// Where it can be dialled.
    pub addrs: Vec<String>,
}

impl MemberStatus {
    fn of(member: Member) -> MemberStatus {
        MemberStatus {
            node: member.node,
            name: member.info.name,
            role: member.info.role,
            keeps: member.info.keeps,
            addrs: member.addrs.iter().map(ToString::to_string).collect(),
        }
    }
}

impl NodeStatus {
    pub(crate) fn gather(mesh: &Mesh, name: &str, leaders: &Leaders, candidacy: Option<&Candidacy>) -> NodeStatus {
        let members = mesh.members();
        let quorum = candidacy.map(|candidacy| {
            let view = candidacy.quorum.view().borrow().clone();
            let is_away = |node: &&NodeId| !members.iter().any(|member| member.node == **node);
            let away = view.voters.iter().filter(is_away).filter_map(|node| candidacy.last_seen(*node));
            QuorumStatus {
                has_quorum: view.has_quorum,
                away: away.map(MemberStatus::of).collect(),
                voters: view.voters,
                learners: view.learners,
                problem: view.problem,
            }
        });
        // A part of the quorum knows whether there is a leader now; others only who was the last.
        let known = match candidacy {
            Some(candidacy) => candidacy.leader(),
            None => leaders.known(),
        };
        NodeStatus {
            node: mesh.node(),
            name: name.to_owned(),
            term: known.map(|known| known.0).or_else(|| leaders.known().map(|known| known.0)),
            leader: known.map(|known| known.1),
            quorum,
            members: members.into_iter().map(MemberStatus::of).collect(),
        }
    }
}

pub(crate) async fn answer(link: Link, status: &NodeStatus) {
    if let Ok(frame) = encode_one(status) {
        // The peer may have gone.
        let _ = link.tx.send(frame).await;
        link.tx.closed().await;
    }
}

/// Asks a node how the cluster is.
pub(crate) async fn ask(mesh: &Mesh, node: NodeId) -> Result<NodeStatus, MeshError> {
    let protocol = |why: String| MeshError::Protocol { node, why };
    let hello = encode_one(&Hello::Status).map_err(|error| protocol(error.to_string()))?;
    let mut link = mesh.open_link(node, hello).await?;
    let frame = timeout(ANSWER_TIMEOUT, link.rx.recv()).await.ok().flatten();
    let frame = frame.ok_or_else(|| protocol("it did not say how it is".to_owned()))?;
    postcard::from_bytes(&frame).map_err(|error| protocol(error.to_string()))
}
