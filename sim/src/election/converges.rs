//! When all is healed, there is one leader that everyone knows, with the voters that there should be, and all ledgers are
//! the same.

use super::committed_is_kept::Oracle;
use super::world::World;

/// `None` if it is so; otherwise what is not.
pub(crate) fn what_is_missing(world: &World, oracle: &Oracle) -> Option<String> {
    let views: Vec<_> = world.running().map(|(node, quorum)| (node.id, quorum.view().borrow().clone())).collect();
    let Some((_, leads)) = views.iter().find(|(_, view)| view.is_leader) else {
        return Some(format!("nobody leads: {views:?}"));
    };
    let count = views.len().min(world.plan.voters_max);
    let voters = if count % 2 == 1 { count } else { count - 1 };
    for (node, view) in &views {
        let same = (view.leader, view.term) == (leads.leader, leads.term) && view.has_quorum;
        if !same || view.problem.is_some() {
            return Some(format!("node {node} sees {view:?}, not {leads:?}"));
        }
        if view.voters.len() != voters || view.voters.len() + view.learners.len() != views.len() {
            return Some(format!("node {node} sees {view:?}, not {voters} voters"));
        }
    }
    let mut ledgers = world.running().map(|(node, quorum)| (node.id, quorum.ledger()));
    let first = ledgers.next()?;
    if let Some(other) = ledgers.find(|(_, ledger)| *ledger != first.1) {
        return Some(format!("the ledgers of {} and {} differ", first.0, other.0));
    }
    oracle.compare(&first.1).err()
}
