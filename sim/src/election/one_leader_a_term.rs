//! A term has one leader, which is one start of one node; and at no moment do two nodes lead.

use std::collections::BTreeMap;

use starling_core::ids::{NodeId, Term};

use super::world::World;

/// Who has led when.
#[derive(Default)]
pub(crate) struct OneLeaderATerm {
    leaders: BTreeMap<Term, (NodeId, u64)>,
}

impl OneLeaderATerm {
    /// Looks at all nodes at one moment.
    pub(crate) fn check(&mut self, world: &World) -> Result<(), String> {
        let leading: Vec<_> =
            world.running().filter_map(|(node, quorum)| Some((quorum.still_leads()?, (node.id, node.start)))).collect();
        if leading.len() > 1 {
            return Err(format!("two nodes lead at once: {leading:?}"));
        }
        for (term, leader) in leading {
            let first = *self.leaders.entry(term).or_insert(leader);
            if first != leader {
                return Err(format!("term {} had the leader {first:?} and has the leader {leader:?}", term.0));
            }
        }
        Ok(())
    }

    pub(crate) fn terms(&self) -> u64 {
        self.leaders.len() as u64
    }
}
