//! Tasks that take their inputs in part.

use std::num::NonZeroU32;

use super::env::{Env, spec, task};
use crate::spec::{PartOf, TaskSpec};
use crate::wire::{FromClient, FromWorker, ToWorker};

fn part(index: u32, of: u32, from: u32) -> Option<PartOf> {
    Some(PartOf { index, of: NonZeroU32::new(of).unwrap(), from })
}

fn taking(part: Option<PartOf>, mut spec: TaskSpec) -> TaskSpec {
    spec.options.part = part;
    spec
}

#[test]
fn a_worker_is_told_which_part_and_about_how_large_it_is() {
    let mut env = Env::new(&[1]);
    env.quietly(|env| {
        env.scatter(0, 81, &[1]);
        env.scatter(1, 81, &[1]);
    });
    env.submit(vec![taking(part(2, 8, 1), spec(2, &[0, 1]))]);
    let said = env.take_to_workers();
    let Some(ToWorker::Compute(assignment)) = said.first() else { panic!("{said:?}") };
    let sizes: Vec<_> = assignment.inputs.iter().map(|input| (input.task, input.nbytes)).collect();
    assert_eq!((assignment.part, sizes), (part(2, 8, 1), vec![(task(0), 81), (task(1), 11)]));
}

#[test]
fn a_task_goes_where_the_most_bytes_of_what_it_takes_are() {
    for (part, at) in [(None, 1), (part(0, 8, 0), 1), (part(0, 8, 1), 2)] {
        let mut env = Env::new(&[1, 1]);
        env.quietly(|env| {
            env.scatter(0, 4_000_000, &[1]);
            env.scatter(1, 1_000_000, &[2]);
        });
        env.submit(vec![taking(part, spec(2, &[1, 0]))]);
        env.expect(&[&format!("w{at} < compute 2#1 (1@2 0@1)"), "c0 < accepted"]);
    }
}

#[test]
fn a_part_that_does_not_exist_is_refused() {
    let mut env = Env::new(&[1]);
    env.submit(vec![spec(0, &[]), taking(part(8, 8, 0), spec(1, &[0]))]);
    env.expect(&["c0 < rejected: task 0.1 cannot be taken: part 8 of 8 does not exist: parts are numbered from 0"]);
    env.submit(vec![spec(0, &[]), taking(part(7, 8, 2), spec(1, &[0]))]);
    env.expect(&[
        "c0 < rejected: task 0.1 cannot be taken: parts are taken from input 2 on, and there are 1: name an \
                  input of the task",
    ]);
    assert_eq!(env.scheduler.counts().total(), 0);
}

#[test]
fn a_part_of_an_output_is_no_task() {
    let mut env = Env::new(&[1]);
    env.submit(vec![TaskSpec { task: task(0).part(0), ..spec(0, &[]) }]);
    assert!(env.take()[0].starts_with("c0 < rejected"));
    env.submit(vec![spec(0, &[])]);
    env.finish(1, 0, 1);
    env.take();
    let part = task(0).part(0);
    assert_eq!((env.scheduler.nbytes(task(0)), env.scheduler.nbytes(part)), (Some(10), None));
    env.client(0, FromClient::Release { tasks: vec![part] });
    env.worker(1, FromWorker::Replica { task: part, attempt: crate::ids::Attempt(1), frees_heard: 0 });
    env.worker(1, FromWorker::NotAcquired { task: part });
    env.client(0, FromClient::Cancel { tasks: vec![part] });
    env.expect(&["w1 < free 0/0"]);
    assert_eq!(env.scheduler.nbytes(task(0)), Some(10));
}
