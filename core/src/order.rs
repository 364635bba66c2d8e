//! The order in which the tasks of a graph should run, so that few outputs are alive at a time.
//!
//! As `dask.order` describes it: depth first. Whatever is begun is finished before something else is begun, so that an
//! output is used soon after it was made and can go. Of a task's inputs the one with the most work below it comes first,
//! because then fewer outputs wait beside it (Sethi and Ullman's rule for registers). What does not depend on each other keeps
//! the order in which it was submitted.

use smallvec::SmallVec;

/// The place of each task in the order, from 0; `None` if no task is an input of another, and so their own order is as
/// good as any.
///
/// Task number `at` has the index `first + at`, and `inputs(at)` are the indices of its inputs; those below `first` count as
/// done. Costs a pass over the tasks and edges; the order puts every input before its users.
pub fn depth_first<'a>(first: u32, len: usize, inputs: impl Fn(usize) -> &'a [u32]) -> Option<Vec<u32>> {
    let inside =
        |at: usize| inputs(at).iter().filter_map(move |input| input.checked_sub(first).map(|input| input as usize));
    if (0..len).all(|at| inside(at).next().is_none()) {
        return None;
    }
    // How much work is below each task, itself included; what two tasks share is counted twice.
    let mut weights = vec![1_u32; len];
    // The first of them.
    let mut firsts: Vec<usize> = (0..len).collect();
    let mut is_input = vec![false; len];
    for at in 0..len {
        // An input stands before its users, so its weight is known. Anything else is no graph and changes nothing.
        for input in inside(at).filter(|input| *input < at) {
            weights[at] = weights[at].saturating_add(weights[input]);
            firsts[at] = firsts[at].min(firsts[input]);
            is_input[input] = true;
        }
    }
    let mut sinks: Vec<usize> = (0..len).filter(|at| !is_input[*at]).collect();
    sinks.sort_by_key(|sink| firsts[*sink]);
    let mut places = vec![UNSEEN; len];
    let mut next = 0;
    let mut stack: Vec<usize> = Vec::new();
    for sink in sinks {
        stack.push(sink);
        while let Some(&at) = stack.last() {
            match places[at] {
                UNSEEN => {
                    places[at] = OPEN;
                    let mut open: SmallVec<[usize; 8]> =
                        inside(at).filter(|input| *input < at && places[*input] == UNSEEN).collect();
                    // The last one pushed is looked at first: the heaviest, then the one that was submitted first.
                    open.sort_unstable_by_key(|input| (weights[*input], std::cmp::Reverse(*input)));
                    stack.extend(open);
                }
                OPEN => {
                    stack.pop();
                    places[at] = next;
                    next += 1;
                }
                _ => {
                    stack.pop();
                }
            }
        }
    }
    Some(places)
}

/// Not met yet. No place is so high, since a job has no task of the highest index.
const UNSEEN: u32 = u32::MAX;
/// Its inputs are being placed.
const OPEN: u32 = u32::MAX - 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(first: u32, graph: &[Vec<u32>]) -> Option<Vec<u32>> {
        depth_first(first, graph.len(), |at| graph[at].as_slice())
    }

    /// The most outputs that are alive at a time if the tasks run in this order and outputs go with their last user.
    fn alive_max(graph: &[Vec<u32>], places: &[u32]) -> usize {
        let mut by_place: Vec<usize> = (0..graph.len()).collect();
        by_place.sort_by_key(|at| places[*at]);
        let mut users = vec![0; graph.len()];
        graph.iter().flatten().for_each(|input| users[*input as usize] += 1);
        let (mut alive, mut most) = (0, 0);
        for at in by_place {
            alive += 1;
            most = most.max(alive);
            for input in &graph[at] {
                users[*input as usize] -= 1;
                alive -= usize::from(users[*input as usize] == 0);
            }
        }
        most
    }

    #[test]
    fn tasks_without_inputs_keep_their_order() {
        assert_eq!(order(0, &[vec![], vec![], vec![]]), None);
        // Inputs from before the submission are there already.
        assert_eq!(order(10, &[vec![3], vec![4, 9]]), None);
    }

    #[test]
    fn a_tree_that_was_submitted_level_by_level_runs_branch_by_branch() {
        // 8 leaves, 4, 2, 1.
        let mut graph: Vec<Vec<u32>> = vec![vec![]; 8];
        graph.extend((0..4).map(|pair| vec![2 * pair, 2 * pair + 1]));
        graph.extend([vec![8, 9], vec![10, 11], vec![12, 13]]);
        let places = order(0, &graph).unwrap();
        assert_eq!(places, [0, 1, 3, 4, 7, 8, 10, 11, 2, 5, 9, 12, 6, 13, 14]);
        assert_eq!(alive_max(&graph, &places), 4 + 1);
        let by_index: Vec<u32> = (0..15).collect();
        assert_eq!(alive_max(&graph, &by_index), 9);
    }

    #[test]
    fn the_heavier_input_comes_first() {
        // 4 takes 0 and the chain 1, 2, 3.
        let places = order(0, &[vec![], vec![], vec![1], vec![2], vec![0, 3]]).unwrap();
        assert_eq!(places, [3, 0, 1, 2, 4]);
    }

    #[test]
    fn a_chain_of_a_million_costs_no_stack() {
        let graph: Vec<Vec<u32>> = (0..1_000_000_u32).map(|at| at.checked_sub(1).into_iter().collect()).collect();
        assert_eq!(order(0, &graph).unwrap(), (0..1_000_000).collect::<Vec<u32>>());
    }

    proptest! {
        #[test]
        fn every_task_has_a_place_of_its_own_after_its_inputs(
            seeds in proptest::collection::vec(proptest::collection::vec(any::<u32>(), 0..4), 1..60),
            first in 0..5_u32,
        ) {
            let graph: Vec<Vec<u32>> = seeds
                .iter()
                .zip(first..)
                .map(|(inputs, index)| inputs.iter().filter(|_| index > 0).map(|seed| seed % index).collect())
                .collect();
            if let Some(places) = order(first, &graph) {
                let mut sorted = places.clone();
                sorted.sort_unstable();
                prop_assert_eq!(sorted, (0..graph.len() as u32).collect::<Vec<_>>());
                for (at, inputs) in graph.iter().enumerate() {
                    for input in inputs.iter().filter_map(|input| input.checked_sub(first)) {
                        prop_assert!(places[input as usize] < places[at]);
                    }
                }
            } else {
                prop_assert!(graph.iter().flatten().all(|input| *input < first));
            }
        }
    }
}
