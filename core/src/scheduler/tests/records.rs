//! The pages of a job's records, compared with an ordinary map.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::ids::ClientId;
use crate::scheduler::record::{Job, PAGE_RECORDS, Record, State};
use crate::scheduler::view::TaskState;
use crate::wire::Priority;

fn record(mark: u32) -> Record {
    let mut record = Record::scattered(Priority::default(), State::Released);
    record.waiters = mark;
    record
}

#[derive(Clone, Debug)]
enum Step {
    Push,
    PushMany(u32),
    Put(u32),
    SkipTo(u32),
    Remove(u32),
    RemoveAll(u32, u32),
}

fn step() -> impl Strategy<Value = Step> {
    let page = PAGE_RECORDS as u32;
    let index = move || {
        prop_oneof![
            6 => 0..5 * page,
            // The ends of pages.
            4 => (0..5u32, 0..4u32).prop_map(move |(number, at)| (number * page + at).saturating_sub(2)),
        ]
    };
    prop_oneof![
        4 => Just(Step::Push),
        2 => (1..2 * page).prop_map(Step::PushMany),
        6 => index().prop_map(Step::Put),
        2 => index().prop_map(Step::SkipTo),
        3 => index().prop_map(Step::Remove),
        3 => (index(), 1..2 * page).prop_map(|(first, count)| Step::RemoveAll(first, count)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_job_with_gaps_holds_what_was_put_where_it_was_put(steps in vec(step(), 0..40)) {
        let mut job = Job::new(ClientId(0), "job".into());
        let mut model: BTreeMap<u32, u32> = BTreeMap::new();
        let mut next = 0;
        let mut mark = 0;
        for step in steps {
            mark += 1;
            match step {
                Step::Push => {
                    model.insert(next, mark);
                    job.push(record(mark));
                    next += 1;
                }
                Step::PushMany(count) => for _ in 0..count {
                    model.insert(next, mark);
                    job.push(record(mark));
                    next += 1;
                },
                Step::Put(index) => {
                    model.entry(index).or_insert(mark);
                    job.put(index, record(mark));
                    next = next.max(index + 1);
                }
                Step::SkipTo(index) => {
                    job.skip_to(index);
                    next = next.max(index);
                }
                Step::Remove(index) => {
                    let removed = job.remove(index).map(|record| record.waiters);
                    prop_assert_eq!(removed, model.remove(&index));
                }
                Step::RemoveAll(first, count) => for index in first..first + count {
                    prop_assert_eq!(job.remove(index).is_some(), model.remove(&index).is_some());
                },
            }
            prop_assert_eq!(job.next_index, next);
            prop_assert_eq!(job.len(), model.len());
            prop_assert_eq!(job.counts.get(TaskState::Released), model.len() as u64);
        }
        let held: Vec<(u32, u32)> = job.iter().map(|(index, record)| (index, record.waiters)).collect();
        prop_assert_eq!(held, model.clone().into_iter().collect::<Vec<_>>());
        for index in 0..6 * PAGE_RECORDS as u32 {
            prop_assert_eq!(job.get(index).map(|record| record.waiters), model.get(&index).copied());
            prop_assert_eq!(job.get_mut(index).is_some(), model.contains_key(&index));
        }
    }
}

#[test]
fn a_gap_costs_nothing_however_long_it_is() {
    let mut job = Job::new(ClientId(0), "job".into());
    job.skip_to(u32::MAX);
    assert_eq!((job.next_index, job.len(), job.iter().count()), (u32::MAX, 0, 0));
    job.put(5, record(1));
    assert_eq!(job.get(5).map(|record| record.waiters), Some(1));
    assert_eq!(job.iter().map(|(index, _)| index).collect::<Vec<_>>(), [5]);
}
