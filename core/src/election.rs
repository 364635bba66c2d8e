//! Who should vote, and who should stand first: pure decisions for the quorum that elects schedulers. When a decision is
//! asked for, and what then happens, is `starling-quorum`'s.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ids::NodeId;

/// From where a node can be dialled. Higher is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reach {
    /// From nowhere: the node only dials others.
    #[default]
    None,
    /// From its own machine.
    Loopback,
    /// From its own network.
    Private,
    /// From everywhere.
    Public,
}

/// How much a node is preferred as a scheduler. Higher is preferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Rank {
    /// A person has said that this node shall be the scheduler.
    pub pinned: bool,
    /// From where it can be dialled.
    pub reach: Reach,
    /// How much it can hold, for instance memory in megabytes. It decides between what is equal otherwise.
    pub room: u64,
}

/// One node that could vote now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which one.
    pub node: NodeId,
    /// How much it is preferred.
    pub rank: Rank,
    /// It holds the log up to its end, or nearly so. Only such a node becomes a voter.
    pub is_ready: bool,
}

/// Who should vote instead of `current`; `None` if nothing should change.
///
/// `live` are the nodes that could vote now, `gone` those that have been away for so long that others may take their
/// places. There is 1 voter until 3 nodes are ready, then 3, then 5, at most `voters_max`, and never an even number. A voter
/// that is not gone stays, so whatever replaces a set shares a majority of live voters with it. Sets grow by the best ranks
/// first. Five voters of which at least two are gone become the three that are left.
pub fn next_voters(
    current: &BTreeSet<NodeId>,
    live: &[Standing],
    gone: &BTreeSet<NodeId>,
    voters_max: usize,
) -> Option<BTreeSet<NodeId>> {
    let kept: BTreeSet<NodeId> = current.difference(gone).copied().collect();
    let is_new =
        |standing: &&Standing| standing.is_ready && !current.contains(&standing.node) && !gone.contains(&standing.node);
    let mut ready: Vec<&Standing> = live.iter().filter(is_new).collect();
    ready.sort_by(|a, b| (b.rank, a.node).cmp(&(a.rank, b.node)));
    ready.dedup_by_key(|standing| standing.node);

    let at_most = odd_at_most(voters_max.clamp(1, VOTERS_MAX));
    let pool = kept.len() + ready.len();
    // Those who are gone count until others take their places: they may come back, the places do not go away.
    let size = odd_at_most(pool.min(at_most)).max(at_least(current.len(), kept.len()));
    let mut next = kept;
    next.extend(ready.iter().map(|standing| standing.node).take(size.saturating_sub(next.len())));
    let absent = current.intersection(gone).copied().take(size.saturating_sub(next.len())).collect::<Vec<_>>();
    next.extend(absent);
    (!next.is_empty() && next.len() % 2 == 1 && next != *current).then_some(next)
}

/// In which order the voters should stand when the leader `without` is gone: 0 is the first. Voters that are not among
/// the live ones come last, and so does a node that is no voter.
pub fn position(node: NodeId, voters: &BTreeSet<NodeId>, live: &[(NodeId, Rank)], without: Option<NodeId>) -> usize {
    let mut order: Vec<(Rank, NodeId)> = live
        .iter()
        .filter(|(other, _)| voters.contains(other) && (Some(*other) != without || *other == node))
        .map(|(other, rank)| (*rank, *other))
        .collect();
    order.sort_by(|a, b| (b.0, a.1).cmp(&(a.0, b.1)));
    order.iter().position(|(_, other)| *other == node).unwrap_or(voters.len())
}

/// The most voters there are, whatever is asked for.
const VOTERS_MAX: usize = 5;

/// The largest odd number up to `count`, and at least 1.
fn odd_at_most(count: usize) -> usize {
    if count % 2 == 1 { count } else { count.saturating_sub(1).max(1) }
}

