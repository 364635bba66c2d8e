//! The nodes, their crashes, and what they are told of one another.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use starling_core::ids::NodeId;
use starling_quorum::{Pace, Quorum, QuorumConfig};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::disk::SimDisk;
use super::net::{Net, Port};
use super::plan::Plan;

/// A node, running or not.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) disk: SimDisk,
    /// How often it has started.
    pub(crate) start: u64,
    pub(crate) quorum: Option<Quorum>,
    /// What was proposed to it and has no answer yet.
    pub(crate) proposals: JoinSet<()>,
}

/// All of them.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) net: Net,
    pub(crate) nodes: Vec<Node>,
}

/// The pace of the simulated nodes: the default, but nobody waits half a minute for who is gone.
pub(crate) fn pace() -> Pace {
    Pace { patience: Duration::from_secs(10), handover: Duration::from_secs(3), ..Pace::default() }
}

impl World {
    pub(crate) fn new(plan: Plan, net: Net) -> World {
        let id = |number: usize| NodeId([number as u8 + 1; 32]);
        let node = |number| Node {
            id: id(number),
            disk: SimDisk::default(),
            start: 0,
            quorum: None,
            proposals: JoinSet::new(),
        };
        let nodes = (0..plan.ranks.len()).map(node).collect();
        World { plan, net, nodes }
    }

    /// Starts a node on its disk.
    pub(crate) async fn start(&mut self, number: usize) -> Result<(), String> {
        let node = &mut self.nodes[number];
        node.start += 1;
        let config = QuorumConfig {
            rank: self.plan.ranks[number],
            voters_max: self.plan.voters_max,
            pace: pace(),
            log_bytes_max: self.plan.log_bytes_max,
            ..QuorumConfig::new(node.id)
        };
        let port = Port { net: self.net.clone(), node: node.id, start: node.start };
        let started = Quorum::start_on(config, Arc::new(port), Box::new(node.disk.mount())).await;
        let quorum = started.map_err(|error| format!("node {} does not start: {error}", node.id))?;
        self.net.plug_in(node.id, node.start, quorum.clone());
        node.quorum = Some(quorum);
        Ok(())
    }

    /// A node is gone at once, with what it had in memory.
    pub(crate) async fn crash(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        node.disk.unmount();
        self.net.unplug(node.id);
        node.quorum = None;
        node.proposals = JoinSet::new();
        // Tasks that are aborted are gone when they are next looked at.
        sleep(Duration::from_millis(1)).await;
    }

    /// Those that run.
    pub(crate) fn running(&self) -> impl Iterator<Item = (&Node, &Quorum)> {
        self.nodes.iter().filter_map(|node| Some((node, node.quorum.as_ref()?)))
    }

    /// The numbers of those that run, or do not.
    pub(crate) fn numbers(&self, run: bool) -> Vec<usize> {
        (0..self.nodes.len()).filter(|number| self.nodes[*number].quorum.is_some() == run).collect()
    }

    /// What a mesh would tell each node: who runs and can be heard.
    pub(crate) fn tell_all(&self) {
        for (node, quorum) in self.running() {
            let heard = |other: NodeId| !self.net.is_cut(other, node.id) && !self.net.is_cut(node.id, other);
            let live: BTreeSet<NodeId> =
                self.running().map(|(other, _)| other.id).filter(|other| heard(*other)).collect();
            for other in &self.nodes {
                if !live.contains(&other.id) {
                    quorum.is_down(other.id);
                }
            }
            quorum.candidates(self.ranked(&live));
        }
    }

    /// These nodes with their ranks.
    pub(crate) fn ranked(&self, nodes: &BTreeSet<NodeId>) -> Vec<(NodeId, starling_quorum::Rank)> {
        let ranks = self.nodes.iter().zip(&self.plan.ranks);
        ranks.filter(|(node, _)| nodes.contains(&node.id)).map(|(node, rank)| (node.id, *rank)).collect()
    }
}
