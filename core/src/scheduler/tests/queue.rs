use std::collections::BTreeSet;

use proptest::prelude::*;

use crate::ids::{JobId, TaskId};
use crate::scheduler::queue::ReadyQueue;
use crate::wire::Priority;

fn entry(order: u32) -> (Priority, TaskId) {
    (Priority { user: (order % 3) as i32, submission: 0, order }, TaskId::new(JobId(0), order))
}

proptest! {
    /// Adds, takes and leaves at random, against an ordered set.
    #[test]
    fn the_first_of_those_that_are_still_queued_comes_out(steps in prop::collection::vec((0..3u8, 0..200u32), 1..600)) {
        let mut queue = ReadyQueue::default();
        let mut model: BTreeSet<(Priority, TaskId)> = BTreeSet::new();
        for (what, order) in steps {
            let entry = entry(order);
            match what {
                0 if !model.contains(&entry) => {
                    model.insert(entry);
                    queue.push(entry.0, entry.1);
                }
                1 if model.remove(&entry) => {
                    queue.forget_one(|task| model.iter().any(|entry| entry.1 == task));
                }
                2 => {
                    let first = model.iter().next().copied();
                    prop_assert_eq!(queue.peek(|task| model.iter().any(|entry| entry.1 == task)), first);
                    prop_assert_eq!(queue.pop(|task| model.iter().any(|entry| entry.1 == task)), first);
                    first.map(|first| model.remove(&first));
                }
                _ => {}
            }
            prop_assert_eq!(queue.len(), model.len());
        }
        let rest = queue.drain(|task| model.iter().any(|entry| entry.1 == task));
        prop_assert_eq!(rest, model.iter().map(|entry| entry.1).collect::<Vec<_>>());
    }
}