/// How few voters may follow on `current` of which `kept` are not gone.
fn at_least(current: usize, kept: usize) -> usize {
    if current > 3 && kept <= 3 { 3 } else { current }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    fn set(numbers: &[u8]) -> BTreeSet<NodeId> {
        numbers.iter().copied().map(node).collect()
    }

    /// Nodes that are ready, each with its number as its room.
    fn ready(numbers: &[u8]) -> Vec<Standing> {
        let rank = |number| Rank { room: u64::from(number), ..Rank::default() };
        numbers.iter().map(|&number| Standing { node: node(number), rank: rank(number), is_ready: true }).collect()
    }

    fn next(current: &[u8], live: &[u8], gone: &[u8]) -> Option<BTreeSet<NodeId>> {
        next_voters(&set(current), &ready(live), &set(gone), 5)
    }

    #[test]
    fn ranks_prefer_what_is_pinned_then_reach_then_room() {
        let rank = |pinned, reach, room| Rank { pinned, reach, room };
        let worst_first = [
            rank(false, Reach::None, 900),
            rank(false, Reach::Loopback, 900),
            rank(false, Reach::Private, 1),
            rank(false, Reach::Private, 2),
            rank(false, Reach::Public, 0),
            rank(true, Reach::None, 0),
        ];
        assert!(worst_first.is_sorted() && worst_first.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn one_voter_becomes_three_and_five_as_nodes_get_ready() {
        assert_eq!(next(&[1], &[1, 2], &[]), None);
        assert_eq!(next(&[1], &[1, 2, 3], &[]), Some(set(&[1, 2, 3])));
        assert_eq!(next(&[1], &[1, 2, 3, 4], &[]), Some(set(&[1, 3, 4])));
        assert_eq!(next(&[1, 2, 3], &[1, 2, 3, 4], &[]), None);
        assert_eq!(next(&[1, 2, 3], &[1, 2, 3, 4, 5], &[]), Some(set(&[1, 2, 3, 4, 5])));
        assert_eq!(next_voters(&set(&[1, 2, 3]), &ready(&[1, 2, 3, 4, 5]), &set(&[]), 3), None);
        assert_eq!(next_voters(&set(&[1]), &ready(&[1, 2, 3]), &set(&[]), 1), None);
        assert_eq!(next_voters(&set(&[1]), &ready(&[1, 2, 3, 4]), &set(&[]), 4), Some(set(&[1, 3, 4])));
    }

    #[test]
    fn who_is_not_ready_does_not_become_a_voter() {
        let mut live = ready(&[1, 2, 3]);
        live[2].is_ready = false;
        assert_eq!(next_voters(&set(&[1]), &live, &set(&[]), 5), None);
    }

    #[test]
    fn a_voter_that_is_gone_is_replaced_by_the_best_and_otherwise_kept() {
        assert_eq!(next(&[1, 2, 3], &[1, 2, 8, 9], &[3]), Some(set(&[1, 2, 9])));
        assert_eq!(next(&[1, 2, 3], &[1, 2], &[3]), None);
        assert_eq!(next(&[1, 2, 3], &[1, 2], &[]), None, "away, and not for long");
    }

    #[test]
    fn five_voters_of_which_two_are_gone_become_the_other_three() {
        assert_eq!(next(&[1, 2, 3, 4, 5], &[1, 2, 3], &[4, 5]), Some(set(&[1, 2, 3])));
        assert_eq!(next(&[1, 2, 3, 4, 5], &[1, 2, 3, 4], &[5]), None);
    }

    #[test]
    fn the_best_live_voter_stands_first_and_the_old_leader_not_at_all() {
        let voters = set(&[1, 2, 3, 4]);
        let rank = |room| Rank { room, ..Rank::default() };
        let live = [(node(1), rank(1)), (node(2), rank(9)), (node(3), rank(5)), (node(7), rank(99))];
        let order = |without| [1, 2, 3, 4].map(|number| position(node(number), &voters, &live, without));
        assert_eq!(order(None), [2, 0, 1, 4]);
        assert_eq!(order(Some(node(2))), [1, 0, 0, 4], "who is asked for is never left out");
    }

    proptest! {
        #[test]
        fn a_new_set_is_odd_bounded_and_keeps_every_voter_that_is_not_gone(
            current in prop::collection::btree_set(0u8..9, 1..=5),
            live in prop::collection::vec(0u8..9, 0..12),
            gone in prop::collection::btree_set(0u8..9, 0..5),
            voters_max in 0usize..9,
        ) {
            let current: BTreeSet<NodeId> = current.into_iter().map(node).collect();
            let gone: BTreeSet<NodeId> = gone.into_iter().map(node).collect();
            let live = ready(&live);
            if let Some(next) = next_voters(&current, &live, &gone, voters_max) {
                prop_assert!(next.len() % 2 == 1);
                prop_assert!(next.len() <= voters_max.clamp(1, 5).max(current.len()));
                prop_assert!(current.difference(&gone).all(|voter| next.contains(voter)));
                prop_assert!(next.difference(&current).all(|new| live.iter().any(|standing| standing.node == *new)));
                let again = next_voters(&next, &live, &gone, voters_max);
                prop_assert!(again.is_none(), "{next:?} would become {again:?}");
            }
        }
    }
}
